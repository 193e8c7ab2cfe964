"""mlpspace replay: what a search would have found, from a recorded study or a table instead of workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpspace.cli.json_text import json_text
from mlpspace.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpspace.replay.recorded import Ended
    from mlpspace.replay.table import TableDomain


class _Columns(click.ParamType):
    """`a,b,c` as names."""

    name = "a,b,c"

    def convert(self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value if isinstance(value, list) else [name.strip() for name in value.split(",") if name.strip()]


@click.command("replay")
@click.argument("study", type=click.Path(path_type=Path), required=False)
@click.option("--table", type=click.Path(path_type=Path), help="A CSV file, one network a row, instead of a study.")
@click.option("--params", type=_Columns(), default=[], help="Columns that make a network; an empty cell: it has none.")
@click.option("--accuracy", help="Column, at the end of training.")
@click.option("--cost", help="Column, known without training.")
@click.option("--cost-goal", type=click.Choice(["min", "max"]), default="min", show_default=True)
@click.option("--linear-cost", is_flag=True, help="The cost is not measured by ratio.")
@click.option("--curves", type=_Columns(), default=[], help="Columns of the accuracy after epoch 1, 2, ...")
@click.option("--rungs", type=_Columns(), default=[], help="Epochs, such as 2,6,18. [default: those of the study]")
@click.option("--no-rungs", is_flag=True, help="Train every network to the end.")
@click.option(
    "--sampler",
    "samplers",
    multiple=True,
    help="default, tpe, nsga2, random or module:Class; several times to compare. [default: default]",
)
@click.option("--trials", type=click.IntRange(1), help="[default: as many as there are networks, at most 200]")
@click.option("--workers", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Trials at once.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Searches; medians of them.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def replay_command(
    study: Path | None,
    table: Path | None,
    params: list[str],
    accuracy: str | None,
    cost: str | None,
    cost_goal: str,
    linear_cost: bool,
    curves: list[str],
    rungs: list[str],
    no_rungs: bool,
    samplers: tuple[str, ...],
    trials: int | None,
    workers: int,
    seeds: int,
    as_json: bool,
) -> None:
    """Search again, with another sampler or without rungs, what the study in folder STUDY has trained.

    Nothing is trained: the accuracies are those that were recorded, and time passes as it did then. Only networks that
    were trained to the end take part, so what a sampler proposes becomes the nearest of them: this compares ways of
    searching, it does not say what a new search would find.

    \b
    mlpspace replay studies/run1 --sampler default --sampler nsga2
    mlpspace replay studies/run1 --no-rungs --workers 4
    mlpspace replay --table nets.csv --params depth,width --accuracy top1 --cost macs
    """
    from mlpspace import replayed
    from mlpspace.driver import check_sampler
    from mlpspace.replay.table import TableDomain, read_csv

    for sampler in samplers:
        check_sampler(sampler)
    if (study is None) == (table is None):
        raise UserError("Say what to replay: mlpspace replay studies/run1, or mlpspace replay --table FILE.csv.")
    own: Sequence[Ended] = ()
    if study is not None:
        domain, own = _of_study(study, _epochs(rungs), no_rungs)
    else:
        assert table is not None
        if not (params and accuracy and cost):
            raise UserError("A table needs --params a,b,c, --accuracy COLUMN and --cost COLUMN.")
        goal = {"min": "minimize", "max": "maximize"}[cost_goal]
        read = read_csv(
            table, params=params, accuracy=accuracy, cost=cost, cost_goal=goal, log_cost=not linear_cost, curves=curves
        )
        domain = TableDomain(read, epochs=None if no_rungs else _epochs(rungs))
    most = trials or min(200, int(domain.table.size))
    lines = replayed.compare(domain, samplers or ("default",), own, trials=most, workers=workers, seeds=seeds)
    if as_json:
        click.echo(json_text(replayed.as_json(domain, lines, trials=most)))
    else:
        click.echo(replayed.text(domain, lines, trials=most, workers=workers, seeds=seeds))


def _of_study(folder: Path, epochs: tuple[int, ...] | None, no_rungs: bool) -> tuple[TableDomain, Sequence[Ended]]:
    from mlpspace.replay.recorded import of_study, recorded
    from mlpspace.replay.table import TableDomain
    from mlpspace.space.reader import read_space
    from mlpspace.study import Study

    study = Study(folder)
    space = read_space(study.space_text, str(folder / "space.yaml"))
    rungs = None if no_rungs else epochs or space.fidelity.epochs
    return TableDomain(of_study(study, space), epochs=rungs, keep=space.fidelity.keep), recorded(study, space)


def _epochs(told: Sequence[str]) -> tuple[int, ...] | None:
    try:
        epochs = tuple(map(int, told))
    except ValueError:
        raise UserError(f'--rungs "{",".join(told)}" is no list of epochs, such as 2,6,18.') from None
    if list(epochs) != sorted(set(epochs)) or min(epochs, default=1) < 1:
        raise UserError(f'--rungs "{",".join(told)}": epochs rise from rung to rung, such as 2,6,18.')
    return epochs or None
