"""Whether several small trials at once train faster on one GPU than one after the other, and what to type if so.

    python benchmarks/gpu_sharing.py                          1, 2 and 4 trainings at once, width 128
    python benchmarks/gpu_sharing.py --width 32 --width 64    of the networks that a space holds most of

The trainings are those of `proxy_speed.py`: `mlpspace.proxy.train` on mixers of 8 blocks at 32 pixels, random images.
Each is a process, as a worker of a search is. All of a group train until each has passed its first epochs, in which
steps are recorded as CUDA graphs where that pays; then all start at one moment, and what each trains in the same time
is summed up. The groups take turns.

It is a script and no part of a search: the answer hangs on the networks, several of them share the GPU's memory, and
each pauses while another is measured, so that whoever starts a search should have seen the figures. Needs a GPU;
`--device cpu` shows that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

import torch
from circumstances import circumstances, saved
from proxy_speed import Setting, ours

from mlpspace.device import describe, resolve, synchronize

WARM_EPOCHS = 3
STEPS = 40  # of an epoch
WORTH = 1.1  # times the images/s of fewer at once: less is not worth the memory


def worker(setting: Setting) -> None:
    """One of a group: for each line with seconds, the images that it trained in them and how long it really took."""
    torch.set_num_threads(setting.threads)
    device = resolve(setting.device)
    epochs = ours(setting, device)
    for _ in range(WARM_EPOCHS):
        next(epochs)
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        trained = 0
        while time.perf_counter() - begun < float(line):
            next(epochs)
            trained += setting.images
        synchronize(device)
        print(json.dumps([trained, time.perf_counter() - begun]), flush=True)


def together(setting: Setting, count: int, seconds: float) -> float:
    """Images/s of so many trainings at once, all of them together."""
    command = [sys.executable, __file__, "--worker", json.dumps(dataclasses.asdict(setting))]
    group = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(count)
    ]
    try:
        for each in group:
            assert each.stdout is not None
            if each.stdout.readline().strip() != "ready":
                raise RuntimeError("a training ended: see its words above")
        for each in group:
            assert each.stdin is not None
            each.stdin.write(f"{seconds}\n")
        total = 0.0
        for each in group:
            assert each.stdout is not None
            trained, took = json.loads(each.stdout.readline())
            total += trained / took
        return total
    finally:
        for each in group:
            each.kill()
            each.wait()


def at_once(speeds: Mapping[int, float]) -> int:
    """How many trainings at once, by the images/s of so many: more than fewer only where it is worth it.

    Example:
        >>> at_once({1: 100.0, 2: 160.0, 4: 170.0})
        2
    """
    best = min(speeds)
    for count in sorted(speeds):
        if speeds[count] >= WORTH * speeds[best]:
            best = count
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu only to see that it works")
    parser.add_argument("--width", type=int, action="append", help="may be given again [128]")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--at-once", type=int, action="append", help="may be given again [1, 2, 4]")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(Setting(**json.loads(asked.worker)))
        return 0
    if asked.device == "auto" and not torch.cuda.is_available():
        print("not run: it needs a GPU, and torch finds none here")
        return 0
    device = resolve(asked.device)
    counts = sorted(set(asked.at_once or [1, 2, 4]))

    def run() -> int:
        print(circumstances(describe(device)))
        for width in asked.width or [128]:
            setting = Setting(
                data=None,
                width=width,
                batch=asked.batch,
                images=STEPS * asked.batch,
                threads=1,
                device=asked.device,
            )
            speeds: dict[int, list[float]] = {count: [] for count in counts}
            for _ in range(asked.repeats):
                for count in counts:
                    speeds[count].append(together(setting, count, asked.seconds))
            print(f"\nwidth {width}, batch {asked.batch}")
            print(f"{'at once':>8}{'images/s in all':>17}{'range':>18}{'over one':>10}")
            medians = {count: statistics.median(each) for count, each in speeds.items()}
            for count, each in speeds.items():
                span = f"{min(each):,.0f}..{max(each):,.0f}"
                print(f"{count:>8}{medians[count]:>17,.0f}{span:>18}{medians[count] / medians[counts[0]]:>10.2f}")
            best = at_once(medians)
            print(f"for such networks: --gpus-per-worker {1 / best:g}")
        return 0

    return saved("gpu_sharing", describe(device), run) if asked.save else run()


if __name__ == "__main__":
    sys.exit(main())
