"""The process behind the default sampler, against slow and obvious arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from mlpspace.sampling.gaussian_process import GaussianProcess, Inputs, Relevances, fit

RNG = np.random.default_rng(0)


def inputs(count: int, dimensions: int = 5, traits: int = 2) -> Inputs:
    """Three values each; the last dimension exists where the first has its value 0."""
    codes = RNG.integers(3, size=(count, dimensions)).astype(np.int32)
    codes[codes[:, 0] != 0, -1] = -1
    return Inputs(codes, np.maximum(codes, 0) / 2.0, RNG.normal(size=(count, traits)))


def by_hand(theta, a: Inputs, i: int, b: Inputs, j: int) -> float:
    """The kernel of two points, as the module's docstring says it."""
    dimensions, traits = a.codes.shape[1], a.traits.shape[1]
    w, v, u = np.split(np.exp(theta[:-4]), [dimensions, 2 * dimensions])
    s, flat, slope, _ = np.exp(theta[-4:])
    differ = [a.codes[i, d] != b.codes[j, d] for d in range(dimensions)]
    away = sum(w[d] * differ[d] + v[d] * (a.places[i, d] - b.places[j, d]) ** 2 for d in range(dimensions))
    away += sum(u[t] * (a.traits[i, t] - b.traits[j, t]) ** 2 for t in range(traits))
    agree = 1 - sum(w[d] * differ[d] for d in range(dimensions)) / w.sum()
    return s * np.exp(-away) + flat * agree + slope * float(a.traits[i] @ b.traits[j])


def test_its_mean_and_deviation_are_those_of_the_textbook():
    """Rasmussen & Williams 2006, eq. 2.25 and 2.26."""
    known, new = inputs(12), inputs(4)
    theta = RNG.normal(-1, 0.5, 2 * 5 + 2 + 4)
    values, noise = RNG.normal(size=12), RNG.random(12)
    process = GaussianProcess(known, values, noise, Relevances(theta, 5, 2))
    k = np.array([[by_hand(theta, known, i, known, j) for j in range(12)] for i in range(12)])
    k += np.diag(noise + np.exp(theta[-1]) + 1e-6)
    cross = np.array([[by_hand(theta, new, i, known, j) for j in range(12)] for i in range(4)])
    own = np.array([by_hand(theta, new, i, new, i) for i in range(4)])
    mean = values.mean() + cross @ np.linalg.solve(k, values - values.mean())
    variance = own - np.sum(cross * np.linalg.solve(k, cross.T).T, axis=1)
    told = process.predict(new)
    assert told.mean == pytest.approx(mean)
    assert told.sd == pytest.approx(np.sqrt(variance))


def test_what_is_believed_changes_no_mean_and_makes_less_uncertain_what_is_near():
    known, new, elsewhere = inputs(12), inputs(2), inputs(30)
    theta = RNG.normal(-1, 0.5, 2 * 5 + 2 + 4)
    process = GaussianProcess(known, RNG.normal(size=12), RNG.random(12), Relevances(theta, 5, 2))
    believing, before = process.believing(new), process.predict(elsewhere)
    after = believing.predict(elsewhere)
    assert after.mean == pytest.approx(before.mean, rel=1e-9)
    assert np.all(after.sd <= before.sd + 1e-9)
    assert np.all(believing.predict(new).sd < process.predict(new).sd)


def test_it_finds_out_which_dimensions_matter():
    known = inputs(80, dimensions=8)
    values = (known.codes[:, 2] == 1) * 1.0 + known.places[:, 4]
    values = (values - values.mean()) / values.std()
    found = np.exp(fit(known, values, np.zeros(80)).theta)
    matter = found[:8] + found[8:16]
    assert set(np.argsort(-matter)[:2]) == {2, 4}


def test_fitted_it_foretells_what_it_has_not_seen():
    both = inputs(120, dimensions=8)
    values = (both.codes[:, 2] == 1) * 1.0 + both.places[:, 4] * (both.codes[:, 0] == 0) + 0.3 * both.traits[:, 0]
    values = (values - values.mean()) / values.std()
    known, new = both.take(np.arange(80)), both.take(np.arange(80, 120))
    told = GaussianProcess(known, values[:80], np.zeros(80)).predict(new)
    errors = values[80:] - told.mean
    assert np.mean(errors**2) < 0.15 * np.var(values[80:])
    assert np.mean(np.abs(errors) < 2 * told.sd) > 0.8, "and knows how well"


def test_a_noisy_value_says_less_than_an_exact_one():
    known = inputs(20)
    values = RNG.normal(size=20)
    theta = np.full(2 * 5 + 2 + 4, -1.0)
    exact = GaussianProcess(known, values, np.zeros(20), Relevances(theta, 5, 2)).predict(known)
    noise = np.zeros(20)
    noise[3] = 25.0
    noisy = GaussianProcess(known, values, noise, Relevances(theta, 5, 2)).predict(known)
    assert noisy.sd[3] > exact.sd[3]
    assert abs(noisy.mean[3] - values[3]) > abs(exact.mean[3] - values[3])
