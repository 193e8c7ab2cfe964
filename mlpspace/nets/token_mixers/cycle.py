"""CycleMLP's token mixing (arXiv:2107.10224).

Shapes: B batch, H W map, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import Cycle
from mlpspace.nets.cost import Cost, Grid, linear_cost


class CycleLinear(nn.Linear):
    """CycleFC: a linear map over the channels, each read at its own step along one axis of the map.

    Channel i is read (i + k // 2) mod k - k // 2 positions further on, so the steps cycle through 0, 1, .. k // 2,
    -(k // 2), .. -1. Beyond the border all is zero. No deformable convolution is needed: channels of one step are one
    shifted slice.

    Shape:
        x: (B, H, W, C). Returns (B, H, W, C).
    """

    def __init__(self, width: int, kernel: int, axis: int) -> None:
        super().__init__(width, width)
        self.kernel = kernel
        self.axis = axis  # 1: along the columns (H), 2: along the rows (W)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(cycled(x, self.kernel, self.axis))


def cycled(x: Tensor, kernel: int, axis: int) -> Tensor:
    """x with channel i moved so that each position holds what lay its step further on.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """
    reach = kernel // 2
    length = x.shape[axis]
    pad = (0, 0, reach, reach) if axis == 2 else (0, 0, 0, 0, reach, reach)
    padded = F.pad(x, pad)
    y = torch.empty_like(x)
    for first in range(min(kernel, x.shape[-1])):
        step = (first + reach) % kernel - reach
        y[..., first::kernel] = padded.narrow(axis, reach + step, length)[..., first::kernel]
    return y


class CycleMixer(nn.Module):
    """Three linear maps, read along rows, along columns and in place, weighed by split attention (arXiv:2004.08955).

        h, w, c = rows(x), columns(x), place(x)
        weights = softmax over the three of  reweight(mean over the map of h + w + c)
        out     = project(weights . (h, w, c)),   per channel

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Cycle, grid: Grid, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 4)
        self.rows = CycleLinear(width, mixer.kernel, axis=2)
        self.columns = CycleLinear(width, mixer.kernel, axis=1)
        self.place = nn.Linear(width, width, bias=False)
        self.reweight = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 3 * width))
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.rows(x), self.columns(x), self.place(x)
        mean = (branches[0] + branches[1] + branches[2]).mean(dim=(1, 2))  # (B, C)
        weights = self.reweight(mean).unflatten(-1, (-1, 3)).softmax(dim=-1)  # (B, C, 3)
        y = sum(weights[:, None, None, :, i] * branch for i, branch in enumerate(branches))
        return self.project(y)

    @staticmethod
    def cost(mixer: Cycle, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = max(1, width // 4)
        maps = linear_cost(width, width, tokens) * 3 + linear_cost(width, width, tokens, bias=False)
        return maps + linear_cost(width, hidden, 1) + linear_cost(hidden, 3 * width, 1)

    @property
    def last(self) -> nn.Linear:
        return self.project
