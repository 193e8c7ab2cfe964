"""How far a throughput can be trusted: from process to process, and measured while a search is busy.

    python benchmarks/throughput_spread.py                        the spread over 10 processes
    python benchmarks/throughput_spread.py --study studies/run1   and the coverage of a study's intervals
    python benchmarks/throughput_spread.py --device cuda --save   keeps what it prints in benchmarks/results/

Spread: networks drawn from a space are measured by 10 fresh processes, one after the other, the machine otherwise idle.
The coefficient of variation of a network's throughput over the processes is told twice: of what `measure_throughput`
gives, a quotient to the reference network that is timed in turns with it; and of its images/s by the clock alone, from
the same windows, as a timing without a reference would give it. Goals: at most 3 % on a shared CPU machine, 1 % on
a GPU.

Coverage: a study whose search ran with several workers on this machine has for each network the 95 % interval that was
measured while its neighbours were training (paused for as long). Now, with the machine idle, each network is measured
again by 5 fresh processes. The idle median, of one and the same scale, should lie in the study's interval in at least 9
of 10 cases.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circumstances import circumstances, saved
from listening import listening

import mlpspace
from mlpspace.architecture import Architecture
from mlpspace.calibration import calibrated
from mlpspace.device import describe, key, resolve
from mlpspace.objectives import Deployment
from mlpspace.quiet import QuietDevice
from mlpspace.reference import deployed
from mlpspace.space import read_space
from mlpspace.throughput import measure_throughput

GOAL = {"cpu": 0.03, "cuda": 0.01}
COVERED = 0.9


def one_process(asked: dict[str, Any]) -> list[dict[str, float]]:
    """Each network once: its throughput, and its images/s by the clock alone."""
    device = torch.device(asked["device"])
    found = []
    for text in asked["architectures"]:
        network = deployed(Architecture.from_json(text), asked["resolution"], asked["classes"])
        deployment = Deployment(asked["batch"], asked["precision"])
        with tempfile.TemporaryDirectory() as folder, listening() as heard:
            speed, *_ = measure_throughput(
                network,
                resolution=asked["resolution"],
                deployment=deployment,
                device=device,
                quiet=QuietDevice("alone", Path(folder)),
            )
        plain = asked["batch"] / statistics.median(heard[-1].ours)
        found.append(
            {"value": speed.value, "low": speed.low, "high": speed.high, "plain": plain, "loud": speed.disturbed}
        )
    return found


def processes(number: int, asked: dict[str, Any]) -> list[list[dict[str, float]]]:
    found = []
    for each in range(number):
        ran = subprocess.run([sys.executable, __file__, "--process", json.dumps(asked)], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(ran.stderr)
        found.append(json.loads(ran.stdout.splitlines()[-1]))
        print(f"process {each + 1} of {number}", file=sys.stderr)
    return found


def spread(args: argparse.Namespace, device: torch.device) -> bool:
    space = mlpspace.load_space(args.space)
    rng = np.random.default_rng(args.seed)
    networks = [space.sample(rng) for _ in range(args.networks)]
    asked = {
        "device": str(device),
        "architectures": [network.to_json() for network in networks],
        "resolution": space.resolution,
        "classes": space.classes,
        "batch": space.deployment.batch,
        "precision": space.deployment.precision,
    }
    quiet = QuietDevice(key(device))
    calibration = calibrated(device, space.resolution, space.deployment, quiet)
    with quiet.alone():
        found = processes(args.processes, asked)
    print(f"\nSpread over {args.processes} processes, {args.networks} networks of {args.space}")
    print(f"reference {calibration.reference:,.0f} images/s, spread between processes {calibration.spread:.1%}\n")
    print("images/s   CoV to reference   CoV by the clock   95 % interval, half   network")
    relative = []
    for i, network in enumerate(networks):
        of = [process[i] for process in found]
        calm = [each for each in of if not each["loud"]]
        if len(calm) < 3:
            print(f"{'':8}  others used the CPU in {len(of) - len(calm)} of {len(of)} processes: nothing to tell")
            continue
        cov = [
            float(np.std([e[name] for e in calm], ddof=1) / np.mean([e[name] for e in calm]))
            for name in ("value", "plain")
        ]
        half = statistics.median(math.log(each["high"] / each["low"]) / 2 for each in calm)
        relative.append(cov[0])
        middle = statistics.median(each["value"] for each in calm)
        print(f"{middle:8,.0f} {cov[0]:18.1%} {cov[1]:18.1%} {half:21.1%}   {network.describe()}")
    goal = GOAL[device.type]
    met = bool(relative) and statistics.median(relative) <= goal
    if relative:
        low, middle, high = np.percentile(relative, [0, 50, 100])
        print(
            f"\nto the reference: median {middle:.1%} ({low:.1%} to {high:.1%}); goal {goal:.0%}: "
            + ("met" if met else "NOT met")
        )
    return met


def coverage(args: argparse.Namespace, device: torch.device) -> bool:
    study = mlpspace.Study(args.study)
    space = read_space(study.space_text)
    trials = [t for t in study.trials() if (m := t.measurements.get("throughput")) is not None and not m.disturbed]
    trials = trials[: args.most]
    if not trials:
        print(f"\n{args.study} has no undisturbed throughput")
        return False
    asked = {
        "device": str(device),
        "architectures": [trial.architecture_json for trial in trials],
        "resolution": space.resolution,
        "classes": space.classes,
        "batch": space.deployment.batch,
        "precision": space.deployment.precision,
    }
    quiet = QuietDevice(key(device))
    scale = trials[0].measurements["throughput"].reference
    now = calibrated(device, space.resolution, space.deployment, quiet).reference
    with quiet.alone():
        found = processes(args.again, asked)
    print(
        f"\nCoverage: {len(trials)} networks of {args.study}, measured again by {args.again} processes on the idle"
        " machine\n"
    )
    print(" search   95 % interval       idle  covered  by the clock alone, idle")
    covered, absolute = 0, 0
    for i, trial in enumerate(trials):
        then = trial.measurements["throughput"]
        idle = statistics.median(process[i]["value"] for process in found) * (scale or now) / now
        plain = statistics.median(process[i]["plain"] for process in found)
        within, also = then.low <= idle <= then.high, then.low <= plain <= then.high
        covered += within
        absolute += also
        words = "yes" if within else "NO"
        print(
            f"{then.value:7,.0f}  {then.low:7,.0f}..{then.high:<7,.0f} {idle:8,.0f}  {words:7}  {plain:,.0f}"
            + ("" if also else " (not covered)")
        )
    share = covered / len(trials)
    met = share >= COVERED
    print(f"\ncovered: {covered} of {len(trials)} ({share:.0%}); goal {COVERED:.0%}: {'met' if met else 'NOT met'}")
    print(f"of the medians by the clock alone, with whatever the machine does today: {absolute} of {len(trials)}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="spaces/hybrid.yaml")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--study", help="of a busy search on this machine, whose intervals are put to the test")
    parser.add_argument("--most", type=int, default=24, help="networks of it")
    parser.add_argument("--again", type=int, default=5, help="processes on the idle machine")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.process:
        print(json.dumps(one_process(json.loads(args.process))))
        return 0
    device = resolve(args.device)

    def run() -> int:
        print(circumstances(describe(device)))
        parts = [coverage(args, device)] if args.study else [spread(args, device)]
        if device.type != "cuda":
            print("\nOn a GPU: not run.")
        return 0 if all(parts) else 1

    name = "throughput-coverage" if args.study else "throughput-spread"
    return saved(name, describe(device), run) if args.save else run()


if __name__ == "__main__":
    sys.exit(main())
