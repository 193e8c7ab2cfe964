"""Channel mixers of the language: what moves information between the channels of a position.

Each kind is one small dataclass with a row in `CHANNEL_MIXERS`; its module is in `nets.channel_mixers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from mlpspace.architecture.token_mixers import ACTIVATIONS, hidden_width
from mlpspace.fields import Checked, OneOf, Real, takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Checked):
    """Two linear layers over the channels with a GELU between them."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 4.0)  # channel ratio: hidden width / C
    activation: str = takes(OneOf(ACTIVATIONS), "gelu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating(Checked):
    """gMLP's channel MLP, half of which gates the other half after a linear map over the tokens (arXiv:2105.08050).

    It mixes tokens too, so a gMLP block has `token_mixer: none`.
    """

    ratio: float = takes(Real(0.0, 16.0, above=True), 6.0)  # width before the split / C

    def gate(self, width: int) -> int:
        """The width of either half."""
        return hidden_width(self.ratio / 2, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormedMlp(Checked):
    """RepMLPNet's channel MLP: a BatchNorm after each of its two linear layers, no biases (arXiv:2112.11081)."""

    ratio: float = takes(Real(0.0, 16.0, above=True), 4.0)  # channel ratio: hidden width / C


@dataclass(frozen=True, slots=True, kw_only=True)
class NoChannelMixer(Checked):
    """No channel half: the block keeps its token half only, or brings its own."""


ChannelMixer: TypeAlias = Mlp | Gating | NormedMlp | NoChannelMixer

CHANNEL_MIXERS: dict[str, type[Any]] = {
    "mlp": Mlp,
    "gating": Gating,
    "normed_mlp": NormedMlp,
    "none": NoChannelMixer,
}
