"""Weights of finished trials, while they are wanted."""

from __future__ import annotations

from collections.abc import Set

from mlpspace.checkpoints import Shelf
from mlpspace.results import Running
from mlpspace.search.knowledge import Knowledge


class KeptWeights:
    """Those of the trials on the front, or of all.

    Args:
        shelf: where they are; None: none are kept.
        all_trials: keep also what leaves the front.
    """

    def __init__(self, shelf: Shelf | None, known: Knowledge, *, all_trials: bool) -> None:
        self._shelf, self._known, self._all = shelf, known, all_trials

    def put(self, running: Running, accuracy: float) -> None:
        """Before the last measurement is in the ledger: what is complete has its weights, wherever the process ends.

        Args:
            accuracy: at the last rung, %.
        """
        if self._shelf is None or running.checkpoint is None:
            return
        costs = self._known.final_costs(running.seen, accuracy)
        if self._all or (costs is not None and self._known.leaders.stands(costs, running.seen.disturbed)):
            self._shelf.put(running.assignment.trial, running.checkpoint)

    def clear(self, besides: Set[int]) -> None:
        """Drop those of trials that have left the front, but for `besides`."""
        if self._shelf is not None and not self._all:
            front = {result.number for result in self._known.leaders.front()}
            self._shelf.clear_except(front | besides)
