"""Tests that take a process of their own."""

from __future__ import annotations

import pytest


def skip_beside_other_clusters(request: pytest.FixtureRequest) -> None:
    """Ray takes its actors for unreferenced in the second cluster of a process, where no search ever is."""
    if any(item.get_closest_marker("ray") and item.path != request.path for item in request.session.items):
        pytest.skip(f"takes a process of its own: pytest -m ray tests/{request.path.name}")
