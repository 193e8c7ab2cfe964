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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_TO_FIT = 250  # points that relevances are fitted on: the price of a step grows with their cube
STEPS = 40  # of the fit


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

    def __init__(self, inputs: Inputs, values: Floats, noise: Floats, relevances: Relevances | None = None) -> None:
        """
        Args:
            inputs: (n) points.
            values: (n,), standardised.
            noise: (n,) variances, beside the common one that is fitted.
            relevances: of an earlier fit; None: fitted here.
        """
        self.relevances = relevances or fit(inputs, values, noise)
        self._inputs = inputs
        theta = self.relevances.theta
        self._shift = float(np.mean(values)) if len(values) else 0.0
        own = np.exp(theta[-1]) + noise + 1e-6
        covariance = _kernel(theta, inputs, inputs) + np.diag(own)
        self._factor: Floats = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        self._alpha = _solve(self._factor, values - self._shift)
        self._own = own
        self._values = values

    def predict(self, inputs: Inputs) -> Posterior:
        """Mean and standard deviation of the noiseless value at new points."""
        theta = self.relevances.theta
        cross = _kernel(theta, inputs, self._inputs)
        mean = self._shift + cross @ self._alpha
        half = _forward(self._factor, cross.T)
        variance = _diagonal(theta, inputs) - np.einsum("ij,ij->j", half, half)
        return Posterior(mean, np.sqrt(np.maximum(variance, 1e-10)))

    def left_out(self) -> Posterior:
        """What it would say of each of its own points without that one (Rasmussen & Williams 2006, eq. 5.12)."""
        inverse = _solve(self._factor, np.eye(len(self._values)))
        spread = 1 / np.diag(inverse)
        return Posterior(self._values - self._alpha * spread, np.sqrt(spread))


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
    differ = [(inputs.codes[:, d, None] != inputs.codes[None, :, d]).astype(float) for d in range(dimensions)]
    squares = [(inputs.places[:, d, None] - inputs.places[None, :, d]) ** 2 for d in range(dimensions)]
    apart = [(inputs.traits[:, t, None] - inputs.traits[None, :, t]) ** 2 for t in range(traits)]
    distances = np.stack([*differ, *squares, *apart]).reshape(2 * dimensions + traits, -1)
    lines = inputs.traits @ inputs.traits.T if traits else np.zeros((len(inputs),) * 2)
    agree = np.stack(differ).reshape(dimensions, -1) if dimensions else np.zeros((0, len(inputs) ** 2))
    n = len(inputs)
    extra = np.diag(noise + 1e-6)

    def cost(theta: Floats) -> tuple[float, Floats]:
        weights = np.exp(theta[: 2 * dimensions + traits])
        scale, flat, slope, own = np.exp(theta[-4:])
        product = scale * np.exp(-(weights @ distances)).reshape(n, n)
        shares = _shares(weights, dimensions)
        mixed = flat * (1 - (shares @ agree).reshape(n, n)) if dimensions else np.zeros((n, n))
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
        slopes = np.empty_like(theta)
        slopes[: len(weights)] = -weights * (distances @ (outer * product).ravel())
        if dimensions:  # the shares follow the Hamming relevances
            each = agree @ outer.ravel()
            slopes[:dimensions] += -flat * shares * (each - shares @ each)
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
    dimensions, traits = first.codes.shape[1], first.traits.shape[1]
    weights = np.exp(theta[: 2 * dimensions + traits])
    scale, flat, slope, _ = np.exp(theta[-4:])
    exponent = np.zeros((len(first), len(second)))
    mixed = np.zeros((len(first), len(second)))
    shares = _shares(weights, dimensions) if dimensions else weights[:0]
    for d in range(dimensions):
        differ = first.codes[:, d, None] != second.codes[None, :, d]
        exponent += weights[d] * differ
        mixed += shares[d] * differ
    exponent += _squared(first.places, second.places, weights[dimensions : 2 * dimensions])
    exponent += _squared(first.traits, second.traits, weights[2 * dimensions :])
    return scale * np.exp(-exponent) + flat * (1 - mixed) + slope * (first.traits @ second.traits.T)


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
