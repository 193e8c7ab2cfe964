"""Optuna's tables of a study while it is searched: they follow the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlpspace.errors import StudyError
from mlpspace.space.dims import contains
from mlpspace.study import Study, Trial

if TYPE_CHECKING:
    from mlpspace.domain import SpaceDomain
    from mlpspace.optuna_tables import OptunaTables


@contextmanager
def mirror(study: Study, domain: SpaceDomain, trials: list[Trial]) -> Iterator[OptunaTables]:
    """Optuna's tables of the study, brought in line with the ledger.

    Args:
        trials: all that the ledger has.

    Raises:
        StudyError: they are not of its space.
    """
    from mlpspace.optuna_tables import OptunaTables
    from mlpspace.sampling.optuna_samplers import distribution

    _check_trials(study, domain, trials)
    distributions = {dim.name: distribution(dim) for dim, _ in domain.dimensions}
    tables = OptunaTables(
        study.storage,
        study_name=study.folder.resolve().name,
        directions=[objective.goal for objective in domain.objectives],
        metric_names=[objective.metric for objective in domain.objectives],
        distributions_of=lambda point: {name: distributions[name] for name in point},
    )
    try:
        tables.reconcile(trials)
        del trials  # so that they need not be kept while the search runs
        yield tables
    finally:
        tables.close()


def _check_trials(study: Study, domain: SpaceDomain, trials: list[Trial]) -> None:
    """Refuse a study whose trials are not of its space: a stranger may have written anything there."""
    dimensions = {dim.name: dim for dim, _ in domain.dimensions}
    right: set[tuple[str, type, object]] = set()  # of many trials, few values differ
    for trial in trials:
        for name, value in (trial.point or {}).items():
            if (name, type(value), value) in right:
                continue
            if name in dimensions and contains(dimensions[name], value):
                right.add((name, type(value), value))
            else:
                what = f"{name} {value!r}, which is no value of its space"
                raise StudyError(f"{study.storage.name}: trial {trial.number} has {what}. It is left as it is.")
        for record in trial.records:
            if record.rung is not None and record.rung >= len(domain.epochs):
                what = f"rung {record.rung}, which its space does not have"
                raise StudyError(f"{study.storage.name}: trial {trial.number} has {what}. It is left as it is.")
