"""A table whose rows are listed, such as those of a CSV file or of a recorded study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from mlpspace.objectives import Objective
from mlpspace.pareto import Floats, pareto_front
from mlpspace.replay.columns import places, walk
from mlpspace.space.dims import Choice, Choose, Span, Value
from mlpspace.space.space import Point


class ListedTable:
    """A table whose rows are listed.

    Rows with equal values are the same network trained again: accuracies are averaged, of the rest the first holds.

    Args:
        name: for messages.
        columns: dimension -> its value in each row; None where it does not exist.
        known: metric -> value in each row, of what takes no training.
        accuracy: (rows, len(trained_epochs)).
        objectives: the accuracy and metrics of `known`.
        epoch_seconds: (rows,); where it is not known, an epoch takes a second.
        nearest: for a few rows out of a large space, where hardly any combination is in the table: a choice that no
            row has, with what was chosen before it, becomes the nearest one in the dimension's order that a row has.
    """

    def __init__(
        self,
        name: str,
        *,
        columns: Mapping[str, Sequence[Value]],
        known: Mapping[str, Sequence[float]],
        accuracy: Floats,
        trained_epochs: tuple[int, ...],
        objectives: tuple[Objective, ...],
        epoch_seconds: Sequence[float] | None = None,
        nearest: bool = False,
    ) -> None:
        self.name = name
        self.objectives = objectives
        self.places = places(columns)
        self.trained_epochs = trained_epochs
        rows: dict[tuple[Value, ...], list[int]] = {}
        names = [place.dim.name for place in self.places]
        for i, values in enumerate(zip(*(columns[each] for each in names), strict=True)):
            rows.setdefault(values, []).append(i)
        self._row = {values: i for i, values in enumerate(rows)}
        self._names = tuple(names)
        first = [numbers[0] for numbers in rows.values()]
        self._known = [{metric: float(told[i]) for metric, told in known.items()} for i in first]
        self._accuracy = np.array([np.mean(accuracy[numbers], axis=0) for numbers in rows.values()])
        self._seconds = [1.0 if epoch_seconds is None else float(epoch_seconds[i]) for i in first]
        self._points = [self._point(values) for values in rows]
        self.size = float(len(rows))
        self.repeated = len(accuracy) - len(rows)  # rows that were averaged into others
        self._nearest = nearest

    def point(self, choose: Choose) -> Point:
        return walk(self.places, self._near(choose) if self._nearest else choose)

    def _near(self, choose: Choose) -> Choose:
        left = self._points

        def near(dim: Choice | Span) -> Value:
            nonlocal left
            assert isinstance(dim, Choice)
            place = dim.values.index(choose(dim))
            there = {point[dim.name] for point in left}
            value = min(there, key=lambda each: (abs(dim.values.index(each) - place), dim.values.index(each)))
            left = [point for point in left if point[dim.name] == value]
            return value

        return near

    def _point(self, values: tuple[Value, ...]) -> Point:
        told = dict(zip(self._names, values, strict=True))
        return walk(self.places, lambda dim: told[dim.name])

    def _find(self, point: Mapping[str, Value]) -> int | None:
        return self._row.get(tuple(map(point.get, self._names)))

    def _at(self, point: Mapping[str, Value]) -> int:
        found = self._find(point)
        assert found is not None, f"{dict(point)} is not in {self.name}"
        return found

    def holds(self, point: Mapping[str, Value]) -> bool:
        return self._find(point) is not None

    def draw(self, rng: np.random.Generator) -> Point:
        return dict(self._points[int(rng.integers(len(self._points)))])

    def points(self) -> Sequence[Point]:
        """All of them."""
        return self._points

    def known(self, point: Mapping[str, Value]) -> Mapping[str, float]:
        return self._known[self._at(point)]

    def accuracy(self, point: Mapping[str, Value]) -> Sequence[float]:
        return [float(value) for value in self._accuracy[self._at(point)]]

    def epoch_seconds(self, point: Mapping[str, Value]) -> float:
        return self._seconds[self._at(point)]

    @cached_property
    def costs(self) -> Floats:
        """Of every network at the end of its training: (networks, objectives)."""
        told = [
            known | {"accuracy": float(curve[-1])} for known, curve in zip(self._known, self._accuracy, strict=True)
        ]
        return np.array([[each.cost(values[each.metric]) for each in self.objectives] for values in told])

    def front(self) -> Floats:
        return self.costs[pareto_front(self.costs)]
