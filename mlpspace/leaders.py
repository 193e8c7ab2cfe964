"""The front of a search so far, kept up to date result by result: a search asks for it several times a trial."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlpspace.pareto import Floats, hypervolume, pareto_front
from mlpspace.results import Result

Costs = Sequence[float]


class Leaders:
    """Those of the results with costs that no other dominates.

    What was measured beside other programs (disturbed) takes part only while there is nothing else, as in `front`.
    """

    def __init__(self, worst: Costs) -> None:
        self._worst = np.array(worst)
        self._all: dict[int, Result] = {}  # by trial
        self._members: list[Result] = []
        self._costs: Floats = np.empty((0, len(worst)))  # of the members
        self._has_undisturbed = False
        self._volume: float | None = 0.0

    def put(self, result: Result) -> bool:
        """Take note of a result with costs, in place of the trial's earlier one; whether the front is another now."""
        assert result.costs is not None
        before = self._all.get(result.number)
        self._all[result.number] = result
        if before is not None or (not result.disturbed and not self._has_undisturbed):
            members = self._members
            self._begin_anew()
            return [each.number for each in members] != [each.number for each in self._members]
        if result.disturbed and self._has_undisturbed:
            return False
        costs = np.array(result.costs)
        if not self._stands(costs):
            return False
        keep = np.any(self._costs < costs, axis=1) | np.all(self._costs == costs, axis=1)
        self._set([*(each for each, kept in zip(self._members, keep, strict=True) if kept), result])
        return True

    def recall(self, results: Iterable[Result]) -> None:
        """Begin with these, which all have costs."""
        self._all = {result.number: result for result in results}
        if self._all:
            self._begin_anew()

    def stands(self, costs: Costs, disturbed: bool) -> bool:
        """Whether a further network with these costs would be on the front."""
        if disturbed != self._has_undisturbed:  # as those on the front are
            return self._stands(np.array(costs))
        return not disturbed

    def reaches(self, costs: Costs) -> bool:
        """Whether one on the front is as good in everything."""
        return bool(np.any(np.all(self._costs <= np.array(costs), axis=1)))

    def front(self) -> list[Result]:
        """The best in the first objective first."""
        return list(self._members)

    def hypervolume(self) -> float:
        """From the objectives' `worst`."""
        if self._volume is None:
            self._volume = hypervolume(self._costs, self._worst)
        return self._volume

    def _stands(self, costs: Floats) -> bool:
        as_good = np.all(self._costs <= costs, axis=1)
        return not np.any(as_good & np.any(self._costs < costs, axis=1))

    def _begin_anew(self) -> None:
        undisturbed = [each for each in self._all.values() if not each.disturbed]
        self._has_undisturbed = bool(undisturbed)
        taking_part = undisturbed or list(self._all.values())
        mask = pareto_front(np.array([each.costs for each in taking_part]))
        self._set([each for each, on in zip(taking_part, mask, strict=True) if on])

    def _set(self, members: list[Result]) -> None:
        self._members = sorted(members, key=lambda each: each.costs or ())
        self._costs = np.array([each.costs for each in self._members])
        self._volume = None
