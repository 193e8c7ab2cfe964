"""The picture of a front: accuracy over throughput, or whichever two objectives come first.

All trials faint, the front as a staircase with its error bars, the published networks as labelled diamonds. A front
of partial trainings cannot be taken for another: it is dashed, of another colour, and hollow where a training went no
further.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlpspace.comparable import Reached
from mlpspace.errors import UserError
from mlpspace.front import Front
from mlpspace.objectives import METRICS, Objective
from mlpspace.trial_columns import Flags, Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "accuracy": "validation accuracy (%)",
    "throughput": "throughput (images/s)",
    "params": "params",
    "macs": "MACs",
    "peak_memory_mb": "peak memory (MB)",
}
_INK, _FRONT, _PARTIAL, _FIXED, _FAINT = "#222222", "#1f5fa8", "#7a4fa3", "#d9541e", "#9aa5b1"

_INCHES = (7.6, 5.0)
_AS_IT_IS: dict[str, Any] = {"parse_math": False}  # of a text that may have a $ in it, such as a folder's name

_MOST_DOTS = 5000  # that are drawn as lines

Corner = tuple[float, float]


def plot_front(front: Front, path: str | Path, *, title: str = "Pareto front") -> None:
    """Draw the front into a .png, .svg or .pdf file.

    Raises:
        UserError: the file cannot be written, or its ending names no picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = check_picture(path)
    figure = Figure(figsize=_INCHES, dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(front, figure, title)
    save(figure, path)


def check_picture(path: str | Path) -> Path:
    """The path of a picture that can be drawn, before anything is.

    Raises:
        UserError: its ending names no picture, or its folder is not there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UserError(f'{path}: "{path.suffix}" is no kind of picture. Known: {", ".join(sorted(known))}.')
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}.")
    return path


def save(figure: Figure, path: Path) -> None:
    """Write a figure.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}).") from None


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where the networks are on the axes: (p,) each, in the order of the front's entries."""

    x: Floats
    y: Floats
    bar_x: tuple[Floats, Floats]  # the ends of the error bars; NaN: it is exact
    bar_y: tuple[Floats, Floats]
    on_front: Flags
    fixed: Flags  # which are published networks
    stays: Flags  # which went no further than the front's rung, where that is one of partial trainings

    @staticmethod
    def of(front: Front, across: Objective, down: Objective) -> _Places:
        compared = front.entries.compared
        reached = Reached.of(front.columns).rung[compared.trials]
        return _Places(
            compared.values(across.metric),
            compared.values(down.metric),
            compared.bounds(across.metric),
            compared.bounds(down.metric),
            front.entries.on_front,
            compared.labelled,
            (reached == front.rung) & front.partial,
        )


def _draw(front: Front, figure: Figure, title: str) -> None:
    down, across = _axes_of(front)
    axes = figure.add_subplot()
    at = _Places.of(front, across, down)
    points = np.flatnonzero(at.on_front)
    points = points[np.argsort(at.x[points], kind="stable")]
    fixed, others = np.flatnonzero(at.fixed), np.flatnonzero(~at.on_front & ~at.fixed)
    color = _PARTIAL if front.partial else _FRONT

    spread = np.concatenate([points, fixed])
    _scale(axes, "x", across, _known(at.x, *at.bar_x), np.zeros(0))
    _scale(axes, "y", down, _known(*(values[spread] for values in (at.y, *at.bar_y))), at.y[others])
    low, high = axes.get_ylim()
    is_inside = (low <= at.y[others]) & (at.y[others] <= high)
    inside, outside = others[is_inside], others[~is_inside]
    here, on_their_way = inside[at.stays[inside]], inside[~at.stays[inside]]
    # in a file of lines a hundred thousand dots are as many lines
    dot: dict[str, Any] = {"s": 16, "alpha": 0.55, "zorder": 2, "rasterized": len(others) > _MOST_DOTS}
    if len(on_their_way):
        label = "trial that went on" if front.partial else "trial"
        axes.scatter(at.x[on_their_way], at.y[on_their_way], color=_FAINT, linewidths=0, label=label, **dot)
    if len(here):
        dot |= {"facecolor": "none", "edgecolor": color, "linewidths": 0.9}
        axes.scatter(at.x[here], at.y[here], label="trial that went no further", **dot)
    if len(outside):
        nearest = np.where(at.y[outside] < low, low, high)
        style: dict[str, Any] = {
            "marker": "v",
            "s": 22,
            "color": _FAINT,
            "alpha": 0.7,
            "linewidths": 0,
            "clip_on": False,
        }
        axes.scatter(at.x[outside], nearest, label="trial beyond the axis", zorder=2, **style)
    # with more objectives than axes the front is no staircase here
    drawn = len(points) > 0 and len(front.objectives) == 2
    corners = (at.x[points].tolist(), at.y[points].tolist())
    edge = _staircase(axes, *corners, across, down, color, dashed=front.partial) if drawn else []
    sampled = points[~at.fixed[points]]
    here, on_their_way = sampled[at.stays[sampled]], sampled[~at.stays[sampled]]
    large: dict[str, Any] = {"s": 34, "zorder": 5}
    label = "on the front of this rung, went on" if front.partial else "on the front"
    if len(on_their_way):
        at_places = (at.x[on_their_way], at.y[on_their_way])
        axes.scatter(*at_places, color=color, edgecolor="white", linewidth=0.7, label=label, **large)
    if len(here):
        large |= {"facecolor": "white", "edgecolor": color, "linewidth": 1.3}
        axes.scatter(at.x[here], at.y[here], label="on the front of this rung, went no further", **large)
    on, off = fixed[at.on_front[fixed]], fixed[~at.on_front[fixed]]
    diamond: dict[str, Any] = {"marker": "D", "s": 42, "edgecolor": _FIXED, "linewidth": 1.2, "zorder": 6}
    if len(on):
        axes.scatter(at.x[on], at.y[on], facecolor=_FIXED, label="published network, on the front", **diamond)
    if len(off):
        axes.scatter(at.x[off], at.y[off], facecolor="white", label="published network", **diamond)
    _error_bars(axes, at, sampled, color)
    _error_bars(axes, at, fixed, _FIXED)

    axes.set_xlabel(_axis_label(across), color=_INK)
    axes.set_ylabel(_axis_label(down), color=_INK)
    axes.grid(True, which="major", color="#e6e9ed", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK, pad=29, **_AS_IT_IS)
    quiet: dict[str, Any] = {"fontsize": 7.5, "color": "#5b6570", "va": "bottom", **_AS_IT_IS}
    told = axes.annotate(_subtitle(front), (0, 1), (0, 5), "axes fraction", "offset points", **quiet)
    told.set_in_layout(False)  # a long device name runs out of the picture rather than press it together
    columns = 3 if front.partial else 5
    small: dict[str, Any] = {"fontsize": 8, "handletextpad": 0.3, "columnspacing": 1.4}
    if len(at.x):
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, **small)
    labels = [front.columns.facts["label"][trial] for trial in front.entries.compared.trials[fixed].tolist()]
    _label(axes, at, dict(zip(fixed.tolist(), labels, strict=True)), np.concatenate([spread, inside]), edge)


# --- what the axes are ----------------------------------------------------------------------------------------------


def _axes_of(front: Front) -> tuple[Objective, Objective]:
    """(vertical, horizontal): accuracy stands up if it is there; one objective alone is drawn over the params."""
    objectives = list(front.objectives)
    if len(objectives) == 1:
        objectives.append(Objective("params", "minimize", worst=math.inf, scale="log"))
    objectives.sort(key=lambda objective: not METRICS[objective.metric].trained)  # stable: the order else stays
    return objectives[0], objectives[1]


def _axis_label(objective: Objective) -> str:
    # "better" stands on the side where the better values are
    sides = {"maximize": ("", "  better →"), "minimize": ("← better  ", "")}
    before, after = sides[objective.goal]
    return f"{before}{_NAMES[objective.metric]}{after}"


def _subtitle(front: Front) -> str:
    accuracy, speed = front.circumstances("accuracy"), front.circumstances("throughput")
    lines = [f"{len(front.entries)} network{'' if len(front.entries) == 1 else 's'} compared"]
    if front.rung is not None and not front.partial and len(front.standing) > 1:
        lines[0] += f" of {front.standing[0].reached} trained"  # the others not to the end
    if accuracy and front.rung is not None:
        data = (
            f"{front.epochs} epoch{'' if front.epochs == 1 else 's'} of {accuracy.dataset} at {accuracy.resolution} px"
        )
        cut = ", NOT TRAINED TO THE END" if front.partial else ""
        lines[0] += f"  ·  rung {front.rung}: {data}{cut}, ± one standard error"
    if speed:
        how = "deployed form, BESIDE OTHER PROGRAMS" if speed.disturbed else "deployed form, 95 % interval"
        lines.append(f"{speed.device}, batch {speed.batch}, {speed.precision}, {how}")
    return "\n".join(lines)


def _scale(axes: Axes, which: Literal["x", "y"], objective: Objective, must: Floats, rest: Floats) -> None:
    """Scale and limits of an axis: accuracy linear, all else in factors; all of `must` inside."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if objective.metric == "accuracy" or np.concatenate([must, rest]).min(initial=np.inf) <= 0 or not len(must):
        axes.set(**{f"{which}lim": _limits(must, rest)})
        return
    low, high = _limits(np.log10(must), np.log10(rest))
    axes.set(**{f"{which}scale": "log", f"{which}lim": (10**low, 10**high)})
    decades = high - low
    subs = (1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs) if decades > 0.4 else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())


def _known(*values: Floats) -> Floats:
    """All that is no NaN."""
    joined = np.concatenate(values)
    return joined[~np.isnan(joined)]


def _limits(must: Floats, rest: Floats) -> tuple[float, float]:
    """The span of an axis: all of `must`, and of the rest what does not lie farther off than half of that, so that
    a few networks that learned nothing do not press the others into a line."""
    if not len(must):
        return 0.0, 1.0
    low, high = float(must.min()), float(must.max())
    reach = 0.5 * (high - low) or 0.05 * abs(high) or 1.0
    near = rest[(low - reach <= rest) & (rest <= high + reach)]
    low, high = float(near.min(initial=low)), float(near.max(initial=high))
    margin = 0.07 * (high - low) or 0.5 * reach
    return low - margin, high + margin


def _tick(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


# --- what is drawn on them ------------------------------------------------------------------------------------------


def _staircase(
    axes: Axes, x: list[float], y: list[float], across: Objective, down: Objective, color: str, *, dashed: bool
) -> list[Corner]:
    """The edge of what the front dominates, led on to the worst ends of both axes; its corners."""
    left, right = axes.get_xlim()
    worst = axes.get_ylim()[0 if down.goal == "maximize" else 1]
    corners: list[Corner] = []
    if across.goal == "maximize":  # a point dominates what is left of it, so the edge leaves it downwards
        for i, (at_x, at_y) in enumerate(zip(x, y, strict=True)):
            corners += [(x[i - 1] if i else left, at_y), (at_x, at_y)]
        corners.append((x[-1], worst))
    else:
        corners.append((x[0], worst))
        for i, (at_x, at_y) in enumerate(zip(x, y, strict=True)):
            corners += [(at_x, at_y), (x[i + 1] if i + 1 < len(x) else right, at_y)]
    axes.plot(
        *zip(*corners, strict=True), color=color, linewidth=1.3, alpha=0.9, zorder=3, linestyle="--" if dashed else "-"
    )
    area = [*corners, (left, worst)] if across.goal == "maximize" else [*corners, (right, worst)]
    axes.fill(*zip(*area, strict=True), color=color, alpha=0.05, linewidth=0, zorder=1)
    return corners


def _error_bars(axes: Axes, at: _Places, which: Ints, color: str) -> None:
    style: dict[str, Any] = {"color": color, "linewidth": 0.9, "alpha": 0.6, "zorder": 4}
    down, across = (which[~np.isnan(bar[0][which])] for bar in (at.bar_y, at.bar_x))
    axes.plot(np.tile(at.x[down], (2, 1)), np.stack([bar[down] for bar in at.bar_y]), **style)
    axes.plot(np.stack([bar[across] for bar in at.bar_x]), np.tile(at.y[across], (2, 1)), **style)


def _label(axes: Axes, at: _Places, labels: Mapping[int, str], shown: Ints, edge: list[Corner]) -> None:
    """The fixed points' names, each beside its diamond at the nearest place where it covers little.

    Args:
        labels: entry -> name, of the fixed points.
        shown: all entries that are drawn.
    """
    from matplotlib.patheffects import withStroke

    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # until laid out, nothing can be measured in pixels
    scale = figure.dpi / 72  # pixels of a typographic point
    room = _box(axes.get_window_extent())
    where = axes.transData.transform(np.stack([at.x, at.y], axis=1))  # pixels
    matters = (at.on_front | at.fixed)[shown]
    side = np.where(matters, 5.0, 3.0)[:, None] * scale
    boxes = [np.hstack([where[shown] - side, where[shown] + side])]
    weights = [np.where(matters, 1.0, 0.12)]  # what it costs to cover a square pixel of it
    if edge:
        corners = axes.transData.transform(edge)
        starts, ends = corners[:-1], corners[1:]
        boxes.append(np.hstack([np.minimum(starts, ends) - scale, np.maximum(starts, ends) + scale]))
        weights.append(np.ones(len(starts)))
    taken, weight = np.concatenate(boxes), np.concatenate(weights)
    for place in sorted(labels, key=lambda place: tuple(where[place])):
        x, y = where[place].tolist()
        best: tuple[float, Any, Any, int] | None = None
        for reach, angle in itertools.product((8, 16, 28, 44, 64, 90, 120), range(0, 360, 30)):
            across_part, down_part = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            note = axes.annotate(
                _lines(labels[place]),
                (at.x[place], at.y[place]),
                xytext=(reach * across_part, reach * down_part),
                textcoords="offset points",
                ha="left" if across_part > 0.3 else "right" if across_part < -0.3 else "center",
                va="bottom" if down_part > 0.3 else "top" if down_part < -0.3 else "center",
                fontsize=7,
                linespacing=1.1,
                color=_FIXED,
                path_effects=[withStroke(linewidth=2.2, foreground="white")],
                zorder=7,
                **_AS_IT_IS,
            )
            extent = note.get_window_extent().padded(1.5 * scale)
            note.remove()
            box = _box(extent)
            covered = float(weight @ _overlaps(box[0], taken))
            beyond = extent.width * extent.height - float(_overlaps(box[0], room)[0])
            cost = covered + 3 * beyond + 2.5 * reach * scale**2
            if best is None or cost < best[0]:
                best = (cost, note, box, reach)
        assert best is not None
        _, note, box, reach = best
        axes.add_artist(note)
        taken, weight = np.concatenate([taken, box]), np.append(weight, 1.0)
        if reach > 16:  # too far to be seen as its own without a thread
            (left, bottom, right, top) = box[0].tolist()
            near = min(max(x, left), right), min(max(y, bottom), top)
            ends = axes.transData.inverted().transform([(x, y), near])
            axes.plot(ends[:, 0], ends[:, 1], color=_FIXED, linewidth=0.7, alpha=0.8, zorder=4)


def _lines(label: str) -> str:
    """`mixer_s16 (patch 16 -> 4; depth 8 -> 6)` with the changes on lines of their own."""
    name, _, changes = label.partition(" (")
    told = changes.removesuffix(")").replace(" -> ", "→").replace("; ", ", ")
    return "\n".join([name, *textwrap.wrap(told, 26)])


def _box(extent: Any) -> Floats:
    """(1, 4): left, bottom, right, top, in pixels."""
    return np.array([[extent.x0, extent.y0, extent.x1, extent.y1]])


def _overlaps(box: Floats, others: Floats) -> Floats:
    """Area that a box shares with each of others, in square pixels: (4,), (n, 4) -> (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.asarray(np.prod(np.maximum(sides, 0.0), axis=1))
