"""What a sampler is: it sees all trials so far and says which candidate comes next, with the reason.

Anybody's sampler is a class with `suggest`; `mlpspace search FILE --sampler module:Class` takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlpspace.domain import Domain, Key
from mlpspace.objectives import Objective, costs
from mlpspace.space.space import Candidate


@dataclass(slots=True, kw_only=True)
class Observation:
    """One trial as a sampler sees it, at this moment. The search keeps it up to date."""

    number: int
    key: Key
    candidate: Candidate | None  # None: a fixed point outside the space
    state: str = "running"  # then "paused" at a rung, "complete", "stopped" at a rung or before any, "infeasible"
    known: dict[str, float] = field(default_factory=dict)  # metric -> value of what takes no training, once known
    accuracy: dict[int, float] = field(default_factory=dict)  # rung -> %
    reason: str | None = None  # of what is infeasible or stopped
    gain: float | None = None  # of hypervolume, expected when it was suggested; None: the sampler did not say
    disturbed: bool = False  # other programs used its device while its throughput was measured: it says little

    def costs(self, objectives: Sequence[Objective], rung: int) -> tuple[float, ...] | None:
        """At a rung, smaller is better; None while one of them is not known."""
        values: Mapping[str, float] = self.known
        if rung in self.accuracy:
            values = {**self.known, "accuracy": self.accuracy[rung]}
        if any(objective.metric not in values for objective in objectives):
            return None
        return costs(objectives, values)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A candidate with the reason why it was chosen, as a person reads it."""

    candidate: Candidate
    why: str  # "random start", "expected gain 0.012: accuracy 57.1 ± 1.8 %, ...; mutation of trial 12"
    gain: float | None = None  # of hypervolume, expected if it is trained; None: the sampler does not say


class Sampler:
    """Chooses candidates.

    `suggest` must be a function of the seed, the number, the draw and the observations: a search that was cut off
    builds its sampler anew, and goes on as if nothing had happened.
    """

    def __init__(self, domain: Domain, *, seed: int) -> None:
        self.domain = domain
        self.seed = seed

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        """The candidate for trial `number`.

        Args:
            draw: how many suggestions for this trial were refused before: known already, or breaking a requirement.
            seen: all trials so far by number, those that are running too.
        """
        raise NotImplementedError

    def suggest_several(self, number: int, draw: int, seen: Sequence[Observation], count: int) -> list[Suggestion]:
        """Candidates for trial `number` and up to count - 1 after it, no two the same: the first as `suggest` gives
        it, each other as if those before it were being trained.

        For workers that are idle before one candidate more can be thought of. A sampler that finds others at little
        cost gives them; this one gives the first alone.
        """
        return [self.suggest(number, draw, seen)]

    def worth(self, trial: Observation, seen: Sequence[Observation]) -> str | None:
        """Why a running trial shall not be trained, now that its cheap objectives were measured; None: train it."""
        return None
