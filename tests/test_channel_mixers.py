"""Each channel mixer against its closed form, in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ACTIVATION, Array, Weights, batch_norm, gelu, layer_norm, linear, weights_of
from draws import randomise
from torch import Tensor, nn

from mlpspace.architecture import (
    ACTIVATIONS,
    Architecture,
    ChannelMixer,
    Gating,
    Mlp,
    NormedMlp,
    NoTokenMixer,
    Patches,
    Stage,
)
from mlpspace.nets import build
from mlpspace.nets.channel_mixers import CHANNEL_MIXERS

HEIGHT, ROW, WIDTH, BATCH = 3, 5, 8, 2


def mixer_module(mixer: ChannelMixer) -> tuple[nn.Module, Weights]:
    """The module in eval mode with random weights, and these weights by name."""
    module = CHANNEL_MIXERS[type(mixer)](mixer, (HEIGHT, ROW), WIDTH).double().eval()
    randomise(module, seed=1)
    return module, weights_of(module)


def image() -> Tensor:
    return torch.randn(BATCH, HEIGHT, ROW, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def put_out(module: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return module(x).numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("ratio", "hidden"), [(0.3, 2), (2, 16)])
def test_mlp_is_two_linear_maps_of_each_position(ratio: float, hidden: int, activation: str) -> None:
    module, weights = mixer_module(Mlp(ratio=ratio, activation=activation))
    assert weights["expand.bias"].shape == (hidden,)
    expected = linear(ACTIVATION[activation](linear(image().numpy(), weights, "expand")), weights, "project")
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


@pytest.mark.parametrize(("ratio", "gate"), [(0.5, 2), (6, 24)])
def test_gating_multiplies_one_half_by_the_other_mapped_over_the_tokens(ratio: float, gate: int) -> None:
    module, weights = mixer_module(Gating(ratio=ratio))
    tokens = image().numpy().reshape(BATCH, HEIGHT * ROW, WIDTH)
    expected = np.zeros_like(tokens)
    for b in range(BATCH):
        hidden = gelu(linear(tokens[b], weights, "expand"))  # (N, 2 * gate)
        u, v = hidden[:, :gate], layer_norm(hidden[:, gate:], weights, "norm", eps=1e-5)  # timm's eps
        gates = weights["tokens.weight"] @ v + weights["tokens.bias"][:, None]  # each channel's tokens
        expected[b] = linear(u * gates, weights, "project")
    np.testing.assert_allclose(put_out(module, image()), expected.reshape(image().shape), atol=1e-12)


def test_gating_starts_by_passing_the_first_half_on() -> None:
    stage = Stage(depth=1, width=WIDTH, token_mixer=NoTokenMixer(), channel_mixer=Gating(ratio=4))
    network = build(Architecture(stem=Patches(patch=4), stages=(stage,)), 16, 10).double()
    gating = network.blocks[0].channel.mixer
    weights, x = weights_of(gating), torch.randn(BATCH, 4, 4, WIDTH, dtype=torch.float64)
    first = gelu(linear(x.numpy(), weights, "expand"))[..., : 2 * WIDTH]
    np.testing.assert_allclose(put_out(gating, x), linear(first, weights, "project"), atol=1e-3)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.5, 4), (4, 32)])
def test_normed_mlp_norms_after_each_linear_map(ratio: float, hidden: int) -> None:
    module, weights = mixer_module(NormedMlp(ratio=ratio))
    assert weights["expand.weight"].shape == (hidden, WIDTH)
    assert "expand.bias" not in weights
    assert "project.bias" not in weights
    y = gelu(batch_norm(linear(image().numpy(), weights, "expand"), weights, "expand_norm"))
    expected = batch_norm(linear(y, weights, "project"), weights, "project_norm")
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


def test_gating_mixes_tokens_and_the_others_do_not() -> None:
    for mixer, mixes in ((Mlp(), False), (NormedMlp(), False), (Gating(), True)):
        module, _ = mixer_module(mixer)
        changed = image()
        changed[:, 1, 2] += 1
        touched = np.abs(put_out(module, changed) - put_out(module, image())).max(axis=(0, 3)) > 0  # (H, W)
        assert touched.sum() == (HEIGHT * ROW if mixes else 1), mixer


@pytest.mark.parametrize("kind", list(CHANNEL_MIXERS), ids=lambda kind: kind.__name__)
def test_every_kind_is_held_against_its_closed_form(kind: type[Any]) -> None:
    """A new mixer needs a test above."""
    assert re.search(rf"mixer_module\(\s*{kind.__name__}\(", Path(__file__).read_text())
