"""What stands in for workers and for a study when a search is replayed: rows looked up, nothing kept."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from mlpspace.measurement import Assignment, Checkpoint, Event, Measurement, Progress
from mlpspace.replay.table import Table, row_of


class SimulatedClock:
    """Seconds that pass as the engine says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def events(table: Table, assignment: Assignment) -> Generator[tuple[float, Event], None, None]:
    """What a worker would say of a row, each with the seconds that pass before it.

    As a worker does: the state of a training just before each rung's accuracy but the last; an assignment with such a
    state goes on from there.
    """
    point = row_of(assignment.architecture).point
    curve = dict(zip(table.trained_epochs, table.accuracy(point), strict=True))
    seconds = table.epoch_seconds(point)
    last = assignment.epochs[-1]
    begun = 0 if assignment.state is None else int(assignment.state)
    yield 0.0, Progress(phase="training", epoch=begun, epochs=last)
    for epoch in range(begun + 1, last + 1):
        yield seconds, Progress(phase="training", epoch=epoch, epochs=last, accuracy=curve.get(epoch))
        if epoch not in assignment.epochs:
            continue
        if epoch != last:
            yield 0.0, Checkpoint(epoch, str(epoch).encode())
        yield 0.0, _accuracy(curve[epoch], assignment.epochs.index(epoch), epoch, seconds)


def _accuracy(value: float, rung: int, epoch: int, seconds: float) -> Measurement:
    return Measurement(
        metric="accuracy",
        value=value,
        low=value,
        high=value,
        seconds=seconds * epoch,
        protocol="looked up",
        device="table",
        batch=1,
        precision="fp32",
        threads=1,
        rung=rung,
        epochs=epoch,
    )


class NullWriter:
    """Keeps nothing: see `outlets.Writer`."""

    def begin(self, assignment: Assignment, **row: Any) -> None: ...
    def record(self, assignment: Assignment, measured: Measurement) -> None: ...
    def record_progress(self, assignment: Assignment, told: Progress) -> None: ...
    def finish(self, number: int, state: str, *told: Any, **more: Any) -> None: ...
    def lost(self, number: int) -> None: ...
    def repeat_failed(self, number: int, reason: str) -> None: ...
    def refuse(self, reason: str, count: int = 1) -> None: ...
    def sync(self) -> None: ...


class NullMirror:
    """Shows nothing: see `outlets.Mirror`."""

    def begin(self, number: int, point: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> None: ...
    def pause(self, number: int, reason: str) -> None: ...
    def resume(self, number: int) -> None: ...
    def finish(self, number: int, values: Sequence[float] | None, reason: str | None = None) -> None: ...
