"""Where a search writes: the ledger, and Optuna's tables beside it. A replay has stand-ins for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mlpspace.measurement import Assignment, Measurement, Progress


class Writer(Protocol):
    """What a search writes: see `ledger.Writer`. A replay keeps nothing."""

    def begin(
        self,
        assignment: Assignment,
        *,
        params: int,
        macs: int,
        tokens: int,
        activations: int,
        origin: str,
        label: str | None = None,
        point: Mapping[str, Any] | None = None,
        why: str | None = None,
        gain: float | None = None,
        epochs: int = 0,
    ) -> None: ...
    def record(self, assignment: Assignment, measured: Measurement) -> None: ...
    def record_progress(self, assignment: Assignment, told: Progress) -> None: ...
    def finish(
        self,
        number: int,
        state: str,
        reason: str | None = None,
        detail: str | None = None,
        *,
        seconds: float | None = None,
    ) -> None: ...
    def lost(self, number: int) -> None: ...
    def repeat_failed(self, number: int, reason: str) -> None: ...
    def refuse(self, reason: str, count: int = 1) -> None: ...
    def sync(self) -> None: ...


class Mirror(Protocol):
    """Keeps Optuna's tables in step with the ledger, for its dashboard."""

    def begin(self, number: int, point: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> None: ...
    def pause(self, number: int, reason: str) -> None: ...
    def resume(self, number: int) -> None: ...
    def finish(self, number: int, values: Sequence[float] | None, reason: str | None = None) -> None: ...
