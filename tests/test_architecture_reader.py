"""Architecture files: one layout with one value in each place."""

from __future__ import annotations

import textwrap

import draws
import pytest

from mlpspace import papers
from mlpspace.architecture import Architecture, Dense, Linear, Patches, Stage
from mlpspace.errors import SpaceError
from mlpspace.space.architecture_reader import read_architecture
from mlpspace.space.writer import layout_yaml


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        read_architecture(textwrap.dedent(text), "n.yaml")
    return caught.value.mistakes


@pytest.mark.parametrize("name", papers.FIXED_POINTS)
def test_what_the_writer_says_of_a_published_network_is_read_as_that_network(name):
    assert read_architecture(layout_yaml(papers.get(name), name)) == papers.get(name)


def test_what_the_writer_says_of_any_network_is_read_as_that_network():
    for architecture in draws.architectures(300, seed=1):
        text = layout_yaml(architecture, "mine", indent=0)
        assert read_architecture(text) == architecture
        body = textwrap.dedent(text.partition("\n")[2])
        assert read_architecture(body) == architecture  # without its name


def test_a_body_alone_is_an_architecture():
    read = read_architecture("{patch: 4, token_mixer: linear, stages: [{depth: 1, width: 8}, {depth: 2, width: 16}]}")
    stages = (Stage(depth=1, width=8, token_mixer=Linear()), Stage(depth=2, width=16, token_mixer=Linear()))
    assert read == Architecture(stem=Patches(patch=4), stages=stages)
    assert read_architecture("mixer: {patch: 4, depth: 1, width: 8, token_mixer: {dense: {ratio: 2}}}") == Architecture(
        stem=Patches(patch=4), stages=(Stage(depth=1, width=8, token_mixer=Dense(ratio=2)),)
    )


def test_all_mistakes_are_told_at_once_each_with_its_line():
    text = """\
    mine:
      patch: 0
      depth: 2
      widht: 64
      token_mixer: dense_units
      head: means
    """
    assert mistakes(text) == [
        "n.yaml:1: mine needs a width, such as width: 512.",
        'n.yaml:2: patch "0" is not a whole number from 1 to 64; the nearest is 1.',
        'n.yaml:4: mine: "widht" is not known. Did you mean "width"? Known: block, channel_mixer, depth, head,'
        " layer_scale, merge, merging, norm, norm_eps, patch, stages, stem, token_mixer, width.",
        "n.yaml:5: dense_units lacks units, a whole number from 1 to 65536, such as dense_units: {units: 64}.",
        'n.yaml:6: head "means" is not known. Did you mean "mean"? Known: class_mlp, class_token, learned_class_token,'
        " mean, plain.",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{patch: 4, depth: 2, width: 64..128 step 32, token_mixer: dense}", ["n.yaml:1: width is 64..128 step 32; in an architecture each place has one value."]),
        ("patch: 4\ndepth: 2\nwidth: 64\ntoken_mixer:\n  dense: {ratio: [1, 2]}\n  linear:\n", ["n.yaml:5: token_mixer is one of dense, linear; in an architecture each place has one value.", "n.yaml:5: ratio is one of 1, 2; in an architecture each place has one value."]),
        ("{patch: 4, depth: 2, width: 100, token_mixer: {attention: {heads: 3}}}", ["n.yaml:1: the architecture: stage 1: 3 heads do not divide 100 channels."]),
        ("{patch: 4, head: class_token, token_mixer: dense, stages: [{depth: 1, width: 8}, {depth: 1, width: 8}]}", ["n.yaml:1: the architecture: a class token cannot pass a patch merging."]),
        ("task: {classes: 10, resolution: 32}\nspace: {}\n", ["n.yaml:1: this is a space file; an architecture is one layout with one value in each place."]),
        ("one: {depth: 1}\ntwo: {depth: 1}\n", ["n.yaml:2: two is a second one; an architecture is one layout."]),
        ("", ["n.yaml:1: the file is empty. An architecture needs a patch, a depth, a width and a token_mixer."]),
    ],
)  # fmt: skip
def test_what_is_no_architecture_is_refused(text, told):
    assert mistakes(text) == told


@pytest.mark.parametrize("text", ["[1]", "depth", "depth: 4", "{}", "a: {}", "patch: [", "mine: {stages: []}"])
def test_what_is_none_at_all_is_refused_with_a_line(text):
    assert all(line.startswith("n.yaml:1: ") for line in mistakes(text))
