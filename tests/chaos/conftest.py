"""Options of these tests, and the table of what was done and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from chaos.figures import Figures
from chaos.references import References


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "killing searches")
    chaos.addoption("--chaos-minutes", type=float, default=0.0, help="Go on with new random seeds for so long in all.")
    chaos.addoption("--chaos-seed", type=int, default=0, help="Of the first instants and victims.")


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """What all these tests add their figures to."""
    told = Figures()
    pytestconfig.stash[_KEY] = told
    return told


@pytest.fixture(scope="session")
def references() -> Iterator[References]:
    """Undisturbed searches."""
    told = References()
    yield told
    told.clear()


@pytest.fixture
def seeds(pytestconfig: pytest.Config) -> Callable[[float], Iterator[int]]:
    """Seeds of a test's rounds: one, and further ones until its share of --chaos-minutes is used up."""
    minutes = pytestconfig.getoption("--chaos-minutes", 0.0)
    first = pytestconfig.getoption("--chaos-seed", 0)

    def rounds(share: float) -> Iterator[int]:
        until = time.monotonic() + 60 * share * minutes
        seed = first
        yield seed
        while time.monotonic() < until:
            seed += 1
            yield seed

    return rounds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told = config.stash.get(_KEY, None)
    if told is not None:
        terminalreporter.write_line("")
        for line in told.table():
            terminalreporter.write_line(line)


_KEY = pytest.StashKey[Figures]()
