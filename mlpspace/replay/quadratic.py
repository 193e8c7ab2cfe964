"""A table that is computed: a quadratic model of accuracy and throughput over coded networks, such as one fitted to
the measurements of Accel-NASBench (https://github.com/afzalxo/Accel-NASBench). Its networks are too many to be listed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpspace.objectives import Objective
from mlpspace.pareto import Floats, pareto_front
from mlpspace.replay.columns import Place, walk
from mlpspace.replay.table import TableError, against, dearest
from mlpspace.space.dims import Choice, Choose, Value
from mlpspace.space.space import Point

RANDOM_CODES = 200_000  # from which the quantile of the accuracies is estimated
AT_ONCE = 60  # networks of the front whose neighbours are looked at in one go

OBJECTIVES = (
    Objective("accuracy", "maximize", worst=0.0),
    Objective("cost", "maximize", worst=1.0, scale="log"),
)

Codes = NDArray[np.int64]


class Quadratic:
    """One quantity: bias + sum of the values' weights + sum of the weights of pairs of values.

    Kept as one matrix over all values of all dimensions, so that a code of n values costs an n x n look-up.
    """

    def __init__(self, archive: Mapping[str, Any], quantity: str, first: Codes) -> None:
        one_hot, pairs, weights = archive["one_hot"], archive["pairs"], archive[f"{quantity}_weights"].astype(float)
        at = first[one_hot[:, 0]] + one_hot[:, 1]
        values = int(first[-1] + archive["choices"][-1])
        self._bias = float(archive[f"{quantity}_bias"])
        self._linear = np.zeros(values)
        np.add.at(self._linear, at, weights[: len(at)])
        self._square = np.zeros((values, values))
        np.add.at(self._square, (at[pairs[:, 0]], at[pairs[:, 1]]), weights[len(at) :])

    def one(self, places: Codes) -> float:
        return float(self._bias + self._linear[places].sum() + self._square[places[:, None], places].sum())

    def many(self, places: Codes) -> Floats:
        """(n, dimensions) -> (n,)."""
        hot = np.zeros((len(places), len(self._linear)))
        np.put_along_axis(hot, places, 1.0, axis=1)
        told: Floats = self._bias + hot @ self._linear + np.einsum("nv,nv->n", hot @ self._square, hot)
        return told


class QuadraticTable:
    """The networks of such a model; `cost` is the throughput, images/s, to be maximized."""

    def __init__(self, path: str | Path) -> None:
        try:
            archive = dict(np.load(path))
            self.choices: Codes = archive["choices"]
            self._first = np.concatenate([[0], np.cumsum(self.choices)[:-1]])
            self._accuracy = Quadratic(archive, "accuracy", self._first)
            self._log_throughput = Quadratic(archive, "log_throughput", self._first)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise TableError(f"{path} is no quadratic model of accuracy and log_throughput: {error}") from error
        self.name = str(path)
        self.trained_epochs: tuple[int, ...] = (1,)
        self.size = float(np.prod(self.choices.astype(float)))
        self.places = tuple(Place(Choice(f"x{i}", tuple(range(n)))) for i, n in enumerate(self.choices))
        self._names = tuple(place.dim.name for place in self.places)
        codes = np.random.default_rng(0).integers(self.choices, size=(RANDOM_CODES, len(self.choices)))
        accuracy, _ = against(OBJECTIVES, self._costs(codes))
        self._front = self._costs(self._local_front(codes))
        self.objectives: tuple[Objective, ...] = (accuracy, dearest(OBJECTIVES[1], self._front))

    def _costs(self, codes: Codes) -> Floats:
        accuracy, throughput = self.values(codes)
        return np.column_stack([-accuracy, -np.log10(throughput)])  # as OBJECTIVES have them

    def values(self, codes: Codes) -> tuple[Floats, Floats]:
        """Accuracy, %, and throughput, images/s: (n, dimensions) -> (n,), (n,)."""
        places = codes + self._first
        return self._accuracy.many(places), np.exp(self._log_throughput.many(places))

    def _local_front(self, codes: Codes) -> Codes:
        """A front that no change of one or two values improves, from the front of `codes` on.

        Pareto local search: every neighbour of every network of the front, until there is none left to look at.
        On Accel-NASBench it ends at the same 236 networks from any start that was tried.
        """
        codes, costs = self._best(codes)
        seen: set[bytes] = set()
        while True:
            fresh = [code for code in codes if code.tobytes() not in seen]
            fresh = fresh[:: max(1, len(fresh) // AT_ONCE)]  # spread over the front, not its near end first
            if not fresh:
                return codes
            seen |= {code.tobytes() for code in fresh}
            found, better = self._best(np.vstack([self._neighbours(code) for code in fresh]))
            codes, costs = np.vstack([codes, found]), np.vstack([costs, better])
            codes, first = np.unique(codes, axis=0, return_index=True)
            keep = pareto_front(costs[first])
            codes, costs = codes[keep], costs[first][keep]

    def _best(self, codes: Codes) -> tuple[Codes, Floats]:
        """The front of `codes`, each once, with its costs."""
        costs = self._costs(codes)
        on_front = np.flatnonzero(pareto_front(costs))
        codes, first = np.unique(codes[on_front], axis=0, return_index=True)
        return codes, costs[on_front][first]

    def _neighbours(self, code: Codes) -> Codes:
        """All codes that differ in one or two values."""
        moves = [(i, value) for i, n in enumerate(self.choices) for value in range(n) if value != code[i]]
        pairs = [(a, b) for a, b in itertools.combinations_with_replacement(moves, 2) if a[0] != b[0] or a == b]
        found = np.repeat(code[None], len(pairs), axis=0)
        for each in range(2):
            at = np.array([pair[each] for pair in pairs])
            found[np.arange(len(pairs)), at[:, 0]] = at[:, 1]
        return found

    def _places(self, point: Mapping[str, Value]) -> Codes:
        return self._first + np.array([point[name] for name in self._names])

    def point(self, choose: Choose) -> Point:
        return walk(self.places, choose)

    def holds(self, point: Mapping[str, Value]) -> bool:
        return True

    def draw(self, rng: np.random.Generator) -> Point:
        return dict(zip(self._names, rng.integers(self.choices).tolist(), strict=True))

    def known(self, point: Mapping[str, Value]) -> Mapping[str, float]:
        return {"cost": float(np.exp(self._log_throughput.one(self._places(point))))}

    def accuracy(self, point: Mapping[str, Value]) -> Sequence[float]:
        return [self._accuracy.one(self._places(point))]

    def epoch_seconds(self, point: Mapping[str, Value]) -> float:
        return 1.0

    def front(self) -> Floats:
        """The best known: no change of one or two values of its networks adds to it."""
        return self._front
