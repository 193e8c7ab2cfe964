"""Where the new trials of a search come from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from mlpspace.ahead import Ahead, Drawn
from mlpspace.domain import Enqueued, Key, SearchDomain
from mlpspace.outlets import Writer
from mlpspace.results import Running
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.space.space import Candidate

MOST_DRAWS = 10_000  # refused in a row before a search gives up
SAMPLER_DRAWS = 32  # of the sampler for one trial; when all of them are refused, random ones go on
TAKEN = "already a trial"


class Candidates:
    """The published networks first, then what the sampler suggests; never a network that is a trial already.

    Args:
        writer: hears how many suggestions were refused, and why.
    """

    def __init__(self, domain: SearchDomain, sampler: Sampler, writer: Writer, *, seed: int) -> None:
        self.exhausted: str | None = None  # why nothing is left to draw
        self._domain, self._sampler, self._writer, self._seed = domain, sampler, writer, seed
        self._taken: set[Key] = set()
        self._enqueued: list[Enqueued] = []

    def take(self, key: Key) -> None:
        """This network is a trial."""
        self._taken.add(key)

    def release(self, key: Key) -> None:
        """It was set aside, and may be chosen again."""
        self._taken.discard(key)

    def enqueue(self, labels: Collection[str | None]) -> None:
        """What the domain wants to have tried first, and is no trial.

        Args:
            labels: of all trials; by them too: what a published network is may have been put right since they began.
        """
        recipe = self._domain.default_recipe().to_json()
        self._enqueued = [
            each
            for each in self._domain.enqueued()
            if (each.architecture.id, recipe) not in self._taken and each.label not in labels
        ]

    def prepare(self, number: int, results: int, seen_now: Callable[[], Sequence[Observation]], ahead: Ahead) -> None:
        """Have trial `number` drawn in a thread, unless that is under way, or done with most that is known by now.

        Args:
            results: how many there are.
            seen_now: all trials, for another thread.
        """
        if not self._enqueued and ahead.wants(results):
            seen, count = seen_now(), ahead.candidates
            ahead.draw(results, lambda: self._drawn(number, seen, count, lambda: ahead.ended))

    def next(self, number: int, seen: Sequence[Observation], ahead: Ahead | None) -> Running | None:
        """Trial `number`; None: it is still being drawn, or nothing is left (see `exhausted`)."""
        if self._enqueued:
            return self._published(number, self._enqueued.pop(0))
        while True:
            drawn = self._drawn(number, seen) if ahead is None else ahead.take()
            if drawn is None:
                return None
            for reason, count in drawn.refused.items():
                self._writer.refuse(reason, count)
            if drawn.found is None:
                self._writer.sync()  # there may be nothing else to write
                self.exhausted = self._nothing_left(drawn)
                return None
            if not self._is_taken(drawn.found.candidate):  # since it was drawn
                return self._chosen(number, drawn.found)

    def _drawn(
        self, number: int, seen: Sequence[Observation], count: int = 1, ended: Callable[[], bool] = lambda: False
    ) -> Drawn:
        """Changes nothing, so that any thread may call it; broken off once it `ended`."""
        refused: Counter[str] = Counter()
        smallest = math.inf
        for draw in range(MOST_DRAWS):
            if ended():
                break
            found, *more = self._draw(number, draw, seen, count)
            reason = self._refusal(found.candidate)
            if reason is None:
                others = tuple(each for each in more if self._refusal(each.candidate) is None)
                return Drawn(found, refused, smallest, others)
            if reason != TAKEN:
                smallest = min(smallest, self._domain.known(found.candidate).get("macs", math.inf))
            refused[reason] += 1
        return Drawn(None, refused, smallest)

    def _draw(self, number: int, draw: int, seen: Sequence[Observation], count: int) -> list[Suggestion]:
        if draw < SAMPLER_DRAWS:
            return self._sampler.suggest_several(number, draw, seen, count)
        rng = np.random.default_rng([self._seed, number, draw])
        why = f"random: {SAMPLER_DRAWS} draws of the sampler were known already or broke a requirement"
        return [Suggestion(self._domain.draw(rng), why)]

    def _refusal(self, candidate: Candidate) -> str | None:
        return TAKEN if self._is_taken(candidate) else self._domain.refusal(candidate)

    def _is_taken(self, candidate: Candidate) -> bool:
        return self._domain.key(candidate) in self._taken

    def _nothing_left(self, drawn: Drawn) -> str:
        told = "; ".join(f"{reason} {count:,}" for reason, count in drawn.refused.most_common())
        text = f"No draw out of {MOST_DRAWS:,} from {self._domain.name} is a new network that meets the requirements.\n"
        text += f"  Refused: {told}."
        if drawn.refused[TAKEN] > MOST_DRAWS // 2:
            text += "\n  The space is searched to its end, or nearly so."
        elif drawn.smallest < math.inf:
            text += f"\n  The smallest network drawn needs {drawn.smallest:,.0f} macs."
            text += " Widen the requirements or the space."
        return text

    def _published(self, number: int, fixed: Enqueued) -> Running:
        network = Candidate(dict(fixed.point or {}), fixed.architecture, self._domain.default_recipe())
        seen = self._observed(number, network, inside=fixed.point is not None)
        return self._running(network, seen, "fixed point", fixed.label, "fixed point: named in the file")

    def _chosen(self, number: int, suggestion: Suggestion) -> Running:
        seen = self._observed(number, suggestion.candidate, inside=True)
        seen.gain = suggestion.gain
        return self._running(suggestion.candidate, seen, "sampler", None, suggestion.why)

    def _observed(self, number: int, network: Candidate, *, inside: bool) -> Observation:
        """
        Args:
            inside: the space, so that a sampler can learn from it.
        """
        counts = self._domain.counts(network.architecture)
        known = {"params": float(counts.params), "macs": float(counts.macs)}
        key = self._domain.key(network)
        if not inside:
            return Observation(number=number, key=key, candidate=None, known=known)
        return Observation(number=number, key=key, candidate=network, known={**known, **self._domain.known(network)})

    def _running(self, network: Candidate, seen: Observation, origin: str, label: str | None, why: str) -> Running:
        architecture, seed = network.architecture, seed_of(self._seed, seen.number)
        assignment = self._domain.assignment(seen.number, 1, architecture, network.recipe, seed=seed)
        return Running(assignment, origin, label, self._domain.counts(architecture), seen, why)


def seed_of(*entropy: int) -> int:
    """The seed of a training.

    Args:
        entropy: the search's seed, the trial, and of one that is trained anew the repeat.
    """
    return int(np.random.SeedSequence(list(entropy)).generate_state(1)[0] >> 1)
