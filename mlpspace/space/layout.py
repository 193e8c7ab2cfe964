"""One layout of a space: its places, stage by stage, and how many networks they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mlpspace.space.dims import Branch, Dim, Place, Value, size, values


@dataclass(frozen=True, slots=True)
class StagePlaces:
    """What may vary in one stage. A place above `layout` is the same object in every stage that uses it."""

    depth: Dim
    width: Dim
    token_mixer: Branch
    channel_mixer: Branch
    norm: Dim
    layer_scale: Dim

    def places(self) -> tuple[Place, ...]:
        return (self.depth, self.width, self.token_mixer, self.channel_mixer, self.norm, self.layer_scale)


@dataclass(frozen=True, slots=True)
class LayoutPlaces:
    """One layout: a patch size, and one stage (isotropic) or several (pyramid)."""

    name: str
    patch: Dim
    stages: tuple[StagePlaces, ...]

    def places(self) -> list[Place]:
        """Each place of the layout once, in the order of the network."""
        found: dict[int, Place] = {id(self.patch): self.patch}
        for stage in self.stages:
            found.update((id(place), place) for place in stage.places())
        return list(found.values())


Used: TypeAlias = Callable[[Dim, Value], None]


def count_layout(layout: LayoutPlaces, resolution: int, used: Used = lambda dim, value: None) -> int:
    """Points of one layout that decode at `resolution`; `used` hears each ruled value in any of them.

    Only the patch size (it must divide), and widths against the mixers' own rules (`width_rule` of their dataclass)
    hang together. Those are enumerated; everything else multiplies.
    """
    stride = 2 ** (len(layout.stages) - 1)
    patches = [p for p in values(layout.patch) or [] if isinstance(p, int) and resolution % (p * stride) == 0]
    free: dict[int, int] = {}  # id of a place -> its size: each place once, however many stages share it
    for stage in layout.stages:
        for place in (stage.depth, stage.channel_mixer, stage.norm, stage.layer_scale):
            free[id(place)] = size(place)
    mixed = _count_mixing([(stage.width, stage.token_mixer) for stage in layout.stages], used)
    if mixed:
        for patch in patches:
            used(layout.patch, patch)
    return len(patches) * math.prod(free.values()) * mixed


def _count_mixing(stages: list[tuple[Dim, Branch]], used: Used) -> int:
    """Joint values of the widths and token mixers of all stages that obey the mixers' rules."""
    shared_widths = {id(w): w for w, _ in stages if sum(other is w for other, _ in stages) > 1}
    shared_mixers = {id(m): m for _, m in stages if sum(other is m for _, other in stages) > 1}
    if not shared_widths and not shared_mixers:
        return math.prod(_count_pairs(_widths(w), _configs(m), used) for w, m in stages)
    # a shared width or mixer is one dimension: fix its value, then the stages are independent again
    total = 0
    for fixed_widths in itertools.product(*([(i, w) for w in _widths(dim)] for i, dim in shared_widths.items())):
        for fixed_mixers in itertools.product(*([(i, c) for c in _configs(m)] for i, m in shared_mixers.items())):
            width_of, config_of = dict(fixed_widths), dict(fixed_mixers)
            product = math.prod(config.others for config in config_of.values())
            for w, m in stages:
                one_width = [width_of[id(w)]] if id(w) in width_of else _widths(w)
                one_config = [config_of[id(m)]._replace(others=1)] if id(m) in config_of else _configs(m)
                product *= _count_pairs(one_width, one_config, used)
                if not product:
                    break
            total += product
    return total


class _Config(NamedTuple):
    """Mixer settings that its width rule treats alike."""

    mixer: Any  # an instance with the ruled fields set
    ruled: tuple[tuple[Dim, Value], ...]
    others: int  # settings of its other fields


def _configs(branch: Branch) -> list[_Config]:
    configs = []
    for option in branch.options:
        rule = getattr(option.type, "width_rule", ())
        ruled = {name: option.fields[name] for name in rule}
        others = math.prod(size(dim) for name, dim in option.fields.items() if name not in ruled)
        for combination in itertools.product(*(values(dim) or [] for dim in ruled.values())):
            mixer = option.type(**dict(zip(ruled, combination, strict=True))) if ruled else None
            configs.append(_Config(mixer, tuple(zip(ruled.values(), combination, strict=True)), others))
    return configs


def _widths(dim: Dim) -> list[tuple[Dim, int]]:
    return [(dim, int(value)) for value in values(dim) or [] if isinstance(value, int)]


def _count_pairs(widths: list[tuple[Dim, int]], configs: list[_Config], used: Used) -> int:
    total = 0
    for dim, width in widths:
        for config in configs:
            if config.mixer is None or config.mixer.unfit_for_width(width) is None:
                total += config.others
                used(dim, width)
                for ruled_dim, value in config.ruled:
                    used(ruled_dim, value)
    return total
