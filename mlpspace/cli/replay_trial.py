"""mlpspace replay-trial: does a trial get the same curve again?"""

from __future__ import annotations

from pathlib import Path

import click

from mlpspace.cli.exit_codes import NOTHING
from mlpspace.cli.json_text import json_text
from mlpspace.cli.place import Place


@click.command("replay-trial")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("trial", type=int)
@click.option("--data", multiple=True, type=Place(), help="Where the dataset lives, if it has moved.")
@click.option("--device", default="auto", show_default=True, help="auto (as in the search), cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def replay_trial_command(
    study: Path, trial: int, data: tuple[tuple[str, str], ...], device: str, as_json: bool
) -> None:
    """Train TRIAL of the study in folder STUDY again, and say whether it gets the same curve.

    It is trained as the search did it: same network, recipe, seed, images in the same order, threads. On the CPU of
    the search, with the versions of the search, the curve is the same to the last bit; elsewhere it may differ by what
    the noise of a validation split explains. Where it differs, what is different from the search is told. A trial that
    failed is trained until the failure comes again or does not. Nothing is written into the study.

    Exits 1 if the curve is not the same.

    \b
    mlpspace replay-trial studies/run1 17
    mlpspace replay-trial studies/run1 17 --device cpu
    """
    from mlpspace.space import read_space
    from mlpspace.study import Study

    opened = Study(study)
    space = read_space(opened.space_text, str(study / "space.yaml"))
    found = opened.trial(trial)
    from mlpspace import verdict
    from mlpspace.retraining import check_trained, trained_again

    check_trained(opened, found)
    again = trained_again(opened, found, space, data=dict(data), device_name=device, write=_told)
    judged = verdict.verdict(opened, found, again)
    click.echo(json_text(verdict.as_json(judged)) if as_json else verdict.text(judged))
    if not judged.same:
        raise click.exceptions.Exit(NOTHING)


def _told(text: str) -> None:
    click.echo(text, err=True)
