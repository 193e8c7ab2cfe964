"""mlpspace papers: the published networks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mlpspace.cli.exit_codes import NOTHING
from mlpspace.cli.json_text import json_text

if TYPE_CHECKING:
    from mlpspace.papers import Paper


@click.command("papers")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--check", is_flag=True, help="Build and count them, beside what was measured and published.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def papers_command(names: tuple[str, ...], check: bool, as_json: bool) -> None:
    """The published networks: all of them, or one NAME as YAML with its source, figures and caveats.

    With --check they are built on the meta device, as published, and their params and MACs printed beside those of
    the official code and the published ones; it exits 1 if ours differ from those that were measured. Comparators are
    checked where timm imports.

    \b
    mlpspace papers
    mlpspace papers smlpnet_tiny
    mlpspace papers --check resmlp_s12 cyclemlp_b1
    """
    from mlpspace import papers, papers_table

    asked = [papers.paper(name) for name in names] or list(papers.PAPERS)
    if check:
        _check(asked, as_json)
    elif len(names) == 1:
        told = papers_table.as_json(asked[0])
        click.echo(json_text(told) if as_json else papers_table.text(asked[0], width=_width()))
    elif as_json:
        click.echo(json_text({"rows": [papers_table.as_json(paper) for paper in asked]}))
    else:
        click.echo(papers_table.table(asked, width=_width()))


def _check(asked: Sequence[Paper], as_json: bool) -> None:
    from mlpspace import papers_table
    from mlpspace.proof import prove

    if not as_json:
        click.echo(papers_table.check_heading(asked))
    proofs = []
    for paper in asked:
        proofs.append(prove(paper))
        if not as_json:
            click.echo(papers_table.check_line(proofs[-1], asked, width=_width()))
            sys.stdout.flush()
    if as_json:
        click.echo(json_text({"rows": [papers_table.check_json(proof) for proof in proofs]}))
    else:
        click.echo(f"\n{papers_table.check_summary(proofs)}")
    if any(proof.agrees is False for proof in proofs) or all(proof.agrees is None for proof in proofs):
        raise click.exceptions.Exit(NOTHING)


def _width() -> int:
    return max(80, shutil.get_terminal_size((120, 40)).columns)
