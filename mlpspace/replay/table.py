"""A table that stands for training: what each network reached, looked up instead of trained.

Made of a CSV file, of a recorded study, or computed from a model (`replay/quadratic.py`). A combination of values that
is not in the table does not exist, as what breaks a requirement does not in a space.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from mlpspace.architecture import Architecture
from mlpspace.counts import Profile
from mlpspace.domain import Enqueued, Key
from mlpspace.errors import UserError, did_you_mean
from mlpspace.measurement import Assignment
from mlpspace.objectives import Objective, corner
from mlpspace.pareto import Floats, hypervolume, pareto_front
from mlpspace.recipe import Recipe
from mlpspace.replay.columns import Place, is_empty, values_of
from mlpspace.replay.listed import ListedTable
from mlpspace.space.dims import Choice, Choose, Span, Value, word
from mlpspace.space.space import Candidate, Point

ACCURACY_QUANTILE = 0.25  # of all networks: below it nothing counts
BEYOND = 0.05  # of the front's range of cost, so that its dearest network counts too


class TableError(UserError):
    """A table that cannot be read; the text says which cell or column and what would do."""


class Table(Protocol):
    """Networks with what is known of them without training, and the accuracy after each epoch of their training."""

    name: str
    objectives: tuple[Objective, ...]
    places: tuple[Place, ...]
    trained_epochs: tuple[int, ...]  # after which the accuracy is known, rising
    size: float  # networks

    def point(self, choose: Choose) -> Point:
        """What comes of choosing, dimension by dimension."""

    def holds(self, point: Mapping[str, Value]) -> bool: ...
    def draw(self, rng: np.random.Generator) -> Point:
        """A random network of the table, each as likely as any other."""

    def known(self, point: Mapping[str, Value]) -> Mapping[str, float]:
        """Metric -> value of what takes no training."""

    def accuracy(self, point: Mapping[str, Value]) -> Sequence[float]:
        """After each of `trained_epochs`."""

    def epoch_seconds(self, point: Mapping[str, Value]) -> float:
        """Of training time for one epoch."""

    def front(self) -> Floats:
        """The costs of the front, or of the best one known: (n, objectives)."""


def best_volume(table: Table) -> float:
    """The hypervolume of the table's front: 1.0 of what the benchmark prints."""
    return hypervolume(table.front(), corner(table.objectives))


@dataclass(frozen=True, slots=True)
class Row:
    """What stands in the place of an `Architecture`: the values of the row, as a name too."""

    id: str
    point: Mapping[str, Value] = field(compare=False)

    def describe(self) -> str:
        """One readable line."""
        return self.id

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.id)


def against(objectives: Sequence[Objective], costs: Floats) -> tuple[Objective, ...]:
    """Accuracy and a cost with the corner of the benchmark: see `ACCURACY_QUANTILE` and `BEYOND`.

    Args:
        objectives: the two, in this order; their `worst` says nothing.
        costs: of all networks, (n, 2).
    """
    accuracy, cost = objectives
    at_least = float(np.quantile(-costs[:, 0], ACCURACY_QUANTILE))
    return dataclasses.replace(accuracy, worst=at_least), dearest(cost, costs)


def dearest(objective: Objective, costs: Floats) -> Objective:
    """The second objective with its worst value a little beyond the front's."""
    front = costs[pareto_front(costs), 1]
    reach = np.ptp(front) or np.ptp(costs[:, 1]) or 1.0  # one network beats all others: then the range of the table
    worst = float(front.max() + BEYOND * reach)
    worst = -worst if objective.goal == "maximize" else worst
    return dataclasses.replace(objective, worst=10.0**worst if objective.scale == "log" else worst)


def read_csv(
    path: str | Path,
    *,
    params: Sequence[str],
    accuracy: str,
    cost: str,
    cost_goal: str = "minimize",
    log_cost: bool = True,
    curves: Sequence[str] = (),
    epoch_seconds: str | None = None,
) -> ListedTable:
    """A CSV file (.csv or .csv.gz) with one network a row.

    Args:
        params: columns that make a network.
        accuracy: column of the accuracy at the end of training, larger is better.
        cost: column that is known without training.
        curves: columns of the accuracy after epoch 1, 2, ... of the training; `accuracy` must be the last of them.
        epoch_seconds: column of the training time of one epoch; without one an epoch takes a second.

    Rows without accuracy or cost (a training that failed) are left out. "nan" is an empty cell too.

    Raises:
        TableError: no such file or column, a cell that is no number, a cost that has no logarithm.
    """
    header, rows = _rows(Path(path))
    wanted = dict.fromkeys([*params, accuracy, cost, *curves, *([epoch_seconds] if epoch_seconds else [])])
    for column in wanted:
        if column not in header:
            raise TableError(f'{path} has no column "{column}".{did_you_mean(column, header)}')
    if curves and curves[-1] != accuracy:
        raise TableError(
            f'The curve of {path} ends with "{curves[-1]}", but the accuracy is "{accuracy}": '
            "the last column of the curve is the accuracy at the end of training."
        )
    at = {name: i for i, name in enumerate(header)}
    measured = [accuracy, cost, *curves]
    rows = [(line, row) for line, row in rows if not any(is_empty(row[at[name]]) for name in measured)]
    if not rows:
        raise TableError(f'{path} has no row with both "{accuracy}" and "{cost}".')

    def numbers(name: str) -> Floats:
        return np.array([_number(row[at[name]], f"{path}:{line}", name) for line, row in rows])

    costs = numbers(cost)
    if log_cost and not np.all(costs > 0):
        line = rows[int(np.argmin(costs))][0]
        raise TableError(f'{path}:{line}: "{cost}" is {costs.min():g}, which has no logarithm. Say --linear-cost.')
    last = numbers(accuracy)
    parameters = {name: values_of([row[at[name]] for _, row in rows]) for name in params}

    def table(objectives: tuple[Objective, ...]) -> ListedTable:
        return ListedTable(
            str(path),
            columns=parameters,
            known={"cost": costs.tolist()},
            accuracy=np.column_stack([numbers(name) for name in curves]) if curves else last[:, None],
            trained_epochs=tuple(range(1, len(curves) + 1)) if curves else (1,),
            objectives=objectives,
            epoch_seconds=numbers(epoch_seconds).tolist() if epoch_seconds else None,
        )

    scale = "log" if log_cost else "linear"
    anyhow = table((Objective("accuracy", "maximize", worst=0.0), Objective("cost", cost_goal, worst=1.0, scale=scale)))
    return table(against(anyhow.objectives, anyhow.costs))


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with its line."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise TableError(f"{path} cannot be read as CSV: {error}") from error
    for line, row in rows:
        if len(row) != len(header):
            raise TableError(f"{path}:{line} has {len(row)} cells, the header has {len(header)}.")
    return header, rows


def _number(cell: str, where: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise TableError(f'{where}: "{column}" is "{cell}", not a number.')
    return number


class TableDomain:
    """The networks of a table as something to search. See `mlpspace.domain.Domain`.

    Args:
        epochs: the rungs; the last of them is the table's last. None: one rung, at the end of training.
    """

    def __init__(self, table: Table, *, epochs: tuple[int, ...] | None = None, keep: float = 1 / 3) -> None:
        self.table = table
        self.name = table.name
        self.objectives = table.objectives
        self.epochs = epochs or table.trained_epochs[-1:]
        self.keep = keep
        self.dimensions: tuple[tuple[Choice | Span, str | None], ...] = tuple(
            (place.dim, place.condition) for place in table.places
        )
        if self.epochs[-1] != table.trained_epochs[-1] or not set(self.epochs) <= set(table.trained_epochs):
            told = ", ".join(map(str, table.trained_epochs))
            raise TableError(
                f"Rungs {', '.join(map(str, self.epochs))}: {table.name} has accuracies after epoch {told}."
            )
        self._recipe = Recipe()
        self._words = {
            (place.dim.name, value): f"{place.dim.name}={word(value)}"
            for place in table.places
            for value in place.dim.values
        }

    def candidate(self, choose: Choose) -> Candidate:
        return self._candidate(self.table.point(choose))

    def draw(self, rng: np.random.Generator) -> Candidate:
        return self._candidate(self.table.draw(rng))

    def refusal(self, candidate: Candidate) -> str | None:
        return None if self.table.holds(candidate.point) else "not in the table"

    def key(self, candidate: Candidate) -> Key:
        return candidate.architecture.id, ""

    def known(self, candidate: Candidate) -> Mapping[str, float]:
        """Nothing of what is not in the table."""
        return self.table.known(candidate.point) if self.table.holds(candidate.point) else {}

    def traits(self, candidate: Candidate) -> Sequence[float]:
        known = self.table.known(candidate.point)
        return [each.cost(known[each.metric]) for each in self.objectives if each.metric in known]

    # --- what only a search asks for: a row was counted and measured before ---

    def counts(self, architecture: Architecture) -> Profile:
        known = self.table.known(row_of(architecture).point)
        counted = {name: round(known.get(name, 0)) for name in ("params", "macs")}
        return Profile(**counted, activations=0, tokens=0, resolution=0, classes=0)

    def measured_bounds(self) -> dict[str, tuple[float, float]]:
        return {}

    def default_recipe(self) -> Recipe:
        return self._recipe

    def enqueued(self) -> list[Enqueued]:
        return []

    def assignment(
        self, number: int, attempt: int, architecture: Architecture, recipe: Recipe, *, seed: int
    ) -> Assignment:
        return Assignment(
            trial=number,
            attempt=attempt,
            architecture=architecture,
            recipe=recipe,
            resolution=0,
            classes=0,
            dataset=self.name,
            data_path=None,
            images=None,
            validation=0.0,
            epochs=self.epochs,
            seed=seed,
            deployment=None,
        )

    def _candidate(self, point: Point) -> Candidate:
        row = Row(" ".join([self._words[each] for each in point.items()]), point)
        return Candidate(point, cast(Architecture, row), self._recipe)


def row_of(architecture: Architecture) -> Row:
    """The row that passes for an architecture in the candidates of a table."""
    row = cast(object, architecture)
    assert isinstance(row, Row)
    return row
