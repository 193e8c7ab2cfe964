"""What a study and its sessions note of themselves, and how it is shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import mlpspace
from hand_made import an_assignment, measured

from mlpspace import manifest as noting
from mlpspace.device import describe
from mlpspace.errors import StudyError
from mlpspace.manifest import Manifest, facts, manifest, without_passwords
from mlpspace.manifest_table import alike, different, rows
from mlpspace.study import Study

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a package in it, committed."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    root = tmp_path / "checkout"
    (root / "pkg" / "inner").mkdir(parents=True)
    (root / ".gitignore").write_text("*.pyc\nvenv/\n")
    (root / "pkg" / "a.py").write_text("one = 1\n")
    (root / "pkg" / "inner" / "b.py").write_text("two = 2\n")
    (root / "notes.txt").write_text("not of the package\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


# --- the code ---------------------------------------------------------------------------------------------------------


def test_a_clean_checkout_is_told_by_its_commit(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("changed, but no code\n")
    told, diff = noting._git(checkout / "pkg")
    assert told == {"commit": git(checkout, "rev-parse", "HEAD"), "changed": False, "diff": None}
    assert diff == ""


def test_what_was_changed_is_got_back_from_the_commit_and_the_diff(checkout: Path, tmp_path: Path) -> None:
    (checkout / "pkg" / "a.py").write_text("one = 11\n")
    (checkout / "pkg" / "inner" / "b.py").unlink()
    (checkout / "pkg" / "größer und new.py").write_text("three = 3\n")
    (checkout / "pkg" / "a.pyc").write_text("ignored")
    (checkout / "pkg" / "staged.py").write_text("four = 4\n")
    git(checkout, "add", "pkg/staged.py")
    git(checkout, "config", "color.ui", "always")
    git(checkout, "config", "diff.noprefix", "true")
    told, diff = noting._git(checkout / "pkg")
    assert told["changed"]

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    git(clone, "checkout", "-q", told["commit"])
    (tmp_path / told["diff"]).write_text(diff)
    git(clone, "apply", str(tmp_path / told["diff"]))
    found = {path.name: path.read_text() for path in clone.rglob("*.py")}
    assert found == {"a.py": "one = 11\n", "größer und new.py": "three = 3\n", "staged.py": "four = 4\n"}


def test_a_package_in_an_environment_inside_somebodys_repository_has_no_commit(checkout: Path) -> None:
    inside = checkout / "venv" / "lib" / "pkg"
    inside.mkdir(parents=True)
    (inside / "a.py").write_text("one = 1\n")
    told, diff = noting._git(inside)
    assert (told["commit"], told["why"], diff) == (None, "not a checkout of mlpspace", "")


def test_a_folder_outside_any_repository_says_why_there_is_no_commit(tmp_path: Path) -> None:
    told, _ = noting._git(tmp_path)
    assert told["commit"] is None
    assert "not a git repository" in told["why"]


def test_a_machine_without_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told, _ = noting._git(tmp_path)
    assert told["commit"] is None
    assert "git" in told["why"]


def test_a_large_diff_is_cut_at_a_line_with_a_word(checkout: Path) -> None:
    (checkout / "pkg" / "large.py").write_text("x = 1  # a line\n" * 70_000)
    told, diff = noting._git(checkout / "pkg")
    assert len(diff) < noting.DIFF_CHARACTERS + 200
    assert diff.splitlines()[-2] == "+x = 1  # a line"
    assert diff.splitlines()[-1].startswith("# cut here: 999,")
    assert told["diff"].endswith("-cut.diff")


def test_the_source_is_equal_if_and_only_if_the_code_is(checkout: Path) -> None:
    code = checkout / "pkg"
    first = noting._source(code)
    (code / "a.pyc").write_text("compiled")
    assert noting._source(code) == first
    (code / "inner" / "b.py").rename(code / "inner" / "c.py")
    renamed = noting._source(code)
    (code / "inner" / "c.py").write_text("two = 3\n")
    assert len({first, renamed, noting._source(code)}) == 3
    assert noting._source(checkout / "nothing here") is None


def test_the_diff_is_kept_once_under_the_name_that_the_manifest_tells(tmp_path: Path) -> None:
    noted = Manifest({"git": {"diff": "mlpspace-1.diff"}}, "the diff")
    for _ in range(2):
        noted.keep_diff(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mlpspace-1.diff": "the diff"}
    Manifest({"git": {"diff": None}}, "").keep_diff(tmp_path / "is not there")
    with pytest.raises(StudyError, match=r"mlpspace-1.diff cannot be written \(No such file"):
        noted.keep_diff(tmp_path / "is not there")


# --- versions, machine, command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told() -> Any:
    return manifest(command="typed", space_id="s", data={"cifar10": "/data"}, seeds={"space": 0, "search": 7}).told


def test_it_is_json(told: Any) -> None:
    assert json.loads(json.dumps(told)) == told
    assert told["seeds"] == {"space": 0, "search": 7}


def test_torch_is_told_as_torch_tells_itself(told: Any) -> None:
    assert told["torch"]["version"] == torch.__version__
    assert told["torch"].get("cuda") == torch.version.cuda
    assert told["torch"]["git"] == torch.version.git_version


def test_the_cpu_is_named_as_measurements_name_it(told: Any) -> None:
    assert describe(torch.device("cpu")).startswith(told["machine"]["cpu"])


def test_all_packages_that_we_depend_on_are_noted() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    needed = re.findall(r'^    "([\w-]+)', text.partition("dependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    assert {"torch", "ray", "pillow"} <= set(needed)
    assert set(needed) <= set(noting.PACKAGES)


def test_noting_it_imports_nothing_heavy() -> None:
    program = (
        "import sys; from mlpspace.manifest import manifest; manifest(command='', space_id='', data={}, seeds={});"
        "print([name for name in ('torch', 'ray', 'optuna', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("script", "gpus", "driver"),
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15'; echo 'NVIDIA A100, 40960 MiB, 550.54.15'",
            ["NVIDIA H100 80GB HBM3, 81559 MiB", "NVIDIA A100, 40960 MiB"],
            "550.54.15",
        ),
        (
            "echo 'Failed to initialize NVML: Unknown Error'; exit 255",
            [],
            "not known: nvidia-smi: Failed to initialize",
        ),
        ("exit 9", [], "not known: nvidia-smi: "),
        ("echo 'No devices were found'", [], None),
    ],
)
def test_gpus_are_told_as_nvidia_smi_tells_them(
    script: str, gpus: list[str], driver: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = noting._gpus()
    assert found["gpus"] == gpus
    assert found["driver"] == driver or (driver and str(found["driver"]).startswith(driver))


def test_settings_that_change_what_is_computed_are_noted_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(noting._SETTINGS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("PGPASSWORD", "secret")
    found = manifest(command="", space_id="", data={}, seeds={}).told
    assert found["environment"] == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("mlpspace search a.yaml", "mlpspace search a.yaml"),
        ("--storage postgresql+psycopg://me:pw@h:5432/db", "--storage postgresql+psycopg://me:***@h:5432/db"),
        ("--storage 'postgresql://me:p@s/s#w@h/db' --seed 1", "--storage 'postgresql://me:***@h/db' --seed 1"),
        ("--storage postgresql://me@h/db", "--storage postgresql://me@h/db"),
        ("'postgresql://h/db?user=me&password=pw&a=b'", "'postgresql://h/db?user=me&password=***&a=b'"),
    ],
)
def test_no_password_is_noted(typed: str, kept: str) -> None:
    assert without_passwords(typed) == kept


def test_facts_are_flat_and_harmless_whatever_the_json_holds() -> None:
    hostile = {"a": {"b": [1, None, {"c": "d"}], "c": None}, "e": "red\x1b[31m\n", "f": True, "g": {}, "h": []}
    assert facts(hostile) == {"a.b": "1, None, {'c': 'd'}", "e": "red\\x1b[31m\\n", "f": "True"}
    assert rows({"git": 5, "packages": "none", "machine": [1], "torch": None}) == {}


# --- what sessions noted ----------------------------------------------------------------------------------------------


def test_what_differs_between_sessions_is_told_with_the_sessions() -> None:
    noted = {
        "1": {"torch": "2.13", "host": "a", "gpus": "one"},
        "2": {"torch": "2.14", "host": "a"},
        "3": {"torch": "2.13", "host": "a"},
    }
    assert alike(noted) == {"host": "a"}
    assert different(noted) == {
        "torch": {"2.13": ["1", "3"], "2.14": ["2"]},
        "gpus": {"one": ["1"], "none": ["2", "3"]},
    }


@pytest.fixture
def study(tmp_path: Path, told: Any) -> Study:
    """Two sessions, the second with another torch on another host; one accuracy each, on other images."""
    study = Study.create(tmp_path / "run1", space_text="task: {}\n", manifest=told)
    second = json.loads(json.dumps(told))
    second["torch"]["version"] = "2.99.0+cu130"
    second["machine"] |= {"host": "elsewhere", "gpus": ["NVIDIA H100, 81559 MiB"], "driver": "550.54"}
    clock = iter(range(1_700_000_000, 1_800_000_000, 60)).__next__
    for number, (command, noted) in enumerate((("mlpspace search a", told), ("mlpspace search b", second))):
        with study.writing(command, total=5, manifest=noted, clock=clock) as writer:
            counts = {"params": 1, "macs": 1, "tokens": 1, "activations": 1}
            writer.begin(an_assignment(number), **counts, origin="sampler")
            found = measured("accuracy", 90.0 + number, rung=0, epochs=6)
            writer.record(an_assignment(number), found.__class__(**{**_fields(found), "data": f"images{number}"}))
            writer.finish(number, "complete")
    return study


def _fields(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def test_sessions_are_read_as_they_were_written_and_know_their_trials(study: Study, told: Any) -> None:
    first, second = study.sessions()
    assert (first.number, first.command, first.total, first.pid) == (1, "mlpspace search a", 5, os.getpid())
    assert first.manifest == told
    assert second.manifest is not None
    assert second.manifest["machine"]["host"] == "elsewhere"
    assert first.seen < second.started
    by = [[session.number for session in (first, second) if session.may_have_trained(t)] for t in study.trials()]
    assert by == [[1], [2]]


def test_the_manifest_command_sets_apart_what_changed(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = mlpspace(capsys, "manifest", study.folder)
    assert (code, err) == (0, "")
    same, _, other = out.partition("DIFFERENT between sessions")
    assert "mlpspace search a" in same
    assert "mlpspace search b" in same
    assert "optuna" in same
    assert f"in 1: {torch.__version__}" in other
    assert "in 2: 2.99.0+cu130" in other
    assert "in 1: none" in other  # GPUs
    assert "NVIDIA H100, 81559 MiB" in other
    assert "images0" in other
    assert "NOT the same images" in other


def test_the_manifest_command_tells_programs(study: Study, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    code, out, _ = mlpspace(capsys, "manifest", study.folder, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["manifest"] == told
    assert [session["number"] for session in found["sessions"]] == [1, 2]
    assert set(found["different"]) == {"torch", "host", "gpus"}
    assert [each["data"] for each in found["datasets"]] == ["images0", "images1"]


def test_a_study_of_an_older_mlpspace_is_shown_with_what_it_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"created": "2026-01-01", "git": {"commit": "a" * 40, "changed": True}, "packages": {"torch": "2.11.0"}}
    study = Study.create(tmp_path / "run1", space_text="", manifest=old)
    with study.writing("mlpspace search a"):
        pass
    _, out, _ = mlpspace(capsys, "manifest", study.folder)
    assert "noted nothing more of 1" in out
    assert "Noted when it was made" in out
    assert "commit aaaaaaaaaaaa, changed" in out
    assert "torch         2.11.0" in out


def test_a_session_whose_manifest_is_none_is_refused_with_a_word(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("[1]", "{oh"):
        with sqlite3.connect(study.database) as connection:
            connection.execute("update session set manifest=? where id=2", (text,))
        connection.close()
        code, _, err = mlpspace(capsys, "manifest", study.folder)
        assert code == 2
        assert "the manifest of session 2 is" in err


def test_the_manifest_command_loads_no_slow_library(study: Study) -> None:
    program = (
        f"import sys; sys.argv = ['mlpspace', 'manifest', {str(study.folder)!r}]\n"
        "from mlpspace import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print([n for n in ('torch', 'ray', 'optuna', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
