"""Optuna's own tables beside the ledger's, so that optuna-dashboard and `optuna.load_study` open it as it is.

They repeat what Optuna has a word for: numbers, parameters, states, final values. The ledger stays the truth: it is
written first, and `reconcile` brings these tables in line after a crash between the two.

    running          RUNNING
    complete         COMPLETE, with its values: it reached the last rung
    paused, stopped  PRUNED, the reason as user attribute; what is promoted from its rung is RUNNING again
    infeasible       PRUNED, the reason as user attribute and constraint: samplers learn from PRUNED, never see FAIL

Optuna makes the tables; their rows are written here. Through its storage a trial of 15 parameters takes some 50 queries
and 25 ms, and its end up to five transactions; here each is one transaction.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from mlpspace.damaged_file import hint
from mlpspace.errors import StudyError
from mlpspace.storage import Storage
from mlpspace.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

T = TypeVar("T")

_FINISHED = ("COMPLETE", "PRUNED", "FAIL")


class OptunaTables:
    """One Optuna study in `storage`, opened or made."""

    def __init__(
        self,
        storage: Storage,
        *,
        study_name: str,
        directions: Sequence[str],
        metric_names: Sequence[str],
        distributions_of: Callable[[Mapping[str, Any]], Mapping[str, BaseDistribution]],
    ) -> None:
        """
        Args:
            storage: of a study; only its one driver writes to it.
            directions: "maximize" or "minimize" for each of `metric_names`.
            distributions_of: point -> name -> Optuna distribution.

        Raises:
            StudyError: the Optuna study in it has other objectives, or needs another Optuna.
        """
        self.metric_names = tuple(metric_names)
        self._storage = storage
        self._distributions_of = distributions_of
        self._study_id = _open(storage, study_name, directions, self.metric_names)
        self._held = ExitStack()
        self.transactions = self._held.enter_context(storage.writing())
        told = sa.MetaData()
        told.reflect(self.transactions.engine, only=lambda name, _: name.startswith("trial") and name != "trial")
        self._tables = told.tables
        self._sql = _statements(storage, told.tables, self._study_id)
        self._told_of: dict[str, tuple[BaseDistribution, str]] = {}  # name -> distribution, and its JSON
        self._ids: dict[int, int] = {number: trial_id for number, trial_id, _ in self._run(self._rows)}

    def begin(
        self,
        number: int,
        point: Mapping[str, Any],
        user_attrs: Mapping[str, Any] | None = None,
        *,
        started: float | None = None,
    ) -> None:
        """A trial of ours starts; one that is already here is left as it is, so a second attempt may say so too.

        Args:
            point: what the sampler drew; {} for a fixed point outside the space.
            started: seconds since 1970; None: now.

        Raises:
            StudyError: Optuna's next number is another one, as something else has written to its tables.
        """
        if number in self._ids:
            return
        drawn = self._drawn(point)
        attrs = [{"of_key": key, "json": json.dumps(value)} for key, value in (user_attrs or {}).items()]
        at = datetime.now() if started is None else datetime.fromtimestamp(started)
        tried = False

        def add(connection: sa.Connection) -> int:
            nonlocal tried
            known = {each: trial_id for each, trial_id, _ in self._rows(connection)} if tried else {}
            if number in known:  # it was committed, and just the word of it was lost
                return known[number]
            tried = True
            latest = connection.scalar(self._sql.latest)
            if (-1 if latest is None else latest) != number - 1:
                raise self._not_ours(number)
            row = {"number": number, "study_id": self._study_id, "state": "RUNNING", "datetime_start": at}
            key = connection.execute(self._sql.add, row).inserted_primary_key
            assert key is not None
            if drawn:
                connection.execute(self._sql.add_params, [{**each, "trial_id": key[0]} for each in drawn])
            if attrs:
                connection.execute(self._sql.set_attr, [{**each, "of_trial": key[0]} for each in attrs])
            return int(key[0])

        self._ids[number] = self._run(add)

    def pause(self, number: int, reason: str, *, ended: float | None = None) -> None:
        """A trial of ours waits at a rung, or is stopped: no constraint was broken.

        Args:
            reason: such as "paused at rung 1, 6 epochs"; `reconcile` puts `Trial.standing` in its place.
            ended: seconds since 1970; None: now.
        """

        def write(connection: sa.Connection) -> None:
            told = {"of_trial": self._ids[number], "of_key": "reason", "json": json.dumps(reason)}
            connection.execute(self._sql.set_attr, told)
            self._set_state(connection, number, "PRUNED", ended)

        self._run(write)

    def resume(self, number: int) -> None:
        """A trial of ours that was paused goes on."""
        trial_id = self._ids[number]

        def write(connection: sa.Connection) -> None:
            connection.execute(self._sql.drop_reason, {"of_trial": trial_id})
            connection.execute(self._sql.drop_constraints, {"of_trial": trial_id})
            self._set_state(connection, number, "RUNNING")

        self._run(write)

    def finish(self, number: int, values: Sequence[float] | None, reason: str | None = None) -> None:
        """A trial of ours ends: with its finite values in the order of `metric_names`, or None, infeasible."""
        trial_id = self._ids[number]

        def write(connection: sa.Connection) -> None:
            if values is None:
                if reason:
                    told = {"of_trial": trial_id, "of_key": "reason", "json": json.dumps(reason)}
                    connection.execute(self._sql.set_attr, told)
                connection.execute(self._sql.break_constraint, {"of_trial": trial_id})
            else:
                assert len(values) == len(self.metric_names)
                assert all(math.isfinite(value) for value in values), values
                rows = [
                    {"trial_id": trial_id, "objective": i, "value": value, "value_type": "FINITE"}
                    for i, value in enumerate(values)
                ]
                connection.execute(self._sql.drop_values, {"of_trial": trial_id})  # if this is said again
                connection.execute(self._sql.add_values, rows)
            self._set_state(connection, number, "PRUNED" if values is None else "COMPLETE")

        self._run(write)

    def reconcile(self, trials: Iterable[Trial]) -> None:
        """Make these tables say what the ledger says: what a crash kept from them is added.

        Args:
            trials: all of the study, as `Study.trials` gives them.

        Raises:
            StudyError: they hold trials that the ledger does not know.
        """
        ours = {trial.number: trial for trial in trials}
        strangers = self._ids.keys() - ours.keys()
        if strangers:
            raise self._not_ours(min(strangers))
        told = self._run(self._told)
        for number, trial in sorted(ours.items()):
            if number not in self._ids:
                self.begin(number, trial.point or {}, user_attrs(trial), started=trial.started)
            state, reason, constrained = told.get(number, ("RUNNING", None, False))
            if trial.state in ("paused", "stopped"):
                if state != "PRUNED" or reason != json.dumps(trial.standing):
                    self.pause(number, trial.standing, ended=trial.ended)
                continue
            if state == "PRUNED" and (trial.state != "infeasible" or not constrained):  # it has gone on since
                self.resume(number)
                state = "RUNNING"
            if trial.state == "running" or state in _FINISHED:
                continue
            values = [trial.value(metric) for metric in self.metric_names]
            known = [value for value in values if value is not None]
            self.finish(number, known if trial.state == "complete" else None, trial.reason)

    def close(self) -> None:
        """Let go of them."""
        self._held.close()

    def _run(self, do: Callable[[sa.Connection], T]) -> T:
        # no fsync a commit: what a power cut takes, `reconcile` brings back
        return self.transactions.run(do, durable=False)

    def _rows(self, connection: sa.Connection) -> list[tuple[int, int, str]]:
        trials = self._tables["trials"].c
        query = sa.select(trials.number, trials.trial_id, trials.state).where(trials.study_id == self._study_id)
        return [tuple(row) for row in connection.execute(query)]

    def _told(self, connection: sa.Connection) -> dict[int, tuple[str, str | None, bool]]:
        """Number -> what is told of it: state, reason as JSON, whether it broke a constraint."""
        attrs, system = self._tables["trial_user_attributes"].c, self._tables["trial_system_attributes"].c
        query = sa.select(attrs.trial_id, attrs.value_json).where(attrs.key == "reason")
        reasons = dict(connection.execute(query).tuples().all())
        constrained = set(connection.execute(sa.select(system.trial_id).where(system.key == "constraints")).scalars())
        return {
            number: (state, reasons.get(trial_id), trial_id in constrained)
            for number, trial_id, state in self._rows(connection)
        }

    def _drawn(self, point: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of `trial_params`, without the trial."""
        from optuna.distributions import distribution_to_json

        distributions = self._distributions_of(point)
        assert point.keys() == distributions.keys()
        rows = []
        for name, value in point.items():
            found = distributions[name]
            known = self._told_of.get(name)
            if known is None or known[0] is not found:
                known = self._told_of[name] = found, distribution_to_json(found)
            row = {"param_name": name, "param_value": found.to_internal_repr(value), "distribution_json": known[1]}
            rows.append(row)
        return rows

    def _set_state(self, connection: sa.Connection, number: int, state: str, ended: float | None = None) -> None:
        at = datetime.now() if ended is None else datetime.fromtimestamp(ended)
        told = {"of_trial": self._ids[number], "now": state, "at": None if state == "RUNNING" else at}
        connection.execute(self._sql.set_state, told)

    def _not_ours(self, number: int) -> StudyError:
        return StudyError(
            f"{self._storage.name}: trial {number} of Optuna's tables was not made by mlpspace. One study has one"
            " driver: optuna-dashboard and optuna.load_study may read it, not add to it. It is left as it is."
        )


@dataclass(frozen=True)
class _Statements:
    """What is written for a trial: made once, as to make a statement takes longer than to carry it out."""

    latest: sa.Select[Any]
    add: sa.Insert
    add_params: sa.Insert
    set_attr: sa.Insert
    break_constraint: sa.Insert
    drop_reason: sa.Delete
    drop_constraints: sa.Delete
    drop_values: sa.Delete
    add_values: sa.Insert
    set_state: sa.Update


def _statements(storage: Storage, tables: Mapping[str, sa.Table], study_id: int) -> _Statements:
    trials, values = tables["trials"], tables["trial_values"]
    user, system = tables["trial_user_attributes"], tables["trial_system_attributes"]
    of_trial: sa.BindParameter[Any] = sa.bindparam("of_trial")

    def upsert(table: sa.Table, key: Any, told: Any) -> sa.Insert:
        add = storage.insert(table).values(trial_id=of_trial, key=key, value_json=told)
        replaced: sa.Insert = add.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": add.excluded.value_json}
        )
        return replaced

    def drop(table: sa.Table, key: str) -> sa.Delete:
        return sa.delete(table).where(table.c.trial_id == of_trial, table.c.key == key)

    return _Statements(
        sa.select(trials.c.number).where(trials.c.study_id == study_id).order_by(trials.c.trial_id.desc()).limit(1),
        sa.insert(trials),
        sa.insert(tables["trial_params"]),
        upsert(user, sa.bindparam("of_key"), sa.bindparam("json")),
        # a positive constraint is a broken one; Optuna 5 still reads this key, optuna-dashboard no other
        upsert(system, "constraints", json.dumps([1.0])),
        drop(user, "reason"),
        drop(system, "constraints"),
        sa.delete(values).where(values.c.trial_id == of_trial),
        sa.insert(values),
        sa.update(trials)
        .where(trials.c.trial_id == of_trial)
        .values(state=sa.bindparam("now"), datetime_complete=sa.bindparam("at")),
    )


def _open(storage: Storage, study_name: str, directions: Sequence[str], metric_names: tuple[str, ...]) -> int:
    """The id of the Optuna study of that name, made if there is none."""
    import optuna
    from alembic.util import CommandError
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    wanted = [StudyDirection[direction.upper()] for direction in directions]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces the study on stderr
    try:
        with storage.telling():
            tables = optuna.storages.RDBStorage(**storage.for_optuna())
            # a folder that was renamed keeps its one study, under the name that it was made with
            study_name = next((study.study_name for study in tables.get_all_studies()), study_name)
            with suppress(DuplicatedStudyError):
                tables.create_new_study(wanted, study_name)
            study = optuna.load_study(study_name=study_name, storage=tables)
            if study.directions != wanted or (study.metric_names or list(metric_names)) != list(metric_names):
                raise StudyError(f"{storage.name} holds an Optuna study of other objectives; it is left as it is.")
            if study.metric_names is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(list(metric_names))
            study_id: int = tables.get_study_id_from_name(study_name)
            tables.remove_session()
            tables.engine.dispose()
    except (RuntimeError, optuna.exceptions.StorageInternalError) as error:  # such as tables of another Optuna
        raise StudyError(f"{storage.name}: {error}") from None
    except (LookupError, TypeError, ValueError, CommandError) as error:  # Optuna believes what its tables hold
        why = str(error).partition("\n")[0][:200]
        raise StudyError(
            f"{storage.name}: Optuna's tables are damaged ({why}). They are left as they are.{hint(storage.name)}"
        ) from None
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study_id


def forget(storage: Storage) -> None:
    """Take all of Optuna's studies out of these tables; the ledger's are left alone."""
    import optuna

    with storage.telling():
        tables = optuna.storages.RDBStorage(**storage.for_optuna())
        for study in tables.get_all_studies():
            tables.delete_study(study._study_id)
        tables.remove_session()
        tables.engine.dispose()


def user_attrs(trial: Trial) -> dict[str, Any]:
    """What optuna-dashboard shows beside a trial's parameters."""
    shown = {
        "id": trial.architecture_id,
        "architecture": trial.architecture.describe(),
        "params": trial.params,
        "macs": trial.macs,
    }
    return shown | {name: told for name, told in (("fixed_point", trial.label), ("why", trial.why)) if told}
