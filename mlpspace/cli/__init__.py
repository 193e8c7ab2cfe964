"""The command line: arguments -> calls -> text and exit codes. The only file that prints.

Exit codes: 0 done, 1 a check failed or there is nothing to show, 2 the user's mistake, 3 the
process could not go on and the same command does, 130 after a clean Ctrl-C.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mlpspace import __version__
from mlpspace.cli.exit_codes import INTERRUPTED, MISTAKE, NOTHING
from mlpspace.cli.json_text import json_text
from mlpspace.cli.manifest import manifest_command
from mlpspace.cli.papers import papers_command
from mlpspace.cli.place import Place
from mlpspace.cli.profile import profile_command
from mlpspace.cli.replay import replay_command
from mlpspace.cli.replay_trial import replay_trial_command
from mlpspace.cli.rescue import rescue_command
from mlpspace.cli.size import Size
from mlpspace.cli.storage import Storage, start_again_without_password
from mlpspace.errors import UserError

if TYPE_CHECKING:
    from mlpspace.front import Front
    from mlpspace.space import Space
    from mlpspace.study import Study, Trial

EPILOG = """\b
A first hour:
  mlpspace space spaces/hybrid.yaml     what the space holds
  mlpspace search spaces/hybrid.yaml    search it; the same command goes on
  mlpspace pareto studies/run1          the front
\b
Shell completion (bash; zsh and fish alike):
  eval "$(_MLPSPACE_COMPLETE=bash_source mlpspace)"
"""


def main() -> NoReturn:
    """The entry point: every mistake of the user's becomes a text and exit code 2."""
    start_again_without_password()
    try:
        code = cli.main(prog_name="mlpspace", standalone_mode=False)
    except UserError as error:
        click.echo(str(error), err=True)
        code = MISTAKE
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has enough
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG)
@click.version_option(__version__, "--version", prog_name="mlpspace")
def cli() -> None:
    """Architecture search and design-space exploration for MLP-style vision backbones.

    One YAML file says what may vary. Workers train proxies of the networks it allows, Optuna works on the Pareto
    front of what you want of them, and one SQLite file keeps all of it.
    """


# --- space ----------------------------------------------------------------------------------------------------------


@cli.command("space")
@click.argument("file", type=click.Path())
@click.option("--draws", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Random draws.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def space_command(file: str, draws: int, seed: int, as_json: bool) -> None:
    """Check a space FILE and say what it holds.

    Prints how many points decode, the dimensions, how many random draws meet the requirements, and the quartiles of
    their params and MACs. Exits 2 with every mistake of the file, 1 if no draw meets the requirements.
    """
    from mlpspace import survey
    from mlpspace.data import catalog
    from mlpspace.space import load_space

    read = load_space(file)
    catalog.check_classes(read.fidelity.dataset, read.classes)
    told = survey.survey(read, draws=draws, seed=seed)
    click.echo(json_text(told.as_json()) if as_json else survey.text(told))
    if not told.meeting:
        raise click.exceptions.Exit(NOTHING)


# --- search ---------------------------------------------------------------------------------------------------------


class _Seconds(click.ParamType):
    """`90`, `90s`, `10m`, `1h30m`, `2d` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from mlpspace.space.text import duration

        seconds = duration(str(value))
        if seconds is None:
            self.fail(f'"{value}" is no duration; write 90s, 10m, 1h30m or 2d.', param, ctx)
        return seconds


@cli.command("search")
@click.argument("file", type=click.Path())
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    help="Folder of the study. [default: the one under studies/ that holds this space, else the next studies/runN]",
)
@click.option("--trials", type=click.IntRange(1), help="Total of the study. [default: as the space says]")
@click.option("--time-budget", type=_Seconds(), help="Total of the study, such as 90s, 10m, 1h30m.")
@click.option(
    "--workers",
    type=click.IntRange(1, 10_000),
    help="Trials at once. [default: as many per GPU as were measured to train fastest in sum; without GPUs one per "
    "core, at most 8]",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    help="A share such as 0.5 puts several workers on one GPU. [default: measured at the start, in about a minute; 1 "
    "where --workers is given, few trials or less than 30 minutes are left]",
)
@click.option(
    "--address", help='Of a running Ray cluster, such as "auto" on one of its machines. [default: this machine]'
)
@click.option("--data", multiple=True, type=Place(), help="Where the space's dataset lives.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu or cuda; one GPU of several: export CUDA_VISIBLE_DEVICES=1, or with --engine inline cuda:1.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), help="Of the sampler and the trainings. [default: as the space says]"
)
@click.option(
    "--sampler",
    help="default, tpe, nsga2, random, or module:Class for your own, a subclass of mlpspace.sampling.Sampler. "
    "[default: as the space says]",
)
@click.option(
    "--engine",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="inline: one after the other in this process, without Ray.",
)
@click.option(
    "--extend",
    is_flag=True,
    help="The space of --study becomes that of FILE, which must be wider; nothing that was measured is measured again.",
)
@click.option(
    "--keep",
    type=click.Choice(["front", "all", "none"]),
    default="front",
    show_default=True,
    help="Of whose trials the trained weights stay in the study's folder weights/.",
)
@click.option(
    "--checkpoint-every",
    type=_Seconds(),
    default="15s",
    show_default=True,
    help="A training that is cut off loses about so much.",
)
@click.option(
    "--storage",
    type=Storage(),
    help="Keep a new study's tables on a PostgreSQL server, such as postgresql+psycopg://USER@HOST/DATABASE. "
    "The study's folder keeps the address, without a password. [default: in the study's folder]",
)
@click.option(
    "--resident",
    type=Size(),
    help="So many images, such as 2GB, may lie on a worker's device; of more, all stay in a file of decoded images and "
    "are read ahead while the device computes. [default: a quarter of its free memory]",
)
@click.option("--plain", is_flag=True, help="Plain lines even in a terminal.")
@click.option("--profile", is_flag=True, help="At the end, where the wall time of each worker went.")
def search_command(file: str, study: Path | None, profile: bool, **options: Any) -> None:
    """Search the space in FILE.

    The same command goes on with its study until the number of trials is reached. Ctrl-C ends cleanly, and whatever
    else ends it, nothing that was measured is lost: what was training goes on from its last checkpoint.
    """
    from mlpspace.driver import Options, search

    data = options.pop("data")
    if len({name for name, _ in data}) < len(data):
        raise UserError("--data names one dataset twice.")
    command = shlex.join(["mlpspace", *sys.argv[1:]])
    asked = Options(**options, data=dict(data), named=study is not None)
    told = search(file, study, asked, command=command, write=_line)
    _print_front(told.study, told.space, plot_hint=True)
    if profile:
        from mlpspace import wall_time_table

        click.echo("\n" + wall_time_table.spent_text(wall_time_table.spent_of(told.study.sessions())))
    if told.interrupted:
        click.echo(f"\nInterrupted after {told.done} of {told.total} trials. To go on:\n  {told.go_on}")
        raise click.exceptions.Exit(INTERRUPTED)
    if told.unfinished:
        click.echo(f"\n{told.unfinished}" + (f"\n  To go on: {told.go_on}" if told.go_on else ""))
    if not told.complete:
        raise click.exceptions.Exit(NOTHING)


def _line(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _print_front(study: Study, space: Space, *, plot_hint: bool) -> None:
    from mlpspace import report
    from mlpspace.front import front

    found = front(study, space.objectives)
    click.echo("")
    if not found.points:
        click.echo("No trial has finished with all its measurements.")
        for reason, number in found.left_out.items():
            click.echo(f"  {number} {reason}")
        return
    click.echo(report.front_table(found, width=_width()))
    if plot_hint:
        click.echo(f"\n  {shlex.join(['mlpspace', 'pareto', str(study.folder), '--plot', 'front.png'])}")


def _width() -> int:
    import shutil

    return max(80, shutil.get_terminal_size((140, 40)).columns)


# --- reading a study ------------------------------------------------------------------------------------------------


@cli.command("pareto")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--csv", "as_csv", is_flag=True, help="For spreadsheets.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the front into a .png, .svg or .pdf file."
)
@click.option(
    "--rung",
    type=int,
    help="The front of the trials at an earlier rung, 0 the first: of PARTIAL trainings. [default: the last reached]",
)
def pareto_command(study: Path, as_json: bool, as_csv: bool, plot: Path | None, rung: int | None) -> None:
    """The Pareto front of the study in folder STUDY, the published networks marked on it.

    Accuracies are compared at one rung, so that a network trained for 2 epochs never stands beside one trained for
    18. Exits 1 where there is no front yet.

    \b
    mlpspace pareto studies/run1 --plot front.png
    mlpspace pareto studies/run1 --rung 0          the trials after the first rung's epochs
    """
    from mlpspace import report

    if as_json and as_csv:
        raise UserError("Use just one of --json and --csv.")
    opened, found = _front_of(study, rung)
    if plot is not None and found.points:
        from mlpspace.plot import plot_front

        plot_front(found, plot, title=_title(opened, found))
    if as_json:
        click.echo(json_text(report.front_json(found)))
    elif as_csv:
        click.echo(report.front_csv(found), nl=False)
    elif found.points:
        click.echo(report.front_table(found, width=_width()))
        if not found.partial and any(each.paused or each.stopped for each in found.standing):
            click.echo(f"\n  The partial trainings: {shlex.join(['mlpspace', 'pareto', str(study), '--rung', '0'])}")
    if not found.points:
        what = "has finished" if rung is None else f"has reached rung {rung}"
        click.echo(f"No trial of {study} {what} yet.\n  To watch it: mlpspace status {study}", err=True)
        raise click.exceptions.Exit(NOTHING)
    if plot is not None:
        click.echo(f"wrote {plot}", err=True)


@cli.command("show")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("trial", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--mixing",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw what its token mixers learned into a .png, .svg or .pdf file.",
)
@click.option("--data", multiple=True, type=Place(), help="For --mixing: where the dataset lives, if it has moved.")
@click.option("--device", default="auto", show_default=True, help="For --mixing: auto, cpu or cuda.")
def show_command(
    study: Path, trial: int, as_json: bool, mixing: Path | None, data: tuple[tuple[str, str], ...], device: str
) -> None:
    """One TRIAL of the study in folder STUDY: its architecture as YAML for a space file, counts, curve.

    --mixing draws rows of its token matrices as little images over the token map, a line of them for each layer. A
    study keeps the weights of its front; any other trial is first trained again, as the search did.

    \b
    mlpspace show studies/run1 17
    mlpspace show studies/run1 17 --mixing mixing.png
    """
    from mlpspace import report
    from mlpspace.space.writer import layout_yaml
    from mlpspace.study import Study

    opened = Study(study)
    found = opened.trial(trial)
    if mixing is not None:
        _draw_mixing(opened, found, mixing, dict(data), device)
    if as_json:
        click.echo(json_text(report.trial_json(found)))
        return
    click.echo(report.trial_text(found, yaml=layout_yaml(found.architecture, f"trial{trial}")))


def _draw_mixing(study: Study, trial: Trial, path: Path, data: dict[str, str], device: str) -> None:
    from mlpspace.plot import check_picture
    from mlpspace.plot_mixing import plot_mixing
    from mlpspace.retraining import retrained
    from mlpspace.token_matrices import check_matrices, token_matrices

    space = _space_of(study)
    check_picture(path)  # before the training, not after it
    check_matrices(trial.architecture, space.resolution)
    network = retrained(study, trial, space, data=data, device_name=device, write=_told)
    matrices = token_matrices(network, trial.architecture, space.resolution)
    title = f"What trial {trial.number} of {study.folder} learned"
    epochs = space.fidelity.epochs[-1]
    trained = f"{epochs} epoch{'s' * (epochs > 1)} of {space.fidelity.dataset}"
    plot_mixing(matrices, path, title=title, subtitle=f"{trial.label or trial.architecture.describe()}; {trained}")
    _told(f"wrote {path}")


def _told(text: str) -> None:
    click.echo(text, err=True)


@cli.command("status")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--profile", is_flag=True, help="Where the wall time of each worker went, of all sessions.")
def status_command(study: Path, as_json: bool, profile: bool) -> None:
    """How the search in folder STUDY is doing, from any terminal."""
    from mlpspace import status, wall_time_table
    from mlpspace.study import Study

    if profile:
        spent = wall_time_table.spent_of(Study(study).sessions())
        click.echo(json_text(wall_time_table.spent_json(spent)) if as_json else wall_time_table.spent_text(spent))
        return
    opened, found = _front_of(study)
    told = status.status(opened, found)
    click.echo(json_text(told) if as_json else status.status_text(told))


def _space_of(study: Study) -> Space:
    from mlpspace.space import read_space

    return read_space(study.space_text, str(study.folder / "space.yaml"))


def _front_of(folder: Path, rung: int | None = None) -> tuple[Study, Front]:
    from mlpspace.front import front
    from mlpspace.objectives import METRICS
    from mlpspace.study import Study

    study = Study(folder)
    space = _space_of(study)
    if rung is not None:
        if not any(METRICS[objective.metric].trained for objective in space.objectives):
            raise UserError(f"{folder} has no rungs: its objectives take no training.\n  Try: mlpspace pareto {folder}")
        epochs = space.fidelity.epochs
        if not 0 <= rung < len(epochs):
            known = ", ".join(f"{i} ({number} epoch{'s' * (number > 1)})" for i, number in enumerate(epochs))
            raise UserError(
                f"{folder} has no rung {rung}. Its rungs: {known}.\n"
                f"  Try: mlpspace pareto {folder} --rung {len(epochs) - 1 if rung > 0 else 0}"
            )
    return study, front(study, space.objectives, rung=rung)


# --- networks as such -----------------------------------------------------------------------------------------------

cli.add_command(manifest_command)
cli.add_command(papers_command)
cli.add_command(profile_command)
cli.add_command(replay_command)
cli.add_command(replay_trial_command)
cli.add_command(rescue_command)


def _title(study: Study, found: Front) -> str:
    return f"{'Partial trainings' if found.partial else 'Pareto front'} of {study.folder}"
