"""The sampler at work ahead of need: what a worker gets, and what the one who drew it knew."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from stubs import Session, evaluate
from waiting import until

from mlpspace.ahead import STALE, Ahead
from mlpspace.domain import SpaceDomain
from mlpspace.measurement import Assignment, Failure, Progress
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.search import Search
from mlpspace.space import read_space
from mlpspace.trial import SET_ASIDE


class Slow(Sampler):
    """Draws at random, and only when it is let go on; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(SpaceDomain(read_space(TEXT)), seed=0)
        self.may = threading.Semaphore(0)
        self.shown: list[list[str]] = []
        self.verdict: str | None = None

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        self.may.acquire()
        self.shown.append([trial.state for trial in seen])
        rng = np.random.default_rng([number, draw, len(self.shown)])
        drawn = (self.domain.draw(rng) for _ in range(1000))
        taken = {trial.key for trial in seen}
        fits = (each for each in drawn if self.domain.refusal(each) is None and self.domain.key(each) not in taken)
        return Suggestion(next(fits, self.domain.draw(rng)), "drawn")

    def suggest_several(self, number: int, draw: int, seen: Sequence[Observation], count: int) -> list[Suggestion]:
        first = self.suggest(number, draw, seen)
        return [first, *(dataclasses.replace(self._another(i), why=f"number {i} after it") for i in range(1, count))]

    def _another(self, seed: int) -> Suggestion:
        rng = np.random.default_rng([99, seed])
        drawn = (self.domain.draw(rng) for _ in range(1000))
        return Suggestion(next(each for each in drawn if self.domain.refusal(each) is None), "")

    def worth(self, trial: Observation, seen: Sequence[Observation]) -> str | None:
        self.may.acquire()
        assert seen[trial.number] is trial
        return self.verdict


TEXT = Session.__init__.__kwdefaults__["text"].replace(
    "fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", ""
)


@pytest.fixture
def sampler() -> Slow:
    return Slow()


@pytest.fixture
def search(tmp_path: Path, sampler: Slow) -> Iterator[Search]:
    with Session(tmp_path / "study", text=TEXT, sampler=sampler, trials=8) as search, Ahead() as search.ahead:
        yield search
        sampler.may.release(100)


def assigned(search: Search) -> Assignment:
    """The next one, however long the sampler takes for it."""
    found: list[Assignment] = []

    def asked() -> bool:
        assignment = search.next_assignment()
        if assignment is not None:
            found.append(assignment)
        return assignment is not None

    until(asked)
    search.prepare()
    return found[0]


def finish(search: Search, assignment: Assignment) -> None:
    for event in evaluate(assignment, {}):
        assert search.report(assignment.trial, event)
    search.completed(assignment.trial)


def test_while_the_first_candidate_is_being_drawn_workers_wait_and_the_search_is_not_done(
    search: Search, sampler: Slow
) -> None:
    assert search.next_assignment() is None
    assert not search.done
    sampler.may.release()
    assert assigned(search).trial == 0


def test_the_next_candidate_is_drawn_while_workers_are_busy_and_is_there_at_once_when_one_is_not(
    search: Search, sampler: Slow
) -> None:
    sampler.may.release(2)
    first = assigned(search)
    until(lambda: len(sampler.shown) == 2 and not search.ahead.wants(0))
    until(lambda: search.ahead._begun is None or search.ahead._begun.drawn.done())
    second = search.next_assignment()  # the sampler is not let go on any more
    assert second is not None
    assert (first.trial, second.trial) == (0, 1)
    assert sampler.shown == [[], ["running"]]
    sampler.may.release(20)
    for each in (first, second):
        finish(search, each)
    assert search.ended == 2


def test_a_candidate_knows_all_results_but_the_latest_and_is_drawn_anew_when_more_have_come(
    search: Search, sampler: Slow
) -> None:
    sampler.may.release(4)
    at_work = [assigned(search) for _ in range(3)]
    until(lambda: len(sampler.shown) == 4)  # of trial 3, which no result is known to
    for number in range(STALE):
        assert len(sampler.shown) == 4
        sampler.may.release(10)
        finish(search, at_work[number])
        search.prepare()
    until(lambda: len(sampler.shown) >= 5)
    assert sampler.shown[3] == ["running"] * 3
    assert sampler.shown[4] == ["complete"] * STALE + ["running"]
    assert assigned(search).trial == 3


def test_workers_that_become_idle_together_all_get_a_candidate_of_one_draft(search: Search, sampler: Slow) -> None:
    search.ahead.workers = 3
    sampler.may.release()  # for one draft
    first = assigned(search)
    second, third = search.next_assignment(), search.next_assignment()
    assert second is not None
    assert third is not None
    assert search.next_assignment() is None  # the next draft is on its way, and not let go on
    assert len({each.architecture.id for each in (first, second, third)}) == 3
    assert [search.running[i].why for i in range(3)] == ["drawn", "number 1 after it", "number 2 after it"]


def test_what_stands_in_gives_way_to_a_newer_draft_and_is_never_trained_twice(search: Search, sampler: Slow) -> None:
    search.ahead.workers = 2
    sampler.may.release(2)
    assigned(search)
    until(lambda: len(sampler.shown) == 2)
    until(lambda: search.ahead._begun.drawn.done())
    assert search.next_assignment() is not None
    assert search.running[1].why == "drawn"
    sampler.may.release(6)
    while not search.done and len(search.running) < 8:
        assigned(search)
    ids = [running.assignment.architecture.id for running in search.running.values()]
    assert len(set(ids)) == len(ids) == 8


def test_what_a_sampler_raises_in_its_thread_is_raised_where_its_candidate_is_asked_for(
    search: Search, sampler: Slow
) -> None:
    def fail(*_: object) -> Suggestion:
        raise ZeroDivisionError("in a sampler")

    sampler.suggest = fail
    with pytest.raises(ZeroDivisionError, match="in a sampler"):
        assigned(search)


def test_the_end_of_a_search_does_not_wait_for_what_is_drawn_in_vain(tmp_path: Path) -> None:
    sampler = Slow()
    with Session(tmp_path / "study", text=TEXT, sampler=sampler, trials=8) as search:
        with Ahead() as search.ahead:
            search.domain.refusal = lambda candidate: "never"  # 10,000 draws, each of which takes its time
            search.next_assignment()
            until(lambda: sampler.may.release() or len(sampler.shown) > 3)
            threading.Timer(0.2, sampler.may.release).start()
        assert len(sampler.shown) < 10
        assert search.stopped is None


# --- whether a network that was measured shall be trained -------------------------------------------------------------


def begun(search: Search, sampler: Slow) -> tuple[Assignment, list]:
    """A trial that was measured, with what its worker says from the first epoch on."""
    sampler.may.release(2)
    assignment = assigned(search)
    until(lambda: len(sampler.shown) == 2)  # that of the next trial too
    events = list(evaluate(assignment, {}))
    start = next(i for i, event in enumerate(events) if isinstance(event, Progress) and event.phase == "training")
    assert all(search.report(assignment.trial, event) for event in events[: start + 1])
    return assignment, events[start + 1 :]


def test_a_network_is_trained_while_the_sampler_thinks_about_its_worth(search: Search, sampler: Slow) -> None:
    assignment, later = begun(search, sampler)
    sign = Progress(phase="training", epochs=2, loss=2.0)
    assert search.report(assignment.trial, sign)
    assert search.report(assignment.trial, sign)  # which asks for no second verdict
    sampler.may.release()
    assert all(search.report(assignment.trial, event) for event in later)
    search.completed(assignment.trial)
    assert [result.state for result in search.results] == ["complete"]


def test_what_is_not_worth_it_is_set_aside_before_its_first_epoch_is_known(search: Search, sampler: Slow) -> None:
    sampler.verdict = "measured throughput 3: it would gain 0, not 1"
    assignment, later = begun(search, sampler)
    sampler.may.release()
    assert later[0].accuracy is not None  # the end of the first epoch: now the verdict is waited for
    assert not search.report(assignment.trial, later[0])
    assert search._known.results[assignment.trial].reason == SET_ASIDE
    assert search._known.seen[assignment.trial].accuracy == {}
    assert search.ended == 0


def test_a_failure_needs_no_verdict(search: Search, sampler: Slow) -> None:
    sampler.verdict = "no"
    assignment, _ = begun(search, sampler)
    assert not search.report(assignment.trial, Failure("out of memory", "2 GB"))
    assert [result.reason for result in search.results] == ["out of memory"]


def test_a_trial_whose_worker_died_meanwhile_is_given_out_again(search: Search, sampler: Slow) -> None:
    sampler.verdict = "no"
    assignment, _ = begun(search, sampler)
    search.lost(assignment.trial, "it died")
    again = assigned(search)
    assert (again.trial, again.attempt) == (0, 2)
