"""How many trials share a GPU: as many at once as train the most images/s in sum.

Small networks leave most of a large GPU idle, several trainings at once fill it; large ones take turns, and get in each
other's way. So a few networks that stand for those of a space are trained one, two, four and eight at once, the groups
in turns, and what is measured decides: `decided` alone, which is a function of figures. It is kept on the node.

A search that trains the networks one after the other trains as many images of a slow one as of a quick one. So what is
compared is the harmonic mean of the networks' images/s: the images of all of them over the time that these take.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlpspace import nvml
from mlpspace.counts import profile
from mlpspace.data import catalog, sources
from mlpspace.data.cache import folder
from mlpspace.data.dataset import RESIDENT_SHARE
from mlpspace.device import describe, key
from mlpspace.fresh_process import FreshProcessError
from mlpspace.proxy import PROTOCOL
from mlpspace.quiet import QuietDevice
from mlpspace.space.space import Candidate, Space
from mlpspace.training_group import Group, Memory, Training

COUNTS = (1, 2, 4, 8)
WORTH = 1.1  # times the images/s of fewer at once: less is not worth the memory
ROOM = 0.8  # of a device's memory may be taken: larger networks than those measured are to find some too
SLACK = 4.0  # times what a training takes on average has to be within the time limit of the space, for larger ones
LIMIT_S = 90.0  # for all of it; it mostly ends sooner, as so many bring nothing
TURNS, TURN_S = 3, 0.5  # of each count, and how long
DRAWS, MOST_DRAWS = 64, 2000  # candidates that meet the requirements, and of which
QUARTILES = (0.25, 0.5, 0.75)  # by MACs: the networks that stand for the others
VERSION = 1  # of the way it is measured, and of what is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What the trials of a search train: a few that stand for all, and where their images lie."""

    trainings: tuple[Training, ...]
    epochs: int  # of a training that comes to its end
    data_bytes: int  # of the dataset, decoded
    resident: int | None = None  # bytes of images that may lie on the device, for each worker; None: as `data.loading`
    timeout_s: float | None = None  # that a training may take

    @property
    def images(self) -> int:
        """Of a training that comes to its end."""
        return self.epochs * self.trainings[0].images

    def held_bytes(self, total: int) -> int:
        """Of a worker's images on a device with so much memory; 0 where they stay in a file."""
        most = RESIDENT_SHARE * total if self.resident is None else self.resident
        return self.data_bytes if self.data_bytes <= most else 0


@dataclass(frozen=True, slots=True)
class Sharing:
    """How many trials share a GPU, and why."""

    at_once: int
    speeds: Mapping[int, float] = field(default_factory=dict)  # trials at once -> images/s in sum
    held_back: str | None = None  # why no more share it, which would be faster still
    failed: str | None = None  # why no more could be measured

    def words(self) -> str:
        """In a line."""
        one, several = self.speeds.get(1), self.speeds.get(max(2, self.at_once))
        if one is None or several is None:
            told = f"one trial at a time on a GPU, as how fast several train could not be measured: {self.failed}"
        elif self.at_once > 1:
            told = f"{self.at_once} trials share a GPU: {_figure(several)} images/s in sum, one alone {_figure(one)}"
        else:
            told = f"one trial at a time on a GPU: {_figure(one)} images/s, two at once {_figure(several)} in sum"
        if self.held_back is not None:
            told += f"; {self.held_back}"
        if one is not None and self.failed is not None:
            told += f"; more could not be measured: {self.failed}"
        return f"{told}; --gpus-per-worker {'1 for one each' if self.at_once > 1 else '0.5 for two each'}"


def _figure(speed: float) -> str:
    """Three digits of it."""
    return f"{float(f'{speed:.3g}'):,.0f}"


# --- the decision -----------------------------------------------------------------------------------------------------


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


def decided(
    speeds: Mapping[int, float], memory: Mapping[int, Memory], trials: Trials, failed: str | None = None
) -> Sharing:
    """How many at once, by what was measured of so many: as `at_once` says of those for which there is memory and time.

    Args:
        speeds: images/s in sum; of one at least, where anything was measured.
        memory: with so many there, but without their datasets; of more than one.
        failed: why no more was measured.
    """
    if not speeds:
        return Sharing(1, failed=failed)
    speeds = dict(sorted(speeds.items()))
    against = {n: _against(n, speed, memory[n], trials) for n, speed in speeds.items() if n > 1}
    best = at_once({n: speed for n, speed in speeds.items() if against.get(n) is None})
    wished = at_once(speeds)
    return Sharing(best, speeds, against[wished] if wished > best else None, failed)


def _against(count: int, speed: float, memory: Memory, trials: Trials) -> str | None:
    """What stands against so many at once, however fast they are."""
    if memory.used + count * trials.held_bytes(memory.total) > ROOM * memory.total:
        return f"{count} lack memory"
    if trials.timeout_s is not None and SLACK * count * trials.images / speed > trials.timeout_s:
        return f"each of {count} may take longer than the space's timeout"
    return None


def in_sum(turns: Iterable[Sequence[float]]) -> float:
    """Images/s of a search, by those of each network's turns: the harmonic mean of the networks' medians."""
    return statistics.harmonic_mean([statistics.median(each) for each in turns])


# --- what is trained --------------------------------------------------------------------------------------------------


def trials_of(space: Space, *, data_path: str | None, resident: int | None) -> Trials:
    """What stands for the trials of a space: of random candidates that meet its requirements, the quartiles by MACs.

    It reads the labels of the dataset, or whatever else tells how many images it has.

    Args:
        data_path: where the dataset lies; None for an embedded one.
        resident: as `Trials` has it.

    Raises:
        DataError: the dataset cannot be read.
        SpaceError: no draw goes together.
    """
    fidelity = space.fidelity
    images, validation = _images(space, data_path)
    trainings = [
        Training(
            architecture=candidate.architecture,
            recipe=candidate.recipe,
            resolution=space.resolution,
            classes=space.classes,
            images=images,
            validation=validation,
            epochs=fidelity.epochs[0],
        )
        for candidate in typical(space)
    ]
    pixels = 3 * space.resolution**2  # grey images have one channel: then it is a third
    return Trials(
        trainings=tuple(trainings),
        epochs=fidelity.epochs[-1],
        data_bytes=(images + validation) * pixels,
        resident=resident,
        timeout_s=fidelity.timeout_s,
    )


def typical(space: Space) -> list[Candidate]:
    """Candidates of a space that meet its requirements, the quartiles of many by MACs; the same each time.

    Where hardly any draw meets them, of those that there are: none at all, and the list is empty.

    Raises:
        SpaceError: no draw goes together.
    """
    rng = np.random.default_rng(0)
    meeting: list[tuple[int, Candidate]] = []
    for _ in range(MOST_DRAWS):
        candidate = space.draw(rng)
        counts = profile(candidate.architecture, space.resolution, space.classes)
        told = {"params": counts.params, "macs": counts.macs, "tokens": counts.tokens}
        if space.require.broken(candidate.architecture, told) is None:
            meeting.append((counts.macs, candidate))
        if len(meeting) == DRAWS:
            break
    meeting.sort(key=lambda each: each[0])
    return [meeting[int(share * len(meeting))][1] for share in QUARTILES if meeting]


def _images(space: Space, data_path: str | None) -> tuple[int, int]:
    """(training, validation) images, about as `data.split` shares them out."""
    fidelity = space.fidelity
    name = fidelity.dataset
    wants = catalog.wants(name)
    found = sources.embedded(name) if data_path is None else sources.find(name, data_path, space.classes, wants)
    total = len(found.open().labels)
    validation = round(fidelity.validation * total)
    left = total - validation
    return left if fidelity.images is None else min(fidelity.images, left), validation


# --- measuring --------------------------------------------------------------------------------------------------------


def found(trials: Trials, device: torch.device, *, most: int, limit_s: float = LIMIT_S) -> Sharing:
    """How many of such trials share a device, as it is kept on the node; measured first where it is not.

    What failed is not kept. Whoever else uses the device with care waits meanwhile, as for a measurement.

    Args:
        most: at once, such as there are cores to feed the device; more than one.
        limit_s: of the measuring, without waiting for others that measure.
    """
    kept = folder() / f"sharing-{_key(trials, device, most)}.json"
    known = _read(kept)
    if known is not None:
        return known
    with QuietDevice(key(device)).alone():
        known = _read(kept)  # another search may have measured it meanwhile
        if known is None:
            known = measured(trials, device, most=most, limit_s=limit_s)
            if known.failed is None:
                with suppress(OSError):  # a folder that cannot be written: then it is measured each time
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    half = kept.with_suffix(f".{os.getpid()}.half")
                    half.write_text(json.dumps([known.at_once, list(known.speeds.items()), known.held_back]))
                    half.replace(kept)
    return known


def measured(trials: Trials, device: torch.device, *, most: int, limit_s: float = LIMIT_S) -> Sharing:
    """The same, measured now: twice as many at once as long as that pays, while the time allows."""
    speeds: dict[int, float] = {}
    memory: dict[int, Memory] = {}
    begun = time.monotonic()
    try:
        with Group(device, limit_s=limit_s) as group:
            for turns, now in stages(group, trials.trainings, [count for count in COUNTS if count <= most]):
                speeds, memory = {count: in_sum(each) for count, each in turns.items()}, dict(now)
                took_s, begun = time.monotonic() - begun, time.monotonic()
                if decided(speeds, memory, trials).at_once < max(speeds) or group.left_s < took_s:
                    break
    except FreshProcessError as error:
        return decided(speeds, memory, trials, str(error))
    return decided(speeds, memory, trials)


def stages(
    group: Group, trainings: Sequence[Training], counts: Sequence[int], *, turns: int = TURNS, seconds: float = TURN_S
) -> Iterator[tuple[dict[int, list[list[float]]], dict[int, Memory]]]:
    """Each of `counts` but the first measured in turns with the one before it; after each, all that is known.

    That is count -> for each training the images/s in sum of its turns, and count -> the most memory that was used.

    Raises:
        FreshProcessError: a process fails, or the time is up.
    """
    known: dict[int, list[list[float]]] = {}
    memory: dict[int, Memory] = {}
    for fewer, more in itertools.pairwise(counts):
        group.grow(more)
        for number, training in enumerate(trainings):
            group.prepare(training, alone=fewer == 1)
            for count in (fewer, more) * turns:
                speed, now = group.train(count, seconds)
                known.setdefault(count, [[] for _ in trainings])[number].append(speed)
                memory[more] = max(memory.get(more, now), now, key=lambda each: each.used)
        yield known, memory


def _key(trials: Trials, device: torch.device, most: int) -> str:
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    told: list[Any] = [VERSION, PROTOCOL, describe(device), memory, nvml.driver(), str(torch.__version__), most]
    told += [trials.epochs, trials.data_bytes, trials.resident, trials.timeout_s]
    told += [training.told() for training in trials.trainings]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _read(kept: Path) -> Sharing | None:
    try:
        number, speeds, held_back = json.loads(kept.read_text())
        read = Sharing(int(number), {int(count): float(speed) for count, speed in speeds}, held_back)
        right = read.at_once in read.speeds and all(speed > 0 for speed in read.speeds.values())
    except (OSError, ValueError, TypeError):  # there is none, or it is not ours: it is only a cache
        return None
    return read if right else None
