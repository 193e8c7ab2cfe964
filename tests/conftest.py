"""What several test files share: a PostgreSQL server, started once and only for those who ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads spin for one that lost its core to other tests

from mlpspace import timing

if TYPE_CHECKING:
    from postgres_server import Server

    from mlpspace.address import Address


os.environ.setdefault("MLPSPACE_CALIBRATION", "1")  # in the process at hand: five fresh ones would take 15 s
# before others import them: tests run side by side, so no CPU is ever left alone
timing.OTHERS_PATIENCE_S, timing.LESS_PATIENCE_S = 1.0, 0.5


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="takes psycopg: pip install 'mlpspace[postgres]'")
    import postgres_server

    bin = postgres_server.programs()
    if bin is None:
        pytest.skip("takes a PostgreSQL server: apt install postgresql")
    started = postgres_server.Server(bin)
    yield started
    started.remove()


@pytest.fixture(params=["in a file", "on a server"])
def place(request: pytest.FixtureRequest) -> Address | None:
    """Where a study's tables shall be; None: in its folder."""
    if request.param == "in a file":
        return None
    found: Address = request.getfixturevalue("server").address()
    return found
