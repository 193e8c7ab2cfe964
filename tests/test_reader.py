"""Space files: the four readings of a value, and every mistake with its line."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pytest

from mlpspace.architecture import TOKEN_MIXERS, Linear, MeanHead, NoChannelMixer, NoTokenMixer
from mlpspace.errors import SpaceError
from mlpspace.objectives import Deployment
from mlpspace.space import load_space, read_space
from mlpspace.space.text import duration

GOOD = """\
task: {classes: 10, resolution: 32}
space:
  layout:
    isotropic:
      patch: [2, 4, 8]
      depth: 4..12
      width: 64..256 step 32
      token_mixer: {dense: {ratio: [0.5, 1.0]}, linear: {}}
objectives:
  accuracy: {goal: maximize, worst: 10}
  throughput: {goal: maximize, worst: 100, scale: log}
fidelity:
  dataset: mnist5k
  epochs: 4
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        read_space(textwrap.dedent(text), "s.yaml")
    return caught.value.mistakes


def changed(old: str, new: str) -> list[str]:
    assert GOOD.count(old) == 1
    return mistakes(GOOD.replace(old, new))


def test_the_good_file_is_good():
    space = read_space(GOOD)
    # 3 patches x 9 depths x 7 widths x (2 dense ratios + 1 linear)
    assert space.count().points == 3 * 9 * 7 * 3


def test_scalars_are_read_as_people_write_them():
    space = read_space(GOOD + "  recipe: {lr: 1e-3, augmentation: {flip: never}}\n")
    assert space.default_recipe().lr == 0.001  # PyYAML alone gives the string "1e-3"
    space = read_space(GOOD.replace("linear: {}", "axial: {identity: no}"))
    mixers = space.layouts[0].stages[0].token_mixer
    assert mixers.option("axial").fields["identity"].value is False
    assert "is not a whole number" in changed("resolution: 32", "resolution: 1:30")[0]  # PyYAML alone gives 90


def test_a_duplicate_key_is_refused_with_both_lines():
    assert changed("      depth: 4..12\n", "      depth: 4..12\n      patch: 8\n") == [
        's.yaml:7: "patch" stands twice in one mapping, first in line 5.'
    ]


def test_all_mistakes_are_told_at_once_each_with_its_line():
    text = GOOD.replace("dense: {ratio", "densee: {ratio").replace("64..256 step 32", "96..160 step 24")
    text = text.replace("worst: 10}", "worts: 10}").replace("epochs: 4", "epochs: four")
    assert mistakes(text) == [
        "s.yaml:7: width 96..160 step 24 does not end on a step: 96..144 or 96..168.",
        f's.yaml:8: token_mixer "densee" is not known. Did you mean "dense"? Known: {", ".join(sorted(TOKEN_MIXERS))}.',
        's.yaml:10: accuracy: "worts" is not known. Did you mean "worst"? Known: goal, scale, worst.',
        "s.yaml:10: accuracy lacks worst.",
        's.yaml:14: epochs "four" is not a whole number (it takes a whole number from 1 to 1000000).',
    ]


def test_a_patch_that_can_never_fit_is_told_beside_the_other_mistakes_of_its_layout():
    text = GOOD.replace("[2, 4, 8]", "[2, 5]").replace("4..12", "12..4").replace("dense: {ratio", "dense: {ratoi")
    assert [line.split(":", 2)[1] for line in mistakes(text)] == ["5", "6", "8"]
    assert "patch 5 can never divide 32 pixels; 4 or 8 would" in mistakes(text)[0]


def test_a_layout_with_depth_and_stages_is_read_on_to_its_other_mistakes():
    stages = "stages: [{depth: 0, width: 8}, {deep: 3, width: 8}]"
    both, depth, deep = mistakes(GOOD.replace("width: 64..256 step 32", stages))
    assert "has both depth (isotropic) and stages (pyramid)" in both
    assert 'depth "0" is not' in depth
    assert 'Did you mean "depth"' in deep


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("patch: [2, 4, 8]", "patch: [2, 3, 8]", "s.yaml:5: patch 3 can never divide 32 pixels; 2 or 4 would."),
        ("patch: [2, 4, 8]", "patch: []", "s.yaml:5: patch is an empty list"),
        ("patch: [2, 4, 8]", "patch: [2, 2]", 's.yaml:5: patch "2" stands twice in one list.'),
        ("depth: 4..12", "depth: 12..4", "s.yaml:6: depth 12..4 runs backwards: 4..12."),
        ("depth: 4..12", "depth: 0..4", "s.yaml:6: depth 0..4: 0 is not a whole number from 1 to 1000; the nearest is 1."),
        ("depth: 4..12", "depth: ..12", "an end is missing: a dimension has two ends"),
        ("depth: 4..12", "depth: 4.5", 's.yaml:6: depth "4.5" is not a whole number'),
        ("linear: {}", "dwconv: {kernel: [3, 4]}", 's.yaml:8: kernel "4" is not an odd number from 1 to 31; the nearest is 5.'),
        ("linear: {}", "dwconv: {kernel: 3..7}", "holds even numbers; it takes an odd number from 1 to 31: 3..7 step 2."),
        ("linear: {}", "axial: {fusion: mean}", 's.yaml:8: fusion "mean" is not known. Known: concat, sum, weighted.'),
        ("goal: maximize, worst: 10}", "goal: minimize, worst: 10}", "s.yaml:10: accuracy has the goal maximize, not minimize."),
        ("  epochs: 4\n", "", "fidelity needs either epochs: 6 or rungs"),
        ("fidelity:\n  dataset: mnist5k\n  epochs: 4\n", "", "s.yaml:1: the file lacks fidelity."),
        ("      patch: [2, 4, 8]\n", "", "s.yaml:4: layout isotropic needs a patch, such as patch: 4."),
        ("task: {", "require: {macs: 5M}\ntask: {", 's.yaml:1: macs "5M" is not an open or closed range, such as ..10M.'),
        ("task: {", "require: {peak_memory: ..500}\ntask: {", 'peak_memory "500" needs a number with a unit, such as 500MB or 2GB.'),
        ("task: {", "require: {width: rising}\ntask: {", 'the one requirement it knows is "non-decreasing"'),
        ("task: {", "fixed_points: {names: [mixer_s61]}\ntask: {", 'Did you mean "mixer_s16"?'),
        ("task: {", "fixed_points: {names: [mixer_h14], fit: exact}\ntask: {", "a stem of stride 14 needs a multiple of 14 pixels, not 32"),
        ("task: {", "serach: {}\ntask: {", 's.yaml:1: the file: "serach" is not known. Did you mean "search"?'),
        ("space:\n", "space:\n  norm: [layer, affine]\n  <<: {}\n", 'merging with "<<" is not part of the space language'),
        ("depth: 4..12", "depth: 4\n      stages: [{depth: 1, width: 8}]", "has both depth (isotropic) and stages (pyramid)"),
    ],
)  # fmt: skip
def test_a_mistake_says_what_was_found_and_what_would_do(old, new, told):
    assert any(told in line for line in changed(old, new)), changed(old, new)


def test_a_dimension_that_no_layout_uses_is_refused():
    assert changed("  layout:\n", "  width: [8, 16]\n  layout:\n") == [
        "s.yaml:3: width is never used: every layout says its own."
    ]


def test_heads_that_divide_no_width_are_refused_but_combinations_are_only_no_points():
    attention = "linear: {}", "external_attention: {memory: 8, heads: [1, 3, 7]}"
    # 96 and 192 divide by 3; none of 64..256 step 32 but 224 by 7
    space = read_space(GOOD.replace(*attention))
    assert space.count().points == 3 * 9 * (7 * 2 + 7 + 2 + 1)
    told = changed("linear: {}", "external_attention: {memory: 8, heads: [1, 11]}")
    assert len(told) == 1
    assert re.fullmatch(
        r"s\.yaml:8: external_attention heads 11 goes with none of the values beside it; "
        r"for instance, 11 heads do not divide \d+ query channels\.",
        told[0],
    )


@pytest.mark.parametrize(
    ("mixer", "told"),
    [
        ("repmlp: {share_sets: [1, 5]}", "repmlp share_sets 5 goes with none of the values beside it; for instance, 5 share-sets do not divide 64 channels."),
        ("attention: {heads: [1, 5]}", "attention heads 5 goes with none of the values beside it; for instance, 5 heads do not divide 64 channels."),
        ("repmlp: {share_sets: 5}", "repmlp share_sets 5 goes with none"),
        ("none: {}}\n      channel_mixer: {none: {}", "token_mixer none goes with none of the values beside it; for instance, a block without a token mixer and a channel mixer does nothing."),
        ("dwconv: {}}\n      block: {residual: {}, repmlp_light: {partition: [4, 7]}", "repmlp_light partition 7 goes with none of the values beside it; for instance, windows of 7 x 7 do not fill a map"),
        ("dwconv: {}}\n      block: {residual: {}, repmlp_light: {partition: 4, groups: [1, 3]}", "repmlp_light groups 3 goes with none of the values beside it; for instance, its width must be a multiple of 24, not 64."),
        ("dwconv: {}}\n      stem: {conv_patches: {patch: 4}, resnet: {}", "patch is short for stem: {patches: {patch: ..}}; say one of the two."),
    ],
)  # fmt: skip
def test_each_rule_says_its_own_sentence_about_a_value_that_no_network_has(mixer, told):
    text = GOOD.replace("linear: {}", mixer).replace("64..256 step 32", "64")
    assert any(told in line for line in mistakes(text)), mistakes(text)


def test_a_layout_without_points_says_what_is_wrong_with_one_of_its_networks():
    assert changed("patch: [2, 4, 8]", "patch: 4\n      block: {repmlp_light: {partition: 4, groups: 3}}") == [
        "s.yaml:9: block repmlp_light brings its own mixers: leave token_mixer out."
    ]
    text = GOOD.replace("      token_mixer: {dense: {ratio: [0.5, 1.0]}, linear: {}}\n", "")
    text = text.replace("patch: [2, 4, 8]", "patch: 4\n      block: {repmlp_light: {partition: 7}}")
    assert mistakes(text) == [
        "s.yaml:8: layout isotropic has no points: its values do not go together; for instance, "
        "stage 1: windows of 7 x 7 do not fill a map of 8 x 8."
    ]


def test_a_setting_without_a_default_must_be_said():
    needs = "s.yaml:8: dense_units lacks units, a whole number from 1 to 65536, such as dense_units: {units: 64}."
    assert changed("linear: {}", "dense_units: {}") == [needs]
    assert changed("linear: {}", "dense_units: {activation: gelu_tanh}") == [needs]
    assert changed("patch: [2, 4, 8]", "stem: [overlapping_patches, resnet]") == [
        "s.yaml:5: overlapping_patches lacks patch, a whole number from 1 to 64, such as "
        "overlapping_patches: {patch: 4}."
    ]


PYRAMID = """\
task: {classes: 10, resolution: 32}
space:
  token_mixer: linear
  layout:
    pyramid:
      patch: 4
      stages:
        - {depth: 1, width: 8}
        - {depth: 1, width: 8}
objectives: {params: {worst: 1M}}
fidelity: {dataset: mnist5k, epochs: 4}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("patch: 4", "patch: 4\n      norm_eps: [1e-5, 1e-6]", ["s.yaml:7: norm_eps takes a number above 0 to 0.1; found a list."]),
        ("patch: 4", "patch: 4\n      head: class_token", ["s.yaml:9: layout pyramid has no points: its values do not go together; for instance, a class token cannot pass a patch merging."]),
        ("patch: 4", "patch: 4\n      head: [mean, class_token]", ["s.yaml:7: head class_token goes with none of the values beside it; for instance, a class token cannot pass a patch merging."]),
        ("patch: 4", "patch: 4\n      head: {mean: {norm: bach}}", ['s.yaml:7: norm "bach" is not known. Did you mean "batch"? Known: affine, batch, layer.']),
        ("patch: 4", "patch: 4\n      merging: [conv, {bottleneck: {}}]", ["s.yaml:7: merging: kinds with settings are a mapping, {conv: {bias: true}}."]),
        ("patch: 4", "patch: 4\n      merging: {overlapping_conv: {bias: false}}", ["s.yaml:7: overlapping_conv has no settings; write overlapping_conv: {}."]),
        ("patch: 4", "patch: 4\n      merging: overlapping_conv\n      merge: false", ["s.yaml:7: merging is never used: nothing is merged in layout pyramid."]),
        ("        - {depth: 1, width: 8}\n        - {", "        - {merge: false, depth: 1, width: 8}\n        - {", ["s.yaml:8: merge: before the first stage there is the stem alone."]),
        ("        - {depth: 1, width: 8}\nobj", "        - {depth: 1, width: 16, merge: false}\nobj", ["s.yaml:8: layout pyramid has no points: its values do not go together; for instance, stage 2: it goes on with the map of the stage before, so it has that stage's width."]),
        ("        - {depth: 1, width: 8}\nobj", "        - {depth: 1, width: [8, 16], merge: false}\nobj", ["s.yaml:9: width 16 goes with none of the values beside it; for instance, it goes on with the map of the stage before, so it has that stage's width."]),
        ("        - {depth: 1, width: 8}\nobj", "        - {depth: 1, width: 8, block: bottleneck, token_mixer: dense}\nobj", ["s.yaml:9: block bottleneck brings its own mixers: leave token_mixer out."]),
        ("patch: 4\n      stages:\n        - {depth: 1, width: 8}", "patch: 4\n      block: bottleneck\n      stages:\n        - {depth: 1, width: 8, channel_mixer: mlp}", ["s.yaml:3: token_mixer is never used: every layout says its own, or has a block that brings its own.", "s.yaml:9: block bottleneck brings its own mixers: leave channel_mixer out."]),
        ("  token_mixer: linear\n", "  block: bottleneck\n  token_mixer: linear\n", ["s.yaml:4: token_mixer is never used: every layout says its own, or has a block that brings its own."]),
    ],
)  # fmt: skip
def test_mistakes_of_stems_mergings_blocks_and_heads(old, new, told):
    assert PYRAMID.count(old) == 1
    assert mistakes(PYRAMID.replace(old, new)) == told


def test_a_stage_whose_block_brings_its_mixers_says_none_of_its_own():
    text = PYRAMID.replace(
        "        - {depth: 1, width: 8}\nobj", "        - {depth: 2, width: 8, block: bottleneck}\nobj"
    )
    (first, second) = read_space(text).sample(np.random.default_rng(0)).stages
    assert isinstance(first.token_mixer, Linear)
    assert (second.token_mixer, second.channel_mixer) == (NoTokenMixer(), NoChannelMixer())
    spelled = text.replace("block: bottleneck", "block: bottleneck, token_mixer: none, channel_mixer: none")
    assert read_space(spelled).id == read_space(text).id


def test_a_patch_is_short_for_a_stem_of_patches():
    short, long = "patch: 4", "stem: {patches: {patch: 4}}"
    assert read_space(PYRAMID.replace(short, long)).id == read_space(PYRAMID).id
    # the nearest scope says it, in either spelling
    outer = PYRAMID.replace("  token_mixer: linear\n", "  token_mixer: linear\n  patch: 2\n")
    with pytest.raises(SpaceError, match="patch is never used"):
        read_space(outer)
    inner = read_space(outer.replace("    pyramid:\n", "    flat: {depth: 1, width: 8}\n    pyramid:\n"))
    assert {layout.name: layout.patch.value for layout in inner.layouts} == {"flat": 2, "pyramid": 4}


def test_what_is_said_in_its_default_way_leaves_the_id_as_it_is():
    said = "patch: 4\n      head: mean\n      merging: conv\n      norm_eps: 1e-6\n      block: residual\n      merge: true"
    assert read_space(PYRAMID.replace("patch: 4", said)).id == read_space(PYRAMID).id
    for other in ("head: plain", "merging: bottleneck", "norm_eps: 1e-5", "block: channel_first", "merge: false"):
        assert read_space(PYRAMID.replace("patch: 4", f"patch: 4\n      {other}")).id != read_space(PYRAMID).id


def test_a_head_that_does_not_say_its_norm_has_that_of_the_last_stage():
    text = PYRAMID.replace("width: 8}\nobj", "width: 8, norm: affine}\nobj")
    heads = {"": "affine", "head: mean": "affine", "head: {mean: {norm: batch}}": "batch"}
    for head, norm in heads.items():
        space = read_space(text.replace("patch: 4", f"patch: 4\n      {head}"))
        assert space.sample(np.random.default_rng(0)).head == MeanHead(norm=norm)


def test_a_comparator_is_no_fixed_point():
    (told,) = mistakes(PYRAMID + "fixed_points: {names: [swin_t], fit: space}\n")
    assert told.startswith("s.yaml:12: swin_t is a comparator")


def test_aliases_that_multiply_or_bite_their_tail_are_refused():
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(8)
    )
    assert "the aliases stand for more than 10,000 values" in " ".join(mistakes(bomb))
    assert "an alias stands inside of what it stands for" in " ".join(mistakes("task: &t {classes: *t}\n"))


@pytest.mark.parametrize(
    "text", ["", "   \n", "[1, 2]", "a: [", "a: b: c", "\ta: 1", "? [a]\n: b", "[" * 5000, "- &a *a"]
)
def test_what_is_no_space_is_refused_with_a_line(text):
    assert all(line.startswith("s.yaml:") for line in mistakes(text))


def test_a_missing_file_names_the_spaces_there_are(tmp_path):
    (tmp_path / "other.yaml").write_text(GOOD)
    with pytest.raises(SpaceError, match=r"no such file\. Spaces here: .*other\.yaml"):
        load_space(tmp_path / "mine.yaml")
    with pytest.raises(SpaceError, match="is a folder"):
        load_space(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00task")
    with pytest.raises(SpaceError, match="is not UTF-8 text"):
        load_space(tmp_path / "binary.yaml")


def test_rungs_are_read_in_both_spellings():
    space = read_space(GOOD.replace("  epochs: 4\n", "  rungs: {epochs: [2, 6, 18], keep: 1/3}\n"))
    assert space.fidelity.epochs == (2, 6, 18)
    assert space.fidelity.keep == pytest.approx(1 / 3)
    assert "do not rise" in changed("  epochs: 4\n", "  rungs: {epochs: [6, 2]}\n")[0]


def test_the_same_space_said_otherwise_has_the_same_id():
    other = GOOD.replace("patch: [2, 4, 8]", "patch: [8, 2, 4]  # any order").replace(
        "depth: 4..12", "depth: 4..12 step 1"
    )
    assert read_space(other + "search: {trials: 99, seed: 3}\n").id == read_space(GOOD).id
    assert read_space(GOOD.replace("4..12", "4..13")).id != read_space(GOOD).id
    assert read_space(GOOD.replace("epochs: 4", "epochs: 5")).id != read_space(GOOD).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("require: {params: ..1234567}", "require: {params: ..1234568}"),
        ("require: {macs: ..1M}", "require: {macs: ..2M}"),
        ("fixed_points: {names: [mixer_s16], fit: space}", "require: {width: non-decreasing}"),
    ],
)
def test_a_space_that_says_something_else_has_another_id(one, other):
    assert read_space(GOOD + one).id != read_space(GOOD + other).id
    assert read_space(GOOD).id != read_space(GOOD.replace("worst: 100", "worst: 100.00001")).id


def test_how_a_search_goes_and_ends():
    space = read_space(GOOD)
    assert (space.sampler, space.stop, space.fidelity.repeats_on_front, space.fidelity.timeout_s) == (
        ("default", None, 0, None)
    )
    said = (
        GOOD + "  repeats_on_front: 2\n  timeout: 1h30m\nsearch: {sampler: nsga2, stop: {patience: 30, gain: 0.5%}}\n"
    )
    space = read_space(said)
    assert space.sampler == "nsga2"
    assert (space.stop.patience, space.stop.gain) == (30, pytest.approx(0.005))
    assert (space.fidelity.repeats_on_front, space.fidelity.timeout_s) == (2, 5400)
    assert read_space(said.replace("0.5%", "0.005")).stop == space.stop
    assert space.id == read_space(GOOD).id  # they may change from session to session


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("search: {sampler: my_module:Greedy}", 's.yaml:15: sampler "my_module:Greedy" names code, which a space file never does. Leave it out here and type: mlpspace search s.yaml --sampler my_module:Greedy'),
        ("search: {sampler: tpee}", 's.yaml:15: sampler "tpee" is not known. Did you mean "tpe"? Known: default, nsga2, random, tpe.'),
        ("search: {sampler: [tpe, nsga2]}", "s.yaml:15: sampler takes one of default, tpe, nsga2, random; found a list."),
        ("search: {stop: {patience: 30}}", "s.yaml:15: stop lacks gain."),
        ("search: {stop: {patience: 0, gain: 1%}}", 's.yaml:15: patience "0" is not a whole number from 1 to 10000000; the nearest is 1.'),
        ("search: {stop: {patience: 9, gain: 0}}", 's.yaml:15: gain "0" is not a share above 0 and below 100%, such as 0.5%.'),
        ("search: {stop: {patience: 9, gain: 5}}", 's.yaml:15: gain "5" is not a share above 0 and below 100%, such as 0.5%.'),
        ("search: {stop: {patience: 9, gain: little}}", 's.yaml:15: gain "little" is not a share, such as 20%, 0.2 or 1/5.'),
        ("search: {stop: 30}", 's.yaml:15: stop is a mapping with the keys patience, gain; found "30".'),
        ("  timeout: 20 minutes", 's.yaml:15: timeout "20 minutes" is not a duration above 0, such as 90s, 10m or 1h30m.'),
        ("  timeout: 0", 's.yaml:15: timeout "0" is not a duration above 0, such as 90s, 10m or 1h30m.'),
        ("  timeout: -5m", 's.yaml:15: timeout "-5m" is not a duration above 0, such as 90s, 10m or 1h30m.'),
        ("  repeats_on_front: 1.5", 's.yaml:15: repeats_on_front "1.5" is not a whole number (it takes a whole number from 0 to 100).'),
    ],
)  # fmt: skip
def test_mistakes_in_how_a_search_goes_and_ends(text, told):
    assert mistakes(GOOD + text + "\n") == [told]


def test_mistakes_of_search_and_fidelity_are_told_together():
    text = GOOD + "  timeout: soon\nsearch: {trials: 0, sampler: x:Y, stop: {patience: a, gain: b}}\n"
    assert [line.split(":")[1] for line in mistakes(text)] == ["15", "16", "16", "16", "16"]


def test_nothing_is_stopped_early_where_nothing_takes_training():
    rungs = "  rungs: {epochs: [2, 6], keep: 1/3}\n"
    text = GOOD.replace("  epochs: 4\n", rungs).replace("  accuracy: {goal: maximize, worst: 10}\n", "")
    assert mistakes(text) == [
        "s.yaml:11: fidelity: with keep below 1 a rung stops what is behind after 2 epochs, but no objective takes "
        "training: add accuracy to the objectives, or leave keep out."
    ]
    assert read_space(text.replace("1/3", "1")).fidelity.epochs == (2, 6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), ("1e2", 100)],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 m", "1h 30m", "ten", "1:30", "-5", "5w", "1m30", "٣m", "1e999"])
def test_what_is_no_duration(text):
    assert duration(text) is None


def test_two_batches_for_one_measurement_are_a_mistake():
    text = GOOD.replace("scale: log}", "scale: log, batch: 64}\n  peak_memory: {worst: 1GB, batch: 8}")
    assert mistakes(text) == [
        "s.yaml:12: peak_memory batch 8: throughput and memory are measured together, with one batch; "
        "the other says 64."
    ]


@pytest.mark.parametrize(
    ("old", "new"), [("4..12", "1_..2"), ("resolution: 32", "resolution: 32_"), ("epochs: 4", "epochs: ٤")]
)
def test_numbers_that_only_look_like_some_are_mistakes(old, new):
    assert changed(old, new)


def test_how_networks_are_going_to_be_used_is_read_from_throughput_or_memory():
    text = GOOD.replace(
        "scale: log}",
        "scale: log, batch: 8, compile: true, device: RTX 4090}\n  peak_memory: {worst: 1GB, precision: bf16}",
    )
    space = read_space(text, "s.yaml")
    assert space.deployment == Deployment(batch=8, precision="bf16", compile=True, device="RTX 4090")
    assert space.id != read_space(GOOD, "s.yaml").id
    assert (
        read_space(GOOD.replace("scale: log}", "scale: log, batch: 64, compile: false}"), "s.yaml").id
        == read_space(GOOD, "s.yaml").id
    )


def test_mistakes_in_how_networks_are_going_to_be_used_are_told_together():
    said = "scale: log, precision: fp8, compile: perhaps, device: [a, b]}\n  peak_memory: {worst: 1GB, compile: true}"
    with pytest.raises(SpaceError) as error:
        read_space(GOOD.replace("scale: log}", said), "s.yaml")
    told = "\n".join(error.value.args[0]) if isinstance(error.value.args[0], list) else str(error.value)
    assert 'throughput precision "fp8" is not known' in told
    assert 'throughput compile "perhaps"' in told
    assert "device a list is no name of a device" in told
