"""Points, counting and encoding, against brute force."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest

from mlpspace import papers
from mlpspace.architecture import Architecture, MeanHead, Patches
from mlpspace.errors import ArchitectureError
from mlpspace.space import NotInSpace, Space, load_space, read_space
from mlpspace.space.dims import Span, values
from mlpspace.space.writer import layout_yaml

SHIPPED = sorted(Path(__file__).parents[1].glob("spaces/*.yaml"))

TINY = """\
task: {classes: 10, resolution: 16}
space:
  norm: [layer, affine]
  width: [4, 6, 9]
  patch: [1, 2, 4]  # 4 goes with three stages, not with four
  layout:
    flat:
      patch: [1, 2, 16]
      depth: 1..3
      token_mixer: &mixers
        external_attention: {memory: [2, 4], heads: [1, 2, 3], expansion: [1, 2]}
        axial: {local: [0, 3], fusion: [concat, sum]}
        none: {}
    three:
      token_mixer: *mixers
      stages:
        - {depth: 1}
        - {depth: 1..2, layer_scale: [none, 0.1]}
        - {depth: 1, norm: batch, width: [8, 9]}
    four:
      stages:
        - {depth: 1, token_mixer: {external_attention: {heads: [1, 3]}, dense: {}}}
        - {depth: 1, token_mixer: linear}
        - {depth: 1, token_mixer: {external_attention: {heads: [2, 4], expansion: 2}}, width: [2, 3, 4]}
        - {depth: 1, token_mixer: none}
objectives: {params: {worst: 1M}, macs: {worst: 1G}}
fidelity: {dataset: digits, epochs: 1, recipe: {optimizer: [adamw, sgd]}}
"""


def every_point(space: Space) -> list[dict]:
    """All points by brute force: every combination of values of the dimensions that exist, decodable or not."""
    found = []
    stack: list[dict] = [{}]
    while stack:
        partial = stack.pop()
        missing = []

        def choose(dim, partial=partial, missing=missing):
            if dim.name not in partial:
                missing.append(dim)
                raise LookupError
            return partial[dim.name]

        try:
            found.append(space.candidate(choose).point)
        except LookupError:
            dim = missing[0]
            stack.extend({**partial, dim.name: value} for value in values(dim))
    return found


@functools.cache
def all_points(name: str) -> list[dict]:
    return every_point(knotted(name))


@functools.cache
def decodable(name: str) -> list[tuple[Architecture, dict]]:
    space = knotted(name)
    found = []
    for point in all_points(name):
        try:
            found.append((space.decode(point), point))
        except ArchitectureError:
            continue
    return found


REST = TINY[TINY.index("objectives:") :].replace("[adamw, sgd]", "adamw")

# Spaces in which much hangs together: some places shared by stages, some not.
KNOTTED = {
    "mixers of several rules, stems and heads": """
      stem: {patches: {patch: 2}, conv_patches: {patch: [2, 4], hidden: [4, 5]}, tokens_to_token: {}}
      head: {mean: {norm: [layer, batch]}, plain: {}, class_token: {}}
      norm: [layer, affine]
      depth: 1
      width: [8, 12]
      token_mixer:
        repmlp: {share_sets: [1, 3], kernel: [0, 1]}
        attention: {heads: [2, 3]}
        dense_units: {units: [4, 5]}
        none: {}
      channel_mixer: {mlp: {ratio: [1, 2]}, gating: {}, none: {}}
    """,
    "blocks with mixers of their own": """
      patch: [1, 2]
      depth: 1
      width: [8, 12, 16]
      token_mixer: [linear, none]
      channel_mixer: [mlp, none]
      block: {residual: {}, bottleneck: {}, repmlp_light: {groups: [1, 2], partition: 1..3}, channel_first: {}}
    """,
    "such blocks beside mixers that stages share": """
      patch: [1, 2]
      token_mixer: {linear: {}, attention: {heads: [1, 5]}, none: {}}
      channel_mixer: {mlp: {ratio: [1, 2]}, none: {}}
      stages:
        - {depth: 1, width: [4, 5], block: [residual, bottleneck]}
        - {depth: 1, width: 4, block: {bottleneck: {}, parallel_depthwise: {kernel: [1, 3]}}}
        - {depth: 1..2, width: [4, 10], channel_mixer: mlp}
    """,
    "a shared block": """
      stem: {normed_patches: {patch: [1, 2]}, resnet: {}}
      block: {residual: {}, repmlp_bottleneck: {partition: [2, 4], groups: 1, reduction: [1, 2]}}
      token_mixer: [dense, identity]
      stages:
        - {depth: 1, width: [8, 12]}
        - {depth: 1, width: [8, 16], merge: [true, false], token_mixer: linear}
    """,
    "stages that may go on with the map before them": """
      patch: [4, 8]
      token_mixer: linear
      merging: {conv: {bias: [true, false]}, group_norm_conv: {}}
      head: {mean: {}, class_token: {}, class_mlp: {depth: [1, 2]}}
      stages:
        - {depth: 1, width: [4, 6, 8]}
        - {depth: 1, width: [4, 12, 8], merge: [true, false]}
        - {depth: 1..2, width: [8, 12], merge: [false, true]}
    """,
    "a shared merge and a shared width": """
      patch: [2, 8]
      token_mixer: linear
      width: [4, 8]
      merge: [true, false]
      merging: [conv, bottleneck]
      block: {residual: {}, repmlp_light: {partition: [1, 2], groups: 1}}
      head: [mean, learned_class_token]
      stages: [{depth: 1}, {depth: 1, width: [4, 8]}, {depth: 1}]
    """,
}


def knotted(name: str) -> Space:
    if name == "tiny":
        return read_space(TINY)
    return read_space(f"task: {{classes: 10, resolution: 16}}\nspace:\n  layout:\n    a:{KNOTTED[name]}\n{REST}", name)


@pytest.mark.parametrize("name", ["tiny", *KNOTTED])
def test_the_count_of_points_equals_brute_force(name):
    points = [tuple(sorted(point.items(), key=lambda item: item[0])) for _, point in decodable(name)]
    assert len(points) == len(set(points))  # no point twice
    assert knotted(name).count().points == len(points)
    assert 20 < len(points) < len(all_points(name))  # some combinations are no points


@pytest.mark.parametrize("name", KNOTTED)
def test_each_point_is_another_network_and_encode_finds_it(name):
    space = knotted(name)
    found = decodable(name)
    assert len({architecture for architecture, _ in found}) == len(found)
    assert all(space.encode(architecture) == point for architecture, point in found[:: 1 + len(found) // 200])


@pytest.mark.parametrize("name", KNOTTED)
def test_a_dimension_exists_where_its_condition_says(name):
    space = knotted(name)
    dims = {dim.name: condition for dim, condition in space.dimensions()}
    for _, point in decodable(name):
        assert point.keys() <= dims.keys()
        for dim, condition in dims.items():
            if condition is None:
                assert dim in point
            elif " or " not in condition:
                place, kind = condition.split(" = ")
                assert (dim in point) == (str(point.get(place)).lower() == kind), (dim, condition)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_decode_undoes_encode_in_every_shipped_space(path):
    space = load_space(path)
    rng = np.random.default_rng(0)
    for _ in range(100):
        candidate = space.draw(rng)
        assert space.decode(candidate.point) == candidate.architecture
        point = space.encode(candidate.architecture)
        assert space.decode(point) == candidate.architecture
        architecture = {name: v for name, v in candidate.point.items() if not name.startswith("recipe.")}
        assert {name: v for name, v in point.items() if not name.startswith("recipe.")} == architecture


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_network_pasted_back_into_a_space_file_is_the_same_network(path):
    space = load_space(path)
    rng = np.random.default_rng(1)
    for _ in range(20):
        architecture = space.sample(rng)
        text = (
            f"task: {{classes: {space.classes}, resolution: {space.resolution}}}\n"
            f"space:\n  layout:\n{layout_yaml(architecture, 'mine')}"
            "objectives: {params: {worst: 1G}}\nfidelity: {dataset: digits, epochs: 1}\n"
        )
        pasted = read_space(text)
        assert pasted.count().points == 1
        assert pasted.sample(rng).id == architecture.id


def test_encode_says_why_a_network_lies_outside():
    space = read_space(TINY)
    with pytest.raises(NotInSpace, match=r"^flat: depth is 8, here it is 1\.\.3$"):
        space.encode(papers.get("mixer_s16"))
    stages = papers.get("mixer_s16").stages * 2
    with pytest.raises(
        NotInSpace, match="flat: has 1 stage, not 2; three: has 3 stages, not 2; four: has 4 stages, not 2"
    ):
        space.encode(dataclasses.replace(papers.get("mixer_s16"), stages=stages))
    inside = space.sample(np.random.default_rng(0))
    with pytest.raises(NotInSpace, match="its stem bias is false, here it is true"):
        space.encode(dataclasses.replace(inside, stem=Patches(patch=inside.stem.patch, bias=False)))


def test_encode_says_of_each_part_why_it_lies_outside():
    space = read_space(TINY)
    with pytest.raises(NotInSpace) as caught:
        space.encode(papers.get("cyclemlp_b1"))
    (four,) = (part for part in str(caught.value).split("; ") if part.startswith("four: "))
    assert four.removeprefix("four: ").split(", and ") == [
        "its stem is overlapping_patches, here it is patches",
        "stage 1 depth is 2, here it is 1",
        "stage 2 depth is 2, here it is 1",
        "stage 3 depth is 4, here it is 1",
        "stage 4 depth is 2, here it is 1",
        "its merging is overlapping_conv, here it is conv",
        "its norm_eps is 1e-05, here it is 1e-06",
    ]
    # a head without a norm of its own has that of the last stage
    flat = next(a for a in (space.sample(np.random.default_rng(seed)) for seed in range(99)) if len(a.stages) == 1)
    other = {"layer": "affine", "affine": "layer"}[flat.head.norm]
    told = f"its head norm is {other} and elsewhere {flat.head.norm}, here norm is one for both"
    with pytest.raises(NotInSpace, match=told):
        space.encode(dataclasses.replace(flat, head=MeanHead(norm=other)))


def test_decode_names_what_is_wrong_with_a_point():
    space = read_space(TINY)
    point = space.draw(np.random.default_rng(0)).point
    with pytest.raises(ArchitectureError, match='lacks "layout"'):
        space.decode({})
    with pytest.raises(ArchitectureError, match="layout 'round', which is not in one of flat, three, four"):
        space.decode({**point, "layout": "round"})


def test_a_dimension_above_the_layout_is_one_dimension_for_all_stages():
    space = read_space(TINY)
    for _, seed in itertools.product(range(1), range(50)):
        candidate = space.draw(np.random.default_rng(seed))
        if candidate.point["layout"] == "three":
            first, second, last = candidate.architecture.stages
            assert first.width == second.width == candidate.point["width"]
            assert first.norm == second.norm == candidate.point["norm"]
            assert last.norm == "batch"


def test_a_point_holds_only_dimensions_that_exist():
    space = read_space(TINY)
    for seed in range(100):
        point = space.draw(np.random.default_rng(seed)).point
        layout = point["layout"]
        others = {"flat", "three", "four"} - {layout}
        assert not any(name.startswith(f"{other}.") for name in point for other in others)
        if point.get("flat.token_mixer") == "none":
            assert not any(name.startswith("flat.token_mixer.") for name in point)


def test_a_range_draws_both_ends_and_only_its_steps():
    rng = np.random.default_rng(0)
    plain = Span("x", 96, 160, 32, False)
    drawn = [plain.draw(rng) for _ in range(600)]
    assert set(drawn) == {96, 128, 160}
    assert min(drawn.count(v) for v in set(drawn)) > 150  # 200 expected of each; 150 is 4 standard errors below
    log = Span("x", 1, 8, None, True)
    assert {log.draw(rng) for _ in range(600)} == set(range(1, 9))
    real = Span("x", 1e-4, 1e-2, None, True)
    assert abs(np.median([real.draw(rng) for _ in range(2000)]) / 1e-3 - 1) < 0.2  # log-uniform: its median is 1e-3


def test_equal_networks_have_one_id_however_they_are_written():
    one = Architecture.from_json(papers.get("mixer_s16").to_json())
    assert one == papers.get("mixer_s16")
    assert one.id == papers.get("mixer_s16").id
    elsewhere = {"eamlp_7_384", "repmlpnet_t256", "repmlpnet_b256"}  # the same networks at another resolution
    ids = [papers.get(name).id for name in papers.FIXED_POINTS if name not in elsewhere]
    assert len(ids) == len(set(ids))
    stage = one.stages[0]
    # 0.5 x 512 and 0.5001 x 512 round to the same hidden width of 256
    close = dataclasses.replace(stage, token_mixer=dataclasses.replace(stage.token_mixer, ratio=0.5001))
    assert dataclasses.replace(one, stages=(close,)).id == one.id
    wider = dataclasses.replace(stage, token_mixer=dataclasses.replace(stage.token_mixer, ratio=0.6))
    assert dataclasses.replace(one, stages=(wider,)).id != one.id


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "architecture: expected an object, found list"),
        ("{}", "architecture.stages: at least one stage is needed"),
        ("no json", "not an architecture"),
        ('{"stem": {"kind": "patch"}, "stages": [{}]}', 'Did you mean "patches"?'),
        ('{"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 1}]}', r"stages\[0\]: width missing"),
        ('{"stem": {"kind": "patches", "patch": 4}, "stages": [{"depth": 0, "width": 8}]}', "Stage.depth: 0 is not"),
    ],
)
def test_json_that_is_no_architecture_is_refused_with_its_place(text, told):
    with pytest.raises(ArchitectureError, match=told):
        Architecture.from_json(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("space: {layout: {a: {patch: [4, 8], BODY}}}", "space: {patch: [4, 8], layout: {a: {BODY}}}"),
        ("space: {layout: {a: {patch: 4, BODY}}}", "space: {layout: {a: {patch: 4, stages: [{BODY}]}}}"),
        ("space: {norm: [layer, affine], layout: {n: {patch: 4, BODY}}}", None),
    ],
)
def test_files_of_one_id_name_their_dimensions_alike(one, other):
    rest = TINY[TINY.index("objectives:") :]
    body = "depth: 1..3, width: [8, 16], token_mixer: linear"
    texts = [
        f"task: {{classes: 10, resolution: 32}}\n{text.replace('BODY', body)}\n{rest}" for text in (one, other) if text
    ]
    if other is None:
        texts.append(
            texts[0]
            .replace("norm: [layer, affine], layout", "layout")
            .replace("patch: 4", "norm: [layer, affine], patch: 4")
        )
    first, second = map(read_space, texts)
    names = [{dim.name for dim, _ in space.dimensions()} for space in (first, second)]
    assert names[0] != names[1]
    assert first.id != second.id


def test_the_steps_of_a_range_of_reals_are_the_numbers_that_people_write():
    space = read_space(TINY.replace("{optimizer: [adamw, sgd]}", "{warmup: 0.1..0.5 step 0.1}"))
    (warmup,) = [dim for dim, _ in space.dimensions() if dim.name == "recipe.warmup"]
    assert [warmup.value_at(i) for i in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]
