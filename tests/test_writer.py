"""Architectures as YAML: short, readable, and read back as the same network."""

from __future__ import annotations

import textwrap

import draws
import numpy as np
import pytest

from mlpspace import papers
from mlpspace.space import read_space
from mlpspace.space.writer import layout_yaml

PUBLISHED = [paper for paper in papers.PAPERS if paper.name in papers.FIXED_POINTS]


def pasted(architecture, resolution: int):
    """The one network of the space that says it."""
    text = (
        f"task: {{classes: 10, resolution: {resolution}}}\nspace:\n  layout:\n{layout_yaml(architecture, 'mine')}"
        "objectives: {params: {worst: 1G}}\nfidelity: {dataset: digits, epochs: 1}\n"
    )
    space = read_space(text)
    assert space.count().points == 1
    point = space.encode(architecture)
    assert point == {}
    assert space.decode(point) == architecture
    return space.sample(np.random.default_rng(0))


@pytest.mark.parametrize("paper", PUBLISHED, ids=lambda paper: paper.name)
def test_a_published_network_pasted_into_a_space_is_the_same_network(paper):
    assert pasted(paper.architecture, paper.resolution) == paper.architecture


def test_any_network_pasted_into_a_space_is_the_same_network():
    for architecture in draws.architectures(200):
        assert pasted(architecture, 64) == architecture


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "resmlp_s12",
            """\
            resmlp_s12:
              patch: 16
              depth: 12
              width: 384
              token_mixer: linear
              norm: affine
              layer_scale: 0.1
            """,
        ),
        (
            "smlpnet_tiny",
            """\
            smlpnet_tiny:
              stem: {patches: {patch: 4, bias: false}}
              merging: {conv: {bias: false}}
              head: {mean: {norm: batch}}
              norm_eps: 1e-05
              token_mixer: axial
              channel_mixer: {mlp: {ratio: 3}}
              stages:
                - {depth: 2, width: 80}
                - {depth: 8, width: 160}
                - {depth: 14, width: 320}
                - {depth: 2, width: 640}
            """,
        ),
        (
            "repmlp_res50_light",
            """\
            repmlp_res50_light:
              stem: resnet
              merging: bottleneck
              head: plain
              norm: batch
              stages:
                - {depth: 2, width: 256, block: bottleneck}
                - {depth: 3, width: 512, block: repmlp_light}
                - {depth: 5, width: 1024, block: repmlp_light}
                - {depth: 2, width: 2048, block: bottleneck}
            """,
        ),
        (
            "spach_ms_xxs_mlp",
            """\
            spach_ms_xxs_mlp:
              stem: {normed_patches: {patch: 4}}
              merging: group_norm_conv
              channel_mixer: {mlp: {ratio: 2}}
              block: parallel_depthwise
              stages:
                - {depth: 2, width: 64, token_mixer: none}
                - {depth: 2, width: 128, token_mixer: {dense_by_tokens: {ratio: 0.5}}, layer_scale: 0.0001}
                - {depth: 6, width: 256, token_mixer: {dense_by_tokens: {ratio: 0.5}}, layer_scale: 0.0001}
                - {depth: 2, width: 512, token_mixer: {dense_by_tokens: {ratio: 0.5}}, layer_scale: 0.0001}
            """,
        ),
    ],
)
def test_it_says_what_is_no_default_and_says_once_what_all_stages_agree_on(name, text):
    assert layout_yaml(papers.get(name), name, indent=0) == textwrap.dedent(text)
