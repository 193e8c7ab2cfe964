"""Networks of a front whose throughputs cannot be told apart: who is measured again, and what comes of it.

Each further measurement is made in a process of its own, so that what varies from process to process averages out, too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from mlpspace.measurement import Z95, Measurement
from mlpspace.references import timed_alike

MOST = 5  # measurements of one network; two that are still not apart then are equally fast for any purpose


def due(front: Sequence[int], measured: Mapping[int, Sequence[Measurement]]) -> int | None:
    """The network that is to be measured next, or None: all stand apart, or were measured often enough.

    Of two neighbours in speed whose 95 % intervals overlap, the one that was measured less often. Neighbours are
    throughputs that compare: on one device, in one way.

    Args:
        front: numbers of the networks on it.
        measured: number -> its throughputs, all in one way. Disturbed ones are not waited for.
    """
    known = [number for number in front if measured.get(number) and not measured[number][0].disturbed]
    best = {number: combined(measured[number]) for number in known}
    ways = {number: timed_alike(best[number]) for number in known}
    by_speed = [
        sorted((number for number in known if ways[number] == way), key=lambda number: (best[number].value, number))
        for way in dict.fromkeys(ways.values())
    ]
    unsure = [
        number
        for slower, faster in itertools.chain.from_iterable(map(itertools.pairwise, by_speed))
        if best[slower].high >= best[faster].low
        for number in (slower, faster)
        if len(measured[number]) < MOST
    ]
    return min(unsure, key=lambda number: (len(measured[number]), number), default=None)


def combined(measurements: Sequence[Measurement]) -> Measurement:
    """Several measurements of one network, each from a process of its own, as one.

    The mean of the logarithms, each weighted by the inverse of its variance; the interval of such a mean, wider by the
    Birge ratio where they differ by more than their own intervals allow (Birge, The Calculation of Errors by the Method
    of Least Squares, Physical Review 40, 207, 1932). One that other programs disturbed says nothing beside the others.
    """
    calm = [each for each in measurements if not each.disturbed] or list(measurements[:1])
    if len(calm) == 1:
        return calm[0]
    logs = [math.log(each.value) for each in calm]
    weights = [(2 * Z95 / math.log(each.high / each.low)) ** 2 for each in calm]  # a standard error's inverse square
    total = sum(weights)
    middle = sum(weight * log for weight, log in zip(weights, logs, strict=True)) / total
    chi_square = sum(weight * (log - middle) ** 2 for weight, log in zip(weights, logs, strict=True))
    birge = math.sqrt(chi_square / (len(calm) - 1))
    half = Z95 * total**-0.5 * max(1.0, birge)
    return dataclasses.replace(
        calm[0],
        value=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        seconds=sum(each.seconds for each in calm),
    )
