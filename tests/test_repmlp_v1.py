"""RepMLP as first published against a plain (B, C, H, W) computation: as it is trained, and merged."""

from __future__ import annotations

import pytest
import torch
from draws import randomise
from repmlp_v1 import Weights, repmlp
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mlpspace.architecture import (
    Architecture,
    Block,
    Bottleneck,
    BottleneckMerging,
    NoChannelMixer,
    NoTokenMixer,
    PlainHead,
    RepMlpBottleneck,
    RepMlpLight,
    ResNetStem,
    Stage,
)
from mlpspace.counts import profile
from mlpspace.nets import build, deploy
from mlpspace.nets.folding import folded
from mlpspace.nets.resnet import WindowRepMlp

WIDTH, SIDE, GROUPS = 6, 3, 2
GRIDS = [(3, 3), (6, 9), (3, 6)]  # one window; 2 x 3 of them; 1 x 2


def made(grid: tuple[int, int], kernel: int = 3) -> tuple[nn.Module, Weights]:
    """The module in eval mode with random weights, and these weights by name, after "repmlp."."""
    module = WindowRepMlp(RepMlpLight(partition=SIDE, groups=GROUPS, kernel=kernel), grid, WIDTH).double().eval()
    randomise(module, seed=1)
    return module, {f"repmlp.{name}": value.clone() for name, value in module.state_dict().items()}


def a_map(grid: tuple[int, int]) -> Tensor:
    return torch.randn(4, *grid, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def by_hand(x: Tensor, weights: Weights, training: bool = False) -> Tensor:
    y = repmlp(x.permute(0, 3, 1, 2), weights, "repmlp", side=SIDE, groups=GROUPS, training=training)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel", [1, 5])  # 5 reaches beyond a window of 3
@pytest.mark.parametrize("grid", GRIDS)
def test_as_it_is_trained(grid: tuple[int, int], kernel: int, training: bool) -> None:
    module, weights = made(grid, kernel)
    module.train(training)
    with torch.no_grad():
        found, expected = module(a_map(grid)), by_hand(a_map(grid), weights, training)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_windows_hear_of_each_other_by_their_means_alone() -> None:
    module, _ = made((6, 9))
    x = a_map((6, 9))
    same_mean, other_mean = x.clone(), x.clone()
    same_mean[:, 0, 0] += 1  # in the first window: one pixel up, one down
    same_mean[:, 2, 2] -= 1
    other_mean[:, 0, 0] += 1
    with torch.no_grad():
        outside = [(module(changed) - module(x))[:, 3:, 3:].abs().max() for changed in (same_mean, other_mean)]
    assert outside[0] < 1e-12 < 1e-3 < outside[1]


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS)
def test_merged_it_is_the_same_function_without_norms_and_convolutions(grid: tuple[int, int]) -> None:
    module, weights = made(grid, kernel=5)
    merged = folded(module)
    kinds = {type(part) for part in merged.modules()}
    assert not any(issubclass(kind, nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d) for kind in kinds)
    torch.testing.assert_close(merged(a_map(grid)), by_hand(a_map(grid), weights), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_merged_matrix_is_what_one_hot_windows_give() -> None:
    module, weights = made((SIDE, SIDE), kernel=5)
    merged = folded(module)
    numbers = WIDTH * SIDE * SIDE

    def response(windows: Tensor) -> Tensor:
        return repmlp(windows.view(-1, WIDTH, SIDE, SIDE), weights, "repmlp", side=SIDE, groups=GROUPS).flatten(1)

    shift = response(torch.zeros(1, numbers, dtype=torch.float64))
    columns = response(torch.eye(numbers, dtype=torch.float64)) - shift  # (inputs, outputs)
    torch.testing.assert_close(torch.block_diag(*merged.matrix.weight).T, columns, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(merged.matrix.bias, shift[0], rtol=1e-10, atol=1e-10)


def resnet_50(third: Block, fourth: Block) -> Architecture:
    """ResNet-50, `third` and `fourth` the blocks of stride 1 in its stages c3 and c4."""

    def stage(depth: int, width: int, block: Block) -> Stage:
        return Stage(depth=depth, width=width, token_mixer=NoTokenMixer(), channel_mixer=NoChannelMixer(), block=block)

    plain = Bottleneck()
    # 3, 4, 6 and 3 bottlenecks, the first of each in the stem or the merging
    stages = (stage(2, 256, plain), stage(3, 512, third), stage(5, 1024, fourth), stage(2, 2048, plain))
    return Architecture(stem=ResNetStem(), stages=stages, merging=BottleneckMerging(), head=PlainHead())


# Counted on the official implementation after its `switch_to_deploy` (halved FlopCounterMode).
MERGED = {
    "base": (resnet_50(Bottleneck(), Bottleneck()), 25_530_472, 4_089_184_256),
    "light": (resnet_50(RepMlpLight(groups=4), RepMlpLight(groups=4)), 86_142_440, 3_076_915_200),
    "bottleneck": (
        resnet_50(RepMlpBottleneck(groups=8, reduction=2), RepMlpBottleneck(groups=8, reduction=4)),
        40_871_528,
        3_890_710_528,
    ),
}


@pytest.mark.parametrize("name", list(MERGED))
def test_repmlp_res50_merged_costs_what_the_official_code_costs(name: str) -> None:
    architecture, params, macs = MERGED[name]
    with torch.device("meta"):
        network = build(architecture, resolution=224, classes=1000).eval()
        deployed = deploy(network)
        image = torch.empty(1, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        deployed(image)
    assert sum(parameter.numel() for parameter in deployed.parameters()) == params
    assert counter.get_total_flops() / 2 == macs


def test_resnet_50_as_it_is_trained_has_its_25_557_032_parameters() -> None:
    assert profile(MERGED["base"][0], resolution=224).params == 25_557_032  # torchvision's, timm's
