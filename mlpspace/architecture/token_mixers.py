"""Token mixers of the language: what moves information between positions. Their modules are in `nets.token_mixers`.

Each kind is one small dataclass with a row in `TOKEN_MIXERS`; its fields are dimensions that a space file may name.
`own_norm`: the module norms its input itself, so a block puts no norm before it. `needs_map`: it looks at neighbours,
so a class token must not have put the tokens into one row. `width_rule`: the fields that `unfit_for_width` looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mlpspace.fields import Checked, Flag, OneOf, Real, Whole, takes

ACTIVATIONS = ("gelu", "gelu_tanh")  # exact; the tanh approximation, which is what JAX calls gelu


def hidden_width(ratio: float, width: int) -> int:
    """The hidden width that a ratio of `width` stands for: rounded, at least 1."""
    return max(1, round(ratio * width))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(Checked):
    """MLP-Mixer's token MLP, shared by all channels (arXiv:2105.01601)."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 0.5)  # token ratio: hidden width / C, as in the paper
    activation: str = takes(OneOf(ACTIVATIONS), "gelu")

    def hidden(self, tokens: int, width: int) -> int:
        """The hidden width of the token MLP."""
        return hidden_width(self.ratio, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseByTokens(Checked):
    """The token MLP with its hidden width said as a share of the tokens (arXiv:2105.02723, SPACH arXiv:2108.13002)."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 4.0)  # hidden width / N
    activation: str = takes(OneOf(ACTIVATIONS), "gelu")

    def hidden(self, tokens: int, width: int) -> int:
        """The hidden width of the token MLP; rounded down, as the official code of both papers does."""
        return max(1, int(self.ratio * tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseUnits(Checked):
    """The token MLP with its hidden width said as a number."""

    units: int = takes(Whole(1, 65536))
    activation: str = takes(OneOf(ACTIVATIONS), "gelu")

    def hidden(self, tokens: int, width: int) -> int:
        """The hidden width of the token MLP."""
        return self.units


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
    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(Checked):
    """The first half of sMLPNet's token mixing alone: BatchNorm, GELU, depthwise convolution (arXiv:2109.05422)."""

    kernel: int = takes(Whole(3, 15, odd=True), 3)

    own_norm: ClassVar[bool] = True
    needs_map: ClassVar[bool] = True


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

    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparableConv(Checked):
    """A depthwise convolution, then one linear map over the channels."""

    kernel: int = takes(Whole(1, 31, odd=True), 3)

    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(Checked):
    """One full convolution."""

    kernel: int = takes(Whole(1, 31, odd=True), 3)

    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle(Checked):
    """CycleMLP's token mixing: each channel read at its own small step, along rows, along columns, and not at all.

    Three linear maps over the channels, weighed against each other by split attention (arXiv:2107.10224).
    """

    kernel: int = takes(Whole(1, 31, odd=True), 3)  # positions that the channels cycle through

    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RepMlp(Checked):
    """RepMLPNet's block: one matrix over all pixels of a channel, trained beside convolutions that merge into it.

    A gate computed from the mean of the map multiplies the result (arXiv:2112.11081).
    """

    share_sets: int = takes(Whole(1, 4096), 1)  # matrices; the channels share them in turn
    kernel: int = takes(Whole(1, 15, odd=True, or_zero=True), 3)  # convolutions 1, 3, .. kernel beside it; 0: none

    needs_map: ClassVar[bool] = True
    width_rule: ClassVar[tuple[str, ...]] = ("share_sets",)

    def unfit_for_width(self, width: int) -> str | None:
        """Why this mixer cannot stand in a stage of that width; None if it can."""
        return None if width % self.share_sets == 0 else f"{self.share_sets} share-sets do not divide {width} channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Checked):
    """Multi-head self-attention (arXiv:1706.03762), the yardstick of every token mixer here."""

    heads: int = takes(Whole(1, 256), 1)

    width_rule: ClassVar[tuple[str, ...]] = ("heads",)

    def unfit_for_width(self, width: int) -> str | None:
        """Why this mixer cannot stand in a stage of that width; None if it can."""
        return None if width % self.heads == 0 else f"{self.heads} heads do not divide {width} channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Checked):
    """Each token as it is; the block's norm and scale remain (ResMLP's ablation without communication)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTokenMixer(Checked):
    """No token half: the block keeps its channel half only."""


TokenMixer: TypeAlias = (
    Dense
    | DenseByTokens
    | DenseUnits
    | Linear
    | Axial
    | Local
    | ExternalAttention
    | DepthwiseConv
    | SeparableConv
    | Conv
    | Cycle
    | RepMlp
    | Attention
    | Identity
    | NoTokenMixer
)

TOKEN_MIXERS: dict[str, type[Any]] = {
    "dense": Dense,
    "dense_by_tokens": DenseByTokens,
    "dense_units": DenseUnits,
    "linear": Linear,
    "axial": Axial,
    "local": Local,
    "external_attention": ExternalAttention,
    "dwconv": DepthwiseConv,
    "separable_conv": SeparableConv,
    "conv": Conv,
    "cycle": Cycle,
    "repmlp": RepMlp,
    "attention": Attention,
    "identity": Identity,
    "none": NoTokenMixer,
}
