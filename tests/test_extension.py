"""A study that goes on in a wider space."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import mlpspace
from stubs import SPACE, Session, evaluate

from mlpspace import driver, extension
from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.space import read_space
from mlpspace.study import Study

WIDER = (
    SPACE.replace("depth: 1..4", "depth: 1..6")
    .replace("patch: [4, 8]", "patch: [2, 4, 8]")
    .replace("linear: {}", "linear: {}, axial: {local: [0, 3], fusion: sum}")
    .replace("..4M", "..8M")
    .replace("heads: [1, 3]", "heads: [1, 2, 3]")
    .replace("trials: 12", "trials: 20")
)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = tmp_path / "run1"
    with Session(folder, sampler="random") as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    return Study(folder)


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(search, *_):
        inline.run(search, device="cpu", evaluate=evaluate)

    monkeypatch.setattr(driver, "_engine", engine)


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wider.yaml"
    path.write_text(text)
    return path


def extend(capsys, tmp_path, study, text, *more):
    return mlpspace(capsys, "search", file(tmp_path, text), "--study", study.folder, "--extend", "--plain", *more)


def measured(study: Study) -> dict[str, tuple]:
    return {trial.architecture_id: tuple(trial.records) for trial in study.trials()}


def test_all_that_was_measured_stays_and_the_search_goes_on_in_the_wider_space(capsys, tmp_path, study):
    before = measured(study)
    code, _, err = extend(capsys, tmp_path, study, WIDER, "--sampler", "random", "--trials", "40")
    assert code == 0, err
    after = Study(study.folder)
    assert len(after.trials()) == 40
    assert {id_: records for id_, records in measured(after).items() if id_ in before} == before
    space = read_space(WIDER)
    assert sum(trial.point is not None for trial in after.trials()) >= 38  # but for published ones that lie outside
    for trial in after.trials():
        assert trial.point is None or space.decode(trial.point).id == trial.architecture_id
    depths = {trial.architecture.stages[0].depth for trial in after.trials()[12:]}
    assert max(depths) > 4  # what the old space did not hold
    assert len({(trial.architecture_id, trial.recipe_json) for trial in after.trials()}) == 40


def test_optunas_tables_are_those_of_the_wider_space(capsys, tmp_path, study):
    import optuna

    extend(capsys, tmp_path, study, WIDER, "--sampler", "random")
    storage = optuna.storages.RDBStorage(f"sqlite:///{study.folder / 'study.db'}")
    (summary,) = storage.get_all_studies()
    trials = storage.get_all_trials(summary._study_id)
    assert [trial.number for trial in trials] == list(range(20))
    assert {trial.distributions["isotropic.patch"].choices for trial in trials if trial.params} == {(2, 4, 8)}


def test_the_space_before_is_kept_beside_the_new_one(capsys, tmp_path, study):
    old = read_space(study.space_text)
    extend(capsys, tmp_path, study, WIDER, "--sampler", "random")
    assert Study(study.folder).space_text == WIDER
    assert (study.folder / f"space-{old.id}.yaml").read_text() == SPACE
    assert not (study.folder / extension.MARK).exists()


def test_a_changed_file_is_refused_line_by_line_with_what_to_type(capsys, tmp_path, study):
    path = file(tmp_path, WIDER)
    code, _, err = mlpspace(capsys, "search", path, "--study", study.folder)
    assert code == 2
    assert f"{study.folder} was searched with another space:" in err
    assert "isotropic.depth was 1..4, is 1..6" in err
    assert f"mlpspace search {study.folder}/space.yaml --study {study.folder}\n" in err
    assert f"mlpspace search {path} --study {study.folder} --extend\n" in err
    assert Study(study.folder).space_text == SPACE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SPACE.replace("epochs: 2", "epochs: 3"), "fidelity.epochs was 2, is 3: old measurements would not compare"),
        (SPACE.replace("resolution: 32", "resolution: 64"), "task.resolution was 32, is 64"),
        (SPACE.replace("worst: 100", "worst: 10"), "objectives.throughput was maximize, worst 100, log"),
        (SPACE.replace("width: 16..64", "width: 32..64"), "lies outside"),
        (SPACE.replace("macs: ..4M", "macs: ..100k"), "it breaks a requirement, macs"),
    ],
)
def test_what_is_no_wider_is_refused_and_nothing_is_changed(capsys, tmp_path, study, text, complaint):
    database = (study.folder / "study.db").read_bytes()
    code, _, err = extend(capsys, tmp_path, study, text)
    assert code == 2
    assert complaint in err
    assert "To start anew:" in err
    assert (study.folder / "study.db").read_bytes() == database
    assert study.space_text == SPACE
    _, _, err = mlpspace(capsys, "search", file(tmp_path, text), "--study", study.folder)
    assert "--extend" not in err


def test_extend_needs_the_study_that_is_meant(capsys, tmp_path):
    code, _, err = mlpspace(capsys, "search", file(tmp_path, WIDER), "--extend")
    assert code == 2
    assert "--study FOLDER" in err


@pytest.mark.parametrize("place", ["translate", "is_unfinished", "finish"])
def test_an_extension_that_was_cut_off_is_finished_by_the_next_search(capsys, tmp_path, study, monkeypatch, place):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(extension, place, killed)
        with pytest.raises(Killed):
            extend(capsys, tmp_path, study, WIDER, "--sampler", "random")
    again = file(tmp_path, WIDER)
    code, _, err = mlpspace(capsys, "search", again, "--study", study.folder, "--sampler", "random", "--plain")
    assert code == 0, err
    space = read_space(WIDER)
    after = Study(study.folder)
    assert len(after.trials()) == 20
    for trial in after.trials():
        assert trial.point is None or space.decode(trial.point).id == trial.architecture_id


def test_a_reader_of_a_study_that_is_being_extended_is_not_harmed(study):
    extension.begin(study, read_space(WIDER))
    assert len(Study(study.folder).trials()) == 12
    with pytest.raises(StudyError, match="does not widen"):
        extension.check(study, read_space(WIDER), read_space(SPACE.replace("patch: [4, 8]", "patch: 16")))
