"""The user's mistakes. The library raises them, only the command line turns them into text and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. Its text says what was found, what would do, and what to type.

    What was found may be anybody's, a file's name or what is in it: it is told in characters that can be printed.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SpaceError(UserError):
    """All mistakes of one space file, each as `file:line: what was found, what would do`."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ArchitectureError(UserError):
    """An architecture that cannot be read, or cannot be built at a resolution."""


class DataError(UserError):
    """A dataset that is missing, broken, or not the one the space asks for."""


class DeviceLost(UserError):
    """The device answers nothing more in this process; another process may still use it."""


class WeightsError(UserError):
    """Weights that cannot be read, or that are not those of the network they are asked for."""


class StudyError(UserError):
    """A study folder that is missing, busy, or holds another space."""


def did_you_mean(word: str, known: Iterable[str], listing: str = "") -> str:
    """` Did you mean "x"? Known: a, b, x.` for a word that is not among `known`; the question only if one is near.

    Where they are too many to be told, `listing` is the command that lists them.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    question = f' Did you mean "{near[0]}"?' if near else ""
    return f"{question}\n  To see all: {listing}" if listing else f"{question} Known: {', '.join(names)}."


def printable(text: str) -> str:
    """`text` with what is no printable character written out: "\\x1b" would drive a terminal, "\\ud800" no file takes.

    Line breaks stay, as what is told in several lines is ours.
    """
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)
