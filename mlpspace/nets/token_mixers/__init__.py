"""Token mixers: what moves information between positions.

Each module takes its dataclass of `architecture`, the grid (H, W) and the width C of its stage, and maps (B, H, W, C)
to the same shape. To add one: its dataclass there, its module in a file here and a row of `TOKEN_MIXERS`.

A module that begins, or ends, with a linear map over the channels says so as `first`, or `last`, so that the deployed
form can put a norm or a scale into it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mlpspace.architecture.token_mixers import (
    Attention,
    Axial,
    Conv,
    Cycle,
    Dense,
    DenseByTokens,
    DenseUnits,
    DepthwiseConv,
    ExternalAttention,
    Identity,
    Linear,
    Local,
    RepMlp,
    SeparableConv,
)
from mlpspace.nets.cost import Cost, Grid
from mlpspace.nets.token_mixers.attention import AttentionMixer
from mlpspace.nets.token_mixers.axial import AxialMixer, LocalMixer
from mlpspace.nets.token_mixers.convolutions import ConvMixer, DepthwiseMixer, SeparableConvMixer
from mlpspace.nets.token_mixers.cycle import CycleMixer
from mlpspace.nets.token_mixers.dense import DenseMixer, LinearMixer
from mlpspace.nets.token_mixers.external_attention import ExternalAttentionMixer
from mlpspace.nets.token_mixers.repmlp import RepMlpMixer


class IdentityMixer(nn.Identity):
    """Each token as it is.

    Shape:
        x: (B, H, W, C). Returns x.
    """

    def __init__(self, mixer: Identity, grid: Grid, width: int) -> None:
        super().__init__()

    @staticmethod
    def cost(mixer: Identity, grid: Grid, width: int) -> Cost:
        return Cost()


# NoTokenMixer has no row: its block has no token half.
TOKEN_MIXERS: dict[type[Any], Any] = {
    Dense: DenseMixer,
    DenseByTokens: DenseMixer,
    DenseUnits: DenseMixer,
    Linear: LinearMixer,
    Axial: AxialMixer,
    Local: LocalMixer,
    ExternalAttention: ExternalAttentionMixer,
    DepthwiseConv: DepthwiseMixer,
    SeparableConv: SeparableConvMixer,
    Conv: ConvMixer,
    Cycle: CycleMixer,
    RepMlp: RepMlpMixer,
    Attention: AttentionMixer,
    Identity: IdentityMixer,
}
