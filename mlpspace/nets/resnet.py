"""ResNet's bottlenecks, and those of RepMLP-Res50 in which RepMLP stands for convolutions.

He et al. 2015, arXiv:1512.03385; Ding et al. 2021, arXiv:2105.01883 (the code was taken from its repository later).

Shapes: B batch, H W map, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import RepMlpBottleneck, RepMlpLight, Stage
from mlpspace.nets.cost import Cost, Grid, conv_cost, linear_cost
from mlpspace.nets.folding import scale_inputs, scale_outputs
from mlpspace.nets.norms import Affine, BatchNorm


class ConvNorm(nn.Module):
    """A convolution without bias, then BatchNorm; the map keeps its size at stride 1 and is halved at stride 2.

    Shape:
        x: (B, H, W, inputs). Returns (B, H / stride, W / stride, outputs).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    @staticmethod
    def cost(inputs: int, outputs: int, kernel: int, grid: Grid) -> Cost:
        """`grid` is the map that comes out."""
        return conv_cost(kernel, inputs, outputs, grid, bias=False) + BatchNorm.cost(outputs)

    def folded(self) -> ConvNorm:
        """The norm goes into the convolution."""
        if isinstance(self.norm, Affine):
            scale_outputs(self.conv, self.norm.alpha, self.norm.beta)
            self.norm = nn.Identity()
        return self


class BottleneckBlock(nn.Module):
    """relu(x + expand(relu(mix(relu(reduce(x)))))): 1 x 1, 3 x 3, 1 x 1, each with BatchNorm.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        width, hidden = stage.width, stage.width // 4
        self.reduce = ConvNorm(width, hidden, 1)
        self.mix = ConvNorm(hidden, hidden, 3)
        self.expand = ConvNorm(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(F.relu(self.mix(F.relu(self.reduce(x))))))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        width, hidden = stage.width, stage.width // 4
        ends = ConvNorm.cost(width, hidden, 1, grid) + ConvNorm.cost(hidden, width, 1, grid)
        return ends + ConvNorm.cost(hidden, hidden, 3, grid)


class ProjectingBottleneck(nn.Module):
    """The first bottleneck of a stage: it changes the width, or the map, and so does a 1 x 1 convolution beside it.

    Shape:
        x: (B, H, W, before). Returns (B, H / stride, W / stride, width).
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        hidden = max(1, width // 4)
        self.shortcut = ConvNorm(before, width, 1, stride)
        self.reduce = ConvNorm(before, hidden, 1)
        self.mix = ConvNorm(hidden, hidden, 3, stride)
        self.expand = ConvNorm(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.expand(F.relu(self.mix(F.relu(self.reduce(x))))))

    @staticmethod
    def cost(before: int, width: int, grid: Grid, stride: int) -> Cost:
        """`grid` is the map that comes out."""
        hidden = max(1, width // 4)
        cost = ConvNorm.cost(before, hidden, 1, (grid[0] * stride, grid[1] * stride))
        cost += ConvNorm.cost(hidden, hidden, 3, grid) + ConvNorm.cost(hidden, width, 1, grid)
        return cost + ConvNorm.cost(before, width, 1, grid)


class RepMlpLightBlock(nn.Module):
    """relu(x + expand(relu(repmlp(relu(reduce(x))))))

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        assert isinstance(stage.block, RepMlpLight)
        width, hidden = stage.width, stage.width // 8
        self.reduce = ConvNorm(width, hidden, 1)
        self.repmlp: nn.Module = WindowRepMlp(stage.block, grid, hidden)
        self.expand = ConvNorm(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(F.relu(self.repmlp(F.relu(self.reduce(x))))))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        assert isinstance(stage.block, RepMlpLight)
        width, hidden = stage.width, stage.width // 8
        ends = ConvNorm.cost(width, hidden, 1, grid) + ConvNorm.cost(hidden, width, 1, grid)
        return ends + WindowRepMlp.cost(stage.block, grid, hidden)


class RepMlpBottleneckBlock(nn.Module):
    """relu(x + expand(relu(widen(relu(repmlp(relu(narrow(relu(reduce(x)))))))))), the maps around RepMLP 3 x 3.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        assert isinstance(stage.block, RepMlpBottleneck)
        width, middle = stage.width, stage.width // 4
        hidden = middle // stage.block.reduction
        self.reduce = ConvNorm(width, middle, 1)
        self.narrow = ConvNorm(middle, hidden, 3)
        self.repmlp: nn.Module = WindowRepMlp(stage.block, grid, hidden)
        self.widen = ConvNorm(hidden, middle, 3)
        self.expand = ConvNorm(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.repmlp(F.relu(self.narrow(F.relu(self.reduce(x))))))
        return F.relu(x + self.expand(F.relu(self.widen(y))))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        assert isinstance(stage.block, RepMlpBottleneck)
        width, middle = stage.width, stage.width // 4
        hidden = middle // stage.block.reduction
        ends = ConvNorm.cost(width, middle, 1, grid) + ConvNorm.cost(middle, width, 1, grid)
        ends += ConvNorm.cost(middle, hidden, 3, grid) + ConvNorm.cost(hidden, middle, 3, grid)
        return ends + WindowRepMlp.cost(stage.block, grid, hidden)


class WindowRepMlp(nn.Module):
    """RepMLP as first published: all windows of the map share one matrix over pixels and channels, in groups.

        v   = x + spread(exchange(norm(mean of each window)))        where there are several windows
        out = norm(matrix(v)) + sum of norm(conv(v)) over the kernels 1, 3, .. k,   window by window

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, block: RepMlpLight | RepMlpBottleneck, grid: Grid, width: int) -> None:
        super().__init__()
        side, groups = block.partition, block.groups
        self.side, self.width = side, width
        self.windows = (grid[0] // side, grid[1] // side)
        numbers = self.windows[0] * self.windows[1] * width
        self.exchanges = numbers > width
        if self.exchanges:
            self.mean_norm: nn.Module = BatchNorm(width)
            self.exchange = nn.Sequential(nn.Linear(numbers, numbers), nn.ReLU(), nn.Linear(numbers, numbers))
        inputs = width * side * side
        self.matrix = GroupedLinear(inputs, groups)
        self.norm: nn.Module = BatchNorm(inputs)
        self.convs = nn.ModuleList(WindowConv(kernel, width, groups) for kernel in _kernels(block))

    def forward(self, x: Tensor) -> Tensor:
        v = self._windows(x)  # (B * windows, C, side, side)
        y = self.norm(self.matrix(v.flatten(1))).view(v.shape)
        for conv in self.convs:
            y = y + conv(v)
        return self._joined(y, x.shape)

    def _windows(self, x: Tensor) -> Tensor:
        (rows, columns), side = self.windows, self.side
        v = x.unflatten(2, (columns, side)).unflatten(1, (rows, side))  # (B, rows, side, columns, side, C)
        v = v.permute(0, 1, 3, 5, 2, 4)  # (B, rows, columns, C, side, side)
        if self.exchanges:
            mean = self.mean_norm(v.mean(dim=(4, 5)))  # (B, rows, columns, C)
            mean = self.exchange(mean.permute(0, 3, 1, 2).flatten(1))  # (B, C * rows * columns)
            v = v + mean.unflatten(1, (-1, rows, columns)).permute(0, 2, 3, 1)[..., None, None]
        return v.flatten(0, 2)

    def _joined(self, y: Tensor, shape: torch.Size) -> Tensor:
        v = y.unflatten(0, (shape[0], *self.windows))  # (B, rows, columns, C, side, side)
        return v.permute(0, 1, 4, 2, 5, 3).reshape(shape)

    @staticmethod
    def cost(block: RepMlpLight | RepMlpBottleneck, grid: Grid, width: int) -> Cost:
        side, groups = block.partition, block.groups
        windows = (grid[0] // side) * (grid[1] // side)
        numbers, inputs = windows * width, width * side * side
        cost = BatchNorm.cost(inputs) + linear_cost(inputs // groups, inputs // groups, windows, bias=False) * groups
        if windows > 1:
            cost += BatchNorm.cost(width) + linear_cost(numbers, numbers, 1) * 2
        for kernel in _kernels(block):
            taps = kernel * kernel * width * width // groups
            cost += Cost(taps, taps * grid[0] * grid[1], grid[0] * grid[1] * width) + BatchNorm.cost(width)
        return cost

    def folded(self) -> WindowRepMlp:
        """Norms and convolutions merged into the matrix, the norm of the windows' means into the exchange."""
        if not isinstance(self.norm, Affine):
            return self
        matrix = self.matrix.weight.double() * self.norm.alpha.double().view(len(self.matrix.weight), -1, 1)
        bias = self.norm.beta.double()
        for conv in self.convs:
            assert isinstance(conv, WindowConv)
            matrix += conv.as_matrices(self.side)
            bias = bias + conv.shift().repeat_interleave(self.side**2)
        dtype = self.matrix.weight.dtype
        self.matrix.weight.copy_(matrix.to(dtype))
        self.matrix.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
        self.norm, self.convs = nn.Identity(), nn.ModuleList()
        if self.exchanges and isinstance(self.mean_norm, Affine):
            times = self.windows[0] * self.windows[1]
            alpha, beta = (each.repeat_interleave(times) for each in (self.mean_norm.alpha, self.mean_norm.beta))
            first = self.exchange[0]
            assert isinstance(first, nn.Linear)
            scale_inputs(first, alpha, beta)
            self.mean_norm = nn.Identity()
        return self


class GroupedLinear(nn.Module):
    """One linear map for each group of inputs. Without a bias until norms are folded into it.

    Shape:
        x: (B, inputs). Returns the same shape.
    """

    bias: nn.Parameter | None

    def __init__(self, inputs: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, inputs // groups, inputs // groups))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (len(self.weight), -1)).transpose(0, 1)  # (groups, B, inputs / groups)
        y = torch.bmm(groups, self.weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        return y if self.bias is None else y + self.bias


class WindowConv(nn.Module):
    """A grouped convolution inside each window, the border filled with zeros, then BatchNorm.

    Shape:
        v: (B * windows, C, side, side). Returns the same shape.
    """

    def __init__(self, kernel: int, width: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = BatchNorm(width)

    def forward(self, v: Tensor) -> Tensor:
        return self.norm(self.conv(v).movedim(1, -1)).movedim(-1, 1)

    def as_matrices(self, side: int) -> Tensor:
        """What convolution and norm make of each one-hot window: (groups, outputs, inputs)."""
        assert isinstance(self.norm, Affine)
        kernel = self.conv.weight.double() * self.norm.alpha.double()[:, None, None, None]
        width = kernel.shape[1]  # of a group
        basis = torch.eye(width * side * side, dtype=kernel.dtype, device=kernel.device).view(-1, width, side, side)
        groups = kernel.unflatten(0, (self.conv.groups, -1))
        return torch.stack([F.conv2d(basis, group, padding=kernel.shape[-1] // 2).flatten(1).T for group in groups])

    def shift(self) -> Tensor:
        """What the norm adds, by channel."""
        assert isinstance(self.norm, Affine)
        return self.norm.beta.double()


def _kernels(block: RepMlpLight | RepMlpBottleneck) -> range:
    return range(1, block.kernel + 1, 2)
