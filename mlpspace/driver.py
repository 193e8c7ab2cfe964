"""One session of a search: which study, what is left to do, which engine, what is shown meanwhile."""

from __future__ import annotations

import math
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpspace import extension, older_protocol
from mlpspace.address import Address
from mlpspace.data import catalog
from mlpspace.errors import DataError, UserError, did_you_mean
from mlpspace.fresh_process import fresh_processes
from mlpspace.interrupt import Interrupt
from mlpspace.ledger_columns import Reader
from mlpspace.manifest import Manifest, manifest, without_passwords
from mlpspace.mirror import mirror
from mlpspace.space import Space, load_space
from mlpspace.space.reader import SAMPLERS
from mlpspace.study import Study, Trial
from mlpspace.wall_time import DRIVER, PROCESS, Tallies, counted
from mlpspace.which_study import anew, data_path_of, next_folder, study_of

if TYPE_CHECKING:
    from mlpspace.live import LiveView, PlainView
    from mlpspace.search import Search


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where and how much: what the flags say. None: not given."""

    trials: int | None = None
    time_budget: float | None = None  # seconds
    workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None
    data: dict[str, str]
    device: str = "auto"
    seed: int | None = None
    sampler: str | None = None  # a name, or module:Class
    engine: str = "ray"
    keep: str = "front"  # of whose trials the weights are kept: "front", "all", "none"
    checkpoint_every: float = 15.0  # seconds, about
    resident: int | None = None  # bytes of images that may lie on a worker's device
    plain: bool = False
    named: bool = False  # --study was given
    extend: bool = False  # the study's space becomes the file's, which is wider
    storage: Address | None = None  # None: where the study is, and a new one in its folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a session ended."""

    study: Study
    space: Space
    done: int
    complete: int  # of those
    total: int
    interrupted: bool
    unfinished: str | None  # why trials are left to do, where it was no interrupt
    go_on: str | None  # what to type; None where it would not help


def search(file: str, folder: Path | None, options: Options, *, command: str, write: Callable[[str], None]) -> Outcome:
    """Search the space in `file` until the study is done, or somebody stops it.

    Raises:
        UserError: a mistake in the file, the flags, the study or the data; nothing was lost.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        raise UserError(f'--device "{options.device}" is not known. Known: auto, cpu, cuda, cuda:1 and so on.')
    _, _, index = options.device.partition(":")
    if index and options.engine == "ray":
        raise UserError(
            f'--device "{options.device}": Ray says which worker has which GPU, and to each its own is cuda:0. Type '
            f"export CUDA_VISIBLE_DEVICES={index} and search with --device cuda, or with --engine inline."
        )
    if options.gpus_per_worker is not None and not math.isfinite(options.gpus_per_worker):
        raise UserError(f"--gpus-per-worker {options.gpus_per_worker:g} is no share of a GPU; 0.5 or 2 would do.")
    fresh_processes()  # a setting that is none is told before anything is made
    space = load_space(file)
    if options.sampler is not None:
        check_sampler(options.sampler)
    for name in options.data:
        if name != space.fidelity.dataset:
            raise DataError(f"--data {name}=...: the space uses {space.fidelity.dataset}, not {name}.")
    study = study_of(space, folder, options.storage, extend=options.extend)
    total = options.trials or space.trials
    if study is not None and not options.extend and _is_done(study, space, total):
        write(_nothing_added(study, total))
        return _outcome(study, space, total, options, file, interrupted=False, stopped=None)
    if study is not None and options.time_budget is not None and study.elapsed_seconds >= options.time_budget:
        reason = f"time budget reached: the study has taken {study.elapsed_seconds:,.0f} s"
        return _outcome(study, space, total, options, file, interrupted=False, stopped=reason)
    path = options.data.get(space.fidelity.dataset) or data_path_of(study, space.fidelity.dataset)
    catalog.check(space.fidelity.dataset, path, space.classes)
    path = path and str(Path(path).resolve())
    command = without_passwords(command)
    noted = _noted(space, options, command, path)
    if study is None:
        folder = folder or next_folder()
        study = Study.create(folder, space_text=space.text, manifest=noted.told, address=options.storage)
        write(f"new study {study.folder}" + (f", its tables at {study.storage.name}" if options.storage else ""))
        if options.storage is not None and options.storage.password is not None:
            write("The password is kept nowhere. `mlpspace pareto` and the like take PGPASSWORD, or ~/.pgpass.")
    else:
        write(f"going on with {study.folder}: {_done(study.counts)} of {total} trials done")
    interrupted, stopped, exhausted = _run(
        study, space, options, total=total, data_path=path, command=command, noted=noted, write=write
    )
    return _outcome(study, space, total, options, file, interrupted=interrupted, stopped=stopped, exhausted=exhausted)


def check_sampler(name: str) -> None:
    """Before anything is made: is there such a sampler?"""
    if ":" in name:
        from mlpspace.sampling import custom

        custom.load(name)
    elif name not in SAMPLERS:
        raise UserError(
            f'--sampler "{name}" is not known.{did_you_mean(name, SAMPLERS)} Known: {", ".join(SAMPLERS)}, or '
            "module:Class for your own."
        )


def _noted(space: Space, options: Options, command: str, data_path: str | None) -> Manifest:
    """What this session notes of itself."""
    data = {space.fidelity.dataset: data_path} if data_path else {}
    seeds = {"space": space.seed, "search": _seed(space, options)}
    return manifest(command=command, space_id=space.id, data=data, seeds=seeds)


def _seed(space: Space, options: Options) -> int:
    return space.seed if options.seed is None else options.seed


def _is_done(study: Study, space: Space, total: int) -> bool:
    """Whether that can be told at a glance. What waits at rungs and what is to be trained anew only a search knows."""
    if len(space.fidelity.epochs) > 1 or space.fidelity.repeats_on_front:
        return False
    counts = study.counts
    return counts.total() >= total and not counts["running"]


def _done(counts: Counter[str]) -> int:
    """Trials that ended, or wait at a rung."""
    return counts.total() - counts["running"]


def _nothing_added(study: Study, total: int) -> str:
    done = study.counts.total()
    asked = f"all {total} trials" if done == total else f"{done} trials, {total} were asked for,"
    return f"{study.folder}: {asked} are done; nothing was added. For more: --trials {2 * done}"


# --- the session ----------------------------------------------------------------------------------------------------


def _run(
    study: Study,
    space: Space,
    options: Options,
    *,
    total: int,
    data_path: str | None,
    command: str,
    noted: Manifest,
    write: Callable[[str], None],
) -> tuple[bool, str | None, bool]:
    """(whether it was interrupted, why the search stopped, whether nothing is left to draw).

    Heavy imports are here, not before anything was checked.
    """
    import math

    PROCESS.begin("opening")
    # first of all the heavy things: what follows must not be cut in two by seconds of imports
    write("starting the workers ...")
    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.engines import crash
    from mlpspace.optuna_tables import forget
    from mlpspace.results import Limits
    from mlpspace.search import Search
    from mlpspace.stopping import Plateau

    seed = _seed(space, options)
    domain = SpaceDomain(space, data_path=data_path, checkpoint_s=options.checkpoint_every, resident=options.resident)
    sampler = sampling.make(options.sampler or space.sampler, domain, seed=seed)
    with ExitStack() as stack:
        writer = stack.enter_context(study.writing(command, total=total, manifest=noted.told))
        noted.keep_diff(study.folder)  # by the one writer, as all that is noted
        if data_path is not None and data_path != data_path_of(study, space.fidelity.dataset):
            study.note_data(space.fidelity.dataset, data_path)
        view = stack.enter_context(_view(options, str(study.folder), write))
        if options.extend:
            extension.begin(study, space)
        if extension.is_unfinished(study):
            extension.translate(study, writer, space)
            forget(study.storage)  # Optuna's tables know no space that changes: they are made anew, from the ledger
        trials = _recalled(study)
        tables = stack.enter_context(mirror(study, domain, trials))
        extension.finish(study)
        writer.transactions.note = tables.transactions.note = view.note
        search = Search(
            domain,
            writer=counted(writer, "writing"),
            trials=trials,
            sampler=counted(sampler, "sampling"),
            mirror=counted(tables, "writing"),
            shelf=counted(Checkpoints(study.folder / "checkpoints"), "writing"),
            weights=None if options.keep == "none" else counted(Checkpoints(study.folder / "weights"), "writing"),
            keep_all=options.keep == "all",
            limits=Limits(trials=total, seconds=math.inf if options.time_budget is None else options.time_budget),
            seed=seed,
            repeats=space.fidelity.repeats_on_front,
            plateau=None if space.stop is None else Plateau(space.stop.patience, space.stop.gain),
            elapsed_seconds=study.elapsed_seconds,
            clock=time.monotonic,
            observe=view.result,
            begun=view.begun,
        )
        mixed = older_protocol.told(trials, space, study.folder, anew(space))
        del trials  # they need not be kept while the search runs
        view.search = search
        black_box = study.folder / "at-work"
        crashed = crash.take(black_box)
        told = None if crashed is None else search.crashed(*crashed)
        if told is not None:
            view.note(told)
        if search.done:
            view.note(_nothing_added(study, total))
        elif mixed is not None:
            view.note(mixed)
        interrupt = stack.enter_context(Interrupt(view.note))
        tallies = Tallies(writer.keep_wall_time, lambda: _of_the_driver(search))
        try:
            if not search.done:
                _engine(search, options, interrupt, view.note, data_path, space, black_box, tallies)
        except KeyboardInterrupt:
            interrupt.seen = True
        tallies.keep()
    if search.enough is not None and not interrupt.seen:
        hint = "To go on all the same, take `stop` out of the file's `search`, or make it more patient."
        return False, f"Stopped, as {search.enough}.\n  {hint}", True
    return interrupt.seen, search.stopped, search.exhausted


def _of_the_driver(search: Search) -> dict[str, float]:
    """What this process has spent its time on."""
    told = {kind: seconds for kind, seconds in PROCESS.tally().items() if kind in DRIVER}
    return told | ({} if search.ahead is None else {"ahead": search.ahead.seconds})


def _recalled(study: Study) -> list[Trial]:
    """All trials, with the curves of those that go on, or may."""

    def look(reader: Reader) -> list[Trial]:
        trials = reader.trials(curves=False)
        going_on = [trial.number for trial in trials if trial.state in ("running", "paused")]
        found = {trial.number: trial for trial in (reader.trials(going_on) if going_on else ())}
        return [found.get(trial.number, trial) for trial in trials]

    return study.at_one_instant(look)


def _engine(
    search: Search,
    options: Options,
    interrupt: Interrupt,
    note: Callable[[str], None],
    data_path: str | None,
    space: Space,
    black_box: Path,
    tallies: Tallies,
) -> None:
    measures_on = space.deployment.device
    if options.engine == "inline":
        from mlpspace.engines import inline

        inline.run(
            search,
            device=options.device,
            interrupted=lambda: interrupt.seen,
            note=note,
            black_box=black_box,
            tallies=tallies,
            measures_on=measures_on,
        )
        return
    from mlpspace.engines import ray_tune
    from mlpspace.sharing import trials_of

    wanted = ray_tune.Wanted(
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker,
        address=options.address,
        device=options.device,
        data_path=data_path,
        measures_on=measures_on,
    )
    ray_tune.run(
        search,
        wanted=wanted,
        interrupted=lambda: interrupt.seen,
        note=note,
        tallies=tallies,
        trials=lambda: trials_of(space, data_path=data_path, resident=options.resident),
    )


@contextmanager
def _view(options: Options, title: str, write: Callable[[str], None]) -> Iterator[LiveView | PlainView]:
    from mlpspace.live import LiveView, PlainView

    view = PlainView(write) if options.plain or not sys.stdout.isatty() else LiveView(title)
    with view:
        yield view


def _outcome(
    study: Study,
    space: Space,
    total: int,
    options: Options,
    file: str,
    *,
    interrupted: bool,
    stopped: str | None,
    exhausted: bool = False,
) -> Outcome:
    counts = study.counts
    done = _done(counts)
    left = f"{stopped.rstrip('.')}.\n  {done} of {total} trials are done." if stopped and done < total else None
    words = ["mlpspace", "search", file]
    for name, path in options.data.items():
        words += ["--data", f"{name}={path}"]
    if options.named:
        words += ["--study", str(study.folder)]
    for flag in ("trials", "seed", "sampler", "workers", "gpus_per_worker", "address", "resident"):
        value = getattr(options, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    if options.device != "auto":
        words += ["--device", options.device]
    if options.engine != "ray":
        words += ["--engine", options.engine]
    if options.keep != "front":
        words += ["--keep", options.keep]
    return Outcome(
        study=study,
        space=space,
        done=done,
        complete=counts["complete"],
        total=total,
        interrupted=interrupted,
        unfinished=left,
        go_on=None if exhausted else shlex.join(words),
    )
