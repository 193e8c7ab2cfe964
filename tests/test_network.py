"""Networks as they are built: shapes, halves of a block, norms, stems, heads, fresh weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from draws import architectures, randomise
from torch.nn import functional as F

from mlpspace.architecture import (
    Architecture,
    Axial,
    ClassTokenHead,
    Dense,
    Linear,
    MeanHead,
    Merging,
    Mlp,
    NoTokenMixer,
    Patches,
    Stage,
    TokensToToken,
)
from mlpspace.errors import ArchitectureError
from mlpspace.nets import build
from mlpspace.nets.blocks import ResidualBlock as Block
from mlpspace.nets.heads import ClassToken
from mlpspace.nets.mergings import PatchMerging
from mlpspace.nets.norms import Affine, BatchNorm, LayerNorm
from mlpspace.nets.stems import PatchStem

SMALL = Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=16), Stage(depth=1, width=24)))


def test_logits_have_one_row_for_each_image_and_one_column_for_each_class() -> None:
    for architecture in architectures(20):
        network = build(architecture, 32, 7).eval()
        with torch.no_grad():
            assert network(torch.randn(3, 3, 32, 32)).shape == (3, 7)


def test_an_image_gets_the_same_logits_in_any_company() -> None:
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for architecture in architectures(20, seed=1):
        network = randomise(build(architecture, 32, 5)).double().eval()
        with torch.no_grad():
            torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-9, atol=1e-9)


def test_fresh_weights_follow_from_the_seed() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(build(SMALL, 32, 10).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(1), weights(2), strict=True))


def test_fresh_networks_learn_something_in_each_weight() -> None:
    for architecture in architectures(20, seed=2):
        network = build(architecture, 32, 10)
        F.cross_entropy(network(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None or not parameter.requires_grad, name
            assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_builds_without_memory_on_the_meta_device() -> None:
    for architecture in architectures(20, seed=3):
        with torch.device("meta"):
            network = build(architecture, 64, 10)
        assert all(value.is_meta for value in network.state_dict().values())
        assert network(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("architecture", "resolution", "reason"),
    [
        (SMALL, 36, "a stem of stride 4 and 1 merging needs a multiple of 8 pixels, not 36"),
        (dataclasses.replace(SMALL, head=ClassTokenHead()), 32, "a class token cannot pass a patch merging"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_reason(
    architecture: Architecture, resolution: int, reason: str
) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        build(architecture, resolution=resolution, classes=10)


def test_a_block_is_two_residuals_after_the_norm_each_scaled_per_channel() -> None:
    block = randomise(Block(Stage(depth=1, width=8, token_mixer=Dense(), layer_scale=0.1), (3, 5))).double()
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        y = x + block.token.scale * block.token.mixer(F.layer_norm(x, (8,), *block.token.norm.parameters(), eps=1e-6))
        expected = y + block.channel.scale * block.channel.mixer(
            F.layer_norm(y, (8,), *block.channel.norm.parameters(), eps=1e-6)
        )
        torch.testing.assert_close(block(x), expected)


def test_layer_scale_starts_at_its_value_in_both_halves() -> None:
    stage = Stage(depth=1, width=16, layer_scale=1e-5)
    block = Block(stage, (4, 4))
    assert block.token.scale.tolist() == block.channel.scale.tolist() == [pytest.approx(1e-5)] * 16
    assert Block(dataclasses.replace(stage, layer_scale=None), (4, 4)).token.scale is None


def test_a_mixer_with_its_own_norm_gets_none_from_the_block() -> None:
    names = dict(Block(Stage(depth=1, width=16, token_mixer=Axial(), norm="affine"), (4, 4)).named_parameters())
    assert not any(name.startswith("token.norm") for name in names)
    assert "channel.norm.alpha" in names


def test_a_block_without_token_mixer_has_its_channel_half_only() -> None:
    block = Block(Stage(depth=1, width=16, token_mixer=NoTokenMixer(), layer_scale=0.1), (4, 4))
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"channel"}


def test_the_channel_mlp_maps_each_position_by_itself() -> None:
    mlp = randomise(Block(Stage(depth=1, width=8, channel_mixer=Mlp(ratio=3)), (2, 3))).channel.mixer.double()
    x = torch.randn(2, 2, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        for h in range(2):
            for w in range(3):
                hidden = F.gelu(x[:, h, w] @ mlp.expand.weight.T + mlp.expand.bias, approximate="none")
                expected = hidden @ mlp.project.weight.T + mlp.project.bias
                torch.testing.assert_close(mlp(x)[:, h, w], expected)


def test_norms_are_over_channels_learned_only_and_over_images_and_tokens() -> None:
    x = 3 + 2 * torch.randn(4, 3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        layer = LayerNorm(8).double()(x)
        batch = BatchNorm(8).double()(x)
        affine = randomise(Affine(8).double())
        torch.testing.assert_close(affine(x), x * affine.alpha + affine.beta)
    numbers = x.numpy()
    over_channels = (numbers - numbers.mean(3, keepdims=True)) / np.sqrt(numbers.var(3, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer.numpy(), over_channels, atol=1e-12)
    over_tokens = (numbers - numbers.mean((0, 1, 2))) / np.sqrt(numbers.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(batch.numpy(), over_tokens, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_stem_and_merging_are_convolutions_without_overlap(bias: bool) -> None:
    stem = randomise(PatchStem(Patches(patch=4, bias=bias), 6)).double()
    image = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        conv = F.conv2d(image, stem.project.weight.view(6, 3, 4, 4), stem.project.bias, stride=4)
        torch.testing.assert_close(stem(image), conv.permute(0, 2, 3, 1))

        merging = randomise(PatchMerging(Merging(bias=bias), 6, 10)).double()
        x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
        kernel = merging.project.weight.view(10, 2, 2, 6).permute(0, 3, 1, 2)
        conv = F.conv2d(x.permute(0, 3, 1, 2), kernel, merging.project.bias, stride=2)
        torch.testing.assert_close(merging(x), conv.permute(0, 2, 3, 1))


def test_the_mean_head_reads_all_tokens_alike() -> None:
    head = randomise(build(SMALL, 32, 10)).head.double()
    x = torch.randn(2, 4, 4, 24, dtype=torch.float64)
    with torch.no_grad():
        mean = F.layer_norm(x, (24,), *head.norm.parameters(), eps=1e-6).mean((1, 2))
        torch.testing.assert_close(head(x), mean @ head.linear.weight.T + head.linear.bias)


def test_the_class_token_comes_first_and_positions_are_the_fixed_sinusoid() -> None:
    entry = ClassToken(ClassTokenHead(), (2, 3), 8)
    x = torch.randn(4, 2, 3, 8)
    with torch.no_grad():
        y = entry(x) - entry.positions
    assert y.shape == (4, 1, 7, 8)
    torch.testing.assert_close(y[:, 0, 0], entry.token.detach().expand(4, 8))
    torch.testing.assert_close(y[:, 0, 1:], x.view(4, 6, 8))
    assert not entry.positions.requires_grad
    for position in range(7):
        for channel in range(8):  # Vaswani et al. 2017, section 3.5
            angle = position / 10000 ** (2 * (channel // 2) / 8)
            expected = np.sin(angle) if channel % 2 == 0 else np.cos(angle)
            assert entry.positions[position, channel].item() == pytest.approx(expected, abs=1e-6)


def test_the_class_token_alone_is_read() -> None:
    stage = Stage(depth=1, width=8, token_mixer=Linear())
    architecture = Architecture(stem=TokensToToken(token_width=8, memory=4), stages=(stage,), head=ClassTokenHead())
    head = randomise(build(architecture, 32, 10)).eval().head
    x = torch.randn(2, 1, 5, 8)
    changed = x.clone()
    changed[:, :, 1:] += 1
    with torch.no_grad():
        torch.testing.assert_close(head(x), head(changed))


def test_heads_take_each_norm() -> None:
    for norm, kind in (("layer", LayerNorm), ("affine", Affine), ("batch", BatchNorm)):
        assert type(build(dataclasses.replace(SMALL, head=MeanHead(norm=norm)), 32, 10).head.norm) is kind
