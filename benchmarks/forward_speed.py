"""Images a second of our deployed networks beside timm's modules of the same networks, with the same weights.

    python benchmarks/forward_speed.py                           all networks, batches 8 and 64
    python benchmarks/forward_speed.py --only gmlp_s16 --batch 8 --repeats 50
    python benchmarks/forward_speed.py --device cuda --precision bf16
    python benchmarks/forward_speed.py --json                    for programs

Both are in eval and inference_mode, have the same weights (ours are converted from timm's, and before the clock starts
both must give the same logits) and take the same images, of 224 pixels, that already lie on the device. A repeat is
one turn of each, a turn as many forward passes as last 50 ms; who begins changes from repeat to repeat. The ratio is
timm's seconds over ours, so above 1 ours is quicker; its median over the repeats and the 95 % bootstrap interval of
that median are what counts. Repeats during which other programs used a CPU are left out while patience lasts; where it
ends, all count, and `others` tells how many cores were not ours. Needs timm.

2026-11-21, 2-core Xeon VM without a GPU, 2 threads, fp32, torch 2.15.0, timm 1.0.31; 11 repeats, of mixer_b16 7. The
machine was shared: up to 1.3 cores were busy with other programs, which the images/s show more than the ratios do.

    network      batch   ours   timm   ratio  95 % interval
    mixer_b16        8    2.7    2.6    1.04  0.97 .. 1.08
    mixer_b16       64    9.4    8.0    1.13  1.08 .. 1.19
    resmlp_s24       8    3.6    2.8    1.30  1.29 .. 1.31
    resmlp_s24      64    8.2    6.2    1.31  1.28 .. 1.33
    gmlp_s16         8   25.7   23.5    1.08  1.06 .. 1.10
    gmlp_s16        64   15.0   11.1    1.34  1.27 .. 1.39
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from mlpspace import papers, weights
from mlpspace.device import cores, describe, dtype_of, resolve, synchronize
from mlpspace.nets import build, deploy
from mlpspace.quiet import OtherPrograms
from mlpspace.timing import median_interval

RESOLUTION = 224
CLASSES = 1000
TURN_S = 0.05
DISTURBED = 0.25  # cores that other programs used
AGREE = {"fp32": 1e-3, "bf16": 0.2}  # largest difference of two logits, in deviations of all logits

TIMM = {"mixer_b16": "mixer_b16_224", "resmlp_s24": "resmlp_24_224", "gmlp_s16": "gmlp_s16_224"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One network at one batch. The ratio is ours over timm's in images a second, with its interval."""

    network: str
    batch: int
    ours: float  # images/s, the median
    timm: float
    ratio: float
    ratio_low: float
    ratio_high: float
    others: float  # cores that other programs kept busy meanwhile, the mean


def both(name: str, device: torch.device, precision: str) -> tuple[nn.Module, nn.Module]:
    """Our deployed network and timm's, with the same random weights."""
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model(TIMM[name]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # away from the biases of 0 and the like, where mistakes do not show
            parameter.add_(0.02 * torch.randn_like(parameter))
    network = build(papers.architecture(name), RESOLUTION, CLASSES)
    network.load_state_dict(weights.convert(theirs.state_dict(), name))
    ours = deploy(network.eval())
    dtype = dtype_of(precision)
    return ours.to(device=device, dtype=dtype), theirs.to(device=device, dtype=dtype)


@torch.inference_mode()
def measure(name: str, batch: int, *, device: torch.device, precision: str, repeats: int, patience_s: float) -> Pair:
    """Both networks by turns.

    Raises:
        RuntimeError: their logits differ, so that the times would not compare.
    """
    ours, theirs = both(name, device, precision)
    normal = torch.randn(batch, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(0))
    images = normal.to(device=device, dtype=dtype_of(precision))
    expected, found = theirs(images).float(), ours(images).float()  # the first passes, which warm up too
    difference = float((found - expected).abs().max() / expected.std())
    if not difference < AGREE[precision]:
        raise RuntimeError(f"{name}: a logit of ours differs from timm's by {difference:.2g} deviations")

    repeated = by_turns(ours, theirs, images, repeats=repeats, patience_s=patience_s)
    our_seconds, their_seconds, used = zip(*repeated, strict=True)
    ratio, low, high = median_interval([t / o for o, t in zip(our_seconds, their_seconds, strict=True)])
    return Pair(
        network=name,
        batch=batch,
        ours=batch / statistics.median(our_seconds),
        timm=batch / statistics.median(their_seconds),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        others=statistics.mean(used),
    )


def by_turns(
    ours: nn.Module, theirs: nn.Module, images: Tensor, *, repeats: int, patience_s: float
) -> list[tuple[float, float, float]]:
    """For each repeat: seconds of a forward pass of ours, of theirs, and the cores that other programs used."""
    passes = max(1, math.ceil(TURN_S / min(seconds(ours, images, 1), seconds(theirs, images, 1))))
    turns = [ours, theirs]
    repeated: list[tuple[float, float, float]] = []
    others = OtherPrograms()
    begun = time.perf_counter()
    while len(repeated) < repeats or time.perf_counter() - begun < patience_s:
        taken = {network: seconds(network, images, passes) for network in turns}
        turns.reverse()
        repeated.append((taken[ours], taken[theirs], others.cores_used() if images.device.type == "cpu" else 0.0))
        quiet = [repeat for repeat in repeated if repeat[2] <= DISTURBED]
        if len(quiet) == repeats:
            return quiet
    return repeated


def seconds(network: Callable[[Tensor], Tensor], images: Tensor, passes: int) -> float:
    """Seconds of one forward pass, the mean of so many in a row."""
    synchronize(images.device)
    begun = time.perf_counter()
    for _ in range(passes):
        network(images)
    synchronize(images.device)
    return (time.perf_counter() - begun) / passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TIMM, action="append", help="this network; may be given again")
    parser.add_argument("--batch", type=int, action="append", help="images in a batch; may be given again")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--patience", type=float, default=300, help="seconds for a pair of networks on a busy CPU")
    parser.add_argument("--threads", type=int, default=cores(), help="of a CPU; as many as there are cores")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=AGREE, default="fp32")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args()
    if find_spec("timm") is None:
        parser.error("it needs timm: pip install 'mlpspace[timm]'")

    torch.set_num_threads(given.threads)
    device = resolve(given.device)
    pairs = []
    for name in given.only or TIMM:
        for batch in given.batch or (8, 64):
            pair = measure(
                name,
                batch,
                device=device,
                precision=given.precision,
                repeats=given.repeats,
                patience_s=given.patience,
            )
            pairs.append(pair)
            print(f"{name}, batch {batch}: {pair.ratio:.3f}", file=sys.stderr)

    circumstances = {
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "precision": given.precision,
        "repeats": given.repeats,
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("torch", "timm")},
    }
    if given.json:
        print(json.dumps({"pairs": [asdict(pair) for pair in pairs], **circumstances}))
        return
    print(", ".join(f"{name} {value}" for name, value in circumstances.items()))
    print(f"{'images/s':12} {'batch':>5} {'ours':>8} {'timm':>8} {'ratio':>7} {'low':>7} {'high':>7} {'others':>7}")
    for pair in pairs:
        speeds = f"{pair.ours:8.1f} {pair.timm:8.1f}"
        ratios = f"{pair.ratio:7.3f} {pair.ratio_low:7.3f} {pair.ratio_high:7.3f}"
        print(f"{pair.network:12} {pair.batch:5} {speeds} {ratios} {pair.others:7.1f}")


if __name__ == "__main__":
    main()
