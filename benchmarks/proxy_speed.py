"""Training images a second of our proxy beside a plain PyTorch loop and beside timm's way, on the same network.

    python benchmarks/proxy_speed.py --data PATH              of CIFAR-10; without it random images of its size
    python benchmarks/proxy_speed.py --ways                   ours in other ways too: `mlpspace.step_ways`, precision
    python benchmarks/proxy_speed.py --threads 1 --width 128 --repeats 7 --save

    ours    `mlpspace.proxy.train`: images on the device, augmented there in batches
    loop    what one writes: torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize on PIL images, a
            DataLoader, autocast, AdamW (foreach, as torch does it by default), OneCycleLR
    timm    timm's train.py is in its repository and not in its wheel. Built of what that script is built of, in its
            order: create_loader with its prefetcher, create_optimizer_v2, create_scheduler_v2 stepped each update,
            LabelSmoothingCrossEntropy, autocast, the loss fetched every 50 updates. Scale and ratio 1 and no colour
            jitter, so that its transforms cost it least.

All have the same network with the same weights to begin with, batch, precision, rates of learning and images, held as
uint8 in memory, and validate after each epoch, which counts: images/s are those trained on, by the clock of the whole
epoch. The DataLoaders have as many workers as each is fastest with in this run, of those listed under WORKERS. Each
contestant is a process of its own, which has trained an epoch before it is timed. They take turns, an epoch each, in an
order that turns round from repeat to repeat. A ratio is ours over the other's in the same repeat; its median and
the 95 % bootstrap interval of that median are what counts.

`of peak` is 6 MACs an image (forwards, and backwards by inputs and by weights) over what one large product of
matrices reaches in this run, in the training's precision. Lines for a GPU say "not run" where there is none.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from circumstances import circumstances, saved
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mlpspace.architecture import Architecture, Dense, Mlp, Patches, Stage
from mlpspace.counts import profile
from mlpspace.data import Dataset, load
from mlpspace.device import cores, describe, dtype_of, resolve, synchronize, training_precision
from mlpspace.evaluate import fresh_network
from mlpspace.measurement import Progress
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Recipe
from mlpspace.timing import median_interval

RESOLUTION, CLASSES = 32, 10
EPOCHS = 1000  # more than any run does
RUNG = 20  # epochs between two rungs of ours: what has to pay, as a CUDA graph, has to pay within them
WORKERS = {"cpu": (0, 1, 2), "cuda": (2, 4, 8, 16)}
IMAGES = {"cpu": 1024, "cuda": 45_000}  # of an epoch; a ninth as many validate
AIMS = {"cpu": ("loop", 1.2), "cuda": ("timm", 5.0)}  # at width 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all contestants of a run have in common."""

    data: str | None
    width: int
    batch: int
    images: int
    threads: int
    device: str

    @property
    def architecture(self) -> Architecture:
        """At width 128 it has 0.94 M weights."""
        stage = Stage(depth=8, width=self.width, token_mixer=Dense(ratio=1.0), channel_mixer=Mlp(ratio=3.0))
        return Architecture(stem=Patches(patch=4), stages=(stage,))

    @property
    def recipe(self) -> Recipe:
        return Recipe(batch=self.batch)

    def dataset(self) -> Dataset:
        """On the CPU."""
        if self.data is not None:
            found = load("cifar10", self.data, resolution=32, classes=10, images=self.images, validation=0.1, seed=0)
            few = self.images // 9
            assert isinstance(found.val_images, Tensor)
            return dataclasses.replace(found, val_images=found.val_images[:few], val_labels=found.val_labels[:few])
        rng = torch.Generator().manual_seed(0)
        total = self.images + self.images // 9
        pixels = torch.randint(256, (total, 3, 32, 32), generator=rng, dtype=torch.uint8)
        labels = torch.randint(10, (total,), generator=rng)
        return Dataset(
            name="random",
            train_images=pixels[: self.images],
            train_labels=labels[: self.images],
            val_images=pixels[self.images :],
            val_labels=labels[self.images :],
            mean=torch.full((3,), 0.5),
            std=torch.full((3,), 0.29),
            classes=10,
            mirrors=True,
            fingerprint="0" * 16,
        )


# --- the contestants: each yields once for an epoch -----------------------------------------------------------------


def ours(setting: Setting, device: torch.device) -> Iterator[None]:
    network = fresh_network(setting.architecture, RESOLUTION, CLASSES, seed=0).to(device)
    quiet = QuietDevice("proxy_speed", Path(tempfile.mkdtemp()))  # its locks are taken as always; nobody else does
    events = train(
        network,
        setting.dataset().to(device),
        recipe=setting.recipe,
        epochs=tuple(range(RUNG, EPOCHS + 1, RUNG)),
        seed=0,
        device=device,
        quiet=quiet,
    )
    for event in events:
        if isinstance(event, Progress) and event.accuracy is not None:
            yield


def forced(*changes: str) -> Callable[[Setting, torch.device], Iterator[None]]:
    """Ours with these changes of a step made at once and kept, whatever the clock says."""

    def run(setting: Setting, device: torch.device) -> Iterator[None]:
        from mlpspace import proxy, step_ways

        proxy.CHANGES = {device.type: changes}
        step_ways.UNTRIED = {change: step_ways.Bet(0.0, 0.1) for change in changes}
        step_ways.WORTH = 1e9
        return ours(setting, device)

    return run


def computing_in(precision: str) -> Callable[[Setting, torch.device], Iterator[None]]:
    """Ours in that precision, whatever `mlpspace.device.training_precision` says."""

    def run(setting: Setting, device: torch.device) -> Iterator[None]:
        from mlpspace import proxy

        proxy.training_precision = lambda device: precision  # type: ignore[assignment]
        return ours(setting, device)

    return run


def unkept(setting: Setting, device: torch.device) -> Iterator[None]:
    """Ours with main memory left to the C library: `mlpspace.memory.memory_kept`."""
    from mlpspace import proxy

    proxy.memory_kept = contextlib.nullcontext  # type: ignore[assignment]
    return ours(setting, device)


class Images(TorchDataset):  # type: ignore[type-arg]
    """PIL images out of memory, as torchvision's own dataset of CIFAR-10 gives them."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = transform  # create_loader puts its own here

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        image = Image.fromarray(self.pixels[row])
        return (image if self.transform is None else self.transform(image)), self.labels[row]


def loop(setting: Setting, device: torch.device) -> Iterator[None]:
    from torchvision import transforms

    data, recipe = setting.dataset(), setting.recipe
    assert isinstance(data.train_images, Tensor)
    assert isinstance(data.val_images, Tensor)
    tensors = [transforms.ToTensor(), transforms.Normalize(data.mean.tolist(), data.std.tolist())]
    shift = recipe.augmentation.shift
    crop = [transforms.RandomCrop(RESOLUTION, padding=shift), transforms.RandomHorizontalFlip()]
    train_images = Images(data.train_images, data.train_labels, transforms.Compose(crop + tensors))
    val_images = Images(data.val_images, data.val_labels, transforms.Compose(tensors))
    network = fresh_network(setting.architecture, RESOLUTION, CLASSES, seed=0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = EPOCHS * (setting.images // setting.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=recipe.warmup)
    bf16 = training_precision(device) == "bf16"

    def epoch(loaders: tuple[Iterable[Any], Iterable[Any]]) -> None:
        network.train()
        for images, labels in loaders[0]:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        _right(network, loaders[1], device, bf16)

    def loaders(workers: int) -> tuple[Iterable[Any], Iterable[Any]]:
        named: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": device.type == "cuda",
        }
        return (
            DataLoader(train_images, setting.batch, shuffle=True, drop_last=True, **named),
            DataLoader(val_images, 2 * setting.batch, **named),
        )

    yield from _with_best_workers(loaders, epoch, device)


def with_timm(setting: Setting, device: torch.device) -> Iterator[None]:
    from timm.data import create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter

    data, recipe = setting.dataset(), setting.recipe
    assert isinstance(data.train_images, Tensor)
    assert isinstance(data.val_images, Tensor)
    network = fresh_network(setting.architecture, RESOLUTION, CLASSES, seed=0).to(device)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = setting.images // setting.batch
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=EPOCHS,
        warmup_epochs=round(recipe.warmup * EPOCHS),
        warmup_lr=1e-6,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    criterion = LabelSmoothingCrossEntropy(recipe.label_smoothing).to(device)
    bf16 = training_precision(device) == "bf16"
    updates = [0]

    def epoch(loaders: tuple[Iterable[Any], Iterable[Any]]) -> None:
        losses = AverageMeter()
        network.train()
        for images, labels in loaders[0]:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = criterion(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates[0] += 1
            if updates[0] % 50 == 0:
                losses.update(loss.item(), len(images))
            schedule.step_update(num_updates=updates[0], metric=losses.avg)
        _right(network, loaders[1], device, bf16)

    def loaders(workers: int) -> tuple[Iterable[Any], Iterable[Any]]:
        named: dict[str, Any] = {
            "mean": tuple(data.mean.tolist()),
            "std": tuple(data.std.tolist()),
            "num_workers": workers,
            "pin_memory": device.type == "cuda",
            "device": device,
            "use_prefetcher": True,
        }
        train_images = Images(data.train_images, data.train_labels)
        val_images = Images(data.val_images, data.val_labels)
        return (
            create_loader(
                train_images,
                (3, RESOLUTION, RESOLUTION),
                setting.batch,
                is_training=True,
                scale=(1.0, 1.0),
                ratio=(1.0, 1.0),
                hflip=0.5,
                color_jitter=0.0,
                **named,
            ),
            create_loader(val_images, (3, RESOLUTION, RESOLUTION), 2 * setting.batch, crop_pct=1.0, **named),
        )

    yield from _with_best_workers(loaders, epoch, device)


def _with_best_workers(
    loaders: Callable[[int], tuple[Iterable[Any], Iterable[Any]]],
    epoch: Callable[[tuple[Iterable[Any], Iterable[Any]]], None],
    device: torch.device,
) -> Iterator[None]:
    """An epoch and another, timed, with each number of workers; all after them with the best."""
    taken: dict[int, float] = {}
    for workers in [count for count in WORKERS[device.type] if count <= max(2, cores())]:
        some = loaders(workers)
        epoch(some)
        synchronize(device)
        begun = time.perf_counter()
        epoch(some)
        synchronize(device)
        taken[workers] = time.perf_counter() - begun
        del some
    best = min(taken, key=taken.__getitem__)
    print(json.dumps({"workers": best}), flush=True)
    some = loaders(best)
    while True:
        epoch(some)
        yield


@torch.no_grad()
def _right(network: nn.Module, images: Iterable[Any], device: torch.device, bf16: bool) -> float:
    network.eval()
    right = torch.zeros((), device=device)
    for some, labels in images:
        some, labels = some.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            right += (network(some).argmax(1) == labels).sum()
    return right.item()


CONTESTANTS: dict[str, Callable[[Setting, torch.device], Iterator[None]]] = {
    "ours": ours,
    "loop": loop,
    "timm": with_timm,
    "plain": forced(),
    "captured": forced("captured"),
    "compiled": forced("compiled"),
    "both": forced("captured", "compiled"),
    "fp32": computing_in("fp32"),
    "bf16": computing_in("bf16"),
    "unkept": unkept,
}
NEEDS = {"loop": "torchvision", "timm": "timm"}
WAYS = {"cpu": ("fp32", "bf16", "unkept", "compiled"), "cuda": ("plain", "captured", "compiled", "both")}


# --- turns ----------------------------------------------------------------------------------------------------------


def contestant(name: str, setting: Setting) -> None:
    """A process of its own: an epoch for each line that it is sent, and its seconds as the answer."""
    torch.set_num_threads(setting.threads)
    device = resolve(setting.device)
    epochs = CONTESTANTS[name](setting, device)
    next(epochs)
    for line in sys.stdin:
        if not line.strip():
            return
        begun = time.perf_counter()
        next(epochs)
        synchronize(device)
        print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)


class Turns:
    """A contestant as the others see it: a process that is asked for an epoch."""

    def __init__(self, name: str, setting: Setting) -> None:
        command = [sys.executable, __file__, "--contestant", name, json.dumps(dataclasses.asdict(setting))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = name
        self.workers: int | None = None
        self.first_s = 0.0
        begun = time.perf_counter()
        self.epoch()  # so that one contestant after the other comes in, and none disturbs the next
        self.first_s = time.perf_counter() - begun

    def epoch(self) -> float:
        """Seconds of the next epoch."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            told = json.loads(line)
            if "seconds" in told:
                return float(told["seconds"])
            self.workers = told["workers"]
        raise RuntimeError(f"{self.name} ended: see its words above")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def missing(name: str) -> str | None:
    """The package without which a contestant cannot run."""
    from importlib.util import find_spec

    package = NEEDS.get(name)
    return package if package and find_spec(package) is None else None


def peak_flops(device: torch.device, precision: str) -> float:
    """Of a product of two large matrices, a second, the best of several."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype_of(precision)) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        begun = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def run(setting: Setting, names: list[str], repeats: int) -> None:
    """Prints one network's table."""
    device = resolve(setting.device)
    precision = training_precision(device)
    counts = profile(setting.architecture, RESOLUTION, CLASSES)
    data = "random images" if setting.data is None else "CIFAR-10"
    print(
        f"\nmixer, width {setting.width}: {counts.params / 1e6:.2f} M weights, {counts.macs / 1e6:.0f} M MACs, batch "
        f"{setting.batch}, {precision}, {setting.threads} threads, {setting.images:,} of {data} an epoch"
    )
    torch.set_num_threads(setting.threads)
    peak = peak_flops(device, precision)
    turns = [Turns(name, setting) for name in names if missing(name) is None]
    seconds: dict[str, list[float]] = {each.name: [] for each in turns}
    for _ in range(repeats):
        for each in turns:
            seconds[each.name].append(each.epoch())
        turns.reverse()
    print(f"{'':10}{'images/s':>10}{'range':>16}{'ours over it':>14}{'95 % interval':>18}{'loaders':>9}{'of peak':>9}")
    trained = setting.images // setting.batch * setting.batch
    by_name = {each.name: each for each in turns}
    for name in names:
        if name not in by_name:
            print(f"{name:10}  not run: no {missing(name)} here")
            continue
        speeds = [trained / each for each in seconds[name]]
        share = 6 * counts.macs * statistics.median(speeds) / peak
        row = f"{name:10}{statistics.median(speeds):>10,.0f}{f'{min(speeds):,.0f}..{max(speeds):,.0f}':>16}"
        if name == "ours":
            row += f"{'':32}"
        else:
            pairs = zip(seconds[name], seconds["ours"], strict=True)
            ratio, low, high = median_interval([theirs / mine for theirs, mine in pairs])
            row += f"{ratio:>14.2f}{f'{low:.2f}..{high:.2f}':>18}"
        workers = by_name[name].workers
        print(row + f"{'' if workers is None else workers:>9}{100 * share:>8.0f}%")
    firsts = ", ".join(f"{each.name} {each.first_s:.1f} s" for each in by_name.values())
    print(f"until the first epoch was timed, imports, data and the choice of loaders among it: {firsts}")
    print(f"a product of matrices reaches {peak / 1e12:.2f} TFLOP/s")
    for each in turns:
        each.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with CIFAR-10; without it random images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int, action="append", help="may be given again [128; on a GPU 512 too]")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, help="of an epoch [1,024 on a CPU, 45,000 on a GPU]")
    parser.add_argument("--threads", type=int, default=cores(), help="of the CPU, for the training")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", action="store_true", help="ours in each of its ways too")
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results")
    parser.add_argument("--contestant", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contestant:
        name, told = asked.contestant
        contestant(name, Setting(**json.loads(told)))
        return 0
    device = resolve(asked.device)
    kind = device.type

    def all_networks() -> int:
        print(circumstances(describe(device), "torchvision", "timm"))
        for width in asked.width or ([128] if kind == "cpu" else [128, 512]):
            setting = Setting(
                data=asked.data,
                width=width,
                batch=asked.batch,
                images=asked.images or IMAGES[kind],
                threads=asked.threads,
                device=asked.device,
            )
            run(setting, ["ours", "loop", "timm", *(WAYS[kind] if asked.ways else ())], asked.repeats)
        peer, aim = AIMS[kind]
        print(f"\naim on a {'CPU' if kind == 'cpu' else 'GPU'}: at least {aim:g} times {peer} at width 128")
        if kind == "cpu":
            print("not run: a GPU (aims there: at least 5 times timm at width 128, 35 % of the peak at width 512)")
        return 0

    return saved("proxy-speed", describe(device), all_networks) if asked.save else all_networks()


if __name__ == "__main__":
    sys.exit(main())
