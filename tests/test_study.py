"""A study on disk: what was written is read, also from another process, also after a kill."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hand_made import COUNTS, an_assignment, measured

from mlpspace import sqlite_file
from mlpspace.address import Address
from mlpspace.errors import StudyError
from mlpspace.measurement import Progress
from mlpspace.study import Study

TESTS = Path(__file__).parent


@pytest.fixture
def study(tmp_path: Path, place: Address | None) -> Study:
    return Study.create(tmp_path / "run1", space_text="task: {classes: 10}\n", manifest={"host": "here"}, address=place)


@pytest.fixture
def in_a_file(tmp_path: Path) -> Study:
    """What only a file can be asked."""
    return Study.create(tmp_path / "run1", space_text="task: {classes: 10}\n", manifest={"host": "here"})


def a_clock(*readings: float) -> Callable[[], float]:
    """Each call gives the next reading; the last for ever."""
    left = list(readings)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def begin(writer, number: int, **other) -> None:  # type: ignore[no-untyped-def]
    writer.begin(an_assignment(number, **other), **COUNTS, origin="sampler", point={"depth": 2})


# --- what was written is read ---------------------------------------------------------------------------------------


def test_a_new_study_holds_its_space_its_manifest_and_no_trials(study: Study) -> None:
    assert study.space_text == "task: {classes: 10}\n"
    assert study.manifest == {"host": "here"}
    assert (study.trials(), study.refused, study.elapsed_seconds, study.last_seen) == ([], {}, 0.0, None)
    assert len(study.frame()) == 0


def test_a_trial_reads_back_as_it_was_written(study: Study, place: Address | None) -> None:
    assignment = an_assignment(0)
    accuracy = measured("accuracy", 91.5, rung=0, epochs=6)
    with study.writing("mlpspace search", clock=a_clock(0.0, 10.0)) as writer:
        writer.begin(assignment, **COUNTS, origin="fixed point", label="mixer_s16 (patch 4)", point=None)
        writer.record(assignment, measured("throughput", 1234.5))
        writer.record_progress(assignment, Progress(phase="training", epoch=1, epochs=6, loss=2.1, accuracy=40.0))
        writer.record_progress(assignment, Progress(phase="training", epoch=2, epochs=6, loss=float("nan")))
        writer.record(assignment, accuracy)
        writer.finish(0, "complete")
    (trial,) = Study(study.folder, address=place).trials()
    assert trial.architecture == assignment.architecture
    assert trial.recipe == assignment.recipe
    assert (trial.params, trial.macs, trial.tokens, trial.activations) == tuple(COUNTS.values())
    assert (trial.origin, trial.label, trial.point) == ("fixed point", "mixer_s16 (patch 4)", None)
    assert (trial.state, trial.reason, trial.seed, trial.attempt) == ("complete", None, 0, 1)
    assert trial.curve == ((1, 2.1, 40.0), (2, None, None))
    assert trial.value("throughput") == 1234.5
    assert trial.value("params") == 1000
    assert trial.value("peak_memory_mb") is None
    record = trial.measurements["accuracy"]
    assert {name: getattr(record, name) for name in accuracy.__dataclass_fields__} == {
        name: getattr(accuracy, name) for name in accuracy.__dataclass_fields__
    }
    assert (record.dataset, record.resolution, record.seed, record.attempt) == ("digits", 32, 0, 1)
    assert study.trial(0) == trial


def test_the_highest_rung_is_the_one_that_counts(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
        writer.record(an_assignment(0), measured("accuracy", 90.0, rung=1, epochs=18))
        writer.record(an_assignment(0), measured("accuracy", 80.0, rung=0, epochs=6))
    (trial,) = study.trials()
    assert trial.value("accuracy") == 90.0
    assert [record.value for record in trial.records] == [80.0, 90.0]


def test_a_second_attempt_goes_on_under_the_same_number(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
        writer.record(an_assignment(0), measured("throughput", 1.0))
        writer.record_progress(an_assignment(0), Progress(phase="training", epoch=5, loss=1.0))
    with study.writing("") as writer:
        begin(writer, 0, attempt=2)
        writer.record(an_assignment(0, attempt=2), measured("throughput", 2.0))
        writer.record_progress(an_assignment(0, attempt=2), Progress(phase="training", epoch=1, loss=3.0))
    (trial,) = study.trials()
    assert (trial.attempt, trial.state, trial.value("throughput")) == (2, "running", 2.0)
    assert trial.curve == ((1, 3.0, None),)


def test_the_same_measurement_twice_counts_once(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
        for _ in range(2):
            writer.record(an_assignment(0), measured("throughput", 7.0))
            writer.record(an_assignment(0), measured("accuracy", 7.0, rung=0, epochs=6))
    assert len(study.trials()[0].records) == 2


def test_a_failure_keeps_its_reason_and_detail(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
        writer.finish(0, "infeasible", "out of memory", "tried to allocate 9 GB")
    (trial,) = study.trials()
    assert (trial.state, trial.reason, trial.detail) == ("infeasible", "out of memory", "tried to allocate 9 GB")
    assert trial.ended is not None


def test_refused_draws_are_counted_apart(study: Study) -> None:
    with study.writing("") as writer:
        writer.refuse("params ..10M")
        writer.refuse("width: non-decreasing", 40)
        writer.refuse("params ..10M", 2)
    assert study.refused == {"width: non-decreasing": 40, "params ..10M": 3}
    assert study.trials() == []


def test_trials_are_counted_by_state_without_those_set_aside(study: Study) -> None:
    assert study.counts == {}
    with study.writing("first") as writer:
        for number, ended in enumerate(("complete", "complete", "infeasible", "stopped", "stopped", None)):
            begin(writer, number)
            if ended is not None:
                reason = {2: "out of memory", 3: "set aside before training", 4: "cannot reach the front"}.get(number)
                writer.finish(number, ended, reason)
    assert study.counts == {"complete": 2, "infeasible": 1, "stopped": 1, "running": 1}


def test_the_time_of_all_sessions_adds_up(study: Study) -> None:
    with study.writing("first", clock=a_clock(100.0, 130.0)) as writer:
        writer.heartbeat()
    with study.writing("second", clock=a_clock(1000.0, 1005.0)) as writer:
        writer.heartbeat()
        assert writer.elapsed_seconds == 35.0
    assert study.elapsed_seconds == 35.0
    assert study.last_seen == 1005.0


def test_two_trials_of_one_architecture_share_its_row(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0, width=64)
        begin(writer, 1, width=64)
    assert study.storage.read(
        lambda connection: connection.execute(sa.text("select count(*) from architecture")).all()
    ) == [(1,)]
    assert len(study.trials()) == 2


def test_a_frame_has_a_row_a_trial_with_units_in_its_names(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
        begin(writer, 1)
        writer.record(an_assignment(1), measured("throughput", 1234.5))
        writer.record(an_assignment(1), measured("accuracy", 91.0, rung=0, epochs=6))
    frame = study.frame()
    assert list(frame.index) == [0, 1]
    assert frame.loc[1, "throughput_images_per_s"] == 1234.5
    assert frame.loc[1, ["accuracy_percent", "accuracy_percent_low", "accuracy_percent_high"]].tolist() == [91, 90, 92]
    assert frame["accuracy_percent"].isna().tolist() == [True, False]
    assert frame["point.depth"].tolist() == [2, 2]


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_a_missing_study_names_those_that_are_there(study: Study) -> None:
    Study.create(study.folder.parent / "run2", space_text="", manifest={})
    with pytest.raises(StudyError, match=r"no study at .*run3\. Studies here: .*run1, .*run2\."):
        Study(study.folder.parent / "run3")
    assert not (study.folder.parent / "run3").exists()


def test_the_folder_of_the_studies_is_no_study_but_names_them(study: Study) -> None:
    with pytest.raises(StudyError, match=r"Studies here: .*run1"):
        Study(study.folder.parent)


def test_where_there_is_no_study_at_all_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"no study at studies/run1.*\n.*mlpspace search"):
        Study("studies/run1")


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to have a header" * 50])
def test_a_file_that_is_no_study_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "study.db"
    database.write_bytes(content)
    with pytest.raises(StudyError, match=r"is not a study database.*left as it is"):
        Study(tmp_path)
    assert database.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("create table trial (name)")
    connection.close()
    with pytest.raises(StudyError, match="is not a study database"):
        Study(tmp_path)


def test_a_damaged_study_is_told_apart_from_a_bug(in_a_file: Study) -> None:
    study = in_a_file
    with study.writing("") as writer:
        for number in range(50):
            begin(writer, number)
    content = bytearray(study.database.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    study.database.write_bytes(content)
    with pytest.raises(StudyError, match=r"damaged \(.*left as it is"):
        Study(study.folder).trials()


def test_a_study_of_a_newer_mlpspace_is_refused(in_a_file: Study) -> None:
    study = in_a_file
    connection = sqlite3.connect(study.database)
    connection.execute("pragma user_version=99")
    connection.close()
    for use in (lambda: Study(study.folder), lambda: study.writing("").__enter__()):
        with pytest.raises(StudyError, match=r"newer mlpspace \(its tables are version 99.*\n.*pip install --upgrade"):
            use()


def test_a_folder_that_holds_something_is_not_made_a_study(tmp_path: Path, study: Study) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match=r"notes already holds thesis\.tex"):
        Study.create(tmp_path / "notes", space_text="", manifest={})
    with pytest.raises(StudyError, match=r"run1 already holds"):
        Study.create(study.folder, space_text="", manifest={})
    with pytest.raises(StudyError, match="cannot be made"):
        Study.create(tmp_path / "notes" / "thesis.tex", space_text="", manifest={})


def test_a_study_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run1"
    folder.mkdir()
    (folder / "space.yaml").write_text("half a fi")
    (folder / "study.db.new").write_text("SQLi")
    assert Study.create(folder, space_text="whole", manifest={}).space_text == "whole"


def test_an_unknown_trial_is_told_with_the_known_ones(study: Study) -> None:
    with pytest.raises(StudyError, match=r"no trial 7 in .*it has none yet"):
        study.trial(7)
    with study.writing("") as writer:
        begin(writer, 0)
        begin(writer, 1)
    with pytest.raises(StudyError, match="it has 0 to 1"):
        study.trial(7)


# --- one writer, many readers ---------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_with_the_name_of_the_first(study: Study) -> None:
    with study.writing(""), pytest.raises(StudyError, match=f"pid {os.getpid()} on {socket.gethostname()}"):
        study.writing("").__enter__()
    with study.writing(""):
        pass


def test_reading_a_study_at_rest_leaves_no_trace(in_a_file: Study) -> None:
    study = in_a_file
    with study.writing("") as writer:
        begin(writer, 0)
    before = {path.name: path.stat().st_mtime_ns for path in study.folder.iterdir()}
    Study(study.folder).trials()
    assert {path.name: path.stat().st_mtime_ns for path in study.folder.iterdir()} == before


def test_readers_see_a_trial_as_soon_as_it_is_written(study: Study, place: Address | None) -> None:
    reader = Study(study.folder, address=place)
    with study.writing("") as writer:
        for number in range(3):
            begin(writer, number)
            assert len(reader.trials()) == number + 1
    assert len(reader.trials()) == 3


AS_NOBODY = """
import os, sys
from mlpspace.study import Study

Study(sys.argv[1]).trials()  # loads all modules: nobody may not be allowed to
os.setuid(65534)
print(len(Study(sys.argv[1]).trials()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to read as somebody who may not write")
@pytest.mark.parametrize("at_work", [False, True])
def test_a_study_can_be_read_by_who_may_not_write_to_it(at_work: bool) -> None:
    folder = Path("/tmp") / f"mlpspace-read-only-{os.getpid()}"  # pytest's own folders are closed to others
    study = Study.create(folder, space_text="", manifest={})
    try:
        with study.writing("") as writer:
            begin(writer, 0)
            if at_work:
                done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True)
        if not at_work:
            done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True)
        assert done.stdout == "1\n", done.stderr
    finally:
        shutil.rmtree(folder)


WRITER = """
import sys
from hand_made import COUNTS, an_assignment, measured
from mlpspace.study import Study

with Study(sys.argv[1]).writing("writer") as writer:
    first = int(sys.argv[2])
    for number in range(first, first + int(sys.argv[3])):
        assignment = an_assignment(number)
        writer.begin(assignment, **COUNTS, origin="sampler", point={"depth": 2})
        writer.record(assignment, measured("throughput", 1.0 + number % 90))
        writer.record(assignment, measured("accuracy", 1.0 + number % 90, rung=0, epochs=6))
        writer.finish(number, "complete")
        print(number, flush=True)
"""


def writing_process(study: Study, first: int, trials: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(study.folder), str(first), str(trials)]
    address = getattr(study.storage, "address", None)
    password = {} if address is None else {"PGPASSWORD": address.password}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS, env={**os.environ, **password})


def whole(study: Study) -> Iterator[int]:
    """The numbers of the complete trials; each has both of its measurements."""
    for trial in study.trials():
        if trial.state == "complete":
            assert trial.value("throughput") == trial.value("accuracy") == 1 + trial.number % 90
            yield trial.number


def test_a_reader_beside_a_writer_sees_whole_trials_and_ever_more(study: Study, place: Address | None) -> None:
    process = writing_process(study, 0, 100)
    seen = 0
    looks = 0
    while process.poll() is None:
        numbers = list(whole(Study(study.folder, address=place)))
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= seen
        seen = len(numbers)
        looks += 1
    assert process.returncode == 0
    assert looks > 3
    assert len(list(whole(study))) == 100


def test_a_killed_writer_loses_nothing_that_it_had_told_and_leaves_no_lock(study: Study, place: Address | None) -> None:
    rng = random.Random(0)
    first = 0
    for _ in range(4):
        process = writing_process(study, first, 100_000)
        assert process.stdout is not None
        told = [int(process.stdout.readline())]
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        told += [int(line) for line in process.stdout]
        process.wait()
        assert told == list(range(first, first + len(told)))
        complete = list(whole(Study(study.folder, address=place)))
        assert complete[: told[-1] + 1] == list(range(told[-1] + 1))
        with study.writing("") as writer:
            for trial in study.trials():
                if trial.state == "running":
                    for metric, at in (("throughput", {}), ("accuracy", {"rung": 0, "epochs": 6})):
                        value = 1.0 + trial.number % 90
                        writer.record(an_assignment(trial.number), measured(metric, value, **at))
                    writer.finish(trial.number, "complete")
        first = len(study.trials())
    if place is None:
        check = sqlite3.connect(study.database).execute("pragma integrity_check").fetchone()
        assert check == ("ok",)


def test_a_record_of_a_trial_that_was_never_begun_is_our_bug(study: Study) -> None:
    with study.writing("") as writer:
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            writer.record(an_assignment(5), measured("throughput", 1.0))
        with pytest.raises(AssertionError, match="never begun"):
            writer.finish(5, "complete")


def test_a_study_that_cannot_be_written_to_says_so(in_a_file: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study = in_a_file
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.001)
    with study.writing("") as writer:
        begin(writer, 0)
        other = sqlite3.connect(study.database, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(StudyError, match=r"cannot be written to \(database is locked\)"):
            begin(writer, 1)
        other.execute("rollback")
        begin(writer, 1)
    assert [trial.number for trial in study.trials()] == [0, 1]


def test_a_trial_is_a_frozen_value(study: Study) -> None:
    with study.writing("") as writer:
        begin(writer, 0)
    (trial,) = study.trials()
    with pytest.raises(AttributeError):
        trial.state = "complete"  # type: ignore[misc]
    assert replace(trial, state="complete").architecture is not None
