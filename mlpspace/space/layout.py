"""One layout of a space: its places, stage by stage, and the architecture that a choice of their values makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlpspace.architecture import Architecture, NoChannelMixer, NoTokenMixer, Stage
from mlpspace.space.dims import (
    Branch,
    Choice,
    Choose,
    Dim,
    Fixed,
    Option,
    Place,
    Span,
    dimensions,
    resolve,
    resolve_branch,
)


@dataclass(frozen=True, slots=True)
class StagePlaces:
    """What may vary in one stage. A place above `layout` is the same object in every stage that uses it.

    The mixers exist where the block brings none of its own; `merge` of the first stage is always true.
    """

    depth: Dim
    width: Dim
    token_mixer: Branch
    channel_mixer: Branch
    norm: Dim
    layer_scale: Dim
    block: Branch
    merge: Dim

    def stage(self, choose: Choose) -> Stage:
        chosen: dict[str, Any] = {name: resolve(getattr(self, name), choose) for name in _SCALARS}
        block = resolve_branch(self.block, choose)
        alone = getattr(block, "own_mixers", False)
        return Stage(
            **chosen,
            block=block,
            token_mixer=NoTokenMixer() if alone else resolve_branch(self.token_mixer, choose),
            channel_mixer=NoChannelMixer() if alone else resolve_branch(self.channel_mixer, choose),
        )


_SCALARS = ("depth", "width", "norm", "layer_scale", "merge")


@dataclass(frozen=True, slots=True)
class LayoutPlaces:
    """One layout: stem, merging and head, and one stage (isotropic) or several (pyramid).

    A head whose norm is not said has the very place `norm` of the last stage.
    """

    name: str
    stem: Branch
    stages: tuple[StagePlaces, ...]
    merging: Branch  # exists where a stage merges
    head: Branch
    norm_eps: float

    @property
    def patch(self) -> Dim:
        """The patch size of its first stem that has one; the stride of a stem that has none."""
        for option in self.stem.options:
            if "patch" in option.fields:
                return option.fields["patch"]
        stride: int = self.stem.options[0].type.stride
        return Fixed(stride)

    def architecture(self, choose: Choose) -> Architecture:
        """What `choose` makes of its places. It is asked again for a place that several stages share."""
        stem = resolve_branch(self.stem, choose)
        stages = tuple(places.stage(choose) for places in self.stages)
        merged = any(stage.merge for stage in stages[1:])
        return Architecture(
            stem=stem,
            stages=stages,
            # what no stage needs is not asked for: it would tell equal networks apart
            **({"merging": resolve_branch(self.merging, choose)} if merged else {}),
            head=resolve_branch(self.head, choose),
            norm_eps=self.norm_eps,
        )

    def dimensions(self) -> Iterator[tuple[Choice | Span, str | None]]:
        """The dimensions, each with the condition under which it exists in this layout, or None.

        One that several stages share is told for each of them.
        """
        yield from dimensions(self.stem)
        for stage in self.stages:
            for name in StagePlaces.__dataclass_fields__:
                place = getattr(stage, name)
                mixer = name in ("token_mixer", "channel_mixer")
                condition = _any(map(_mixed, self._users(name, place))) if mixer else None
                yield from _under(condition, place)
        merges = [stage.merge for stage in self.stages[1:] if stage.merge != Fixed(False)]
        yield from _under(_any(map(_merges, merges)), self.merging)
        yield from dimensions(self.head)

    def _users(self, name: str, place: Place) -> list[StagePlaces]:
        return [stage for stage in self.stages if getattr(stage, name) is place]


def brings_mixers(option: Option) -> bool:
    """Whether a kind of block has mixers of its own."""
    return bool(getattr(option.type, "own_mixers", False))


def _mixed(stage: StagePlaces) -> str | None:
    """The condition under which a stage has the mixers that it says."""
    kinds = [option.kind for option in stage.block.options if not brings_mixers(option)]
    if len(kinds) == len(stage.block.options):
        return None
    return f"{stage.block.name} = {' or '.join(kinds)}"


def _merges(merge: Dim) -> str | None:
    return None if isinstance(merge, Fixed) else f"{merge.name} = true"


def _any(conditions: Any) -> str | None:
    """One condition of several that each suffice; None where one of them always holds."""
    found = list(dict.fromkeys(conditions))
    return None if None in found else " or ".join(found) or None


def _under(condition: str | None, place: Place) -> Iterator[tuple[Choice | Span, str | None]]:
    return ((dim, inner or condition) for dim, inner in dimensions(place))
