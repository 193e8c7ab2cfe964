"""How published networks meet the task of a space."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mlpspace import papers
from mlpspace.architecture import Architecture, MeanHead, RepMlpLight
from mlpspace.errors import SpaceError
from mlpspace.fixed_points import FixedPoint, fixed_points
from mlpspace.nets import build
from mlpspace.space import Space, load_space

SPACES = Path(__file__).parents[1] / "spaces"


def found_in(space: Space, *names: str, fit: str = "space") -> list[FixedPoint]:
    named = dataclasses.replace(space.fixed_points, names=names, fit=fit)
    return fixed_points(dataclasses.replace(space, fixed_points=named), lambda architecture: None)


@pytest.fixture(scope="module")
def space() -> Space:
    """32 px; a layout of one stage and one of several."""
    return load_space(SPACES / "cifar10.yaml")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("mixer_s16", "patch 16 -> "),
        ("spach_xxs_attn", "patch 16 -> "),
        ("cyclemlp_b1", "patch 4 -> "),
        ("eamlp_7", "T2T stem -> patch "),
        ("repmlp_res50_light", "resnet stem -> patch "),
        ("spach_ms_s_hybrid", "patch 4 -> "),
    ],
)
def test_the_nearest_size_that_the_space_holds_is_taken_and_said(name: str, changed: str, space: Space) -> None:
    (point,) = found_in(space, name)
    assert point.label.startswith(f"{name} ({changed}")
    assert point.architecture.unfit(space.resolution) is None
    build(point.architecture, space.resolution, space.classes)


def test_the_block_of_the_paper_is_kept(space: Space) -> None:
    (point,) = found_in(space, "cyclemlp_b1")
    published = papers.architecture("cyclemlp_b1")
    for stage in point.architecture.stages:
        assert (stage.token_mixer, stage.block, stage.norm) == (published.stages[0].token_mixer, *_kept(published))
    assert (point.architecture.merging, point.architecture.head) == (published.merging, MeanHead())


def _kept(architecture: Architecture) -> tuple[object, str]:
    return architecture.stages[0].block, architecture.stages[0].norm


def test_windows_fill_the_smaller_maps(space: Space) -> None:
    (point,) = found_in(space, "repmlp_res50_light")
    sides = point.architecture.grid(space.resolution)
    for side, stage in zip(sides, point.architecture.stages, strict=True):
        assert not isinstance(stage.block, RepMlpLight) or side % stage.block.partition == 0


def test_a_network_that_no_size_can_hold_names_the_reason(space: Space) -> None:
    with pytest.raises(
        SpaceError, match=r"fixed point eamlp_19 .*no size of layout isotropic can hold its block: stage 1: 28 heads"
    ):
        found_in(space, "eamlp_19")


def test_two_names_of_one_network_are_one_fixed_point(space: Space) -> None:
    (point,) = found_in(space, "repmlpnet_t224", "repmlpnet_t256", fit="resolution")
    assert (
        point.label
        == "repmlpnet_t224 (patch 4 -> 1, grid 56 x 56 -> 32 x 32), also repmlpnet_t256 (patch 4 -> 1, grid 64 x 64 -> 32 x 32)"
    )


def test_exactly_as_published_it_stands_or_says_why_not(space: Space) -> None:
    (point,) = found_in(space, "smlpnet_tiny", fit="exact")
    assert (point.label, point.architecture) == ("smlpnet_tiny", papers.get("smlpnet_tiny"))
    with pytest.raises(SpaceError, match=r"fixed point mixer_h14 .*a stem of stride 14 needs a multiple of 14 pixels"):
        found_in(space, "mixer_h14", fit="exact")


@pytest.mark.parametrize("fit", ["exact", "resolution", "space"])
def test_a_comparator_is_no_fixed_point(fit: str, space: Space) -> None:
    with pytest.raises(SpaceError, match="deit_s is a comparator"):
        found_in(space, "deit_s", fit=fit)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["cifar10.yaml", "imagenet.yaml"])
def test_every_fixed_point_meets_a_space_or_names_the_reason(file: str) -> None:
    space, reasons = load_space(SPACES / file), []
    for name in papers.FIXED_POINTS:
        try:
            (point,) = found_in(space, name)
        except SpaceError as error:
            reasons.append(str(error))
        else:
            assert point.architecture.unfit(space.resolution) is None
    assert all("no size of layout" in reason and ": stage " in reason for reason in reasons)
    assert len(reasons) < 10
