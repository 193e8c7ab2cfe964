"""The same search on real Ray Tune workers, which train nothing here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from stubs import SPACE, Session, evaluate, measurement

from mlpspace.engines import inline, ray_cluster, ray_tune
from mlpspace.engines.resources import EngineError, plan
from mlpspace.errors import DataError
from mlpspace.measurement import Assignment, Event, Progress
from mlpspace.study import Study
from mlpspace.wall_time import Tallies

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WANTED = ray_tune.Wanted(workers=2, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_ray() -> Iterator[None]:
    """Ray starts once for all tests here, with two workers' worth of CPUs."""
    with ray_cluster.cluster(WANTED):
        yield


def run(search, make, interrupted=lambda: False, tallies=None) -> None:
    ray_tune.run(search, wanted=WANTED, interrupted=interrupted, make_evaluate=make, tallies=tallies)


# workers get their stand-in by value: this module is not on their path


def _stand_in(name: str):
    import sys

    import stubs
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(stubs)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = {
        "plain": evaluate,
        "dying": _dying,
        "dying late": _dying_late,
        "broken": _broken,
        "slow": _slow,
        "hanging": _hanging,
    }[name]
    return lambda: made


def _dying(assignment: Assignment, bounds: object) -> Iterator[Event]:
    if assignment.trial == 1 or (assignment.trial == 3 and assignment.attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    yield from evaluate(assignment, bounds)


def _dying_late(assignment: Assignment, bounds: object) -> Iterator[Event]:
    for event in evaluate(assignment, bounds):
        if assignment.trial == 0 and assignment.state is None and getattr(event, "epoch", 0) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield event


def _broken(assignment: Assignment, bounds: object) -> Iterator[Event]:
    yield Progress(phase="data")
    raise DataError("train/cat/7.png is cut off")


def _slow(assignment: Assignment, bounds: object) -> Iterator[Event]:
    yield measurement("throughput", 1.0)
    for _ in range(600):
        time.sleep(0.1)
        yield Progress(phase="training", epochs=1)


def _hanging(assignment: Assignment, bounds: object) -> Iterator[Event]:
    for event in evaluate(assignment, bounds):
        yield event
        if assignment.trial == 1 and getattr(event, "epoch", 0) == 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)


def test_at_rungs_trials_pause_and_any_worker_takes_them_up_where_they_stopped(tmp_path):
    text = SPACE.replace("epochs: 2}", "rungs: {epochs: [2, 6, 18], keep: 1/3}}").replace("1..4", "1..8")
    with Session(tmp_path / "ray", text=text, trials=30) as search:
        run(search, _stand_in("plain"))
        assert search.done
    trials = Study(tmp_path / "ray").trials()
    reached = [trial.measurements["accuracy"].epochs for trial in trials if "accuracy" in trial.measurements]
    assert {2, 6, 18} == set(reached)
    assert reached.count(18) < len(reached) / 2
    for trial in trials:
        epochs = trial.measurements["accuracy"].epochs if "accuracy" in trial.measurements else 0
        assert [epoch for epoch, _, _ in trial.curve] == list(range(1, epochs + 1))
        assert (trial.state == "complete") == (epochs == 18)


def test_a_trial_whose_worker_dies_between_rungs_goes_on_from_its_checkpoint(tmp_path):
    text = SPACE.replace("epochs: 2}", "rungs: {epochs: [2, 6], keep: 1/2}}")
    with Session(tmp_path / "ray", text=text, trials=4) as search:
        run(search, _stand_in("dying late"))
    first = Study(tmp_path / "ray").trials()[0]
    assert (first.state, first.attempt) == ("complete", 1)
    assert [epoch for epoch, _, _ in first.curve] == [1, 2, 3, 4, 5, 6]


def test_the_search_on_ray_tune_gives_what_the_inline_engine_gives(tmp_path):
    with Session(tmp_path / "ray", trials=12) as search:
        run(search, _stand_in("plain"))
        assert search.done
    with Session(tmp_path / "inline", trials=12) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    on_ray, here = (Study(tmp_path / name).trials() for name in ("ray", "inline"))
    assert [trial.number for trial in on_ray] == list(range(12))
    assert {trial.state for trial in on_ray} == {"complete"}
    # fixed points come first on both; what the sampler draws later depends on the order of arrival
    assert [trial.architecture_id for trial in on_ray[:2]] == [trial.architecture_id for trial in here[:2]]
    by_id = {trial.architecture_id: trial for trial in here}
    for trial in on_ray:
        twin = by_id.get(trial.architecture_id)
        if twin:
            assert trial.measurements["accuracy"].value == twin.measurements["accuracy"].value


def test_a_worker_that_is_killed_costs_one_attempt_and_the_search_goes_on(tmp_path):
    with Session(tmp_path / "run1", trials=6) as search:
        run(search, _stand_in("dying"))
    trials = Study(tmp_path / "run1").trials()
    assert [(trial.state, trial.attempt) for trial in trials] == [
        ("complete", 1),
        ("infeasible", 3),
        ("complete", 1),
        ("complete", 2),
        ("complete", 1),
        ("complete", 1),
    ]
    assert trials[1].reason == "worker died"


def test_a_trial_that_hangs_is_ended_from_outside_and_the_search_goes_on_at_full_width(tmp_path, monkeypatch):
    monkeypatch.setattr("mlpspace.results.HANG_S", (1.0, 1.0))
    session = Session(tmp_path / "run1", text=SPACE.replace("epochs: 2}", "epochs: 2, timeout: 2s}"), trials=6)
    session.clock = time.monotonic
    kept = []
    tallies = Tallies(kept.append, dict)
    with session as search:
        run(search, _stand_in("hanging"), tallies=tallies)
    tallies.keep()
    trials = Study(tmp_path / "run1").trials()
    assert [trial.state for trial in trials] == ["complete", "infeasible", *["complete"] * 4]
    assert (trials[1].reason, trials[1].deaths) == ("time limit", 0)
    lost = [tally["lost"] for tally in kept[-1]["workers"].values() if "lost" in tally]
    assert len(lost) == 1
    assert lost[0] > 1.0  # it was silent for so long before it was ended


def test_a_broken_dataset_ends_the_search_with_its_one_message(tmp_path):
    with Session(tmp_path / "run1") as search, pytest.raises(Exception, match=r"7\.png is cut off"):
        run(search, _stand_in("broken"))
    assert all(trial.state == "running" for trial in Study(tmp_path / "run1").trials())


def test_an_interrupt_ends_the_engine_soon_and_leaves_the_trials_unfinished(tmp_path):
    begun = time.monotonic()
    with Session(tmp_path / "run1") as search:
        run(search, _stand_in("slow"), interrupted=lambda: time.monotonic() - begun > 5)
    states = {trial.state for trial in Study(tmp_path / "run1").trials()}
    assert states == {"running"}
    with Session(tmp_path / "run1") as search:
        again = search.next_assignment()
        assert (again.trial, again.attempt) == (0, 2)


def test_a_worker_that_no_node_can_hold_is_refused_with_what_the_nodes_have(tmp_path):
    wanted = ray_tune.Wanted(gpus_per_worker=3.0)
    with Session(tmp_path / "run1") as search, pytest.raises(EngineError, match="No node can hold"):
        ray_tune.run(search, wanted=wanted, interrupted=lambda: False)


@pytest.mark.parametrize(("gpus", "shared"), [(0.5, True), (1.0, False)])
def test_workers_are_told_whether_they_share_their_gpu(gpus, shared, tmp_path):
    wanted = ray_tune.Wanted(gpus_per_worker=gpus)
    told = {"wanted": wanted, "resources": plan(wanted, [{"CPU": 4.0, "GPU": 1.0}]), "measuring": None}
    bridge = SimpleNamespace(**told, search=SimpleNamespace(done=True))
    ray_tune._fit(bridge, None, tmp_path)
    assert bridge.make().__self__.shared is shared
