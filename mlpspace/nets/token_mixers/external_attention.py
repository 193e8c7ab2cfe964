"""External attention (arXiv:2105.02358).

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from mlpspace.architecture.token_mixers import ExternalAttention
from mlpspace.nets.cost import Cost, Grid, linear_cost
from mlpspace.nets.folding import linear_of


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

    @property
    def first(self) -> nn.Linear:
        return self.query

    @property
    def last(self) -> nn.Linear:
        return self.project

    def folded(self) -> nn.Module:
        """Its four linear maps as two, where that is cheaper."""
        return FoldedAttention(self).requires_grad_(False) if FoldedAttention.is_cheaper(self) else self


class FoldedAttention(nn.Module):
    """External attention with one linear map to the scores of all heads and one from them.

    Nothing stands between query and key, nor between value and projection, so each pair is one linear map.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, attention: ExternalAttentionMixer) -> None:
        super().__init__()
        self.heads, self.double_norm = attention.heads, attention.double_norm
        heads = self.heads
        # float64, as products of weights are rounded once here and would be twice otherwise
        query, key, value, project = (
            copy.deepcopy(m).double() for m in (attention.query, attention.key, attention.value, attention.project)
        )
        width = query.in_features
        dtype = attention.query.weight.dtype
        to_scores = key.weight @ query.weight.unflatten(0, (heads, -1))  # (heads, memory, C)
        scores_bias = query.bias.unflatten(0, (heads, -1)) @ key.weight.T + key.bias  # (heads, memory)
        from_scores = project.weight.unflatten(1, (heads, -1)).transpose(0, 1) @ value.weight  # (heads, C, memory)
        bias = project.bias + project.weight @ value.bias.repeat(heads)
        self.to_scores = linear_of(to_scores.reshape(-1, width).to(dtype), scores_bias.flatten().to(dtype))
        self.from_scores = linear_of(from_scores.transpose(0, 1).reshape(width, -1).to(dtype), bias.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.to_scores(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))  # (B, N, heads, memory)
        scores = double_normalised(scores) if self.double_norm else scores.softmax(dim=-1)
        return self.from_scores(scores.flatten(2)).view(x.shape)

    @property
    def first(self) -> nn.Linear:
        return self.to_scores

    @property
    def last(self) -> nn.Linear:
        return self.from_scores

    @staticmethod
    def is_cheaper(attention: ExternalAttentionMixer) -> bool:
        """Fewer multiply-accumulates a token: heads * memory * 2C against what the four maps take."""
        width, queries = attention.query.in_features, attention.query.out_features
        memory = attention.key.out_features
        return 2 * attention.heads * memory * width < 2 * queries * (width + memory)


def double_normalised(scores: Tensor) -> Tensor:
    """Softmax over the tokens, then each token's shares of the memory units to sum 1 (arXiv:2105.02358, eqs. 7 to 9).

    Shape:
        scores: (B, N, ..., memory). Returns the same shape.
    """
    shares = scores.softmax(dim=1)
    return shares / (1e-9 + shares.sum(dim=-1, keepdim=True))
