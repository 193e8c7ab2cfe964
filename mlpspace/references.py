"""One scale for all throughputs of a study on one kind of device.

A throughput is a quotient to the reference network, times that network's images/s as this machine was calibrated. Two
machines of one kind, or one that was calibrated twice, have found slightly different ones: a study keeps to its first.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from mlpspace.measurement import DISTURBED, Measurement

M = TypeVar("M", bound=Measurement)


def timed_alike(measured: Measurement) -> tuple[object, ...]:
    """What two throughputs share that are on one scale; whether other programs disturbed one of them is apart."""
    protocol = measured.protocol.removesuffix(DISTURBED)
    return measured.device, measured.batch, measured.precision, measured.threads_that_count, protocol


class References:
    """Images/s of the reference network that a study's throughputs are scaled to, for each kind of measurement."""

    def __init__(self) -> None:
        self._first: dict[tuple[object, ...], float] = {}

    def scaled(self, measured: M) -> M:
        """The measurement on the study's scale, which the first one sets."""
        if measured.reference is None or measured.disturbed:  # that one's scale is of no use to others
            return measured
        first = self._first.setdefault(timed_alike(measured), measured.reference)
        if first == measured.reference:
            return measured
        factor = first / measured.reference
        low, value, high = (factor * number for number in (measured.low, measured.value, measured.high))
        return dataclasses.replace(measured, low=low, value=value, high=high, reference=first)
