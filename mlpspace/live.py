"""What a person sees while a search runs: a live screen in a terminal, else a plain line for each finished trial."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from mlpspace.objectives import METRICS
from mlpspace.report import count, duration, epochs_text
from mlpspace.results import Result, Running
from mlpspace.search import Search

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = 16) -> str:
    """The last values as a row of little bars, from the lowest to the highest of them."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    return "".join(_BLOCKS[round((v - low) / (high - low) * 7) if high > low else 3] for v in shown)


def measured(metric: str, value: float) -> str:
    """A value of a metric with its unit, as short as it can be said."""
    if metric == "accuracy":
        return f"{value:.2f} %"
    if metric == "throughput":
        return f"{value:,.0f} images/s"
    if metric == "peak_memory_mb":
        return f"{value:.1f} MB"
    return f"{count(value)} {metric}"


def result_line(result: Result, total: int, front: list[Result], metrics: list[str], done: int) -> str:
    """One trial that ended, waits at a rung or was trained anew, on one line."""
    head = f"[{done:>{len(str(total))}}/{total}] trial {result.number:<3}"
    name = f"  {result.label}" if result.label else ""
    if result.state == "infeasible":
        detail = (result.detail or "").strip().splitlines()
        why = f": {detail[0]}" if detail else ""
        return f"{head} infeasible, {result.reason}{why}  {result.architecture}{name}"
    told = (measured(metric, result.values[metric]) if metric in result.values else "-" for metric in metrics)
    values = "  ".join(f"{text:>14}" for text in told)
    mark = "+" if any(each.number == result.number for each in front) else " "
    cut = _cut_short(result)
    return f"{head}{mark}{values}  {duration(result.seconds):>6}  {cut and f'{cut}  '}{result.architecture}{name}"


def _cut_short(result: Result) -> str:
    """Why a line is not of a training that came to its end; empty if it is."""
    why = f", {result.reason}" if result.reason else ""
    if result.measurements > 1:
        return f"throughput from {result.measurements} measurements"
    if result.repeat:
        return f"training anew failed{why}" if why else f"mean of {result.repeat + 1} trainings"
    if result.state == "complete":
        return ""
    if result.epochs is None:
        return result.reason or f"{result.state} before training"
    return f"{result.state} at {epochs_text(result.epochs)}{why}"


class PlainView:
    """A line for each trial that ends or waits at a rung; `+` marks those that are on the front when they end."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self.search: Search | None = None

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Something to know that is no trial."""
        self._write(text)

    def begun(self, phase: str) -> None:
        """Called by the search when a worker is at something for the first time: what would be a long silence."""
        if phase == "calibrating":
            self._write("calibrating the clock: once a machine, some 20 s, more while other programs use it ...")

    def result(self, result: Result) -> None:
        """Called by the search for each trial that ends."""
        search = self.search
        if search is None:
            return
        metrics = [objective.metric for objective in search.objectives]
        front = search.front()
        line = result_line(result, search.total, front, metrics, search.ended)
        left = search.seconds_left()
        tail = f"  | front {len(front)}, hypervolume {search.hypervolume():.3f}"
        self._write(line + tail + (f", about {duration(left)} left" if left else ""))


class LiveView:
    """A screen that redraws itself: progress, what each worker trains and its curve so far, the front growing."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self.search: Search | None = None
        self._title = title
        self._last: list[str] = []
        self._console = Console(stderr=False)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        """Something to know that is no trial; it stays above the screen."""
        self._console.print(text, markup=False, highlight=False)

    def begun(self, phase: str) -> None:
        """Called by the search when a worker is at something for the first time; the screen says so already."""

    def result(self, result: Result) -> None:
        """Called by the search for each trial that ends; its line stays above the screen, for scrolling back."""
        search = self.search
        if search is not None:
            metrics = [objective.metric for objective in search.objectives]
            self.note(result_line(result, search.total, search.front(), metrics, search.ended))

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        search = self.search
        if search is None:
            return Text(f"{self._title}: starting the workers ...")
        done, total = search.ended, search.total
        front = search.front()
        left = search.seconds_left()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._title, style="bold"),
            f"{done} of {total} trials",
            ProgressBar(total=max(1, total), completed=done, width=24),
            f"{duration(search.elapsed_seconds)} so far" + (f", about {duration(left)} left" if left else ""),
        )
        waiting = f"{len(search.paused)} paused at a rung" if search.paused else ""
        head.add_row("", f"front {len(front)}", f"hypervolume {search.hypervolume():.3f}", waiting)

        at_work = Table(box=None, pad_edge=False, title_justify="left", title="at work", title_style="dim")
        # widths of their own: a long architecture would squeeze them away
        at_work.add_column("trial", justify="right", min_width=5)
        at_work.add_column("what", min_width=13, no_wrap=True)
        at_work.add_column("accuracy %", justify="right", min_width=10)
        at_work.add_column("curve", min_width=16, no_wrap=True)
        at_work.add_column("architecture", no_wrap=True, overflow="ellipsis")
        for number, running in list(search.running.items()):
            if running.given:
                at_work.add_row(str(number), *_running_cells(running))

        metrics = [objective.metric for objective in search.objectives]
        table = Table(box=None, pad_edge=False, title_justify="left", title="front so far", title_style="dim")
        table.add_column("trial", justify="right", min_width=5)
        for metric in metrics:
            unit = METRICS[metric].unit
            heading = f"{metric.removesuffix('_mb')} {unit}".strip()
            table.add_column(heading, justify="right", min_width=len(heading), no_wrap=True)
        table.add_column("architecture", no_wrap=True, overflow="ellipsis")
        rows = max(3, self._console.height - 12 - len(search.running))
        for result in front[:rows]:
            name = Text(result.architecture)
            if result.label:
                name = Text.assemble((f"{result.label}  ", "bold"), result.architecture)
            cells = [_cell(metric, result.values[metric]) for metric in metrics]
            table.add_row(str(result.number), *cells, name)
        if len(front) > rows:
            table.add_row("", *[""] * len(metrics), f"... and {len(front) - rows} more")
        return Group(head, Text(), at_work, Text(), table)


def _cell(metric: str, value: float) -> str:
    if metric in ("params", "macs"):
        return count(value)
    return f"{value:,.0f}" if metric == "throughput" else f"{value:.2f}"


def _running_cells(running: Running) -> tuple[str, str, str, str]:
    progress = running.progress
    what = "waiting"
    if progress is not None:
        what = "reading data" if progress.share is None else f"decoding {progress.share:.0%}"
        words = {"data": what, "throughput": "measuring", "calibrating": "calibrating the clock"}
        what = words.get(progress.phase, progress.phase)
        if progress.epochs:
            what = f"epoch {progress.epoch} of {progress.epochs}"
    accuracy = f"{running.curve[-1]:.2f}" if running.curve else ""
    name = f"{running.label}  " if running.label else ""
    return what, accuracy, sparkline(running.curve), name + running.assignment.architecture.describe()
