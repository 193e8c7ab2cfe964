"""The deployed form: the same function with fewer steps, for measuring throughput and for export.

A norm without statistics of its own, a BatchNorm in eval mode among them, is `alpha * x + beta` and goes into the
linear map or convolution beside it; so does LayerScale. RepMLP's convolutions become part of its matrix. Two linear
maps with nothing between them become one where that is cheaper. What stands before a GELU stays a scale and shift.
Each kind of module says in its method `folded` how.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from mlpspace.nets.folding import folded


@torch.no_grad()
def deploy(network: nn.Module) -> nn.Module:
    """A folded copy of a network in eval mode; its outputs are equal up to rounding, and it cannot be trained further.

    Raises:
        ValueError: the network is in training mode, so its BatchNorms have no fixed statistics to fold.
    """
    if any(module.training for module in network.modules()):
        raise ValueError(
            "deploy folds what a network has learned, and this one is in training mode: call network.eval() first"
        )
    return folded(copy.deepcopy(network).requires_grad_(False)).requires_grad_(False).eval()
