"""RepMLPNet's token mixing (arXiv:2112.11081).

Shapes: B batch, H W map, N = H * W tokens, C channels, S share-sets; channel c belongs to share-set c mod S.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture.token_mixers import RepMlp
from mlpspace.nets.cost import Cost, Grid, linear_cost
from mlpspace.nets.norms import Affine, BatchNorm


class ShareSetLinear(nn.Module):
    """A linear map over the tokens for each share-set, without bias.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, tokens: int, share_sets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(share_sets, tokens, tokens))

    def forward(self, x: Tensor) -> Tensor:
        return mixed_by_sets(x, self.weight)


def mixed_by_sets(x: Tensor, weight: Tensor) -> Tensor:
    """Each channel's tokens times the matrix of its share-set.

    Shape:
        x: (B, H, W, C), weight: (S, N, N). Returns (B, H, W, C).
    """
    b, sets = len(x), len(weight)
    columns = x.flatten(1, 2).unflatten(-1, (-1, sets)).permute(3, 1, 0, 2)  # (S, N, B, C / S)
    y = torch.bmm(weight, columns.flatten(2))  # (S, N, B * C / S)
    return y.unflatten(-1, (b, -1)).permute(2, 1, 3, 0).reshape(x.shape)


class ShareSetConv(nn.Module):
    """A depthwise convolution whose kernels are shared as the matrices are, then BatchNorm over each share-set.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, kernel: int, share_sets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(share_sets, 1, kernel, kernel))
        self.norm: nn.Module = ShareSetNorm(share_sets)

    def forward(self, x: Tensor) -> Tensor:
        width, kernel = x.shape[-1], self.weight.shape[-1]
        weight = self.weight.repeat(width // len(self.weight), 1, 1, 1)  # (C, 1, k, k)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=kernel // 2, groups=width)
        return self.norm(y.permute(0, 2, 3, 1))


class ShareSetNorm(BatchNorm):
    """BatchNorm with one scale and one shift for all channels of a share-set.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(-1, (-1, self.num_features))).flatten(-2)


class Gate(nn.Module):
    """A factor between 0 and 1 for each channel, from the mean of the map (squeeze and excitation, arXiv:1709.01507).

    Shape:
        x: (B, H, W, C). Returns (B, 1, 1, C).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 4)
        self.reduce = nn.Linear(width, hidden)
        self.expand = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(F.relu(self.reduce(x.mean(dim=(1, 2))))).sigmoid()[:, None, None]

    @staticmethod
    def cost(width: int) -> Cost:
        hidden = max(1, width // 4)
        return linear_cost(width, hidden, 1) + linear_cost(hidden, width, 1)


class RepMlpMixer(nn.Module):
    """gate(x) * (norm(matrix(x)) + sum of norm(conv(x)) over the kernels 1, 3, .. k).

    A convolution is a matrix over the tokens too, so in the deployed form one matrix is left of the sum.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: RepMlp, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.gate = Gate(width)
        self.matrix = ShareSetLinear(grid[0] * grid[1], mixer.share_sets)
        self.norm: nn.Module = ShareSetNorm(mixer.share_sets)
        self.convs = nn.ModuleList(ShareSetConv(kernel, mixer.share_sets) for kernel in _kernels(mixer))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.matrix(x))
        for conv in self.convs:
            y = y + conv(x)
        return y * self.gate(x)

    @staticmethod
    def cost(mixer: RepMlp, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        cost = Gate.cost(width) + BatchNorm.cost(mixer.share_sets) * (1 + len(_kernels(mixer)))
        for params, taps in [(tokens * tokens, tokens), *((k * k, k * k) for k in _kernels(mixer))]:
            cost += Cost(mixer.share_sets * params, tokens * width * taps, tokens * width)
        return cost

    def folded(self) -> FoldedRepMlp:
        """Norms and convolutions merged into one matrix and a bias for each share-set."""
        weight, bias = _scaled(self.matrix.weight.double(), self.norm)
        for conv in self.convs:
            assert isinstance(conv, ShareSetConv)
            kernel, shift = _scaled(conv.weight.double(), conv.norm)
            weight += as_matrices(kernel, self.grid)
            bias = bias + shift
        dtype = self.matrix.weight.dtype
        bias = bias[:, None].expand(-1, weight.shape[1])  # one for each token, as the official merged form has it
        return FoldedRepMlp(self.gate, weight.to(dtype), bias.to(dtype).clone())


class FoldedRepMlp(nn.Module):
    """RepMLP's merged form: gate(x) * (matrix(x) + bias).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, gate: Gate, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.gate = gate
        self.weight = nn.Parameter(weight, requires_grad=False)  # (S, N, N)
        self.bias = nn.Parameter(bias, requires_grad=False)  # (S, N)

    def forward(self, x: Tensor) -> Tensor:
        y = mixed_by_sets(x, self.weight).flatten(1, 2).unflatten(-1, (-1, len(self.bias)))  # (B, N, C / S, S)
        return (y + self.bias.T[:, None]).reshape(x.shape) * self.gate(x)


def _kernels(mixer: RepMlp) -> range:
    return range(1, mixer.kernel + 1, 2)


def _scaled(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights, first axis the share-sets, that take in the norm after them; and the shift that is left."""
    assert isinstance(norm, Affine)
    return weight * norm.alpha.double().view(-1, *[1] * (weight.dim() - 1)), norm.beta.double()


def as_matrices(kernel: Tensor, grid: Grid) -> Tensor:
    """Depthwise kernels, the border filled with zeros, as matrices over the tokens: what they make of each one-hot map.

    Shape:
        kernel: (S, 1, k, k). Returns (S, N, N).
    """
    tokens = grid[0] * grid[1]
    basis = torch.eye(tokens, dtype=kernel.dtype, device=kernel.device).view(tokens, 1, *grid)
    y = F.conv2d(basis, kernel, padding=kernel.shape[-1] // 2)  # (N in, S, H, W)
    return y.flatten(2).permute(1, 2, 0)
