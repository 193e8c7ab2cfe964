"""Two Ray nodes on this machine: a search started with an address works on both."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stubs import Session, evaluate

from mlpspace.engines import ray_tune
from mlpspace.measurement import Assignment, Event
from mlpspace.study import Study

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a cluster of two nodes with one CPU each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written into the home folder
    import ray
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def _waiting_for_another(folder: Path):
    """A worker that leaves its node's name in `folder`; its first trial waits there for another node, a minute long."""

    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        import ray

        (folder / ray.get_runtime_context().get_node_id()).touch()
        until = time.monotonic() + 60
        while assignment.trial == 0 and len(list(folder.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        yield from evaluate(assignment, bounds)

    return events


def test_both_nodes_of_a_cluster_take_trials(tmp_path, address):
    import stubs
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(stubs)  # workers do not have the tests on their path
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    with Session(tmp_path / "run1", trials=8) as search:
        ray_tune.run(
            search,
            wanted=ray_tune.Wanted(address=address, device="cpu"),
            interrupted=lambda: False,
            make_evaluate=functools.partial(_waiting_for_another, nodes),
        )
    assert {trial.state for trial in Study(tmp_path / "run1").trials()} == {"complete"}
    assert len(list(nodes.iterdir())) == 2


def test_without_an_address_no_cluster_is_joined_that_happens_to_run(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    import ray

    with ray_tune._cluster(ray_tune.Wanted(device="cpu")):
        assert len(ray.nodes()) == 1
    with ray_tune._cluster(ray_tune.Wanted(address=address, device="cpu")):
        assert len(ray.nodes()) == 2
