"""Blocks: how a norm, a token mixer and a channel mixer make one.

Each module takes its stage of `architecture` and the grid (H, W), and maps (B, H, W, C) to the same shape. To add
one: its dataclass there, its module and a row of `BLOCKS` here.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import (
    Bottleneck,
    ChannelFirst,
    ExternalAttentionUnit,
    NoChannelMixer,
    NoTokenMixer,
    ParallelDepthwise,
    RepMlpBottleneck,
    RepMlpLight,
    Residual,
    Stage,
)
from mlpspace.nets.channel_mixers import CHANNEL_MIXERS
from mlpspace.nets.cost import Cost, Grid, depthwise_cost, linear_cost
from mlpspace.nets.folding import composed, scale_inputs, scale_outputs
from mlpspace.nets.norms import NORMS, Affine, BatchNorm
from mlpspace.nets.resnet import BottleneckBlock, RepMlpBottleneckBlock, RepMlpLightBlock
from mlpspace.nets.token_mixers import TOKEN_MIXERS
from mlpspace.nets.token_mixers.convolutions import Depthwise
from mlpspace.nets.token_mixers.external_attention import double_normalised


class Half(nn.Module):
    """Half a block: x + scale * mixer(norm(x)), `scale` (LayerScale, arXiv:2103.17239) per channel or not at all.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, norm: nn.Module, mixer: nn.Module, width: int, layer_scale: float | None) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(self.norm(x))
        return x + y if self.scale is None else torch.addcmul(x, self.scale, y)

    def folded(self) -> nn.Module:
        """The norm goes into the mixer's first linear map and the scale into its last, where it has such."""
        whole = getattr(self.mixer, "folded_half", None)
        in_one: nn.Module | None = None if whole is None else whole(self.norm, self.scale)
        if in_one is not None:
            return in_one.requires_grad_(False)
        first, last = getattr(self.mixer, "first", None), getattr(self.mixer, "last", None)
        if isinstance(self.norm, Affine) and first is not None:
            scale_inputs(first, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        if self.scale is not None and last is not None:
            scale_outputs(last, self.scale)
            self.scale = None
        return self if self.scale is not None else FoldedHalf(self.norm, self.mixer)


class FoldedHalf(nn.Module):
    """x + mixer(norm(x)), the sum in the memory of the mixer's output, which nobody else reads.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, norm: nn.Module, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mixer(self.norm(x))
        return y.add_(x)


def token_half(stage: Stage, grid: Grid, norm: nn.Module | None = None) -> nn.Module:
    """The token half of a stage's blocks: `Half`, or nothing. `norm` stands for the stage's where it is given."""
    if isinstance(stage.token_mixer, NoTokenMixer):
        return nn.Identity()
    if norm is None:
        norm = NORMS[stage.norm](stage.width)
    if _brings_norm(stage):
        norm = nn.Identity()
    mixer = TOKEN_MIXERS[type(stage.token_mixer)](stage.token_mixer, grid, stage.width)
    return Half(norm, mixer, stage.width, stage.layer_scale)


def channel_half(stage: Stage, grid: Grid, layer_scale: float | None) -> nn.Module:
    """The channel half of a stage's blocks: `Half`, or nothing."""
    if isinstance(stage.channel_mixer, NoChannelMixer):
        return nn.Identity()
    mixer = CHANNEL_MIXERS[type(stage.channel_mixer)](stage.channel_mixer, grid, stage.width)
    return Half(NORMS[stage.norm](stage.width), mixer, stage.width, layer_scale)


def token_cost(stage: Stage, grid: Grid, norm: Cost | None = None) -> Cost:
    """What `token_half` costs; `norm`: what a norm in place of the stage's does."""
    if isinstance(stage.token_mixer, NoTokenMixer):
        return Cost()
    cost: Cost = TOKEN_MIXERS[type(stage.token_mixer)].cost(stage.token_mixer, grid, stage.width)
    if not _brings_norm(stage):
        cost += NORMS[stage.norm].cost(stage.width) if norm is None else norm
    return cost + _scale_cost(stage.width, stage.layer_scale)


def channel_cost(stage: Stage, grid: Grid, layer_scale: float | None) -> Cost:
    """What `channel_half` costs."""
    if isinstance(stage.channel_mixer, NoChannelMixer):
        return Cost()
    cost: Cost = CHANNEL_MIXERS[type(stage.channel_mixer)].cost(stage.channel_mixer, grid, stage.width)
    return cost + NORMS[stage.norm].cost(stage.width) + _scale_cost(stage.width, layer_scale)


def _scale_cost(width: int, layer_scale: float | None) -> Cost:
    return Cost() if layer_scale is None else Cost(params=width)


def _brings_norm(stage: Stage) -> bool:
    return getattr(stage.token_mixer, "own_norm", False)


class ResidualBlock(nn.Module):
    """The token half, then the channel half.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        self.token = token_half(stage, grid)
        self.channel = channel_half(stage, grid, stage.layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(self.token(x))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        return token_cost(stage, grid) + channel_cost(stage, grid, stage.layer_scale)


class ChannelFirstBlock(nn.Module):
    """The channel half, then the token half, whose LayerNorm goes over the tokens of each channel.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        self.channel = channel_half(stage, grid, stage.layer_scale)
        self.token = token_half(stage, grid, norm=TokenNorm(grid))

    def forward(self, x: Tensor) -> Tensor:
        return self.token(self.channel(x))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        return channel_cost(stage, grid, stage.layer_scale) + token_cost(stage, grid, norm=TokenNorm.cost(grid))


class TokenNorm(nn.Module):
    """Each channel's tokens to mean 0 and variance 1, then a learned scale and shift per token.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.norm = NORMS["layer"](grid[0] * grid[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)

    @staticmethod
    def cost(grid: Grid) -> Cost:
        return NORMS["layer"].cost(grid[0] * grid[1])


class ParallelDepthwiseBlock(nn.Module):
    """x + scale * mixer(norm(x)) + depthwise(x), then the channel half without a scale (SPACH).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        assert isinstance(stage.block, ParallelDepthwise)
        self.token = token_half(stage, grid)
        self.depthwise = Depthwise(stage.block.kernel, stage.width, bias=True)
        self.channel = channel_half(stage, grid, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(self.token(x) + self.depthwise(x))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        assert isinstance(stage.block, ParallelDepthwise)
        depthwise = depthwise_cost(stage.block.kernel, grid, stage.width)
        return token_cost(stage, grid) + depthwise + channel_cost(stage, grid, None)


class ExternalAttentionUnitBlock(nn.Module):
    """relu(x + norm(project(value(double_normalised(key(query(x))))))), the norm a BatchNorm.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        assert isinstance(stage.block, ExternalAttentionUnit)
        width, memory = stage.width, stage.block.memory
        self.query: nn.Module = nn.Linear(width, width)
        self.key = nn.Linear(width, memory, bias=False)
        self.value: nn.Module = nn.Linear(memory, width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.norm: nn.Module = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.key(self.query(x.flatten(1, 2)))  # (B, N, memory)
        y = self.project(self.value(double_normalised(scores)))
        return F.relu(x + self.norm(y).view(x.shape))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        assert isinstance(stage.block, ExternalAttentionUnit)
        width, memory, tokens = stage.width, stage.block.memory, grid[0] * grid[1]
        memories = linear_cost(width, memory, tokens, bias=False) + linear_cost(memory, width, tokens, bias=False)
        ends = linear_cost(width, width, tokens) + linear_cost(width, width, tokens, bias=False)
        return ends + memories + BatchNorm.cost(width)

    def folded(self) -> ExternalAttentionUnitBlock:
        """Each pair of linear maps is one, and the norm goes into the second."""
        if isinstance(self.norm, Affine):
            assert isinstance(self.query, nn.Linear)
            assert isinstance(self.value, nn.Linear)
            scale_outputs(self.project, self.norm.alpha, self.norm.beta)
            self.key, self.project = composed(self.query, self.key), composed(self.value, self.project)
            self.norm = self.query = self.value = nn.Identity()
        return self


BLOCKS: dict[type[Any], Any] = {
    Residual: ResidualBlock,
    ChannelFirst: ChannelFirstBlock,
    ParallelDepthwise: ParallelDepthwiseBlock,
    ExternalAttentionUnit: ExternalAttentionUnitBlock,
    Bottleneck: BottleneckBlock,
    RepMlpLight: RepMlpLightBlock,
    RepMlpBottleneck: RepMlpBottleneckBlock,
}
