"""Token mixers: what moves information between positions.

Each module takes its dataclass of `architecture`, the grid (H, W) and the width C of its stage, and maps (B, H, W, C)
to the same shape. To add one: its dataclass there, its module and a row of `TOKEN_MIXERS` here.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import Axial, Dense, DepthwiseConv, ExternalAttention, Linear, hidden_width
from mlpspace.nets.cost import Cost, Grid, depthwise_cost, linear_cost
from mlpspace.nets.layers import BatchNorm


class TokenLinear(nn.Module):
    """A linear map over the tokens, the same for all channels.

    The weight multiplies from the left, so nothing is transposed or copied.

    Shape:
        x: (B, inputs, C). Returns (B, outputs, C).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            weight = weight.to(torch.get_autocast_dtype(device))  # else autocast casts and keeps one copy an image
        return torch.baddbmm(self.bias[:, None], weight.expand(len(x), -1, -1), x)


class DenseMixer(nn.Module):
    """Two linear maps over the tokens with a GELU between them (arXiv:2105.01601, eq. 1).

    Its weights are sized by the token count, so a network built for one resolution does not load at another.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Dense, grid: Grid, width: int) -> None:
        super().__init__()
        tokens = grid[0] * grid[1]
        hidden = hidden_width(mixer.ratio, width)
        self.expand = TokenLinear(tokens, hidden)
        self.project = TokenLinear(hidden, tokens)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.expand(x.flatten(1, 2)))  # (B, hidden, C)
        return self.project(y).view(x.shape)

    @staticmethod
    def cost(mixer: Dense, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = hidden_width(mixer.ratio, width)
        return linear_cost(tokens, hidden, positions=width) + linear_cost(hidden, tokens, positions=width)


class LinearMixer(nn.Module):
    """One linear map over the tokens (arXiv:2105.03404, eq. 2).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Linear, grid: Grid, width: int) -> None:
        super().__init__()
        tokens = grid[0] * grid[1]
        self.linear = TokenLinear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1, 2)).view(x.shape)

    @staticmethod
    def cost(mixer: Linear, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        return linear_cost(tokens, tokens, positions=width)


class Depthwise(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the map's size, the border filled with zeros.

    Shape:
        x: (B, H, W, C), a permuted view of which is what the convolution calls channels-last. Returns the same shape.
    """

    def __init__(self, kernel: int, width: int, bias: bool) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


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


class AxialMixer(nn.Module):
    """sMLPNet's token mixing (arXiv:2109.05422): first near, then along rows and along columns.

        y = depthwise(gelu(norm(x)))                            only with `local`
        z = gelu(norm(y)),   out = fuse(z, rows(z), columns(z))

    `rows` maps the W positions of each row, `columns` the H positions of each column, both the same for all channels
    and all rows or columns. "concat" fuses by one linear map of the joined channels, "sum" adds, "weighted" adds with
    one learned weight for each branch. Without `identity` z itself is no branch.

    Shape:
        x: (B, H, W, C), not normed. Returns the same shape.
    """

    def __init__(self, mixer: Axial, grid: Grid, width: int) -> None:
        super().__init__()
        height, row = grid
        self.identity = mixer.identity
        self.fusion = mixer.fusion
        self.local: nn.Module = (
            nn.Sequential(BatchNorm(width), nn.GELU(), Depthwise(mixer.local, width, bias=False))
            if mixer.local
            else nn.Identity()
        )
        self.norm: nn.Module = BatchNorm(width)
        self.rows = TokenLinear(row, row)
        self.columns = TokenLinear(height, height)
        branches = 2 + mixer.identity
        if mixer.fusion == "concat":
            self.fuse = nn.Linear(branches * width, width, bias=False)
        elif mixer.fusion == "weighted":
            self.weights = nn.Parameter(torch.ones(branches))

    def forward(self, x: Tensor) -> Tensor:
        z = F.gelu(self.norm(self.local(x)))
        rows = self.rows(z.flatten(0, 1)).view(z.shape)  # as (B * H, W, C)
        columns = self.columns(z.flatten(2)).view(z.shape)  # as (B, H, W * C)
        branches = [z, rows, columns] if self.identity else [rows, columns]
        if self.fusion == "concat":
            return self.fuse(torch.cat(branches, dim=-1))
        if self.fusion == "weighted":
            branches = [weight * branch for weight, branch in zip(self.weights, branches, strict=True)]
        return reduce(torch.add, branches)

    @staticmethod
    def cost(mixer: Axial, grid: Grid, width: int) -> Cost:
        height, row = grid
        branches = 2 + mixer.identity
        cost = BatchNorm.cost(width)
        if mixer.local:
            cost += BatchNorm.cost(width) + depthwise_cost(mixer.local, grid, width, bias=False)
        cost += linear_cost(row, row, positions=height * width)
        cost += linear_cost(height, height, positions=row * width)
        if mixer.fusion == "concat":
            cost += linear_cost(branches * width, width, positions=height * row, bias=False)
        elif mixer.fusion == "weighted":
            cost += Cost(params=branches)
        return cost


class ExternalAttentionMixer(nn.Module):
    """Attention over two memories that all images and all heads share (arXiv:2105.02358; heads as in EAMLP).

        scores = key(query(x)),   out = project(value(normalised scores))

    The queries are split into heads; the memories are linear maps, `key` to the `memory` units and `value` back.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: ExternalAttention, grid: Grid, width: int) -> None:
        super().__init__()
        queries = mixer.expansion * width
        head = queries // mixer.heads
        self.heads = mixer.heads
        self.double_norm = mixer.double_norm
        self.query = nn.Linear(width, queries)
        self.key = nn.Linear(head, mixer.memory)
        self.value = nn.Linear(mixer.memory, head)
        self.project = nn.Linear(queries, width)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x.flatten(1, 2))  # (B, N, queries)
        scores = self.key(query.unflatten(-1, (self.heads, -1)))  # (B, N, heads, memory)
        scores = double_normalised(scores) if self.double_norm else scores.softmax(dim=-1)
        return self.project(self.value(scores).flatten(2)).view(x.shape)

    @staticmethod
    def cost(mixer: ExternalAttention, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        queries = mixer.expansion * width
        head = queries // mixer.heads
        memories = linear_cost(head, mixer.memory, tokens * mixer.heads)
        memories += linear_cost(mixer.memory, head, tokens * mixer.heads)
        return linear_cost(width, queries, tokens) + memories + linear_cost(queries, width, tokens)


def double_normalised(scores: Tensor) -> Tensor:
    """Softmax over the tokens, then each token's shares of the memory units to sum 1 (arXiv:2105.02358, eqs. 7 to 9).

    Shape:
        scores: (B, N, ..., memory). Returns the same shape.
    """
    shares = scores.softmax(dim=1)
    return shares / (1e-9 + shares.sum(dim=-1, keepdim=True))


# NoTokenMixer has no row: its block has no token half.
TOKEN_MIXERS: dict[type[Any], Any] = {
    Dense: DenseMixer,
    Linear: LinearMixer,
    Axial: AxialMixer,
    ExternalAttention: ExternalAttentionMixer,
    DepthwiseConv: DepthwiseMixer,
}
