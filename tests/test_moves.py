"""Small steps: what changes exists, what existed stays, and what comes to exist is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlpspace.domain import SpaceDomain
from mlpspace.sampling.moves import _other, cross, mutate, ordered
from mlpspace.space import load_space
from mlpspace.space.dims import Choice, Span, contains

SPACES = sorted((Path(__file__).parents[1] / "spaces").glob("*.yaml"))


def domain_of(path: Path) -> SpaceDomain:
    return SpaceDomain(load_space(path))


HYBRID = domain_of(next(path for path in SPACES if path.stem == "hybrid"))


def points(domain, count, seed=0):
    rng = np.random.default_rng(seed)
    return [domain.draw(rng).point for _ in range(count)], rng


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_mutation_of_any_space_holds_the_dimensions_that_exist_and_no_other(path):
    domain = domain_of(path)
    dims = {dim.name: dim for dim, _ in domain.dimensions}
    parents, rng = points(domain, 30)
    for parent in parents:
        child = mutate(domain, parent, rng).point
        assert all(contains(dims[name], value) for name, value in child.items())
        again = domain.candidate(lambda dim, child=child: child[dim.name])  # a KeyError: one that exists is missing
        assert again.point == child
        changed = {name for name in parent.keys() & child.keys() if parent[name] != child[name]}
        # what comes or goes does so because of a kind or a layout that changed
        assert changed


def test_what_did_not_change_keeps_its_value_and_a_new_kind_draws_its_settings():
    parents, rng = points(HYBRID, 200)
    came = Counter()
    for parent in parents:
        child = mutate(HYBRID, parent, rng).point
        for name in child.keys() - parent.keys():
            stem = name.rsplit(".", 2)[0]  # pyramid.stage1.token_mixer.dense.ratio -> pyramid.stage1.token_mixer
            assert parent["layout"] != child["layout"] or parent[stem] != child[stem]
            came[name, child[name]] += 1
    assert len({value for (name, value) in came if name.endswith("dense.ratio")}) > 1


def test_most_mutations_change_one_dimension_and_some_more():
    parents, rng = points(HYBRID, 400)
    sizes = Counter()
    for parent in parents:
        child = mutate(HYBRID, parent, rng).point
        sizes[sum(parent[name] != child[name] for name in parent.keys() & child.keys())] += 1
    assert 0 not in sizes
    assert 0.45 < sizes[1] / 400 < 0.75
    assert sizes[2] > sizes[3] > 0


def test_every_dimension_that_exists_is_mutated_as_often_as_any():
    (parent, *_), rng = points(HYBRID, 1)
    changed = Counter()
    for _ in range(3000):
        child = mutate(HYBRID, parent, rng).point
        changed.update(name for name in parent if name in child and parent[name] != child[name])
    # a setting goes unnoticed where its kind changed with it
    assert min(changed[name] for name in parent) > 0.6 * max(changed.values())


def test_ordered_dimensions_go_to_near_values_and_words_to_any():
    rng = np.random.default_rng(0)
    width = Span("width", 16, 160, 16, False)  # ten values
    steps = Counter(abs(_other(width, 80, rng) - 80) // 16 for _ in range(2000))
    assert steps[0] == 0
    assert steps[1] > 1000
    assert set(steps) == {1, 2, 3, 4, 5}  # every value now and then
    ratios = Choice("ratio", (4, 0.5, 1, 2))  # in any order
    near = Counter(_other(ratios, 0.5, rng) for _ in range(1000))
    assert near[1] > near[2] > near[4] * 0.9 > 0
    kinds = Counter(_other(Choice("kind", ("a", "b", "c", "d")), "b", rng) for _ in range(3000))
    assert kinds["b"] == 0
    assert min(kinds["a"], kinds["c"], kinds["d"]) > 900
    flags = Choice("flag", (True, False))
    assert {_other(flags, False, rng) for _ in range(5)} == {True}


@pytest.mark.parametrize("dim", [
    Span("lr", 1e-4, 1e-1, None, True), Span("decay", 0.0, 0.3, None, False), Span("width", 16, 1024, 1, True),
    Span("units", 3, 4, 1, True), Span("share", 0.1, 0.5, 0.1, False), Choice("patch", (4, 8)), Span("depth", 1, 2, 1, False),
])  # fmt: skip
def test_another_value_is_another_and_in_the_dimension(dim):
    rng = np.random.default_rng(0)
    value = dim.draw(rng)
    for _ in range(300):
        other = _other(dim, value, rng)
        assert other != value
        assert contains(dim, other)
        assert type(other) is type(value)
        value = other


def test_a_step_on_a_logarithmic_scale_is_a_factor():
    rng = np.random.default_rng(0)
    rate = Span("lr", 1e-4, 1e-1, None, True)
    factors = np.log10([_other(rate, 10**-2.5, rng) / 10**-2.5 for _ in range(4000)])
    assert abs(np.mean(factors)) < 0.05
    assert np.mean(np.abs(factors) < 0.5) > 0.6


def test_numbers_are_ordered_and_words_and_flags_are_not():
    assert ordered(Choice("kernel", (3, 5, 7)))
    assert ordered(Span("depth", 1, 4, 1, False))
    assert not ordered(Choice("norm", ("layer", "affine")))
    assert not ordered(Choice("identity", (True, False)))
    assert not ordered(Choice("scale", (None, 0.1)))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_cross_has_each_dimension_of_either_parent(path):
    domain = domain_of(path)
    parents, rng = points(domain, 30)
    for first, second in zip(parents[::2], parents[1::2], strict=True):
        child = cross(domain, first, second, rng).point
        for name, value in child.items():
            told = [parent[name] for parent in (first, second) if name in parent]
            assert value in told or not told


def test_a_cross_takes_about_half_of_each():
    parents, rng = points(HYBRID, 400)
    of_first = of_either = 0
    for first, second in zip(parents[::2], parents[1::2], strict=True):
        child = cross(HYBRID, first, second, rng).point
        differ = [name for name in child if name in first and name in second and first[name] != second[name]]
        of_either += len(differ)
        of_first += sum(child[name] == first[name] for name in differ)
    assert 0.45 < of_first / of_either < 0.55
