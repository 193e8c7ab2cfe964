"""Each merging against torch's own functions on (B, C, H, W), with the merging's weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import randomise
from repmlp_v1 import Weights, conv_norm, normed
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import (
    AnyMerging,
    BatchNormMerging,
    BottleneckMerging,
    GroupNormMerging,
    Merging,
    OverlappingMerging,
)
from mlpspace.nets.mergings import MERGINGS

BEFORE, WIDTH, BATCH, HEIGHT, ROW = 6, 12, 2, 4, 6


def made(merging: AnyMerging) -> tuple[nn.Module, Weights]:
    """The merging in eval mode with random weights, and these weights by name."""
    module = randomise(MERGINGS[type(merging)](merging, BEFORE, WIDTH).double().eval(), seed=1)
    return module, {name: value.clone() for name, value in module.state_dict().items()}


def a_map() -> Tensor:
    """(B, C, H, W)"""
    return torch.randn(BATCH, BEFORE, HEIGHT, ROW, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def agree(module: nn.Module, expected: Tensor) -> None:
    assert expected.shape == (BATCH, WIDTH, HEIGHT // 2, ROW // 2)
    with torch.no_grad():
        found = module(a_map().permute(0, 2, 3, 1))
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1), rtol=1e-10, atol=1e-10)


def halved(weights: Weights) -> Tensor:
    kernel = weights["project.weight"].view(WIDTH, 2, 2, BEFORE).permute(0, 3, 1, 2)
    return F.conv2d(a_map(), kernel, weights.get("project.bias"), stride=2)


@pytest.mark.parametrize("bias", [True, False])
def test_merging_is_a_convolution_of_2_x_2_tokens(bias: bool) -> None:
    module, weights = made(Merging(bias=bias))
    assert ("project.bias" in weights) == bias
    agree(module, halved(weights))


def test_group_norm_merging_norms_the_whole_map_of_an_image() -> None:
    module, weights = made(GroupNormMerging())
    assert "project.bias" not in weights
    agree(module, F.group_norm(halved(weights), 1, weights["norm.weight"], weights["norm.bias"]))


def test_batch_norm_merging_has_a_batch_norm_and_relu() -> None:
    module, weights = made(BatchNormMerging())
    assert "project.bias" not in weights
    agree(module, F.relu(normed(halved(weights), weights, "norm")))


def test_overlapping_merging_is_a_convolution_of_3_x_3_tokens() -> None:
    module, weights = made(OverlappingMerging())
    agree(module, F.conv2d(a_map(), weights["conv.weight"], weights["conv.bias"], stride=2, padding=1))


def test_bottleneck_merging_is_resnets_first_bottleneck_of_a_stage() -> None:
    module, weights = made(BottleneckMerging())
    y = F.relu(conv_norm(a_map(), weights, "reduce"))
    y = F.relu(conv_norm(y, weights, "mix", stride=2, padding=1))  # the 3 x 3 convolution halves the map
    agree(module, F.relu(conv_norm(a_map(), weights, "shortcut", stride=2) + conv_norm(y, weights, "expand")))


@pytest.mark.parametrize("kind", list(MERGINGS), ids=lambda kind: kind.__name__)
def test_every_kind_is_held_against_torchs_functions(kind: type[Any]) -> None:
    """A new merging needs a test above."""
    assert re.search(rf"made\(\s*{kind.__name__}\(", Path(__file__).read_text())
