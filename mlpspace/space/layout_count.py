"""How many points a layout has, exactly, and which of the values it says are in any of them.

Most places are independent of each other, and their sizes multiply. What hangs together: the stem and the merges with
the resolution, widths with the rules of mixers and blocks (`width_rule`), windows with the side of the map, a stage
that goes on with the map of the one before with that one's width, a class token with mergings, two mixers of which not
both may be none. Those are walked stage by stage.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from mlpspace.architecture import NoChannelMixer, NoTokenMixer
from mlpspace.space.dims import Branch, Dim, Value, size, values
from mlpspace.space.layout import LayoutPlaces, StagePlaces, brings_mixers

Key: TypeAlias = tuple[int | str, Value]
"""A value of the dimension with that id, or a kind of the branch with that name."""

BRANCHES = ("token_mixer", "channel_mixer", "block")


def count_layout(layout: LayoutPlaces, resolution: int, occurring: set[Key] | None = None) -> int:
    """Points of one layout that decode at `resolution`; adds to `occurring` what is in any of them."""
    return _Count(layout, resolution, set() if occurring is None else occurring).points()


_PER_WIDTH = 20  # what a width takes beside its settings, in those


def combinations(layout: LayoutPlaces) -> int:
    """How many values and settings the count of a layout puts beside each other, from above: a million a second."""

    def settings(branch: Branch) -> int:
        return sum(math.prod(size(option.fields[name]) for name in _ruled(option.type)) for option in branch.options)

    users = Counter(id(getattr(stage, name)) for stage in layout.stages for name in ("width", "merge", *BRANCHES))
    shared: dict[int, int] = {}
    alone = settings(layout.stem) + settings(layout.head)
    for stage in layout.stages:
        sizes = {"width": size(stage.width), "merge": size(stage.merge)}
        sizes |= {name: settings(getattr(stage, name)) for name in BRANCHES}
        for name in sizes:
            place = id(getattr(stage, name))
            if users[place] > 1:
                shared[place] = sizes[name] + 1  # of mixers one more: no stage has them
                sizes[name] = 1
        branches = [sizes[name] for name in BRANCHES]
        alone += sizes["width"] * sizes["merge"] * (_PER_WIDTH + sum(branches) + math.prod(branches))
    return alone * math.prod(shared.values())


def ruled_places(layout: LayoutPlaces) -> Iterator[tuple[str, Dim | Branch]]:
    """The places whose values or kinds `occurring` tells of, each with what it is called."""
    branches = [("stem", layout.stem)]
    for stage in layout.stages:
        yield from (("width", stage.width), ("merge", stage.merge))
        branches += [(name, getattr(stage, name)) for name in BRANCHES]
    for name, branch in branches:
        yield name, branch
        for option in branch.options:
            yield from ((f"{option.kind} {field}", option.fields[field]) for field in _ruled(option.type))
    yield "head", layout.head


def _ruled(type_: type[Any]) -> tuple[str, ...]:
    """The fields of a kind that some rule looks at."""
    by_map = (name for name in ("patch", "partition") if name in type_.__dataclass_fields__)
    return (*getattr(type_, "width_rule", ()), *by_map)


class _Setting(NamedTuple):
    """Settings of one kind that all rules treat alike."""

    part: Any  # an instance of it
    keys: tuple[Key, ...]
    points: int  # how many settings they are


def _settings(branch: Branch, elsewhere: Dim | None = None) -> list[_Setting]:
    """The settings of a branch; a field that is the place `elsewhere` is counted there."""
    found = []
    for option in branch.options:
        ruled = {name: option.fields[name] for name in _ruled(option.type)}
        others = {name: dim for name, dim in option.fields.items() if name not in ruled}
        points = math.prod(size(dim) for dim in others.values() if dim is not elsewhere)
        example = {name: (values(dim) or [getattr(dim, "low", None)])[0] for name, dim in others.items()}
        for chosen in itertools.product(*(values(dim) or [] for dim in ruled.values())):
            part = option.type(**example, **dict(zip(ruled, chosen, strict=True)))
            keys = ((id(dim), value) for dim, value in zip(ruled.values(), chosen, strict=True))
            found.append(_Setting(part, ((branch.name, option.kind), *keys), points))
    return found


class _Joint(NamedTuple):
    """Settings of one stage's block and mixers that go together, at one width, on one map."""

    points: int
    keys: set[Key]


class _State(NamedTuple):
    """Where a walk has come to."""

    stage: int  # the next
    side: int  # of the map before it
    width: int  # before it; 0 where the next does not look at it
    mixed: frozenset[int]  # the shared mixers that a stage so far has


class _Count:
    """Counts one layout: by stem, by value of the places that several stages share, then stage by stage."""

    def __init__(self, layout: LayoutPlaces, resolution: int, occurring: set[Key]) -> None:
        self.layout = layout
        self.resolution = resolution
        self.occurring = occurring
        branches = [getattr(stage, name) for stage in layout.stages for name in BRANCHES]
        self.settings = {id(branch): _settings(branch) for branch in branches}
        self.heads = _settings(layout.head, elsewhere=layout.stages[-1].norm)
        self.joints: dict[Any, tuple[_Joint, _Joint]] = {}
        # of one walk
        self.joins = False  # whether the head joins a token to the map, which then passes no merging and is no map
        self.shared: dict[int, Any] = {}  # id of a shared place -> its value; of mixers None: no stage has them
        self.first_side = 0
        self.walked: dict[_State, int] = {}

    def points(self) -> int:
        total = 0
        by_side: dict[int, int] = {}
        for stem in _settings(self.layout.stem):
            side, rest = divmod(self.resolution, stem.part.stride)
            if rest:
                continue
            if side not in by_side:
                kinds = {_joins(head) for head in self.heads}
                by_side[side] = sum(
                    self.walk(side, shared, joins) for shared in self.shared_values() for joins in sorted(kinds)
                )
            if by_side[side]:
                self.occurring.update(stem.keys)
            total += stem.points * by_side[side]
        free = {
            id(dim): size(dim) for stage in self.layout.stages for dim in (stage.depth, stage.norm, stage.layer_scale)
        }
        return total * math.prod(free.values())

    def shared_values(self) -> Iterator[dict[int, Any]]:
        """Every joint value of the places that several stages share and that are not simply free."""
        found: dict[int, list[Any]] = {}
        for name in ("width", "merge", *BRANCHES):
            users: dict[int, list[StagePlaces]] = {}
            for stage in self.layout.stages:
                users.setdefault(id(getattr(stage, name)), []).append(stage)
            for place, stages in users.items():
                if len(stages) > 1:
                    found[place] = list(self.settings.get(place) or values(getattr(stages[0], name)) or [])
                    if name != "block" and name in BRANCHES and all(map(_may_bring_mixers, stages)):
                        found[place].append(None)
        return (dict(zip(found, chosen, strict=True)) for chosen in itertools.product(*found.values()))

    def walk(self, side: int, shared: dict[int, Any], joins: bool) -> int:
        """Joint settings of stages, merging and head, after a stem that leaves a map of that side."""
        self.joins, self.shared, self.first_side = joins, shared, side
        self.walked.clear()
        settings = [value for value in shared.values() if isinstance(value, _Setting)]
        return self.after(_State(0, side, 0, frozenset())) * math.prod(setting.points for setting in settings)

    def after(self, state: _State) -> int:
        """Joint settings of what comes after `state`."""
        if state not in self.walked:
            last = state.stage == len(self.layout.stages)
            self.walked[state] = self.end(state) if last else self.stage(state)
        return self.walked[state]

    def stage(self, state: _State) -> int:
        places = self.layout.stages[state.stage]
        total = 0
        for merge, width in itertools.product(self.values_of(places.merge), self.values_of(places.width)):
            halved = merge and state.stage > 0
            if halved and (self.joins or state.side % 2):
                continue
            if not merge and width != state.width:
                continue
            side = state.side // 2 if halved else state.side
            alone, mixed = self.joint(places, width, side)
            mixers = {id(branch) for branch in (places.token_mixer, places.channel_mixer)} & self.shared.keys()
            for joint, mixers_now in ((alone, set()), (mixed, mixers)):
                if not joint.points:
                    continue
                next_ = _State(state.stage + 1, side, self.kept(width, state.stage + 1), state.mixed | mixers_now)
                points = joint.points * self.after(next_)
                if points:
                    self.occurring.update(joint.keys, ((id(places.merge), merge), (id(places.width), width)))
                total += points
        return total

    def joint(self, places: StagePlaces, width: int, side: int) -> tuple[_Joint, _Joint]:
        """What goes together: of blocks with mixers of their own, and of the others with the stage's mixers."""
        branches = [getattr(places, name) for name in BRANCHES]
        shared = (id(self.shared.get(id(branch))) for branch in branches)
        key = (*map(id, branches), *shared, width, side, self.joins)
        if key not in self.joints:
            tokens, channels, blocks = (
                [each for each in self.settings_of(branch) if self.fits(each.part, width, side)] for branch in branches
            )
            pairs = [
                (one, other)
                for one, other in itertools.product(tokens, channels)
                if not (isinstance(one.part, NoTokenMixer) and isinstance(other.part, NoChannelMixer))
            ]
            alone = [(block,) for block in blocks if getattr(block.part, "own_mixers", False)]
            mixed = [(block, *pair) for block in blocks for pair in pairs if (block,) not in alone]
            self.joints[key] = (_joint(alone), _joint(mixed))
        return self.joints[key]

    def fits(self, part: Any, width: int, side: int) -> bool:
        rule = getattr(part, "unfit_for_width", None)
        window = getattr(part, "partition", 1)
        in_row = self.joins and getattr(part, "needs_map", False)
        return not (rule and rule(width)) and side % window == 0 and not in_row

    def end(self, state: _State) -> int:
        """Settings of merging and head."""
        mixers = {id(branch) for stage in self.layout.stages for branch in (stage.token_mixer, stage.channel_mixer)}
        if any(self.shared[place] is not None and place not in state.mixed for place in mixers & self.shared.keys()):
            return 0  # mixers that no stage has: the point without them is counted where their value is None
        merged = state.side != self.first_side
        heads = [head for head in self.heads if _joins(head) == self.joins]
        self.occurring.update(key for head in heads for key in head.keys)
        return sum(head.points for head in heads) * (size(self.layout.merging) if merged else 1)

    def kept(self, width: int, stage: int) -> int:
        """`width`, if the stage with that number may go on with it."""
        stages = self.layout.stages
        return width if stage < len(stages) and False in self.values_of(stages[stage].merge) else 0

    def values_of(self, dim: Dim) -> list[Any]:
        return [self.shared[id(dim)]] if id(dim) in self.shared else values(dim) or []

    def settings_of(self, branch: Branch) -> list[_Setting]:
        """Of a shared branch its value, whose settings the walk counts."""
        if id(branch) not in self.shared:
            return self.settings[id(branch)]
        value = self.shared[id(branch)]
        return [] if value is None else [value._replace(points=1)]


def _may_bring_mixers(stage: StagePlaces) -> bool:
    return any(map(brings_mixers, stage.block.options))


def _joins(head: _Setting) -> bool:
    return bool(getattr(head.part, "joins_tokens", False))


def _joint(groups: Sequence[tuple[_Setting, ...]]) -> _Joint:
    points = sum(math.prod(setting.points for setting in group) for group in groups)
    return _Joint(points, {key for group in groups for setting in group for key in setting.keys})
