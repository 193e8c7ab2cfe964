"""What a search decides, with workers that train nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from stubs import SPACE, Session, evaluate, failing, measurement, truth

from mlpspace.engines import inline
from mlpspace.front import front
from mlpspace.measurement import Assignment, Event, Measurement
from mlpspace.sampling.default import START
from mlpspace.search import SearchError
from mlpspace.study import Study


def run(search, stub=evaluate) -> None:
    inline.run(search, device="cpu", evaluate=stub)


def test_a_search_ends_with_as_many_trials_as_asked_for_fixed_points_first(tmp_path):
    with Session(tmp_path / "run1") as search:
        run(search)
        assert search.done
    trials = Study(tmp_path / "run1").trials()
    assert [trial.number for trial in trials] == list(range(12))
    assert [trial.origin for trial in trials[:3]] == ["fixed point", "fixed point", "sampler"]
    assert trials[0].label.startswith("mixer_s16 (patch 16 -> ")
    assert all(trial.state == "complete" for trial in trials)


def test_no_network_is_trained_twice_and_every_one_meets_the_requirements(tmp_path):
    with Session(tmp_path / "run1", trials=40) as search:
        run(search)
    trials = [trial for trial in Study(tmp_path / "run1").trials() if trial.state == "complete"]
    assert len(trials) == 40
    assert max(Counter((trial.architecture_id, trial.recipe_json) for trial in trials).values()) == 1
    assert all(trial.macs <= 4e6 for trial in trials)


def test_refused_draws_are_counted_and_take_no_number(tmp_path):
    text = SPACE.replace("macs: ..4M", "macs: ..1M")
    with Session(tmp_path / "run1", text=text, sampler="random") as search:
        run(search)
    study = Study(tmp_path / "run1")
    assert len(study.trials()) == 12
    assert study.refused["macs ..1M"] > 5
    assert all(trial.macs <= 1e6 for trial in study.trials() if trial.origin == "sampler")


def test_the_recorded_values_are_those_that_were_measured(tmp_path):
    with Session(tmp_path / "run1") as search:
        run(search)
    for trial in Study(tmp_path / "run1").trials():
        assignment = type("A", (), {"architecture": trial.architecture})
        accuracy, throughput = truth(assignment)
        assert trial.measurements["accuracy"].value == pytest.approx(accuracy)
        assert trial.measurements["throughput"].value == pytest.approx(throughput)
        assert [epoch for epoch, _, _ in trial.curve] == [1, 2]


def test_failures_become_infeasible_trials_with_their_reason_and_the_search_goes_on(tmp_path):
    session = Session(tmp_path / "run1")
    with session as search:
        run(search, failing)
    trials = Study(tmp_path / "run1").trials()
    assert [trial.state for trial in trials] == ["infeasible" if n % 3 == 2 else "complete" for n in range(12)]
    assert {trial.reason for trial in trials if trial.state == "infeasible"} == {"out of memory"}
    assert [told.reason for told in session.told if told.costs is None] == ["out of memory"] * 4


def test_going_on_repeats_nothing_and_gives_unfinished_trials_out_again(tmp_path):
    cut_at = 7

    def cut(assignment: Assignment, bounds: object) -> Iterator[Event]:
        for n, event in enumerate(evaluate(assignment, bounds)):
            if assignment.trial == cut_at and n == 3:
                raise KeyboardInterrupt
            yield event

    with pytest.raises(KeyboardInterrupt), Session(tmp_path / "run1") as search:
        run(search, cut)
    before = Study(tmp_path / "run1").trials()
    assert [trial.state for trial in before] == ["complete"] * 7 + ["running"]
    given: list[tuple[int, int]] = []

    def noting(assignment: Assignment, bounds: object) -> Iterator[Event]:
        given.append((assignment.trial, assignment.attempt))
        yield from evaluate(assignment, bounds)

    with Session(tmp_path / "run1") as search:
        run(search, noting)
    assert given == [(7, 2), (8, 1), (9, 1), (10, 1), (11, 1)]
    after = Study(tmp_path / "run1").trials()
    assert [trial.architecture_id for trial in after[:8]] == [trial.architecture_id for trial in before]
    assert all(trial.state == "complete" for trial in after)


def test_a_search_that_was_cut_off_draws_what_it_would_have_drawn(tmp_path):
    with Session(tmp_path / "whole") as search:
        run(search)
    for trials in (5, 9, 12):
        with Session(tmp_path / "parts", trials=trials) as search:
            run(search)
    ids = [[trial.architecture_id for trial in Study(tmp_path / name).trials()] for name in ("whole", "parts")]
    assert ids[0] == ids[1]


def test_a_trial_whose_last_word_was_cut_off_counts_as_complete(tmp_path):
    with pytest.raises(RuntimeError), Session(tmp_path / "run1") as search:
        assignment = search.next_assignment()
        for event in evaluate(assignment, {}):
            search.report(assignment.trial, event)
        raise RuntimeError("killed before completed() was called")
    with Session(tmp_path / "run1") as search:
        following = search.next_assignment()
        assert (following.trial, following.attempt) == (1, 1)
    assert Study(tmp_path / "run1").trials()[0].state == "complete"


def test_a_worker_that_dies_is_replaced_twice_then_its_trial_is_infeasible(tmp_path):
    with Session(tmp_path / "run1") as search:
        for attempt in (1, 2, 3):
            assignment = search.next_assignment()
            assert (assignment.trial, assignment.attempt) == (0, attempt)
            search.lost(0, "killed")
        assert search.next_assignment().trial == 1
    first = Study(tmp_path / "run1").trials()[0]
    assert (first.state, first.reason, first.detail) == ("infeasible", "worker died", "killed")


def test_the_time_budget_is_a_total_and_leaves_the_cut_trial_unfinished(tmp_path):
    with Session(tmp_path / "run1", seconds=30, tick=1.0) as search:
        run(search)
        assert search.stopped == "time budget reached"
        assert search.done
    states = [trial.state for trial in Study(tmp_path / "run1").trials()]
    assert 0 < len(states) < 12
    assert states.count("running") <= 1
    with Session(tmp_path / "run1", seconds=0) as search:
        assert search.next_assignment() is None


def test_a_space_where_nothing_meets_the_requirements_says_what_refused_and_how_far_off(tmp_path):
    text = SPACE.replace("macs: ..4M", "macs: ..1K").replace(
        "fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}\n", ""
    )
    with Session(tmp_path / "run1", text=text) as search, pytest.raises(SearchError) as caught:
        search.next_assignment()
    assert "No draw out of 10,000" in str(caught.value)
    assert "macs ..1K" in str(caught.value)
    assert "The smallest network drawn needs" in str(caught.value)


def test_a_space_that_is_searched_to_its_end_stops_with_a_word(tmp_path):
    text = SPACE.replace("depth: 1..4", "depth: 1").replace("16..64 step 16", "16").replace("heads: [1, 3]", "heads: 1")
    with Session(tmp_path / "run1", text=text, trials=100) as search:
        assert search.domain.space.count().points == 2 * 2 * 4
        run(search)
        assert "searched to its end" in search.stopped
        assert search.exhausted
    trials = Study(tmp_path / "run1").trials()
    assert len([trial for trial in trials if trial.origin == "sampler"]) >= 2 * 2 * 4 - 2  # all but those fixed points


def test_optunas_tables_hold_the_same_trials(tmp_path):
    with Session(tmp_path / "run1") as search:
        run(search, failing)
    loaded = optuna.load_study(study_name="run1", storage=f"sqlite:///{tmp_path}/run1/study.db")
    trials = Study(tmp_path / "run1").trials()
    assert [trial.number for trial in loaded.trials] == [trial.number for trial in trials]
    for theirs, ours in zip(loaded.trials, trials, strict=True):
        assert theirs.state.name == ("COMPLETE" if ours.state == "complete" else "PRUNED")
        if ours.state == "complete":
            assert theirs.values == [ours.measurements[m].value for m in ("accuracy", "throughput")]
        assert theirs.params == {**(ours.point or {})}


@pytest.mark.slow
def test_the_sampler_beats_random_draws_on_this_toy(tmp_path):
    """Not a claim about search quality, only that costs reach the sampler with their signs right."""
    text = (
        SPACE.replace("require: {macs: ..4M, throughput: 10..}", "").replace("1..4", "1..12").replace("..64", "..256")
    )
    found = []
    with Session(tmp_path / "run1", text=text, trials=60) as search:
        run(search)
        found = [result.values["accuracy"] for result in search.results]
    assert sum(found[40:]) / 20 > sum(found[2:12]) / 10  # the first ten are drawn at random


def test_what_a_worker_says_of_a_trial_that_is_over_is_not_recorded(tmp_path):
    with Session(tmp_path / "run1") as search:
        assignment = search.next_assignment()
        for event in evaluate(assignment, {}):
            search.report(0, event)
        search.completed(0)
        assert not search.report(0, measurement("accuracy", 1.0, rung=0, epochs=2))
    assert Study(tmp_path / "run1").trials()[0].measurements["accuracy"].value > 1.0


def test_objectives_that_are_whole_numbers_are_searched_too(tmp_path):
    counted = "objectives: {params: {worst: 1M}, macs: {worst: 10M}}\n"
    text = SPACE[: SPACE.index("objectives:")] + counted + SPACE[SPACE.index("fidelity:") :]
    with Session(tmp_path / "run1", text=text, trials=START + 4) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
        assert search.done
        # fewer params, fewer MACs: few networks of this space have the fewest of either
        assert 1 <= len(search.front()) <= 5


def disturbed_every_other(assignment, bounds):
    """A browser runs beside every other trial: its throughput is a hundredth."""
    for event in evaluate(assignment, bounds):
        if assignment.trial % 2 and isinstance(event, Measurement) and event.metric == "throughput":
            event = dataclasses.replace(event, value=event.value / 100, protocol=f"{event.protocol}, disturbed")
        yield event


def test_a_disturbed_throughput_is_told_as_such_and_does_not_stand_on_the_front(tmp_path):
    with Session(tmp_path / "run1") as search:
        run(search, disturbed_every_other)
        assert all(result.number % 2 == 0 for result in search.front())
        assert all(seen.disturbed == (seen.number % 2 == 1) for seen in search._known.seen)
        shown = {result.number for result in search.front()}
        volume = search.hypervolume()
    found = front(Study(tmp_path / "run1"), search.domain.space.objectives)
    assert {point.trial.number for point in found.points} == shown
    assert found.hypervolume == pytest.approx(volume)


def test_sessions_that_were_cut_off_are_no_deaths_of_a_trials_worker(tmp_path):
    for attempt in (1, 2, 3):
        with Session(tmp_path / "run1") as search:
            assert search.next_assignment().attempt == attempt
    with Session(tmp_path / "run1") as search:
        number = search.next_assignment().trial
        search.lost(number, "killed")
        assert search.next_assignment().attempt == 5
        assert not search.results


def test_published_networks_that_become_one_are_one_fixed_point(tmp_path):
    names = "fixed_points: {names: [mixer_s16, mixer_b16, resmlp_s12], fit: space}"
    text = SPACE.replace("fixed_points: {names: [mixer_s16, resmlp_s12], fit: space}", names)
    with Session(tmp_path / "run1", text=text, trials=4) as search:
        run(search)
    labels = [trial.label for trial in Study(tmp_path / "run1").trials()]
    assert labels[0].startswith("mixer_s16 (")
    assert ", also mixer_b16 (" in labels[0]
    assert labels[1].startswith("resmlp_s12")
    assert labels[2:] == [None, None]


def test_each_phase_of_a_worker_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    with Session(tmp_path / "run1", begun=told.append) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    assert told == ["throughput", "training"]
