"""What a search decides at rungs, before training, when it stops, and about repeats; workers train nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from stubs import SPACE, Session, evaluate, truth

from mlpspace.engines import inline
from mlpspace.front import front
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.search import BEHIND
from mlpspace.study import Study
from mlpspace.trial import SET_ASIDE

RUNGS = (
    SPACE.replace("epochs: 2}", "rungs: {epochs: [2, 6, 18], keep: 1/3}}")
    .replace("1..4", "1..8")
    .replace("..64", "..128")
)


def run(search, stub=evaluate) -> None:
    inline.run(search, device="cpu", evaluate=stub)


class Noted:
    """A worker that notes how many epochs each trial was trained, and from where."""

    def __init__(self, stub=evaluate) -> None:
        self.stub = stub
        self.epochs: Counter[int] = Counter()
        self.legs: list[tuple[int, int]] = []  # trial, epochs it began with

    def __call__(self, assignment: Assignment, bounds: object) -> Iterator[Event]:
        self.legs.append((assignment.trial, int(assignment.state or b"0")))
        for event in self.stub(assignment, bounds):
            if getattr(event, "epoch", 0):
                self.epochs[assignment.trial] += 1
            yield event


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A search of 40 trials with three rungs, which nobody changes."""
    folder = tmp_path_factory.mktemp("halved") / "run1"
    worker = Noted()
    session = Session(folder, text=RUNGS, trials=40)
    with session as search:
        run(search, worker)
        assert search.done
    return Study(folder), worker, session


def test_about_a_third_goes_on_from_each_rung_and_the_published_networks_always_do(halved):
    study, worker, _ = halved
    trials = [trial for trial in study.trials() if trial.reason != SET_ASIDE]
    assert len(trials) == 40
    drawn = [trial for trial in trials if trial.origin == "sampler"]
    reached = Counter(trial.measurements["accuracy"].epochs for trial in drawn)
    assert reached[2] >= len(drawn) // 2
    assert 1 <= reached[18] <= len(drawn) // 4
    assert {trial.state for trial in trials if trial.origin == "fixed point"} == {"complete"}
    assert sum(worker.epochs.values()) < 0.5 * 18 * 40


def test_no_epoch_is_trained_twice_and_a_promoted_trial_goes_on_where_it_paused(halved):
    study, worker, _ = halved
    for trial in study.trials():
        reached = trial.measurements.get("accuracy")
        assert worker.epochs[trial.number] == (reached.epochs if reached else 0)
        assert [epoch for epoch, _, _ in trial.curve] == list(range(1, worker.epochs[trial.number] + 1))
    resumed = [begun for _, begun in worker.legs if begun]
    assert set(resumed) == {2, 6}


def test_states_say_who_waits_who_was_stopped_and_who_came_to_the_end(halved):
    study, _, _ = halved
    for trial in study.trials():
        epochs = trial.measurements["accuracy"].epochs if "accuracy" in trial.measurements else 0
        assert (trial.state == "complete") == (epochs == 18)
        if trial.state == "stopped":
            assert trial.reason in (BEHIND, SET_ASIDE)


def test_the_front_holds_fully_trained_networks_only(halved):
    study, _, session = halved
    found = front(study, session.space.objectives)
    assert found.epochs == 18
    assert all(entry.trial.state == "complete" for entry in found.entries)


def test_checkpoints_are_kept_of_paused_trials_alone(halved):
    study, _, _ = halved
    kept = {int(file.stem.partition("-")[0]) for file in (study.folder / "checkpoints").glob("*.pt")}
    assert kept == {trial.number for trial in study.trials() if trial.state == "paused"}


@pytest.mark.slow
def test_a_study_that_goes_on_promotes_trials_that_an_earlier_session_paused(tmp_path):
    worker = Noted()
    with Session(tmp_path / "run1", text=RUNGS, trials=20) as search:
        run(search, worker)
    paused = {trial.number for trial in Study(tmp_path / "run1").trials() if trial.state == "paused"}
    with Session(tmp_path / "run1", text=RUNGS, trials=60) as search:
        run(search, worker)
    gone_on = {trial.number for trial in Study(tmp_path / "run1").trials() if trial.state != "paused"} & paused
    assert gone_on
    for trial in Study(tmp_path / "run1").trials():
        assert worker.epochs[trial.number] == (
            trial.measurements["accuracy"].epochs if "accuracy" in trial.measurements else 0
        )


def test_a_trial_that_is_cut_off_between_rungs_goes_on_from_its_last_checkpoint(tmp_path):
    class Killed(BaseException):
        pass

    def cut(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in evaluate(assignment, bounds):
            if getattr(event, "epoch", 0) == 5:
                raise Killed
            yield event

    with pytest.raises(Killed), Session(tmp_path / "run1", text=RUNGS, trials=6) as search:
        run(search, cut)
    worker = Noted()
    with Session(tmp_path / "run1", text=RUNGS, trials=6) as search:
        run(search, worker)
    assert worker.legs[0] == (0, 2)
    first = Study(tmp_path / "run1").trials()[0]
    assert (first.state, first.attempt) == ("complete", 1)
    assert [epoch for epoch, _, _ in first.curve] == list(range(1, 19))


def test_a_worker_that_dies_after_a_rung_costs_the_epochs_since_then(tmp_path):
    with Session(tmp_path / "run1", text=RUNGS, trials=6) as search:
        assignment = search.next_assignment()
        for event in evaluate(assignment, {}):
            if getattr(event, "epoch", 0) == 4:
                break
            assert search.report(0, event)
        search.lost(0, "killed")
        again = search.next_assignment()
        assert (again.trial, again.attempt, again.state, again.deployment) == (0, 1, b"2", None)


def test_what_cannot_reach_the_front_at_its_best_is_stopped_at_a_rung_with_the_reason(tmp_path):
    """Curves that are straight lines: after a few of them, the end is known from the first rung."""
    with Session(
        tmp_path / "run1", text=RUNGS.replace("keep: 1/3", "keep: 0.6"), trials=60, sampler="random"
    ) as search:
        run(search)
    stopped = [trial for trial in Study(tmp_path / "run1").trials() if trial.reason == BEHIND]
    assert stopped
    found = front(Study(tmp_path / "run1"), search.domain.space.objectives)
    for trial in stopped:
        assert "it reaches" in trial.detail
        accuracy, throughput = truth(type("A", (), {"architecture": trial.architecture}))
        assert any(
            point.values["accuracy"] >= accuracy and point.values["throughput"] >= throughput for point in found.points
        ), "the worker's formula says what it would have reached"


def test_a_small_study_still_trains_its_best_to_the_end(tmp_path):
    text = RUNGS.replace("fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", "")
    with Session(tmp_path / "run1", text=text, trials=2) as search:
        run(search)
        assert len(search.front()) == 1


def test_optuna_is_told_that_the_last_rung_alone_is_complete(halved):
    import optuna

    study, _, _ = halved
    loaded = optuna.load_study(study_name="run1", storage=f"sqlite:///{study.database}")
    for theirs, ours in zip(loaded.trials, study.trials(), strict=True):
        assert (theirs.state.name == "COMPLETE") == (ours.state == "complete")
        if ours.state == "complete":
            assert theirs.values[0] == ours.measurements["accuracy"].value


# --- the cheap objective --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_network_that_turns_out_slow_is_set_aside_untrained_and_does_not_count(tmp_path):
    """The last of every four networks is 50 times slower than it looks."""
    trained: list[int] = []

    def slow(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in evaluate(assignment, bounds):
            if isinstance(event, Measurement) and event.metric == "throughput" and assignment.trial % 4 == 3:
                event = dataclasses.replace(event, value=event.value / 50)
            if getattr(event, "epoch", 0) == 1:
                trained.append(assignment.trial)
            yield event

    with Session(tmp_path / "run1", trials=30) as search:
        run(search, slow)
        assert len(search.results) == 30
    trials = Study(tmp_path / "run1").trials()
    aside = [trial for trial in trials if trial.reason == SET_ASIDE]
    assert aside
    assert not {trial.number for trial in aside} & set(trained)
    assert all("throughput" in trial.measurements and "it would gain" in trial.detail for trial in aside)
    assert len(trials) == 30 + len(aside)


def test_every_trial_says_why_it_was_chosen(tmp_path):
    with Session(tmp_path / "run1", trials=20) as search:
        run(search)
    reasons = [trial.why for trial in Study(tmp_path / "run1").trials()]
    assert reasons[0].startswith("fixed point")
    assert reasons[3].startswith("random start")
    assert reasons[-1].startswith("expected gain ")
    assert "accuracy" in reasons[-1]
    assert "throughput" in reasons[-1]


@pytest.mark.slow
def test_the_default_sampler_learns_which_networks_cannot_be_trained(tmp_path):
    def hungry(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.architecture.stages[0].norm == "layer":
            yield Failure("out of memory", "2.0 GB asked for")
        else:
            yield from evaluate(assignment, bounds)

    with Session(tmp_path / "run1", text=SPACE, trials=40) as search:
        run(search, hungry)
    trials = Study(tmp_path / "run1").trials()
    late = np.mean([trial.state == "infeasible" for trial in trials[-20:]])
    assert late <= 0.2, "half of all networks have that norm"


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_search_whose_front_stops_growing_ends_and_says_what_was_to_be_expected(tmp_path):
    text = SPACE.replace("trials: 12, seed: 0", "trials: 400, seed: 0, stop: {patience: 15, gain: 1%}")
    with Session(tmp_path / "run1", text=text, trials=400) as search:
        run(search)
        assert search.done
        assert "over the last 15 trials" in search.enough
        assert "The next hour" in search.enough
        assert 15 < len(search.results) < 400
        done = len(search.results)
    with Session(tmp_path / "run1", text=text, trials=400) as search:
        assert search.next_assignment() is None, "the same command adds nothing"
        assert len(search.results) == done


def test_what_is_on_the_front_at_the_end_is_trained_anew_with_other_seeds(tmp_path):
    text = SPACE.replace("epochs: 2}", "epochs: 2, repeats_on_front: 2}")
    seeds: dict[int, set[int]] = {}

    def noting(assignment: Assignment, bounds: object) -> Iterator[Event]:
        seeds.setdefault(assignment.trial, set()).add(assignment.seed)
        yield from evaluate(assignment, bounds)

    with Session(tmp_path / "run1", text=text) as search:
        run(search, noting)
        assert search.done
        shown = {result.number: result.values["accuracy"] for result in search.front()}
    study = Study(tmp_path / "run1")
    found = front(study, search.domain.space.objectives)
    assert {entry.trial.number for entry in found.points} == set(shown)
    for entry in found.points:
        assert len(seeds[entry.trial.number]) == 3
        assert len(entry.trial.repeats) == 2
        own = entry.trial.measurements["accuracy"].value
        assert entry.values["accuracy"] == pytest.approx(own + (0.25 + 0.5) / 3)  # the stub's repeats come out so
        assert shown[entry.trial.number] == pytest.approx(entry.values["accuracy"])
    with Session(tmp_path / "run1", text=text) as search:
        assert search.next_assignment() is None, "nothing is left to do"
        assert {result.number: result.values["accuracy"] for result in search.front()} == pytest.approx(shown)


def test_a_training_anew_that_was_cut_off_goes_on_from_its_own_checkpoint(tmp_path):
    text = SPACE.replace("epochs: 2}", "epochs: 3, repeats_on_front: 2}")
    begun: list[tuple[int, int, bytes | None]] = []

    def states_on_the_way(assignment: Assignment, bounds: object) -> Iterator[Event]:
        begun.append((assignment.trial, assignment.repeat, assignment.state))
        for event in evaluate(assignment, bounds):
            yield event
            if isinstance(event, Progress) and event.accuracy is not None and event.epoch < 3:
                yield Checkpoint(event.epoch, str(event.epoch).encode())
                if assignment.repeat == 2 and event.epoch == 2 and len(cut_off) < 1:
                    cut_off.append((assignment.trial, 2, b"2"))
                    raise KeyboardInterrupt

    cut_off: list[tuple[int, int, bytes | None]] = []
    with pytest.raises(KeyboardInterrupt), Session(tmp_path / "run1", text=text) as search:
        run(search, states_on_the_way)
    del begun[:]
    with Session(tmp_path / "run1", text=text) as search:
        run(search, states_on_the_way)
        assert search.done
        on_front = {result.number for result in search.front()}
    assert begun[0] == cut_off[0]
    assert all(state is None for _, _, state in begun[1:])
    for trial in Study(tmp_path / "run1").trials():
        if trial.number in on_front:
            assert len(trial.repeats) == 2


def test_what_another_thread_has_of_a_trial_that_waits_stays_when_it_goes_on(tmp_path):
    """And is no copy until then: of a large study tens of thousands wait."""
    kept = []

    class Asking(Noted):
        def __call__(self, assignment: Assignment, bounds: object) -> Iterator[Event]:
            now = search._as_seen_now()
            kept.append((now, copy.deepcopy(now)))
            waiting = search.paused.keys()
            assert all(now[number] is search._known.seen[number] for number in waiting)
            assert all(now[number] is not search._known.seen[number] for number in search.running)
            assert all(each.seen is search._known.seen[number] for number, each in search.running.items())
            yield from super().__call__(assignment, bounds)

    worker = Asking()
    with Session(tmp_path / "run1", text=RUNGS.replace("keep: 1/3", "keep: 0.6"), trials=40) as search:
        run(search, worker)
    assert any(begun for _, begun in worker.legs)  # some waited, and went on
    ends = {trial.reason for trial in Study(tmp_path / "run1").trials()}
    assert BEHIND in ends
    for now, then in kept:
        for number, seen in enumerate(now):
            if then[number].state in ("running", "paused"):
                assert seen == then[number]
