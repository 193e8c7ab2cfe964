"""The proxy's training on images that stay in the cache's file, beside the same training with all images on the device.

    python benchmarks/streamed_data.py                    64 and 224 pixels on a CPU; 224 on a GPU, where there is one
    python benchmarks/streamed_data.py --repeats 9 --save keeps what it prints in benchmarks/results/
    python benchmarks/streamed_data.py --device cuda --images 50000

A repeat is an epoch of `proxy.train` with each, in turn, the same network, seed and order of images; who begins changes
from repeat to repeat. The ratio is streamed images/s over resident ones of the same repeat, seconds being those that
the training counts itself, validation and the start of the reading thread included. On a CPU the accuracies must be
equal to the last bit, and repeats during which other programs used a core are left out. "cold" is the streamed training
with none of the file in the system's memory when it begins, as after a restart; how quick that is, is up to the disk.
The networks are small, so that images are wanted quickly.

On a CPU the set is a folder of synthetic photographs (JPEG, 4:3, twice the resolution wide), decoded first, with one
thread and with all; on a GPU it is random pixels that are written into such a file as decoding would have.

2026-11-22, 2-core Xeon VM without a GPU, torch 2.13.0, 5 repeats; images/s, ratios with their 95 % intervals:

    network         pixels batch  images  resident  streamed   ratio                     cold
    mixer 2x64 /8       64   128   2,700     4,365     4,297   0.982  0.943 .. 1.009    0.859  0.824 .. 0.956
    mixer 2x64 /16     224    64     540       920       876   0.955  0.916 .. 1.061    0.854  0.809 .. 0.950
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from circumstances import circumstances, saved
from PIL import Image

from mlpspace import papers
from mlpspace.architecture import Architecture, Dense, Patches, Stage
from mlpspace.data import Dataset, load
from mlpspace.data.sources import find
from mlpspace.data.stored import Stored
from mlpspace.device import cores, describe, key, resolve, synchronize
from mlpspace.evaluate import fresh_network
from mlpspace.measurement import Failure, Measurement
from mlpspace.proxy import train
from mlpspace.quiet import OtherPrograms, QuietDevice
from mlpspace.recipe import Recipe
from mlpspace.timing import median_interval

CLASSES = 10
PHOTOGRAPHS = 200  # that differ; a folder has links to them
VALIDATION = 0.1
DISTURBED = 0.25  # cores that other programs used
RESIDENT, STREAMED, COLD = "resident", "streamed", "cold"


def mixer(patch: int, width: int, depth: int) -> Architecture:
    stage = Stage(depth=depth, width=width, token_mixer=Dense(ratio=0.5))
    return Architecture(stem=Patches(patch=patch), stages=(stage,))


def photographs(folder: Path, images: int, resolution: int) -> None:
    """Smooth colours with some noise: such files are of a photograph's size, and take as long to decode."""
    rng = np.random.default_rng(0)
    width, height = 2 * resolution, 3 * resolution // 2
    (folder / "different").mkdir(parents=True)
    for at in range(PHOTOGRAPHS):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-16, 17, (height, width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "different" / f"{at}.jpg", quality=90)
    for label in range(CLASSES):
        (folder / "set" / str(label)).mkdir(parents=True)
        for at in range(images // CLASSES):
            where = folder / "set" / str(label) / f"{at:05}.jpg"
            where.symlink_to(folder / "different" / f"{rng.integers(PHOTOGRAPHS)}.jpg")


def decoded_a_second(folder: Path, resolution: int, threads: int) -> float:
    """Images a second, of a folder."""
    part = find("photographs", str(folder), CLASSES, "").open()
    rows = np.arange(0, len(part.labels), max(1, len(part.labels) // 600))
    begun = time.perf_counter()
    for _ in part.images(rows, resolution).pieces(0, threads):
        pass
    return len(rows) / (time.perf_counter() - begun)


def from_folder(folder: Path, images: int, resolution: int, device: torch.device) -> dict[str, Dataset]:
    """The same set twice: on the device, and in the cache."""
    photographs(folder, images, resolution)
    speeds = [decoded_a_second(folder / "set", resolution, threads) for threads in (1, cores())]
    sizes = f"{2 * resolution} x {3 * resolution // 2} JPEG to {resolution} pixels"
    print(f"decoding {sizes}: {speeds[0]:,.0f} images/s with 1 thread, {speeds[1]:,.0f} with {cores()}")

    def loaded(resident: int) -> Dataset:
        return load(
            "photographs",
            str(folder / "set"),
            resolution=resolution,
            classes=CLASSES,
            images=None,
            validation=VALIDATION,
            seed=0,
            device=device,
            resident=resident,
        )

    return {RESIDENT: loaded(2**40), STREAMED: loaded(0)}


def from_chance(folder: Path, images: int, resolution: int, device: torch.device) -> dict[str, Dataset]:
    """Random pixels, likewise."""
    shape = (images, 3, resolution, resolution)
    file = folder / "random.npy"
    rng = np.random.default_rng(0)
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        head = stream.tell()
        for start in range(0, images, 256):
            stream.write(rng.bytes(min(256, images - start) * 3 * resolution**2))
        stream.flush()
        os.fsync(stream.fileno())
    whole = Stored(file, shape, head)
    rows = rng.permutation(images)
    val, trained = (np.sort(some) for some in np.split(rows, [round(VALIDATION * images)]))
    labels = torch.from_numpy(rng.integers(0, CLASSES, images))

    def on_device(part: Stored) -> torch.Tensor:
        there = torch.empty(part.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(part), 256):
            some = np.empty(there[start : start + 256].shape, np.uint8)
            part.read(slice(start, start + 256), some)
            there[start : start + 256] = torch.from_numpy(some)
        return there

    def made(place: Callable[[Stored], torch.Tensor | Stored]) -> Dataset:
        return Dataset(
            name="random",
            train_images=place(whole.part(trained)),
            train_labels=labels[trained].to(device),
            val_images=place(whole.part(val)),
            val_labels=labels[val].to(device),
            mean=torch.full((3,), 0.5, device=device),
            std=torch.full((3,), 0.29, device=device),
            classes=CLASSES,
            mirrors=True,
            fingerprint="0" * 16,
        )

    return {RESIDENT: made(on_device), STREAMED: made(lambda part: part)}


def forget(data: Dataset) -> None:
    """The system gives up what it holds of the file; it does so of pages that are on the disk already."""
    assert isinstance(data.train_images, Stored)
    with data.train_images.file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(data: Dataset, architecture: Architecture, resolution: int, batch: int, quiet: QuietDevice) -> Measurement:
    """What an epoch comes to.

    Raises:
        RuntimeError: it came to nothing.
    """
    device = data.train_labels.device
    network = fresh_network(architecture, resolution, CLASSES, seed=0).to(device)
    events = train(network, data, recipe=Recipe(batch=batch), epochs=(1,), seed=0, device=device, quiet=quiet)
    found = [event for event in events if isinstance(event, Measurement | Failure)][-1]
    if isinstance(found, Failure):
        raise RuntimeError(f"{found.reason}: {found.detail}")
    synchronize(device)
    return found


def compare(
    sets: dict[str, Dataset], name: str, architecture: Architecture, resolution: int, batch: int, repeats: int
) -> None:
    """Prints a line."""
    device = sets[RESIDENT].train_labels.device
    quiet = QuietDevice(key(device))
    images = len(sets[RESIDENT].train_labels)
    repeated: list[dict[str, float]] = []
    turns = [RESIDENT, STREAMED, COLD]
    others = OtherPrograms()
    for repeat in range(3 * repeats + 1):
        values, took = set(), {}
        others.cores_used()
        for which in turns:
            if which == COLD:
                forget(sets[STREAMED])
            got = epoch(sets[RESIDENT if which == RESIDENT else STREAMED], architecture, resolution, batch, quiet)
            values.add(got.value)
            took[which] = got.seconds
        turns.reverse()
        if device.type == "cpu" and len(values) > 1:
            raise RuntimeError(f"accuracies differ: {values}")
        if repeat and (device.type != "cpu" or others.cores_used() <= DISTURBED):  # the first warms up
            repeated.append(took)
        if len(repeated) == repeats:
            break
    if not repeated:
        print(f"{name:18} {resolution:6} not measured: other programs use this machine")
        return
    seconds = {which: [took[which] for took in repeated] for which in turns}
    speeds = [images / statistics.median(seconds[which]) for which in (RESIDENT, STREAMED)]
    told = []
    for which in (STREAMED, COLD):
        ratio, low, high = median_interval([a / b for a, b in zip(seconds[RESIDENT], seconds[which], strict=True)])
        told.append(f"{ratio:7.3f} {f'{low:.3f} .. {high:.3f}':>16}")
    found = f"{speeds[0]:9,.0f} {speeds[1]:9,.0f} {'  '.join(told)} {len(repeated):8}"
    print(f"{name:18} {resolution:6} {batch:5} {images:7,} {found}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--images", type=int, help="of 224 pixels [default: 600 on a CPU, 50,000 on a GPU]")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the files are written: on the disk that is to be measured")
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results/")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("not run: there is no GPU here")
        return 0
    device = resolve(given.device)
    torch.set_num_threads(cores())
    if given.save:
        return saved("streamed_data", describe(device), lambda: run(given, device))
    return run(given, device)


def run(given: argparse.Namespace, device: torch.device) -> int:
    print(circumstances(describe(device), "numpy", "pillow"))
    gpu = device.type == "cuda"
    if gpu:
        of_sides = {224: (given.images or 50_000, 256, {"mixer 4x128 /16": mixer(16, 128, 4), "mixer_s16": None})}
    else:
        of_sides = {
            64: (3000, 128, {"mixer 2x64 /8": mixer(8, 64, 2)}),
            224: (given.images or 600, 64, {"mixer 2x64 /16": mixer(16, 64, 2)}),
        }
    head = f"{'network':18} {'pixels':>6} {'batch':>5} {'images':>7} {'resident':>9} {'streamed':>9}"
    for side, (images, batch, networks) in of_sides.items():
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            os.environ["MLPSPACE_CACHE"] = f"{folder}/cache"
            sets = (from_chance if gpu else from_folder)(Path(folder), images, side, device)
            print(f"{head} {'ratio':>7} {'95 % interval':>16}  {'cold':>7} {'95 % interval':>16} {'repeats':>8}")
            for name, architecture in networks.items():
                compare(sets, name, architecture or papers.architecture(name), side, batch, given.repeats)
    if not gpu:
        print("not run: 224 pixels on a GPU, as there is none here")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
