"""Channel mixers: what moves information between the channels of one position.

Each module takes its dataclass of `architecture` and the width C of its stage, and maps (B, H, W, C) to the same shape.
To add one: its dataclass there, its module and a row of `CHANNEL_MIXERS` here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import Mlp, hidden_width
from mlpspace.nets.cost import Cost, Grid, linear_cost


class ChannelMlp(nn.Module):
    """Two linear maps over the channels with a GELU between them (arXiv:2105.01601, eq. 1).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Mlp, width: int) -> None:
        super().__init__()
        hidden = hidden_width(mixer.ratio, width)
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.expand(x)))

    @staticmethod
    def cost(mixer: Mlp, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = hidden_width(mixer.ratio, width)
        return linear_cost(width, hidden, tokens) + linear_cost(hidden, width, tokens)


CHANNEL_MIXERS: dict[type[Any], Any] = {Mlp: ChannelMlp}
