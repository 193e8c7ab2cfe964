"""Stems: from the image to the first token map.

Each module takes its dataclass of `architecture` and the width C of the first stage, and maps (B, 3, R, R) to
(B, H, W, C) with H = W = R / stride. To add one: its dataclass there, its module and a row of `STEMS` here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import (
    BatchNormPatches,
    ConvPatches,
    NormedPatches,
    OverlappingPatches,
    Patches,
    ResNetStem,
    TokensToToken,
)
from mlpspace.nets.activations import Gelu
from mlpspace.nets.cost import Cost, conv_cost, linear_cost
from mlpspace.nets.folding import composed, scale_outputs
from mlpspace.nets.norms import Affine, BatchNorm, LayerNorm
from mlpspace.nets.resnet import ConvNorm, ProjectingBottleneck
from mlpspace.nets.token_mixers.external_attention import double_normalised


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


class NormedPatchStem(PatchStem):
    """Patches, each projected, then LayerNorm.

    Shape:
        image: (B, 3, R, R). Returns (B, R / p, R / p, C).
    """

    def __init__(self, stem: NormedPatches, width: int) -> None:
        super().__init__(Patches(patch=stem.patch), width)
        self.norm = LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(super().forward(image))

    @staticmethod
    def cost(stem: NormedPatches, resolution: int, width: int) -> Cost:  # type: ignore[override]
        return PatchStem.cost(Patches(patch=stem.patch), resolution, width) + LayerNorm.cost(width)


class BatchNormPatchStem(PatchStem):
    """Patches, each projected without bias, then BatchNorm and ReLU.

    Shape:
        image: (B, 3, R, R). Returns (B, R / p, R / p, C).
    """

    def __init__(self, stem: BatchNormPatches, width: int) -> None:
        super().__init__(Patches(patch=stem.patch, bias=False), width)
        self.norm: nn.Module = BatchNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        return F.relu(self.norm(super().forward(image)))

    @staticmethod
    def cost(stem: BatchNormPatches, resolution: int, width: int) -> Cost:  # type: ignore[override]
        return PatchStem.cost(Patches(patch=stem.patch, bias=False), resolution, width) + BatchNorm.cost(width)

    def folded(self) -> BatchNormPatchStem:
        """The norm goes into the linear map."""
        if isinstance(self.norm, Affine):
            scale_outputs(self.project, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        return self


class OverlappingPatchStem(nn.Module):
    """A convolution of stride p with a kernel of 2p - 1, so that each token sees half of its neighbours' patches.

    Shape:
        image: (B, 3, R, R). Returns (B, R / p, R / p, C).
    """

    def __init__(self, stem: OverlappingPatches, width: int) -> None:
        super().__init__()
        p = stem.patch
        self.conv = nn.Conv2d(3, width, 2 * p - 1, stride=p, padding=p // 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image).permute(0, 2, 3, 1)

    @staticmethod
    def cost(stem: OverlappingPatches, resolution: int, width: int) -> Cost:
        side = resolution // stem.patch
        return conv_cost(2 * stem.patch - 1, 3, width, (side, side))


class ConvPatchStem(nn.Module):
    """Three convolutions with BatchNorm and ReLU, the first of stride 2, then patches of p / 2, then LayerNorm.

    Shape:
        image: (B, 3, R, R). Returns (B, R / p, R / p, C).
    """

    def __init__(self, stem: ConvPatches, width: int) -> None:
        super().__init__()
        hidden, rest = stem.hidden, stem.patch // 2
        self.convs = nn.ModuleList(
            [ConvNorm(3, hidden, 7, stride=2), ConvNorm(hidden, hidden, 3), ConvNorm(hidden, hidden, 3)]
        )
        self.project = nn.Conv2d(hidden, width, rest, stride=rest)
        self.norm = LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 2, 3, 1)
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.norm(self.project(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    @staticmethod
    def cost(stem: ConvPatches, resolution: int, width: int) -> Cost:
        half, side = resolution // 2, resolution // stem.patch
        cost = ConvNorm.cost(3, stem.hidden, 7, (half, half))
        cost += ConvNorm.cost(stem.hidden, stem.hidden, 3, (half, half)) * 2
        return cost + conv_cost(stem.patch // 2, stem.hidden, width, (side, side)) + LayerNorm.cost(width)


class ResNetStemBlock(nn.Module):
    """7 x 7 convolution of stride 2 with BatchNorm and ReLU, 3 x 3 maximum of stride 2, a projecting bottleneck.

    Shape:
        image: (B, 3, R, R). Returns (B, R / 4, R / 4, C).
    """

    def __init__(self, stem: ResNetStem, width: int) -> None:
        super().__init__()
        self.conv = ConvNorm(3, stem.hidden, 7, stride=2)
        self.block = ProjectingBottleneck(stem.hidden, width, stride=1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.conv(image.permute(0, 2, 3, 1)))
        x = F.max_pool2d(x.permute(0, 3, 1, 2), 3, stride=2, padding=1)
        return self.block(x.permute(0, 2, 3, 1))

    @staticmethod
    def cost(stem: ResNetStem, resolution: int, width: int) -> Cost:
        half, quarter = resolution // 2, resolution // 4
        conv = ConvNorm.cost(3, stem.hidden, 7, (half, half))
        return conv + ProjectingBottleneck.cost(stem.hidden, width, (quarter, quarter), stride=1)


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
        self.value: nn.Module = nn.Linear(memory, width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), Gelu(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.norm(x))  # (B, N, width)
        x = query + self.project(self.value(double_normalised(self.key(query))))
        return x + self.mlp(self.mlp_norm(x))

    @staticmethod
    def cost(inputs: int, width: int, memory: int, tokens: int) -> Cost:
        cost = LayerNorm.cost(inputs) + linear_cost(inputs, width, tokens)
        cost += linear_cost(width, memory, tokens, bias=False) + linear_cost(memory, width, tokens)
        return cost + LayerNorm.cost(width) + linear_cost(width, width, tokens) * 3

    def folded(self) -> _TokenBlock:
        """The last two linear maps of the attention are one."""
        if isinstance(self.value, nn.Linear):
            self.project, self.value = composed(self.value, self.project), nn.Identity()
        return self


STEMS: dict[type[Any], Any] = {
    Patches: PatchStem,
    NormedPatches: NormedPatchStem,
    BatchNormPatches: BatchNormPatchStem,
    OverlappingPatches: OverlappingPatchStem,
    ConvPatches: ConvPatchStem,
    TokensToToken: TokensToTokenStem,
    ResNetStem: ResNetStemBlock,
}
