"""An architecture: the frozen description of a network. It has no weights and no resolution.

    Architecture = stem, stages with patch merging between them, head
    Stage        = `depth` equal blocks at one width
    Block        = x + T(norm(x)), then x + M(norm(x)): a token mixer T and a channel mixer M, each optionally
                   scaled per channel (LayerScale)

Each kind of stem, mixer and head is one small dataclass below, listed by name in the table of its kind. Its fields
are the dimensions that a space file may name; the module that computes it is in `nets`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mlpspace.errors import ArchitectureError, did_you_mean
from mlpspace.fields import Checked, Flag, OneOf, Real, Whole, scalar_fields, takes

NORMS = ("layer", "affine", "batch")


# --- token mixers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(Checked):
    """MLP-Mixer's token MLP, shared by all channels (arXiv:2105.01601)."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 0.5)  # token ratio: hidden width / C, as in the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Checked):
    """ResMLP's single linear map over the tokens, shared by all channels (arXiv:2105.03404)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axial(Checked):
    """sMLPNet's token mixing: depthwise convolution, then one linear map along rows and one along columns.

    It brings its own BatchNorm and GELU before each step (arXiv:2109.05422), so a block puts no norm before it.
    """

    local: int = takes(Whole(3, 15, odd=True, or_zero=True), 3)  # kernel of the depthwise convolution; 0: none
    fusion: str = takes(OneOf(("concat", "sum", "weighted")), "concat")
    identity: bool = takes(Flag(), True)  # the third branch, x itself

    own_norm: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAttention(Checked):
    """Attention over two small learned memories that all images share (arXiv:2105.02358)."""

    memory: int = takes(Whole(1, 4096), 64)  # memory units S of each head
    heads: int = takes(Whole(1, 256), 1)
    expansion: int = takes(Whole(1, 16), 1)  # width of the queries / C; EAMLP takes 4
    double_norm: bool = takes(Flag(), True)  # softmax over tokens, then L1 over memory units; else softmax over units

    width_rule: ClassVar[tuple[str, ...]] = ("heads", "expansion")

    def unfit_for_width(self, width: int) -> str | None:
        """Why this mixer cannot stand in a stage of that width; None if it can."""
        if self.expansion * width % self.heads == 0:
            return None
        return f"{self.heads} heads do not divide {self.expansion * width} query channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseConv(Checked):
    """One depthwise convolution."""

    kernel: int = takes(Whole(1, 31, odd=True), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTokenMixer(Checked):
    """No mixing of tokens: the block keeps its channel half only."""


TokenMixer: TypeAlias = Dense | Linear | Axial | ExternalAttention | DepthwiseConv | NoTokenMixer

TOKEN_MIXERS: dict[str, type[Any]] = {
    "dense": Dense,
    "linear": Linear,
    "axial": Axial,
    "external_attention": ExternalAttention,
    "dwconv": DepthwiseConv,
    "none": NoTokenMixer,
}


# --- channel mixers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Checked):
    """Two linear layers over the channels with a GELU between them."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 4.0)  # channel ratio: hidden width / C


ChannelMixer: TypeAlias = Mlp

CHANNEL_MIXERS: dict[str, type[Any]] = {"mlp": Mlp}


def hidden_width(ratio: float, width: int) -> int:
    """The hidden width that a ratio of `width` stands for: rounded, at least 1."""
    return max(1, round(ratio * width))


# --- stems, merging, heads ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches(Checked):
    """Cuts the image into patches and projects each: a p x p convolution of stride p."""

    patch: int = takes(Whole(1, 64))
    bias: bool = takes(Flag(), True)

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensToToken(Checked):
    """EAMLP's stem: three overlapping unfoldings with external attention between them, stride 16 in all.

    The T2T module of arXiv:2101.11986 with the attention of arXiv:2105.02358.
    """

    token_width: int = takes(Whole(1, 4096), 64)
    memory: int = takes(Whole(1, 4096), 128)

    stride: ClassVar[int] = 16


Stem: TypeAlias = Patches | TokensToToken

STEMS: dict[str, type[Any]] = {"patches": Patches, "tokens_to_token": TokensToToken}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging(Checked):
    """Patch merging between stages: a 2 x 2 convolution of stride 2 to the next stage's width."""

    bias: bool = takes(Flag(), True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanHead(Checked):
    """Norm, mean over the tokens, linear classifier."""

    norm: str = takes(OneOf(NORMS), "layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTokenHead(Checked):
    """A class token and fixed sinusoidal position embeddings join the tokens after the stem; norm and a linear
    classifier read the class token after the blocks (EAMLP, after arXiv:2010.11929)."""

    norm: str = takes(OneOf(NORMS), "layer")


Head: TypeAlias = MeanHead | ClassTokenHead

HEADS: dict[str, type[Any]] = {"mean": MeanHead, "class_token": ClassTokenHead}


# --- stages and the whole -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Checked):
    """`depth` equal blocks at one width and one token map."""

    depth: int = takes(Whole(1, 1000))
    width: int = takes(Whole(1, 65536))
    token_mixer: TokenMixer = Dense()
    channel_mixer: ChannelMixer = Mlp()
    norm: str = takes(OneOf(NORMS), "layer")
    layer_scale: float | None = takes(Real(0.0, 10.0, above=True, or_none=True), None)  # its initial value; none: off


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Stem, stages with patch merging between them, head.

    Example:
        >>> mixer_s16 = Architecture(stem=Patches(patch=16), stages=(Stage(depth=8, width=512),))
        >>> mixer_s16.describe()
        'patch 16, 8x512 dense r0.5 mlp r4 layer'
    """

    stem: Stem
    stages: tuple[Stage, ...]
    merging: Merging = Merging()
    head: Head = MeanHead()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an architecture has at least one stage")
        if len(self.stages) == 1:  # nothing to merge, so how it would be merged must not tell two equal networks apart
            object.__setattr__(self, "merging", Merging())

    @property
    def id(self) -> str:
        """Content id: equal for equal networks however they were written, 12 hexadecimal digits."""
        told = _told(self)
        for stage in told["stages"]:
            width = stage["width"]
            if stage["token_mixer"]["kind"] == "none":
                stage["token_mixer"] = {"kind": "none"}
            for mixer in (stage["token_mixer"], stage["channel_mixer"]):
                if "ratio" in mixer:  # two ratios that round to one hidden width are one network
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
        side = resolution // self.stem.stride
        return tuple(side >> i for i in range(len(self.stages)))

    def unfit(self, resolution: int) -> str | None:
        """Why this architecture cannot be built at that resolution; None if it can."""
        stride = self.stem.stride * 2 ** (len(self.stages) - 1)
        if resolution % stride:
            merged = f" and {len(self.stages) - 1} mergings" if len(self.stages) > 1 else ""
            return f"a stem of stride {self.stem.stride}{merged} needs a multiple of {stride} pixels, not {resolution}"
        for number, stage in enumerate(self.stages, 1):
            rule = getattr(stage.token_mixer, "unfit_for_width", None)
            reason = rule(stage.width) if rule else None
            if reason:
                return f"stage {number}: {reason}"
        if isinstance(self.head, ClassTokenHead) and len(self.stages) > 1:
            return "a class token cannot pass a patch merging"
        return None

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal architecture."""
        return json.dumps(_told(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            ArchitectureError: the text is not one.
        """
        try:
            told = json.loads(text)
        except ValueError as error:
            raise ArchitectureError(f"not an architecture: {error}") from None
        return from_dict(told)

    def describe(self) -> str:
        """One readable line, equal neighbours told once."""
        stem = f"patch {self.stem.patch}" if isinstance(self.stem, Patches) else "t2t"
        tails = [_describe_mixers(stage) for stage in self.stages]
        parts = []
        for index, stage in enumerate(self.stages):
            shape = f"{stage.depth}x{stage.width}"
            # stages that share their mixers say them once, after the last of them
            last_of_run = index + 1 == len(self.stages) or tails[index + 1] != tails[index]
            parts.append(f"{shape} {tails[index]}" if last_of_run else shape)
        end = ", class token" if isinstance(self.head, ClassTokenHead) else ""
        return f"{stem}, {' > '.join(parts)}{end}"


def _describe_mixers(stage: Stage) -> str:
    words = [*_describe_mixer(TOKEN_MIXERS, stage.token_mixer), *_describe_mixer(CHANNEL_MIXERS, stage.channel_mixer)]
    words.append(stage.norm)
    if stage.layer_scale is not None:
        words.append(f"ls{stage.layer_scale:g}")
    return " ".join(words)


_SHORT = {"ratio": "r", "local": "local", "memory": "s", "heads": "h", "kernel": "k", "expansion": "e"}


def _describe_mixer(table: dict[str, type[Any]], mixer: Any) -> list[str]:
    words = [kind_of(table, mixer)]
    for f in dataclasses.fields(mixer):
        value = getattr(mixer, f.name)
        if isinstance(value, bool):
            if value != f.default:
                words.append(f.name if value else f"no-{f.name}")
        elif isinstance(value, str):
            words.append(value)
        elif not (f.name == "expansion" and value == 1):
            words.append(f"{_SHORT.get(f.name, f.name)}{value:g}")
    return words


def kind_of(table: dict[str, type[Any]], value: Any) -> str:
    """The name under which the kind of `value` stands in `table`."""
    return next(name for name, kind in table.items() if type(value) is kind)


_TABLES: dict[str, dict[str, type[Any]]] = {
    "stem": STEMS,
    "token_mixer": TOKEN_MIXERS,
    "channel_mixer": CHANNEL_MIXERS,
    "head": HEADS,
}


def _told(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values; values of a kind from a table carry its name under "kind"."""
    told: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        inner = getattr(value, f.name)
        if f.name in _TABLES:
            told[f.name] = {"kind": kind_of(_TABLES[f.name], inner), **_told(inner)}
        elif f.name == "stages":
            told[f.name] = [_told(stage) for stage in inner]
        else:
            told[f.name] = _told(inner) if dataclasses.is_dataclass(inner) else inner
    return told


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as plain dicts, lists and scalars: what `to_json` writes."""
    return _told(architecture)


def from_dict(told: Any) -> Architecture:
    """The architecture that `to_dict` told.

    Raises:
        ArchitectureError: something in it is unknown, missing or out of range; the text names its place.
    """
    fields = _object(told, Architecture, "architecture")
    stages = fields.get("stages")
    if not isinstance(stages, list) or not stages:
        raise ArchitectureError("architecture.stages: at least one stage is needed")
    fields["stem"] = _member("stem", fields.get("stem"), "stem")
    if "head" in fields:
        fields["head"] = _member("head", fields["head"], "head")
    if "merging" in fields:
        fields["merging"] = _make(Merging, _object(fields["merging"], Merging, "merging"), "merging")
    fields["stages"] = tuple(_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages))
    return Architecture(**fields)


def _stage(told: Any, where: str) -> Stage:
    fields = _object(told, Stage, where)
    for name in ("token_mixer", "channel_mixer"):
        if name in fields:
            fields[name] = _member(name, fields[name], f"{where}.{name}")
    return _make(Stage, fields, where)


def _member(name: str, told: Any, where: str) -> Any:
    if not isinstance(told, dict) or not isinstance(told.get("kind"), str):
        raise ArchitectureError(f'{where}: expected an object with a "kind"')
    kind = told["kind"]
    table = _TABLES[name]
    if kind not in table:
        raise ArchitectureError(f'{where}: kind "{kind}" is not known.{did_you_mean(kind, table)}')
    inner = {key: value for key, value in told.items() if key != "kind"}
    return _make(table[kind], _object(inner, table[kind], where), where)


def _object(told: Any, kind: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ArchitectureError(f"{where}: expected an object, found {type(told).__name__}")
    known = {f.name for f in dataclasses.fields(kind)}
    for key in told:
        if key not in known:
            raise ArchitectureError(f'{where}: "{key}" is not known.{did_you_mean(str(key), known)}')
    return dict(told)


def _make(kind: type[Any], fields: dict[str, Any], where: str) -> Any:
    missing = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in fields]
    if missing:
        raise ArchitectureError(f"{where}: {', '.join(missing)} missing")
    try:
        return kind(**fields)
    except ValueError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def required_fields(kind: type[Any]) -> tuple[str, ...]:
    """Names of the scalar fields that have no default."""
    scalars = scalar_fields(kind)
    return tuple(f.name for f in dataclasses.fields(kind) if f.name in scalars and f.default is dataclasses.MISSING)
