"""A space: every network a space file allows, with what is required of them and what is sought.

point        -> decode -> Architecture          (flat names and values, as a sampler draws them)
Architecture -> encode -> point, or the reason why it lies outside
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mlpspace.architecture import Architecture
from mlpspace.errors import ArchitectureError, SpaceError
from mlpspace.objectives import Deployment, Objective
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.space.dims import Choice, Choose, Dim, Fixed, Span, Value, contains, resolve, size, word
from mlpspace.space.encoding import NotInSpace, Point, encode_layout
from mlpspace.space.layout import LayoutPlaces
from mlpspace.space.layout_count import count_layout
from mlpspace.space.readings import layout_readings, reading

__all__ = [
    "Bound",
    "Candidate",
    "Fidelity",
    "FixedPoints",
    "NotInSpace",
    "Point",
    "PointCount",
    "Require",
    "Space",
    "Stop",
]

TRIES = 20_000  # some seconds, until a draw is given up


@dataclass(frozen=True, slots=True)
class Bound:
    """A closed range that a number of the network must lie in."""

    metric: str  # params, macs, tokens, throughput or peak_memory_mb
    low: float
    high: float
    text: str  # as the file says it: "params ..10M"


@dataclass(frozen=True, slots=True)
class Require:
    """What every network that is trained must meet."""

    bounds: tuple[Bound, ...] = ()
    non_decreasing_width: bool = False

    def broken(self, architecture: Architecture, counts: Mapping[str, float]) -> str | None:
        """The first requirement that `counts` (or the widths) break, as the file says it; None if they meet all.

        Metrics that `counts` lacks are not judged: throughput is known only after it was measured.
        """
        widths = [stage.width for stage in architecture.stages]
        if self.non_decreasing_width and any(a > b for a, b in itertools.pairwise(widths)):
            return "width non-decreasing"
        for bound in self.bounds:
            value = counts.get(bound.metric)
            if value is not None and not bound.low <= value <= bound.high:
                return bound.text
        return None

    def measured(self) -> dict[str, tuple[float, float]]:
        """Metric -> (low, high) for what only a device can tell."""
        return {b.metric: (b.low, b.high) for b in self.bounds if b.metric in ("throughput", "peak_memory_mb")}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How a proxy is trained and judged; the recipe's places are dimensions of the space."""

    dataset: str
    images: int | None  # training images used; None: all
    validation: float  # share of the training set
    epochs: tuple[int, ...]  # the rungs
    keep: float  # share that goes on after a rung
    recipe: dict[str, Dim]  # by field name; those of the augmentation as "augmentation.shift"
    repeats_on_front: int = 0  # trainings anew, each with another seed, of what is on the front
    timeout_s: float | None = None  # wall time that one training may take


@dataclass(frozen=True, slots=True)
class Stop:
    """When a search has nothing more to expect: the hypervolume grew by less than `gain` over so many trials."""

    patience: int  # trials
    gain: float  # share of the hypervolume, 0.005 for 0.5 %


@dataclass(frozen=True, slots=True)
class FixedPoints:
    """Which published networks take part, and how they meet the task."""

    names: tuple[str, ...] = ()
    fit: str = "resolution"  # exact, resolution or space


class Candidate(NamedTuple):
    """One point with what it stands for."""

    point: Point
    architecture: Architecture
    recipe: Recipe


class PointCount(NamedTuple):
    """How many points a space has. Where `continua` names dimensions, each of them counts as one value."""

    points: int
    continua: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What one space file says. Read one with `load_space`."""

    path: str
    text: str = field(repr=False)
    resolution: int
    classes: int
    layouts: tuple[LayoutPlaces, ...]
    require: Require
    objectives: tuple[Objective, ...]
    deployment: Deployment
    fidelity: Fidelity
    fixed_points: FixedPoints
    trials: int
    seed: int
    sampler: str = "default"  # or tpe, nsga2, random
    stop: Stop | None = None

    # --- points and networks ---

    def candidate(self, choose: Choose) -> Candidate:
        """The candidate that `choose` decides, dimension by dimension, asked once for each that exists."""
        point: Point = {}

        def once(dim: Choice | Span) -> Value:
            if dim.name not in point:
                point[dim.name] = choose(dim)
            return point[dim.name]

        layout = self.layouts[0]
        if len(self.layouts) > 1:
            name = once(self._layout_choice())
            layout = next(each for each in self.layouts if each.name == name)
        architecture = layout.architecture(once)
        recipe = self._recipe(once)
        return Candidate(point, architecture, recipe)

    def decode(self, point: Mapping[str, Value]) -> Architecture:
        """The architecture a point stands for.

        Raises:
            ArchitectureError: the point lacks a dimension, holds a value outside of it, or its values do not go
                together at the task's resolution (such points are none of the space).
        """
        architecture = self.candidate(_from(point)).architecture
        reason = architecture.unfit(self.resolution)
        if reason:
            raise ArchitectureError(reason)
        return architecture

    def recipe(self, point: Mapping[str, Value]) -> Recipe:
        """The training recipe a point stands for."""
        return self._recipe(_from(point))

    def encode(self, architecture: Architecture) -> Point:
        """The point of an architecture; the recipe's dimensions take their default (see `default_recipe`).

        Raises:
            NotInSpace: it lies outside; the text says why, part by part, for each layout with as many stages.
        """
        alike = [layout for layout in self.layouts if len(layout.stages) == len(architecture.stages)]
        reasons = []
        for layout in alike or self.layouts:
            try:
                point = encode_layout(layout, architecture)
            except NotInSpace as error:
                reasons.append(f"{layout.name}: {error}")
                continue
            reason = architecture.unfit(self.resolution)
            if reason:
                raise NotInSpace(reason)
            if len(self.layouts) > 1:
                point = {"layout": layout.name, **point}
            self._recipe(_recording(point, default_value))
            return point
        raise NotInSpace("; ".join(reasons))

    def draw(self, rng: np.random.Generator) -> Candidate:
        """A random candidate: each dimension that exists drawn on its own; values that do not go together, redrawn."""
        for _ in range(TRIES):
            candidate = self.candidate(lambda dim: dim.draw(rng))
            if candidate.architecture.unfit(self.resolution) is None:
                return candidate
        raise SpaceError([f"{self.path}: of {TRIES:,} draws there is none whose values go together. Narrow them."])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture that can be built at the task's resolution; requirements are not looked at.

        Example:
            >>> space = load_space("spaces/hybrid.yaml")                           # doctest: +SKIP
            >>> network = build(space.sample(np.random.default_rng(0)), 32, 10)     # doctest: +SKIP
        """
        return self.draw(rng).architecture

    def default_recipe(self) -> Recipe:
        """The recipe where nothing is drawn: a choice's first value, a range's middle (by ratio where it is log)."""
        return self._recipe(default_value)

    def _recipe(self, choose: Choose) -> Recipe:
        chosen: dict[str, Any] = {name: resolve(dim, choose) for name, dim in self.fidelity.recipe.items()}
        inner = {name: chosen.pop(name) for name in list(chosen) if name.startswith("augmentation.")}
        augmentation = Augmentation(**{name.removeprefix("augmentation."): value for name, value in inner.items()})
        return Recipe(**chosen, augmentation=augmentation)

    def _layout_choice(self) -> Choice:
        return Choice("layout", tuple(layout.name for layout in self.layouts))

    # --- what the space holds ---

    def dimensions(self) -> Iterator[tuple[Choice | Span, str | None]]:
        """Every dimension once, each with the condition under which it exists, or None."""
        if len(self.layouts) > 1:
            yield self._layout_choice(), None
        dims: dict[str, Choice | Span] = {}
        conditions: dict[str, dict[str, str | None]] = {}  # name of a dimension -> layout -> its condition there
        for layout in self.layouts:
            for dim, condition in layout.dimensions():
                dims[dim.name] = dim
                conditions.setdefault(dim.name, {}).setdefault(layout.name, condition)
        for name, dim in dims.items():
            yield dim, self._condition(conditions[name])
        for setting in self.fidelity.recipe.values():
            if not isinstance(setting, Fixed):
                yield setting, None

    def _condition(self, by_layout: Mapping[str, str | None]) -> str | None:
        """One condition of those that a dimension exists under in each layout that has it."""
        several = set(by_layout.values())
        if len(several) > 1:
            return " or ".join(condition or f"layout = {layout}" for layout, condition in by_layout.items())
        (condition,) = several
        everywhere = len(by_layout) == len(self.layouts)
        return condition or (None if everywhere else f"layout = {' or '.join(by_layout)}")

    def count(self) -> PointCount:
        """How many points decode at the task's resolution: exact, conditions counted, requirements not."""
        recipes = math.prod(size(dim) for dim in self.fidelity.recipe.values())
        architectures = sum(count_layout(layout, self.resolution) for layout in self.layouts)
        continua = tuple(d.name for d, _ in self.dimensions() if isinstance(d, Span) and d.count is None)
        return PointCount(recipes * architectures, continua)

    # --- identity ---

    def said(self) -> dict[str, str]:
        """What makes this the same space: task, space, require, objectives, fidelity, as flat names and readings."""
        told = {"task.resolution": str(self.resolution), "task.classes": str(self.classes)}
        for layout in self.layouts:
            told |= layout_readings(layout)
        for bound in self.require.bounds:
            told[f"require.{bound.metric}"] = f"{word(bound.low)}..{word(bound.high)}"
        if self.require.non_decreasing_width:
            told["require.width"] = "non-decreasing"
        for objective in self.objectives:
            told[f"objectives.{objective.metric}"] = (
                f"{objective.goal}, worst {word(objective.worst)}, {objective.scale}"
            )
        told["objectives.batch"] = str(self.deployment.batch)
        # what is as it always was says nothing, so that the ids of older studies stay
        if self.deployment.precision:
            told["objectives.precision"] = self.deployment.precision
        if self.deployment.compile:
            told["objectives.compile"] = "true"
        if self.deployment.device:
            told["objectives.device"] = self.deployment.device
        fidelity = self.fidelity
        told["fidelity.dataset"] = fidelity.dataset
        told["fidelity.images"] = str(fidelity.images or "all")
        told["fidelity.validation"] = word(fidelity.validation)
        told["fidelity.epochs"] = ", ".join(map(str, fidelity.epochs))
        told["fidelity.keep"] = word(fidelity.keep)
        for name, dim in fidelity.recipe.items():  # fixed points take the first of a list: here order says something
            told[f"fidelity.recipe.{name}"] = str(dim) if isinstance(dim, Choice) else reading(dim)
        return told

    @property
    def id(self) -> str:
        """Equal for files that say the same: comments, order, `fixed_points` and `search` are free."""
        return hashlib.sha256(json.dumps(self.said(), sort_keys=True).encode()).hexdigest()[:12]


def _from(point: Mapping[str, Value]) -> Choose:
    def choose(dim: Choice | Span) -> Value:
        if dim.name not in point:
            raise ArchitectureError(f'the point lacks "{dim.name}" ({dim})')
        if not contains(dim, point[dim.name]):
            raise ArchitectureError(f"the point has {dim.name} {point[dim.name]!r}, which is not in {dim}")
        return point[dim.name]

    return choose


def _recording(point: Point, choose: Choose) -> Choose:
    def recording(dim: Choice | Span) -> Value:
        point[dim.name] = choose(dim)
        return point[dim.name]

    return recording


def default_value(dim: Choice | Span) -> Value:
    """A choice's first value; the middle of a range, by ratio where it is log."""
    if isinstance(dim, Choice):
        return dim.values[0]
    if dim.count is not None and not dim.log:
        return dim.value_at((dim.count - 1) // 2)
    middle = math.sqrt(dim.low * dim.high) if dim.log else (dim.low + dim.high) / 2
    return round(middle) if dim.whole else middle
