"""A study that goes on in a wider space: what was measured stays, by the architectures it was measured of.

The order of writing is such that an extension that is cut off anywhere is finished by the next search:

    space.yaml.extending   the new space, from the start until all is done
    space.yaml             replaced at one instant; the old one stays as space-<id>.yaml
    study.db               the points of old trials, in the dimensions of the new space
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.space import NotInSpace, Space, read_space
from mlpspace.space.dims import Choice, Fixed, Span, contains
from mlpspace.study import Study
from mlpspace.trial import Trial

MARK = "space.yaml.extending"
_MOST_NAMED = 5  # trials that lie outside, of which a message speaks
_WIDENS = ("require.", "fidelity.recipe.")  # besides what belongs to the layouts


def differences(old: Space, new: Space) -> list[str]:
    """Line by line what one says and the other does not."""
    before, now = old.said(), new.said()
    named = sorted({*before, *now})
    return [
        f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in named
        if before.get(name) != now.get(name)
    ]


def check(study: Study, old: Space, new: Space) -> None:
    """Whether `new` holds all that was searched in `old`, measured in the same way.

    Raises:
        StudyError: it does not; the text has all that is in the way.
    """
    before, now = old.said(), new.said()
    fixed = [
        name
        for name in sorted({*before, *now})
        if name.startswith(("task.", "objectives.", "fidelity.")) and not name.startswith(_WIDENS)
    ]
    wrong = [
        f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}: old measurements would not"
        " compare with new ones"
        for name in fixed
        if before.get(name) != now.get(name)
    ]
    if old.default_recipe() != new.default_recipe():
        wrong.append("fidelity.recipe: its defaults, with which published networks are trained, are not the same")
    outside = _outside(study.trials(), new)
    wrong += [f"trial {number} lies outside: {why}" for number, why in outside[:_MOST_NAMED]]
    if len(outside) > _MOST_NAMED:
        wrong.append(f"and so do {len(outside) - _MOST_NAMED} more")
    if wrong:
        anew = ["mlpspace", "search", new.path, "--study", str(study.folder.parent / "NAME")]
        raise StudyError(
            "\n  ".join([f"{new.path} does not widen the space of {study.folder}:", *wrong])
            + f"\n  To start anew: {shlex.join(anew)}"
        )


def begin(study: Study, new: Space) -> None:
    """The study's space becomes `new`, which was checked. By its one driver, before anything else."""
    old = read_space(study.space_text, str(study.folder / "space.yaml"))
    if old.id == new.id:
        return
    kept = study.folder / f"space-{old.id}.yaml"
    beside = study.folder / "space.yaml.new"
    try:
        _write(study.folder / MARK, new.text)
        if not kept.exists():
            _write(kept, study.space_text)
        _write(beside, new.text)
        os.replace(beside, study.folder / "space.yaml")
    except OSError as error:
        raise StudyError(f"{study.folder} cannot be written to ({error.strerror}).") from None


def is_unfinished(study: Study) -> bool:
    """Whether points of old trials may still be those of the space before."""
    return (study.folder / MARK).exists()


def translate(study: Study, writer: Writer, space: Space) -> None:
    """The points of old trials, in the dimensions of the study's space."""
    points: dict[int, Mapping[str, Any]] = {}
    for trial in study.trials():
        try:
            points[trial.number] = point_of(trial, space)
        except NotInSpace:
            assert trial.point is None, f"trial {trial.number} was checked"
    writer.translate(points)


def finish(study: Study) -> None:
    """All is done."""
    (study.folder / MARK).unlink(missing_ok=True)


def point_of(trial: Trial, space: Space) -> Mapping[str, Any]:
    """The point of a trial, its recipe's dimensions too.

    Raises:
        NotInSpace: the space has none; the text says why.
    """
    point = space.encode(trial.architecture)
    for name, dim in space.fidelity.recipe.items():
        value = _recipe_value(trial, name)
        if not contains(dim, value):
            raise NotInSpace(f"recipe.{name} {value} is not in {dim.value if isinstance(dim, Fixed) else dim}")
        if isinstance(dim, Choice | Span):
            point[dim.name] = value
    counts = {"params": trial.params, "macs": trial.macs, "tokens": trial.tokens}
    broken = space.require.broken(trial.architecture, counts)
    if broken:
        raise NotInSpace(f"it breaks a requirement, {broken}")
    return point


def _recipe_value(trial: Trial, name: str) -> Any:
    value: Any = trial.recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _outside(trials: Sequence[Trial], space: Space) -> list[tuple[int, str]]:
    found = []
    for trial in trials:
        if trial.point is None:
            continue  # a published network that lay outside before, too
        try:
            point_of(trial, space)
        except NotInSpace as error:
            found.append((trial.number, str(error)))
    return found


def _write(file: Path, text: str) -> None:
    with open(file, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
