"""Columns of a table -> dimensions: which values there are, in which order, and where a dimension exists.

A numeric column is an ordered dimension, a text column a categorical one. An empty cell says that the dimension does
not exist in that row. A column that never varies is no dimension.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpspace.space.dims import Choice, Choose, Value, word
from mlpspace.space.space import Point

MOST_TOLD = 4  # combinations that the text of a condition names


@dataclass(frozen=True, slots=True)
class Place:
    """A dimension with the values of earlier ones under which it exists."""

    dim: Choice
    by: tuple[str, ...] = ()  # names of earlier columns; none: it always exists
    where: frozenset[tuple[Value, ...]] = frozenset()  # values of `by`; None for what does not exist itself

    @property
    def condition(self) -> str | None:
        """As a person reads it; equal for dimensions that exist together."""
        if not self.by:
            return None
        told = sorted(tuple(map(word, values)) for values in self.where)
        if len(self.by) == 1:
            return f"{self.by[0]} = {' or '.join(values[0] for values in told)}"
        if len(told) > MOST_TOLD:
            return f"{len(told)} values of {', '.join(self.by)}: {told}"
        each = (" and ".join(f"{name} = {value}" for name, value in zip(self.by, t, strict=True)) for t in told)
        return " or ".join(each)


def walk(places: Sequence[Place], choose: Choose) -> Point:
    """The point that `choose` decides, asked once for each dimension that exists."""
    point: Point = {}
    for place in places:  # a sampler comes here thousands of times for one suggestion
        dim = place.dim
        if not place.by or tuple(map(point.get, place.by)) in place.where:
            point[dim.name] = choose(dim)
    return point


def is_empty(cell: str) -> bool:
    """Nothing stands there, or what programs write for nothing."""
    return cell.strip().lower() in ("", "nan")


def values_of(cells: Sequence[str]) -> list[Value]:
    """The cells of one column as values: whole numbers, numbers or texts, None for empty ones."""
    filled = ["" if is_empty(cell) else cell.strip() for cell in cells]
    for kind in (int, float):
        try:
            told = [kind(cell) if cell else None for cell in filled]
        except ValueError:
            continue
        if all(number is None or math.isfinite(number) for number in told):
            return list(told)
    return [cell or None for cell in filled]


def places(columns: Mapping[str, Sequence[Value]]) -> tuple[Place, ...]:
    """The dimensions of a table, each after those that its existence hangs on.

    Where nothing says when a column is empty, "empty" is one of its values (None).

    Args:
        columns: name -> value in each row, None where it does not exist.
    """
    settled: dict[str, Sequence[Value]] = {name: column for name, column in columns.items() if None not in column}
    found = [Place(_choice(name, column)) for name, column in settled.items() if len(set(column)) > 1]
    left = [name for name in columns if name not in settled]
    while left:
        ruled = {name: _rule(columns[name], settled) for name in left}
        name = next((name for name in left if ruled[name] is not None), left[0])
        rule = ruled[name]
        column = columns[name]
        if rule is None:
            found.append(Place(_choice(name, column)))
        elif len(set(column) - {None}) > 1:
            by, where = rule
            found.append(Place(_choice(name, [value for value in column if value is not None]), by, where))
        if rule is None or len(set(column) - {None}) > 1:
            settled[name] = column
        left.remove(name)
    return tuple(found)


def _choice(name: str, column: Sequence[Value]) -> Choice:
    """Numbers in their order, then texts in theirs, then "does not exist"."""

    def order(value: Value) -> tuple[int, float, str]:
        if value is None:
            return 2, 0.0, ""
        return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")

    return Choice(name, tuple(sorted(set(column), key=order)))


_Rule = tuple[tuple[str, ...], frozenset[tuple[Value, ...]]]


def _rule(column: Sequence[Value], settled: Mapping[str, Sequence[Value]]) -> _Rule | None:
    """The fewest settled columns whose values say whether a cell is empty, with the values where it is not.

    Up to two are tried; then all, less those that are not needed. Columns that tell the rows apart can say anything
    of them: one column must have a value twice, several at most half as many cases as there are rows.
    """
    filled = [value is not None for value in column]

    def rule(by: tuple[str, ...]) -> _Rule | None:
        cases: dict[tuple[Value, ...], bool] = {}
        for case, there in zip(zip(*(settled[name] for name in by), strict=True), filled, strict=True):
            if cases.setdefault(case, there) != there:
                return None
        if len(cases) > (len(filled) - 1 if len(by) == 1 else len(filled) // 2):
            return None
        return by, frozenset(case for case, there in cases.items() if there)

    names = [name for name in settled if len(set(settled[name])) > 1]
    few = itertools.chain(*(itertools.combinations(names, count) for count in (1, 2)))
    found = next((told for told in map(rule, few) if told is not None), None)
    if found is not None or not names:
        return found
    needed = tuple(names)
    for name in names:
        fewer = tuple(each for each in needed if each != name)
        if _says(fewer, settled, filled):
            needed = fewer
    return rule(needed)


def _says(by: tuple[str, ...], settled: Mapping[str, Sequence[Value]], filled: Sequence[bool]) -> bool:
    cases: dict[tuple[Value, ...], bool] = {}
    told = zip(*(settled[name] for name in by), strict=True) if by else itertools.repeat(())
    return all(cases.setdefault(case, there) == there for case, there in zip(told, filled, strict=False))
