"""Small steps from points that are known: a mutation of one, a cross of two.

Both ask the domain to build the candidate, and so keep to its conditions: a dimension changes only where it exists, and
one that comes to exist with another's change is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mlpspace.domain import Domain
from mlpspace.space.dims import Choice, Span, Value
from mlpspace.space.space import Candidate

ANOTHER = 0.4  # a mutation changes one dimension; with this probability another, and so on
FAR = 0.15  # an ordered dimension goes to any other value this often, else to one nearby
STEP = 0.15  # standard deviation of a step along a continuum, as a share of the range


def ordered(dim: Choice | Span) -> bool:
    """Whether some values of a dimension are nearer to each other than others: ranges and choices of numbers."""
    return isinstance(dim, Span) or all(_number(value) for value in dim.values)


def mutate(domain: Domain, point: Mapping[str, Value], rng: np.random.Generator) -> Candidate:
    """`point` with one or a few of its dimensions changed: ordered ones mostly to a near value, others to any other."""
    names = list(point)
    count = 1
    while count < len(names) and rng.random() < ANOTHER:
        count += 1
    changed: set[str] = set()
    while len(changed) < min(count, len(names)):
        changed.add(names[int(rng.random() * len(names))])

    def choose(dim: Choice | Span) -> Value:
        if dim.name not in point:
            return dim.draw(rng)
        return _other(dim, point[dim.name], rng) if dim.name in changed else point[dim.name]

    return domain.candidate(choose)


def cross(
    domain: Domain, first: Mapping[str, Value], second: Mapping[str, Value], rng: np.random.Generator
) -> Candidate:
    """Each dimension as in either point; what neither has is drawn."""

    def choose(dim: Choice | Span) -> Value:
        name = dim.name
        if name in first and name in second:
            return first[name] if rng.random() < 0.5 else second[name]
        if name in first:
            return first[name]
        return second[name] if name in second else dim.draw(rng)

    return domain.candidate(choose)


def _other(dim: Choice | Span, value: Value, rng: np.random.Generator) -> Value:
    """Another value of a dimension."""
    if isinstance(dim, Choice):
        if not ordered(dim):
            index = next(i for i, each in enumerate(dim.values) if each == value and type(each) is type(value))
            return dim.values[_other_index(index, len(dim.values), near=False, rng=rng)]
        by_size = sorted(dim.values, key=float)  # type: ignore[arg-type]
        return by_size[_other_index(by_size.index(value), len(by_size), near=True, rng=rng)]
    assert isinstance(value, int | float)
    if dim.log or dim.count is None:
        return _along(dim, value, rng)
    index = round((value - dim.low) / (dim.step or 1))
    return dim.value_at(_other_index(index, dim.count, near=True, rng=rng))


def _other_index(index: int, count: int, *, near: bool, rng: np.random.Generator) -> int:
    """One of 0..count-1 that is not `index`."""
    if count < 2:
        return index
    if near and count > 2 and rng.random() >= FAR:
        away = 1
        while away < count - 1 and rng.random() < 0.3:
            away += 1
        sides = [other for other in (index - away, index + away) if 0 <= other < count]
        if sides:
            return sides[int(rng.random() * len(sides))]
    other = int(rng.random() * (count - 1))
    return other + 1 if other >= index else other


def _along(dim: Span, value: int | float, rng: np.random.Generator) -> int | float:
    """Another value of a continuum, or of whole numbers on a logarithmic scale."""
    if dim.low == dim.high:
        return value
    low, high, here = (math.log(x) if dim.log else float(x) for x in (dim.low, dim.high, value))
    for _ in range(100):
        there = rng.uniform(low, high) if rng.random() < FAR else rng.normal(here, STEP * (high - low))
        if there < low or there > high:
            continue
        found = math.exp(there) if dim.log else float(there)
        found = min(max(round(found) if dim.whole else found, dim.low), dim.high)
        if found != value:
            return found
    return value + 1 if dim.whole and value < dim.high else value - 1 if dim.whole else dim.low


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
