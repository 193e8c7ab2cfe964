"""What is trained, or measured, again of the front once the trials are done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Set
from typing import Any

import numpy as np

from mlpspace import measured_again
from mlpspace.domain import SearchDomain
from mlpspace.measurement import Measurement
from mlpspace.outlets import Writer
from mlpspace.recalled import Finished
from mlpspace.references import timed_alike
from mlpspace.results import Result, Running
from mlpspace.search.candidates import seed_of
from mlpspace.search.knowledge import Ended, Knowledge
from mlpspace.trial import Trial


class Repeats:
    """Complete trials, and what was done of them again.

    The accuracy of a trial is the mean of its trainings, its throughput what all its measurements say together. One
    that was found in another way than the first (device, batch, precision, protocol, a CPU's threads) counts as none.

    Args:
        trainings: anew, with other seeds, of each network on the front.
        seed: of the search.
    """

    def __init__(self, domain: SearchDomain, known: Knowledge, writer: Writer, *, trainings: int, seed: int) -> None:
        self._domain, self._known, self._writer = domain, known, writer
        self._wanted, self._seed = trainings, seed
        self._last = len(domain.epochs) - 1
        self._has_throughput = any(objective.metric == "throughput" for objective in domain.objectives)
        self._finished: dict[int, Finished] = {}
        self._trainings: dict[int, dict[int, float]] = {}  # trial -> repeat -> accuracy; 0 for its own
        self._speeds: dict[int, list[Measurement]] = {}  # the first one, and those that were made again
        self._calm = False  # whether any was measured while other programs left the device alone
        self._disturbed: dict[int, None] = {}  # those that were not, and were not measured again
        self._no_training: set[int] = set()  # that failed when they were trained anew
        self._no_measurement: set[int] = set()  # that failed when they were measured again

    @property
    def complete(self) -> Set[int]:
        """The trials that this may be done with."""
        return self._finished.keys()

    @property
    def trained_anew(self) -> Set[int]:
        """Those that were trained more than once."""
        return self._trainings.keys()

    def add(self, ended: Ended) -> None:
        """A trial is complete."""
        number, speed = ended.seen.number, ended.values.get("throughput")
        self._finished[number] = ended.finished
        if speed is not None and speed.reference is not None:
            self._speeds[number] = [speed]
            self._note(number)

    def recall(self, trial: Trial) -> None:
        """What earlier sessions did again of a complete trial."""
        number = trial.number
        if trial.repeat_failed is not None:
            self._no_training.add(number)
        repeated = [record for record in trial.records if record.repeat]
        if not repeated:
            return
        for record in trial.repeats:
            self._trainings_of(number)[record.repeat] = record.value
        if number in self._trainings:
            self._take_mean(number)
        speeds: list[Measurement] = [record for record in repeated if record.metric == "throughput"]
        if len(speeds) > 1 and number in self._speeds:
            alike = [speed for speed in speeds if timed_alike(speed) == timed_alike(speeds[0])]
            if len(alike) < len(speeds):  # an earlier version took them together: the next one's place is taken
                self._no_measurement.add(number)
            self._speeds[number] = alike
            self._note(number)
            self._take_combined(number)

    def _note(self, number: int) -> None:
        """The throughputs of a trial are others now."""
        speeds = self._speeds[number]
        self._disturbed.pop(number, None)
        if not all(speed.disturbed for speed in speeds):
            self._calm = True
        elif len(speeds) == 1:
            self._disturbed[number] = None

    # --- what is due ---

    def is_due(self, at_work: Set[int]) -> bool:
        """Whether anything is; but for the trials that are at work."""
        return self._to_train(at_work) is not None or self._to_measure(at_work) is not None

    def training(self, at_work: Set[int]) -> Running | None:
        """A network of the front, to be trained anew with another seed."""
        number = self._to_train(at_work)
        if number is None:
            return None
        repeat = max(self._trainings.get(number, (0,))) + 1
        return self._again(number, repeat=repeat, seed=seed_of(self._seed, number, repeat), deployment=None)

    def measurement(self, at_work: Set[int]) -> Running | None:
        """What is to be measured again, if anything.

        First, once each, those that other programs disturbed while others were measured alone: they compare with none
        of these. Where all are disturbed they compare with one another, and a machine that is never left alone is not
        asked again and again. Then a network of the front that is as fast as another one, for all that is known.
        """
        number = self._to_measure(at_work)
        return None if number is None else self._again(number, repeat=len(self._speeds[number]) + 1, remeasure=True)

    def _to_train(self, at_work: Set[int]) -> int | None:
        if not self._wanted:
            return None
        front = self._front(self._no_training | at_work)
        return next((number for number in front if len(self._trainings.get(number, (0,))) <= self._wanted), None)

    def _to_measure(self, at_work: Set[int]) -> int | None:
        if not self._has_throughput:
            return None
        left_out = self._no_measurement | at_work
        if self._calm:
            apart = next((number for number in self._disturbed if number not in left_out), None)
            if apart is not None:
                return apart
        return measured_again.due(self._front(left_out), self._speeds)

    def _front(self, left_out: Set[int]) -> list[int]:
        return [result.number for result in self._known.leaders.front() if result.number not in left_out]

    def _again(self, number: int, **changes: Any) -> Running:
        return self._finished[number].again(self._domain, self._known.seen[number], **changes)

    # --- what comes of it ---

    def take(self, running: Running, measured: Measurement) -> None:
        """A worker has measured something; of a training that is written already."""
        told = running.assignment
        if not told.remeasure:
            if measured.rung == self._last:
                self._trainings_of(told.trial)[told.repeat] = measured.value
            return
        speeds = self._speeds[told.trial]
        if timed_alike(measured) != timed_alike(speeds[0]):  # on another node's GPU, say: see `end`
            return
        if len(speeds) == 1:  # the first is kept as it was found
            self._writer.record(dataclasses.replace(told, repeat=1), speeds[0])
        speeds.append(measured)
        self._note(told.trial)
        self._writer.record(told, measured)
        self._writer.record(dataclasses.replace(told, repeat=0), self._take_combined(told.trial))

    def end(self, running: Running, reason: str | None) -> Result:
        """It is done, or failed for a `reason`; what there is to tell of the trial now."""
        told, known = running.assignment, self._known
        number, repeat = told.trial, told.repeat
        if told.remeasure:
            times = len(self._speeds[number])
            if times < repeat:
                self._no_measurement.add(number)
            result = dataclasses.replace(known.results[number], reason=reason, measurements=times)
        elif repeat in self._trainings.get(number, ()):
            self._take_mean(number)
            result = dataclasses.replace(known.results[number], repeat=repeat)
        else:
            self.give_up(number, reason or "error")
            return dataclasses.replace(known.results[number], reason=reason, repeat=repeat)
        return dataclasses.replace(result, seconds=running.seconds)

    def give_up(self, number: int, reason: str) -> bool:
        """A trial is not to be trained anew; whether it would have been."""
        if not self._wanted or number not in self._finished or number in self._no_training:
            return False
        self._no_training.add(number)
        self._writer.repeat_failed(number, reason)
        return True

    def _trainings_of(self, number: int) -> dict[int, float]:
        """Before the first one anew, the accuracy of a trial is that of its own."""
        own = {0: self._known.results[number].values.get("accuracy", math.nan)}
        return self._trainings.setdefault(number, own)

    def _take_mean(self, number: int) -> None:
        self._known.revise(number, "accuracy", float(np.mean(list(self._trainings[number].values()))))

    def _take_combined(self, number: int) -> Measurement:
        found = measured_again.combined(self._speeds[number])
        self._known.revise(number, "throughput", found.value, disturbed=found.disturbed)
        return found
