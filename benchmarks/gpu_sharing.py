"""Whether several small trials at once train faster on one GPU than one after the other: what a search finds out.

    python benchmarks/gpu_sharing.py                          1, 2, 4 and 8 trainings at once, width 128
    python benchmarks/gpu_sharing.py --width 32 --width 64    other mixers of `proxy_speed.py`
    python benchmarks/gpu_sharing.py --space spaces/hybrid.yaml    the networks that stand for those of a space

It measures as `mlpspace.sharing` does before a search that was not told `--gpus-per-worker`: `mlpspace.proxy.train` on
random images, each training a process, the groups in turns. But all counts are measured, also where fewer brought
nothing, and for longer. `of its turns`: each over the median of its count. Needs a GPU; `--device cpu` shows that it
works.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator

import torch
from circumstances import circumstances, saved
from proxy_speed import IMAGES, RUNG, Setting

from mlpspace.device import describe, key, resolve
from mlpspace.quiet import QuietDevice
from mlpspace.sharing import COUNTS, Trials, decided, in_sum, stages, trials_of
from mlpspace.space import load_space
from mlpspace.training_group import Group, Training

LIMIT_S = 3600.0  # for a network


def mixer(width: int, batch: int) -> Training:
    """Of `proxy_speed.py`."""
    setting = Setting(data=None, width=width, batch=batch, images=IMAGES["cuda"], threads=1, device="")
    return Training(
        architecture=setting.architecture,
        recipe=setting.recipe,
        resolution=32,
        classes=10,
        images=setting.images,
        validation=setting.images // 9,
        epochs=RUNG,
    )


def all_of(asked: argparse.Namespace) -> Iterator[tuple[str, Trials]]:
    """What is measured, with its name."""
    for file in asked.space or ():
        yield file, trials_of(load_space(file), data_path=asked.data, resident=None)
    for width in asked.width or ([] if asked.space else [128]):
        training = mixer(width, asked.batch)
        held = (training.images + training.validation) * 3 * training.resolution**2
        yield f"width {width}, batch {asked.batch}", Trials(trainings=(training,), epochs=RUNG, data_bytes=held)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu only to see that it works")
    parser.add_argument("--width", type=int, action="append", help="may be given again [128]")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--space", action="append", help="a space file; may be given again")
    parser.add_argument("--data", help="where the dataset of a space lies")
    parser.add_argument("--at-once", type=int, action="append", help="may be given again [1, 2, 4, 8]")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results")
    asked = parser.parse_args()
    if asked.device == "auto" and not torch.cuda.is_available():
        print("not run: it needs a GPU, and torch finds none here")
        return 0
    device = resolve(asked.device)
    counts = sorted({1, *(asked.at_once or COUNTS)})
    if len(counts) == 1:
        parser.error("--at-once 1 has nothing beside it: name another number too")

    def run() -> int:
        print(circumstances(describe(device)))
        for name, trials in all_of(asked):
            print(f"\n{name}")
            with QuietDevice(key(device)).alone(), Group(device, limit_s=LIMIT_S) as group:
                *_, (turns, memory) = stages(
                    group, trials.trainings, counts, turns=asked.repeats, seconds=asked.seconds
                )
            speeds = {count: in_sum(each) for count, each in sorted(turns.items())}
            print(f"{'at once':>8}{'images/s in all':>17}{'over one':>10}{'of its turns':>16}{'memory, GB':>12}")
            for count, speed in speeds.items():
                of_median = [turn / statistics.median(each) for each in turns[count] for turn in each]
                span = f"{min(of_median):.2f}..{max(of_median):.2f}"
                used = f"{memory[count].used / 1e9:.1f}" if count in memory else ""
                print(f"{count:>8}{speed:>17,.0f}{speed / speeds[1]:>10.2f}{span:>16}{used:>12}".rstrip())
            print(decided(speeds, memory, trials).words())
        return 0

    return saved("gpu_sharing", describe(device), run) if asked.save else run()


if __name__ == "__main__":
    sys.exit(main())
