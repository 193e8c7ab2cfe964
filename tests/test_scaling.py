"""An architecture at another resolution: its token grid, its windows, its hidden widths, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import mlpspace
from mlpspace import papers
from mlpspace.architecture import (
    Architecture,
    ConvPatches,
    Dense,
    DenseByTokens,
    DenseUnits,
    Patches,
    RepMlpLight,
    ResNetStem,
    Stage,
)
from mlpspace.errors import ArchitectureError
from mlpspace.nets import build
from mlpspace.scaling import scaled, with_fitting_windows

RESOLUTIONS = (32, 64, 96, 160, 224)
ISOTROPIC = Architecture(stem=Patches(patch=16), stages=(Stage(depth=1, width=8),))
PYRAMID = Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=8), Stage(depth=1, width=16)))


def with_mixer(mixer: Dense | DenseByTokens | DenseUnits) -> Architecture:
    return dataclasses.replace(ISOTROPIC, stages=(Stage(depth=1, width=8, token_mixer=mixer),))


@pytest.mark.parametrize("name", papers.FIXED_POINTS)
def test_every_fixed_point_stands_at_every_resolution(name: str) -> None:
    for resolution in RESOLUTIONS:
        found, changes = papers.at_resolution(name, resolution)
        assert found.unfit(resolution) is None
        assert (changes == "") == (found == papers.get(name) and resolution == papers.paper(name).resolution)


@pytest.mark.slow
@pytest.mark.parametrize("name", papers.FIXED_POINTS)
def test_every_fixed_point_is_built_and_runs_at_every_resolution(name: str) -> None:
    for resolution in RESOLUTIONS:
        with torch.device("meta"), torch.no_grad():
            network = build(papers.at_resolution(name, resolution).architecture, resolution, 10).eval()
            assert network(torch.empty(2, 3, resolution, resolution)).shape == (2, 10)


@pytest.mark.parametrize("resolution", RESOLUTIONS[:-1])
def test_only_stem_and_windows_change_so_hidden_widths_keep_their_saying(resolution: int) -> None:
    for name in papers.FIXED_POINTS:
        published, found = papers.architecture(name), papers.at_resolution(name, resolution).architecture
        for stage, before in zip(found.stages, published.stages, strict=True):
            assert dataclasses.replace(stage, block=before.block) == before
        assert dataclasses.replace(found, stem=published.stem, stages=published.stages) == published


@pytest.mark.parametrize(
    ("mixer", "hidden"), [(Dense(ratio=0.5), 4), (DenseByTokens(ratio=0.5), 128), (DenseUnits(units=7), 7)]
)
def test_a_hidden_width_follows_what_it_is_said_by(mixer: Dense | DenseByTokens | DenseUnits, hidden: int) -> None:
    found = scaled(with_mixer(mixer), 32).architecture  # patch 2: 256 tokens instead of 196
    assert found.stages[0].token_mixer.hidden(16 * 16, 8) == hidden  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("architecture", "resolution", "changes"),
    [
        (ISOTROPIC, 224, ""),
        (ISOTROPIC, 448, "patch 16 -> 32"),
        (ISOTROPIC, 32, "patch 16 -> 2, grid 14 x 14 -> 16 x 16"),
        (ISOTROPIC, 30, "patch 16 -> 2, grid 14 x 14 -> 15 x 15"),
        (ISOTROPIC, 31, "patch 16 -> 1, grid 14 x 14 -> 31 x 31"),
        (PYRAMID, 160, "grid 56 x 56 -> 40 x 40"),  # 80 x 80 is as far off in tokens, and dearer
        (papers.architecture("eamlp_7"), 32, "grid 14 x 14 -> 2 x 2"),
        (papers.architecture("repmlp_res50_light"), 96, "grid 56 x 56 -> 24 x 24, windows 7 -> 3"),
        (papers.architecture("spach_ms_s_hybrid_plus"), 32, "patch 4 -> 2, grid 56 x 56 -> 16 x 16"),
    ],
)
def test_what_was_changed_is_said(architecture: Architecture, resolution: int, changes: str) -> None:
    found = scaled(architecture, resolution)
    assert found.changes == changes
    assert found.architecture.unfit(resolution) is None


def test_the_grid_is_that_of_the_resolution_it_was_designed_for() -> None:
    found = papers.at_resolution("repmlpnet_t256", 128)
    assert found.architecture.grid(128) == papers.architecture("repmlpnet_t256").grid(256)
    assert scaled(ISOTROPIC, 64, designed_for=32).changes == "patch 16 -> 32"


def test_a_patch_is_the_nearest_of_all_that_divide_the_image() -> None:
    for resolution in range(16, 260):
        grid = scaled(ISOTROPIC, resolution).architecture.grid(resolution)[0]
        others = [resolution // patch for patch in range(1, 65) if resolution % patch == 0]
        assert all(max(grid / 14, 14 / grid) <= max(other / 14, 14 / other) for other in others)


def test_a_stem_of_four_convolutions_takes_even_patches_alone() -> None:
    stem = dataclasses.replace(ISOTROPIC, stem=ConvPatches(patch=16))
    assert scaled(stem, 42).architecture.stem.stride == 2  # 3 would give 14 x 14 tokens
    with pytest.raises(ArchitectureError, match="its stem needs a multiple of 2 pixels, not 33"):
        scaled(stem, 33)


@pytest.mark.parametrize(
    ("architecture", "resolution", "reason"),
    [
        (PYRAMID, 33, "its stem and 1 merging need a multiple of 2 pixels, not 33"),
        (papers.architecture("eamlp_7"), 40, "a stem of stride 16 needs a multiple of 16 pixels, not 40"),
        (dataclasses.replace(PYRAMID, stem=ResNetStem()), 36, "stride 4 and 1 merging needs a multiple of 8 pixels"),
    ],
)
def test_what_has_no_form_at_a_resolution_says_why(architecture: Architecture, resolution: int, reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        scaled(architecture, resolution)


def test_windows_that_fill_their_maps_are_left_alone() -> None:
    light = papers.architecture("repmlp_res50_light")
    assert with_fitting_windows(light, 448).architecture == light
    assert with_fitting_windows(light, 448).changes == ""
    halved = with_fitting_windows(light, 160).architecture
    assert [stage.block.partition for stage in halved.stages if isinstance(stage.block, RepMlpLight)] == [5, 5]


def test_it_is_there_from_the_package_itself() -> None:
    assert mlpspace.scaled(mlpspace.papers.get("mixer_s32"), 64).changes == "patch 32 -> 8, grid 7 x 7 -> 8 x 8"  # type: ignore[arg-type]
