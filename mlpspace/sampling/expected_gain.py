"""The hypervolume that a network is expected to add, where all of its costs but one are known.

One objective (the accuracy) is uncertain and normal, the others are numbers. Then what a network adds is an integral
in one variable, and its expectation has a closed form: with t the uncertain cost and g(t) the volume, over the known
costs, between the network and the corner that no network with an uncertain cost of at most t has,

    E[gain] = integral of g(t) P(cost < t) dt up to the corner,

and g is a staircase with a step at each network of the front. n candidates, f networks on the front, m objectives.
"""

from __future__ import annotations

import numpy as np

from mlpspace.pareto import Floats, hypervolume, pareto_front


def expected_gain(mean: Floats, sd: Floats, known: Floats, front: Floats, corner: Floats) -> Floats:
    """Expected gain of hypervolume.

    Args:
        mean, sd: (n,) of the uncertain cost.
        known: (n, m - 1) the other costs.
        front: (f, m) costs so far, the uncertain objective first; it may hold dominated rows.
        corner: (m,) the worst corner, the uncertain objective first.

    Returns:
        (n,) volumes.
    """
    inside = front[np.all(front < corner, axis=1)] if len(front) else front.reshape(0, len(corner))
    inside = inside[pareto_front(inside)] if len(inside) else inside
    inside = inside[np.argsort(inside[:, 0])]
    ends = np.append(inside[:, 0], corner[0])
    # the integral of P(cost < t) up to each end of a step: sd psi((t - mean) / sd)
    reach = _psi(ends[None, :], mean[:, None], sd[:, None])
    gain = np.zeros(len(mean))
    before = np.zeros(len(mean))
    for step, upto in enumerate(reach.T):
        gain += (upto - before) * _uncovered(known, inside[:step, 1:], corner[1:])
        before = upto
    return gain


def _psi(t: Floats, mean: Floats, sd: Floats) -> Floats:
    """The integral of P(cost < s) over s up to t, for a normal cost: E[max(0, t - cost)]."""
    from scipy.special import ndtr

    z = (t - mean) / sd
    return np.asarray(sd * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


def _uncovered(known: Floats, taken: Floats, corner: Floats) -> Floats:
    """(n, k), (f, k), (k,) -> (n,): the volume between each row and the corner that no row of `taken` dominates."""
    k = len(corner)
    room = np.maximum(corner - known, 0.0)
    if k == 0:
        return np.zeros(len(known)) if len(taken) else np.ones(len(known))
    if k == 1:
        best = min(corner[0], taken[:, 0].min()) if len(taken) else corner[0]
        return np.asarray(np.maximum(best - known[:, 0], 0.0))
    if k == 2:
        # a staircase of those taken, cut off at each row's own box
        stairs = taken[pareto_front(taken)] if len(taken) else taken
        stairs = stairs[np.argsort(stairs[:, 0])]
        edges = np.append(stairs[:, 0], corner[0])
        heights = np.concatenate([[corner[1]], stairs[:, 1]])  # below which nothing is taken, from edge to edge
        left = np.concatenate([[-np.inf], edges[:-1]])
        width = np.maximum(edges[None, :] - np.maximum(left[None, :], known[:, :1]), 0.0)
        height = np.maximum(np.minimum(heights[None, :], corner[1]) - known[:, 1:], 0.0)
        return np.asarray((width * height).sum(1))
    volumes = room.prod(1)
    for i, row in enumerate(known):
        if volumes[i] > 0 and len(taken):
            volumes[i] -= hypervolume(np.maximum(taken, row), corner)
    return np.asarray(np.maximum(volumes, 0.0))
