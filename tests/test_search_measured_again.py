"""A search whose front holds networks that are equally fast, for all that one measurement tells."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stubs import SPACE, Session, evaluate, measurement, truth

from mlpspace.engines import inline
from mlpspace.front import front
from mlpspace.measured_again import MOST, combined
from mlpspace.measurement import DISTURBED, Assignment, Event, Failure, Measurement
from mlpspace.space import read_space
from mlpspace.study import Study

HALF = 0.04  # of a measurement's 95 % interval: it is off by half as much


def noisy(assignment: Assignment, bounds: object) -> Iterator[Event]:
    """The true throughput and some noise: another one each time, the same for a trial that is given out once more."""
    rng = np.random.default_rng([assignment.trial, assignment.repeat])
    value = truth(assignment)[1] * math.exp(rng.normal(0, HALF / 2))
    told = measurement(
        "throughput",
        value,
        low=value * math.exp(-HALF),
        high=value * math.exp(HALF),
        reference=1000.0,
        fingerprint="{}",
    )
    if assignment.remeasure:
        yield told
        return
    for event in evaluate(assignment, bounds):
        throughput = isinstance(event, Measurement) and event.metric == "throughput"
        yield told if throughput else event


def speeds(study: Study, number: int) -> list[Measurement]:
    """As they were measured one by one, where there are several."""
    return [r for r in study.trials()[number].records if r.metric == "throughput" and r.repeat]


def test_what_cannot_be_told_apart_is_measured_again_until_it_can_or_often_enough(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=noisy)
        assert search.done
    study = Study(tmp_path / "run1")
    points = front(study, read_space(SPACE).objectives).points
    of = {p.trial.number: speeds(study, p.trial.number) for p in points}
    assert max(map(len, of.values())) > 1
    by_speed = sorted(points, key=lambda p: p.values["throughput"])
    for slower, faster in itertools.pairwise(by_speed):
        apart = slower.records["throughput"].high < faster.records["throughput"].low
        tried = [max(1, len(of[p.trial.number])) for p in (slower, faster)]
        assert apart or tried == [MOST, MOST]
    for point in points:
        found = of[point.trial.number]
        if found:
            told = dataclasses.asdict(combined(found))
            stands = point.records["throughput"]
            assert stands.value == pytest.approx(told["value"]) == point.values["throughput"]
            assert (stands.low, stands.high) == (pytest.approx(told["low"]), pytest.approx(told["high"]))
            assert len({each.value for each in found}) == len(found)


def test_a_search_that_goes_on_measures_nothing_more_and_has_the_same_front(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=noisy)
        before = search.front()
    with Session(tmp_path / "run1", trials=30, sampler="random") as again:
        assert again.next_assignment() is None
        assert again.done
        assert [(r.number, r.costs) for r in again.front()] == [(r.number, r.costs) for r in before]


def test_a_search_cut_off_while_it_measures_again_goes_on_where_it_was(tmp_path: Path) -> None:
    with Session(tmp_path / "whole", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=noisy)
    told = 0

    def three_more() -> bool:
        return told >= 3

    def counted(assignment: Assignment, bounds: object) -> Iterator[Event]:
        nonlocal told
        yield from noisy(assignment, bounds)
        told += assignment.remeasure

    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=counted, interrupted=three_more)
        assert not search.done
    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=noisy)
    ledgers = [
        [
            sorted((r.metric, r.repeat, round(r.value, 6)) for r in trial.records)
            for trial in Study(tmp_path / f).trials()
        ]
        for f in ("whole", "run1")
    ]
    assert ledgers[0] == ledgers[1]


def test_a_network_that_cannot_be_measured_again_keeps_what_it_has(tmp_path: Path) -> None:
    asked: Counter[int] = Counter()

    def broken(assignment: Assignment, bounds: object) -> Iterator[Event]:
        if assignment.remeasure:
            asked[assignment.trial] += 1
            yield Failure("error", "no fresh process")
        else:
            yield from noisy(assignment, bounds)

    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=broken)
        assert search.done
    assert asked
    assert set(asked.values()) == {1}
    assert not any(trial.state == "infeasible" for trial in Study(tmp_path / "run1").trials())


def test_what_is_measured_again_in_another_way_counts_as_no_measurement(tmp_path: Path) -> None:
    """As on another node, whose GPU is another one."""
    asked: Counter[int] = Counter()

    def elsewhere(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in noisy(assignment, bounds):
            if assignment.remeasure and isinstance(event, Measurement):
                asked[assignment.trial] += 1
                yield dataclasses.replace(event, device="another", value=10 * event.value)
            else:
                yield event

    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=elsewhere)
        assert search.done
    assert set(asked.values()) == {1}
    study = Study(tmp_path / "run1")
    for number in asked:
        assert not speeds(study, number)
        assert study.trials()[number].measurements["throughput"].device == "stub"


def test_what_an_earlier_version_took_together_is_taken_apart(tmp_path: Path) -> None:
    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=noisy)
    study = Study(tmp_path / "run1")
    number = next(trial.number for trial in study.trials() if len(speeds(study, trial.number)) > 2)
    with sqlite3.connect(tmp_path / "run1" / "study.db") as ledger:
        of_one = "metric = 'throughput' and repeat = 2 and trial = ?"
        ledger.execute(f"update measurement set device = 'another' where {of_one}", [number])
    asked: set[int] = set()

    def asked_for(assignment: Assignment, bounds: object) -> Iterator[Event]:
        asked.add(assignment.trial)
        yield Failure("error", "no fresh process")

    first, _, *others = speeds(Study(tmp_path / "run1"), number)
    with Session(tmp_path / "run1", trials=30, sampler="random") as again:
        told = next(result for result in again.results if result.number == number)
        assert told.values["throughput"] == pytest.approx(combined([first, *others]).value)
        inline.run(again, device="cpu", evaluate=asked_for)
    assert number not in asked


def test_what_an_older_protocol_measured_is_not_measured_again(tmp_path: Path) -> None:
    """`evaluate` measures by an older protocol, without a reference: two such measurements are not of one process."""

    def never(assignment: Assignment, bounds: object) -> Iterator[Event]:
        assert not assignment.remeasure
        yield from evaluate(assignment, bounds)

    with Session(tmp_path / "run1") as search:
        inline.run(search, device="cpu", evaluate=never)
        assert search.done


def loud_at_first(assignment: Assignment, bounds: object) -> Iterator[Event]:
    """Other programs disturb the even trials when they are measured first, at a hundredth of their speed."""
    for event in noisy(assignment, bounds):
        loud = assignment.trial % 2 == 0 and not assignment.remeasure
        if loud and isinstance(event, Measurement) and event.metric == "throughput":
            yield dataclasses.replace(
                event,
                value=event.value / 100,
                low=event.low / 100,
                high=event.high / 100,
                protocol=event.protocol + DISTURBED,
            )
        else:
            yield event


def test_what_others_disturbed_is_measured_again_and_compares_with_the_rest(tmp_path: Path) -> None:
    for name, evaluated in (("loud", loud_at_first), ("calm", noisy)):
        with Session(tmp_path / name, trials=30, sampler="random") as search:
            inline.run(search, device="cpu", evaluate=evaluated)
            assert search.done
    loud = front(Study(tmp_path / "loud"), read_space(SPACE).objectives)
    assert not loud.left_out
    for trial in Study(tmp_path / "loud").trials():
        told = trial.measurements["throughput"]
        assert not told.disturbed
        assert told.value == pytest.approx(
            Study(tmp_path / "calm").trials()[trial.number].measurements["throughput"].value, rel=0.2
        )
    with Session(tmp_path / "loud", trials=30, sampler="random") as again:
        assert again.next_assignment() is None
        assert {r.number for r in again.front()} == {p.trial.number for p in loud.points}


def test_what_others_disturb_again_is_left_at_that(tmp_path: Path) -> None:
    asked: Counter[int] = Counter()

    def loud(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for event in noisy(assignment, bounds):
            asked[assignment.trial] += assignment.remeasure and isinstance(event, Measurement)
            if assignment.trial % 2 == 0 and isinstance(event, Measurement) and event.metric == "throughput":
                yield dataclasses.replace(event, protocol=event.protocol + DISTURBED)
            else:
                yield event

    for _ in range(2):
        with Session(tmp_path / "run1", trials=30, sampler="random") as search:
            inline.run(search, device="cpu", evaluate=loud)
            assert search.done
    assert {asked[number] for number in range(0, 30, 2)} == {1}


def test_where_all_are_disturbed_none_is_measured_for_that(tmp_path: Path) -> None:
    def loud(assignment: Assignment, bounds: object) -> Iterator[Event]:
        assert not assignment.remeasure
        for event in noisy(assignment, bounds):
            throughput = isinstance(event, Measurement) and event.metric == "throughput"
            yield dataclasses.replace(event, protocol=event.protocol + DISTURBED) if throughput else event

    with Session(tmp_path / "run1", trials=30, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=loud)
        assert search.done
