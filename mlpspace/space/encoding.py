"""Architecture -> the values that make it in a layout, or the reasons why it is none of that layout."""

from __future__ import annotations

from typing import Any

from mlpspace.architecture import TABLES, Architecture, Stage, kind_of
from mlpspace.errors import ArchitectureError
from mlpspace.space.dims import Branch, Dim, Fixed, Value, contains, kind_choice, word
from mlpspace.space.layout import LayoutPlaces, StagePlaces

Point = dict[str, Value]


class NotInSpace(ArchitectureError):
    """Why an architecture is no point of a space."""


def encode_layout(layout: LayoutPlaces, architecture: Architecture) -> Point:
    """The values of the layout's dimensions that make `architecture`.

    Raises:
        NotInSpace: there are none; the text says why, part by part: of each part the first reason.
    """
    if len(architecture.stages) != len(layout.stages):
        raise NotInSpace(f"has {_stages(len(layout.stages))}, not {len(architecture.stages)}")
    point: Point = {}
    reasons = []

    def part(name: str, place: Branch) -> None:
        try:
            _encode_branch(place, getattr(architecture, name), name, f"its {name}", point)
        except NotInSpace as error:
            reasons.append(str(error))

    part("stem", layout.stem)
    for number, (places, stage) in enumerate(zip(layout.stages, architecture.stages, strict=True), 1):
        try:
            _encode_stage(places, stage, f"stage {number} " if len(layout.stages) > 1 else "", point)
        except NotInSpace as error:
            reasons.append(str(error))
    if architecture.mergings:
        part("merging", layout.merging)
    part("head", layout.head)
    if architecture.norm_eps != layout.norm_eps:
        reasons.append(f"its norm_eps is {word(architecture.norm_eps)}, here it is {word(layout.norm_eps)}")
    if reasons:
        raise NotInSpace(", and ".join(reasons))
    return point


def _stages(number: int) -> str:
    return f"{number} stage{'s' * (number > 1)}"


def _encode_stage(places: StagePlaces, stage: Stage, where: str, point: Point) -> None:
    for name in ("depth", "width", "norm", "layer_scale", "merge"):
        _encode(getattr(places, name), getattr(stage, name), where + name, point)
    own = getattr(stage.block, "own_mixers", False)
    for name in ("block",) if own else ("block", "token_mixer", "channel_mixer"):
        _encode_branch(getattr(places, name), getattr(stage, name), name, where + name, point)


def _encode(dim: Dim, value: Value, what: str, point: Point) -> None:
    if not contains(dim, value):
        reading = word(dim.value) if isinstance(dim, Fixed) else str(dim)
        raise NotInSpace(f"{what} is {word(value)}, here it is {reading}")
    if not isinstance(dim, Fixed) and point.setdefault(dim.name, value) != value:
        other = word(point[dim.name])
        raise NotInSpace(f"{what} is {word(value)} and elsewhere {other}, here {dim.name} is one for both")


def _encode_branch(branch: Branch, part: Any, table: str, what: str, point: Point) -> None:
    for option in branch.options:
        if type(part) is option.type:
            if len(branch.options) > 1:
                _encode(kind_choice(branch), option.kind, what, point)
            for name, dim in option.fields.items():
                _encode(dim, getattr(part, name), f"{what} {name}", point)
            return
    kinds = ", ".join(option.kind for option in branch.options)
    raise NotInSpace(f"{what} is {kind_of(TABLES[table], part)}, here it is {kinds}")
