"""A real study's trials, trained again from the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import mlpspace
from stubs import measurement

from mlpspace import device, driver, evaluate
from mlpspace.driver import Options
from mlpspace.study import Study

SPACE = """\
task: {classes: 10, resolution: 32}
space:
  layout: {isotropic: {patch: 8, depth: 1, width: 8..32 step 8, token_mixer: {linear: {}, dense: {ratio: 0.5}}}}
objectives:
  accuracy: {goal: maximize, worst: 10}
  params: {goal: minimize, worst: 1M}
fidelity: {dataset: mnist5k, images: 200, rungs: {epochs: [1, 3], keep: 1/2}, recipe: {lr: LR, batch: 50}}
search: {trials: 4, seed: 0, sampler: random}
"""


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One core, as in a container with such a quota, as tests run side by side; and no throughput is measured."""
    quota, threads = tmp_path_factory.mktemp("cgroup") / "cpu.max", torch.get_num_threads()
    quota.write_text("100000 100000\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "CGROUP_CPU_MAX", quota)
        speed = (measurement("throughput", 1000.0), measurement("peak_memory_mb", 1.0))
        patch.setattr(evaluate, "measure_throughput", lambda network, **how: speed)
        yield
    torch.set_num_threads(threads)


def search(folder: Path, text: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(text)
    driver.search(
        str(file),
        folder / "run1",
        Options(data={}, engine="inline", device="cpu", plain=True, named=True),
        command="mlpspace search space.yaml --storage postgresql://me:secret@host/db",
        write=lambda line: None,
    )
    return folder / "run1"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four trials with rungs, some of them left at the first."""
    return search(tmp_path_factory.mktemp("study"), SPACE.replace("LR", "1e-2"))


@pytest.fixture
def study(searched: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(searched, tmp_path / "run1")


def change(study: Path, *statements: str) -> None:
    connection = sqlite3.connect(study / "study.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def trials(study: Path, state: str) -> list[int]:
    connection = sqlite3.connect(study / "study.db")
    found = connection.execute("select number from trial where state=? order by number", (state,)).fetchall()
    connection.close()
    return [number for (number,) in found]


def test_a_search_notes_itself_for_the_study_and_for_the_session_without_a_password(study: Path) -> None:
    opened = Study(study)
    (session,) = opened.sessions()
    assert session.manifest == opened.manifest
    assert (
        session.command
        == opened.manifest["command"]
        == "mlpspace search space.yaml --storage postgresql://me:***@host/db"
    )
    assert opened.manifest["torch"]["version"] == torch.__version__
    assert opened.manifest["seeds"] == {"space": 0, "search": 0}
    diffs = [opened.manifest["git"]["diff"]] if opened.manifest["git"]["diff"] else []
    assert [path.name for path in study.glob("*.diff")] == diffs
    assert not any(
        b"secret" in path.read_bytes() for path in study.rglob("*") if path.is_file() and path.suffix != ".diff"
    )


def test_on_the_same_cpu_every_trial_gets_the_same_bits(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in study.rglob("*") if path.is_file()}
    early = {*trials(study, "paused"), *trials(study, "stopped")}
    assert early, "one of the trials was to stay at the first rung"
    for number in range(4):
        code, out, err = mlpspace(capsys, "replay-trial", study, number)
        assert code == 0, out + err
        assert "The same curve, to the last bit." in out
        assert "Different from the search" not in out
        assert ("epoch 3 of 3" in err) == (number not in early)
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in study.rglob("*") if path.is_file()} == files


def test_another_seed_is_found_out_wherever_it_was_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (number, *_) = trials(study, "complete")
    change(study, f"update trial set seed=seed+1 where number={number}")
    code, out, _ = mlpspace(capsys, "replay-trial", study, number)
    assert code == 1
    assert "NOT the same curve" in out
    assert "seed  " in out
    change(study, f"update measurement set seed=seed+1 where trial={number}")
    code, out, _ = mlpspace(capsys, "replay-trial", study, number, "--json")
    told = json.loads(out)
    assert (code, told["same"], told["how"], told["different"]) == (1, False, "not the same", [])
    assert told["epochs"][0]["loss_then"] != told["epochs"][0]["loss_now"]


def test_a_trial_is_trained_with_the_threads_of_the_search(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    (number, *_) = trials(study, "complete")
    change(study, "update measurement set threads=3")
    _, out, _ = mlpspace(capsys, "replay-trial", study, number, "--json")
    assert "threads" not in [each["what"] for each in json.loads(out)["different"]]
    assert torch.get_num_threads() == before


def test_other_images_are_told_before_the_training(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(study, "update measurement set data='0123456789abcdef'")
    code, out, err = mlpspace(capsys, "replay-trial", study, 0)
    assert code == 0  # it is the same curve all the same
    assert err.index("WARNING: these are not the images of the search") < err.index("epoch 1 of 3")
    assert "fingerprint of the images  0123456789abcdef then" in out


def test_what_was_not_trained_is_refused_with_a_word(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(
        study,
        "update trial set state='infeasible', reason='broken requirement', detail='throughput 3 images/s' where number=0",
    )
    code, out, err = mlpspace(capsys, "replay-trial", study, 0)
    assert (code, out) == (2, "")
    assert "was not trained in the search (broken requirement: throughput 3 images/s)" in err
    assert mlpspace(capsys, "replay-trial", study, 99)[0] == 2
    assert mlpspace(capsys, "replay-trial", study, 1, "--data", "cifar10=/nowhere")[0] == 2
    assert mlpspace(capsys, "replay-trial", study, 1, "--device", "tpu")[0] == 2


def test_a_training_that_broke_down_breaks_down_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = search(tmp_path, SPACE.replace("LR", "100").replace("trials: 4", "trials: 2"))
    failed = trials(folder, "infeasible")
    assert failed
    code, out, err = mlpspace(capsys, "replay-trial", folder, failed[0])
    assert code == 0, out + err
    assert "In the search it failed" in err
    assert "The same failure: " in out
    change(folder, "update trial set reason='out of memory', detail='8 GB asked for'")
    code, out, _ = mlpspace(capsys, "replay-trial", folder, failed[0])
    assert code == 1
    assert 'in the search with "out of memory"' in out
