"""Published networks: names, figures and counts against the reference table, and how each says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpspace import papers
from mlpspace.architecture import Architecture, DenseByTokens, Gating, hidden_width
from mlpspace.comparators import Comparator
from mlpspace.counts import profile
from mlpspace.errors import ArchitectureError
from mlpspace.papers import Paper
from mlpspace.papers.published import Published
from mlpspace.proof import prove
from mlpspace.space.architecture_reader import read_architecture
from mlpspace.space.writer import layout_yaml

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "papers.yaml"
LEFT_OUT = ("ShiftViT (same repo)", "gMixer (timm only)")  # families of the reference table that no paper here has
NO_CODE = ("cyclemlp_t_swin", "cyclemlp_s_swin", "cyclemlp_b_swin")  # names in a README, without code or counts
TANH = {f"{name}_tanh": name for name in papers.NAMES if name.startswith("mixer_") and not name.endswith("_tanh")}

OURS = [paper for paper in papers.PAPERS if isinstance(paper.architecture, Architecture)]


def reference() -> dict[str, dict[str, Any]]:
    """Name -> entry of the table of published and measured figures that this repository was made from."""
    if not REFERENCE.exists():
        return {}
    entries = yaml.safe_load(REFERENCE.read_text())["configs"]
    return {each["name"]: each for each in entries if each["family"] not in LEFT_OUT and each["name"] not in NO_CODE}


ENTRIES = reference()
needs_reference = pytest.mark.skipif(not ENTRIES, reason="the reference table is not on this machine")


def by_name(paper: Paper) -> str:
    return paper.name


# --- against the reference table ------------------------------------------------------------------------------------


@needs_reference
def test_every_network_of_the_reference_table_is_here_under_its_name_and_no_other() -> None:
    assert set(papers.NAMES) == ENTRIES.keys() | TANH.keys()
    assert len(set(papers.NAMES)) == len(papers.NAMES)


@needs_reference
@pytest.mark.parametrize("paper", papers.PAPERS, ids=by_name)
def test_published_figures_are_those_of_the_reference_table(paper: Paper) -> None:
    entry = ENTRIES[TANH.get(paper.name, paper.name)]
    printed = entry["published"]
    told = paper.published
    assert [told.params_m, told.macs_g, told.top1] == [printed["params_m"], printed["gflops"], printed["top1"]]
    assert [type(told.params_m), type(told.macs_g)] == [type(printed["params_m"]), type(printed["gflops"])]  # digits
    assert told.classifier == (printed.get("params_convention") != "without classifier head")
    if told.top1 is not None:
        assert told.provenance.startswith("primary") == printed["provenance"].startswith("primary")
    assert paper.resolution == entry["hyperparameters"].get("image_size", 224)


@needs_reference
@pytest.mark.parametrize("paper", papers.PAPERS, ids=by_name)
def test_measured_counts_are_those_of_the_reference_table(paper: Paper) -> None:
    counts = ENTRIES[TANH.get(paper.name, paper.name)].get("measured")
    if counts is None:
        assert paper.measured is None
        return
    assert paper.measured is not None
    assert paper.measured.params == counts["params"]
    unseen = counts.get("macs_cyclefc_uncounted", 0)
    seen = None if paper.measured.macs is None else paper.measured.macs - unseen
    assert (seen, paper.measured.unseen_macs) == (counts["macs_flopcounter"], unseen)
    if unseen:
        assert paper.measured.macs == counts["macs_total_corrected"]
    merged = "deploy" in f"{counts['implementation']} {counts.get('key')}"
    assert paper.form == ("merged" if merged else "train")


# --- our counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", [p for p in OURS if p.form == "train" and p.part == "network"], ids=by_name)
def test_our_arithmetic_gives_the_counts_on_record_to_the_unit(paper: Paper) -> None:
    found = profile(papers.architecture(paper.name), paper.resolution)
    assert (found.params, found.macs) == (paper.params, paper.macs)


BUILT = ("external_attention_unit_512", "repmlp_res50_base", "repmlp_res50_light", "repmlp_res50_bottleneck")
BUILT += ("gmlp_ti16", "ffonly_tiny", "spach_ms_xxs_attn", "cyclemlp_b1", "repmlpnet_t224", "resmlp_s12_classmlp")


@pytest.mark.parametrize("name", BUILT)
def test_a_built_network_has_the_counts_on_record_to_the_unit(name: str) -> None:
    proof = prove(papers.paper(name))
    assert (proof.params, proof.macs) == (papers.paper(name).params, papers.paper(name).macs)
    assert proof.agrees


@pytest.mark.slow
@pytest.mark.parametrize("paper", [p for p in OURS if p.name not in BUILT], ids=by_name)
def test_every_built_network_has_the_counts_on_record_to_the_unit(paper: Paper) -> None:
    proof = prove(paper)
    assert (proof.params, proof.macs) == (paper.params, paper.macs)


def test_counts_are_taken_of_the_form_and_part_that_was_measured() -> None:
    light = papers.paper("repmlp_res50_light")
    trained = profile(papers.architecture(light.name), 224)
    assert (light.form, light.part) == ("merged", "network")
    assert trained.params > light.params
    unit = papers.paper("external_attention_unit_512")
    assert (unit.form, unit.part) == ("train", "block")
    assert unit.params == 512 * 512 + 512 + 2 * 512 * 64 + 512 * 512 + 2 * 512  # query, two memories, project, norm


# --- the networks themselves ----------------------------------------------------------------------------------------


@needs_reference
@pytest.mark.parametrize("paper", OURS, ids=by_name)
def test_widths_depths_and_hidden_widths_are_those_of_the_reference_table(paper: Paper) -> None:
    told = ENTRIES[TANH.get(paper.name, paper.name)]["hyperparameters"]
    stages = papers.architecture(paper.name).stages
    first = stages[0]
    if "widths" in told:
        assert [stage.width for stage in stages] == told["widths"]
        assert [stage.depth for stage in stages] == told["depths"]
    elif "dim" in told:
        assert first.width == told["dim"]
    if "depth" in told:
        assert sum(stage.depth for stage in stages) == told["depth"]
    if "patch_size" in told:
        assert papers.architecture(paper.name).stem.stride == told["patch_size"]
    if "layerscale_init" in told:
        assert first.layer_scale == told["layerscale_init"]
    if "token_mlp_dim" in told:
        assert first.token_mixer.hidden(told["tokens"], first.width) == told["token_mlp_dim"]  # type: ignore[union-attr]
    if "effective_heads" in told:
        assert first.token_mixer.heads == told["effective_heads"]  # type: ignore[union-attr]
    if "gate_dim" in told:
        assert isinstance(first.channel_mixer, Gating)
        assert first.channel_mixer.gate(first.width) == told["gate_dim"]
    if "channel_mlp_dim" in told:
        assert hidden_width(first.channel_mixer.ratio, first.width) == told["channel_mlp_dim"]  # type: ignore[union-attr]
    if "sharesets" in told:
        assert [stage.token_mixer.share_sets for stage in stages] == told["sharesets"]  # type: ignore[union-attr]
    if isinstance(told.get("mlp_ratio"), list):
        assert [stage.channel_mixer.ratio for stage in stages] == told["mlp_ratio"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("prefix", "eps"),
    [
        *(("mixer_", 1e-6), ("ffonly_", 1e-6), ("gmlp_", 1e-6), ("spach_", 1e-6)),  # as the codes say
        *(("eamlp_", 1e-5), ("smlpnet_", 1e-5), ("cyclemlp_", 1e-5)),  # torch's default, which the codes leave
    ],
)
def test_layer_norms_have_the_eps_of_the_official_code(prefix: str, eps: float) -> None:
    found = {papers.architecture(name).norm_eps for name in papers.FIXED_POINTS if name.startswith(prefix)}
    assert found == {eps}


def test_the_heads_of_a_spach_pyramid_stay_as_many_as_its_first_stage_has() -> None:
    mixers = [stage.token_mixer for stage in papers.architecture("spach_ms_s_hybrid").stages]
    assert [mixer.heads for mixer in mixers if hasattr(mixer, "heads")] == [4, 4, 4]


def test_the_tanh_networks_differ_in_their_gelu_alone() -> None:
    for tanh, exact in TANH.items():
        stage, other = papers.architecture(tanh).stages[0], papers.architecture(exact).stages[0]
        assert stage.token_mixer.activation == stage.channel_mixer.activation == "gelu_tanh"  # type: ignore[union-attr]
        assert other.token_mixer.activation == other.channel_mixer.activation == "gelu"  # type: ignore[union-attr]
        assert papers.architecture(tanh).to_json().replace("gelu_tanh", "gelu") == papers.architecture(exact).to_json()


def test_a_network_of_another_resolution_keeps_its_saying_of_hidden_widths() -> None:
    mixer = papers.architecture("spach_ms_xs_mlp").stages[1].token_mixer
    assert isinstance(mixer, DenseByTokens)
    assert mixer.hidden(28 * 28, 192) == 392
    assert mixer.hidden(7 * 7, 768) == 24  # cut off, as the official code does


@pytest.mark.parametrize("paper", OURS, ids=by_name)
def test_every_network_is_said_in_yaml_and_read_back_equal(paper: Paper) -> None:
    text = layout_yaml(papers.architecture(paper.name), paper.name, indent=0)
    assert read_architecture(text) == paper.architecture


@pytest.mark.parametrize("paper", papers.PAPERS, ids=by_name)
def test_every_network_says_where_it_comes_from(paper: Paper) -> None:
    assert paper.source.paper.startswith("arXiv:")
    assert paper.source.code or paper.unverified
    assert paper.published.top1_note
    assert (paper.counted is None) == (paper.measured is not None and paper.measured.macs is not None)


# --- by name --------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_near_one_and_where_all_are() -> None:
    for ask in (papers.paper, papers.get, papers.architecture):
        with pytest.raises(
            ArchitectureError, match=r'"mixer_s18" is not known. Did you mean "mixer_s16"\?\n.*mlpspace papers'
        ):
            ask("mixer_s18")


def test_a_comparator_is_got_but_has_no_architecture() -> None:
    assert isinstance(papers.get("deit_s"), Comparator)
    assert "deit_s" in papers.NAMES
    assert "deit_s" not in papers.FIXED_POINTS
    with pytest.raises(ArchitectureError, match="deit_s is a comparator"):
        papers.architecture("deit_s")
    with pytest.raises(ArchitectureError, match="deit_s is a comparator"):
        papers.at_resolution("deit_s", 32)


def test_a_published_figure_keeps_the_digits_it_was_printed_with() -> None:
    assert str(papers.paper("resmlp_s24").published.params_m) == "30.0"
    assert str(papers.paper("mixer_s16").published.params_m) == "18"
    assert Published().params_m is None
