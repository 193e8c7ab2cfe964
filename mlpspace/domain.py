"""A domain: what a search may try. A space with its requirements is one, the rows of a recorded table another.

Samplers and the search know candidates through it and nothing else, so that what is claimed of a search on a table
holds for the same code on a space.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from mlpspace.architecture import Architecture
from mlpspace.counts import Profile, profile
from mlpspace.fixed_points import fixed_points
from mlpspace.measurement import Assignment
from mlpspace.objectives import Objective
from mlpspace.recipe import Recipe
from mlpspace.space.dims import Choice, Choose, Span, Value
from mlpspace.space.space import Candidate, NotInSpace, Space

Key: TypeAlias = tuple[str, str]
"""(architecture id, recipe): equal for all encodings of one network trained one way."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A network that is tried before the sampler is asked, such as a published one."""

    label: str
    architecture: Architecture
    point: Mapping[str, Value] | None  # None: it lies outside the space, so that a sampler can learn nothing from it


class Domain(Protocol):
    """What a search may try."""

    @property
    def name(self) -> str:
        """For messages: the file."""

    @property
    def objectives(self) -> tuple[Objective, ...]: ...

    @property
    def epochs(self) -> tuple[int, ...]:
        """The rungs, rising."""

    @property
    def keep(self) -> float:
        """The share that goes on after a rung."""

    @property
    def dimensions(self) -> Sequence[tuple[Choice | Span, str | None]]:
        """Every dimension once, with the condition under which it exists, or None."""

    def candidate(self, choose: Choose) -> Candidate:
        """What comes of choosing: `choose` is asked for each dimension that exists, given those before it."""

    def draw(self, rng: np.random.Generator) -> Candidate:
        """A random candidate that can be built; requirements are not looked at."""

    def refusal(self, candidate: Candidate) -> str | None:
        """Why it cannot be tried, a few words that are counted by; None if it can."""

    def key(self, candidate: Candidate) -> Key: ...

    def known(self, candidate: Candidate) -> Mapping[str, float]:
        """Metric -> value of what no device is needed for."""

    def traits(self, candidate: Candidate) -> Sequence[float]:
        """Numbers that a model may learn from besides the point itself, each on a scale where ratios are distances.
        As many for every candidate."""


class SearchDomain(Domain, Protocol):
    """What a search asks for beside what a sampler does."""

    def counts(self, architecture: Architecture) -> Profile: ...
    def measured_bounds(self) -> dict[str, tuple[float, float]]:
        """What a worker requires of a network before it trains it: metric -> (low, high)."""

    def default_recipe(self) -> Recipe: ...
    def enqueued(self) -> list[Enqueued]:
        """What is tried first."""

    def assignment(
        self, number: int, attempt: int, architecture: Architecture, recipe: Recipe, *, seed: int
    ) -> Assignment:
        """One trial as a worker needs it."""


class SpaceDomain:
    """The networks of a space."""

    def __init__(
        self,
        space: Space,
        *,
        data_path: str | None = None,
        checkpoint_s: float = 15.0,
        resident: int | None = None,
    ) -> None:
        """
        Args:
            data_path: where the dataset lives; None for an embedded one.
            checkpoint_s: wall time between two checkpoints of a training, about.
            resident: bytes of images that may lie on a worker's device; None: as `data.loading` says.
        """
        self.space = space
        self.name = space.path
        self.objectives = space.objectives
        self.epochs = space.fidelity.epochs
        self.keep = space.fidelity.keep
        self.dimensions = tuple(space.dimensions())
        self._data_path = data_path
        self._checkpoint_s = checkpoint_s
        self._resident = resident
        # asked again and again of the same candidates, thousands a suggestion
        self._counts = functools.lru_cache(maxsize=8192)(self._profile)
        self._recipe_text = functools.lru_cache(maxsize=256)(Recipe.to_json)

    def candidate(self, choose: Choose) -> Candidate:
        return self.space.candidate(choose)

    def draw(self, rng: np.random.Generator) -> Candidate:
        return self.space.draw(rng)

    def refusal(self, candidate: Candidate) -> str | None:
        if candidate.architecture.unfit(self.space.resolution):
            return "does not fit the resolution"
        return self.broken(candidate.architecture)

    def key(self, candidate: Candidate) -> Key:
        return candidate.architecture.id, self._recipe_text(candidate.recipe)

    def known(self, candidate: Candidate) -> Mapping[str, float]:
        counts = self.counts(candidate.architecture)
        return {"params": float(counts.params), "macs": float(counts.macs)}

    def traits(self, candidate: Candidate) -> Sequence[float]:
        counts = self.counts(candidate.architecture)
        depth = sum(stage.depth for stage in candidate.architecture.stages)
        told = (counts.params, counts.macs, counts.activations, counts.tokens, depth)
        return [math.log(max(1, number)) for number in told]

    # --- what only a search asks for ---

    def counts(self, architecture: Architecture) -> Profile:
        """Params, MACs, activations, tokens at the task's resolution."""
        return self._counts(architecture)

    def _profile(self, architecture: Architecture) -> Profile:
        return profile(architecture, self.space.resolution, self.space.classes)

    def broken(self, architecture: Architecture) -> str | None:
        """The first requirement that the counts break."""
        counts = self.counts(architecture)
        if max(counts.params, counts.macs, counts.activations) >= 2**63:
            return "too large to be counted in a database"
        told = {"params": counts.params, "macs": counts.macs, "tokens": counts.tokens}
        return self.space.require.broken(architecture, told)

    def measured_bounds(self) -> dict[str, tuple[float, float]]:
        """What a worker requires of a network before it trains it."""
        return self.space.require.measured()

    def default_recipe(self) -> Recipe:
        return self.space.default_recipe()

    def enqueued(self) -> list[Enqueued]:
        """The published networks, in the order of the file."""
        found = []
        for fixed in fixed_points(self.space, self.broken):
            try:
                point: Mapping[str, Value] | None = self.space.encode(fixed.architecture)
            except NotInSpace:
                point = None
            found.append(Enqueued(fixed.label, fixed.architecture, point))
        return found

    def assignment(
        self, number: int, attempt: int, architecture: Architecture, recipe: Recipe, *, seed: int
    ) -> Assignment:
        """One trial as a worker needs it."""
        fidelity = self.space.fidelity
        return Assignment(
            trial=number,
            attempt=attempt,
            architecture=architecture,
            recipe=recipe,
            resolution=self.space.resolution,
            classes=self.space.classes,
            dataset=fidelity.dataset,
            data_path=self._data_path,
            images=fidelity.images,
            validation=fidelity.validation,
            epochs=fidelity.epochs,
            seed=seed,
            deployment=self.space.deployment,
            timeout_s=fidelity.timeout_s,
            checkpoint_s=self._checkpoint_s,
            resident=self._resident,
        )
