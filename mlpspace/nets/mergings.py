"""Mergings: from one stage's map to the next stage's, half as long on each side.

Each module takes its dataclass of `architecture` and the widths before and after, and maps (B, H, W, C) to
(B, H/2, W/2, width). To add one: its dataclass there, its module and a row of `MERGINGS` here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import BatchNormMerging, BottleneckMerging, GroupNormMerging, Merging, OverlappingMerging
from mlpspace.nets.cost import Cost, Grid, conv_cost, linear_cost
from mlpspace.nets.folding import scale_outputs
from mlpspace.nets.norms import Affine, BatchNorm
from mlpspace.nets.resnet import ProjectingBottleneck


class PatchMerging(nn.Module):
    """The 2 x 2 tokens of each window, joined, through one linear map.

    The same as a 2 x 2 convolution of stride 2. A window's tokens are joined row by row, channels innermost.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: Merging, before: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(4 * before, width, bias=merging.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).transpose(2, 3)  # (B, H/2, W/2, 2, 2, C)
        return self.project(x.reshape(b, h // 2, w // 2, 4 * c))

    @staticmethod
    def cost(merging: Merging, before: int, grid: Grid, width: int) -> Cost:
        """`grid` is the map that comes out."""
        return linear_cost(4 * before, width, grid[0] * grid[1], merging.bias)


class GroupNormPatchMerging(PatchMerging):
    """Patch merging without bias, then GroupNorm with one group: mean and variance over the whole map.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: GroupNormMerging, before: int, width: int) -> None:
        super().__init__(Merging(bias=False), before, width)
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return self.norm(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    @staticmethod
    def cost(merging: GroupNormMerging, before: int, grid: Grid, width: int) -> Cost:  # type: ignore[override]
        """`grid` is the map that comes out."""
        return PatchMerging.cost(Merging(bias=False), before, grid, width) + Cost(params=2 * width)


class BatchNormPatchMerging(PatchMerging):
    """Patch merging without bias, then BatchNorm and ReLU.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: BatchNormMerging, before: int, width: int) -> None:
        super().__init__(Merging(bias=False), before, width)
        self.norm: nn.Module = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(super().forward(x)))

    @staticmethod
    def cost(merging: BatchNormMerging, before: int, grid: Grid, width: int) -> Cost:  # type: ignore[override]
        """`grid` is the map that comes out."""
        return PatchMerging.cost(Merging(bias=False), before, grid, width) + BatchNorm.cost(width)

    def folded(self) -> BatchNormPatchMerging:
        """The norm goes into the linear map."""
        if isinstance(self.norm, Affine):
            scale_outputs(self.project, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        return self


class OverlappingConvMerging(nn.Module):
    """A 3 x 3 convolution of stride 2.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: OverlappingMerging, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    @staticmethod
    def cost(merging: OverlappingMerging, before: int, grid: Grid, width: int) -> Cost:
        """`grid` is the map that comes out."""
        return conv_cost(3, before, width, grid)


class BottleneckMergingBlock(ProjectingBottleneck):
    """ResNet's first bottleneck of a stage.

    Shape:
        x: (B, H, W, C). Returns (B, H/2, W/2, width).
    """

    def __init__(self, merging: BottleneckMerging, before: int, width: int) -> None:
        super().__init__(before, width, stride=2)

    @staticmethod
    def cost(merging: BottleneckMerging, before: int, grid: Grid, width: int) -> Cost:  # type: ignore[override]
        """`grid` is the map that comes out."""
        return ProjectingBottleneck.cost(before, width, grid, stride=2)


MERGINGS: dict[type[Any], Any] = {
    Merging: PatchMerging,
    GroupNormMerging: GroupNormPatchMerging,
    BatchNormMerging: BatchNormPatchMerging,
    OverlappingMerging: OverlappingConvMerging,
    BottleneckMerging: BottleneckMergingBlock,
}
