"""What `mlpspace profile` can be asked about: published networks, comparators, architecture files, trials."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpspace import comparators, papers
from mlpspace.architecture import Architecture
from mlpspace.comparators import Comparator
from mlpspace.errors import ArchitectureError, UserError
from mlpspace.scaling import scaled
from mlpspace.space import read_space
from mlpspace.space.architecture_reader import read_architecture
from mlpspace.study import Study

RESOLUTION, CLASSES = 224, 1000  # ImageNet-1k, where nothing else is said

_TRIAL = re.compile(r"(?P<folder>.+):(?P<number>\d+)")
_ARCHITECTURE_FILE = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network to be measured, as it was asked for."""

    name: str  # with what was changed: "mixer_s16 (patch 16 -> 7)"
    network: Architecture | Comparator
    resolution: int  # pixels
    classes: int
    top1: float | None = None  # %, as published; None where it is another network than the published one


class SubjectError(UserError):
    """Names that stand for no network that can be measured: all of them, each with its reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def subjects(names: Sequence[str], *, resolution: int | None = None, classes: int | None = None) -> list[Subject]:
    """The networks that `names` stand for, in their order.

    A name is that of a published network, an architecture file (`*.yaml`, as `mlpspace show` prints architectures), or
    a trial as FOLDER:NUMBER.

    Args:
        resolution: of all of them; those that cannot stand there as they are, are `scaled`. None: each one's own, that
            is 224 px for a file, and for a trial that of its study's task.
        classes: of all of them; None: 1,000, and for a trial those of its study's task.

    Raises:
        SubjectError: with every name that stands for nothing, or for what cannot be built.
    """
    found, mistakes = [], []
    for name in names:
        try:
            found.append(_standing(_subject(name, classes), resolution))
        except UserError as error:
            mistakes.append(str(error))
    if any(isinstance(subject.network, Comparator) for subject in found):
        try:
            comparators.imported()
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SubjectError(mistakes)
    return found


def _subject(name: str, classes: int | None) -> Subject:
    if name.endswith(_ARCHITECTURE_FILE):
        return _from_file(Path(name), classes)
    trial = _TRIAL.fullmatch(name)
    if trial:
        return _from_trial(Path(trial["folder"]), int(trial["number"]), classes)
    if name not in papers.NAMES and Path(name).is_dir():
        raise UserError(f"{name} is a folder: name a trial of the study in it, such as {name}:0.")
    entry = papers.paper(name)
    asked = classes or CLASSES
    top1 = entry.published.top1 if asked == CLASSES else None
    return Subject(name=name, network=entry.architecture, resolution=entry.resolution, classes=asked, top1=top1)


def _from_file(path: Path, classes: int | None) -> Subject:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{path} cannot be read ({why}).") from None
    architecture = read_architecture(text, str(path))
    return Subject(name=str(path), network=architecture, resolution=RESOLUTION, classes=classes or CLASSES)


def _from_trial(folder: Path, number: int, classes: int | None) -> Subject:
    study = Study(folder)
    space = read_space(study.space_text, str(study.folder / "space.yaml"))
    return Subject(
        name=f"{folder}:{number}",
        network=study.trial(number).architecture,
        resolution=space.resolution,
        classes=classes or space.classes,
    )


def _standing(subject: Subject, asked: int | None) -> Subject:
    """A subject that can be built; what had to be changed for the resolution asked for is told in its name."""
    resolution, network = asked or subject.resolution, subject.network
    top1 = subject.top1 if resolution == subject.resolution else None
    reason = network.unfit(resolution)
    if reason is None:
        return dataclasses.replace(subject, resolution=resolution, top1=top1)
    if asked is None or isinstance(network, Comparator):
        raise ArchitectureError(f"{subject.name}: {reason}. Another resolution: --resolution PIXELS")
    try:
        network, changes = scaled(network, resolution, designed_for=subject.resolution)
    except ArchitectureError as error:
        raise ArchitectureError(f"{subject.name}: {error}") from None
    return dataclasses.replace(
        subject, name=f"{subject.name} ({changes})", network=network, resolution=resolution, top1=None
    )
