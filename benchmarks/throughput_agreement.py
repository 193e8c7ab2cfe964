"""Images a second by our protocol beside two other clocks, for the same timm networks: do they agree within 3 %?

    python benchmarks/throughput_agreement.py                        all networks, 3 processes of 2 rounds each
    python benchmarks/throughput_agreement.py --only mixer_s32_224 --batch 16 --rounds 5
    python benchmarks/throughput_agreement.py --device cuda --precision bf16 --batch 256
    python benchmarks/throughput_agreement.py --timm-benchmark pytorch-image-models/benchmark.py
    python benchmarks/throughput_agreement.py --save                 keeps what it prints in benchmarks/results/
    python benchmarks/throughput_agreement.py --json                 for programs

    ours    mlpspace.throughput.measure_throughput, of timm's module as it is: nothing is folded
    timm    as timm's benchmark.py times inference: 10 passes to warm up, then 40, each waited for; the mean
    timer   torch.utils.benchmark.Timer(...).blocked_autorange(), at least a second; the median
    script  that benchmark.py itself, where it is named: it is in timm's repository and not in its wheel

A round is one turn of ours, timm and timer on the same module in the same process, who begins changes from round to
round, and each network has several processes of its own, the networks in turns. The script is a process by itself, one
after each of ours. All have the same threads, precision and batch of normal random images. On a GPU the script allows
TF32 and cuDNN's benchmark mode, and the others leave torch as it is: compare with it in bf16. The machine is calibrated
at the beginning (`mlpspace.calibration`); our figure is told in the reference network's images/s of this minute, as the
others' are.

All keep the memory they have freed (`mlpspace.memory.memory_kept`; the script by glibc's environment variables), as a
fresh process may otherwise have its pages anew in each pass: mobilenetv3_small_100, batch 4, had 2,075 to 3,297 page
faults a pass in 4 fresh processes and 234 images/s, and in 4 that kept memory at most 5 faults and 287 images/s (2-core
Xeon VM, 2 threads, fp32, torch 2.15.0, median of 16 times 40 passes, 2026-11-22).

A ratio is the one's images/s over the other's in the same round, each process giving the median of its rounds; printed
are the median of the processes and the 95 % bootstrap interval of that median. `agrees` is "yes" if the interval lies
within 3 % of 1, "no" if it lies beyond, else "open". How far timer and timm agree with each other tells what can be
seen on the machine. Ours leaves out moments in which other programs used a CPU and the others do not: `busy` tells how
many cores were not ours, the mean. Rounds in which ours had to count such moments too are left out, where there are any
without. On a GPU ours may replay a CUDA graph, and says so in `runtime`; the others launch each kernel. Needs timm.

2026-11-22, 2-core Xeon VM without a GPU, 2 threads, fp32, batch 4, torch 2.15.0, timm 1.0.31, the machine quiet;
5 processes of 4 rounds. Of the two networks of the kind that is searched here all of ours/timm lies within 3 %; of the
convolutional one the median does. On an hour in which other programs ran, timer and timm differed by 2 to 11 %.

    network                ours/timm           ours/timer          timer/timm
    mixer_s32_224          1.011 (0.99..1.03)  0.995 (0.99..1.00)  1.015 (1.00..1.02)
    resmlp_12_224          1.006 (1.00..1.02)  0.996 (0.97..1.03)  1.011 (0.99..1.02)
    mobilenetv3_small_100  0.972 (0.96..1.00)  0.966 (0.96..0.98)  1.012 (1.00..1.02)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from circumstances import circumstances, saved
from listening import listening
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from mlpspace.device import cores, describe, dtype_of, key, resolve, synchronize
from mlpspace.fingerprint import fingerprint
from mlpspace.memory import memory_kept
from mlpspace.objectives import Deployment
from mlpspace.quiet import OtherPrograms, QuietDevice
from mlpspace.throughput import measure_throughput
from mlpspace.timing import median_interval

NETWORKS = ("mixer_s32_224", "resmlp_12_224", "mobilenetv3_small_100")
RESOLUTION = 224
WARM_STEPS, STEPS = 10, 40  # the defaults of timm's benchmark.py
TIMER_S = 1.0
CLOSE = 0.03
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
TIMM_PRECISION = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Images/s of one network by each clock, in the same minute."""

    ours: float
    low: float
    high: float
    timm: float
    timer: float
    runtime: str
    disturbed: bool  # ours could not leave out what other programs disturbed
    busy: float  # cores that other programs used, the mean
    script: float | None = None


def as_timm(network: nn.Module, images: Tensor) -> float:
    """Images/s as timm's benchmark.py finds them."""
    for _ in range(WARM_STEPS):
        network(images)
        synchronize(images.device)
    begun = time.perf_counter()
    for _ in range(STEPS):
        network(images)
        synchronize(images.device)
    return STEPS * len(images) / (time.perf_counter() - begun)


def by_timer(network: nn.Module, images: Tensor) -> float:
    """Images/s as torch.utils.benchmark finds them."""
    timer = Timer(
        "network(images)",
        globals={"network": network, "images": images},
        num_threads=torch.get_num_threads(),  # of its own accord it takes one
    )
    return len(images) / timer.blocked_autorange(min_run_time=TIMER_S).median


def rounds_of(
    name: str, *, deployment: Deployment, device: torch.device, rounds: int, patience_s: float
) -> list[Round]:
    """The rounds of one process."""
    import timm

    assert deployment.precision is not None
    dtype = dtype_of(deployment.precision)
    torch.manual_seed(0)
    network = timm.create_model(name).eval().to(device=device, dtype=dtype)
    images = torch.randn(deployment.batch, 3, RESOLUTION, RESOLUTION).to(device=device, dtype=dtype)
    quiet = QuietDevice(key(device))

    def ours() -> dict[str, Any]:
        with listening() as heard:
            speed, *_ = measure_throughput(
                network, resolution=RESOLUTION, deployment=deployment, device=device, quiet=quiet, patience_s=patience_s
            )
        # the others tell this minute's images/s, so the scale is this minute's, too, and not the calibration's
        now = deployment.batch / heard[-1].reference_seconds / (speed.reference or 1.0)
        return {
            "ours": speed.value * now,
            "low": speed.low * now,
            "high": speed.high * now,
            "runtime": speed.runtime,
            "disturbed": speed.disturbed,
        }

    def another(clock: Callable[[nn.Module, Tensor], float]) -> float:
        with quiet.alone(), torch.inference_mode(), memory_kept(device):
            return clock(network, images)

    turns: list[Callable[[], dict[str, Any]]] = [
        ours,
        lambda: {"timm": another(as_timm)},
        lambda: {"timer": another(by_timer)},
    ]
    ours()  # calibrates the machine where it is not, which takes a while, and is what comes before every later turn too
    found = []
    for _ in range(rounds):
        others = OtherPrograms()
        told: dict[str, Any] = {}
        for turn in turns:
            told |= turn()
        found.append(Round(**told, busy=others.cores_used() if device.type == "cpu" else 0.0))
        turns.append(turns.pop(0))
    return found


def in_a_process(name: str, given: argparse.Namespace) -> list[Round]:
    """The same in a fresh process."""
    asked = [sys.executable, __file__, "--inside", "--only", name, "--batch", str(given.batch)]
    asked += ["--rounds", str(given.rounds), "--threads", str(given.threads), "--patience", str(given.patience)]
    asked += ["--device", given.device, "--precision", given.precision]
    ran = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True)
    return [Round(**each) for each in json.loads(ran.stdout.splitlines()[-1])]


def by_script(script: Path, name: str, given: argparse.Namespace) -> float:
    """Images/s that timm's benchmark.py tells."""
    asked = [sys.executable, str(script), "--model", name, "--bench", "inference", "--no-retry"]
    asked += ["--batch-size", str(given.batch), "--precision", TIMM_PRECISION[given.precision]]
    asked += ["--device", given.device]
    environment = {**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": str(given.threads)}
    ran = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(json.loads(ran.stdout.partition("--result")[2])["infer_samples_per_sec"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Images/s of one network by one clock over those by another."""

    network: str
    clock: str
    other: str
    speed: float  # images/s, the median of all rounds
    other_speed: float
    ratio: float  # the median of the processes, with its interval
    low: float
    high: float
    rounds: int  # that count
    runtime: str  # of ours
    busy: float

    @property
    def agrees(self) -> str:
        if self.low >= 1 - CLOSE and self.high <= 1 + CLOSE:
            return "yes"
        return "no" if self.low > 1 + CLOSE or self.high < 1 - CLOSE else "open"


def agreement(network: str, clock: str, other: str, processes: list[list[Round]]) -> Agreement:
    """Of all processes' rounds."""
    undisturbed = [[each for each in rounds if not each.disturbed] for rounds in processes]
    counting = [rounds for rounds in undisturbed if rounds] or processes
    ratios = [statistics.median(getattr(each, clock) / getattr(each, other) for each in rounds) for rounds in counting]
    ratio, low, high = median_interval(ratios)
    every = [each for rounds in counting for each in rounds]
    return Agreement(
        network=network,
        clock=clock,
        other=other,
        speed=statistics.median(getattr(each, clock) for each in every),
        other_speed=statistics.median(getattr(each, other) for each in every),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(every),
        runtime=", ".join(sorted({each.runtime + " (disturbed)" * each.disturbed for each in every})),
        busy=statistics.mean(each.busy for each in every),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="this network of timm's; may be given again")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch; for a GPU 256")
    parser.add_argument("--rounds", type=int, default=2, help="in each process")
    parser.add_argument("--processes", type=int, default=3, help="for each network")
    parser.add_argument("--threads", type=int, default=cores(), help="of a CPU; as many as there are cores")
    parser.add_argument("--patience", type=float, default=20, help="seconds of ours on a busy CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=TIMM_PRECISION, default="fp32")
    parser.add_argument("--timm-benchmark", type=Path, metavar="FILE", help="timm's own benchmark.py, run as well")
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results/")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()

    if importlib.util.find_spec("timm") is None:
        print("not run: timm is not installed (pip install timm)")
        return
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("not run: there is no GPU here")
        return
    device = resolve(given.device)
    torch.set_num_threads(given.threads)
    names = given.only or NETWORKS
    if given.inside:
        deployment = Deployment(batch=given.batch, precision=given.precision)
        asked = {"deployment": deployment, "device": device, "rounds": given.rounds, "patience_s": given.patience}
        print(json.dumps([asdict(each) for each in rounds_of(names[0], **asked)]))
        return

    if given.save:
        raise SystemExit(saved("throughput-agreement", describe(device), lambda: report(given, device, names)))
    report(given, device, names)


def report(given: argparse.Namespace, device: torch.device, names: Sequence[str]) -> int:
    """Runs all processes and prints what they found."""
    processes: dict[str, list[list[Round]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MLPSPACE_CACHE"] = cache  # with no calibration in it
        for number in range(given.processes):
            for name in names:
                rounds = in_a_process(name, given)
                if given.timm_benchmark:
                    script = by_script(given.timm_benchmark, name, given)
                    rounds = [replace(each, script=script) for each in rounds]
                processes[name].append(rounds)
                print(f"{name}, process {number + 1} of {given.processes}", file=sys.stderr)

    pairs = [("ours", "timm"), ("ours", "timer"), ("timer", "timm")]
    if given.timm_benchmark:
        pairs += [("ours", "script"), ("timm", "script")]
    found = [agreement(name, *pair, processes[name]) for name in names for pair in pairs]
    head = circumstances(fingerprint(device).words(), "timm")
    if given.json:
        raw = {name: [[asdict(each) for each in rounds] for rounds in processes[name]] for name in names}
        told = [{**asdict(each), "agrees": each.agrees} for each in found]
        print(json.dumps({"agreements": told, "rounds": raw, "circumstances": head}))
        return 0
    print(head)
    print(f"# {given.precision}, batch {given.batch}, {given.processes} processes of {given.rounds} rounds a network\n")
    print(f"{'images/s':21} {'one':5} {'other':6} {'one':>7} {'other':>7} {'ratio':>6} {'low':>6} {'high':>6}", end="")
    print(f" agrees {'rounds':>6} {'busy':>5}  runtime")
    for each in found:
        speeds = f"{each.network:21} {each.clock:5} {each.other:6} {each.speed:7.1f} {each.other_speed:7.1f}"
        ratios = f"{each.ratio:6.3f} {each.low:6.3f} {each.high:6.3f} {each.agrees:6}"
        print(f"{speeds} {ratios} {each.rounds:6} {each.busy:5.2f}  {each.runtime}")
    return 0


if __name__ == "__main__":
    main()
