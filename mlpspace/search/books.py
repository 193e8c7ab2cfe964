"""What a search writes: the ledger, Optuna's tables beside it, states of trainings, weights."""

from __future__ import annotations

from typing import Any

from mlpspace.checkpoints import Shelf
from mlpspace.domain import SearchDomain
from mlpspace.measurement import Checkpoint, Measurement, Progress
from mlpspace.outlets import Mirror, Writer
from mlpspace.results import Result, Running
from mlpspace.search.kept_weights import KeptWeights
from mlpspace.trial import standing


class Books:
    """All of it in an order in which a search may be cut off anywhere.

    The ledger comes before Optuna's tables, which are made good from it, and before the state that it tells of; after
    the weights of what it calls complete.
    """

    def __init__(
        self, domain: SearchDomain, *, writer: Writer, mirror: Mirror, shelf: Shelf, weights: KeptWeights
    ) -> None:
        self._writer, self._mirror, self._shelf, self._weights = writer, mirror, shelf, weights
        self._epochs = domain.epochs
        self._metrics = [objective.metric for objective in domain.objectives]

    # --- a leg ---

    def begin(self, running: Running, *, first: bool) -> None:
        """It begins.

        Args:
            first: the first one of its trial.
        """
        self._writer.begin(
            running.assignment,
            params=running.counts.params,
            macs=running.counts.macs,
            tokens=running.counts.tokens,
            activations=running.counts.activations,
            origin=running.origin,
            label=running.label,
            point=running.point,
            why=running.why,
            gain=running.seen.gain,
            epochs=len(running.curve),
        )
        if first:
            self._mirror.begin(running.assignment.trial, running.point or {}, _attributes(running))

    def epoch(self, running: Running, told: Progress) -> None:
        """An epoch has ended, with its accuracy."""
        self._writer.record_progress(running.assignment, told)

    def checkpoint(self, running: Running, checkpoint: Checkpoint) -> None:
        """The state that a training may go on from; that of a rung waits for the rung's measurement."""
        if checkpoint.epochs in self._epochs:
            running.checkpoint = checkpoint
        else:
            self._writer.sync()  # or a power cut could leave a state that is ahead of its curve
            self._shelf.put(running.assignment.trial, checkpoint, running.assignment.repeat)

    def measurement(self, running: Running, measured: Measurement) -> None:
        """Something was measured."""
        told, ends = running.assignment, measured.rung == len(self._epochs) - 1
        if ends and not running.is_repeat:
            self._weights.put(running, measured.value)
        self._writer.record(told, measured)
        if running.checkpoint is not None and not ends:
            self._shelf.put(told.trial, running.checkpoint, told.repeat)
        running.checkpoint = None

    def lost(self, running: Running) -> None:
        """Its worker died."""
        if not running.is_repeat:
            self._writer.lost(running.assignment.trial)

    # --- a trial ---

    def end(self, result: Result) -> None:
        """It has ended, or waits at a rung."""
        number, state, reason = result.number, result.state, result.reason
        self._writer.finish(number, state, reason, result.detail, seconds=result.seconds)
        if state in ("paused", "stopped"):
            self._mirror.pause(number, standing(state, result.rung, result.epochs, reason))
        else:
            raw = None if result.costs is None else [result.values[metric] for metric in self._metrics]
            self._mirror.finish(number, raw, reason)

    def resume(self, number: int) -> None:
        """It waited at a rung, and is to go on. The ledger hears of it when a worker takes it."""
        self._mirror.resume(number)


def _attributes(running: Running) -> dict[str, Any]:
    told = {
        "architecture": running.assignment.architecture.describe(),
        "id": running.assignment.architecture.id,
        "params": running.counts.params,
        "macs": running.counts.macs,
    }
    return told | ({"fixed_point": running.label} if running.label else {})
