"""One search of a study, as the ledger knows it. A study that was stopped and continued has several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlpspace.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Session:
    """From the start of one `mlpspace search` to its last sign of life."""

    number: int  # from 1
    started: float  # seconds since 1970
    seen: float  # when it last wrote, likewise
    host: str
    pid: int
    command: str
    total: int | None  # trials that it was after
    manifest: Mapping[str, Any] | None = field(default=None, repr=False)  # None: an older mlpspace noted none
    wall_time: Mapping[str, Any] | None = field(default=None, repr=False)  # likewise; see `wall_time.Tallies`

    def may_have_trained(self, trial: Trial) -> bool:
        """Whether it ran while the trial was worked on; the ledger does not say which session trained which epoch."""
        ended = float("inf") if trial.ended is None else trial.ended
        return self.started <= ended and self.seen >= trial.started
