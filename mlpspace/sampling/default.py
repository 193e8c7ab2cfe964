"""The default sampler: train the candidate that is expected to add most hypervolume.

Only the accuracy takes training; what else is an objective is known of any candidate by arithmetic, or by a device in a
second. So a suggestion draws a pool of candidates, mutates and crosses the best of them, takes the costs of all, asks
a Gaussian process for the accuracy of each, with its uncertainty, and gives the one with the largest expected gain
(`expected_gain`). What a device measures is predicted until it was, with the error of the prediction in the
expectation; `worth` then asks again with the measured value, before anything is trained.

Each suggestion is a function of the seed, the trial's number and the observations, so that a search which was cut off
goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpspace.domain import Domain, Key
from mlpspace.pareto import Floats
from mlpspace.sampling.base import Observation, Sampler, Suggestion
from mlpspace.sampling.encoder import Encoder
from mlpspace.sampling.model import Model
from mlpspace.sampling.moves import cross, mutate
from mlpspace.space.space import Candidate

START = 12  # trials chosen without a model, spread over the cheap objective
RANDOM = 300  # random candidates of a pool
ROUNDS = 3  # of evolution
BRED = 240  # new candidates of a round
RECONSIDERED = 50  # of a pool, for the second suggestion and those after it
LEAST = 0.2  # share of the expected gain that must be left once the costs were measured


@dataclass(frozen=True, slots=True)
class _Bred:
    """A candidate of the pool, and where it comes from."""

    candidate: Candidate
    origin: str


class Default(Sampler):
    """See the module."""

    def __init__(self, domain: Domain, *, seed: int) -> None:
        super().__init__(domain, seed=seed)
        self._encoder = Encoder(domain)
        self._blas: Any = None
        self._cheap = [objective for objective in domain.objectives if objective.metric != "accuracy"]

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        return self.suggest_several(number, draw, seen, 1)[0]

    def suggest_several(self, number: int, draw: int, seen: Sequence[Observation], count: int) -> list[Suggestion]:
        """One model and one pool for all of them: beside the first, each other costs a few percent of it."""
        # one that was set aside after it was measured is known but not trained: it may be chosen again
        taken = {trial.key for trial in seen if trial.accuracy or trial.state != "stopped"}
        with self._one_thread():
            if len(seen) < START or _taught(seen) < 4:
                return self._starts(number, draw, len(seen), taken, count)
            rng = np.random.default_rng([self.seed, number, draw])
            model = Model(self.domain, self._encoder, seen)
            pool = self._pool(model, taken, rng)
            if pool is None:
                return [Suggestion(self.domain.draw(rng), "random: all that was bred is known already")]
            return _best(model, *pool, count)

    def worth(self, trial: Observation, seen: Sequence[Observation]) -> str | None:
        """Whether its measured costs leave enough of the gain that it was chosen for."""
        if trial.gain is None or trial.candidate is None or trial.disturbed or _taught(seen) < 4:
            return None
        known = self.domain.known(trial.candidate)
        if all(objective.metric in known for objective in self._cheap):
            return None  # nothing was measured that was not known
        others = [each for each in seen if each.number != trial.number]
        with self._one_thread():
            model = Model(self.domain, self._encoder, [*others, dataclasses.replace(trial, state="stopped")])
            gain = float(model.gain([trial.candidate])[0])
        if gain >= LEAST * trial.gain:
            return None
        told = ", ".join(f"{each.metric} {trial.known[each.metric]:.4g}" for each in self._cheap)
        return f"measured {told}: it would gain {gain:.2g}, not {trial.gain:.2g}"

    def _one_thread(self) -> Any:
        """The driver leaves the cores to the workers; on small matrices a second thread is no help anyway."""
        if self._blas is None:
            import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which is to be found here
            from threadpoolctl import ThreadpoolController

            self._blas = ThreadpoolController()
        return self._blas.limit(limits=1, user_api="blas")

    # --- without a model ---

    def _starts(self, number: int, draw: int, started: int, taken: set[Key], count: int) -> list[Suggestion]:
        """As if each had been asked for by itself; none beyond those that are chosen without a model."""
        found = []
        for more in range(max(1, min(count, START - started))):
            rng = np.random.default_rng([self.seed, number + more, draw])
            found.append(self._start(started + more, taken, rng))
            taken = taken | {self.domain.key(found[-1].candidate)}
        return found

    def _start(self, started: int, taken: set[Key], rng: np.random.Generator) -> Suggestion:
        """A random candidate from its share of the cheap objective's range, so that a few cover all of it."""
        pool = [bred.candidate for bred in self._random(64, taken, rng)]
        if not pool:
            return Suggestion(self.domain.draw(rng), "random start")
        traits = np.array([self.domain.traits(candidate) for candidate in pool])
        known = [self.domain.known(candidate) for candidate in pool]
        named = [objective.metric for objective in self._cheap if objective.metric in known[0]]
        scale = np.array([each[named[0]] for each in known]) if named else traits[:, min(1, traits.shape[1] - 1)]
        ranked = np.argsort(scale, kind="stable")
        place = _halving(started + 1) * len(pool)
        return Suggestion(pool[ranked[int(place)]], "random start, spread over the cost")

    # --- with one ---

    def _pool(self, model: Model, taken: set[Key], rng: np.random.Generator) -> tuple[list[_Bred], Floats] | None:
        """Candidates with their expected gains: random ones, and generations bred from the best."""
        fresh = _Fresh(self.domain, taken)
        bred = self._random(RANDOM, taken, rng, fresh)
        parents = model.parents()
        bred += _breed(self.domain, parents, BRED, rng, fresh)
        if not bred:
            return None
        gain = model.gain([each.candidate for each in bred])
        for _ in range(ROUNDS - 1):
            top = np.argsort(-gain, kind="stable")[:12]
            elders = [(bred[i].candidate, bred[i].origin) for i in top]
            young = _breed(self.domain, elders, BRED, rng, fresh)
            if not young:
                break
            their_gain = model.gain([each.candidate for each in young])
            bred, gain = bred + young, np.concatenate([gain, their_gain])
        return bred, gain

    def _random(
        self, count: int, taken: set[Key], rng: np.random.Generator, fresh: _Fresh | None = None
    ) -> list[_Bred]:
        fresh = fresh or _Fresh(self.domain, taken)
        found = []
        for _ in range(3 * count):
            candidate = self.domain.draw(rng)
            if fresh.takes(candidate):
                found.append(_Bred(candidate, "drawn at random"))
                if len(found) == count:
                    break
        return found


def _best(model: Model, bred: list[_Bred], gain: Floats, count: int) -> list[Suggestion]:
    """The candidate with the largest gain, and those that have it next, if it is being trained, and so on."""
    found: list[Suggestion] = []
    left = np.argsort(-gain, kind="stable")[: RECONSIDERED + count]
    gain = gain[left]
    while True:
        best = int(np.argmax(gain))
        chosen = bred[left[best]]
        why = f"expected gain {gain[best]:.3g}: {model.words(chosen.candidate)}; {chosen.origin}"
        found.append(Suggestion(chosen.candidate, why, float(gain[best])))
        left = np.delete(left, best)
        if len(found) == count or not len(left):
            return found
        model.believe(chosen.candidate)
        gain = model.gain([bred[i].candidate for i in left])


def _taught(seen: Sequence[Observation]) -> int:
    """How many trials say something of accuracy."""
    return sum(bool(t.accuracy) and t.state != "infeasible" for t in seen if t.candidate is not None)


class _Fresh:
    """Which candidates of a pool are new: to the pool, and to the study."""

    def __init__(self, domain: Domain, taken: set[Key]) -> None:
        self._domain = domain
        self._taken = set(taken)
        self._points: set[frozenset[tuple[str, object]]] = set()

    def takes(self, candidate: Candidate) -> bool:
        point = frozenset(candidate.point.items())
        if point in self._points:
            return False
        self._points.add(point)
        if self._domain.refusal(candidate) is not None:
            return False
        key = self._domain.key(candidate)  # last, as it is the dearest of these
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


def _breed(
    domain: Domain, parents: Sequence[tuple[Candidate, str]], count: int, rng: np.random.Generator, fresh: _Fresh
) -> list[_Bred]:
    """Mutations of parents, and every fourth a cross of two."""
    found = []
    for i in range(2 * count):
        candidate, origin = parents[int(rng.integers(len(parents)))]
        if i % 4 == 3 and len(parents) > 1:
            other, _ = parents[int(rng.integers(len(parents)))]
            candidate = cross(domain, candidate.point, other.point, rng)
        else:
            candidate = mutate(domain, candidate.point, rng)
        if fresh.takes(candidate):
            found.append(_Bred(candidate, origin))
            if len(found) == count:
                break
    return found


def _halving(number: int) -> float:
    """The van der Corput sequence: 1/2, 1/4, 3/4, 1/8, ... in 0..1, each start of it evenly spread."""
    place, share = 0.0, 0.5
    while number:
        place += share * (number & 1)
        number >>= 1
        share /= 2
    return place
