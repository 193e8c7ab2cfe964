"""Each kind of block is its equation, written out with plain torch functions and the block's own weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from draws import randomise
from repmlp_v1 import Weights, conv_norm, repmlp
from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import (
    Architecture,
    Axial,
    Bottleneck,
    ChannelFirst,
    ClassTokenHead,
    Dense,
    ExternalAttentionUnit,
    Gating,
    Head,
    MeanHead,
    Mlp,
    NoChannelMixer,
    NoTokenMixer,
    ParallelDepthwise,
    Patches,
    RepMlpBottleneck,
    RepMlpLight,
    Residual,
    Stage,
)
from mlpspace.nets.blocks import BLOCKS

HEIGHT, ROW, WIDTH, BATCH = 4, 6, 32, 2
SCALED = Stage(depth=1, width=WIDTH, token_mixer=Dense(), channel_mixer=Mlp(ratio=2), layer_scale=0.1)
ALONE = replace(SCALED, token_mixer=NoTokenMixer(), channel_mixer=NoChannelMixer())


def made(stage: Stage) -> tuple[nn.Module, Weights]:
    """The block in eval mode with random weights, and these weights by name."""
    block = randomise(BLOCKS[type(stage.block)](stage, (HEIGHT, ROW)).double().eval(), seed=1)
    return block, {name: value.clone() for name, value in block.state_dict().items()}


def x_of(width: int = WIDTH) -> Tensor:
    return torch.randn(BATCH, HEIGHT, ROW, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def mlp(x: Tensor, weights: Weights, name: str) -> Tensor:
    y = F.gelu(F.linear(x, weights[f"{name}.expand.weight"], weights[f"{name}.expand.bias"]))
    return F.linear(y, weights[f"{name}.project.weight"], weights[f"{name}.project.bias"])


def on_tokens(function: Callable[..., Tensor], x: Tensor, weights: Weights, name: str) -> Tensor:
    """A function over the last axis, over the tokens of each channel."""
    return function(x.flatten(1, 2).transpose(1, 2), weights, name).transpose(1, 2).reshape(x.shape)


def channel_half(x: Tensor, weights: Weights) -> Tensor:
    return mlp(layer_norm(x, weights, "channel.norm"), weights, "channel.mixer")


def token_mlp(x: Tensor, weights: Weights) -> Tensor:
    return on_tokens(mlp, x, weights, "token.mixer")


def residual(x: Tensor, w: Weights) -> Tensor:
    x = x + w["token.scale"] * token_mlp(layer_norm(x, w, "token.norm"), w)
    return x + w["channel.scale"] * channel_half(x, w)


def channel_first(x: Tensor, w: Weights) -> Tensor:
    x = x + w["channel.scale"] * channel_half(x, w)
    return x + w["token.scale"] * token_mlp(on_tokens(layer_norm, x, w, "token.norm.norm"), w)


def parallel_depthwise(x: Tensor, w: Weights) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), w["depthwise.weight"], w["depthwise.bias"], padding=2, groups=WIDTH)
    x = x + w["token.scale"] * token_mlp(layer_norm(x, w, "token.norm"), w) + y.permute(0, 2, 3, 1)
    return x + channel_half(x, w)  # never scaled


def external_attention_unit(x: Tensor, w: Weights) -> Tensor:
    """As the paper's code has it: channels first, (B, C, N)."""
    y = F.conv1d(x.flatten(1, 2).transpose(1, 2), w["query.weight"][..., None], w["query.bias"])
    scores = F.conv1d(y, w["key.weight"][..., None]).softmax(dim=-1)
    scores = scores / (1e-9 + scores.sum(dim=1, keepdim=True))
    y = F.conv1d(F.conv1d(scores, w["value.weight"][..., None]), w["project.weight"][..., None])
    statistics = [w[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(x + F.batch_norm(y, *statistics).transpose(1, 2).view(x.shape))


def as_map(function: Callable[[Tensor, Weights], Tensor]) -> Callable[[Tensor, Weights], Tensor]:
    """What is written for (B, C, H, W), for (B, H, W, C)."""
    return lambda x, w: function(x.permute(0, 3, 1, 2), w).permute(0, 2, 3, 1)


def bottleneck(x: Tensor, w: Weights) -> Tensor:
    y = F.relu(conv_norm(x, w, "reduce"))
    y = F.relu(conv_norm(y, w, "mix", padding=1))
    return F.relu(x + conv_norm(y, w, "expand"))


def repmlp_light(x: Tensor, w: Weights) -> Tensor:
    y = F.relu(repmlp(F.relu(conv_norm(x, w, "reduce")), w, "repmlp", side=2, groups=2))
    return F.relu(x + conv_norm(y, w, "expand"))


def repmlp_bottleneck(x: Tensor, w: Weights) -> Tensor:
    y = F.relu(conv_norm(x, w, "reduce"))
    y = F.relu(conv_norm(y, w, "narrow", padding=1))
    y = F.relu(repmlp(y, w, "repmlp", side=2, groups=2))
    y = F.relu(conv_norm(y, w, "widen", padding=1))
    return F.relu(x + conv_norm(y, w, "expand"))


EQUATIONS: list[tuple[Stage, Callable[[Tensor, Weights], Tensor]]] = [
    (SCALED, residual),
    (replace(SCALED, block=ChannelFirst()), channel_first),
    (replace(SCALED, block=ParallelDepthwise(kernel=5)), parallel_depthwise),
    (replace(ALONE, block=ExternalAttentionUnit(memory=5)), external_attention_unit),
    (replace(ALONE, block=Bottleneck()), as_map(bottleneck)),
    (replace(ALONE, block=RepMlpLight(partition=2, groups=2, kernel=3)), as_map(repmlp_light)),
    (replace(ALONE, block=RepMlpBottleneck(partition=2, groups=2, kernel=3)), as_map(repmlp_bottleneck)),
]


@pytest.mark.parametrize(
    ("stage", "equation"), EQUATIONS, ids=lambda value: type(getattr(value, "block", None)).__name__
)
def test_a_block_is_its_equation(stage: Stage, equation: Callable[[Tensor, Weights], Tensor]) -> None:
    block, weights = made(stage)
    with torch.no_grad():
        torch.testing.assert_close(block(x_of()), equation(x_of(), weights), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", list(BLOCKS), ids=lambda kind: kind.__name__)
def test_every_kind_has_its_equation(kind: type[Any]) -> None:
    assert kind in {type(stage.block) for stage, _ in EQUATIONS}


def test_a_light_block_has_an_eighth_of_the_channels_in_its_middle() -> None:
    _, weights = made(replace(ALONE, block=RepMlpLight(partition=2, groups=2)))
    assert weights["reduce.conv.weight"].shape == (WIDTH // 8, WIDTH, 1, 1)


def test_a_repmlp_bottleneck_has_a_quarter_and_of_that_one_reductionth() -> None:
    _, weights = made(replace(ALONE, block=RepMlpBottleneck(partition=2, groups=2, reduction=4)))
    assert weights["reduce.conv.weight"].shape == (WIDTH // 4, WIDTH, 1, 1)
    assert weights["narrow.conv.weight"].shape == (WIDTH // 16, WIDTH // 4, 3, 3)
    assert weights["widen.conv.weight"].shape == (WIDTH // 4, WIDTH // 16, 3, 3)


@pytest.mark.parametrize(
    "block", [Residual(), ChannelFirst(), ParallelDepthwise()], ids=lambda block: type(block).__name__
)
def test_without_a_token_mixer_the_rest_of_the_block_remains(block: Any) -> None:
    module, weights = made(replace(SCALED, token_mixer=NoTokenMixer(), block=block, layer_scale=None))
    assert not any(name.startswith("token") for name in weights)
    x = x_of()
    with torch.no_grad():
        y = x + module.depthwise(x) if isinstance(block, ParallelDepthwise) else x
        torch.testing.assert_close(module(x), y + channel_half(y, weights))


@pytest.mark.parametrize(
    "block", [Residual(), ChannelFirst(), ParallelDepthwise()], ids=lambda block: type(block).__name__
)
def test_without_a_channel_mixer_the_token_half_remains(block: Any) -> None:
    _, weights = made(replace(SCALED, channel_mixer=NoChannelMixer(), block=block))
    assert not any(name.startswith("channel") for name in weights)
    assert "token.scale" in weights


def test_gmlp_is_a_channel_half_alone() -> None:
    block, weights = made(replace(SCALED, token_mixer=NoTokenMixer(), channel_mixer=Gating(), layer_scale=None))
    x = x_of()
    with torch.no_grad():
        expected = x + block.channel.mixer(layer_norm(x, weights, "channel.norm"))
        torch.testing.assert_close(block(x), expected)


def test_a_mixer_with_its_own_norm_gets_no_norm_over_the_tokens_either() -> None:
    _, weights = made(replace(SCALED, token_mixer=Axial(), block=ChannelFirst()))
    assert not any(name.startswith("token.norm") for name in weights)


@pytest.mark.parametrize(
    ("head", "partition", "reason"),
    [
        (MeanHead(), 3, "stage 1: windows of 3 x 3 do not fill a map of 8 x 8"),
        (ClassTokenHead(), 2, "stage 1: repmlp_light looks at a map, and a class token puts the tokens into one row"),
    ],
)
def test_windows_that_do_not_fill_the_tokens_are_refused(head: Head, partition: int, reason: str) -> None:
    stage = replace(ALONE, block=RepMlpLight(partition=partition, groups=2))
    assert Architecture(stem=Patches(patch=4), stages=(stage,), head=head).unfit(32) == reason
