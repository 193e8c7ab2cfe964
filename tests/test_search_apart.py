"""A search in which one worker measures and another trains; see `Search.apart`. Nothing is trained here."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from stubs import SPACE, Session
from test_search_cut_off import RUNGS, WHOLE, Killed, Killer, every_epoch, optuna_says, outcome
from test_search_measured_again import noisy

from mlpspace.engines import inline
from mlpspace.front import front
from mlpspace.measurement import DISTURBED, Assignment, Event, Failure, Measurement, Progress
from mlpspace.search import Search
from mlpspace.space import read_space
from mlpspace.study import Study
from mlpspace.trial import SET_ASIDE

Evaluate = Callable[[Assignment, object], Iterator[Event]]


def searched(search: Search, evaluate: Evaluate = every_epoch, *, ahead: int = 2) -> None:
    """A worker that measures and one that trains, in turns until both have nothing to do."""
    search.apart = True
    idle = 0
    while idle < 2:  # what the one finds nothing to do with may be for the other
        measuring = search.next_to_measure(ahead)
        if measuring is not None:
            assert measuring.measure_only
            number = measuring.trial
            if all(search.report(number, event) for event in evaluate(measuring, search.measured_bounds(number))):
                search.measured(number)
        training = search.next_assignment()
        if training is not None:
            assert training.deployment is None
            number = training.trial
            if all(search.report(number, event) for event in evaluate(training, search.measured_bounds(number))):
                search.completed(number)
        idle = idle + 1 if measuring is None and training is None else 0


class Noted:
    """A worker of which is noted how often it measured and trained each trial."""

    def __init__(self) -> None:
        self.measured: Counter[int] = Counter()
        self.trained: Counter[int] = Counter()

    def __call__(self, assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.deployment is not None:
            self.measured[assignment.trial] += 1
        if not assignment.measure_only:
            self.trained[assignment.trial] += 1
        yield from every_epoch(assignment, bounds)


@pytest.mark.parametrize("text", [RUNGS, WHOLE], ids=["rungs", "whole"])
def test_it_comes_to_the_same_as_one_in_which_each_worker_does_both(tmp_path: Path, text: str) -> None:
    noted = Noted()
    with Session(tmp_path / "both", text=text, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=every_epoch)
    with Session(tmp_path / "apart", text=text, sampler="random") as search:
        searched(search, noted, ahead=1)
        assert search.done
    assert outcome(tmp_path / "apart") == outcome(tmp_path / "both")
    assert optuna_says(tmp_path / "apart") == optuna_says(tmp_path / "both")
    assert {trial.attempt for trial in Study(tmp_path / "apart").trials()} == {1}
    assert set(noted.measured.values()) == {1}


def cut_off_everywhere(tmp_path: Path, text: str, share: float) -> None:
    undisturbed, counted = tmp_path / "undisturbed", Killer()
    with Session(undisturbed, text=text, sampler="random", trials=4, wrapped=counted) as search:
        searched(search)
    rng = random.Random(5)
    for n in (n for n in range(counted.count) if rng.random() < share):
        folder, noted = tmp_path / f"after{n}", Noted()
        for attempt in itertools.count():
            killer = Killer(n if attempt == 0 else None)
            try:
                with Session(folder, text=text, sampler="random", trials=4, wrapped=killer) as search:
                    known = {number for number, each in search.running.items() if not each.is_unmeasured}
                    before = Counter(noted.measured)
                    searched(search, noted)
                break
            except Killed:
                continue
        # what was measured when the search was cut off is not measured again
        assert all(noted.measured[number] == before[number] for number in known), n
        assert outcome(folder) == outcome(undisturbed), n
        assert optuna_says(folder) == optuna_says(undisturbed), n


def test_cut_off_at_some_places_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    cut_off_everywhere(tmp_path, WHOLE, 0.02)


@pytest.mark.slow
def test_cut_off_at_any_place_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    cut_off_everywhere(tmp_path, RUNGS, 0.05)


def test_a_worker_that_dies_in_training_leaves_what_was_measured(tmp_path: Path) -> None:
    noted = Noted()
    with Session(tmp_path / "run1", sampler="random", trials=1) as search:
        search.apart = True
        measuring = search.next_to_measure(1)
        assert measuring is not None
        for event in noted(measuring, {}):
            assert search.report(measuring.trial, event)
        search.measured(measuring.trial)
        first = search.next_assignment()
        assert first is not None
        assert first.attempt == 1
        assert search.report(first.trial, Progress(phase="training", epochs=2))
        search.lost(first.trial, "killed")
        assert search.next_to_measure(1) is None
        second = search.next_assignment()
        assert second is not None
        assert second.attempt == 2
        assert second.deployment is None


def test_a_network_whose_measurement_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", sampler="random", trials=1) as search:
        search.apart = True
        measuring = search.next_to_measure(1)
        assert measuring is not None
        throughput = next(event for event in every_epoch(measuring, {}) if not isinstance(event, Progress))
        assert search.report(measuring.trial, throughput)  # and not its peak memory
        search.returned(measuring.trial)
        assert search.next_assignment() is None
        again = search.next_to_measure(1)
        assert again is not None
        assert again.trial == measuring.trial
        assert again.measure_only


def test_no_more_networks_wait_to_be_trained_than_was_said(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", sampler="random") as search:
        search.apart = True
        for ahead in (1, 3):
            while (measuring := search.next_to_measure(ahead)) is not None:
                for event in every_epoch(measuring, {}):
                    search.report(measuring.trial, event)
                search.measured(measuring.trial)
            assert sum(each.ready for each in search.running.values()) == ahead


def test_a_network_that_breaks_a_measured_requirement_is_never_given_to_be_trained(tmp_path: Path) -> None:
    def slow(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.measure_only and assignment.trial % 2:
            yield Failure("broken requirement", "throughput 1 images/s, at least 10 required")
        else:
            yield from every_epoch(assignment, bounds)

    with Session(tmp_path / "run1", sampler="random", trials=6) as search:
        searched(search, slow)
    states = [trial.state for trial in Study(tmp_path / "run1").trials()]
    assert states == ["complete", "infeasible"] * 3


class _Thinks:
    """In the place of the thread beside an engine: each question is answered when the test says so."""

    ended = False

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[], Any], Future[Any]]] = []
        self.seconds = 0.0

    def ask(self, question: Callable[[], Any]) -> Future[Any]:
        self.asked.append((question, Future()))
        return self.asked[-1][1]

    def wants(self, results: int) -> bool:
        return False

    def take(self) -> None:
        return None


def test_a_network_is_given_to_be_trained_once_it_is_known_to_be_worth_it(tmp_path: Path) -> None:
    text = SPACE.replace("fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", "")
    with Session(tmp_path / "run1", text=text, sampler="random") as search:
        search.apart = True
        both = [search.next_to_measure(2), search.next_to_measure(2)]
        search.ahead = thinks = _Thinks()  # type: ignore[assignment]
        for measuring in both:
            assert measuring is not None
            for event in every_epoch(measuring, {}):
                search.report(measuring.trial, event)
            search.measured(measuring.trial)
        assert search.next_assignment() is None
        assert not search.done
        (_, first), (_, second) = thinks.asked
        first.set_result("slower than all that are as good")
        second.set_result(None)
        training = search.next_assignment()
        assert training is not None
        assert training.trial == 1
        assert search.report(1, Progress(phase="training", epochs=2))
        assert len(thinks.asked) == 2  # nobody thinks about it twice
    trials = Study(tmp_path / "run1").trials()
    assert [(trial.state, trial.reason) for trial in trials] == [("stopped", SET_ASIDE), ("running", None)]


def test_what_was_measured_apart_is_trained_as_it_is_once_every_worker_can_do_both(tmp_path: Path) -> None:
    noted = Noted()
    with Session(tmp_path / "run1", sampler="random", trials=3) as search:
        search.apart = True
        measuring = search.next_to_measure(1)
        assert measuring is not None
        for event in noted(measuring, {}):
            search.report(measuring.trial, event)
        search.measured(measuring.trial)
        search.apart = False
        inline.run(search, device="cpu", evaluate=noted)
    assert noted.measured == noted.trained == {0: 1, 1: 1, 2: 1}
    assert dataclasses.asdict(measuring)["measure_only"]


def test_once_nothing_new_is_left_what_was_measured_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpspace.search.candidates.MOST_DRAWS", 300)
    few = SPACE.replace("depth: 1..4", "depth: 1").replace("width: 16..64 step 16", "width: 48")
    few = few.replace("fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", "")
    with Session(tmp_path / "run1", text=few, sampler="random", trials=100) as search:
        searched(search, ahead=5)
        assert search.exhausted
        assert search.done
    trials = Study(tmp_path / "run1").trials()
    assert len(trials) == 2 * 2 * 5  # norms, patches, token mixers
    assert {trial.state for trial in trials} == {"complete"}


def test_what_cannot_be_told_apart_is_measured_again_by_the_one_that_measures(tmp_path: Path) -> None:
    again: Counter[bool] = Counter()

    def noted(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.remeasure:
            again[assignment.measure_only] += 1
        yield from noisy(assignment, bounds)

    with Session(tmp_path / "run1", sampler="random", trials=30) as search:
        searched(search, noted)
        assert search.done
    with Session(tmp_path / "both", sampler="random", trials=30) as search:
        inline.run(search, device="cpu", evaluate=noisy)
    assert again[True] > 0
    assert not again[False]
    assert front_of(tmp_path / "run1") == front_of(tmp_path / "both")


def front_of(folder: Path) -> list[tuple[int, dict[str, float]]]:
    points = front(Study(folder), read_space(SPACE).objectives).points
    return [(point.trial.number, dict(point.values)) for point in points]


# --- measured beside other programs ---


def loud_at_first(measured: Counter[int]) -> Evaluate:
    """Other programs disturb the first measurement of each trial, and no other; counts them."""

    def events(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in every_epoch(assignment, bounds):
            if isinstance(event, Measurement) and event.metric == "throughput":
                measured[assignment.trial] += 1
                if measured[assignment.trial] == 1:
                    event = dataclasses.replace(event, value=event.value / 9, protocol=event.protocol + DISTURBED)
            yield event

    return events


def throughputs(folder: Path) -> dict[int, tuple[float, bool]]:
    found = {trial.number: trial.measurements["throughput"] for trial in Study(folder).trials()}
    return {number: (record.value, record.disturbed) for number, record in found.items()}


def test_a_disturbed_measurement_is_made_again_when_the_search_goes_on(tmp_path: Path) -> None:
    measured: Counter[int] = Counter()
    worker = loud_at_first(measured)
    with Session(tmp_path / "run1", text=WHOLE, sampler="random", trials=1) as search:
        search.apart = True
        measuring = search.next_to_measure(1)
        assert measuring is not None
        assert all(search.report(0, event) for event in worker(measuring, {}))
        search.measured(0)
        assert search.next_to_measure(1) is None  # once is enough before it is trained
        training = search.next_assignment()
        assert training is not None
        for event in itertools.takewhile(lambda event: not is_epoch(event, 3), worker(training, {})):
            search.report(0, event)
    assert throughputs(tmp_path / "run1")[0][1]
    with Session(tmp_path / "run1", text=WHOLE, sampler="random", trials=1) as search:
        search.apart = True
        assert search.next_assignment() is None
        measuring = search.next_to_measure(1)
        assert measuring is not None
        assert (measuring.measure_only, measuring.attempt, measuring.state) == (True, 1, None)
        assert all(search.report(0, event) for event in worker(measuring, {}))
        search.measured(0)
        training = search.next_assignment()
        assert training is not None
        assert (training.deployment, training.attempt, training.state) == (None, 1, b"2")
        assert all(search.report(0, event) for event in worker(training, {}))
        search.completed(0)
        assert search.done
    (trial,) = Study(tmp_path / "run1").trials()
    assert measured[0] == 2
    assert not throughputs(tmp_path / "run1")[0][1]
    assert [epoch for epoch, _, _ in trial.curve] == [1, 2, 3, 4]


def is_epoch(event: Event, number: int) -> bool:
    return isinstance(event, Progress) and event.accuracy is not None and event.epoch == number


def test_one_that_was_never_trained_is_measured_again_as_another_attempt(tmp_path: Path) -> None:
    worker = loud_at_first(Counter())
    for _ in range(2):
        with Session(tmp_path / "run1", sampler="random", trials=1) as search:
            search.apart = True
            measuring = search.next_to_measure(1)
            assert measuring is not None
            for event in worker(measuring, {}):
                search.report(0, event)
            search.measured(0)
    with Session(tmp_path / "run1", sampler="random", trials=1) as search:
        searched(search, worker)
        assert search.done
    (trial,) = Study(tmp_path / "run1").trials()
    assert (trial.state, trial.attempt) == ("complete", 3)
    assert not trial.measurements["throughput"].disturbed


@pytest.mark.parametrize("trials", [2, 12], ids=["at the end of a small study", "by its rank"])
def test_a_trial_that_is_promoted_is_measured_again_first_if_it_was_disturbed(tmp_path: Path, trials: int) -> None:
    text = RUNGS.replace("fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", "")
    text = text.replace("keep: 1/2", "keep: 1/3")
    measured: Counter[int] = Counter()
    with Session(tmp_path / "run1", text=text, sampler="random", trials=trials) as search:
        searched(search, loud_at_first(measured))
        assert search.done
    went_on = {trial.number for trial in Study(tmp_path / "run1").trials() if (trial.rung or 0) > 0}
    assert went_on
    assert {number for number, (_, disturbed) in throughputs(tmp_path / "run1").items() if disturbed} == (
        set(range(trials)) - went_on
    )
    assert measured == {number: 2 if number in went_on else 1 for number in range(trials)}


def test_cut_off_among_disturbed_measurements_it_still_comes_to_its_end(tmp_path: Path) -> None:
    rng = random.Random(3)
    for n in rng.sample(range(60), 5):
        folder, worker = tmp_path / f"after{n}", loud_at_first(Counter())
        for attempt in itertools.count():
            killer = Killer(n if attempt == 0 else 9 * attempt)
            try:
                with Session(folder, text=RUNGS, sampler="random", trials=4, wrapped=killer) as search:
                    searched(search, worker)
                    assert search.done
                break
            except Killed:
                continue
        trials = Study(folder).trials()
        assert len(trials) == 4
        assert not [trial for trial in trials if trial.state == "running"]
        assert all([epoch for epoch, _, _ in trial.curve] == list(range(1, len(trial.curve) + 1)) for trial in trials)
