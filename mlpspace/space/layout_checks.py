"""Values of a space file that can never be part of a network: each a mistake, in the words of the rule it breaks."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from mlpspace.fields import scalar_fields
from mlpspace.space.dims import Branch, Choice, Dim, Span, Value, kind_choice, values, word
from mlpspace.space.layout import LayoutPlaces
from mlpspace.space.layout_count import BRANCHES, Key, combinations, count_layout, ruled_places
from mlpspace.space.layout_reader import LayoutReader

_DRAWS = 20_000  # of stages, until a network of the layout is found that goes together, to put the value into
_EXPLAINED = 5  # mistakes of one file for which such a network is sought
MOST_COMBINATIONS = 3_000_000  # some seconds


def check_patches(reader: LayoutReader, resolution: int) -> None:
    """A patch size that can never divide the resolution, whatever else is chosen, is a mistake."""
    mergings: dict[int, list[int]] = {}  # id of a patch -> those of the layouts that have it
    patches: dict[int, tuple[Dim, type[Any]]] = {}
    for stem, halvings in reader.stems:
        for option in stem.options:
            if "patch" in option.fields:
                patch = option.fields["patch"]
                patches[id(patch)] = patch, option.type
                mergings.setdefault(id(patch), []).append(halvings)
    for key, (patch, type_) in patches.items():
        line = reader.lines.get(key, 1)
        halvings = min(mergings[key])
        sizes = [size for size in values(patch) or [] if isinstance(size, int)]
        unfit = [size for size in sizes if resolution % (size * 2**halvings)]
        if not isinstance(patch, Span):
            for size in unfit:
                reader.mistakes.add(line, _no_patch(size, resolution, halvings, type_))
        elif len(unfit) == len(sizes):
            reader.mistakes.add(line, f"patch {patch}: none of these divides {resolution} pixels.")


def _no_patch(value: int, resolution: int, halvings: int, stem: type[Any]) -> str:
    fits = [p for p in range(1, resolution + 1) if resolution % (p * 2**halvings) == 0 and _may_have(stem, p)]
    near = sorted(sorted(fits, key=lambda p: abs(math.log(p / value)))[:2])
    merged = f" with {halvings + 1} stages" if halvings else ""
    if not fits:
        return f"patch {value} can never divide {resolution} pixels{merged}; no patch size can."
    return f"patch {value} can never divide {resolution} pixels{merged}; {' or '.join(map(str, near))} would."


def _may_have(stem: type[Any], patch: int) -> bool:
    return scalar_fields(stem)["patch"].complaint(patch) is None


def check_points(reader: LayoutReader, layouts: tuple[LayoutPlaces, ...], resolution: int) -> None:
    """Values that no point of the space can have are refused; combinations are simply no points."""
    for layout in layouts:
        number = combinations(layout)
        if number > MOST_COMBINATIONS:
            line = reader.lines.get(id(layout.stages[0].width), 1)
            told = f"{number:,}" if number < 10**15 else "over a million billion"
            reader.mistakes.add(
                line,
                f"layout {layout.name}: {told} combinations of widths with heads, groups and the like are too many to"
                " be checked against each other; a step (width: 64..256 step 32) or a list (heads: [1, 2, 4]) makes"
                " them few.",
            )
    if reader.mistakes:
        return
    explained = 0
    occurring: set[Key] = set()
    counts = [count_layout(layout, resolution, occurring) for layout in layouts]
    for layout, count in zip(layouts, counts, strict=True):
        if not count:
            line = reader.lines.get(id(layout.stages[0].width), 1)
            reason = layout.architecture(_first).unfit(resolution)
            because = f"; for instance, {reason}" if reason else ""
            reader.mistakes.add(line, f"layout {layout.name} has no points: its values do not go together{because}.")
            continue
        for what, place in ruled_places(layout):
            for key, line in _told(reader, place):
                if key not in occurring:
                    reason = _why(layout, resolution, place, key[1]) if explained < _EXPLAINED else None
                    explained += 1
                    because = f"; for instance, {reason}" if reason else ""
                    told = f"{what} {word(key[1])} goes with none of the values beside it{because}."
                    reader.mistakes.add(line, told)


def _told(reader: LayoutReader, place: Dim | Branch) -> list[tuple[Key, int]]:
    """What a file says value by value or kind by kind, with its line; a range is not asked for each of its values."""
    if isinstance(place, Branch):
        keys = ((place.name, option.kind) for option in place.options)
        return [(key, reader.kind_lines[key]) for key in keys if key in reader.kind_lines]
    if isinstance(place, Span) or id(place) not in reader.lines:
        return []
    return [((id(place), value), reader.lines[id(place)]) for value in values(place) or []]


def _why(layout: LayoutPlaces, resolution: int, place: Dim | Branch, value: Value) -> str | None:
    """What the language says against a network of the layout when that value is put into it."""
    asked = kind_choice(place) if isinstance(place, Branch) else place
    forced: dict[str, Value] = {asked.name: value} if isinstance(asked, Choice) else {}
    for branch in (layout.stem, *(getattr(stage, name) for stage in layout.stages for name in BRANCHES)):
        for option in branch.options:
            if any(dim is place for dim in option.fields.values()):
                forced[branch.name] = option.kind
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS // len(layout.stages)):
        point: dict[str, Value] = {}

        def draw(dim: Choice | Span, point: dict[str, Value] = point) -> Value:
            return point.setdefault(dim.name, dim.draw(rng))

        if layout.architecture(draw).unfit(resolution) is None:
            with_it = layout.architecture(lambda dim: forced[dim.name] if dim.name in forced else draw(dim))
            reason = with_it.unfit(resolution)
            return re.sub(r"^stage \d+: ", "", reason) if reason else None
    return None


def _first(dim: Choice | Span) -> Value:
    return dim.values[0] if isinstance(dim, Choice) else dim.low
