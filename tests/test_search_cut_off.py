"""A search that is cut off anywhere goes on as if nothing had happened. The workers here train nothing: see `stubs`."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stubs import SPACE, Session, evaluate

from mlpspace.engines import inline
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.search import Search
from mlpspace.study import Study

RUNGS = SPACE.replace("epochs: 2}", "rungs: {epochs: [2, 4, 8], keep: 1/2}}")
WHOLE = SPACE.replace("epochs: 2}", "epochs: 4}")


class Killed(BaseException):
    """As kill -9: nobody gets to say a word."""


class Killer:
    """Counts what is written, wherever to, and ends everything after the n-th time."""

    def __init__(self, after: int | None = None) -> None:
        self.count = 0
        self.after = after

    def __call__(self, outlet: Any) -> Any:
        killer = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                method = getattr(outlet, name)
                if not callable(method):
                    return method

                def call(*args: Any, **kwargs: Any) -> Any:
                    if killer.count == killer.after:
                        raise Killed
                    told = method(*args, **kwargs)
                    killer.count += 1
                    return told

                return call

        return Wrapped()


def every_epoch(assignment: Assignment, bounds: object) -> Iterator[Event]:
    """As `stubs.evaluate`, with a checkpoint after each epoch."""
    for event in evaluate(assignment, bounds):
        yield event
        at_rung = isinstance(event, Progress) and event.epoch in assignment.epochs
        if isinstance(event, Progress) and event.accuracy is not None and not at_rung:
            yield Checkpoint(event.epoch, str(event.epoch).encode())


def searched(folder: Path, text: str, sampler: str, killer: Killer, *, trials: int) -> None:
    with Session(folder, text=text, sampler=sampler, trials=trials, wrapped=killer) as search:
        inline.run(search, device="cpu", evaluate=every_epoch)
        assert search.done


def outcome(folder: Path) -> list[tuple[Any, ...]]:
    """Of each trial what has nothing to do with time or with how often it was begun."""
    return [
        (
            trial.number,
            trial.architecture_id,
            trial.label,
            trial.state,
            trial.reason,
            {(record.metric, record.rung, record.repeat): record.value for record in trial.records},
            trial.curve,
        )
        for trial in Study(folder).trials()
    ]


def optuna_says(folder: Path) -> list[tuple[str, Any]]:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    (summary,) = storage.get_all_studies()
    return [(trial.state.name, trial.values) for trial in storage.get_all_trials(summary._study_id)]


def weights_of(folder: Path) -> set[int]:
    return {int(file.name.partition("-")[0]) for file in (folder / "weights").glob("*.pt")}


def kill_everywhere(tmp_path: Path, text: str, sampler: str, trials: int, share: float) -> None:
    """Searches that are cut off at a random `share` of all places, each again and again, are like one that was not."""
    undisturbed = tmp_path / "undisturbed"
    counted = Killer()
    searched(undisturbed, text, sampler, counted, trials=trials)
    rng = random.Random(5)
    after = [n for n in range(counted.count) if rng.random() < share]
    assert after
    for n in after:
        folder = tmp_path / f"after{n}"
        for attempt in itertools.count():
            # the first time at the n-th place, then a little later each time
            killer = Killer(n if attempt == 0 else 7 * attempt)
            try:
                searched(folder, text, sampler, killer, trials=trials)
                break
            except Killed:
                continue
        assert outcome(folder) == outcome(undisturbed), n
        assert optuna_says(folder) == optuna_says(undisturbed), n
        assert weights_of(folder) == weights_of(undisturbed), n
        assert not list((folder / "checkpoints").glob("*.part"))


@pytest.mark.parametrize("text", [RUNGS, WHOLE], ids=["rungs", "whole"])
def test_cut_off_at_some_places_a_search_goes_on_as_if_nothing_had_happened(tmp_path: Path, text: str) -> None:
    kill_everywhere(tmp_path, text, "random", trials=4, share=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "share"), [("random", 0.04), ("default", 0.008)])
@pytest.mark.parametrize("text", [RUNGS, WHOLE], ids=["rungs", "whole"])
def test_cut_off_at_any_place_a_search_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, text: str, sampler: str, share: float
) -> None:
    kill_everywhere(tmp_path, text, sampler, trials=8, share=share)


# --- one thing at a time ---


def test_a_training_that_is_cut_off_on_the_way_loses_what_came_after_its_last_checkpoint(tmp_path: Path) -> None:
    def cut(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in every_epoch(assignment, bounds):
            if isinstance(event, Progress) and event.epoch == 3:
                raise Killed
            yield event

    with pytest.raises(Killed), Session(tmp_path / "run1", text=WHOLE) as search:
        inline.run(search, device="cpu", evaluate=cut)
    with Session(tmp_path / "run1", text=WHOLE) as search:
        again = search.next_assignment()
        assert (again.trial, again.attempt, again.state, again.deployment) == (0, 1, b"2", None)
    (trial,) = Study(tmp_path / "run1").trials()
    assert [epoch for epoch, _, _ in trial.curve] == [1, 2]


def test_a_checkpoint_that_was_damaged_costs_the_training_and_no_more(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", text=RUNGS, sampler="random", trials=16) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
        paused = set(search.paused)
    assert paused
    for file in (tmp_path / "run1" / "checkpoints").iterdir():
        file.write_bytes(b"something else")
    with Session(tmp_path / "run1", text=RUNGS, sampler="random", trials=40) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    trials = [trial for trial in Study(tmp_path / "run1").trials() if trial.number in paused]
    gone_on = [trial for trial in trials if trial.rung and trial.rung > 0]
    assert gone_on
    assert {trial.attempt for trial in gone_on} == {2}
    assert all([epoch for epoch, _, _ in trial.curve] == list(range(1, len(trial.curve) + 1)) for trial in trials)


def test_deaths_of_workers_are_counted_over_all_sessions(tmp_path: Path) -> None:
    folder = tmp_path / "run1"
    for deaths in (1, 2):
        with Session(folder) as search:
            assert search.next_assignment().trial == 0
            search.lost(0, "the worker's process ended")
        assert Study(folder).trial(0).deaths == deaths
        assert Study(folder).trial(0).state == "running"
    with Session(folder) as search:
        assert search.next_assignment().trial == 0
        search.lost(0, "the worker's process ended")
        assert search.next_assignment().trial == 1
    trial = Study(folder).trial(0)
    assert (trial.state, trial.reason, trial.deaths) == ("infeasible", "worker died", 3)


def test_a_trial_whose_node_failed_is_given_out_again_as_often_as_it_takes(tmp_path: Path) -> None:
    with Session(tmp_path / "run1") as search:
        for _ in range(10):
            assert search.next_assignment().trial == 0
            search.returned(0)
    assert Study(tmp_path / "run1").trial(0).deaths == 0


class Looked(Session):
    """A search whose clock moves when one looks at what hangs."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        super().__init__(folder, text=SPACE.replace("epochs: 2}", f"epochs: 2, timeout: {timeout_s:g}s}}"))
        self.now = 0.0
        self.clock = lambda: self.now

    def __enter__(self) -> tuple[Search, Callable[..., list[int]]]:
        search = super().__enter__()

        def looks(seconds: float, *, every: float = 1.0) -> list[int]:
            until = self.now + seconds
            while self.now < until:
                self.now += every
                found = search.overdue()
            return found

        return search, looks


def test_a_trial_is_overdue_when_it_had_its_time_and_is_silent(tmp_path: Path) -> None:
    with Looked(tmp_path / "run1", timeout_s=60) as (search, looks):
        number = search.next_assignment().trial
        assert looks(1000) == []  # its worker may still be starting
        search.report(number, Progress(phase="throughput", epochs=2))
        assert looks(600) == []  # it waits until it may measure
        search.report(number, Progress(phase="training", epochs=2))
        assert looks(59) == []
        search.report(number, Progress(phase="training", epochs=2))
        assert looks(29) == []  # over its time, but it was heard of
        assert looks(2) == [number]
        search.hung(number)
        assert search.overdue() == []
        assert search.next_assignment().trial == number + 1
    trial = Study(tmp_path / "run1").trial(number)
    assert (trial.state, trial.reason) == ("infeasible", "time limit")
    assert trial.detail == "no sign of life for 31 s, ended from outside; at most 60 s allowed"


def test_a_search_that_was_asleep_itself_holds_nothing_against_its_trials(tmp_path: Path) -> None:
    with Looked(tmp_path / "run1", timeout_s=60) as (search, looks):
        number = search.next_assignment().trial
        search.report(number, Progress(phase="training", epochs=2))
        assert looks(50) == []
        assert looks(5000, every=5000) == []  # stopped for so long
        assert looks(9) == []
        assert looks(30) == [number]


def test_without_a_limit_nothing_is_overdue(tmp_path: Path) -> None:
    now = 0.0
    session = Session(tmp_path / "run1")
    session.clock = lambda: now
    with session as search:
        search.report(search.next_assignment().trial, Progress(phase="training", epochs=2))
        now = 1e6
        assert search.overdue() == []


def test_the_inline_engine_ends_a_trial_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpspace.results.HANG_S", (0.5, 0.5))
    monkeypatch.setattr("mlpspace.engines.inline.LOOK_S", 0.1)

    def hanging(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in evaluate(assignment, bounds):
            yield event
            if assignment.trial == 1 and isinstance(event, Progress) and event.epoch == 1:
                threading.Event().wait()

    session = Session(tmp_path / "run1", text=SPACE.replace("epochs: 2}", "epochs: 2, timeout: 1s}"), trials=4)
    session.clock = time.monotonic
    with session as search:
        inline.run(search, device="cpu", evaluate=hanging)
    found = [(trial.state, trial.reason) for trial in Study(tmp_path / "run1").trials()]
    assert found == [("complete", None), ("infeasible", "time limit"), ("complete", None), ("complete", None)]


# --- weights ---


@pytest.mark.parametrize("keep", ["front", "all", "none"])
def test_weights_are_kept_of_the_front_of_all_or_of_none(tmp_path: Path, keep: str) -> None:
    with Session(tmp_path / "run1", sampler="random", keep=keep) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
        front = {result.number for result in search.front()}
        done = {result.number for result in search.results}
    assert 0 < len(front) < len(done)
    assert weights_of(tmp_path / "run1") == {"front": front, "all": done, "none": set()}[keep]


def test_a_repeat_that_failed_is_not_tried_again_in_another_session(tmp_path: Path) -> None:
    text = SPACE.replace("epochs: 2}", "epochs: 2, repeats_on_front: 1}")
    tried = []

    def failing(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.repeat:
            tried.append(assignment.trial)
            yield Failure("out of memory", "2.0 GB asked for")
        else:
            yield from evaluate(assignment, bounds)

    for _ in range(2):
        with Session(tmp_path / "run1", text=text, sampler="random", trials=4) as search:
            inline.run(search, device="cpu", evaluate=failing)
    assert tried
    assert len(tried) == len(set(tried))
    assert {trial.number for trial in Study(tmp_path / "run1").trials() if trial.repeat_failed} == set(tried)


def test_weights_of_a_network_that_was_trained_anew_stay_as_the_others_may_fall_too(tmp_path: Path) -> None:
    """All of the front falls when it is trained anew, one after the other; the first to fall comes back."""
    at_first: set[int] = set()

    def unlucky_anew(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.repeat and not at_first:
            at_first.update(weights_of(tmp_path / "run1"))
        for event in evaluate(assignment, bounds):
            if isinstance(event, Measurement) and event.metric == "accuracy" and assignment.repeat:
                yield dataclasses.replace(event, value=event.value / 2)
            else:
                yield event

    text = SPACE.replace("epochs: 2}", "epochs: 2, repeats_on_front: 1}")
    with Session(tmp_path / "run1", text=text) as search:
        inline.run(search, device="cpu", evaluate=unlucky_anew)
        front = {result.number for result in search.front()}
    assert at_first <= front, "they all came back"
    assert weights_of(tmp_path / "run1") == at_first
