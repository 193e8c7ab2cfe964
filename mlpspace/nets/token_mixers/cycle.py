"""CycleMLP's token mixing (arXiv:2107.10224).

Shapes: B batch, H W map, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture.token_mixers import Cycle
from mlpspace.nets.cost import Cost, Grid, linear_cost


class CycleLinear(nn.Linear):
    """CycleFC: a linear map over the channels, each read at its own step along one axis of the map.

    Channel i is read (i + k // 2) mod k - k // 2 positions further on, so the steps cycle through 0, 1, .. k // 2,
    -(k // 2), .. -1. Beyond the border all is zero. No deformable convolution is needed: channels of one step are one
    shifted slice. The steps are kept beside the weights, as (down, right) of each channel, since the official
    checkpoints have them; a checkpoint with other steps, fractions of a position among them, is read at its own.

    Shape:
        x: (B, H, W, C). Returns (B, H, W, C).
    """

    steps: Tensor  # (C, 2)

    def __init__(self, width: int, kernel: int, axis: int) -> None:
        super().__init__(width, width)
        self.kernel = kernel
        self.axis = axis  # 1: along the columns (H), 2: along the rows (W)
        self.register_buffer("steps", cycle_steps(width, kernel, axis))
        self.reach: int | None = None  # of steps other than the paper's, in positions
        self.register_load_state_dict_post_hook(_look_at_steps)

    def forward(self, x: Tensor) -> Tensor:
        if self.reach is not None:
            return super().forward(read_between(x, self.steps, self.reach))
        return super().forward(cycled(x, self.kernel, self.axis))


def cycle_steps(width: int, kernel: int, axis: int) -> Tensor:
    """(width, 2): how far down and to the right each channel is read."""
    steps = torch.zeros(width, 2)
    steps[:, axis - 1] = (torch.arange(width) + kernel // 2) % kernel - float(kernel // 2)
    return steps


def _look_at_steps(linear: CycleLinear, loaded: Any) -> None:
    """After a checkpoint was loaded: does it read where the paper does?"""
    if not linear.steps.is_meta:
        steps = cycle_steps(linear.in_features, linear.kernel, linear.axis)
        own = not torch.equal(linear.steps.cpu(), steps.to(linear.steps.dtype))
        linear.reach = int(linear.steps.abs().max().ceil()) if own else None


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


def read_between(x: Tensor, steps: Tensor, reach: int) -> Tensor:
    """x with each channel read at its own step, between positions by bilinear interpolation, beyond the border zero.

    That is a depthwise convolution, the weight of a position falling linearly with its distance from the step.

    Shape:
        x: (B, H, W, C), steps: (C, 2), none longer than `reach`. Returns (B, H, W, C).
    """
    taps = torch.arange(-reach, reach + 1, device=steps.device)
    tents = (1 - (steps[:, :, None] - taps).abs()).clamp(min=0).to(x.dtype)  # (C, 2, taps)
    kernel = tents[:, :1, :, None] * tents[:, 1:, None, :]  # (C, 1, taps, taps)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=reach, groups=len(steps)).permute(0, 2, 3, 1)


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
