"""`mlpspace papers`: the list, one network, the check."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from commands import mlpspace

from mlpspace import papers, papers_table
from mlpspace.papers import Measured, Paper
from mlpspace.proof import Proof
from mlpspace.space.architecture_reader import read_architecture


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)


# --- the list -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_all_networks_are_listed_in_lines_that_fit(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = mlpspace(capsys, "papers")
    assert code == 0
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.split()[0] in papers.NAMES]
    assert listed == list(papers.NAMES)
    if columns >= 100:
        assert max(map(len, out.splitlines())) <= columns + 10  # the sentences below the table alone may be longer


def test_a_row_has_counts_resolution_top1_and_how_it_was_trained(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = mlpspace(capsys, "papers", "resmlp_s12", "mixer_s16")
    row = next(line for line in out.splitlines() if "resmlp_s12" in line)
    assert row.split(None, 5) == [
        "resmlp_s12",
        "224",
        "15.4M",
        "3.01G",
        "76.6",
        papers.paper("resmlp_s12").published.top1_note,
    ]
    assert "mixer_s16    224   18.5M  3.78G        -  published only with pre-training" in out
    assert [line.split("  ")[0] for line in out.splitlines() if line and line[0] != " "][:2] == ["ResMLP", "MLP-Mixer"]


def test_what_is_unverified_is_marked_and_said(capsys):
    _, out, _ = mlpspace(capsys, "papers", "gmlp_b16", "mixer_s16")
    assert "gmlp_b16 ?" in out
    assert "mixer_s16 ?" not in out
    _, out, _ = mlpspace(capsys, "papers", "gmlp_b16")
    assert "unverified  The paper's own table was not at hand" in " ".join(out.split("\n"))


def test_the_json_of_the_list_has_every_network(capsys):
    code, out, _ = mlpspace(capsys, "papers", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [row["name"] for row in rows] == list(papers.NAMES)
    assert all(row["params"] > 0 and row["macs"] > 0 and row["resolution"] for row in rows)
    smlpnet = next(row for row in rows if row["name"] == "smlpnet_tiny")
    assert smlpnet["published"] == {
        "params_m": 24,
        "macs_g": 5.0,
        "top1": 81.9,
        "top1_note": smlpnet["top1_note"],
        "classifier": True,
        "provenance": "primary: the official README",
    }
    assert (smlpnet["params"], smlpnet["macs"], smlpnet["top1"]) == (24_123_584, 4_989_451_520, 81.9)


# --- one network ----------------------------------------------------------------------------------------------------


def test_one_network_is_shown_with_its_source_figures_caveats_and_yaml(capsys):
    code, out, _ = mlpspace(capsys, "papers", "cyclemlp_b5")
    assert code == 0
    for word in (
        "arXiv:2107.10224",
        "ShoufaChen/CycleMLP",
        "224 px",
        "75,747,280",
        "12,232,436,736",
        "83.2 %",
        "12.3 G",
    ):
        assert word in out
    yaml = out.split("# a layout")[1].split("\n", 1)[1].split("\n\n")[0]
    assert read_architecture(yaml) == papers.get("cyclemlp_b5")


def test_the_json_of_one_network_reads_back(capsys):
    _, out, _ = mlpspace(capsys, "papers", "mixer_s16", "--json")
    told = json.loads(out)
    assert read_architecture(told["yaml"]) == papers.get("mixer_s16")
    assert told["measured"]["implementation"] == "timm"


def test_a_comparator_has_no_yaml_and_says_how_to_have_it(capsys):
    _, out, _ = mlpspace(capsys, "papers", "deit_s")
    assert "pip install 'mlpspace[timm]'" in out
    assert 'mlpspace.build(mlpspace.papers.get("deit_s"), resolution=224, classes=1000)' in out
    _, out, _ = mlpspace(capsys, "papers", "deit_s", "--json")
    assert (json.loads(out)["yaml"], json.loads(out)["timm"]) == (None, "deit_small_patch16_224")


@pytest.mark.parametrize("flags", [(), ("--check",), ("--json",)])
def test_an_unknown_name_is_told_with_the_near_one(flags, capsys):
    code, out, err = mlpspace(capsys, "papers", "resmlp_12", *flags)
    assert (code, out) == (2, "")
    assert err == 'network "resmlp_12" is not known. Did you mean "resmlp_s12"?\n  To see all: mlpspace papers\n'


# --- the check ------------------------------------------------------------------------------------------------------


def test_the_check_prints_ours_beside_measured_and_published(capsys):
    code, out, _ = mlpspace(capsys, "papers", "--check", "resmlp_s12", "resmlp_s12_p8")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["resmlp_s12", *["15,350,872"] * 2, "15.4", "M", *["3,009,739,776"] * 2, "3.0", "G", "equal"]
    assert rows[2][:5] == ["resmlp_s12_p8", "22,051,624", "-", "22.1", "M"]
    assert out.splitlines()[2].endswith("not measured")
    assert "2 built and counted at 1,000 classes, 1 of them beside another implementation; none differs" in out


def test_the_check_exits_1_where_ours_differs(capsys, monkeypatch):
    other = dataclasses.replace(
        papers.paper("gmlp_ti16"), measured=Measured(params=1, macs=2, implementation="the other code")
    )
    monkeypatch.setitem(papers._BY_NAME, "gmlp_ti16", other)
    code, out, _ = mlpspace(capsys, "papers", "--check", "gmlp_ti16")
    assert code == 1
    assert "DIFFERS" in out
    assert "the other code has 1 params and 2 MACs." in out
    assert "1 differ: gmlp_ti16" in out
    code, out, _ = mlpspace(capsys, "papers", "--check", "gmlp_ti16", "--json")
    assert (code, json.loads(out)["rows"][0]["agrees"]) == (1, False)


def test_a_comparator_that_cannot_be_built_is_no_failure_but_alone_checks_nothing(capsys, without_timm):
    assert mlpspace(capsys, "papers", "--check", "deit_s", "mixer_s32")[0] == 0
    code, out, _ = mlpspace(capsys, "papers", "--check", "deit_s")
    assert code == 1
    assert "so nothing was checked" in out
    assert out.splitlines()[1].endswith("needs mlpspace[timm]")
    assert "1 not built. Comparators are built by timm, which does not import here" in out
    _, out, _ = mlpspace(capsys, "papers", "--check", "deit_s", "--json")
    row = json.loads(out)["rows"][0]
    assert (row["params"], row["agrees"]) == (None, None)
    assert "pip install" in row["remarks"][-1]


def row(paper: Paper) -> list[str]:
    return papers_table.remarks(Proof(paper=paper, params=paper.params, macs=paper.macs))


def test_a_row_says_where_published_and_measured_disagree():
    assert row(papers.paper("resmlp_s12")) == []
    assert row(papers.paper("spach_ms_s_mlp")) == [
        "Published are 46 M params, which 46.54 does not round to.",
        "Published are 8.2 G MACs, which 8.014 does not round to.",
    ]


def test_a_classifier_that_the_paper_leaves_out_is_left_out_of_the_comparison():
    for name in papers.NAMES:
        if name.startswith("mixer_"):
            assert row(papers.paper(name)) == [], name


def test_a_row_says_what_its_counts_are_of():
    assert row(papers.paper("repmlp_res50_light")) == ["Counts of the merged form."]
    assert row(papers.paper("external_attention_unit_512")) == ["Counts of the block alone."]


def test_a_row_says_which_macs_no_counter_sees():
    assert row(papers.paper("cyclemlp_b1")) == [
        "A counter sees 1,806,819,328 MACs of the official code; the 314,703,872 of its deformable convolutions, which "
        "it does not see, are added."
    ]


@pytest.mark.slow
def test_every_network_passes_the_check(capsys):
    code, out, _ = mlpspace(capsys, "papers", "--check", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert all(row["agrees"] for row in rows if row["name"] in papers.FIXED_POINTS)
