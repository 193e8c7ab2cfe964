"""What was done to searches and what it cost them, as a table."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Row:
    """Of one way of searching."""

    faults: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    lost: int = 0  # finished undisturbed and not here
    repeated: int = 0  # trained although they had ended
    epochs: int = 0
    undisturbed: int = 0
    tails: int = 0  # epochs that were cut off from their last rung
    back_s: list[float] = field(default_factory=list)  # from the command, or from a death, to the next epoch
    gone_s: list[float] = field(default_factory=list)  # until no process of a dead driver lived


@dataclass(slots=True)
class Figures:
    """All rows, by what was searched."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))

    def table(self) -> Iterable[str]:
        """Lines for people."""
        for name, row in self.rows.items():
            yield f"{name}: {row.faults.total()} faults"
            yield "  " + ", ".join(f"{number} x {kind}" for kind, number in row.faults.most_common())
            yield f"  trials {row.trials}, lost {row.lost}, repeated after their end {row.repeated}"
            more = 100 * (row.epochs / row.undisturbed - 1) if row.undisturbed else 0.0
            yield f"  epochs trained {row.epochs}, undisturbed {row.undisturbed} ({more:+.1f} %), cut off {row.tails}"
            if row.back_s:
                yield f"  back at work after {_spread(row.back_s)}"
            if row.gone_s:
                yield f"  processes of a dead driver gone after {_spread(row.gone_s)}"


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s (median of {len(seconds)}; longest {max(seconds):.1f} s)"
