"""The sampler proposes what was good, within the condition under which it was good."""

from __future__ import annotations

import numpy as np
import pytest
from stubs import SPACE

from mlpspace.sampler import MODEL_DRAWS, STARTUP_TRIALS, Sampler
from mlpspace.space import read_space
from mlpspace.space.space import Candidate

SMALL = read_space(SPACE)


def taught(cost, trials: int = 80) -> Sampler:
    """A sampler that knows random trials, with both of their costs as `cost` has them."""
    sampler = Sampler(SMALL, seed=0)
    rng = np.random.default_rng(0)
    for number in range(trials):
        point = SMALL.draw(rng).point
        sampler.tell(number, point, (float(cost(point)), float(cost(point))))
    return sampler


def drawn(sampler: Sampler, draws: int = 40) -> list[Candidate]:
    found = []
    for number in range(1000, 1000 + draws):
        found.append(sampler.draw(number, 0))
        sampler.refuse(number)
    return found


def share(candidates, holds) -> float:
    return sum(map(holds, candidates)) / len(candidates)


def test_a_kind_that_was_good_is_proposed_more_often_than_by_chance():
    mixer = "isotropic.token_mixer"
    found = drawn(taught(lambda point: 0.0 if point[mixer] == "linear" else 1.0))
    assert share(found, lambda candidate: candidate.point[mixer] == "linear") > 0.6  # by chance a third


def test_what_exists_only_under_a_condition_is_learned_under_it():
    ratio = "isotropic.token_mixer.dense.ratio"
    # dense is as good as the others at its larger ratio, and bad at the smaller
    found = drawn(taught(lambda point: 1.0 if point.get(ratio) == 0.5 else 0.0, trials=150), 80)
    dense = [candidate for candidate in found if ratio in candidate.point]
    assert len(dense) >= 5
    assert share(dense, lambda candidate: candidate.point[ratio] == 1.0) > 0.7  # by chance a half


def test_dimensions_that_exist_together_are_modelled_together():
    # either value of either one is as good alone: only the pair tells
    found = drawn(taught(lambda point: float((point["norm"] == "layer") != (point["isotropic.patch"] == 4)), 200), 80)
    pairs = share(found, lambda c: (c.point["norm"] == "layer") == (c.point["isotropic.patch"] == 4))
    assert pairs > 0.65  # by chance, and for a model of single dimensions, a half


def test_the_first_trials_and_the_last_resort_are_random():
    sampler = taught(lambda point: point["isotropic.depth"], STARTUP_TRIALS - 1)
    depths = {candidate.point["isotropic.depth"] for candidate in drawn(sampler)}
    assert depths == {1, 2, 3, 4}
    last = taught(lambda point: point["isotropic.depth"])
    assert {last.draw(7, MODEL_DRAWS + i).point["isotropic.depth"] for i in range(40)} == {1, 2, 3, 4}


def test_a_draw_depends_on_the_seed_the_trial_and_the_draw_and_on_what_was_told():
    one, same = (drawn(taught(lambda point: point["isotropic.depth"])) for _ in range(2))
    assert [candidate.point for candidate in one] == [candidate.point for candidate in same]
    sampler = taught(lambda point: point["isotropic.depth"])
    points = []
    for draw in range(5):
        points.append(sampler.draw(7, draw).point)
        sampler.refuse(7)
    assert any(point != points[0] for point in points)


def test_infeasible_trials_teach_it_what_to_avoid():
    mixer = "isotropic.token_mixer"
    sampler = Sampler(SMALL, seed=0)
    rng = np.random.default_rng(0)
    for number in range(80):
        point = SMALL.draw(rng).point
        sampler.tell(number, point, None if point[mixer] == "dense" else (float(rng.random()), float(rng.random())))
    assert share(drawn(sampler), lambda candidate: candidate.point[mixer] == "dense") < 0.2  # by chance a third


@pytest.mark.parametrize("draw", [0, MODEL_DRAWS])
def test_a_point_holds_the_dimensions_that_its_network_has_and_no_other(draw):
    sampler = taught(lambda point: point["isotropic.depth"])
    for number in range(100, 120):
        candidate = sampler.draw(number, draw)
        assert SMALL.encode(candidate.architecture) == candidate.point
        sampler.refuse(number)
