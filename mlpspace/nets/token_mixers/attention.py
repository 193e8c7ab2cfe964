"""Self-attention (arXiv:1706.03762), the yardstick.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture.token_mixers import Attention
from mlpspace.nets.cost import Cost, Grid, linear_cost


class AttentionMixer(nn.Module):
    """softmax(q k^T / sqrt(C / heads)) v for each head, then one linear map.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Attention, grid: Grid, width: int) -> None:
        super().__init__()
        self.heads = mixer.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, C / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, C / heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.project(y.transpose(1, 2).flatten(2)).view(x.shape)

    @staticmethod
    def cost(mixer: Attention, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        scores = Cost(macs=tokens * tokens * width, activations=tokens * tokens * mixer.heads)
        values = Cost(macs=tokens * tokens * width, activations=tokens * width)
        return linear_cost(width, 3 * width, tokens) + scores + values + linear_cost(width, width, tokens)

    @property
    def first(self) -> nn.Linear:
        return self.qkv

    @property
    def last(self) -> nn.Linear:
        return self.project
