"""What `mlpspace profile` shows of its rows: the table, and JSON. Nothing prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlpspace.comparators import Comparator
from mlpspace.report import count, rate

if TYPE_CHECKING:
    from mlpspace.machine_profile import Row

_HEADINGS = ("network", "px", "params", "MACs", "images/s", "spread", "relative", "memory MB", "top-1 %")


def table(rows: Sequence[Row]) -> str:
    """The rows as the ResMLP paper's table has them (arXiv:2105.03404, table 1), and what they rest on."""
    cells = [_HEADINGS, *(_cells(row, rows[0]) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADINGS))]
    lines = ["  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]) for name, *numbers in cells]
    reasons = [f"{row.subject.name}: {row.reason}" for row in rows if row.reason]
    return "\n".join([*lines, "", *reasons, *_footing(rows)])


def line(row: Row) -> str:
    """One row in the making, as it stands after its latest measurement."""
    name = f"{row.subject.name} at {row.subject.resolution} px"
    if row.reason:
        return f"{name}: {row.reason}"
    if not row.measured:
        return f"{name}: {count(row.params)} params, {count(row.macs)} MACs, measuring ..."
    return f"{name}: {rate(row.measured[-1][0].value)} images/s in round {len(row.measured)}"


def _cells(row: Row, first: Row) -> tuple[str, ...]:
    speed, relative = row.throughput, _relative(row, first)
    return (
        row.subject.name,
        str(row.subject.resolution),
        count(row.params),
        count(row.macs),
        rate(speed[0]) if speed else "-",
        f"{rate(speed[1])}..{rate(speed[2])}" if speed else "-",
        "-" if relative is None else f"{relative:.2f}",
        "-" if row.peak_memory_mb is None else rate(row.peak_memory_mb),
        "-" if row.subject.top1 is None else f"{row.subject.top1:.1f}",
    )


def _relative(row: Row, first: Row) -> float | None:
    """How many times as fast as the first row."""
    if row.throughput is None or first.throughput is None:
        return None
    return row.throughput[0] / first.throughput[0]


def _footing(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    threads = f", {first.threads} thread{'s' * (first.threads > 1)}"
    lines = [f"{first.device}{threads}, batch {first.batch}, {first.precision}, deployed form"]
    lines.append("images/s: median of the rounds; spread: the ends of their 95 % intervals; relative: to the first row")
    if any(isinstance(row.subject.network, Comparator) for row in rows):
        lines.append("timm's networks run as timm builds them, nothing folded")
    classes = sorted({row.subject.classes for row in rows})
    lines.append(f"params, MACs: at {' or '.join(f'{number:,}' for number in classes)} classes")
    if any(row.subject.top1 is not None for row in rows):
        lines.append("top-1: published, ImageNet-1k; how it was trained: mlpspace papers NAME")
    if any(row.disturbed for row in rows):
        names = ", ".join(row.subject.name for row in rows if row.disturbed)
        lines.append(f"Other programs used the device all the while, and slowed these by an unknown factor: {names}")
    return lines


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as plain values: throughput in images/s, memory in MB, top1 in %; null for what is not known."""
    return {"rows": [_plain(row, rows[0]) for row in rows]}


def _plain(row: Row, first: Row) -> dict[str, Any]:
    middle, low, high = row.throughput or (None, None, None)
    return {
        "name": row.subject.name,
        "resolution": row.subject.resolution,
        "batch": row.batch,
        "precision": row.precision,
        "device": row.device,
        "threads": row.threads,
        "params": row.params,
        "macs": row.macs,
        "throughput": middle,
        "throughput_low": low,
        "throughput_high": high,
        "throughput_relative": _relative(row, first),
        "peak_memory_mb": row.peak_memory_mb,
        "top1": row.subject.top1,
        "disturbed": row.disturbed,
        "reason": row.reason,
    }
