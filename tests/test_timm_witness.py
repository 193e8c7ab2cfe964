"""A second witness: timm's own modules, run here, put out what ours do with the same weights.

Small networks of each kind that timm has, and its published sizes on request (`pytest -m slow`).
"""

from __future__ import annotations

from typing import Any

import goldens
import pytest
import torch
from torch import nn

from mlpspace import comparators, papers, weights
from mlpspace.architecture import Architecture, Dense, Gating, Linear, MeanHead, Mlp, NoTokenMixer, Patches, Stage
from mlpspace.comparators import Comparator, TimmMissing
from mlpspace.errors import WeightsError
from mlpspace.nets import build, deploy
from mlpspace.weights.convert import converted


@pytest.fixture(scope="module")
def timm() -> Any:
    try:
        return comparators.imported()
    except TimmMissing as reason:
        pytest.skip(str(reason))


def filled(network: nn.Module) -> nn.Module:
    """With weights by the rule of the goldens: the fresh ones leave out too much, as biases and heads of zeros do."""
    state = network.state_dict()
    network.load_state_dict({key: goldens.drawn(key, tuple(v.shape)) for key, v in state.items()})
    return network.eval()


def isotropic(stage: Stage, norm: str = "layer") -> Architecture:
    return Architecture(stem=Patches(patch=8), stages=(stage,), head=MeanHead(norm=norm))


MIXER = isotropic(Stage(depth=3, width=32, token_mixer=Dense(ratio=0.5), channel_mixer=Mlp(ratio=4)))
RESMLP = isotropic(Stage(depth=3, width=32, token_mixer=Linear(), norm="affine", layer_scale=0.1), norm="affine")
GMLP = isotropic(Stage(depth=3, width=32, token_mixer=NoTokenMixer(), channel_mixer=Gating(ratio=6)))
SMALL = {"mixer_s16_224": MIXER, "resmlp_12_224": RESMLP, "gmlp_ti16_224": GMLP}


@pytest.mark.parametrize("theirs", SMALL)
@torch.no_grad()
def test_a_small_network_puts_out_what_timms_does(timm: Any, theirs: str) -> None:
    small = {"patch_size": 8, "num_blocks": 3, "embed_dim": 32, "img_size": 48, "num_classes": 11}
    expected = filled(timm.models.mlp_mixer.MlpMixer(**small, **block_of(timm, theirs)))
    network = build(SMALL[theirs], resolution=48, classes=11)
    network.load_state_dict(converted(expected.state_dict(), SMALL[theirs], 48, theirs))
    images = goldens.images_of(48)
    for form in (network.eval(), deploy(network)):
        assert goldens.deviations(form(images), expected(images)) < 1e-5


def block_of(timm: Any, name: str) -> dict[str, Any]:
    """What timm's entry of that name says of its blocks."""
    theirs = timm.models.mlp_mixer
    return {
        "mixer_s16_224": {},
        "resmlp_12_224": {"mlp_ratio": 4, "block_layer": theirs.ResBlock, "norm_layer": theirs.Affine},
        "gmlp_ti16_224": {"mlp_ratio": 6, "block_layer": theirs.SpatialGatingBlock, "mlp_layer": timm.layers.GatedMlp},
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("mixer_s16_224", "mixer_s16"),
        ("mixer_b16_224", "mixer_b16"),
        ("resmlp_12_224", "resmlp_s12"),
        ("resmlp_24_224", "resmlp_s24"),
        ("resmlp_36_224", "resmlp_s36"),
        ("resmlp_big_24_224", "resmlp_b24_p8"),
        ("gmlp_s16_224", "gmlp_s16"),
        ("gmlp_b16_224", "gmlp_b16"),
    ],
)
@torch.no_grad()
def test_a_published_network_puts_out_what_timms_does(timm: Any, theirs: str, name: str) -> None:
    expected = filled(timm.create_model(theirs))
    with torch.device("meta"):
        network = build(papers.architecture(name), 224, classes=1000)
    network.load_state_dict(weights.convert(expected.state_dict(), name), assign=True)
    images = goldens.images_of(224, count=1)
    assert goldens.deviations(network.eval()(images), expected(images)) < 1e-5


def test_the_weights_of_a_comparator_are_timms_as_they_are(timm: Any) -> None:
    entry = papers.get("deit_s")
    assert isinstance(entry, Comparator)
    state = comparators.build(entry, 224, classes=7).state_dict()
    ours = weights.convert(state, "deit_s")
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[key], state[key]) for key in state)


def test_the_keys_of_a_comparator_are_checked(timm: Any) -> None:
    entry = papers.get("deit_s")
    assert isinstance(entry, Comparator)
    state = comparators.build(entry, 224, classes=1000).state_dict()
    state["norm.wait"] = state.pop("norm.weight")
    with pytest.raises(WeightsError, match=r"(?s)unknown: norm\.wait \(384\).*missing: norm\.weight \(384\)"):
        weights.convert(state, "deit_s")
