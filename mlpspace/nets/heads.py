"""Heads: from the last token map to the classes.

Each module takes its dataclass of `architecture`, the grid (H, W) and the width C of the last stage and the number of
classes, and maps (B, H, W, C) to logits (B, classes). A head whose class token joins the tokens after the stem has a
row in `ENTRIES` too. To add one: its dataclass there, its module and a row of `HEADS` here.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import ClassMlpHead, ClassTokenHead, LearnedClassTokenHead, MeanHead, Mlp, PlainHead
from mlpspace.nets.blocks import Half
from mlpspace.nets.channel_mixers import ChannelMlp
from mlpspace.nets.cost import Cost, Grid, linear_cost
from mlpspace.nets.folding import scale_inputs
from mlpspace.nets.norms import NORMS, Affine


class Classifier(nn.Module):
    """Norm, one vector of each image, linear classifier.

    Shape:
        x: (B, H, W, C). Returns logits (B, classes).
    """

    def __init__(self, norm: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.norm = norm
        self.linear = nn.Linear(width, classes)

    def folded(self) -> Classifier:
        """The norm goes into the linear map: the mean of alpha * x + beta is alpha * mean + beta."""
        if isinstance(self.norm, Affine):
            scale_inputs(self.linear, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        return self


class MeanClassifier(Classifier):
    """Norm, mean over the tokens, linear classifier.

    Shape:
        x: (B, H, W, C). Returns logits (B, classes).
    """

    def __init__(self, head: MeanHead, grid: Grid, width: int, classes: int) -> None:
        super().__init__(NORMS[head.norm](width), width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean(dim=(1, 2)))

    @staticmethod
    def cost(head: MeanHead, grid: Grid, width: int, classes: int) -> Cost:
        return NORMS[head.norm].cost(width) + linear_cost(width, classes, positions=1)


class PlainClassifier(Classifier):
    """Mean over the tokens, linear classifier.

    Shape:
        x: (B, H, W, C). Returns logits (B, classes).
    """

    def __init__(self, head: PlainHead, grid: Grid, width: int, classes: int) -> None:
        super().__init__(nn.Identity(), width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=(1, 2)))

    @staticmethod
    def cost(head: PlainHead, grid: Grid, width: int, classes: int) -> Cost:
        return linear_cost(width, classes, positions=1)


class ClassTokenClassifier(Classifier):
    """Norm and linear classifier of the class token, which stands first.

    Shape:
        x: (B, 1, N + 1, C). Returns logits (B, classes).
    """

    def __init__(self, head: ClassTokenHead | LearnedClassTokenHead, grid: Grid, width: int, classes: int) -> None:
        super().__init__(NORMS[head.norm](width), width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x[:, 0, 0]))

    @staticmethod
    def cost(head: ClassTokenHead | LearnedClassTokenHead, grid: Grid, width: int, classes: int) -> Cost:
        return NORMS[head.norm].cost(width) + linear_cost(width, classes, positions=1)


class ClassMlpClassifier(Classifier):
    """A class token that layers after the blocks fill from the tokens; norm and linear classifier of it.

    Shape:
        x: (B, H, W, C). Returns logits (B, classes).
    """

    def __init__(self, head: ClassMlpHead, grid: Grid, width: int, classes: int) -> None:
        super().__init__(NORMS[head.norm](width), width, classes)
        self.token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.layers = nn.ModuleList(ClassMlpLayer(head, grid, width) for _ in range(head.depth))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)  # (B, N, C)
        token = self.token.expand(len(x), -1)  # (B, C)
        for layer in self.layers:
            token = layer(token, tokens)
        return self.linear(self.norm(token))

    @staticmethod
    def cost(head: ClassMlpHead, grid: Grid, width: int, classes: int) -> Cost:
        tail = NORMS[head.norm].cost(width) + linear_cost(width, classes, positions=1)
        return Cost(params=width) + ClassMlpLayer.cost(head, grid, width) * head.depth + tail


class ClassMlpLayer(nn.Module):
    """c + scale * gather(norm([c, x])), then c + scale * mlp(norm(c)); `gather` maps N + 1 tokens to one vector.

    Shape:
        token: (B, C), tokens: (B, N, C). Returns (B, C).
    """

    def __init__(self, head: ClassMlpHead, grid: Grid, width: int) -> None:
        super().__init__()
        norm = NORMS[head.norm]
        self.gather_norm = norm(width)
        self.gather = nn.Linear(grid[0] * grid[1] + 1, 1)
        self.gather_scale = nn.Parameter(torch.full((width,), head.layer_scale))
        self.channel = Half(norm(width), ChannelMlp(Mlp(ratio=head.ratio), (1, 1), width), width, head.layer_scale)

    def forward(self, token: Tensor, tokens: Tensor) -> Tensor:
        joined = self.gather_norm(torch.cat([token[:, None], tokens], dim=1))  # (B, N + 1, C)
        return self.channel(token + self.gather_scale * self.gather(joined.transpose(1, 2)).squeeze(-1))

    @staticmethod
    def cost(head: ClassMlpHead, grid: Grid, width: int) -> Cost:
        gather = linear_cost(grid[0] * grid[1] + 1, 1, positions=width)
        mlp = ChannelMlp.cost(Mlp(ratio=head.ratio), (1, 1), width)
        return gather + mlp + NORMS[head.norm].cost(width) * 2 + Cost(params=2 * width)


class ClassToken(nn.Module):
    """A learned class token before the tokens, then a fixed sinusoid added to each of them.

    The sinusoid (Vaswani et al. 2017, arXiv:1706.03762, section 3.5) is a parameter that is not trained, as in T2T-ViT
    and EAMLP, and counts as one.

    Shape:
        x: (B, H, W, C). Returns (B, 1, N + 1, C).
    """

    def __init__(self, head: ClassTokenHead, grid: Grid, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.positions = nn.Parameter(_sinusoid(grid[0] * grid[1] + 1, width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        b, _, _, c = x.shape
        x = torch.cat([self.token.expand(b, 1, c), x.flatten(1, 2)], dim=1)  # (B, N + 1, C)
        return (x + self.positions).unsqueeze(1)  # (B, 1, N + 1, C)

    @staticmethod
    def cost(head: ClassTokenHead, grid: Grid, width: int) -> Cost:
        return Cost(params=width + (grid[0] * grid[1] + 1) * width)


def _sinusoid(positions: int, width: int) -> Tensor:
    """(positions, width): sine in the even channels, cosine in the odd ones, one frequency for each pair."""
    channel = torch.arange(width)
    frequency = 10000.0 ** -(2 * (channel // 2) / width)
    angle = torch.arange(positions)[:, None] * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class LearnedClassToken(nn.Module):
    """A class token before the tokens, then a learned position embedding added to each of them.

    The embeddings of the tokens are a map of `side` x `side`, stretched (bilinearly) where the tokens are others.

    Shape:
        x: (B, H, W, C). Returns (B, 1, N + 1, C).
    """

    def __init__(self, head: LearnedClassTokenHead, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.token = nn.Parameter(torch.empty(width))
        self.token_position = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(width, head.side, head.side))
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        positions: Tensor = self.positions
        if positions.shape[1:] != self.grid:
            positions = F.interpolate(positions[None], size=self.grid, mode="bilinear", align_corners=False)[0]
        tokens = x.flatten(1, 2) + positions.flatten(1).T  # (B, N, C)
        first = (self.token + self.token_position).expand(len(x), 1, -1)
        return torch.cat([first, tokens], dim=1).unsqueeze(1)  # (B, 1, N + 1, C)

    @staticmethod
    def cost(head: LearnedClassTokenHead, grid: Grid, width: int) -> Cost:
        return Cost(params=2 * width + head.side**2 * width)


HEADS: dict[type[Any], Any] = {
    MeanHead: MeanClassifier,
    PlainHead: PlainClassifier,
    ClassTokenHead: ClassTokenClassifier,
    LearnedClassTokenHead: ClassTokenClassifier,
    ClassMlpHead: ClassMlpClassifier,
}
ENTRIES: dict[type[Any], Any] = {ClassTokenHead: ClassToken, LearnedClassTokenHead: LearnedClassToken}
