"""Counts: against published networks, and against counters that watch the built network run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from draws import architectures
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mlpspace import papers
from mlpspace.architecture import TABLES, Architecture, Axial, Dense, DepthwiseConv, Mlp
from mlpspace.counts import counted, profile
from mlpspace.errors import ArchitectureError
from mlpspace.nets import build
from mlpspace.space import load_space

# Parameters and multiply-accumulates at 1,000 classes, counted on the public implementations with torch's
# FlopCounterMode (halved): timm for MLP-Mixer, facebookresearch/deit for ResMLP, microsoft/SPACH for sMLPNet,
# MenghaoGuo/EANet for EAMLP. Rounded, they are the papers' figures (MLP-Mixer's leave out the classifier).
PUBLISHED = [
    ("mixer_s32", 19_104_624, 1_002_426_368),
    ("mixer_s16", 18_528_264, 3_776_958_464),
    ("mixer_b16", 59_880_472, 12_601_767_936),
    ("mixer_l32", 206_939_264, 11_253_293_056),
    ("mixer_h14", 432_350_952, 120_989_911_040),
    ("resmlp_s12", 15_350_872, 3_009_739_776),
    ("resmlp_s24", 30_020_680, 5_961_292_800),
    ("resmlp_s36", 44_690_488, 8_912_845_824),
    ("resmlp_b24_p8", 129_138_280, 100_230_739_968),
    ("smlpnet_tiny", 24_123_584, 4_989_451_520),
    ("smlpnet_small", 48_558_136, 10_312_161_792),
    ("eamlp_7", 6_146_638, 1_465_194_496),
    ("eamlp_10", 8_540_110, 2_007_439_360),
    ("eamlp_14", 29_877_070, 6_450_351_104),
    ("eamlp_24", 89_456_590, 18_820_366_336),
    ("eamlp_7_384", 6_243_918, 4_292_929_536),
]

# Surgery on the same implementations: the network, what was changed, and the counts. ResMLP's variants are those of
# its paper's Table 3 (arXiv:2105.03404), sMLPNet's those of its ablations (arXiv:2109.05422).
VARIANTS: list[tuple[str, dict[str, Any], int, int]] = [
    ("smlpnet_tiny", {"channel_mixer": Mlp(ratio=2)}, 19_175_584, 3_945_790_720),
    ("smlpnet_tiny", {"token_mixer": Axial(local=0)}, 24_044_384, 4_967_436_800),
    ("smlpnet_tiny", {"token_mixer": Axial(fusion="sum")}, 16_712_384, 3_423_960_320),
    ("smlpnet_tiny", {"token_mixer": Axial(fusion="weighted")}, 16_712_462, 3_423_960_320),
    ("smlpnet_tiny", {"token_mixer": Axial(identity=False)}, 21_653_184, 4_467_621_120),
    ("resmlp_s12", {"token_mixer": DepthwiseConv(kernel=3)}, 14_933_608, 2_840_847_360),
    ("resmlp_s12", {"token_mixer": Dense(ratio=784 / 384)}, 18_587_224, 4_248_886_272),
    ("resmlp_s12", {"norm": "layer"}, 15_350_872, 3_009_739_776),
]


def with_stages(architecture: Architecture, **changes: Any) -> Architecture:
    stages = tuple(dataclasses.replace(stage, **changes) for stage in architecture.stages)
    return dataclasses.replace(architecture, stages=stages)


@pytest.mark.parametrize(("name", "params", "macs"), PUBLISHED)
def test_published_networks_cost_what_their_code_costs(name: str, params: int, macs: int) -> None:
    paper = papers.paper(name)
    found = profile(paper.architecture, paper.resolution)
    assert (found.params, found.macs) == (params, macs)


@pytest.mark.parametrize(("name", "changes", "params", "macs"), VARIANTS)
def test_variants_of_published_networks_cost_what_surgery_on_their_code_costs(
    name: str, changes: dict[str, Any], params: int, macs: int
) -> None:
    found = profile(with_stages(papers.get(name), **changes), 224)
    assert (found.params, found.macs) == (params, macs)


@pytest.mark.parametrize("name", ["mixer_s16", "resmlp_s12", "smlpnet_tiny", "eamlp_7"])
def test_published_networks_are_built_with_the_published_number_of_parameters(name: str) -> None:
    published = {row[0]: row[1] for row in PUBLISHED}
    with torch.device("meta"):
        network = build(papers.get(name), resolution=224, classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == published[name]


class Products(TorchDispatchMode):
    """Adds up the numbers that matrix products and convolutions put out."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm", "convolution"):
            self.numbers += out.numel()
        return out


def test_the_draws_hold_every_kind_there_is() -> None:
    drawn = architectures(200)
    stages = [stage for architecture in drawn for stage in architecture.stages]
    found = {
        "stem": {type(architecture.stem) for architecture in drawn},
        "merging": {type(architecture.merging) for architecture in drawn if architecture.mergings},
        "head": {type(architecture.head) for architecture in drawn},
        "block": {type(stage.block) for stage in stages},
        "token_mixer": {type(stage.token_mixer) for stage in stages},
        "channel_mixer": {type(stage.channel_mixer) for stage in stages},
    }
    assert found == {name: set(table.values()) for name, table in TABLES.items()}
    assert not all(stage.merge for stage in stages)


@pytest.mark.parametrize(("device", "draws"), [("meta", 30), ("cpu", 200)])  # both count alike; on meta it takes longer
@sdpa_kernel(SDPBackend.MATH)  # attention written out, as fused kernels hide its products on the CPU
def test_arithmetic_agrees_with_watching_the_network_run(device: str, draws: int) -> None:
    image = torch.empty(1, 3, 32, 32, device=device)
    for architecture in architectures(draws):
        with torch.device("meta"):
            network = (
                build(architecture, 32, 10).eval().requires_grad_(False)
            )  # FlopCounterMode trips over views of them
        network.to_empty(device=device)
        found = profile(architecture, 32, classes=10)
        assert found.params == sum(parameter.numel() for parameter in network.parameters()), architecture
        with torch.no_grad(), FlopCounterMode(display=False) as flops, Products() as products:
            network(image)
        assert found.macs == flops.get_total_flops() / 2, architecture
        assert found.activations == products.numbers, architecture


def test_arithmetic_agrees_with_ptflops(capsys: pytest.CaptureFixture[str]) -> None:
    for architecture in architectures(20, seed=1):
        found = profile(architecture, 32, classes=10)
        network = build(architecture, 32, 10)
        assert counted(network, 32) == (found.params, found.macs), architecture
    assert capsys.readouterr().out == ""


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build(architectures(1)[0], 32, 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counted(network, 32)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_profile_says_its_circumstances() -> None:
    found = profile(papers.get("eamlp_7"), 384, classes=100)
    assert (found.tokens, found.resolution, found.classes) == (24 * 24, 384, 100)
    assert profile(papers.get("smlpnet_tiny"), 224).tokens == 56 * 56


def test_what_cannot_be_built_has_no_profile() -> None:
    with pytest.raises(ArchitectureError, match="multiple of 32 pixels, not 230"):
        profile(papers.get("smlpnet_tiny"), 230)


@pytest.mark.slow
@sdpa_kernel(SDPBackend.MATH)
@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("spaces/*.yaml")), ids=lambda path: path.stem)
def test_200_draws_of_every_shipped_space_count_as_torch_counts_them(path: Path) -> None:
    space = load_space(path)
    rng = np.random.default_rng(0)
    for _ in range(200):
        architecture = space.sample(rng)
        told = profile(architecture, space.resolution, space.classes)
        with torch.device("meta"):
            network = build(architecture, space.resolution, space.classes).requires_grad_(False)
            image = torch.empty(1, 3, space.resolution, space.resolution)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
        assert told.macs == counter.get_total_flops() / 2, architecture.describe()
        assert told.params == sum(p.numel() for p in network.parameters()), architecture.describe()
