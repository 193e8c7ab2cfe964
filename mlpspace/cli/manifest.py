"""mlpspace manifest: what a study noted of itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from mlpspace.cli.json_text import json_text


@click.command("manifest")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def manifest_command(study: Path, as_json: bool) -> None:
    """What the study in folder STUDY noted of itself: code, versions, machines, devices, data, seeds, commands.

    Each session of a search notes them, so that what changed between two of them is seen. Where mlpspace's code was
    changed against its commit, the change itself is in the study's folder, as a .diff that `git apply` takes.
    """
    from mlpspace import manifest_table
    from mlpspace.study import Study

    opened = Study(study)
    if as_json:
        click.echo(json_text(manifest_table.as_json(opened)))
    else:
        width = max(80, shutil.get_terminal_size((120, 40)).columns)
        click.echo(manifest_table.text(opened, width=width))
