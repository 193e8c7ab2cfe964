"""The picture of what a network's token mixers learned, after Figure 2 of the ResMLP paper (arXiv:2105.03404).

A row of the picture is a layer. Each little image is a row of its token matrix, laid over the map: what one token (or
one hidden unit of a token MLP) takes from every token.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlpspace.plot import check_picture, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlpspace.token_matrices import TokenMatrix

IMAGES = 9  # of a matrix
MOST_GROUPS = 24  # more are unreadable: evenly spread ones stand for all
PLACES = (1 / 6, 3 / 6, 5 / 6)  # of the tokens that are drawn, along each side of the map

_INK, _FAINT, _COLOURS = "#222222", "#5b6570", "RdBu_r"  # red adds, blue subtracts
_IMAGE, _GAP, _BETWEEN = 0.62, 0.07, 0.14  # inches: a little image, from one to the next, from layer to layer
_LEFT, _RIGHT, _LINE = 1.25, 0.8, 0.145
_NARROWEST = 5.2


def plot_mixing(matrices: Sequence[TokenMatrix], path: str | Path, *, title: str, subtitle: str) -> None:
    """Draw the token matrices of a network, at least one, into a .png, .svg or .pdf file.

    Raises:
        UserError: the file cannot be written, or its ending names no picture.
    """
    save(_drawn(matrices, title, subtitle), check_picture(path))


def rows_shown(matrix: TokenMatrix) -> list[int]:
    """Which rows of a matrix are drawn: nine tokens spread over the map, or the nine hidden units of largest weights.

    Fewer where there are fewer.
    """
    if matrix.outputs == "hidden unit":
        strongest = np.argsort(-np.linalg.norm(matrix.weight, axis=1), kind="stable")
        return [int(row) for row in strongest[:IMAGES]]
    places = [int(place * matrix.side) for place in PLACES]
    return sorted({y * matrix.side + x for y in places for x in places})


def little_images(matrix: TokenMatrix) -> list[NDArray[np.float32]]:
    """The rows that are drawn, each laid over the map (H, W); the matrix itself where its rows are no maps."""
    if matrix.outputs == "line":
        return [matrix.weight]
    return [matrix.weight[row].reshape(matrix.side, matrix.side) for row in rows_shown(matrix)]


def _drawn(matrices: Sequence[TokenMatrix], title: str, subtitle: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = _groups(matrices)
    shown = groups
    if len(groups) > MOST_GROUPS:
        shown = [groups[round(i)] for i in np.linspace(0, len(groups) - 1, MOST_GROUPS)]
    columns = max(_images_of(group) for group in shown)
    width = max(_LEFT + columns * (_IMAGE + _GAP) + _RIGHT, _NARROWEST)
    above = textwrap.wrap(subtitle, int(16.5 * width), break_on_hyphens=False)
    below = [line for note in _notes(shown, len(groups)) for line in textwrap.wrap(note, int(16.5 * width))]
    top, bottom = 0.45 + _LINE * (len(above) + 1), 0.55 + _LINE * len(below)
    height = top + len(shown) * (_IMAGE + _BETWEEN) + bottom
    figure = Figure(figsize=(width, height), dpi=200)
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        """At so many inches from the left and from the top."""
        figure.text(
            x / width,
            1 - y / height,
            text,
            **{"color": _FAINT, "fontsize": 7.5, "va": "top", "parse_math": False, **style},
        )

    def axes(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))

    write(0.15, 0.12, title, fontsize=11, fontweight="bold", color=_INK)
    write(0.15, 0.38, "\n".join(above))
    for number, group in enumerate(shown):
        y = top + number * (_IMAGE + _BETWEEN)
        limit = max(float(np.abs(image).max()) for matrix in group for image in little_images(matrix))
        places = [axes(_LEFT + i * (_IMAGE + _GAP), y, _IMAGE, _IMAGE) for i in range(_images_of(group))]
        _draw_group(group, limit, places)
        write(0.15, y + _IMAGE / 2, _label(group), va="center", color=_INK)
        write(_LEFT + columns * (_IMAGE + _GAP) + 0.04, y + _IMAGE / 2, f"± {limit:.2g}", va="center")
    y = height - bottom + 0.12
    _draw_scale(axes(_LEFT, y, 1.6, 0.1))
    write(0.15, y + 0.36, "\n".join(below))
    return figure


def _groups(matrices: Sequence[TokenMatrix]) -> list[list[TokenMatrix]]:
    """What stands on one line: a matrix, or the two of sMLPNet's mixer."""
    groups: list[list[TokenMatrix]] = []
    for matrix in matrices:
        last = groups[-1][-1] if groups else None
        if last and matrix.outputs == last.outputs == "line" and matrix.layer == last.layer:
            groups[-1].append(matrix)
        else:
            groups.append([matrix])
    return groups


def _images_of(group: Sequence[TokenMatrix]) -> int:
    return sum(len(little_images(matrix)) for matrix in group)


def _label(group: Sequence[TokenMatrix]) -> str:
    first = group[0]
    name = "axial" if first.outputs == "line" else first.name
    return f"layer {first.layer}\n{name}, {first.side} x {first.side}"


def _draw_group(group: Sequence[TokenMatrix], limit: float, places: Sequence[Axes]) -> None:
    from matplotlib.patches import Rectangle

    free = iter(places)
    for matrix in group:
        rows = [None] if matrix.outputs == "line" else rows_shown(matrix)
        for row, image in zip(rows, little_images(matrix), strict=True):
            place = next(free)
            place.imshow(image, cmap=_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            for side in place.spines.values():
                side.set(color="#c3cad2", linewidth=0.5)
            if row is not None and matrix.outputs == "token":
                y, x = divmod(row, matrix.side)
                place.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=_INK, linewidth=0.8))


def _draw_scale(axes: Axes) -> None:
    axes.imshow(np.linspace(-1, 1, 128)[None], cmap=_COLOURS, aspect="auto", extent=(-1, 1, 0, 1))
    axes.set(yticks=[], xticks=[-1, 0, 1])
    axes.set_xticklabels(["− its limit", "0", "+ its limit"], fontsize=6.5, color=_FAINT)
    axes.tick_params(length=2, width=0.5, pad=1.5, color=_FAINT)
    for side in axes.spines.values():
        side.set_visible(False)


_MEANINGS = {
    "token": "an image is a row of the layer's token matrix laid over the map, what the framed token takes from each.",
    "hidden unit": "an image is what one hidden unit of the layer's token MLP takes from each token; the nine units of "
    "largest weights.",
    "line": "the left matrix maps the positions of each row of the map, the right one those of each column; outputs "
    "down, inputs across.",
}


def _notes(shown: Sequence[Sequence[TokenMatrix]], of: int) -> list[str]:
    notes = []
    for outputs, meaning in _MEANINGS.items():
        names = {m.name.split()[0]: None for group in shown for m in group if m.outputs == outputs}  # each once
        if names:
            notes.append(f"{', '.join(names)}: {meaning}")
    notes.append("Red adds, blue subtracts; the limit of the colours stands at the right of each layer.")
    if len(shown) < of:
        notes.append(f"{len(shown)} of {of} matrices, evenly spread.")
    return notes
