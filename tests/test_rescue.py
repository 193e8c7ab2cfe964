"""What is saved of a study whose database is damaged: files cut off, pages overwritten, bytes changed."""

from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from commands import mlpspace
from hand_made import COUNTS, an_assignment
from stubs import SPACE, Session, evaluate

from mlpspace import ledger_tables
from mlpspace.address import FILE
from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.fingerprint import Fingerprint
from mlpspace.measurement import Assignment, Event, Measurement
from mlpspace.rescue import Rescued, rescue, text
from mlpspace.study import Study
from mlpspace.trial import Trial

PAGE = 4096
TRIALS = 40
RUNGS = SPACE.replace("epochs: 2}", "rungs: {epochs: [1, 2], keep: 1/2}}")

Key = tuple[str, str]


def timed(assignment: Assignment, bounds: object) -> Iterator[Event]:
    """On two machines, in turns."""
    circumstances = Fingerprint(
        kind="cpu", name=f"machine {assignment.trial % 2}", torch="2.13.0", libraries=(), threads=2
    )
    for event in evaluate(assignment, bounds):
        is_timed = isinstance(event, Measurement) and event.metric == "throughput"
        yield dataclasses.replace(event, fingerprint=circumstances.to_json()) if is_timed else event


def search(folder: Path, trials: int, text: str = SPACE) -> None:
    with Session(folder, text=text, sampler="random", trials=trials) as session:
        inline.run(session, device="cpu", evaluate=timed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run1"
    search(folder, TRIALS)
    return folder


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run1"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_key(folder: Path) -> dict[Key, Trial]:
    trials = {(trial.architecture_id, trial.recipe_json): trial for trial in Study(folder).trials()}
    assert len(trials) == len(Study(folder).trials())
    return trials


def ledger(folder: Path) -> dict[str, list]:
    """All rows of our tables."""
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        tables = ledger_tables.tables.tables
        return {name: sorted(connection.execute(f"select * from {name}"), key=repr) for name in tables}


def saved(study: Path) -> Rescued | None:
    """What comes of a rescue, which takes nothing away, and makes either a whole study or nothing."""
    before, to = content(study), study.with_name("run1-rescued")
    beside = {path.name for path in study.parent.iterdir()}
    try:
        rescued = rescue(study, to)
    except StudyError:
        rescued = None
    assert content(study) == before
    made = {path.name for path in study.parent.iterdir()} - beside
    assert made == (set() if rescued is None else {to.name})
    if rescued is not None:
        with closing(sqlite3.connect(to / "study.db")) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert connection.execute("pragma foreign_key_check").fetchall() == []
        trials = Study(to).trials()
        assert [trial.number for trial in trials] == list(range(rescued.trials))
        assert rescued.known >= rescued.trials
    return rescued


def assert_a_part(part: Path, whole: Path) -> None:
    """Whatever stands in one stands in the other."""
    theirs = by_key(whole)
    for key, trial in by_key(part).items():
        assert set(trial.records) <= set(theirs[key].records)
        assert set(trial.curve) <= set(theirs[key].curve)
        assert trial.point == theirs[key].point
        assert (trial.params, trial.macs, trial.seed) == (theirs[key].params, theirs[key].macs, theirs[key].seed)
        assert trial.state in (theirs[key].state, "running")


def test_of_a_healthy_study_all_is_there(study: Path) -> None:
    rescued = saved(study)
    assert rescued is not None
    assert (rescued.trials, rescued.known, rescued.left_out, rescued.again) == (TRIALS, TRIALS, 0, 0)
    assert ledger(rescued.folder) == ledger(study)
    assert len(ledger(study)["fingerprint"]) == 2
    assert rescued.nameless == 0
    ours, theirs = content(study), content(rescued.folder)
    assert {name for name in ours if name.startswith("weights/")}
    for name in ours.keys() - {"study.db", "lock"}:
        assert theirs[name] == ours[name]


def test_what_only_the_log_of_a_killed_writer_holds_is_there_too(study: Path, tmp_path: Path) -> None:
    copied = tmp_path / "killed"
    with Study(study).writing("") as writer:
        writer.begin(an_assignment(TRIALS), **COUNTS, origin="fixed point")  # type: ignore[arg-type]
        assert (study / "study.db-wal").stat().st_size
        shutil.copytree(study, copied)
    (copied / "study.db-shm").unlink()
    (copied / "lock").unlink()
    rescued = rescue(copied, tmp_path / "saved")
    assert rescued is not None
    assert rescued.trials == TRIALS + 1


@pytest.mark.parametrize("size", [0, 100, 5000, 20_000, 90_000, 0.5, 0.7, 0.9, 0.99])
def test_of_a_file_that_was_cut_off_what_is_saved_was_there(study: Path, whole: Path, size: float) -> None:
    data = (study / "study.db").read_bytes()
    (study / "study.db").write_bytes(data[: int(size if size > 1 or not size else size * len(data))])
    rescued = saved(study)
    if rescued is not None:
        assert_a_part(rescued.folder, whole)
        search(rescued.folder, rescued.trials + 3)
    if size >= 0.9 and size < 1:
        assert rescued is not None
        assert rescued.trials >= 0.7 * TRIALS


def noise(rng: random.Random, data: bytes, page: int) -> bytes:
    return rng.randbytes(PAGE)


def zeros(rng: random.Random, data: bytes, page: int) -> bytes:
    return bytes(PAGE)


def another(rng: random.Random, data: bytes, page: int) -> bytes:
    other = rng.randrange(len(data) // PAGE)
    return data[other * PAGE : (other + 1) * PAGE]


def assert_most_survive(study: Path, whole: Path, pages: range, kind: Callable[..., bytes]) -> None:
    """Of 40 trials at least 30 are there, whichever page is gone: the schema, a root, a leaf."""
    rng = random.Random(0)
    data = (study / "study.db").read_bytes()
    for page in pages:
        (study / "study.db").write_bytes(
            data[: page * PAGE] + kind(rng, data, page) + data[(page + 1) * PAGE :],
        )
        rescued = saved(study)
        assert rescued is not None, page
        assert rescued.trials >= 30, page
        assert rescued.known == TRIALS, page
        assert_a_part(rescued.folder, whole)
        shutil.rmtree(rescued.folder)


@pytest.mark.parametrize("kind", [noise, zeros, another])
def test_with_one_page_overwritten_three_quarters_of_the_trials_are_saved_at_least(
    study: Path, whole: Path, kind: Callable[..., bytes]
) -> None:
    pages = (study / "study.db").stat().st_size // PAGE
    assert pages > 60
    assert_most_survive(study, whole, range({noise: 0, zeros: 1, another: 2}[kind], pages, 7), kind)


@pytest.mark.chaos
def test_that_holds_for_every_page(study: Path, whole: Path) -> None:
    assert_most_survive(study, whole, range((study / "study.db").stat().st_size // PAGE), noise)


@pytest.mark.parametrize("seed", range(10))
def test_whichever_bytes_are_changed_a_search_goes_on_from_what_is_saved(study: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray((study / "study.db").read_bytes())
    for _ in range(rng.choice((1, 30, 300))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    (study / "study.db").write_bytes(data)
    rescued = saved(study)
    if rescued is not None:
        search(rescued.folder, rescued.trials + 2)
        trials = Study(rescued.folder).trials()
        assert len(trials) >= rescued.trials + 2
        assert not [trial for trial in trials if trial.state == "running"]


def pages_of(file: Path, name: str) -> list[int]:
    """Pages of a table, counted from 0, the root first."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            query = "select pageno from dbstat where name = ? order by path"
            return [page - 1 for (page,) in connection.execute(query, (name,))]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite does not tell the pages of a table (dbstat)")


def spoil(file: Path, page: int) -> None:
    data = bytearray(file.read_bytes())
    data[page * PAGE : (page + 1) * PAGE] = b"\xff" * PAGE
    file.write_bytes(data)


def test_lost_trials_leave_no_holes_and_states_of_trainings_follow_their_trials(tmp_path: Path) -> None:
    folder = tmp_path / "run1"
    search(folder, TRIALS, RUNGS)
    for trial in (0, TRIALS - 1):  # as a session leaves them that was cut off
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / f"{trial}-repeat2-epoch1-1a2b3c4d.pt").write_bytes(b"state")
    before = by_key(folder)
    held = {path.name.partition("-")[0]: path.read_bytes() for path in (folder / "weights").iterdir()}
    shutil.copytree(folder, tmp_path / "whole")
    spoil(folder / "study.db", pages_of(folder / "study.db", "trial")[1])
    rescued = saved(folder)
    assert rescued is not None
    assert rescued.renumbered
    assert 0 < rescued.trials < rescued.known == TRIALS
    assert_a_part(rescued.folder, tmp_path / "whole")
    after = by_key(rescued.folder)
    assert [before[key].number for key in after] == sorted(before[key].number for key in after)
    for path in (rescued.folder / "weights").iterdir():
        key = next(key for key, trial in after.items() if trial.number == int(path.name.partition("-")[0]))
        assert path.read_bytes() == held[str(before[key].number)]
    kept = [path.name for path in (rescued.folder / "checkpoints").iterdir()]
    assert f"{rescued.trials - 1}-repeat2-epoch1-1a2b3c4d.pt" in kept
    search(rescued.folder, TRIALS, RUNGS)
    assert len(Study(rescued.folder).trials()) == TRIALS


def test_an_architecture_that_is_lost_is_made_again_from_the_point_that_was_drawn(study: Path, whole: Path) -> None:
    for page in pages_of(study / "study.db", "architecture"):
        spoil(study / "study.db", page)
    rescued = saved(study)
    assert rescued is not None
    drawn = {key: trial for key, trial in by_key(whole).items() if trial.point is not None}
    found = by_key(rescued.folder)
    assert found.keys() == drawn.keys()
    for key, trial in found.items():
        assert (trial.params, trial.macs, trial.tokens, trial.activations) == (
            *(drawn[key].params, drawn[key].macs),
            *(drawn[key].tokens, drawn[key].activations),
        )


def test_a_trial_whose_measurements_are_lost_is_measured_again(study: Path, whole: Path) -> None:
    for page in pages_of(study / "study.db", "measurement"):
        spoil(study / "study.db", page)
    rescued = saved(study)
    assert rescued is not None
    assert (rescued.trials, rescued.measurements, rescued.again) == (TRIALS, 0, TRIALS)
    search(rescued.folder, TRIALS)
    theirs = by_key(whole)
    for key, trial in by_key(rescued.folder).items():
        assert trial.state == "complete"
        assert trial.value("accuracy") == theirs[key].value("accuracy")


def test_circumstances_that_are_lost_are_told_and_are_there_again_once_a_search_meets_them(
    study: Path, whole: Path
) -> None:
    """A row goes on saying which others were measured under the same."""
    for page in pages_of(study / "study.db", "fingerprint"):
        spoil(study / "study.db", page)
    rescued = saved(study)
    assert rescued is not None
    assert (rescued.trials, rescued.measurements, rescued.again) == (TRIALS, 3 * TRIALS, 0)
    assert rescued.nameless == TRIALS
    assert f"The clocks, driver and libraries under which {TRIALS} measurements were made are lost." in text(
        study, rescued
    )
    assert ledger(rescued.folder)["fingerprint"] == []
    assert ledger(rescued.folder)["measurement"] == ledger(whole)["measurement"]
    search(rescued.folder, TRIALS + 2)
    assert ledger(rescued.folder)["fingerprint"] == ledger(whole)["fingerprint"]


def test_circumstances_that_are_not_what_their_content_id_says_are_not_saved(study: Path) -> None:
    with closing(sqlite3.connect(study / "study.db")) as connection:
        connection.execute(
            "update fingerprint set json = replace(json, '2.13.0', '2.19.0') where json like '%machine 1%'"
        )
        connection.execute("update fingerprint set json = '[]' where json like '%machine 0%'")
        connection.commit()
    rescued = saved(study)
    assert rescued is not None
    assert (rescued.left_out, rescued.nameless) == (2, TRIALS)


def test_a_row_that_is_there_twice_counts_once(study: Path) -> None:
    data = (study / "study.db").read_bytes()
    first, *leaves = pages_of(study / "study.db", "measurement")
    page = bytearray(data[leaves[0] * PAGE : (leaves[0] + 1) * PAGE])
    spoil(study / "study.db", first)  # so that each leaf is read by itself
    with open(study / "study.db", "ab") as file:
        file.write(page)
    rescued = saved(study)
    assert rescued is not None
    assert rescued.measurements == 3 * TRIALS


def test_columns_that_came_later_stand_last_in_their_tables() -> None:
    """A file of an older version gets them at the end (ALTER TABLE), and rows are read by place."""
    for later in ledger_tables._NEW.values():
        for column in later:
            behind = list(column.table.columns)[list(column.table.columns).index(column) :]
            assert all(any(each in columns for columns in ledger_tables._NEW.values()) for each in behind)


def test_a_study_of_the_first_version_is_saved_in_the_tables_of_now(study: Path) -> None:
    with closing(sqlite3.connect(study / "study.db")) as connection:
        connection.execute("drop index measurement_once")
        connection.execute("drop table fingerprint")
        for column in (column for columns in ledger_tables._NEW.values() for column in columns):
            connection.execute(f"alter table {column.table.name} drop column {column.name}")
        connection.execute("pragma user_version=1")
        connection.commit()
        expected = dict(connection.execute("select number, ended - started from trial"))
    rescued = saved(study)
    assert rescued is not None
    assert {trial.number: trial.seconds for trial in Study(rescued.folder).trials()} == pytest.approx(expected)


def test_it_tells_what_was_saved_and_what_to_type(capsys, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    code, out, _ = mlpspace(capsys, "rescue", "run1")
    assert code == 0
    assert out.splitlines() == [
        "40 trials, 120 measurements and 80 epochs of run1 could be read; they are in run1-rescued.",
        "  To go on: mlpspace search run1-rescued/space.yaml --study run1-rescued",
        "  To see them: mlpspace pareto run1-rescued",
    ]
    code, _, err = mlpspace(capsys, "rescue", "run1")
    assert code == 2
    assert "run1-rescued is there already. Give another folder: --to FOLDER" in err
    spoil(study / "study.db", pages_of(study / "study.db", "trial")[1])
    code, out, _ = mlpspace(capsys, "rescue", "run1", "--to", "some where")
    assert code == 0
    first, second, *_ = out.splitlines()
    lost = TRIALS - int(first.split()[0])
    assert first.split()[1:4] == ["of", "40", "trials,"]
    assert second in (
        f"{lost} trials are lost; the others are numbered anew from 0.",
        f"{lost} trials are lost.",
    )
    assert "mlpspace search 'some where/space.yaml' --study 'some where'" in out


def test_where_nothing_can_be_read_that_is_said_and_nothing_is_made(capsys, study: Path) -> None:
    (study / "study.db").write_bytes(b"\xff" * 100_000)
    code, _, err = mlpspace(capsys, "rescue", study)
    assert code == 1
    assert "can be read" in err
    assert not study.with_name("run1-rescued").exists()


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "no study at"),
        (lambda folder: (folder / "space.yaml").unlink(), r"space\.yaml cannot be read"),
        (lambda folder: (folder / FILE).write_text("{}"), "on a server"),
        (lambda folder: (folder / "notes").symlink_to("/etc"), "is a link to"),
    ],
    ids=["no study", "no space", "server", "link"],
)
def test_what_it_is_not_for_is_refused_with_a_word(study: Path, spoiled: Callable[[Path], None], says: str) -> None:
    spoiled(study)
    with pytest.raises(StudyError, match=says):
        rescue(study, study.with_name("run1-rescued"))
    assert not study.with_name("run1-rescued").exists()


def test_a_study_that_is_being_searched_and_a_place_within_it_are_refused(study: Path) -> None:
    with Study(study).writing(""), pytest.raises(StudyError, match="is being searched by pid"):
        rescue(study, study.with_name("run1-rescued"))
    with pytest.raises(StudyError, match="lies in"):
        rescue(study, study / "saved")
