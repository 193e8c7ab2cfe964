"""A Gaussian process over points of mixed dimensions: ordered, categorical, conditional.

n points, D dimensions, T traits. The kernel of two points is

    s exp(-sum_d w_d [differ in d] - sum_d v_d (x_d - x'_d)^2 - sum_t u_t (t - t')^2)
  + a (1 - sum_d p_d [differ in d]) + b sum_t t t'

the first line a Gaussian in the traits and the ordered dimensions and a Hamming kernel in all of them (a dimension
that only one of the two has is one in which they differ), each with a relevance of its own; the second line its
straight-line part: what each value adds by itself. Relevances are the most probable ones under weak priors that expect
a few of many dimensions to matter, so that a dozen points are enough to start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpspace.pareto import Floats

MOST_TO_FIT = 200  # points that relevances are fitted on: the price of a step grows with their cube
STEPS = 30  # of the fit


@dataclass(frozen=True, slots=True)
class Inputs:
    """Points as arrays."""

    codes: NDArray[np.int32]  # (n, D) which value; -1: the dimension does not exist
    places: Floats  # (n, D) of an ordered value in 0..1; 0 where there is no order or no value
    traits: Floats  # (n, T), each with spread 1 or so

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        return Inputs(self.codes[rows], self.places[rows], self.traits[rows])


def together(parts: Sequence[Inputs]) -> Inputs:
    """One after the other."""
    return Inputs(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.traits for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Relevances:
    """What was fitted: logarithms, all in one vector."""

    theta: Floats
    dimensions: int
    traits: int


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the process says of new points, given old ones."""

    mean: Floats
    sd: Floats


class GaussianProcess:
    """Fitted to values of spread 1 or so, each with a noise variance of its own on top of the common one."""

    def __init__(
        self,
        inputs: Inputs,
        values: Floats,
        noise: Floats,
        relevances: Relevances | None = None,
        mean: float | None = None,
    ) -> None:
        """
        Args:
            inputs: (n) points.
            values: (n,), standardised.
            noise: (n,) variances, beside the common one that is fitted.
            relevances: of an earlier fit; None: fitted here.
            mean: far from all points; None: that of the values.
        """
        self.relevances = relevances or fit(inputs, values, noise)
        self._inputs, self._values, self._noise = inputs, values, noise
        theta = self.relevances.theta
        self._shift = mean if mean is not None else float(np.mean(values)) if len(values) else 0.0
        own = np.exp(theta[-1]) + noise + 1e-6
        covariance = _kernel(theta, inputs, inputs) + np.diag(own)
        self._factor: Floats = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        self._alpha = _solve(self._factor, values - self._shift)

    def predict(self, inputs: Inputs) -> Posterior:
        """Mean and standard deviation of the noiseless value at new points."""
        theta = self.relevances.theta
        cross = _kernel(theta, inputs, self._inputs)
        mean = self._shift + cross @ self._alpha
        half = _forward(self._factor, cross.T)
        variance = _diagonal(theta, inputs) - np.einsum("ij,ij->j", half, half)
        return Posterior(mean, np.sqrt(np.maximum(variance, 1e-10)))

    def believing(self, inputs: Inputs) -> GaussianProcess:
        """The same, had it also seen just what it expects at k new points: no mean changes, and less is uncertain."""
        return GaussianProcess(
            together([self._inputs, inputs]),
            np.concatenate([self._values, self.predict(inputs).mean]),
            np.concatenate([self._noise, np.zeros(len(inputs))]),
            self.relevances,
            self._shift,
        )


def fit(inputs: Inputs, values: Floats, noise: Floats) -> Relevances:
    """The most probable relevances, from at most MOST_TO_FIT of the points, evenly taken."""
    from scipy.optimize import minimize

    if len(inputs) > MOST_TO_FIT:
        rows = np.unique(np.linspace(0, len(inputs) - 1, MOST_TO_FIT).astype(np.int64))
        inputs, values, noise = inputs.take(rows), values[rows], noise[rows]
    dimensions, traits = inputs.codes.shape[1], inputs.traits.shape[1]
    centre, spread = _prior(dimensions, traits)
    if len(inputs) < 3:
        return Relevances(centre, dimensions, traits)
    values = values - values.mean()
    differ = np.stack([inputs.codes[:, d, None] != inputs.codes[None, :, d] for d in range(dimensions)] or [])
    away = [*inputs.places.T, *inputs.traits.T]
    # single precision: what is limited here is how fast memory is read
    apart = np.array([(column[:, None] - column[None, :]) ** 2 for column in away], dtype=np.float32)
    n = len(inputs)
    agree = differ.reshape(dimensions, n * n).astype(np.float32)
    distances = np.concatenate([agree, apart.reshape(-1, n * n)])
    used = np.flatnonzero(distances.any(axis=1))  # what does not vary has no say, and keeps the prior's relevance
    distances = distances[used]
    lines = inputs.traits @ inputs.traits.T
    extra = np.diag(noise + 1e-6)

    def cost(theta: Floats) -> tuple[float, Floats]:
        weights = np.exp(theta[: 2 * dimensions + traits])
        scale, flat, slope, own = np.exp(theta[-4:])
        product = scale * np.exp(-(weights[used].astype(np.float32) @ distances).reshape(n, n).astype(np.float64))
        shares = _shares(weights, dimensions)
        mixed = flat * (1 - (shares.astype(np.float32) @ agree).reshape(n, n).astype(np.float64))
        covariance = product + mixed + slope * lines + extra + own * np.eye(n)
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e25, np.zeros_like(theta)
        alpha = _solve(factor, values)
        inverse = _solve(factor, np.eye(n))
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        off = (theta - centre) / spread
        total = 0.5 * values @ alpha + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        slopes = np.zeros_like(theta)
        slopes[used] = -weights[used] * (distances @ (outer * product).ravel().astype(np.float32))
        each = agree @ outer.ravel().astype(np.float32)
        slopes[:dimensions] += -flat * shares * (each - shares @ each)  # the shares follow the Hamming relevances
        slopes[-4] = (outer * product).sum()
        slopes[-3] = (outer * mixed).sum()
        slopes[-2] = slope * (outer * lines).sum()
        slopes[-1] = own * np.trace(outer)
        return float(total), slopes + off / spread

    low, high = centre - 6, centre + 6
    found = minimize(
        cost, centre, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)), options={"maxiter": STEPS}
    )
    return Relevances(np.asarray(found.x), dimensions, traits)


def _prior(dimensions: int, traits: int) -> tuple[Floats, Floats]:
    """Centre and spread of the log relevances. Two random points are about 1 apart, however many dimensions."""
    many = max(1, dimensions)
    centre = np.concatenate(
        [
            np.full(dimensions, np.log(0.7 / many)),
            np.full(dimensions, np.log(1.0 / many)),
            np.full(traits, np.log(0.05)),
            np.log([0.6, 0.4, 0.05, 0.02]),
        ]
    )
    spread = np.concatenate([np.full(2 * dimensions + traits, 1.5), [1.0, 1.0, 1.5, 1.5]])
    return centre, spread


def _shares(weights: Floats, dimensions: int) -> Floats:
    own = weights[:dimensions]
    return own / own.sum()


def _kernel(theta: Floats, first: Inputs, second: Inputs) -> Floats:
    dimensions = first.codes.shape[1]
    weights = np.exp(theta[:-4])
    scale, flat, slope, _ = np.exp(theta[-4:])
    own = weights[:dimensions]
    # how often two points agree is a product of matrices with a column for each value of each dimension
    marks, others, column = _marked(first.codes, second.codes)
    agree = (marks * own[column]) @ others.T
    exponent = own.sum() - agree
    exponent += _squared(first.places, second.places, weights[dimensions : 2 * dimensions])
    exponent += _squared(first.traits, second.traits, weights[2 * dimensions :])
    mixed = flat * agree / own.sum()
    return scale * np.exp(-exponent) + mixed + slope * (first.traits @ second.traits.T)


def _marked(first: NDArray[np.int32], second: NDArray[np.int32]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(n, V) and (m, V) marks of the V values of all dimensions, and the dimension of each value."""
    both = np.concatenate([first, second]) + 1
    sizes = both.max(axis=0) + 1
    column = np.repeat(np.arange(both.shape[1]), sizes)
    starts = np.cumsum(sizes) - sizes
    marks = np.zeros((len(both), int(sizes.sum())))
    marks[np.arange(len(both))[:, None], both + starts] = 1.0
    return marks[: len(first)], marks[len(first) :], column


def _diagonal(theta: Floats, inputs: Inputs) -> Floats:
    scale, flat, slope, _ = np.exp(theta[-4:])
    return scale + flat + slope * np.einsum("ij,ij->i", inputs.traits, inputs.traits)


def _squared(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Weighted squared distances, (n, k) and (m, k) -> (n, m)."""
    root = np.sqrt(weights)
    a, b = first * root, second * root
    apart = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    return np.maximum(apart, 0)


def _solve(factor: Floats, right: Floats) -> Floats:
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right, check_finite=False))


def _forward(factor: Floats, right: Floats) -> Floats:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(factor, right, lower=True, check_finite=False))
