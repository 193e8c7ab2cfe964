"""Linear maps over the tokens: MLP-Mixer's token MLP and ResMLP's single map.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlpspace.architecture.token_mixers import Dense, DenseByTokens, DenseUnits, Linear
from mlpspace.nets.activations import Gelu
from mlpspace.nets.cost import Cost, Grid, linear_cost
from mlpspace.nets.norms import Affine


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

    def __init__(self, mixer: Dense | DenseByTokens | DenseUnits, grid: Grid, width: int) -> None:
        super().__init__()
        tokens = grid[0] * grid[1]
        hidden = mixer.hidden(tokens, width)
        self.expand = TokenLinear(tokens, hidden)
        self.project = TokenLinear(hidden, tokens)
        self.activation = Gelu("tanh" if mixer.activation == "gelu_tanh" else "none")

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.expand(x.flatten(1, 2)))  # (B, hidden, C)
        return self.project(y).view(x.shape)

    @staticmethod
    def cost(mixer: Dense | DenseByTokens | DenseUnits, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = mixer.hidden(tokens, width)
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

    def folded_half(self, norm: nn.Module, scale: Tensor | None) -> FoldedLinear | None:
        """x + scale * self(norm(x)) as one module, where the norm is a scale and shift."""
        if not isinstance(norm, Affine):
            return None
        weight = self.linear.weight
        scale = torch.ones_like(norm.alpha) if scale is None else scale
        row_sums = weight.double().sum(1)
        offset = row_sums[:, None] * norm.beta.double() + self.linear.bias.double()[:, None]  # (N, C)
        return FoldedLinear(weight.clone(), scale * norm.alpha, (scale.double() * offset).to(weight.dtype))


class FoldedLinear(nn.Module):
    """A whole ResMLP token half in one matrix product: x + scale * (W x) + offset.

    With W x the map over the tokens: ls * (W (alpha * x + beta) + b) = ls * alpha * (W x) + ls * (beta * W 1 + b).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, weight: Tensor, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (N, N)
        self.scale = nn.Parameter(scale)  # (C,)
        self.offset = nn.Parameter(offset)  # (N, C)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)  # (B, N, C)
        mixed = torch.bmm(self.weight.expand(len(x), -1, -1), tokens)
        return (tokens + self.offset).addcmul_(self.scale, mixed).view(x.shape)
