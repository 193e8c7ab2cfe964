"""mlpspace profile: whom it measures, what its rows say, what it prints."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from stubs import Session, evaluate, measurement
from test_cli import mlpspace

from mlpspace import comparators, machine_profile, papers
from mlpspace.architecture import Architecture, Axial, Dense, ExternalAttention, Patches, RepMlp, Stage
from mlpspace.comparators import TimmMissing
from mlpspace.engines import inline
from mlpspace.machine_profile import LONG_S, ROUNDS, Row, profiled
from mlpspace.nets import build, deploy
from mlpspace.peak_memory import peak_bytes
from mlpspace.profile_table import as_json, table
from mlpspace.subjects import Subject, SubjectError, subjects
from mlpspace.throughput import DISTURBED_PROTOCOL

CPU = torch.device("cpu")
KEYS = (
    "name resolution batch precision device threads params macs throughput throughput_low throughput_high "
    "throughput_relative peak_memory_mb top1 disturbed reason"
)
ONE = "one: {patch: 4, depth: 2, width: 16, token_mixer: {linear: {}}}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An architecture file and a study, in an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(ONE)
    with Session(Path("studies/run1"), trials=4) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    return tmp_path


@pytest.fixture
def speeds(monkeypatch) -> list:
    """What the next measurements find: images/s, a finished pair of measurements, or an error; 100 when it is empty."""
    told: list = []

    def measure(network, *, deployment, **circumstances):
        found = told.pop(0) if told else 100.0
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, tuple):
            return found
        return a_pair(found, batch=deployment.batch, precision=deployment.precision)

    monkeypatch.setattr(machine_profile, "measure_throughput", measure)
    return told


def a_pair(value: float, **other):
    told = {"low": value - 1, "high": value + 1, **other}
    return measurement("throughput", value, **told), measurement("peak_memory_mb", 12.5)


def a_subject(name: str = "one", *, width: int = 8, top1: float | None = None) -> Subject:
    network = Architecture(stem=Patches(patch=4), stages=(Stage(depth=1, width=width),))
    return Subject(name=name, network=network, resolution=16, classes=10, top1=top1)


def rows_of(*asked: Subject, batch: int = 4) -> list[Row]:
    return list(dict(profiled(asked, batch=batch, device=CPU)).values())


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_name_is_a_published_network_a_file_or_a_trial(folder):
    published, file, trial = subjects(["resmlp_s12", "one.yaml", "studies/run1:2"])
    assert (published.network, published.resolution, published.classes) == (papers.get("resmlp_s12"), 224, 1000)
    assert published.top1 == 76.6  # arXiv:2105.03404, table 1
    assert (file.network.describe(), file.resolution, file.classes) == ("patch 4, 2x16 linear mlp r4 layer", 224, 1000)
    ((text,),) = sqlite3.connect("studies/run1/study.db").execute(
        "select a.json from trial t join architecture a on t.architecture = a.id where t.number = 2"
    )
    assert trial.network.to_json() == text
    assert (trial.name, trial.resolution, trial.classes, trial.top1) == ("studies/run1:2", 32, 10, None)


def test_all_mistakes_are_told_at_once(folder):
    Path("bad.yaml").write_text("one: {patch: 4, depth: 2, width: [16, 32], token_mixer: linear}\n")
    names = ["resmlp_s13", "one.yaml", "nowhere.yaml", "bad.yaml", "studies/run1", "studies/run1:99", "studies/run9:0"]
    with pytest.raises(SubjectError) as error:
        subjects(names)
    told = error.value.mistakes
    assert len(told) == 6
    starts = (
        'network "resmlp_s13" is not known. Did you mean "resmlp_s',
        "nowhere.yaml cannot be read (No such file or directory).",
        "bad.yaml:1: ",
        "studies/run1 is a folder: name a trial of the study in it, such as studies/run1:0.",
        "no trial 99 in studies/run1; it has 0 to 3.",
        "no study at studies/run9. Studies here: studies/run1.",
    )
    for start, text in zip(starts, told, strict=True):
        assert text.startswith(start)


def test_a_network_that_cannot_stand_at_a_resolution_is_scaled_and_its_name_says_what_changed(folder):
    here, scaled = subjects(["resmlp_s12"])[0], subjects(["resmlp_s12"], resolution=36)[0]
    assert scaled.name.startswith("resmlp_s12 (patch 16 -> 3")  # 12 x 12 tokens: 36 has no divisor nearer to 14 x 14
    assert scaled.network.stages == here.network.stages
    assert (scaled.resolution, scaled.top1) == (36, None)  # the published accuracy is another network's


def test_a_network_that_stands_at_a_resolution_is_left_as_it_is_without_its_published_accuracy(folder):
    (larger,) = subjects(["resmlp_s12"], resolution=384)
    assert (larger.name, larger.network, larger.top1) == ("resmlp_s12", papers.get("resmlp_s12"), None)
    (fewer,) = subjects(["resmlp_s12"], classes=10)
    assert (fewer.classes, fewer.top1) == (10, None)


def test_what_cannot_be_built_is_a_mistake_with_its_reason(folder):
    Path("one.yaml").write_text(ONE.replace("patch: 4", "patch: 5"))
    with pytest.raises(SubjectError, match=r"one.yaml: .*needs a multiple of 5 pixels, not 224. .*--resolution"):
        subjects(["one.yaml"])
    assert subjects(["one.yaml"], resolution=30)[0].name == "one.yaml"


def test_comparators_without_timm_are_a_mistake_that_says_what_to_type(folder, monkeypatch):
    def missing():
        raise TimmMissing("no timm.\n  pip install 'mlpspace[timm]'")

    monkeypatch.setattr(comparators, "imported", missing)
    with pytest.raises(SubjectError) as error:
        subjects(["deit_s", "swin_t", "resmlp_s13"])
    assert len(error.value.mistakes) == 2  # timm is told once
    assert "pip install 'mlpspace[timm]'" in str(error.value)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_the_counts_of_a_row_are_those_of_the_official_code(speeds):
    (row,) = rows_of(*subjects(["resmlp_s12"]))
    assert (row.params, row.macs) == (15_350_872, papers.paper("resmlp_s12").macs)


def test_a_comparator_is_counted_as_timm_counts_it(speeds):
    try:
        comparators.imported()
    except TimmMissing as error:
        pytest.skip(str(error).splitlines()[0])
    (row,) = rows_of(*subjects(["deit_s"]))
    assert row.params == 22_050_664
    assert "timm's networks run as timm builds them" in table([row])


def test_a_row_is_the_median_of_its_rounds_with_the_ends_of_their_intervals(speeds):
    speeds += [100.0, 90.0, 120.0]
    (row,) = rows_of(a_subject())
    assert len(row.measured) == ROUNDS == 3
    assert row.throughput == (100.0, 89.0, 121.0)
    assert row.peak_memory_mb == 12.5


def test_a_gpu_is_current_while_networks_are_measured_on_it(speeds, monkeypatch, tmp_path):
    current = []

    @contextmanager
    def selected(device):
        current.append(device)
        yield
        current.pop()

    def measure(network, *, device, **circumstances):
        assert current == [device]
        return a_pair(100.0)

    monkeypatch.setattr(torch.cuda, "device", selected)
    monkeypatch.setattr(machine_profile, "measure_throughput", measure)
    monkeypatch.setattr(machine_profile, "describe", lambda device: "NVIDIA H200")
    monkeypatch.setattr(machine_profile, "key", str)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (row,) = dict(profiled([a_subject()], batch=4, device=torch.device("cuda", 1), precision="fp32")).values()
    assert (row.reason, len(row.measured), current) == (None, ROUNDS, [])


def test_the_rounds_go_through_all_networks_so_that_a_drift_hits_them_alike(speeds):
    seen = [index for index, row in profiled([a_subject("a"), a_subject("b")], batch=4, device=CPU) if row.measured]
    assert seen == [0, 1] * ROUNDS


def test_disturbed_rounds_are_left_out_where_there_are_others(speeds):
    speeds += [a_pair(10.0, protocol=DISTURBED_PROTOCOL), 100.0, 110.0]
    (row,) = rows_of(a_subject())
    assert row.throughput == (105.0, 99.0, 111.0)
    speeds += [a_pair(10.0, protocol=DISTURBED_PROTOCOL)] * ROUNDS
    (row,) = rows_of(a_subject("loud"))
    assert row.throughput == (10.0, 9.0, 11.0)
    assert "Other programs used the device all the while, and slowed these by an unknown factor: loud" in table([row])


def test_a_long_measurement_is_made_once(speeds):
    speeds += [a_pair(1.0, seconds=LONG_S + 1), 100.0, 100.0, 100.0]
    slow, quick = rows_of(a_subject("slow"), a_subject("quick"))
    assert [len(row.measured) for row in (slow, quick)] == [1, ROUNDS]


def test_a_network_that_does_not_fit_is_a_row_with_the_reason_and_the_others_are_measured(speeds):
    speeds += [100.0, torch.OutOfMemoryError("tried to allocate 20 GiB"), 50.0]
    first, large, last = rows_of(a_subject("first"), a_subject("large"), a_subject("last"))
    assert large.reason.startswith("out of memory: OutOfMemoryError: tried to allocate 20 GiB")
    assert (large.throughput, large.peak_memory_mb) == (None, None)
    assert (len(first.measured), len(last.measured)) == (ROUNDS, ROUNDS)
    assert "large: out of memory" in table([first, large, last])


def test_main_memory_that_is_not_there_is_not_asked_for(speeds, monkeypatch):
    monkeypatch.setattr(machine_profile, "free_memory_bytes", lambda: 10_000_000)
    small, large = rows_of(a_subject("small"), a_subject("large", width=1024))
    assert small.reason is None
    assert large.reason.startswith("out of memory: batch 4 takes 0.1 GB, and 0.0 GB are free")
    assert not large.measured


@pytest.mark.parametrize("mixer", [Dense(), Axial(), ExternalAttention(memory=8), RepMlp(share_sets=2)])
def test_the_memory_told_beforehand_is_the_memory_taken(mixer):
    architecture = Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=16, token_mixer=mixer),))

    def peak(device: str) -> int:
        with torch.device(device):
            return peak_bytes(deploy(build(architecture, 32, 10).eval()), torch.zeros(4, 3, 32, 32))

    assert peak("meta") == peak("cpu")


def test_throughput_is_relative_to_the_first_row(speeds):
    speeds += [200.0, 50.0, 300.0] * ROUNDS
    rows = rows_of(a_subject("a"), a_subject("b"), a_subject("c"))
    assert [row["throughput_relative"] for row in as_json(rows)["rows"]] == [1.0, 0.25, 1.5]
    assert [line.split()[6] for line in table(rows).splitlines()[1:4]] == ["1.00", "0.25", "1.50"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_json_has_exactly_these_keys_and_agrees_with_the_ledger(folder, speeds, capsys):
    code, out, err = mlpspace(capsys, "profile", "resmlp_s12", "studies/run1:3", "--batch", 8, "--json")
    assert code == 0
    told = json.loads(out)
    assert list(told) == ["rows"]
    assert [list(row) for row in told["rows"]] == [KEYS.split()] * 2
    published, trial = told["rows"]
    assert (published["name"], published["resolution"], published["batch"]) == ("resmlp_s12", 224, 8)
    assert (published["params"], published["top1"]) == (15_350_872, 76.6)
    ((params, macs),) = sqlite3.connect("studies/run1/study.db").execute(
        "select a.params, a.macs from trial t join architecture a on t.architecture = a.id where t.number = 3"
    )
    assert (trial["name"], trial["params"], trial["macs"], trial["top1"]) == ("studies/run1:3", params, macs, None)
    assert (trial["precision"], trial["resolution"], trial["throughput"]) == (published["precision"], 32, 100.0)
    assert "[2/2] studies/run1:3 at 32 px: 100 images/s in round 1" in err  # progress, line by line


def test_a_network_is_really_measured_in_the_precision_asked_for(folder, monkeypatch, capsys):
    monkeypatch.setattr(machine_profile, "ROUNDS", 1)
    monkeypatch.setattr(machine_profile, "OTHERS_PATIENCE_S", 0.1)
    for precision in ("fp32", "bf16"):
        arguments = ["one.yaml", "--resolution", 32, "--batch", 2, "--classes", 10, "--device", "cpu"]
        code, out, _ = mlpspace(capsys, "profile", *arguments, "--precision", precision, "--json")
        (row,) = json.loads(out)["rows"]
        assert code == 0
        assert (row["precision"], row["batch"], row["resolution"]) == (precision, 2, 32)
        assert 0 < row["throughput_low"] <= row["throughput"] <= row["throughput_high"]
        size = {"fp32": 4, "bf16": 2}[precision]
        assert row["peak_memory_mb"] > size * (row["params"] + 2 * 3 * 32 * 32) / 1e6


@pytest.mark.slow
def test_the_table_says_what_it_rests_on(folder, speeds, capsys):
    code, out, _ = mlpspace(capsys, "profile", "one.yaml", "resmlp_s12", "--batch", 8)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "network"
    assert [line.split()[0] for line in rows[:2]] == ["one.yaml", "resmlp_s12"]
    assert rows[1].split()[-1] == "76.6"
    assert "batch 8, fp32, deployed form" in out or "batch 8, bf16, deployed form" in out


def test_ctrl_c_prints_what_there_is(folder, speeds, capsys):
    speeds += [100.0, KeyboardInterrupt()]
    code, out, err = mlpspace(capsys, "profile", "one.yaml", "resmlp_s12")
    assert code == 130
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["one.yaml", "resmlp_s12"]
    assert "Interrupted" in err


def test_nothing_measured_exits_with_1_and_mistakes_with_2(folder, speeds, capsys):
    speeds += [RuntimeError("no kernel image")]
    code, out, _ = mlpspace(capsys, "profile", "one.yaml")
    assert code == 1
    assert "one.yaml: error: RuntimeError: no kernel image" in out
    for arguments, told in (
        ([], "takes at least one name"),
        (["one.yaml", "--device", "cudo"], 'device "cudo" is not known'),
        (["one.yaml", "--precision", "fp8"], "fp8"),
        (["one.yml", "tow"], '"tow" is not known'),
    ):
        code, _, err = mlpspace(capsys, "profile", *arguments)
        assert code == 2
        assert told in err
