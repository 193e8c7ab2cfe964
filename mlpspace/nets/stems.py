"""Stems: from the image to the first token map.

Each module takes its dataclass of `architecture` and the width C of the first stage, and maps (B, 3, R, R) to
(B, H, W, C) with H = W = R / stride. To add one: its dataclass there, its module and a row of `STEMS` here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import Patches, TokensToToken
from mlpspace.nets.cost import Cost, linear_cost
from mlpspace.nets.layers import LayerNorm
from mlpspace.nets.token_mixers import double_normalised


class PatchStem(nn.Module):
    """Each p x p patch through one linear map: the same as a p x p convolution of stride p.

    A patch's pixels are in the order (colour, row, column) of a convolution's weight.

    Shape:
        image: (B, 3, R, R). Returns (B, R / p, R / p, C).
    """

    def __init__(self, stem: Patches, width: int) -> None:
        super().__init__()
        self.patch = stem.patch
        self.project = nn.Linear(3 * stem.patch**2, width, bias=stem.bias)

    def forward(self, image: Tensor) -> Tensor:
        b, c, h, w = image.shape
        p = self.patch
        x = image.view(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)  # (B, H, W, 3, p, p)
        return self.project(x.reshape(b, h // p, w // p, c * p * p))

    @staticmethod
    def cost(stem: Patches, resolution: int, width: int) -> Cost:
        return linear_cost(3 * stem.patch**2, width, (resolution // stem.patch) ** 2, stem.bias)


class TokensToTokenStem(nn.Module):
    """Three overlapping unfoldings of strides 4, 2 and 2, external attention after the first two, one linear map.

    The stem of T2T-ViT (arXiv:2101.11986) as EAMLP has it (arXiv:2105.02358). EAMLP drops 10 % of the scores and
    outputs in training; here nothing is dropped.

    Shape:
        image: (B, 3, R, R). Returns (B, R / 16, R / 16, C).
    """

    def __init__(self, stem: TokensToToken, width: int) -> None:
        super().__init__()
        self.first = _TokenBlock(3 * 7 * 7, stem.token_width, stem.memory)
        self.second = _TokenBlock(9 * stem.token_width, stem.token_width, stem.memory)
        self.project = nn.Linear(9 * stem.token_width, width)

    def forward(self, image: Tensor) -> Tensor:
        b, _, h, w = image.shape
        x = F.unfold(image, 7, padding=2, stride=4).transpose(1, 2)  # (B, R/4 * R/4, 147)
        x = self.first(x).transpose(1, 2).unflatten(2, (h // 4, w // 4))
        x = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)  # (B, R/8 * R/8, 9 * token_width)
        x = self.second(x).transpose(1, 2).unflatten(2, (h // 8, w // 8))
        x = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)  # (B, R/16 * R/16, 9 * token_width)
        return self.project(x).view(b, h // 16, w // 16, -1)

    @staticmethod
    def cost(stem: TokensToToken, resolution: int, width: int) -> Cost:
        sides = [resolution // stride for stride in (4, 8, 16)]
        cost = _TokenBlock.cost(3 * 7 * 7, stem.token_width, stem.memory, sides[0] ** 2)
        cost += _TokenBlock.cost(9 * stem.token_width, stem.token_width, stem.memory, sides[1] ** 2)
        return cost + linear_cost(9 * stem.token_width, width, sides[2] ** 2)


class _TokenBlock(nn.Module):
    """External attention with one head from `inputs` to `width` channels, then a channel MLP of ratio 1.

    The first residual starts at the queries, as `inputs` and `width` differ.

    Shape:
        x: (B, N, inputs). Returns (B, N, width).
    """

    def __init__(self, inputs: int, width: int, memory: int) -> None:
        super().__init__()
        self.norm = LayerNorm(inputs)
        self.query = nn.Linear(inputs, width)
        self.key = nn.Linear(width, memory, bias=False)
        self.value = nn.Linear(memory, width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.norm(x))  # (B, N, width)
        x = query + self.project(self.value(double_normalised(self.key(query))))
        return x + self.mlp(self.mlp_norm(x))

    @staticmethod
    def cost(inputs: int, width: int, memory: int, tokens: int) -> Cost:
        cost = LayerNorm.cost(inputs) + linear_cost(inputs, width, tokens)
        cost += linear_cost(width, memory, tokens, bias=False) + linear_cost(memory, width, tokens)
        return cost + LayerNorm.cost(width) + linear_cost(width, width, tokens) * 3


STEMS: dict[type[Any], Any] = {Patches: PatchStem, TokensToToken: TokensToTokenStem}
