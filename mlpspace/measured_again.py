"""Networks of a front whose throughputs cannot be told apart: who is measured again, and what comes of it.

Each further measurement is made in a process of its own, so that what varies from process to process averages out, too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from mlpspace.measurement import Measurement

MOST = 5  # measurements of one network; two that are still not apart then are equally fast for any purpose


def due(front: Sequence[int], measured: Mapping[int, Sequence[Measurement]]) -> int | None:
    """The network that is to be measured next, or None: all stand apart, or were measured often enough.

    Of two neighbours in speed whose 95 % intervals overlap, the one that was measured less often.

    Args:
        front: numbers of the networks on it.
        measured: number -> its throughputs, all of one kind. Disturbed ones are not waited for.
    """
    known = [number for number in front if measured.get(number) and not measured[number][0].disturbed]
    best = {number: combined(measured[number]) for number in known}
    by_speed = sorted(known, key=lambda number: (best[number].value, number))
    unsure = [
        number
        for slower, faster in itertools.pairwise(by_speed)
        if best[slower].high >= best[faster].low
        for number in (slower, faster)
        if len(measured[number]) < MOST
    ]
    return min(unsure, key=lambda number: (len(measured[number]), number), default=None)


def combined(measurements: Sequence[Measurement]) -> Measurement:
    """Several measurements of one network, each from a process of its own, as one.

    The mean of the logarithms, each weighted by the inverse of its variance; the interval of such a mean. One that
    other programs disturbed says nothing beside the others.
    """
    calm = [each for each in measurements if not each.disturbed] or list(measurements[:1])
    if len(calm) == 1:
        return calm[0]
    weights = [math.log(each.high / each.low) ** -2 for each in calm]
    total = sum(weights)
    middle = sum(weight * math.log(each.value) for weight, each in zip(weights, calm, strict=True)) / total
    half = 0.5 * total**-0.5
    return dataclasses.replace(
        calm[0],
        value=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        seconds=sum(each.seconds for each in calm),
    )
