"""The Optuna half of study.db, read back through Optuna's own public functions."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from hand_made import COUNTS, an_assignment, measured
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mlpspace.address import Address
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
def study(tmp_path: Path, place: Address | None) -> Study:
    return Study.create(tmp_path / "run1", space_text="", manifest={}, address=place)


def opened(study: Study, directions: tuple[str, ...] = ("maximize", "minimize")) -> OptunaTables:
    return OptunaTables(
        study.storage,
        study_name="run1",
        directions=directions,
        metric_names=("accuracy", "params"),
        distributions_of=lambda point: {name: DISTRIBUTIONS[name] for name in point},
    )


def as_optuna_reads_it(study: Study) -> optuna.Study:
    return optuna.load_study(study_name="run1", storage=optuna.storages.RDBStorage(**study.storage.for_optuna()))


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.params, trial.distributions, trial.values, trial.user_attrs


def test_optuna_reads_what_was_written(study: Study) -> None:
    tables = opened(study)
    tables.begin(0, {}, {"fixed point": "mixer_s16"})
    tables.begin(1, POINT, {"id": "abc"})
    tables.begin(2, POINT)
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
    tables.begin(0, POINT, {"id": "abc"})
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
        ours = study.storage.read(lambda connection, query=query: connection.execute(sa.text(query)).tuples().all())
        assert sorted(ours) == sorted(sqlite3.connect(tmp_path / "theirs.db").execute(query).fetchall())


def test_a_sampler_of_optuna_goes_on_from_them(study: Study) -> None:
    tables = opened(study)
    for number in range(15):
        tables.begin(number, POINT)
        tables.finish(number, [float(number), 1.0] if number % 3 else None, "out of memory")
    read = as_optuna_reads_it(study)
    read.sampler = optuna.samplers.TPESampler(seed=0)
    asked = read.ask(DISTRIBUTIONS)
    assert asked.number == 15
    assert asked.params.keys() == POINT.keys()


def test_they_stand_beside_the_ledger_in_one_file(study: Study) -> None:
    opened(study).begin(0, POINT)
    with study.writing("") as writer:
        begin(writer, 0, POINT)
    assert len(study.trials()) == len(as_optuna_reads_it(study).trials) == 1


def test_beginning_a_trial_twice_keeps_one(study: Study) -> None:
    for _ in range(2):
        opened(study).begin(0, POINT)
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
        tables.begin(0, POINT)
    with pytest.raises(StudyError, match="trial 0 of Optuna's tables was not made by mlpspace"):
        opened(study).reconcile([])


def begin(writer: Writer, number: int, point: dict[str, Any] | None) -> None:
    writer.begin(an_assignment(number), **COUNTS, origin="sampler", point=point)  # type: ignore[arg-type]


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
        tables.begin(0, POINT)
        tables.begin(1, POINT)
    tables.close()
    again = opened(study)
    for _ in range(2):  # the second time there is nothing left to do
        again.reconcile(study.trials())
        read = as_optuna_reads_it(study).trials
        states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE]
        assert [trial.state for trial in read] == states
        assert [trial.values for trial in read] == [[90.0, 1000.0], None, None, [93.0, 1000.0]]
        assert [trial.params for trial in read] == [POINT, POINT, POINT, {}]
        assert read[1].user_attrs["reason"] == "out of memory"
        assert read[2].user_attrs == user_attrs(study.trials()[2])
        assert read[2].datetime_start is not None
        assert read[2].datetime_start.timestamp() == pytest.approx(study.trials()[2].started)


def written(study: Study, *path: tuple[Any, ...]) -> FrozenTrial:
    """One trial after the calls in `path`: (method, arguments after the number)."""
    tables = opened(study)
    tables.begin(0, POINT)
    for method, *arguments in path:
        getattr(tables, method)(0, *arguments)
    tables.close()
    (trial,) = as_optuna_reads_it(study).trials
    return trial


def test_a_paused_trial_is_pruned_and_broke_no_constraint(study: Study) -> None:
    trial = written(study, ("pause", "paused at rung 0, 2 epochs"))
    assert (trial.state, trial.values) == (TrialState.PRUNED, None)
    assert trial.user_attrs == {"reason": "paused at rung 0, 2 epochs"}
    assert trial.constraints == {}
    assert trial.datetime_complete is not None


def test_a_trial_that_goes_on_runs_again_and_ends_complete(study: Study) -> None:
    trial = written(study, ("pause", "paused at rung 0, 2 epochs"), ("resume",))
    assert (trial.state, trial.user_attrs, trial.datetime_complete) == (TrialState.RUNNING, {}, None)
    tables = opened(study)
    tables.pause(0, "paused at rung 1, 6 epochs")
    tables.resume(0)
    tables.finish(0, [91.0, 1000.0])
    (trial,) = as_optuna_reads_it(study).trials
    assert (trial.state, trial.values, trial.user_attrs) == (TrialState.COMPLETE, [91.0, 1000.0], {})


def test_a_paused_trial_may_be_stopped_and_one_that_went_on_may_fail(study: Study) -> None:
    trial = written(study, ("pause", "paused at rung 0, 2 epochs"), ("pause", "cannot reach the front"))
    assert (trial.state, trial.user_attrs) == (TrialState.PRUNED, {"reason": "cannot reach the front"})
    tables = opened(study)
    tables.resume(0)
    tables.finish(0, None, "out of memory")
    (trial,) = as_optuna_reads_it(study).trials
    assert (trial.state, trial.user_attrs) == (TrialState.PRUNED, {"reason": "out of memory"})
    assert trial.constraints


def test_samplers_of_optuna_go_on_from_paused_trials(study: Study) -> None:
    tables = opened(study)
    for number in range(20):
        tables.begin(number, POINT)
        if number % 2:
            tables.pause(number, "paused at rung 0, 2 epochs")
        else:
            tables.finish(number, [float(number), 1.0] if number % 3 else None, "out of memory")
    for sampler in (optuna.samplers.TPESampler(seed=0), optuna.samplers.NSGAIISampler(population_size=5, seed=0)):
        read = as_optuna_reads_it(study)
        read.sampler = sampler
        assert read.ask(DISTRIBUTIONS).params.keys() == POINT.keys()


MIRRORED: dict[str, tuple[tuple[Any, ...], ...]] = {  # what Optuna's tables may say at any moment
    "nothing": (),
    "running": (("begin", POINT),),
    "paused": (("begin", POINT), ("pause", "paused at rung 0, 6 epochs")),
    "stopped": (("begin", POINT), ("pause", "stopped at rung 0, 6 epochs: cannot reach the front")),
}
LEDGER: dict[str, tuple[Any, ...]] = {  # and what the ledger says then -> what they shall say
    "running": (TrialState.RUNNING, None, False),
    "paused": (TrialState.PRUNED, "paused at rung 0, 6 epochs", False),
    "stopped": (TrialState.PRUNED, "stopped at rung 0, 6 epochs: cannot reach the front", False),
    "infeasible": (TrialState.PRUNED, "out of memory", True),
    "complete": (TrialState.COMPLETE, None, False),
}
REASONS = {"stopped": "cannot reach the front", "infeasible": "out of memory"}


@pytest.mark.parametrize("ledger_says", LEDGER)
@pytest.mark.parametrize("mirrored", MIRRORED)
def test_whatever_the_ledger_says_is_mirrored_wherever_a_crash_left_the_mirror(
    study: Study, mirrored: str, ledger_says: str
) -> None:
    tables = opened(study)
    for method, *arguments in MIRRORED[mirrored]:
        getattr(tables, method)(0, *arguments)
    with study.writing("") as writer:
        begin(writer, 0, POINT)
        writer.record(an_assignment(0), measured("accuracy", 90.0, rung=0, epochs=6))
        if ledger_says != "running":
            writer.finish(0, ledger_says, REASONS.get(ledger_says))
    for _ in range(2):
        tables.reconcile(study.trials())
        (trial,) = as_optuna_reads_it(study).trials
        told = (trial.state, trial.user_attrs.get("reason"), bool(trial.constraints))
        assert told == LEDGER[ledger_says]
    assert trial.values == ([90.0, 1000.0] if ledger_says == "complete" else None)
