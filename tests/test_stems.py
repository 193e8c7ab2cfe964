"""Each stem against torch's own functions on (B, C, H, W), with the stem's weights."""

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
    Architecture,
    BatchNormPatches,
    ConvPatches,
    MeanHead,
    NormedPatches,
    OverlappingPatches,
    Patches,
    ResNetStem,
    Stage,
    Stem,
    TokensToToken,
)
from mlpspace.nets.stems import STEMS

WIDTH, BATCH = 12, 2


def made(stem: Stem) -> tuple[nn.Module, Weights]:
    """The stem in eval mode with random weights, and these weights by name."""
    module = randomise(STEMS[type(stem)](stem, WIDTH).double().eval(), seed=1)
    return module, {name: value.clone() for name, value in module.state_dict().items()}


def an_image(side: int = 48) -> Tensor:
    return torch.randn(BATCH, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def agree(module: nn.Module, expected: Tensor) -> None:
    """`expected` is (B, C, H, W)."""
    with torch.no_grad():
        torch.testing.assert_close(module(an_image()), expected.permute(0, 2, 3, 1), rtol=1e-10, atol=1e-10)


def patches(weights: Weights, patch: int) -> Tensor:
    kernel = weights["project.weight"].view(WIDTH, 3, patch, patch)
    return F.conv2d(an_image(), kernel, weights.get("project.bias"), stride=patch)


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Over the channels of (B, C, H, W)."""
    y = F.layer_norm(x.movedim(1, -1), x.shape[1:2], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)
    return y.movedim(-1, 1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("patch", [1, 4])
def test_patches_are_a_convolution_without_overlap(patch: int, bias: bool) -> None:
    module, weights = made(Patches(patch=patch, bias=bias))
    assert ("project.bias" in weights) == bias
    agree(module, patches(weights, patch))


def test_normed_patches_have_a_layer_norm_after_them() -> None:
    module, weights = made(NormedPatches(patch=4))
    agree(module, layer_norm(patches(weights, 4), weights, "norm"))


def test_batch_norm_patches_have_a_batch_norm_and_relu_after_them() -> None:
    module, weights = made(BatchNormPatches(patch=4))
    assert "project.bias" not in weights
    agree(module, F.relu(normed(patches(weights, 4), weights, "norm")))


@pytest.mark.parametrize(("patch", "kernel", "padding"), [(4, 7, 2), (2, 3, 1), (3, 5, 1), (1, 1, 0)])
def test_overlapping_patches_reach_over_their_neighbours(patch: int, kernel: int, padding: int) -> None:
    """CycleMLP's is the first: 7 x 7 of stride 4, padding 2."""
    module, weights = made(OverlappingPatches(patch=patch))
    assert weights["conv.weight"].shape == (WIDTH, 3, kernel, kernel)
    agree(module, F.conv2d(an_image(), weights["conv.weight"], weights["conv.bias"], stride=patch, padding=padding))


@pytest.mark.parametrize("patch", [2, 4, 16])
def test_conv_patches_are_four_convolutions(patch: int) -> None:
    module, weights = made(ConvPatches(patch=patch, hidden=5))
    x = F.relu(conv_norm(an_image(), weights, "convs.0", stride=2, padding=3))
    x = F.relu(conv_norm(x, weights, "convs.1", padding=1))
    x = F.relu(conv_norm(x, weights, "convs.2", padding=1))
    x = F.conv2d(x, weights["project.weight"], weights["project.bias"], stride=patch // 2)
    assert x.shape[-1] == 48 // patch
    agree(module, layer_norm(x, weights, "norm"))


def test_the_resnet_stem_ends_with_the_projecting_bottleneck() -> None:
    module, weights = made(ResNetStem(hidden=10))
    x = F.relu(conv_norm(an_image(), weights, "conv", stride=2, padding=3))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    y = F.relu(conv_norm(x, weights, "block.reduce"))
    y = conv_norm(F.relu(conv_norm(y, weights, "block.mix", padding=1)), weights, "block.expand")
    assert weights["block.mix.conv.weight"].shape == (WIDTH // 4, WIDTH // 4, 3, 3)
    agree(module, F.relu(conv_norm(x, weights, "block.shortcut") + y))


def test_tokens_to_token_unfolds_three_times_with_external_attention_between() -> None:
    module, weights = made(TokensToToken(token_width=6, memory=5))
    x = token_block(F.unfold(an_image(), 7, padding=2, stride=4), weights, "first").view(BATCH, 6, 12, 12)
    x = token_block(F.unfold(x, 3, padding=1, stride=2), weights, "second").view(BATCH, 6, 6, 6)
    x = F.unfold(x, 3, padding=1, stride=2)  # (B, 9 * 6, 9)
    agree(module, pointwise(x, weights, "project").view(BATCH, WIDTH, 3, 3))


def pointwise(x: Tensor, weights: Weights, name: str) -> Tensor:
    """A linear map of each token of (B, C, N)."""
    return F.conv1d(x, weights[f"{name}.weight"][..., None], weights.get(f"{name}.bias"))


def token_block(x: Tensor, weights: Weights, name: str) -> Tensor:
    """One of the T2T module, (B, inputs, N) to (B, width, N)."""
    query = pointwise(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.query")
    assert f"{name}.key.bias" not in weights
    shares = pointwise(query, weights, f"{name}.key").softmax(dim=-1)
    shares = shares / (1e-9 + shares.sum(dim=1, keepdim=True))
    x = query + pointwise(pointwise(shares, weights, f"{name}.value"), weights, f"{name}.project")
    y = F.gelu(pointwise(layer_norm(x, weights, f"{name}.mlp_norm"), weights, f"{name}.mlp.0"))
    return x + pointwise(y, weights, f"{name}.mlp.2")


@pytest.mark.parametrize("kind", list(STEMS), ids=lambda kind: kind.__name__)
def test_every_kind_is_held_against_torchs_functions(kind: type[Any]) -> None:
    """A new stem needs a test above."""
    assert re.search(rf"made\(\s*{kind.__name__}\(", Path(__file__).read_text())


@pytest.mark.parametrize(
    "stem",
    [Patches(patch=4), NormedPatches(patch=4), BatchNormPatches(patch=4), OverlappingPatches(patch=4), ResNetStem()],
    ids=lambda stem: type(stem).__name__,
)
def test_a_stem_gives_the_map_the_architecture_speaks_of(stem: Stem) -> None:
    for side in (32, 64):
        grid = Architecture(stem=stem, stages=(Stage(depth=1, width=WIDTH),), head=MeanHead()).grid(side)
        with torch.no_grad():
            assert made(stem)[0](an_image(side)).shape == (BATCH, grid[0], grid[0], WIDTH)


def test_a_bottleneck_of_a_very_narrow_stage_still_has_a_channel() -> None:
    module = STEMS[ResNetStem](ResNetStem(hidden=4), 3).eval()
    with torch.no_grad():
        assert module(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 2, 3)
