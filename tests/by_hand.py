"""Slow, obvious ways to compute what networks are made of, for tests: numpy, and weights by name."""

from __future__ import annotations

from math import erf, pi, sqrt, tanh
from typing import Any

import numpy as np
from torch import nn

from mlpspace.architecture import ACTIVATIONS

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]

gelu = np.vectorize(lambda x: x * 0.5 * (1 + erf(x / sqrt(2))))
gelu_tanh = np.vectorize(lambda x: x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))))  # arXiv:1606.08415
ACTIVATION = dict(zip(ACTIVATIONS, (gelu, gelu_tanh), strict=True))


def weights_of(module: nn.Module) -> Weights:
    """All weights and statistics of a module, by name."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


def linear(x: Array, weights: Weights, name: str) -> Array:
    """A linear map over the last axis; a weight without a bias has none."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def batch_norm(x: Array, weights: Weights, name: str) -> Array:
    """BatchNorm over the last axis in eval mode."""
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def layer_norm(x: Array, weights: Weights, name: str, eps: float = 1e-6) -> Array:
    """LayerNorm over the last axis."""
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]
