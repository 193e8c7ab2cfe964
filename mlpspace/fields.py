"""What the fields of our frozen dataclasses take.

The dataclasses of `architecture` and `recipe` are the vocabulary of a space file: their fields *are* the dimensions
it may name. Each field says here, once, what it takes; the reader of space files, the check at the door and the
error messages all follow from it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer of the closed range [low, high]; `odd` or `even` leaves out the others, `or_zero` has 0 for off."""

    low: int
    high: int | None = None
    odd: bool = False
    or_zero: bool = False
    even: bool = False

    def complaint(self, value: object) -> str | None:
        """Why `value` will not do, with the nearest that would; None if it will do."""
        if isinstance(value, bool) or not isinstance(value, int):
            return f"is not a whole number (it takes {self})"
        if self.or_zero and value == 0:
            return None
        if value < self.low or (self.high is not None and value > self.high) or self._wrong_parity(value):
            return f"is not {self}; the nearest is {self.nearest(value)}"
        return None

    def nearest(self, value: int) -> int:
        if self.or_zero and value <= self.low // 2:
            return 0
        inside = max(self.low, value if self.high is None else min(value, self.high))
        return inside + 1 if self._wrong_parity(inside) else inside

    def _wrong_parity(self, value: int) -> bool:
        return (self.odd and value % 2 == 0) or (self.even and value % 2 == 1)

    def __str__(self) -> str:
        what = "an odd number" if self.odd else "an even number" if self.even else "a whole number"
        span = f"from {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        return f"{what} {span}{', or 0 for none' if self.or_zero else ''}"


@dataclass(frozen=True, slots=True)
class Real:
    """A number of the closed range [low, high]; `above` leaves out `low` itself, `or_none` lets None stand for off."""

    low: float
    high: float = math.inf
    above: bool = False
    or_none: bool = False

    def complaint(self, value: object) -> str | None:
        """Why `value` will not do, with the nearest that would; None if it will do."""
        if value is None and self.or_none:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"is not a number (it takes {self})"
        if value < self.low or value > self.high or (self.above and value == self.low):
            return f"is not {self}"
        return None

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        high = "" if self.high == math.inf else f" to {self.high:g}"
        return f"a number {low}{high}{', or none' if self.or_none else ''}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def complaint(self, value: object) -> str | None:
        """Why `value` will not do; None if it will do."""
        return None if isinstance(value, str) and value in self.words else f"is not one of {', '.join(self.words)}"

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def complaint(self, value: object) -> str | None:
        """Why `value` will not do; None if it will do."""
        return None if isinstance(value, bool) else "is not true or false"

    def __str__(self) -> str:
        return "true or false"


Takes: TypeAlias = Whole | Real | OneOf | Flag


def takes(what: Takes, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that takes `what`; required where no default is given."""
    return dataclasses.field(default=default, metadata={"takes": what})


class Checked:
    """A dataclass whose scalar fields are checked when it is made, and whose reals are floats whatever was written.

    Raises:
        ValueError: a field has a value that it does not take. Space files never get here with one: they are checked
            with their line numbers first.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __post_init__(self) -> None:
        for name, what in scalar_fields(type(self)).items():
            value = getattr(self, name)
            complaint = what.complaint(value)
            if complaint:
                raise ValueError(f"{type(self).__name__}.{name}: {value!r} {complaint}")
            if isinstance(what, Real) and value is not None:
                object.__setattr__(self, name, float(value))  # 2 and 2.0 are one value, and one content id


def default_of(kind: type[Any], name: str) -> Any:
    """The default of a field of a dataclass."""
    return next(f.default for f in dataclasses.fields(kind) if f.name == name)


_SCALAR_FIELDS: dict[type[Any], dict[str, Takes]] = {}  # asked for each part of each candidate


def scalar_fields(kind: type[Any]) -> dict[str, Takes]:
    """Name -> what it takes, for each field of a dataclass that was made with `takes`."""
    if kind not in _SCALAR_FIELDS:
        _SCALAR_FIELDS[kind] = _scalar_fields(kind)
    return _SCALAR_FIELDS[kind]


def _scalar_fields(kind: type[Any]) -> dict[str, Takes]:
    return {f.name: f.metadata["takes"] for f in dataclasses.fields(kind) if "takes" in f.metadata}
