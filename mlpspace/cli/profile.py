"""mlpspace profile: what networks take on this machine."""

from __future__ import annotations

import time

import click

from mlpspace.cli.exit_codes import INTERRUPTED, NOTHING
from mlpspace.cli.json_text import json_text
from mlpspace.errors import UserError


@click.command("profile")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at once.")
@click.option("--resolution", type=click.IntRange(1), help="In pixels, of all of them. [default: each one's own]")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), help="Of weights and images. [default: as a search takes it]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--classes", type=click.IntRange(1), help="Of all of them. [default: 1000; a trial: those of its task]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def profile_command(
    names: tuple[str, ...],
    batch: int,
    resolution: int | None,
    precision: str | None,
    device: str,
    classes: int | None,
    as_json: bool,
) -> None:
    """Measure networks on this machine: params, MACs, throughput, peak memory, published top-1.

    \b
    A NAME is
      resmlp_s24          a published network (mlpspace papers lists them)
      deit_s              a comparator of other kind, through timm: pip install 'mlpspace[timm]'
      mine.yaml           an architecture, as mlpspace show or mlpspace papers NAME prints it
      studies/run1:17     trial 17 of a study

    Throughput is that of the deployed form, in rounds through all networks, relative to the first. A network that
    cannot stand at --resolution is scaled to it, and its name says what was changed. Ctrl-C prints what there is.

    \b
    mlpspace profile resmlp_s12 mixer_s16 gmlp_s16
    mlpspace profile deit_s resmlp_s24 --batch 256 --device cuda --precision bf16
    mlpspace profile mixer_s16 studies/run1:17 --resolution 32 --classes 10
    """
    if not names:
        raise UserError("mlpspace profile takes at least one name, such as: mlpspace profile resmlp_s12 mixer_s16")
    from mlpspace.subjects import subjects

    asked = subjects(names, resolution=resolution, classes=classes)
    from mlpspace import profile_table
    from mlpspace.device import resolve
    from mlpspace.machine_profile import profiled

    told = profiled(asked, batch=batch, device=resolve(device), precision=precision)
    rows = {}
    interrupted = False
    started = time.monotonic()
    try:
        for index, row in told:
            rows[index] = row
            took = time.monotonic() - started
            click.echo(f"[{index + 1}/{len(asked)}] {profile_table.line(row)}  {took:.0f} s", err=True)
            started = time.monotonic()
    except KeyboardInterrupt:
        interrupted = True
    ended = [row for _, row in sorted(rows.items())]
    if as_json:
        click.echo(json_text(profile_table.as_json(ended)))
    elif ended:
        click.echo(profile_table.table(ended))
    if interrupted:
        click.echo("\nInterrupted: this is what there is.", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    if not any(row.measured for row in ended):
        raise click.exceptions.Exit(NOTHING)
