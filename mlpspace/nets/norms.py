"""Norms. Shapes: C channels, last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlpspace.nets.cost import Cost


class LayerNorm(nn.LayerNorm):
    """Each token's channels to mean 0 and variance 1, then a learned scale and shift per channel.

    `build` sets eps to what the architecture says.

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

    def folded(self) -> Affine:
        """In eval mode it is a scale and shift."""
        alpha, beta = affine_of(self)
        affine = Affine(self.num_features).to(self.weight)
        affine.alpha.copy_(alpha)
        affine.beta.copy_(beta)
        return affine.eval().requires_grad_(False)


def affine_of(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a BatchNorm in eval mode, as float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    alpha = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return alpha, norm.bias.double() - norm.running_mean.double() * alpha


NORMS: dict[str, type[LayerNorm | Affine | BatchNorm]] = {"layer": LayerNorm, "affine": Affine, "batch": BatchNorm}
