"""Dimensions: what one place of a space file may be.

The four readings of a value, told by its shape:
    4                 Fixed    always this
    [2, 4, 8]         Choice   one of these
    64..256 step 32   Span     anything in the closed range
    {dense: {...}}    Branch   one of these kinds; its fields exist only if it is chosen
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always this value: no dimension, and in no point."""

    value: Value


def word(value: Value) -> str:
    """A value as a space file says it; different values are different words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values; two or more, no value twice."""

    name: str
    values: tuple[Value, ...]

    def draw(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def __str__(self) -> str:
        return f"one of {', '.join(map(word, self.values))}"


@dataclass(frozen=True, slots=True)
class Span:
    """The closed range low..high: whole numbers `step` apart, or reals (step None), log-uniform where `log`."""

    name: str
    low: int | float
    high: int | float
    step: int | float | None
    log: bool

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def count(self) -> int | None:
        """How many values it holds; None for a continuum."""
        if self.whole:
            return (int(self.high) - int(self.low)) // int(self.step or 1) + 1
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def value_at(self, index: int) -> int | float:
        assert self.count is not None
        if index == self.count - 1:
            return self.high
        value = self.low + index * (self.step or 1)
        return value if self.whole else float(f"{value:.12g}")  # 0.3, not 0.30000000000000004

    def draw(self, rng: np.random.Generator) -> int | float:
        if self.log:
            if self.whole:  # each integer owns the interval half a unit around it, so both ends are drawn
                low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
                return min(max(round(math.exp(rng.uniform(low, high))), int(self.low)), int(self.high))
            return min(max(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), self.low), self.high)
        if self.count is None:
            return float(rng.uniform(self.low, self.high))
        return self.value_at(int(rng.integers(self.count)))

    def __str__(self) -> str:
        tail = " log" if self.log else (f" step {word(self.step)}" if self.step not in (None, 1) else "")
        return f"{word(self.low)}..{word(self.high)}{tail}"


Dim: TypeAlias = Fixed | Choice | Span


@dataclass(frozen=True, slots=True)
class Option:
    """One kind a branch may take: its dataclass, and a dimension for each of its scalar fields."""

    kind: str
    type: type[Any]
    fields: dict[str, Dim]


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several kinds, each with fields of its own."""

    name: str
    options: tuple[Option, ...]

    def option(self, kind: str) -> Option:
        return next(option for option in self.options if option.kind == kind)


Place: TypeAlias = Fixed | Choice | Span | Branch
Choose: TypeAlias = Callable[[Choice | Span], Value]
"""Decides the value of one dimension; a sampler, a random generator or the encoding of a network."""


def resolve(dim: Dim, choose: Choose) -> Value:
    """The value a dimension takes."""
    return dim.value if isinstance(dim, Fixed) else choose(dim)


def resolve_branch(branch: Branch, choose: Choose) -> Any:
    """The mixer a branch takes: an instance of the chosen kind's dataclass."""
    option = branch.options[0]
    if len(branch.options) > 1:
        option = branch.option(str(choose(kind_choice(branch))))
    return option.type(**{name: resolve(dim, choose) for name, dim in option.fields.items()})


def kind_choice(branch: Branch) -> Choice:
    """The choice among a branch's kinds, as a dimension of the branch's own name."""
    return Choice(branch.name, tuple(option.kind for option in branch.options))


def values(dim: Dim) -> list[Value] | None:
    """All values of a dimension, in order; None for a continuum."""
    if isinstance(dim, Fixed):
        return [dim.value]
    if isinstance(dim, Choice):
        return list(dim.values)
    return None if dim.count is None else [dim.value_at(i) for i in range(dim.count)]


def size(place: Place) -> int:
    """How many values a place can take; a continuum counts as one, see `continua`."""
    if isinstance(place, Fixed):
        return 1
    if isinstance(place, Choice):
        return len(place.values)
    if isinstance(place, Span):
        return place.count or 1
    return sum(math.prod(size(dim) for dim in option.fields.values()) for option in place.options)


def dimensions(place: Place) -> Iterator[tuple[Choice | Span, str | None]]:
    """The dimensions of a place, each with the condition it exists under ("token_mixer = dense"), or None."""
    if isinstance(place, Choice | Span):
        yield place, None
    elif isinstance(place, Branch):
        several = len(place.options) > 1
        if several:
            yield kind_choice(place), None
        for option in place.options:
            for dim in option.fields.values():
                if not isinstance(dim, Fixed):
                    yield dim, f"{place.name} = {option.kind}" if several else None


def contains(dim: Dim, value: Value) -> bool:
    """Whether a dimension can take that value."""
    if isinstance(dim, Fixed):
        return dim.value == value and type(dim.value) is type(value)
    if isinstance(dim, Choice):
        return any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in dim.values)
    if isinstance(value, bool) or not isinstance(value, int | float) or not dim.low <= value <= dim.high:
        return False
    if dim.whole and not isinstance(value, int):
        return False
    if dim.step is None:
        return True
    steps = (value - dim.low) / dim.step
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def nearest(dim: Dim, target: float) -> Value:
    """The value of a numeric dimension nearest to `target` by ratio; of two equally near the smaller."""
    count = dim.count if isinstance(dim, Span) else None
    if isinstance(dim, Span) and count is None:
        return min(max(target, dim.low), dim.high)
    if (
        isinstance(dim, Span) and count is not None
    ):  # asked thousands of times, of spans of thousands: the two values that it lies between
        below = min(max(math.floor((target - dim.low) / (dim.step or 1)), 0), count - 1)
        beside: list[Value] = [dim.value_at(i) for i in range(max(0, below - 1), min(count, below + 3))]
    else:
        beside = values(dim) or []
    numbers = [v for v in beside if isinstance(v, int | float) and v > 0]
    assert numbers, f"{dim} has no numbers"
    return min(numbers, key=lambda v: (abs(math.log(v / target)), v))
