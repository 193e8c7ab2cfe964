"""sMLPNet's token mixing (arXiv:2109.05422).

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from mlpspace.architecture.token_mixers import Axial, Local
from mlpspace.nets.activations import Gelu
from mlpspace.nets.cost import Cost, Grid, depthwise_cost, linear_cost
from mlpspace.nets.folding import scale_outputs
from mlpspace.nets.norms import Affine, BatchNorm
from mlpspace.nets.token_mixers.convolutions import Depthwise
from mlpspace.nets.token_mixers.dense import TokenLinear


class LocalMixer(nn.Module):
    """Its first half: depthwise(gelu(norm(x))).

    Shape:
        x: (B, H, W, C), not normed. Returns the same shape.
    """

    def __init__(self, mixer: Local, grid: Grid, width: int) -> None:
        super().__init__()
        self.norm: nn.Module = BatchNorm(width)
        self.activation = Gelu()
        self.conv = Depthwise(mixer.kernel, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.activation(self.norm(x)))

    @staticmethod
    def cost(mixer: Local, grid: Grid, width: int) -> Cost:
        return BatchNorm.cost(width) + depthwise_cost(mixer.kernel, grid, width, bias=False)

    @property
    def last(self) -> nn.Conv2d:
        return self.conv


class AxialMixer(nn.Module):
    """Both halves: first near, then along rows and along columns.

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
        self.local = LocalMixer(Local(kernel=mixer.local), grid, width) if mixer.local else nn.Identity()
        self.norm: nn.Module = BatchNorm(width)
        self.activation = Gelu()
        self.rows = TokenLinear(row, row)
        self.columns = TokenLinear(height, height)
        branches = 2 + mixer.identity
        if mixer.fusion == "concat":
            self.fuse = nn.Linear(branches * width, width, bias=False)
        elif mixer.fusion == "weighted":
            self.weights = nn.Parameter(torch.ones(branches))

    def forward(self, x: Tensor) -> Tensor:
        z = self.activation(self.norm(self.local(x)))
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
            cost += LocalMixer.cost(Local(kernel=mixer.local), grid, width)
        cost += linear_cost(row, row, positions=height * width)
        cost += linear_cost(height, height, positions=row * width)
        if mixer.fusion == "concat":
            cost += linear_cost(branches * width, width, positions=height * row, bias=False)
        elif mixer.fusion == "weighted":
            cost += Cost(params=branches)
        return cost

    @property
    def last(self) -> nn.Linear | None:
        return self.fuse if self.fusion == "concat" else None

    def folded(self) -> AxialMixer:
        """The second norm goes into the depthwise convolution before it."""
        if isinstance(self.local, LocalMixer) and isinstance(self.norm, Affine):
            scale_outputs(self.local.conv, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        return self
