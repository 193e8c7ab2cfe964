"""The default sampler: what it suggests, and what it says of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from stubs import SPACE

from mlpspace.domain import SpaceDomain
from mlpspace.objectives import Objective
from mlpspace.pareto import hypervolume
from mlpspace.replay.listed import ListedTable
from mlpspace.replay.table import TableDomain
from mlpspace.sampling import Observation, make
from mlpspace.sampling.default import START
from mlpspace.sampling.encoder import Encoder
from mlpspace.sampling.model import Model
from mlpspace.space import read_space

DOMAIN = SpaceDomain(read_space(SPACE))


def told(domain, suggestion, number: int, **changes) -> Observation:
    """A finished trial of a suggestion, by a formula: larger is better and slower."""
    stage = suggestion.candidate.architecture.stages[0]
    size = stage.depth * stage.width / 256
    known = {**domain.known(suggestion.candidate), "throughput": 10_000 / (1 + 20 * size), "peak_memory_mb": 1.0}
    accuracy = 90 - 40 * (1 - size) ** 2 + (2 if stage.norm == "layer" else 0)
    facts = {"state": "complete", "known": known, "accuracy": {0: accuracy}}
    key = domain.key(suggestion.candidate)
    return Observation(number=number, key=key, candidate=suggestion.candidate, **{**facts, **changes})


def searched(trials: int, seed: int = 0) -> list[Observation]:
    sampler = make("default", DOMAIN, seed=seed)
    seen: list[Observation] = []
    for number in range(trials):
        seen.append(told(DOMAIN, sampler.suggest(number, 0, seen), number))
    return seen


@pytest.mark.slow
def test_the_same_seed_suggests_the_same_also_to_a_sampler_that_was_made_anew():
    seen = searched(25)
    assert [trial.key for trial in searched(25)] == [trial.key for trial in seen]
    fresh = make("default", DOMAIN, seed=0)
    assert DOMAIN.key(fresh.suggest(24, 0, seen[:24]).candidate) == seen[24].key
    assert [trial.key for trial in searched(25, seed=1)] != [trial.key for trial in seen]


def test_many_workers_at_once_get_networks_that_differ():
    seen = searched(20)
    sampler = make("default", DOMAIN, seed=0)
    for number in range(20, 36):
        suggestion = sampler.suggest(number, 0, seen)
        known = dict(DOMAIN.known(suggestion.candidate))
        seen.append(told(DOMAIN, suggestion, number, state="running", accuracy={}, known=known))
    assert len({trial.key for trial in seen}) == 36
    speeds = np.log([told(DOMAIN, trial, 0).known["throughput"] for trial in seen[20:]])
    assert np.ptp(speeds) > 0.7, "and not all at one place of the front"


def test_what_a_worker_trains_is_believed_so_that_the_next_gains_less():
    seen = searched(20)
    sampler = make("default", DOMAIN, seed=0)
    first = sampler.suggest(20, 0, seen)
    known = dict(DOMAIN.known(first.candidate))
    at_work = told(DOMAIN, first, 20, state="running", accuracy={}, known=known)
    second = sampler.suggest(20, 0, [*seen, at_work])
    assert second.gain < first.gain


def test_several_at_once_are_what_one_after_the_other_would_be_while_none_is_finished():
    """The slow way: a model made anew with the first of them at work chooses the second out of the same pool."""
    seen = searched(20)
    sampler = make("default", DOMAIN, seed=0)
    several = sampler.suggest_several(20, 0, seen, 6)
    assert several[0] == sampler.suggest(20, 0, seen)
    known = {trial.key for trial in seen}
    assert len(known | {DOMAIN.key(each.candidate) for each in several}) == 26
    at_work = list(seen)
    for number, (before, after) in enumerate(itertools.pairwise(several), 20):
        known_of = dict(DOMAIN.known(before.candidate))
        at_work.append(told(DOMAIN, before, number, state="running", accuracy={}, known=known_of))
        gains = Model(DOMAIN, Encoder(DOMAIN), at_work).gain([each.candidate for each in several])
        assert after.gain == pytest.approx(gains[number - 19], rel=0.1)
        assert gains[number - 19] >= 0.9 * gains[number - 19 :].max()
        assert after.gain < before.gain


def test_several_without_a_model_are_those_that_one_at_a_time_would_be_and_no_more_than_those():
    sampler = make("default", DOMAIN, seed=0)
    seen = searched(START)
    several = sampler.suggest_several(START - 3, 0, seen[: START - 3], 6)
    assert [DOMAIN.key(each.candidate) for each in several] == [trial.key for trial in seen[START - 3 :]]


def test_requirements_are_met_by_every_suggestion():
    assert all(DOMAIN.refusal(trial.candidate) is None for trial in searched(30))


def test_the_first_ones_are_spread_over_the_cost():
    macs = np.sort([np.log(DOMAIN.known(trial.candidate)["macs"]) for trial in searched(START)])
    everything = [np.log(DOMAIN.known(c)["macs"]) for c in map(DOMAIN.draw, map(np.random.default_rng, range(300)))]
    low, high = np.quantile([m for m in everything if m < np.log(4e6)], [0.1, 0.9])
    assert macs[0] < low
    assert macs[-1] >= high


def test_it_says_what_it_expects_and_with_what_error():
    seen = searched(20)
    why = make("default", DOMAIN, seed=0).suggest(20, 0, seen).why
    assert why.startswith("expected gain ")
    assert "% predicted" in why, "the throughput of a new network is not known yet"
    assert "± " in why


def test_trials_at_a_lower_rung_teach_it_too():
    domain = SpaceDomain(read_space(SPACE.replace("epochs: 2}", "rungs: {epochs: [2, 6], keep: 1/2}}")))
    sampler = make("default", domain, seed=0)
    seen: list[Observation] = []
    for number in range(40):
        trial = told(domain, sampler.suggest(number, 0, seen), number)
        final = trial.accuracy[0]
        trial.accuracy = {0: final - 20.0}
        if number % 2:
            trial.accuracy[1] = final
        else:
            trial.state = "paused"
        seen.append(trial)
    early = np.mean([max(trial.accuracy.values()) + 20 * (trial.state == "paused") for trial in seen[2:START]])
    late = np.mean([max(trial.accuracy.values()) + 20 * (trial.state == "paused") for trial in seen[START:]])
    assert late > early


def test_a_search_without_accuracy_among_its_objectives_needs_no_model_of_it():
    counted = "objectives: {params: {worst: 1M}, macs: {worst: 10M}}\n"
    text = SPACE[: SPACE.index("objectives:")] + counted + SPACE[SPACE.index("fidelity:") :]
    domain = SpaceDomain(read_space(text))
    sampler = make("default", domain, seed=0)
    seen: list[Observation] = []
    for number in range(START + 4):
        seen.append(told(domain, sampler.suggest(number, 0, seen), number))
    costs = np.array([trial.costs(domain.objectives, 0) for trial in seen])
    assert hypervolume(costs, [1e6, 1e7]) > hypervolume(costs[:START], [1e6, 1e7])


@pytest.mark.parametrize(
    "objectives",
    [
        "accuracy: {goal: maximize, worst: 10}",
        "accuracy: {goal: maximize, worst: 10, scale: log}\n  macs: {goal: minimize, worst: 10M, scale: log}",
        "accuracy: {worst: 10}\n  throughput: {worst: 100, scale: log}\n  params: {worst: 1M, scale: log}",
        "accuracy: {worst: 99.9}\n  throughput: {worst: 99999, scale: log}",
    ],
)
def test_it_suggests_whatever_the_objectives_are(objectives):
    text = SPACE[: SPACE.index("objectives:")] + f"objectives:\n  {objectives}\n" + SPACE[SPACE.index("fidelity:") :]
    domain = SpaceDomain(read_space(text))
    sampler = make("default", domain, seed=0)
    seen: list[Observation] = []
    for number in range(START + 3):
        suggestion = sampler.suggest(number, 0, seen)
        assert suggestion.gain is None or np.isfinite(suggestion.gain)
        seen.append(told(domain, suggestion, number))
    assert len({trial.key for trial in seen}) == len(seen)


def test_it_suggests_when_all_that_was_trained_broke_down_and_when_all_is_alike():
    sampler = make("default", DOMAIN, seed=0)
    broken: list[Observation] = []
    for number in range(START + 3):
        broken.append(told(DOMAIN, sampler.suggest(number, 0, broken), number, state="infeasible"))
    alike: list[Observation] = []
    for number in range(START + 3):
        alike.append(told(DOMAIN, sampler.suggest(number, 0, alike), number, accuracy={0: 50.0}))
    assert len({trial.key for trial in [*broken, *alike]}) > START


def toy_table(rows: int) -> TableDomain:
    """The first `rows` of all codes of five dimensions, one of them conditional."""
    codes = [c for c in itertools.product(range(4), range(4), range(4), range(4), (0, 1, 2)) if c[0] or not c[4]]
    codes = codes[:rows]
    accuracy = np.array([[50 + 8 * a + 4 * b - 3 * (c - 2) ** 2 + d + e] for a, b, c, d, e in codes], dtype=float)
    table = ListedTable(
        "toy",
        columns={name: [code[i] if i < 4 or code[0] else None for code in codes] for i, name in enumerate("abcde")},
        known={"cost": [1.0 + a + b * b + c * d for a, b, c, d, _ in codes]},
        accuracy=accuracy,
        trained_epochs=(1,),
        objectives=(Objective("accuracy", "maximize", worst=40), Objective("cost", "minimize", worst=40, scale="log")),
    )
    return TableDomain(table)


@pytest.mark.slow
def test_two_hundred_suggestions_of_a_space_of_240_are_two_hundred_networks():
    domain = toy_table(240)
    assert domain.table.size == 240
    sampler = make("default", domain, seed=0)
    seen: list[Observation] = []
    for number in range(200):
        candidate = sampler.suggest(number, 0, seen).candidate
        accuracy = {0: domain.table.accuracy(candidate.point)[-1]}
        key, known = domain.key(candidate), dict(domain.known(candidate))
        seen.append(
            Observation(number=number, key=key, candidate=candidate, state="complete", known=known, accuracy=accuracy)
        )
    assert len({trial.key for trial in seen}) == 200
