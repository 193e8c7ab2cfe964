"""TPE proposes what was good, within the condition under which it was good; NSGA-II evolves; both survive a restart."""

from __future__ import annotations

import dataclasses
import sys
import warnings

import numpy as np
import optuna
import pytest
from stubs import SPACE

from mlpspace.domain import SpaceDomain
from mlpspace.errors import UserError
from mlpspace.pareto import hypervolume
from mlpspace.sampling import make
from mlpspace.sampling.base import Observation, Sampler
from mlpspace.sampling.custom import Guarded, load
from mlpspace.sampling.optuna_samplers import MODEL_DRAWS, POPULATION, STARTUP_TRIALS, Nsga2, Random, Tpe, distribution
from mlpspace.space import read_space
from mlpspace.space.dims import Choice, Span
from mlpspace.space.space import Candidate

SMALL = SpaceDomain(read_space(SPACE))
MIXER = "isotropic.token_mixer"


def observed(number: int, candidate: Candidate, costs: tuple[float, float] | None, **changes) -> Observation:
    """A trial with these costs: minus the accuracy, and minus the decimal logarithm of the throughput."""
    told = Observation(number=number, key=SMALL.key(candidate), candidate=candidate, state="complete")
    if costs is None:
        told.state, told.reason = "infeasible", "out of memory"
    else:
        told.accuracy[0], told.known["throughput"] = -costs[0], 10 ** -costs[1]
    return dataclasses.replace(told, **changes)


def history(cost, trials: int = 80) -> list[Observation]:
    """Random trials, with both of their costs as `cost` has them."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(trials):
        candidate = SMALL.draw(rng)
        value = cost(candidate.point)
        found.append(observed(number, candidate, None if value is None else (float(value), float(value))))
    return found


def drawn(sampler: Sampler, seen: list[Observation], draws: int = 40) -> list[Candidate]:
    return [sampler.suggest(number, 0, seen).candidate for number in range(1000, 1000 + draws)]


def taught(cost, trials: int = 80, draws: int = 40) -> list[Candidate]:
    return drawn(Tpe(SMALL, seed=0), history(cost, trials), draws)


def share(candidates, holds) -> float:
    return sum(map(holds, candidates)) / len(candidates)


def test_a_kind_that_was_good_is_proposed_more_often_than_by_chance():
    found = taught(lambda point: 0.0 if point[MIXER] == "linear" else 1.0)
    assert share(found, lambda candidate: candidate.point[MIXER] == "linear") > 0.6  # by chance a third


def test_what_exists_only_under_a_condition_is_learned_under_it():
    ratio = "isotropic.token_mixer.dense.ratio"
    # dense is as good as the others at its larger ratio, and bad at the smaller
    found = taught(lambda point: 1.0 if point.get(ratio) == 0.5 else 0.0, 150, 80)
    dense = [candidate for candidate in found if ratio in candidate.point]
    assert len(dense) >= 5
    assert share(dense, lambda candidate: candidate.point[ratio] == 1.0) > 0.7  # by chance a half


def test_dimensions_that_exist_together_are_modelled_together():
    # either value of either one is as good alone: only the pair tells
    found = taught(lambda point: float((point["norm"] == "layer") != (point["isotropic.patch"] == 4)), 200, 80)
    pairs = share(found, lambda c: (c.point["norm"] == "layer") == (c.point["isotropic.patch"] == 4))
    assert pairs > 0.65  # by chance, and for a model of single dimensions, a half


def test_the_first_trials_and_the_last_resort_are_random():
    seen = history(lambda point: point["isotropic.depth"], STARTUP_TRIALS - 1)
    assert {c.point["isotropic.depth"] for c in drawn(Tpe(SMALL, seed=0), seen)} == {1, 2, 3, 4}
    assert Tpe(SMALL, seed=0).suggest(9, 0, seen).why == "random start"
    seen = history(lambda point: point["isotropic.depth"])
    for kind in (Tpe, Nsga2):
        last = [kind(SMALL, seed=0).suggest(7, MODEL_DRAWS + i, seen) for i in range(40)]
        assert {each.candidate.point["isotropic.depth"] for each in last} == {1, 2, 3, 4}
        assert last[0].why == "random: 32 draws of the model were refused"


def test_infeasible_trials_teach_tpe_what_to_avoid():
    rng = np.random.default_rng(0)
    found = taught(lambda point: None if point[MIXER] == "dense" else rng.random())
    assert share(found, lambda candidate: candidate.point[MIXER] == "dense") < 0.2  # by chance a third
    assert len(taught(lambda point: None)) == 40  # nor does it need any that is not


@pytest.mark.parametrize("state", ["stopped", "paused"])
def test_what_stands_at_an_earlier_rung_is_no_success(state):
    rng = np.random.default_rng(0)
    seen = history(lambda point: rng.random())
    for trial in seen:
        if trial.candidate.point[MIXER] == "dense":
            trial.state = state
    assert share(drawn(Tpe(SMALL, seed=0), seen), lambda candidate: candidate.point[MIXER] == "dense") < 0.2


def test_what_runs_is_not_proposed_to_every_worker():
    seen = history(lambda point: abs(point["isotropic.width"] - 32) + abs(point["isotropic.depth"] - 3), 60)
    tpe = Tpe(SMALL, seed=0)
    alone = drawn(tpe, seen, 60)
    best = max({str(c.point): c for c in alone}.values(), key=lambda c: sum(c.point == each.point for each in alone))
    running = [observed(60 + i, best, None, state="running", reason=None) for i in range(20)]
    again = drawn(tpe, seen + running, 60)
    assert sum(c.point == best.point for c in again) < sum(c.point == best.point for c in alone)


def test_disturbed_trials_teach_nothing_beside_others():
    rng = np.random.default_rng(0)
    clean = history(lambda point: rng.random(), 60)
    # a busy machine made all dense networks look excellent
    candidates = [SMALL.draw(rng) for _ in range(40)]
    busy = [
        observed(60 + i, c, (-5.0, -5.0) if c.point[MIXER] == "dense" else (5.0, 5.0), disturbed=True)
        for i, c in enumerate(candidates)
    ]
    for kind in (Tpe, Nsga2):
        with_them, without = (drawn(kind(SMALL, seed=0), seen, 12) for seen in (clean + busy, clean))
        assert [c.point for c in with_them] == [c.point for c in without]
    alone = drawn(Tpe(SMALL, seed=0), [dataclasses.replace(t, number=t.number - 60) for t in busy])
    assert share(alone, lambda candidate: candidate.point[MIXER] == "dense") > 0.6


@pytest.mark.parametrize("kind", [Tpe, Nsga2, Random])
def test_a_sampler_that_saw_all_and_one_that_begins_anew_go_on_alike(kind):
    """Trials run, pause, go on, are stopped, end late, or turn out disturbed; two workers have one each."""
    domain = SpaceDomain(read_space(SPACE.replace("epochs: 2", "rungs: {epochs: [1, 2], keep: 1/2}")))
    rng = np.random.default_rng(0)
    sampler, seen, running = kind(domain, seed=3), [], []
    for number in range(90):
        suggestion = sampler.suggest(number, 0, seen)
        assert kind(domain, seed=3).suggest(number, 0, seen) == suggestion
        candidate = suggestion.candidate
        seen.append(Observation(number=number, key=domain.key(candidate), candidate=candidate))
        seen[-1].known["throughput"] = float(rng.uniform(100, 1000))
        running.append(seen[-1])
        while len(running) > 1:
            trial = running.pop(int(rng.integers(2)))
            if 0 not in trial.accuracy:
                trial.accuracy[0] = float(rng.uniform(10, 90))
                trial.state = str(rng.choice(["paused", "paused", "stopped", "infeasible"]))
            if trial.state in ("running", "paused") and rng.random() < 0.9:
                trial.accuracy[1] = trial.accuracy[0] + 5
                trial.disturbed = rng.random() < 0.1
                trial.state = "complete"
        resumed = [trial for trial in seen if trial.state == "paused"]
        if resumed and rng.random() < 0.3:
            resumed[0].state = "running"
            running.insert(0, resumed[0])
    assert sum(trial.state == "complete" for trial in seen) > 2 * POPULATION


@pytest.mark.parametrize("kind", [Tpe, Nsga2, Random])
def test_each_trial_and_each_draw_has_a_suggestion_of_its_own(kind):
    seen = history(lambda point: point["isotropic.depth"])
    sampler = kind(SMALL, seed=0)
    assert len({str(sampler.suggest(7, draw, seen).candidate.point) for draw in range(12)}) > 1
    assert len({str(sampler.suggest(number, 0, seen).candidate.point) for number in range(80, 92)}) > 1
    other = [kind(SMALL, seed=1).suggest(number, 0, seen) for number in range(80, 92)]
    assert other != [sampler.suggest(number, 0, seen) for number in range(80, 92)]


@pytest.mark.parametrize("kind", [Tpe, Nsga2, Random])
def test_nothing_is_said_on_the_terminal(kind, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(SMALL, seed=0).suggest(80, 0, history(lambda point: point["isotropic.depth"]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("draw", [0, MODEL_DRAWS])
@pytest.mark.parametrize("kind", [Tpe, Nsga2, Random])
def test_a_point_holds_the_dimensions_that_its_network_has_and_no_other(kind, draw):
    seen = history(lambda point: point["isotropic.depth"])
    sampler = kind(SMALL, seed=0)
    for number in range(100, 120):
        candidate = sampler.suggest(number, draw, seen).candidate
        assert SMALL.space.encode(candidate.architecture) == candidate.point


PLAIN = SpaceDomain(
    read_space("""\
task: {classes: 10, resolution: 32}
space:
  norm: [layer, affine]
  layout: {isotropic: {patch: [1, 2, 4, 8], depth: 1..12, width: 16..256 step 16, token_mixer: {dense: {ratio: [0.5, 1, 2]}}}}
objectives: {accuracy: {worst: 0}, throughput: {worst: 1}}
fidelity: {dataset: mnist5k, epochs: 2}
""")
)


def plain_costs(point) -> tuple[float, float]:
    size = point["isotropic.depth"] * point["isotropic.width"] / (12 * 256)
    waste = (
        (point["isotropic.patch"] != 4)
        + (point["norm"] != "affine")
        + (point["isotropic.token_mixer.dense.ratio"] != 1)
    )
    return -(80 * size**0.5 - 8 * waste), -(100 * (1 - size) - 8 * waste)


def evolved(trials: int, kind: type[Sampler], seed: int = 0) -> list[Observation]:
    """What comes of a sampler that begins anew for every suggestion, as after a crash."""
    seen: list[Observation] = []
    for number in range(trials):
        candidate = kind(PLAIN, seed=seed).suggest(number, 0, seen).candidate
        accuracy, throughput = (-cost for cost in plain_costs(candidate.point))
        told = Observation(number=number, key=PLAIN.key(candidate), candidate=candidate, state="complete")
        told.accuracy[0], told.known["throughput"] = accuracy, throughput
        seen.append(told)
    return seen


def test_nsga2_evolves_generation_by_generation_and_does_not_start_over():
    seen = evolved(6 * POPULATION, Nsga2)
    good = {"isotropic.patch": 4, "norm": "affine", "isotropic.token_mixer.dense.ratio": 1}

    def right(trials: list[Observation]) -> float:
        return float(
            np.mean([trial.candidate.point[name] == value for trial in trials for name, value in good.items()])
        )

    assert right(seen[:POPULATION]) < 0.5  # by chance (1/4 + 1/2 + 1/3) / 3
    assert right(seen[-POPULATION:]) > 0.7
    assert Nsga2(PLAIN, seed=0).suggest(120, 0, seen).why == "nsga2, generation 6"
    assert Nsga2(PLAIN, seed=0).suggest(5, 0, seen[:5]).why == "random start"


def volume(costs) -> float:
    return hypervolume(np.array(list(costs)), (0.0, 0.0))


@pytest.mark.slow
def test_ours_are_as_good_as_optuna_s_own_run_of_the_same_sampler():
    """Optuna's `optimize` on the same problem; medians of five seeds, the reference being theirs."""

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        point = {dim.name: trial._suggest(dim.name, distribution(dim)) for dim, _ in PLAIN.dimensions}
        return plain_costs(point)

    def theirs(seed: int, kind: type[Sampler]) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = {
                Nsga2: lambda: optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed),
                Tpe: lambda: optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed),
            }[kind]()
        study = optuna.create_study(directions=["minimize"] * 2, sampler=own)
        study.optimize(objective, n_trials=100)
        return volume(trial.values for trial in study.trials)

    def ours(seed: int, kind: type[Sampler]) -> float:
        return volume(plain_costs(trial.candidate.point) for trial in evolved(100, kind, seed))

    told = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for kind in (Nsga2, Tpe):
            pairs = [(ours(seed, kind), theirs(seed, kind)) for seed in range(5)]
            mine, other = np.median(pairs, axis=0)
            assert mine > 0.95 * other
    finally:
        optuna.logging.set_verbosity(told)


@pytest.mark.parametrize(("dim", "told"), [
    (Choice("kernel", (3, 5, 7)), "CategoricalDistribution(choices=(3, 5, 7))"),
    (Span("width", 16, 64, 16, False), "IntDistribution(high=64, log=False, low=16, step=16)"),
    (Span("width", 16, 64, None, True), "IntDistribution(high=64, log=True, low=16, step=1)"),
    (Span("lr", 1e-4, 1e-1, None, True), "FloatDistribution(high=0.1, log=True, low=0.0001, step=None)"),
    (Span("decay", 0.0, 0.3, 0.1, False), "FloatDistribution(high=0.3, log=False, low=0.0, step=0.1)"),
])  # fmt: skip
def test_a_dimension_is_optuna_s_distribution_of_the_same_values(dim, told):
    assert str(distribution(dim)) == told


def test_samplers_go_by_their_names(tmp_path, monkeypatch):
    for name, kind in (("tpe", Tpe), ("nsga2", Nsga2), ("random", Random)):
        assert type(make(name, SMALL, seed=0)) is kind
    (tmp_path / "my_greedy_sampler.py").write_text(
        "from mlpspace.sampling import Sampler\nclass Greedy(Sampler):\n    def suggest(self, number, draw, seen): ...\n"
        "WIDTH = 3\n"
    )
    (tmp_path / "my_broken_sampler.py").write_text("import no_such_thing_anywhere\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(make("my_greedy_sampler:Greedy", SMALL, seed=0), Guarded)
    assert sys.path == before
    for text, told in {
        "my_greedy_sampler:Gredy": "has no Gredy. It has the samplers Greedy.",
        "my_greedy_sampler:WIDTH": "WIDTH is no class with a method suggest(number, draw, seen).",
        "my_broken_sampler:Greedy": "ModuleNotFoundError: No module named 'no_such_thing_anywhere'",
        "no_such_module_here:X": "ModuleNotFoundError: No module named 'no_such_module_here'",
        "json:X": "It has no class with a method suggest.",
        "my_greedy_sampler:": "is not module:Class",
        ":X": "is not module:Class",
    }.items():
        with pytest.raises(UserError) as caught:
            load(text)
        assert told in str(caught.value)
