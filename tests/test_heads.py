"""Each head, and what it lets join the tokens after the stem, against its closed form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import Array, Weights, batch_norm, gelu, layer_norm, linear, weights_of
from draws import randomise
from torch import Tensor, nn

from mlpspace.architecture import (
    NORMS,
    Architecture,
    ClassMlpHead,
    ClassTokenHead,
    Head,
    LearnedClassTokenHead,
    MeanHead,
    Patches,
    PlainHead,
    Stage,
)
from mlpspace.nets import build
from mlpspace.nets.heads import HEADS, ClassToken, LearnedClassToken

HEIGHT, ROW, WIDTH, BATCH, CLASSES = 3, 5, 8, 2, 7


def made(head: Head) -> tuple[nn.Module, Weights]:
    """The head in eval mode with random weights, and these weights by name."""
    module = randomise(HEADS[type(head)](head, (HEIGHT, ROW), WIDTH, CLASSES).double().eval(), seed=1)
    return module, weights_of(module)


def a_map(height: int = HEIGHT, row: int = ROW) -> Tensor:
    return torch.randn(BATCH, height, row, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def put_out(module: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return module(x).numpy()


def affine(x: Array, weights: Weights, name: str) -> Array:
    return x * weights[f"{name}.alpha"] + weights[f"{name}.beta"]


NORM = dict(zip(NORMS, (layer_norm, affine, batch_norm), strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_the_mean_head_norms_then_averages(norm: str) -> None:
    module, weights = made(MeanHead(norm=norm))
    expected = linear(NORM[norm](a_map().numpy(), weights, "norm").mean((1, 2)), weights, "linear")
    np.testing.assert_allclose(put_out(module, a_map()), expected, atol=1e-12)


def test_the_plain_head_averages_only() -> None:
    module, weights = made(PlainHead())
    assert set(weights) == {"linear.weight", "linear.bias"}
    expected = linear(a_map().numpy().mean((1, 2)), weights, "linear")
    np.testing.assert_allclose(put_out(module, a_map()), expected, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_class_token_heads_read_the_first_token_alone(norm: str) -> None:
    x = a_map(1, HEIGHT * ROW + 1)
    for module, weights in (made(ClassTokenHead(norm=norm)), made(LearnedClassTokenHead(norm=norm))):
        expected = linear(NORM[norm](x.numpy()[:, 0, 0], weights, "norm"), weights, "linear")
        np.testing.assert_allclose(put_out(module, x), expected, atol=1e-12)


def entered(entry: nn.Module, token: Array, positions: Array) -> None:
    """`entry` puts `token` before the tokens and adds `positions` (N, C) to them."""
    found = put_out(entry, a_map())
    assert found.shape == (BATCH, 1, HEIGHT * ROW + 1, WIDTH)
    np.testing.assert_allclose(found[:, 0, 0], np.tile(token, (BATCH, 1)), atol=1e-12)
    np.testing.assert_allclose(found[:, 0, 1:], a_map().numpy().reshape(BATCH, -1, WIDTH) + positions, atol=1e-12)


def test_a_class_token_comes_first_and_each_token_gets_its_position() -> None:
    entry = randomise(ClassToken(ClassTokenHead(), (HEIGHT, ROW), WIDTH).double(), seed=1)
    token, positions = entry.token.detach().numpy(), entry.positions.detach().numpy()
    entered(entry, token + positions[0], positions[1:])


def test_learned_positions_are_a_map_stretched_to_that_of_the_tokens() -> None:
    entry = randomise(LearnedClassToken(LearnedClassTokenHead(side=2), (HEIGHT, ROW), WIDTH).double(), seed=1)
    weights = {name: value.numpy() for name, value in entry.state_dict().items()}
    stretched = np.zeros((HEIGHT, ROW, WIDTH))
    for h in range(HEIGHT):
        for w in range(ROW):  # a position's middle, on the map of 2 x 2, held between the middles of its border
            y, x = (min(max((i + 0.5) * 2 / n - 0.5, 0), 1) for i, n in ((h, HEIGHT), (w, ROW)))
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (y if dy else 1 - y) * (x if dx else 1 - x)
                stretched[h, w] += share * weights["positions"][:, dy, dx]
    entered(entry, weights["token"] + weights["token_position"], stretched.reshape(-1, WIDTH))


def test_learned_positions_are_trained_and_start_small_and_random() -> None:
    positions = LearnedClassToken(LearnedClassTokenHead(), (14, 14), 192).positions
    assert positions.requires_grad
    assert 0.015 < positions.std() < 0.025
    assert not ClassToken(ClassTokenHead(), (14, 14), 192).positions.requires_grad


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("depth", [1, 2])
def test_class_mlp_gathers_the_tokens_into_the_class_token_layer_by_layer(depth: int, norm: str) -> None:
    module, weights = made(ClassMlpHead(depth=depth, ratio=3, norm=norm))
    expected = np.zeros((BATCH, CLASSES))
    for b, tokens in enumerate(a_map().numpy().reshape(BATCH, -1, WIDTH)):
        token = weights["token"]
        for i in range(depth):
            layer = f"layers.{i}"
            joined = NORM[norm](np.stack([token, *tokens]), weights, f"{layer}.gather_norm")  # (N + 1, C)
            gathered = weights[f"{layer}.gather.weight"][0] @ joined + weights[f"{layer}.gather.bias"]  # (C,)
            token = token + weights[f"{layer}.gather_scale"] * gathered
            normed = NORM[norm](token, weights, f"{layer}.channel.norm")
            hidden = gelu(linear(normed, weights, f"{layer}.channel.mixer.expand"))
            token = token + weights[f"{layer}.channel.scale"] * linear(
                hidden, weights, f"{layer}.channel.mixer.project"
            )
        expected[b] = linear(NORM[norm](token, weights, "norm"), weights, "linear")
    assert weights["layers.0.channel.mixer.expand.bias"].shape == (3 * WIDTH,)
    np.testing.assert_allclose(put_out(module, a_map()), expected, atol=1e-12)


def test_class_mlp_scales_start_at_their_value() -> None:
    module = HEADS[ClassMlpHead](ClassMlpHead(depth=1, layer_scale=1e-5), (HEIGHT, ROW), WIDTH, CLASSES)
    assert module.layers[0].gather_scale.tolist() == [pytest.approx(1e-5)] * WIDTH
    assert module.layers[0].channel.scale.tolist() == [pytest.approx(1e-5)] * WIDTH


@pytest.mark.parametrize("head", [ClassTokenHead(), LearnedClassTokenHead()], ids=lambda head: type(head).__name__)
def test_with_a_class_token_the_mixers_see_one_token_more(head: Head) -> None:
    network = build(Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=8),), head=head), 16, CLASSES)
    assert network.blocks[0].token.mixer.project.bias.shape == (4 * 4 + 1,)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, CLASSES)


@pytest.mark.parametrize("kind", list(HEADS), ids=lambda kind: kind.__name__)
def test_every_kind_is_held_against_its_closed_form(kind: type[Any]) -> None:
    """A new head needs a test above."""
    assert re.search(rf"made\(\s*{kind.__name__}\(", Path(__file__).read_text())
