"""The deployed form computes what the network computes, in fewer steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from draws import KINDS, architectures, of_kind, randomise
from torch import nn

from mlpspace.architecture import (
    NORMS,
    Architecture,
    Axial,
    BatchNormMerging,
    BatchNormPatches,
    Dense,
    DepthwiseConv,
    ExternalAttention,
    Linear,
    MeanHead,
    NormedMlp,
    NoTokenMixer,
    Patches,
    RepMlp,
    Stage,
    TokenMixer,
)
from mlpspace.counts import counted, profile
from mlpspace.nets import build, deploy
from mlpspace.nets.norms import Affine, BatchNorm
from mlpspace.nets.token_mixers.repmlp import ShareSetConv

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
    images = images.to(next(network.parameters()))
    with torch.no_grad():
        expected, found = network(images), deployed(images)
    return float((expected - found).abs().max() / expected.std())


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
def test_deployed_logits_are_equal(mixer: TokenMixer, norm: str, layer_scale: float | None) -> None:
    network = network_of(mixer, norm, layer_scale)
    assert difference(network, deploy(network)) < 1e-5


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_every_kind_deploys(table: str, kind: str, norm: str, layer_scale: float | None) -> None:
    """Equal logits, the network left as it was, no BatchNorm and nothing to train in the deployed form."""
    network = randomise(build(of_kind(table, kind, norm, layer_scale), 32, 10)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deployed = deploy(network)
    assert difference(network, deployed) < 1e-5
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(isinstance(module, BatchNorm) or module.training for module in deployed.modules())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())


def test_deployed_logits_are_equal_for_random_architectures() -> None:
    """In float64, where a deep network with wild weights leaves no room for an excuse."""
    for architecture in architectures(40, seed=4):
        network = randomise(build(architecture, 32, 10)).double().eval()
        assert difference(network, deploy(network)) < 1e-9, architecture


def test_the_deployed_form_has_its_shapes_on_the_meta_device_too() -> None:
    for table, kind in KINDS:
        network = build(of_kind(table, kind, "batch", 0.1), 32, 10).eval()
        here, there = deploy(network).state_dict(), deploy(network.to("meta")).state_dict()
        assert {name: (value.shape, True) for name, value in here.items()} == {
            name: (value.shape, value.is_meta) for name, value in there.items()
        }, (table, kind)


def test_deploying_the_deployed_form_changes_nothing() -> None:
    for table, kind in KINDS:
        deployed = deploy(randomise(build(of_kind(table, kind, "batch", 0.1), 32, 10)).eval())
        again = deploy(deployed)
        assert difference(deployed, again) == 0, (table, kind)
        assert again.state_dict().keys() == deployed.state_dict().keys()


def test_what_is_overwritten_is_read_by_nobody() -> None:
    """GELUs and sums overwrite what they are given: the images, the weights and the gradients do not show it."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    for architecture in architectures(30, seed=8):
        network = randomise(build(architecture, 32, 10)).eval().double()
        deployed = deploy(network)
        given = images.double().requires_grad_()
        found, again = deployed(given), deployed(given)
        assert torch.equal(found, again), architecture
        assert torch.equal(given, images.double()), architecture
        (expected,) = torch.autograd.grad(network(given).square().sum(), given)
        (gradient,) = torch.autograd.grad(found.square().sum(), given)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


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
    network.eval().blocks[1].train()  # a part in training mode is refused too
    with pytest.raises(ValueError, match="training mode"):
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


def repmlpnet_t224() -> Architecture:
    """RepMLPNet-T224 (arXiv:2112.11081)."""
    sizes = zip((2, 2, 6, 2), (64, 128, 256, 512), (1, 4, 16, 128), strict=True)
    stages = tuple(
        Stage(
            depth=depth,
            width=width,
            token_mixer=RepMlp(share_sets=share_sets, kernel=3),
            channel_mixer=NormedMlp(),
            norm="batch",
        )
        for depth, width, share_sets in sizes
    )
    stem, head = BatchNormPatches(patch=4), MeanHead(norm="batch")
    return Architecture(stem=stem, stages=stages, merging=BatchNormMerging(), head=head)


def test_repmlpnets_branches_become_one_matrix() -> None:
    """Counts of the official code: 38,293,608 parameters as it is trained; merged it loses the convolutions' MACs."""
    architecture = repmlpnet_t224()
    trained = profile(architecture, 224)
    assert (trained.params, trained.macs) == (38_293_608, 2_807_987_200)
    with torch.device("meta"):
        deployed = deploy(build(architecture, 224, 1000).eval())
    assert not any(isinstance(module, nn.Conv2d | BatchNorm | ShareSetConv) for module in deployed.modules())
    convolutions = sum(
        stage.depth * stage.width * side**2 * (1 + 9)
        for stage, side in zip(architecture.stages, (56, 28, 14, 7), strict=True)
    )
    assert counted(deployed, 224)[1] == 2_807_987_200 - convolutions


def test_deploying_never_costs_multiply_accumulates() -> None:
    saved = 0
    for architecture in architectures(20, seed=6):
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
