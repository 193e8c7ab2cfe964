"""Two Ray nodes on this machine, one of which passes for another device: who measures there, and who trains."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from own_process import skip_beside_other_clusters
from stubs import SPACE, Session, evaluate

from mlpspace.deploy_device import DeviceMissing, Devices
from mlpspace.engines import ray_cluster, ray_tune
from mlpspace.engines.ray_measuring import Measuring
from mlpspace.engines.resources import plan
from mlpspace.measurement import Assignment, Event
from mlpspace.study import Study
from mlpspace.wall_time import Tallies

pytestmark = [pytest.mark.ray, pytest.mark.slow]

XEON, EPYC = "Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores", "AMD EPYC 9654, 8 cores"


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a cluster of two nodes with one CPU each; this process has joined it."""
    skip_beside_other_clusters(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written into the home folder
        import ray
        import stubs
        from ray import cloudpickle
        from ray.cluster_utils import Cluster

        cloudpickle.register_pickle_by_value(stubs)  # workers do not have the tests on their path
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            with ray_cluster.cluster(ray_tune.Wanted(address=cluster.address, device="cpu")):
                yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def _other_node() -> str:
    import ray

    here = ray.get_runtime_context().get_node_id()
    (other,) = (node["NodeID"] for node in ray.nodes() if node["NodeID"] != here)
    return str(other)


def _devices_of(special: str) -> Devices:
    import ray

    return Devices(EPYC if ray.get_runtime_context().get_node_id() == special else XEON)


def _noting(folder: Path) -> Callable[..., Iterator[Event]]:
    """A worker that leaves a note of what it did for each trial, and where."""

    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        did = "both" if assignment.deployment and not assignment.measure_only else ""
        did = did or ("measured" if assignment.measure_only else "trained")
        with (folder / f"{assignment.trial} {did} {node}").open("a") as file:
            file.write(".")
        yield from evaluate(assignment, bounds)

    return events


def _search(folder: Path, address: str, devices: Callable[[], Devices], word: str, trials: int) -> list[str]:
    notes: list[str] = []
    (folder / "notes").mkdir()
    with Session(folder / "run1", text=SPACE, trials=trials) as search:
        ray_tune.run(
            search,
            wanted=ray_tune.Wanted(address=address, device="cpu", measures_on=word),
            interrupted=lambda: False,
            note=notes.append,
            make_evaluate=functools.partial(_noting, folder / "notes"),
            devices_of=devices,
        )
    return notes


def test_only_the_node_with_the_device_measures_both_train_and_each_trial_is_done_once(tmp_path, address):
    special = _other_node()
    notes = _search(tmp_path, address, functools.partial(_devices_of, special), "epyc", 12)
    assert notes == [f"throughput is measured on {EPYC}, which 1 of 2 nodes have; all of them train"]
    trials = Study(tmp_path / "run1").trials()
    done = [tuple(file.name.split()) for file in (tmp_path / "notes").iterdir()]
    assert all(file.read_text() == "." for file in (tmp_path / "notes").iterdir())
    measured = Counter(int(trial) for trial, did, _ in done if did == "measured")
    trained = Counter(int(trial) for trial, did, _ in done if did == "trained")
    aside = {trial.number for trial in trials if trial.state == "stopped"}  # measured, and not worth their training
    assert measured == Counter(trial.number for trial in trials)
    assert trained == Counter(trial.number for trial in trials if trial.number not in aside)
    assert {node for _, did, node in done if did == "measured"} == {special}
    assert len({node for _, did, node in done if did == "trained"}) == 2
    assert [(each.state, each.attempt, each.deaths) for each in trials if each.number not in aside] == [
        ("complete", 1, 0)
    ] * 12
    assert all({"throughput", "peak_memory_mb"} < trial.measurements.keys() for trial in trials if not trial.reason)


def test_a_device_that_no_node_has_is_refused_and_nodes_that_come_and_go_are_asked(tmp_path, address):
    import ray

    notes: list[str] = []
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    special = _other_node()
    (here,) = nodes.keys() - {special}
    resources = plan(ray_tune.Wanted(device="cpu"), [node["Resources"] for node in nodes.values()])
    with Session(tmp_path / "run1") as search:

        def measuring_on(word: str) -> Measuring:
            told = notes.append, Tallies(lambda told: None, dict), functools.partial(_devices_of, special)
            return Measuring(search, word, resources, {special: nodes[special]}, *told)

        with pytest.raises(DeviceMissing, match=r'"A100" is not here. There is:\n    AMD EPYC 9654, 8 cores\n  Write'):
            measuring_on("A100")
        measuring = measuring_on("EPYC")
        assert not search.apart  # each worker measures what it trains
        measuring.look(nodes)  # one joins that has another processor
        assert not search.apart  # it has not answered yet
        ray.wait(list(measuring._asked.values()))
        measuring.poll(0)
        assert search.apart
        measuring.look({here: nodes[here]})  # and the other leaves
        assert search.apart
        assert notes == [
            f"throughput is measured on {EPYC}, which 1 of 2 nodes have; all of them train",
            f"no node is left that has {EPYC}: what was measured is trained, the rest waits for one",
        ]
