"""RepMLP as first published (arXiv:2105.01883), computed on (B, C, H, W) with plain torch functions, for tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def normed(x: Tensor, weights: Weights, name: str, training: bool = False) -> Tensor:
    """BatchNorm over axis 1; in training by the statistics of `x`."""
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"].clone() for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, scale, shift, training=training)


def conv_norm(x: Tensor, weights: Weights, name: str, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """A convolution without bias, then BatchNorm, as a `ConvNorm` of that name holds them."""
    y = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding, groups=groups)
    return normed(y, weights, f"{name}.norm")


def repmlp(x: Tensor, weights: Weights, name: str, *, side: int, groups: int, training: bool = False) -> Tensor:
    """Global, partition and local perceptron, in the form that is trained: (B, C, H, W) to the same shape."""
    windows, counts = _cut(x, weights, name, side, training)  # (B * windows, C, side, side)
    matrices = weights[f"{name}.matrix.weight"]  # (groups, outputs, inputs)
    kernel = matrices.flatten(0, 1)[..., None, None]  # of a 1 x 1 convolution with groups
    partition = F.conv2d(windows.flatten(1)[..., None, None], kernel, groups=groups).flatten(1)
    out = normed(partition, weights, f"{name}.norm", training).view(windows.shape)
    for number in range(len({key.split(".")[2] for key in weights if key.startswith(f"{name}.convs.")})):
        kernel = weights[f"{name}.convs.{number}.conv.weight"]
        y = F.conv2d(windows, kernel, padding=kernel.shape[-1] // 2, groups=groups)
        out = out + normed(y, weights, f"{name}.convs.{number}.norm", training)
    return _joined(out, counts)


def _cut(x: Tensor, weights: Weights, name: str, side: int, training: bool) -> tuple[Tensor, tuple[int, int, int]]:
    """The windows, each with what the global perceptron makes of all their means."""
    b, c, h, w = x.shape
    rows, columns = h // side, w // side
    if rows * columns > 1:
        means = normed(F.avg_pool2d(x, side), weights, f"{name}.mean_norm", training)  # (B, C, rows, columns)
        y = F.linear(means.flatten(1), weights[f"{name}.exchange.0.weight"], weights[f"{name}.exchange.0.bias"])
        y = F.linear(F.relu(y), weights[f"{name}.exchange.2.weight"], weights[f"{name}.exchange.2.bias"])
        x = x + F.interpolate(y.view(b, c, rows, columns), scale_factor=side, mode="nearest")
    cut = [x[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side] for i in range(rows) for j in range(columns)]
    return torch.stack(cut, dim=1).flatten(0, 1), (b, rows, columns)


def _joined(windows: Tensor, counts: tuple[int, int, int]) -> Tensor:
    _, rows, columns = counts
    each = windows.unflatten(0, counts)  # (B, rows, columns, C, side, side)
    lines = [torch.cat([each[:, i, j] for j in range(columns)], dim=-1) for i in range(rows)]
    return torch.cat(lines, dim=-2)
