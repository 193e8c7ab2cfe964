"""The architecture language: content ids, JSON, words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from draws import architectures

from mlpspace import papers
from mlpspace.architecture import (
    Architecture,
    Axial,
    Bottleneck,
    Dense,
    DenseUnits,
    Gating,
    MeanHead,
    Mlp,
    NoChannelMixer,
    NoTokenMixer,
    ParallelDepthwise,
    Patches,
    Stage,
    to_dict,
)
from mlpspace.errors import ArchitectureError


def of(**fields: object) -> Architecture:
    """A network of one stage, 24 channels wide."""
    return Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=24, **fields),))  # type: ignore[arg-type]


ALONE = {"token_mixer": NoTokenMixer(), "channel_mixer": NoChannelMixer(), "block": Bottleneck()}

EQUAL = [
    (of(token_mixer=Dense(ratio=0.5)), of(token_mixer=Dense(ratio=0.51))),  # 12 hidden tokens each
    (of(token_mixer=Dense(ratio=0.5)), of(token_mixer=DenseUnits(units=12))),
    (of(channel_mixer=Mlp(ratio=2)), of(channel_mixer=Mlp(ratio=2.01))),
    (of(**ALONE, norm="batch"), of(**ALONE, norm="layer", layer_scale=0.1)),  # the block has neither
    (
        of(token_mixer=NoTokenMixer(), block=ParallelDepthwise(), layer_scale=0.1),  # it scales the token mixer alone
        of(token_mixer=NoTokenMixer(), block=ParallelDepthwise()),
    ),
    (
        of(token_mixer=Axial(), channel_mixer=NoChannelMixer(), norm="batch"),  # it brings its own norm
        of(token_mixer=Axial(), channel_mixer=NoChannelMixer(), norm="layer"),
    ),
    (of(merge=False), of(merge=True)),  # nothing stands before it to merge
]

DIFFERENT = [
    (of(token_mixer=Dense(activation="gelu_tanh")), of()),
    (
        of(token_mixer=NoTokenMixer(), channel_mixer=Gating(ratio=4.6 / 24)),  # gates of 2 and of 3
        of(token_mixer=NoTokenMixer(), channel_mixer=Gating(ratio=5.4 / 24)),
    ),
    (of(token_mixer=NoTokenMixer(), layer_scale=0.1), of(token_mixer=NoTokenMixer())),
    (replace(of(), norm_eps=1e-5), of()),
    (replace(of(), head=MeanHead(norm="batch")), of()),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_networks_have_one_id_however_they_are_written(one: Architecture, other: Architecture) -> None:
    assert one.id == other.id


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_networks_have_different_ids(one: Architecture, other: Architecture) -> None:
    assert one.id != other.id


@pytest.mark.parametrize(
    ("name", "id"), [("mixer_s16", "415b9870b63d"), ("resmlp_s12", "a13c11351717"), ("mixer_b32", "a7cb7d3bfee7")]
)
def test_ids_of_stored_studies_stand(name: str, id: str) -> None:
    """The ids of version 0.1.0, before the language had blocks and several mergings."""
    assert papers.architecture(name).id == id


@pytest.mark.parametrize("name", papers.FIXED_POINTS)
def test_json_reads_back_to_the_equal_architecture(name: str) -> None:
    architecture = papers.architecture(name)
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_json_of_random_architectures_reads_back() -> None:
    for architecture in architectures(100, seed=9):
        again = Architecture.from_json(architecture.to_json())
        assert (again, again.id) == (architecture, architecture.id)


def test_json_of_version_0_1_is_read() -> None:
    told = to_dict(papers.architecture("smlpnet_tiny"))
    del told["norm_eps"], told["merging"]["kind"]
    for stage in told["stages"]:
        del stage["block"], stage["merge"], stage["channel_mixer"]["activation"]
    found = Architecture.from_json(json.dumps(told))
    assert replace(found, norm_eps=1e-5) == papers.architecture("smlpnet_tiny")


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"stem": {"kind": "patchs", "patch": 4}, "stages": [{"depth": 1, "width": 8}]}, 'kind "patchs" is not known'),
        ({"stem": {"kind": "patches", "patch": 4}, "stages": []}, "at least one stage"),
        ({"stem": {"kind": "patches"}, "stages": [{"depth": 1, "width": 8}]}, "stem: patch missing"),
        ({"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1, "width": 8, "blok": 1}]}, '"blok"'),
        ({"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1, "width": 8}], "norm_eps": 2}, "norm_eps"),
    ],
)
def test_what_is_no_architecture_is_told_with_its_place(told: object, word: str) -> None:
    with pytest.raises(ArchitectureError, match=word):
        Architecture.from_json(json.dumps(told))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mixer_s16", "patch 16, 8x512 dense r0.5 mlp r4 layer"),
        ("gmlp_ti16", "patch 16, 30x128 none gating r6 layer"),
        ("ffonly_tiny", "patch 16, 12x192 dense_by_tokens r4 mlp r4 layer channel_first, learned class token"),
    ],
)
def test_an_architecture_is_told_in_one_line(name: str, words: str) -> None:
    assert papers.architecture(name).describe() == words
