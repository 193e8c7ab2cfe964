"""The rules of a front on columns are those that are told for one trial after the other."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
from front_slow_way import slow_front
from hand_made import ACCURACY, BOTH, PARAMS, THROUGHPUT, a_trial, accuracy, throughput

from mlpspace.front import front
from mlpspace.objectives import Objective
from mlpspace.recipe import Recipe
from mlpspace.trial import Record, Trial

MEMORY = Objective("peak_memory_mb", "minimize", worst=1000.0)
RECIPES = [Recipe().to_json(), Recipe(lr=1e-5).to_json()]


def any_trials(seed: int, number: int = 40) -> list[Trial]:
    """Of all kinds, few of which compare with each other: what occurs in no study but might."""
    rng = random.Random(seed)
    odd = rng.choice([0.02, 0.15, 0.5])

    def sometimes(usual: Any, *others: Any) -> Any:
        return rng.choice(others) if rng.random() < odd else usual

    def timed(metric: str, value: float) -> Record:
        told = {
            "device": sometimes("Xeon, 2 cores", "h100"),
            "batch": sometimes(64, 1),
            "precision": sometimes("fp32", "bf16"),
        }
        told |= {"protocol": sometimes("median 1", "median 2", "median 1, disturbed"), "threads": sometimes(2, 1)}
        return dataclasses.replace(throughput(value, attempt=sometimes(1, 2), **told), metric=metric)

    def trained(rung: int, **other: Any) -> Record:
        told = {"dataset": sometimes("digits", "cifar10"), "data": sometimes(None, "a", "b"), **other}
        told |= {"protocol": sometimes("proxy 1", "proxy 2"), "resolution": sometimes(32, 64)}
        told |= {"epochs": sometimes(6 * (rung + 1), 7), "attempt": sometimes(1, 2)}
        return accuracy(rng.choice([rng.uniform(10, 90), 50.0]), rung=rung, **told)

    def records() -> list[Record]:
        reached = rng.choice([-1, 0, 0, 1, 2, 2])
        found = [timed("throughput", rng.choice([rng.uniform(100, 10_000), 500.0])) for _ in range(sometimes(1, 0, 2))]
        found += [timed("peak_memory_mb", rng.uniform(1, 9)) for _ in range(sometimes(1, 0))]
        for rung in range(reached + 1):
            found += [trained(rung) for _ in range(sometimes(1, 0, 2))]
        for repeat in range(1, rng.choice([1, 1, 1, 2, 4])):
            found += [trained(max(0, reached - sometimes(0, 1)), repeat=repeat) for _ in range(sometimes(1, 2))]
        return found

    def one() -> Trial:
        state = rng.choice(["complete", "complete", "paused", "stopped", "running", "infeasible"])
        reason = {"infeasible": rng.choice(["error", "out of memory", None]), "stopped": rng.choice(["x", None])}
        told = {"width": rng.choice([None, None, 64, 72]), "recipe_json": sometimes(*RECIPES)}
        told |= {"label": sometimes(None, "mixer_s16"), "params": rng.choice([1000, 2000, 3000])}
        return a_trial(*records(), state=state, reason=reason.get(state), **told)

    return [one() for _ in range(number)]


@pytest.mark.parametrize(
    "objectives",
    [BOTH, (ACCURACY, PARAMS), (THROUGHPUT, PARAMS), (MEMORY, THROUGHPUT), (*BOTH, PARAMS), (ACCURACY,)],
    ids=lambda objectives: " ".join(objective.metric for objective in objectives),
)
@pytest.mark.parametrize("rung", [None, 0, 1, 5])
def test_columns_are_compared_as_one_trial_after_the_other(objectives: Sequence[Objective], rung: int | None) -> None:
    for seed in range(8):
        trials = any_trials(seed)
        found, slow = front(trials, tuple(objectives), rung=rung), slow_front(trials, tuple(objectives), rung)
        assert [entry.trial.number for entry in found.entries] == slow.numbers
        assert [entry.records for entry in found.entries] == slow.records
        assert [entry.on_front for entry in found.entries] == slow.on_front
        accuracies = [entry.accuracy for entry in found.entries]
        assert [each and (each.mean, each.error, each.spread, each.trainings) for each in accuracies] == slow.means
        assert list(found.left_out.items()) == slow.left_out
        assert found.hypervolume == slow.hypervolume
        told = [
            (each.rung, each.epochs, each.reached, each.paused, each.stopped, each.running) for each in found.standing
        ]
        assert told == slow.standing
        if any(objective.metric == "accuracy" for objective in objectives):
            assert found.rung == slow.rung
            ended = [t for t in trials if t.state == "complete" and t.rung == slow.rung]
            assert found.partial == (slow.rung is not None and not ended)


def test_an_entry_is_made_when_it_is_asked_for() -> None:
    trials = any_trials(0)
    found = front(trials, BOTH)
    assert not found.entries.known
    assert found.entries[0] == found.entries[:2][0] == next(iter(found.entries))
    assert found.entries[-1].trial == found.entries.at([len(found.entries) - 1])[0].trial
    with pytest.raises(IndexError):
        found.entries[len(found.entries)]
