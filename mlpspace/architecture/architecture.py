"""Stage and Architecture: the parts put together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from mlpspace.architecture import plain, words
from mlpspace.architecture.blocks import Block, ChannelFirst, ParallelDepthwise, Residual
from mlpspace.architecture.channel_mixers import ChannelMixer, Gating, Mlp, NoChannelMixer
from mlpspace.architecture.heads import NORMS, Head, MeanHead
from mlpspace.architecture.stems import AnyMerging, Merging, Stem
from mlpspace.architecture.token_mixers import Dense, NoTokenMixer, TokenMixer, hidden_width
from mlpspace.errors import ArchitectureError
from mlpspace.fields import Checked, Flag, OneOf, Real, Whole, takes

PIXELS = Whole(1)  # what a resolution takes
MOST_STAGES = 100  # of published networks 4 at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Checked):
    """`depth` equal blocks at one width and one token map."""

    depth: int = takes(Whole(1, 1000))
    width: int = takes(Whole(1, 65536))
    token_mixer: TokenMixer = Dense()
    channel_mixer: ChannelMixer = Mlp()
    norm: str = takes(OneOf(NORMS), "layer")
    layer_scale: float | None = takes(Real(0.0, 10.0, above=True, or_none=True), None)  # its initial value; none: off
    block: Block = Residual()
    merge: bool = takes(Flag(), True)  # patch merging before it; false: goes on with the map of the stage before

    def unfit(self) -> str | None:
        """Why its parts do not go together; None if they do."""
        for part in (self.token_mixer, self.channel_mixer, self.block):
            rule = getattr(part, "unfit_for_width", None)
            reason: str | None = rule(self.width) if rule else None
            if reason:
                return reason
        alone = isinstance(self.token_mixer, NoTokenMixer) and isinstance(self.channel_mixer, NoChannelMixer)
        kind = words.kind_of(plain.TABLES["block"], self.block)
        if getattr(self.block, "own_mixers", False):
            if not alone:
                return f"block {kind} brings its own mixers: token_mixer and channel_mixer are none"
        elif alone:
            return "a block without a token mixer and a channel mixer does nothing"
        return None

    @property
    def needs_map(self) -> str | None:
        """Why a class token cannot be among its tokens; None if it can."""
        for name in ("token_mixer", "block"):
            part = getattr(self, name)
            if getattr(part, "needs_map", False):
                kind = words.kind_of(plain.TABLES[name], part)
                return f"{kind} looks at a map, and a class token puts the tokens into one row"
        return None

    @property
    def idle(self) -> tuple[str, ...]:
        """Those of its fields that change nothing in this block."""
        own_mixers = getattr(self.block, "own_mixers", False)
        token = not (own_mixers or isinstance(self.token_mixer, NoTokenMixer))
        channel = not (own_mixers or isinstance(self.channel_mixer, NoChannelMixer))
        # the token half of that block has a norm of its own kind
        own_norm = getattr(self.token_mixer, "own_norm", False) or isinstance(self.block, ChannelFirst)
        uses = {
            "norm": channel or (token and not own_norm),
            "layer_scale": token or (channel and not isinstance(self.block, ParallelDepthwise)),
        }
        return tuple(name for name, used in uses.items() if not used)


class _Identified:
    """A place for the content id, which is asked for again and again and takes longer than a draw."""

    __slots__ = ("_id",)
    _id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(_Identified, Checked):
    """Stem, stages with merging between them, head.

    Example:
        >>> mixer_s16 = Architecture(stem=Patches(patch=16), stages=(Stage(depth=8, width=512),))
        >>> mixer_s16.describe()
        'patch 16, 8x512 dense r0.5 mlp r4 layer'
    """

    stem: Stem
    stages: tuple[Stage, ...]
    merging: AnyMerging = Merging()
    head: Head = MeanHead()
    norm_eps: float = takes(Real(0.0, 0.1, above=True), 1e-6)  # LayerNorms add it to the variance; papers differ

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an architecture has at least one stage")
        Checked.__post_init__(self)
        # what has no effect must not tell two equal networks apart
        if not self.stages[0].merge:
            object.__setattr__(self, "stages", (replace(self.stages[0], merge=True), *self.stages[1:]))
        if self.mergings == 0:
            object.__setattr__(self, "merging", Merging())

    @property
    def mergings(self) -> int:
        """How often the map is halved after the stem."""
        return sum(stage.merge for stage in self.stages[1:])

    @property
    def id(self) -> str:
        """Content id, 12 hexadecimal digits: equal for networks that differ only in what changes nothing.

        Such as two ratios that round to one hidden width.
        """
        try:
            return self._id
        except AttributeError:
            object.__setattr__(self, "_id", self._content_id())
            return self._id

    def _content_id(self) -> str:
        told = plain.to_dict(self)
        if told["merging"]["kind"] == "conv":  # before there were others, it had no kind
            del told["merging"]["kind"]
        for part in (told, *told["stages"]):
            for name, default in _LATER.items():
                if part.get(name) == default:
                    del part[name]
        for stage, described in zip(told["stages"], self.stages, strict=True):
            for name in described.idle:
                del stage[name]
            width = stage["width"]
            if stage["token_mixer"]["kind"] == "none":
                stage["token_mixer"] = {"kind": "none"}
            for mixer in (stage["token_mixer"], stage["channel_mixer"]):
                if mixer.get("activation") == "gelu":
                    del mixer["activation"]
                if mixer["kind"] == "dense_units":
                    mixer |= {"kind": "dense", "hidden": mixer.pop("units")}
                elif isinstance(described.channel_mixer, Gating) and mixer["kind"] == "gating":
                    mixer["hidden"] = 2 * described.channel_mixer.gate(width)
                    del mixer["ratio"]
                elif "ratio" in mixer and mixer["kind"] != "dense_by_tokens":
                    # two ratios that round to one hidden width are one network
                    mixer["hidden"] = hidden_width(mixer.pop("ratio"), width)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    def grid(self, resolution: int) -> tuple[int, ...]:
        """Side of the token map in each stage, for an image of that side in pixels.

        Raises:
            ArchitectureError: the stem or a merging does not divide it.
        """
        reason = self.unfit(resolution)
        if reason:
            raise ArchitectureError(reason)
        return self._sides(resolution)

    def unfit(self, resolution: int) -> str | None:
        """Why this architecture cannot be built at that resolution; None if it can."""
        complaint = PIXELS.complaint(resolution)
        if complaint:
            return f"resolution {resolution!r} {complaint}"
        stride = self.stem.stride * 2**self.mergings
        if resolution % stride:
            merged = f" and {self.mergings} merging{'s' * (self.mergings > 1)}" if self.mergings else ""
            return f"a stem of stride {self.stem.stride}{merged} needs a multiple of {stride} pixels, not {resolution}"
        joins_tokens = getattr(self.head, "joins_tokens", False)
        for number, (stage, side) in enumerate(zip(self.stages, self._sides(resolution), strict=True), 1):
            reason = stage.unfit()
            partition = getattr(stage.block, "partition", 1)
            if not reason and side % partition:
                reason = f"windows of {partition} x {partition} do not fill a map of {side} x {side}"
            if not reason and joins_tokens:
                reason = stage.needs_map
            if not reason and not stage.merge and stage.width != self.stages[number - 2].width:
                reason = "it goes on with the map of the stage before, so it has that stage's width"
            if reason:
                return f"stage {number}: {reason}"
        if joins_tokens and self.mergings:
            return "a class token cannot pass a patch merging"
        return None

    def _sides(self, resolution: int) -> tuple[int, ...]:
        side = resolution // self.stem.stride
        sides = [side]
        for stage in self.stages[1:]:
            side //= 2 if stage.merge else 1
            sides.append(side)
        return tuple(sides)

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal architecture."""
        return json.dumps(plain.to_dict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            ArchitectureError: the text is not one.
        """
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArchitectureError(f"not an architecture: {error}") from None
        return from_dict(told)

    def describe(self) -> str:
        """One readable line, equal neighbours told once."""
        return words.describe(self)


# Fields that came after there were studies: left out of the id where they have their default, so that ids stand.
_LATER: dict[str, Any] = {"block": {"kind": "residual"}, "merge": True, "norm_eps": 1e-6}


def from_dict(told: Any) -> Architecture:
    """The architecture that `to_dict` told.

    Raises:
        ArchitectureError: something in it is unknown, missing or out of range; the text names its place.
    """
    return plain.read(told, Architecture, Stage, most_stages=MOST_STAGES)
