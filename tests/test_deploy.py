"""The deployed form computes what the network computes, in fewer steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from draws import architectures, randomise
from torch import nn

from mlpspace.architecture import (
    NORMS,
    Architecture,
    Axial,
    Dense,
    DepthwiseConv,
    ExternalAttention,
    Linear,
    MeanHead,
    NoTokenMixer,
    Patches,
    Stage,
    TokenMixer,
)
from mlpspace.counts import counted
from mlpspace.nets import build, deploy
from mlpspace.nets.norms import Affine, BatchNorm

MIXERS: list[TokenMixer] = [
    Dense(),
    Linear(),
    Axial(),
    Axial(local=0, fusion="sum"),
    Axial(fusion="weighted", identity=False),
    ExternalAttention(memory=8, heads=2, expansion=2),  # few memory units: its linear maps become fewer
    ExternalAttention(memory=64, heads=8, double_norm=False),  # many: they do not
    DepthwiseConv(),
    NoTokenMixer(),
]


def network_of(mixer: TokenMixer, norm: str, layer_scale: float | None) -> nn.Module:
    stage = Stage(depth=2, width=32, token_mixer=mixer, norm=norm, layer_scale=layer_scale)
    stages = (stage, dataclasses.replace(stage, depth=1, width=48))
    architecture = Architecture(stem=Patches(patch=4), stages=stages, head=MeanHead(norm=norm))
    return randomise(build(architecture, 32, 10)).eval()


def difference(network: nn.Module, deployed: nn.Module, resolution: int = 32) -> float:
    """The largest one of the logits, in standard deviations of the logits."""
    images = torch.randn(8, 3, resolution, resolution, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, found = network(images), deployed(images)
    return float((expected - found).abs().max() / expected.std())


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
def test_deployed_logits_are_equal(mixer: TokenMixer, norm: str, layer_scale: float | None) -> None:
    network = network_of(mixer, norm, layer_scale)
    assert difference(network, deploy(network)) < 1e-5


def test_deployed_logits_are_equal_for_random_architectures() -> None:
    for architecture in architectures(30, seed=4):
        network = randomise(build(architecture, 32, 10)).eval()
        assert difference(network, deploy(network)) < 1e-5, architecture


def test_the_network_itself_is_left_as_it_was() -> None:
    for mixer in MIXERS:
        network = network_of(mixer, "batch", 0.1)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        deploy(network)
        after = network.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_in_training_mode_is_refused() -> None:
    network = network_of(Axial(), "layer", None).train()
    with pytest.raises(ValueError, match=r"training mode: call network\.eval\(\) first"):
        deploy(network)


def test_no_batch_norm_is_left_and_nothing_is_trained() -> None:
    for mixer in MIXERS:
        deployed = deploy(network_of(mixer, "batch", 0.1))
        assert not any(isinstance(module, BatchNorm) for module in deployed.modules())
        assert not any(parameter.requires_grad for parameter in deployed.parameters())
        assert not deployed.training


def test_an_affine_stays_only_before_what_is_no_linear_map_of_channels() -> None:
    """One for each token half that it cannot go into, none before channel MLPs and in the head; 3 blocks."""
    left = {Dense: 3, Linear: 0, ExternalAttention: 0, DepthwiseConv: 3, NoTokenMixer: 0}
    for mixer in MIXERS:
        deployed = deploy(network_of(mixer, "affine", 0.1))
        found = sum(isinstance(module, Affine) for module in deployed.modules())
        # an axial mixer's first norm stands before a GELU; its second is in the convolution
        assert found == (3 if isinstance(mixer, Axial) else left[type(mixer)]), mixer


def test_deploying_never_costs_multiply_accumulates() -> None:
    saved = 0
    for architecture in architectures(30, seed=6):
        network = build(architecture, 32, 10).eval()
        macs, deployed_macs = counted(network, 32)[1], counted(deploy(network), 32)[1]
        assert deployed_macs <= macs, architecture
        saved += deployed_macs < macs
    assert saved > 0


def test_deploying_draws_no_random_numbers() -> None:
    network = network_of(MIXERS[5], "affine", 0.1)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    deploy(network)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_deployed_logits_are_equal_on_a_gpu() -> None:
    for mixer in MIXERS:
        network = network_of(mixer, "batch", 0.1).cuda().double()
        images = torch.randn(4, 3, 32, 32, device="cuda", dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(deploy(network)(images), network(images), rtol=1e-6, atol=1e-6)
