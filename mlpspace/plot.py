"""The picture of a front: accuracy over throughput, or whichever two objectives come first.

All trials faint, the front as a staircase with its error bars, the published networks as labelled diamonds. A front
of partial trainings cannot be taken for another: it is dashed, of another colour, and hollow where a training went no
further.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlpspace.errors import UserError
from mlpspace.front import Entry, Front
from mlpspace.objectives import METRICS, Objective

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


def _draw(front: Front, figure: Figure, title: str) -> None:
    down, across = _axes_of(front)
    axes = figure.add_subplot()
    shown = [entry for entry in front.entries if across.metric in entry.values and down.metric in entry.values]
    points = sorted((e for e in shown if e.on_front), key=lambda entry: entry.values[across.metric])
    fixed = [entry for entry in shown if entry.trial.label]
    others = [entry for entry in shown if not entry.on_front and not entry.trial.label]
    color = _PARTIAL if front.partial else _FRONT

    def places(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
        return [e.values[across.metric] for e in entries], [e.values[down.metric] for e in entries]

    _scale(axes, "x", across, [x for entry in shown for x in _span(entry, across.metric)], [])
    _scale(axes, "y", down, [y for entry in [*points, *fixed] for y in _span(entry, down.metric)], places(others)[1])
    low, high = axes.get_ylim()
    inside = [entry for entry in others if low <= entry.values[down.metric] <= high]
    here, on_their_way = _by_stay(inside, front)
    dot: dict[str, Any] = {"s": 16, "alpha": 0.55, "zorder": 2}
    if on_their_way:
        label = "trial that went on" if front.partial else "trial"
        axes.scatter(*places(on_their_way), color=_FAINT, linewidths=0, label=label, **dot)
    if here:
        dot |= {"facecolor": "none", "edgecolor": color, "linewidths": 0.9}
        axes.scatter(*places(here), label="trial that went no further", **dot)
    outside = [entry for entry in others if entry not in inside]
    if outside:
        nearest = [low if e.values[down.metric] < low else high for e in outside]
        style: dict[str, Any] = {
            "marker": "v",
            "s": 22,
            "color": _FAINT,
            "alpha": 0.7,
            "linewidths": 0,
            "clip_on": False,
        }
        axes.scatter(places(outside)[0], nearest, label="trial beyond the axis", zorder=2, **style)
    # with more objectives than axes the front is no staircase here
    drawn = points and len(front.objectives) == 2
    edge = _staircase(axes, *places(points), across, down, color, dashed=front.partial) if drawn else []
    sampled = [entry for entry in points if not entry.trial.label]
    here, on_their_way = _by_stay(sampled, front)
    large: dict[str, Any] = {"s": 34, "zorder": 5}
    label = "on the front of this rung, went on" if front.partial else "on the front"
    if on_their_way:
        axes.scatter(*places(on_their_way), color=color, edgecolor="white", linewidth=0.7, label=label, **large)
    if here:
        large |= {"facecolor": "white", "edgecolor": color, "linewidth": 1.3}
        axes.scatter(*places(here), label="on the front of this rung, went no further", **large)
    on = [entry for entry in fixed if entry.on_front]
    off = [entry for entry in fixed if not entry.on_front]
    diamond: dict[str, Any] = {"marker": "D", "s": 42, "edgecolor": _FIXED, "linewidth": 1.2, "zorder": 6}
    if on:
        axes.scatter(*places(on), facecolor=_FIXED, label="published network, on the front", **diamond)
    if off:
        axes.scatter(*places(off), facecolor="white", label="published network", **diamond)
    for entry in [*points, *off]:
        _error_bars(axes, entry, across, down, _FIXED if entry.trial.label else color)

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
    if shown:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, **small)
    _label(axes, fixed, [*points, *fixed, *inside], edge, across, down)


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
        lines.append(f"{speed.device}, batch {speed.batch}, {speed.precision}, deployed form, 95 % interval")
    return "\n".join(lines)


def _scale(axes: Axes, which: Literal["x", "y"], objective: Objective, must: list[float], rest: list[float]) -> None:
    """Scale and limits of an axis: accuracy linear, all else in factors; all of `must` inside."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if objective.metric == "accuracy" or min([*must, *rest], default=0.0) <= 0:
        axes.set(**{f"{which}lim": _limits(must, rest)})
        return
    low, high = _limits([math.log10(value) for value in must], [math.log10(value) for value in rest])
    axes.set(**{f"{which}scale": "log", f"{which}lim": (10**low, 10**high)})
    decades = high - low
    subs = (1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs) if decades > 0.4 else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())


def _span(entry: Entry, metric: str) -> list[float]:
    """The value and the ends of its error bar."""
    return [entry.values[metric], *(_bar(entry, metric) or ())]


def _bar(entry: Entry, metric: str) -> tuple[float, float] | None:
    """The ends of the error bar; None: it is exact."""
    if metric == "accuracy" and entry.accuracy is not None:
        return entry.accuracy.mean - entry.accuracy.error, entry.accuracy.mean + entry.accuracy.error
    record = entry.records.get(metric)
    return (record.low, record.high) if record else None


def _by_stay(entries: Sequence[Entry], front: Front) -> tuple[list[Entry], list[Entry]]:
    """Those that went no further than a front of partial trainings, and the others: of a full one, all."""
    stays = [front.partial and entry.trial.rung == front.rung for entry in entries]
    here = [entry for entry, is_here in zip(entries, stays, strict=True) if is_here]
    return here, [entry for entry, is_here in zip(entries, stays, strict=True) if not is_here]


def _limits(must: Sequence[float], rest: Sequence[float]) -> tuple[float, float]:
    """The span of an axis: all of `must`, and of the rest what does not lie farther off than half of that, so that
    a few networks that learned nothing do not press the others into a line."""
    if not must:
        return 0.0, 1.0
    low, high = min(must), max(must)
    reach = 0.5 * (high - low) or 0.05 * abs(high) or 1.0
    near = [value for value in rest if low - reach <= value <= high + reach]
    low, high = min([low, *near]), max([high, *near])
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


def _error_bars(axes: Axes, entry: Entry, across: Objective, down: Objective, color: str) -> None:
    style: dict[str, Any] = {"color": color, "linewidth": 0.9, "alpha": 0.6, "zorder": 4}
    x, y = entry.values[across.metric], entry.values[down.metric]
    if bar := _bar(entry, down.metric):
        axes.plot([x, x], bar, **style)
    if bar := _bar(entry, across.metric):
        axes.plot(bar, [y, y], **style)


def _label(
    axes: Axes, fixed: list[Entry], shown: list[Entry], edge: list[Corner], across: Objective, down: Objective
) -> None:
    """The fixed points' names, each beside its diamond at the nearest place where it covers little."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # until laid out, nothing can be measured in pixels
    scale = figure.dpi / 72  # pixels of a typographic point

    def pixels(entry: Entry) -> tuple[float, float]:
        x, y = axes.transData.transform((entry.values[across.metric], entry.values[down.metric]))
        return float(x), float(y)

    room = axes.get_window_extent()
    taken = []  # (box, what it costs to cover a square pixel of it)
    for entry in shown:
        x, y = pixels(entry)
        matters = entry.on_front or bool(entry.trial.label)
        side = (5 if matters else 3) * scale
        taken.append((Bbox.from_extents(x - side, y - side, x + side, y + side), 1.0 if matters else 0.12))
    for start, end in itertools.pairwise(axes.transData.transform(edge) if edge else ()):
        low, high = np.minimum(start, end) - scale, np.maximum(start, end) + scale
        taken.append((Bbox.from_extents(*low, *high), 1.0))
    for entry in sorted(fixed, key=pixels):
        x, y = pixels(entry)
        best: tuple[float, Any, Any, int] | None = None
        for reach, angle in itertools.product((8, 16, 28, 44, 64, 90, 120), range(0, 360, 30)):
            across_part, down_part = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            note = axes.annotate(
                _lines(entry.trial.label or ""),
                (entry.values[across.metric], entry.values[down.metric]),
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
            box = note.get_window_extent().padded(1.5 * scale)
            note.remove()
            covered = sum(weight * _overlap(box, other) for other, weight in taken)
            beyond = box.width * box.height - _overlap(box, room)
            cost = covered + 3 * beyond + 2.5 * reach * scale**2
            if best is None or cost < best[0]:
                best = (cost, note, box, reach)
        assert best is not None
        _, note, box, reach = best
        axes.add_artist(note)
        taken.append((box, 1.0))
        if reach > 16:  # too far to be seen as its own without a thread
            near = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
            ends = axes.transData.inverted().transform([(x, y), near])
            axes.plot(ends[:, 0], ends[:, 1], color=_FIXED, linewidth=0.7, alpha=0.8, zorder=4)


def _lines(label: str) -> str:
    """`mixer_s16 (patch 16 -> 4; depth 8 -> 6)` with the changes on lines of their own."""
    name, _, changes = label.partition(" (")
    told = changes.removesuffix(")").replace(" -> ", "→").replace("; ", ", ")
    return "\n".join([name, *textwrap.wrap(told, 26)])


def _overlap(a: Any, b: Any) -> float:
    """Area that two boxes share, in square pixels."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)
