"""Fixed points: how a published network meets the task of a space.

exact        as published, at the task's resolution
resolution   the token grid kept as close as the pixels allow: another patch size, as `scaling` finds it
space        also the nearest patch, depth and width that the space holds; the paper's block is kept as it is
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from mlpspace import papers
from mlpspace.architecture import (
    STEMS,
    Architecture,
    ClassTokenHead,
    LearnedClassTokenHead,
    MeanHead,
    Patches,
    ResNetStem,
    Stage,
    Stem,
    TokensToToken,
    kind_of,
)
from mlpspace.errors import ArchitectureError, SpaceError
from mlpspace.scaling import with_fitting_windows
from mlpspace.space.dims import contains, nearest, values
from mlpspace.space.layout import LayoutPlaces
from mlpspace.space.space import Space

Broken = Callable[[Architecture], str | None]
"""Which requirement an architecture breaks, or None."""


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A published network as it takes part in one study. The label says what was changed."""

    name: str
    label: str  # "mixer_s16 (patch 16 -> 4, depth 8 -> 6)"
    architecture: Architecture


def fixed_points(space: Space, broken: Broken) -> list[FixedPoint]:
    """The fixed points that a space names, fitted as it says, in its order.

    Two that become one network in this space are one fixed point, whose label names both.

    Raises:
        SpaceError: some cannot stand at the task's resolution in that fit: each with its reason.
    """
    found: dict[str, FixedPoint] = {}
    mistakes = []
    for name in space.fixed_points.names:
        try:
            point = _fixed_point(name, space, broken)
        except ArchitectureError as error:
            mistakes.append(
                f"{space.path}: fixed point {name} cannot take part (fit: {space.fixed_points.fit}): {error}"
            )
            continue
        twin = found.get(point.architecture.id)
        if twin is not None:
            point = dataclasses.replace(twin, label=f"{twin.label}, also {point.label}")
        found[point.architecture.id] = point
    if mistakes:
        raise SpaceError(mistakes)
    return list(found.values())


def _fixed_point(name: str, space: Space, broken: Broken) -> FixedPoint:
    fit = space.fixed_points.fit
    if fit == "exact":
        architecture = papers.architecture(name)
        reason = architecture.unfit(space.resolution)
        if reason:
            raise ArchitectureError(reason)
        changes = ""
    elif fit == "resolution":
        architecture, changes = papers.at_resolution(name, space.resolution)
    else:
        architecture = _in_space(name, space, broken)
        changes = "; ".join(_changes(papers.architecture(name), architecture))
    return FixedPoint(name, f"{name} ({changes})" if changes else name, architecture)


def _in_space(name: str, space: Space, broken: Broken) -> Architecture:
    """The nearest architecture of the layout with the nearest number of stages that meets the requirements.

    Widths and depths shrink together: the paper's proportions between stages say more about a network than the size of
    any one of them. Distance is the sum of the changes' logarithms: tokens, mean depth and mean width.
    """
    published, designed_for = papers.architecture(name), papers.paper(name).resolution
    apart = [abs(len(layout.stages) - len(published.stages)) for layout in space.layouts]
    layouts = [layout for layout, distance in zip(space.layouts, apart, strict=True) if distance == min(apart)]
    try:
        target: float = papers.at_resolution(name, space.resolution).architecture.stem.stride
    except ArchitectureError:  # the published stem has no form here: its grid is what there is to be near to
        target = published.stem.stride * space.resolution / designed_for
    best: tuple[float, Architecture] | None = None
    fallback: tuple[float, Architecture] | None = None
    reason = "no patch of theirs divides the image"
    for layout, patch in ((each, patch) for each in layouts for patch in _patches(each, space.resolution)):
        seen = set()
        for depth_factor in _FACTORS:
            for width_factor in _FACTORS:
                resized = _resized(published, layout, patch, depth_factor, width_factor)
                if resized in seen:
                    continue
                seen.add(resized)
                architecture = with_fitting_windows(resized, space.resolution, designed_for).architecture
                unfit = architecture.unfit(space.resolution)
                if unfit:
                    reason = unfit
                    continue
                distance = 2 * abs(math.log(patch / target)) + _distance(published, architecture)
                if fallback is None or distance < fallback[0]:
                    fallback = (distance, architecture)
                if (best is None or distance < best[0]) and broken(architecture) is None:
                    best = (distance, architecture)
    chosen = best or fallback
    if chosen is None:
        told = " or ".join(each.name for each in layouts)
        raise ArchitectureError(f"no size of layout {told} can hold its block: {reason}")
    return chosen[1]


_FACTORS = tuple(0.85**i for i in range(25))  # down to a fiftieth


def _patches(layout: LayoutPlaces, resolution: int) -> list[int]:
    stride = 2 ** sum(contains(stage.merge, True) for stage in layout.stages[1:])
    return [p for p in values(layout.patch) or [] if isinstance(p, int) and resolution % (p * stride) == 0]


def _resized(
    published: Architecture, layout: LayoutPlaces, patch: int, depth_factor: float, width_factor: float
) -> Architecture:
    """The paper's blocks in the layout's stages, each at the nearest depth and width the layout holds."""
    stages = []
    last = len(layout.stages) - 1
    for number, places in enumerate(layout.stages):
        source: Stage = published.stages[round(number * (len(published.stages) - 1) / last) if last else 0]
        if not last and len(published.stages) > 1:  # a pyramid in one stage: its longest is its character
            source = max(published.stages, key=lambda stage: stage.depth)
        depth, width = (
            nearest(places.depth, source.depth * depth_factor),
            nearest(places.width, source.width * width_factor),
        )
        assert isinstance(depth, int)
        assert isinstance(width, int)
        stages.append(dataclasses.replace(source, depth=depth, width=width, merge=contains(places.merge, True)))
    head = published.head
    if isinstance(head, ClassTokenHead | LearnedClassTokenHead) and len(stages) > 1:
        head = MeanHead(norm=head.norm)
    stem = _with_patch(published.stem, patch)
    # what LayerNorms add to the variance is the space's: too small a thing to keep a network outside
    return dataclasses.replace(published, stem=stem, stages=tuple(stages), head=head, norm_eps=layout.norm_eps)


def _with_patch(stem: Stem, patch: int) -> Stem:
    """The stem with that patch size; plain patches where it cuts none of its own, or none so small."""
    if isinstance(stem, TokensToToken | ResNetStem):
        return Patches(patch=patch)
    try:
        return dataclasses.replace(stem, patch=patch)
    except ValueError:
        return Patches(patch=patch)


def _distance(published: Architecture, other: Architecture) -> float:
    def mean(architecture: Architecture, field: str) -> float:
        sizes = [getattr(stage, field) for stage in architecture.stages]
        return math.exp(sum(map(math.log, sizes)) / len(sizes))

    return sum(abs(math.log(mean(other, field) / mean(published, field))) for field in ("depth", "width"))


def _changes(published: Architecture, other: Architecture) -> list[str]:
    """What differs, as "patch 16 -> 4": a reader of the front must not take the one for the other."""
    changes = []
    was, now = (getattr(architecture.stem, "patch", None) for architecture in (published, other))
    if type(published.stem) is not type(other.stem):
        kind = "T2T" if isinstance(published.stem, TokensToToken) else kind_of(STEMS, published.stem).replace("_", " ")
        changes.append(f"{kind} stem -> patch {now}")
    elif was != now:
        changes.append(f"patch {was} -> {now}")
    if type(published.head) is not type(other.head):
        changes.append("class token -> mean")
    for field in ("depth", "width"):
        before, after = (
            "-".join(str(getattr(stage, field)) for stage in architecture.stages) for architecture in (published, other)
        )
        if before != after:
            changes.append(f"{field} {before} -> {after}")
    return changes
