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

from mlpspace.engines import ray_cluster, ray_files, ray_tune
from mlpspace.errors import DataError, UserError
from mlpspace.measurement import Assignment, Event, Progress
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


def _unfit_at(bad: str, folder: Path):
    """A worker that has no dataset on one node; the first trial waits a minute for that node to say so."""

    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        import ray

        yield Progress(phase="data")
        if ray.get_runtime_context().get_node_id() == bad:
            (folder / "said").touch()
            raise DataError("~/data/cifar10 is not on this node")
        until = time.monotonic() + 60
        while not (folder / "said").exists() and time.monotonic() < until:
            time.sleep(0.1)
        yield from evaluate(assignment, bounds)

    return events


def test_a_node_without_the_dataset_is_set_aside_with_one_word_and_the_others_go_on(tmp_path, address):
    import ray
    import stubs
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(stubs)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    notes: list[str] = []
    wanted = ray_tune.Wanted(address=address, device="cpu")
    with ray_cluster.cluster(wanted), Session(tmp_path / "run1", trials=12) as search:
        here = ray.get_runtime_context().get_node_id()
        (bad,) = (node["NodeID"] for node in ray.nodes() if node["NodeID"] != here)
        make = functools.partial(_unfit_at, bad, tmp_path)
        ray_tune.run(search, wanted=wanted, interrupted=lambda: False, note=notes.append, make_evaluate=make)
    trials = Study(tmp_path / "run1").trials()
    assert [(trial.state, trial.deaths) for trial in trials] == [("complete", 0)] * 12
    assert len(notes) == 1, notes
    assert "is set aside, the others go on. It says: ~/data/cifar10 is not on this node" in notes[0]


def test_a_dataset_that_no_node_has_ends_the_search_with_its_message(tmp_path, address):
    import stubs
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(stubs)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Session(tmp_path / "run1", trials=6) as search, pytest.raises(UserError, match="cifar10 is not on this node"):
        ray_tune.run(
            search,
            wanted=ray_tune.Wanted(address=address, device="cpu"),
            interrupted=lambda: False,
            make_evaluate=_without_data,
        )


def _without_data():
    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        yield Progress(phase="data")
        raise DataError("~/data/cifar10 is not on this node")

    return events


def test_a_dataset_comes_to_a_node_that_does_not_have_it(tmp_path, address, monkeypatch):
    import dataclasses

    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "node").mkdir()
    root = tmp_path / "cifar10"
    (root / "plain text").mkdir(parents=True)
    (root / "plain text" / "train.parquet").write_bytes(bytes(range(256)) * 1000)
    (root / "empty").touch()
    monkeypatch.setattr(ray_files, "PIECE_BYTES", 100_000)
    with ray_cluster.cluster(ray_tune.Wanted(address=address, device="cpu")):
        offered = ray_files.offer(str(root))
        assert offered.here(str(root)) == str(root)  # it is here
        elsewhere = dataclasses.replace(offered, root="/not/here/cifar10")
        copy = Path(elsewhere.here("/not/here/cifar10"))
        assert copy.is_relative_to(tmp_path / "node")
        for name, size, _ in ray_files.entries(root):
            assert (copy / name).read_bytes() == (root / name).read_bytes()
            assert (copy / name).stat().st_size == size
        assert elsewhere.here("/not/here/cifar10") == str(copy)  # it is there by now
        too_large = dataclasses.replace(elsewhere, total=10**12, reader=None)
        with pytest.raises(DataError, match=r"1000\.0 GB are too much to be sent there"):
            too_large.here("/not/here/cifar10")


def test_the_workers_of_a_cluster_run_the_code_of_the_driver(address):
    with ray_cluster.cluster(ray_tune.Wanted(address=address, device="cpu")):
        import ray

        @ray.remote
        def sent() -> list[str]:
            found = (
                Path(place, "mlpspace", "search", "search.py") for place in sys.path if "py_modules_files" in place
            )
            return [file.read_text() for file in found if file.exists()]

        assert ray.get(sent.remote()) == [
            Path(ray_tune.__file__).parents[1].joinpath("search", "search.py").read_text()
        ]


def test_without_an_address_no_cluster_is_joined_that_happens_to_run(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    import ray

    with ray_cluster.cluster(ray_tune.Wanted(device="cpu")):
        assert len(ray.nodes()) == 1
    with ray_cluster.cluster(ray_tune.Wanted(address=address, device="cpu")):
        assert len(ray.nodes()) == 2
