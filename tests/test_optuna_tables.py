"""The Optuna half of study.db, read back through Optuna's own public functions."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from hand_made import COUNTS, an_assignment, measured
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mlpspace.errors import StudyError
from mlpspace.ledger import Writer
from mlpspace.optuna_tables import OptunaTables, user_attrs
from mlpspace.study import Study

DISTRIBUTIONS = {
    "layout": CategoricalDistribution(("isotropic", "pyramid")),
    "isotropic/depth": IntDistribution(4, 12),
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
}
POINT = {"layout": "isotropic", "isotropic/depth": 7, "lr": 3e-3}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "run1", space_text="", manifest={})


def opened(study: Study, directions: tuple[str, ...] = ("maximize", "minimize")) -> OptunaTables:
    return OptunaTables(study.database, study_name="run1", directions=directions, metric_names=("accuracy", "params"))


def as_optuna_reads_it(study: Study) -> optuna.Study:
    return optuna.load_study(study_name="run1", storage=f"sqlite:///{study.database}")


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.params, trial.distributions, trial.values, trial.user_attrs


def distributions_of(point: Any) -> dict[str, Any]:
    return {name: DISTRIBUTIONS[name] for name in point}


def test_optuna_reads_what_was_written(study: Study) -> None:
    tables = opened(study)
    tables.begin(0, {}, {}, {"fixed point": "mixer_s16"})
    tables.begin(1, POINT, DISTRIBUTIONS, {"id": "abc"})
    tables.begin(2, POINT, DISTRIBUTIONS)
    tables.finish(0, [91.5, 1000.0])
    tables.finish(2, None, "out of memory")
    read = as_optuna_reads_it(study)
    assert read.metric_names == ["accuracy", "params"]
    assert [direction.name for direction in read.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [facts(trial) for trial in read.trials] == [
        (0, TrialState.COMPLETE, {}, {}, [91.5, 1000.0], {"fixed point": "mixer_s16"}),
        (1, TrialState.RUNNING, POINT, DISTRIBUTIONS, None, {"id": "abc"}),
        (2, TrialState.PRUNED, POINT, DISTRIBUTIONS, None, {"reason": "out of memory"}),
    ]
    assert [trial.number for trial in read.best_trials] == [0]
    assert all(value > 0 for value in read.trials[2].constraints.values())
    assert read.trials[2].constraints


def test_what_we_write_is_what_optuna_would_have_written(study: Study, tmp_path: Path) -> None:
    """The same two trials through Optuna's storage, in another file: every public field agrees."""
    tables = opened(study)
    tables.begin(0, POINT, DISTRIBUTIONS, {"id": "abc"})
    tables.finish(0, [91.5, 1000.0])
    theirs = optuna.create_study(storage=f"sqlite:///{tmp_path}/theirs.db", directions=["maximize", "minimize"])
    theirs.add_trial(
        optuna.create_trial(
            state=TrialState.COMPLETE,
            params=POINT,
            distributions=DISTRIBUTIONS,
            values=[91.5, 1000.0],
            user_attrs={"id": "abc"},
        )
    )
    assert [facts(trial) for trial in as_optuna_reads_it(study).trials] == [facts(trial) for trial in theirs.trials]
    rows = "select number, state, param_name, param_value, distribution_json from trials natural join trial_params"
    values = "select objective, value, value_type from trial_values"
    for query in (rows, values, "select key, value_json from trial_user_attributes"):
        ours = sqlite3.connect(study.database).execute(query).fetchall()
        assert sorted(ours) == sorted(sqlite3.connect(tmp_path / "theirs.db").execute(query).fetchall())


def test_a_sampler_of_optuna_goes_on_from_them(study: Study) -> None:
    tables = opened(study)
    for number in range(15):
        tables.begin(number, POINT, DISTRIBUTIONS)
        tables.finish(number, [float(number), 1.0] if number % 3 else None, "out of memory")
    read = as_optuna_reads_it(study)
    read.sampler = optuna.samplers.TPESampler(seed=0)
    asked = read.ask(DISTRIBUTIONS)
    assert asked.number == 15
    assert asked.params.keys() == POINT.keys()


def test_they_stand_beside_the_ledger_in_one_file(study: Study) -> None:
    opened(study).begin(0, POINT, DISTRIBUTIONS)
    with study.writing("") as writer:
        begin(writer, 0, POINT)
    assert len(study.trials()) == len(as_optuna_reads_it(study).trials) == 1


def test_beginning_a_trial_twice_keeps_one(study: Study) -> None:
    for _ in range(2):
        opened(study).begin(0, POINT, DISTRIBUTIONS)
    assert len(as_optuna_reads_it(study).trials) == 1


def test_nothing_is_said_on_stderr(study: Study, capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    opened(study).close()
    assert capfd.readouterr().err == ""
    assert not [warning for warning in recwarn if "optuna" in str(warning.filename)]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_other_objectives_are_refused(study: Study) -> None:
    opened(study)
    with pytest.raises(StudyError, match="other objectives"):
        opened(study, ("minimize", "minimize"))


def test_a_trial_that_somebody_else_added_is_told(study: Study) -> None:
    tables = opened(study)
    as_optuna_reads_it(study).ask()
    with pytest.raises(StudyError, match="trial 0 of Optuna's tables was not made by mlpspace"):
        tables.begin(0, POINT, DISTRIBUTIONS)
    with pytest.raises(StudyError, match="trial 0 of Optuna's tables was not made by mlpspace"):
        opened(study).reconcile([], distributions_of)


def begin(writer: Writer, number: int, point: dict[str, Any] | None) -> None:
    writer.begin(an_assignment(number), **COUNTS, origin="sampler", point=point)


def test_a_crash_between_the_two_is_made_good(study: Study) -> None:
    """The ledger is written first, so Optuna's tables may lack the last begin or the last end of any trial."""
    tables = opened(study)
    with study.writing("") as writer:
        for number in range(4):
            begin(writer, number, None if number == 3 else POINT)
            writer.record(an_assignment(number), measured("accuracy", 90.0 + number, rung=0, epochs=6))
        writer.finish(0, "complete")
        writer.finish(1, "infeasible", "out of memory")
        writer.finish(3, "complete")
        tables.begin(0, POINT, DISTRIBUTIONS)
        tables.begin(1, POINT, DISTRIBUTIONS)
    tables.close()
    again = opened(study)
    for _ in range(2):  # the second time there is nothing left to do
        again.reconcile(study.trials(), distributions_of)
        read = as_optuna_reads_it(study).trials
        states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE]
        assert [trial.state for trial in read] == states
        assert [trial.values for trial in read] == [[90.0, 1000.0], None, None, [93.0, 1000.0]]
        assert [trial.params for trial in read] == [POINT, POINT, POINT, {}]
        assert read[1].user_attrs["reason"] == "out of memory"
        assert read[2].user_attrs == user_attrs(study.trials()[2])
        assert read[2].datetime_start is not None
        assert read[2].datetime_start.timestamp() == pytest.approx(study.trials()[2].started)
