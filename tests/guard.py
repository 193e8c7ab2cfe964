"""What keeps a test from hanging, and terminals from being driven."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending(seconds: int = 120) -> Iterator[None]:
    """What is inside ends; `seconds` are many times what it takes, so that a slow machine fails nothing."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tame(text: str) -> bool:
    """Whether a terminal shows it as it is: nothing in it moves the cursor, changes a title or runs from right to left."""
    return all(character.isprintable() or character == "\n" for character in text)
