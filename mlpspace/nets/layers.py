"""Norms, patch merging and heads.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlpspace.architecture import ClassTokenHead, MeanHead, Merging
from mlpspace.nets.cost import Cost, Grid, linear_cost


class LayerNorm(nn.LayerNorm):
    """Each token's channels to mean 0 and variance 1, then a learned scale and shift per channel.

    Shape:
        x: (..., C). Returns the same shape.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(params=2 * width)


class Affine(nn.Module):
    """A learned scale and shift per channel, no statistics: ResMLP's norm (arXiv:2105.03404, eq. 1).

    Shape:
        x: (..., C). Returns the same shape.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(params=2 * width)


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm over the channels, its statistics taken over images and tokens.

    Shape:
        x: (..., C). Returns the same shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view(x.shape)

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(params=2 * width)


NORMS: dict[str, type[LayerNorm | Affine | BatchNorm]] = {"layer": LayerNorm, "affine": Affine, "batch": BatchNorm}


class PatchMerging(nn.Module):
    """Halves the map: the 2 x 2 tokens of each window, joined, through one linear map to the next stage's width.

    The same as a 2 x 2 convolution of stride 2. A window's tokens are joined row by row, channels innermost.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: Merging, before: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(4 * before, width, bias=merging.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).transpose(2, 3)  # (B, H/2, W/2, 2, 2, C)
        return self.project(x.reshape(b, h // 2, w // 2, 4 * c))

    @staticmethod
    def cost(merging: Merging, before: int, grid: Grid, width: int) -> Cost:
        """`grid` is the map that comes out."""
        return linear_cost(4 * before, width, grid[0] * grid[1], merging.bias)


class ClassToken(nn.Module):
    """A learned class token before the tokens, then a fixed sinusoid added to each of them.

    The sinusoid (Vaswani et al. 2017, arXiv:1706.03762, section 3.5) is a parameter that is not trained, as in T2T-ViT
    and EAMLP, and counts as one.

    Shape:
        x: (B, H, W, C). Returns (B, 1, N + 1, C).
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.positions = nn.Parameter(_sinusoid(grid[0] * grid[1] + 1, width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        b, _, _, c = x.shape
        x = torch.cat([self.token.expand(b, 1, c), x.flatten(1, 2)], dim=1)  # (B, N + 1, C)
        return (x + self.positions).unsqueeze(1)  # (B, 1, N + 1, C)

    @staticmethod
    def cost(grid: Grid, width: int) -> Cost:
        return Cost(params=width + (grid[0] * grid[1] + 1) * width)


def _sinusoid(positions: int, width: int) -> Tensor:
    """(positions, width): sine in the even channels, cosine in the odd ones, one frequency for each pair."""
    channel = torch.arange(width)
    frequency = 10000.0 ** -(2 * (channel // 2) / width)
    angle = torch.arange(positions)[:, None] * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class MeanClassifier(nn.Module):
    """Norm, mean over the tokens, linear classifier.

    Shape:
        x: (B, H, W, C). Returns logits (B, classes).
    """

    def __init__(self, head: MeanHead, width: int, classes: int) -> None:
        super().__init__()
        self.norm: nn.Module = NORMS[head.norm](width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean(dim=(1, 2)))

    @staticmethod
    def cost(head: MeanHead, width: int, classes: int) -> Cost:
        return NORMS[head.norm].cost(width) + linear_cost(width, classes, positions=1)


class ClassTokenClassifier(nn.Module):
    """Norm and linear classifier of the class token, which `ClassToken` put first.

    Shape:
        x: (B, 1, N + 1, C). Returns logits (B, classes).
    """

    def __init__(self, head: ClassTokenHead, width: int, classes: int) -> None:
        super().__init__()
        self.norm: nn.Module = NORMS[head.norm](width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x)[:, 0, 0])

    @staticmethod
    def cost(head: ClassTokenHead, width: int, classes: int) -> Cost:
        return NORMS[head.norm].cost(width) + linear_cost(width, classes, positions=1)


HEADS: dict[type[Any], Any] = {MeanHead: MeanClassifier, ClassTokenHead: ClassTokenClassifier}
