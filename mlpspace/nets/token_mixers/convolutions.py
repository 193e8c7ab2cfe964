"""Convolutions as token mixers.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlpspace.architecture.token_mixers import Conv, DepthwiseConv, SeparableConv
from mlpspace.nets.cost import Cost, Grid, conv_cost, depthwise_cost, linear_cost


class SameConv(nn.Conv2d):
    """A convolution of stride 1 that keeps the map's size, the border filled with zeros.

    Shape:
        x: (B, H, W, C), a permuted view of which is what the convolution calls channels-last. Returns the same shape.
    """

    def __init__(self, kernel: int, width: int, *, groups: int = 1, bias: bool = True) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Depthwise(SameConv):
    """A depthwise convolution of stride 1.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, kernel: int, width: int, bias: bool) -> None:
        super().__init__(kernel, width, groups=width, bias=bias)


class DepthwiseMixer(nn.Module):
    """One depthwise convolution.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: DepthwiseConv, grid: Grid, width: int) -> None:
        super().__init__()
        self.conv = Depthwise(mixer.kernel, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    @staticmethod
    def cost(mixer: DepthwiseConv, grid: Grid, width: int) -> Cost:
        return depthwise_cost(mixer.kernel, grid, width)

    @property
    def last(self) -> nn.Conv2d:
        return self.conv


class SeparableConvMixer(nn.Module):
    """A depthwise convolution, then one linear map over the channels.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: SeparableConv, grid: Grid, width: int) -> None:
        super().__init__()
        self.conv = Depthwise(mixer.kernel, width, bias=True)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.conv(x))

    @staticmethod
    def cost(mixer: SeparableConv, grid: Grid, width: int) -> Cost:
        return depthwise_cost(mixer.kernel, grid, width) + linear_cost(width, width, grid[0] * grid[1])

    @property
    def last(self) -> nn.Linear:
        return self.project


class ConvMixer(nn.Module):
    """One full convolution.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Conv, grid: Grid, width: int) -> None:
        super().__init__()
        self.conv = SameConv(mixer.kernel, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    @staticmethod
    def cost(mixer: Conv, grid: Grid, width: int) -> Cost:
        return conv_cost(mixer.kernel, width, width, grid)

    @property
    def last(self) -> nn.Conv2d:
        return self.conv
