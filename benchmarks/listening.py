"""The windows that a throughput is made of, for benchmarks that want the clock's own figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlpspace import throughput
from mlpspace.timing import Pairs


@contextmanager
def listening() -> Iterator[list[Pairs]]:
    """The windows that `measure_throughput` times within it."""
    heard: list[Pairs] = []
    inside = throughput.in_turns

    def in_turns(*work: Any, **how: Any) -> Pairs:
        heard.append(inside(*work, **how))
        return heard[-1]

    throughput.in_turns = in_turns
    try:
        yield heard
    finally:
        throughput.in_turns = inside
