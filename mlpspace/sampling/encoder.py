"""Points of a domain as arrays that a model can learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlpspace.domain import Domain
from mlpspace.sampling.gaussian_process import Inputs, together
from mlpspace.sampling.moves import ordered
from mlpspace.space.dims import Choice, Span, Value
from mlpspace.space.space import Candidate

CODES = 32  # values that a wide range is cut into, where only equality counts


class Encoder:
    """Codes, places and traits of candidates; traits are brought to the centre and spread of `settle`."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._dims = [dim for dim, _ in domain.dimensions]
        self._tables = [_table(dim) for dim in self._dims]
        self._columns = {dim.name: i for i, dim in enumerate(self._dims)}
        self._of_trials: dict[int, Inputs] = {}

    def rows(self, candidates: Sequence[Candidate]) -> Inputs:
        """The arrays of n candidates, traits as they are: see `settled`."""
        codes = np.full((len(candidates), len(self._dims)), -1, dtype=np.int32)
        places = np.zeros(codes.shape)
        for i, candidate in enumerate(candidates):
            for name, value in candidate.point.items():
                column = self._columns[name]
                codes[i, column], places[i, column] = self._code(column, value)
        traits = np.array([self._domain.traits(candidate) for candidate in candidates], dtype=float)
        return Inputs(codes, places, traits.reshape(len(candidates), -1))

    def trials(self, numbered: Sequence[tuple[int, Candidate]]) -> Inputs:
        """The arrays of trials, each of which is encoded once."""
        new = [(number, candidate) for number, candidate in numbered if number not in self._of_trials]
        for number, candidate in new:
            self._of_trials[number] = self.rows([candidate])
        return together([self._of_trials[number] for number, _ in numbered])

    def _code(self, column: int, value: Value) -> tuple[int, float]:
        table = self._tables[column]
        if table is not None:
            return table[value, type(value) is bool]
        dim = self._dims[column]
        assert isinstance(dim, Span)
        place = _place(dim, float(value))  # type: ignore[arg-type]
        return min(CODES - 1, int(place * CODES)), place


def settled(inputs: Inputs, centre: np.ndarray, spread: np.ndarray) -> Inputs:
    """With traits of about spread 1."""
    return Inputs(inputs.codes, inputs.places, (inputs.traits - centre) / spread)


def _table(dim: Choice | Span) -> Mapping[tuple[Value, bool], tuple[int, float]] | None:
    """(value, is it a bool) -> (code, place); None where there are too many values to list."""
    if isinstance(dim, Span):
        if dim.count is None or dim.count > 4096:
            return None
        values: list[Value] = [dim.value_at(i) for i in range(dim.count)]
        return {(value, False): (i, _place(dim, float(value))) for i, value in enumerate(values)}  # type: ignore[arg-type]
    ranks = {value: i for i, value in enumerate(sorted(dim.values))} if ordered(dim) else {}  # type: ignore[type-var]
    last = max(1, len(dim.values) - 1)
    return {(value, type(value) is bool): (i, ranks.get(value, 0) / last) for i, value in enumerate(dim.values)}


def _place(dim: Span, value: float) -> float:
    """0 at the low end, 1 at the high one, on the range's own scale."""
    if dim.high == dim.low:
        return 0.0
    if dim.log:
        return math.log(value / dim.low) / math.log(dim.high / dim.low)
    return (value - dim.low) / (dim.high - dim.low)
