"""An architecture for images of another size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from mlpspace.architecture import PIXELS, Architecture
from mlpspace.errors import ArchitectureError
from mlpspace.fields import Whole, scalar_fields


class Scaled(NamedTuple):
    """An architecture, and in words what was changed to get it; "" where nothing was."""

    architecture: Architecture
    changes: str  # "patch 16 -> 2, grid 14 x 14 -> 16 x 16"


def scaled(architecture: Architecture, resolution: int, designed_for: int = 224) -> Scaled:
    """The architecture for images of `resolution` pixels, its token grid as near as they allow to the designed one.

    What changes, where there is such a thing: the patch size, to the one that gives the number of tokens nearest by
    ratio to the designed number (of two equally near, the fewer); the side of windows that do not fill their map any
    more, so that there are about as many of them as before. Hidden widths keep their saying: those said as a share of
    the tokens follow them, those said as a share of the channels or as a number stay.

    Args:
        designed_for: pixels of the images it was designed for, since an architecture does not know them. Of a
            published network they are `papers.paper(name).resolution`, which `papers.at_resolution(name, resolution)`
            takes by itself.

    Raises:
        ArchitectureError: it has no form at that resolution; the text says why.

    Example:
        >>> mixer_s16 = Architecture(stem=Patches(patch=16), stages=(Stage(depth=8, width=512),))
        >>> scaled(mixer_s16, 32).changes
        'patch 16 -> 2, grid 14 x 14 -> 16 x 16'
    """
    if not isinstance(architecture, Architecture):
        raise ArchitectureError(f"an architecture can be scaled, not {architecture!r}. A comparator is as timm has it.")
    complaint = PIXELS.complaint(resolution)
    if complaint:
        raise ArchitectureError(f"resolution {resolution!r} {complaint}")
    if resolution == designed_for:
        architecture.grid(resolution)  # raises where it cannot stand there
        return Scaled(architecture, "")
    stem, patch = _nearest_stem(architecture, resolution, designed_for)
    found, windows = with_fitting_windows(replace(architecture, stem=stem), resolution, designed_for)
    was, now = designed_for // architecture.stem.stride, found.grid(resolution)[0]
    grid = "" if was == now else f"grid {was} x {was} -> {now} x {now}"
    return Scaled(found, ", ".join(change for change in (patch, grid, windows) if change))


def _nearest_stem(architecture: Architecture, resolution: int, designed_for: int) -> tuple[Any, str]:
    """A stem that cuts no patches keeps its stride, whatever grid that gives."""
    stem: Any = architecture.stem
    takes = scalar_fields(type(stem)).get("patch")
    if not isinstance(takes, Whole):
        return stem, ""
    merged = 2**architecture.mergings
    assert takes.high is not None
    sizes = (patch for patch in range(takes.low, takes.high + 1) if takes.complaint(patch) is None)
    possible = [replace(stem, patch=patch) for patch in sizes]
    able = [each for each in possible if resolution % (each.patch * merged) == 0]
    if not able:
        number = architecture.mergings
        needs = f"its stem and {number} merging{'s' * (number > 1)} need" if number else "its stem needs"
        raise ArchitectureError(f"{needs} a multiple of {possible[0].patch * merged} pixels, not {resolution}")

    def distance(stem: Any) -> tuple[float, int]:
        tokens = resolution / stem.patch / (designed_for / architecture.stem.stride)
        return max(tokens, 1 / tokens), -stem.patch

    nearest = min(able, key=distance)
    return nearest, f"patch {stem.patch} -> {nearest.patch}" if nearest.patch != stem.patch else ""


def with_fitting_windows(architecture: Architecture, resolution: int, designed_for: int = 224) -> Scaled:
    """The architecture with windows that fill its maps at `resolution`, where those it was designed with do not.

    Their side changes with the resolution, so that there are about as many of them in a map as there were.
    """
    side = resolution // architecture.stem.stride
    stages, changes = [], {}
    for number, stage in enumerate(architecture.stages):
        side //= 2 if number and stage.merge else 1
        block: Any = stage.block
        windows = getattr(block, "partition", 1)
        if side % windows:
            wanted = windows * resolution / designed_for
            fill = [size for size in range(1, side + 1) if side % size == 0]
            size = min(fill, key=lambda size: (max(size / wanted, wanted / size), size))
            changes[f"windows {windows} -> {size}"] = True
            stage = replace(stage, block=replace(block, partition=size))
        stages.append(stage)
    return Scaled(replace(architecture, stages=tuple(stages)), ", ".join(changes))
