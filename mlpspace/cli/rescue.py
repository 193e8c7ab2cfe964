"""mlpspace rescue: what can be read of a damaged study."""

from __future__ import annotations

from pathlib import Path

import click

from mlpspace.cli.exit_codes import NOTHING


@click.command("rescue")
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder of the new study. [default: STUDY-rescued, beside it]"
)
def rescue_command(study: Path, to: Path | None) -> None:
    """Save what can be read of the study in folder STUDY, whose study.db is damaged, as a new study.

    Nothing in STUDY is changed. Where trials are lost, the others are numbered anew from 0; a search goes on with what
    was saved. Exits 1 if nothing can be read.
    """
    from mlpspace import rescue

    if to is None:
        here = study.resolve()
        to = study.parent / f"{here.name}-rescued" if study.name else here.with_name(f"{here.name}-rescued")
    rescued = rescue.rescue(study, to)
    if rescued is None:
        click.echo(f"Nothing of {study / 'study.db'} can be read; it is left as it is, and nothing was made.", err=True)
        raise click.exceptions.Exit(NOTHING)
    click.echo(rescue.text(study, rescued))
