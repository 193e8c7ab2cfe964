"""What a network costs at one image, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Grid: TypeAlias = tuple[int, int]  # H, W of a token map


@dataclass(frozen=True, slots=True)
class Cost:
    """Counts at one image.

    `params` are all parameters, frozen ones included. `macs` are the multiply-accumulates of matrix products and
    convolutions, biases and elementwise operations left out. `activations` are the numbers that those products and
    convolutions put out, as in Radosavovic et al. 2020 (arXiv:2003.13678).
    """

    params: int = 0
    macs: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs, self.activations + other.activations)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.params * times, self.macs * times, self.activations * times)


def linear_cost(inputs: int, outputs: int, positions: int, bias: bool = True) -> Cost:
    """A linear map from `inputs` to `outputs` numbers, the same at all `positions`."""
    products = inputs * outputs
    return Cost(products + bias * outputs, positions * products, positions * outputs)


def depthwise_cost(kernel: int, grid: Grid, width: int, bias: bool = True) -> Cost:
    """A depthwise kernel x kernel convolution of stride 1 that keeps the map's size."""
    tokens = grid[0] * grid[1]
    taps = kernel * kernel * width
    return Cost(taps + bias * width, tokens * taps, tokens * width)


def conv_cost(kernel: int, inputs: int, outputs: int, grid: Grid, bias: bool = True) -> Cost:
    """A full kernel x kernel convolution; `grid` is the map that comes out."""
    return linear_cost(kernel * kernel * inputs, outputs, grid[0] * grid[1], bias)
