"""One session of a search: which study, what is left to do, which engine, what is shown meanwhile."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpspace.data import catalog
from mlpspace.errors import DataError, SpaceError, StudyError, UserError, did_you_mean
from mlpspace.manifest import manifest
from mlpspace.space import Space, load_space, read_space
from mlpspace.space.reader import SAMPLERS
from mlpspace.study import Study, Trial
from mlpspace.trial import SET_ASIDE

if TYPE_CHECKING:
    from mlpspace.domain import SpaceDomain
    from mlpspace.live import LiveView, PlainView
    from mlpspace.optuna_tables import OptunaTables
    from mlpspace.search import Search

STUDIES = Path("studies")


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
    plain: bool = False
    named: bool = False  # --study was given


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
    space = load_space(file)
    if options.sampler is not None:
        check_sampler(options.sampler)
    for name in options.data:
        if name != space.fidelity.dataset:
            raise DataError(f"--data {name}=...: the space uses {space.fidelity.dataset}, not {name}.")
    study = _study_of(space, folder)
    total = options.trials or space.trials
    if study is not None and _is_done(study, space, total):
        write(_nothing_added(study, total))
        return _outcome(study, space, total, options, file, interrupted=False, stopped=None)
    if study is not None and options.time_budget is not None and study.elapsed_seconds >= options.time_budget:
        reason = f"time budget reached: the study has taken {study.elapsed_seconds:,.0f} s"
        return _outcome(study, space, total, options, file, interrupted=False, stopped=reason)
    path = options.data.get(space.fidelity.dataset) or _data_path_of(study, space.fidelity.dataset)
    catalog.check(space.fidelity.dataset, path, space.classes)
    path = path and str(Path(path).resolve())
    if study is None:
        study = _create(folder or _next_folder(), space, command, path)
        write(f"new study {study.folder}")
    else:
        done = _done(study.trials())
        write(f"going on with {study.folder}: {done} of {total} trials done")
    interrupted, stopped, exhausted = _run(
        study, space, options, total=total, data_path=path, command=command, write=write
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


# --- which study ----------------------------------------------------------------------------------------------------


def _study_of(space: Space, folder: Path | None) -> Study | None:
    """The study to go on with; None where a new one is to be made.

    Raises:
        StudyError: `folder` holds another space; the text has the difference.
    """
    if folder is not None:
        if not (folder / "study.db").exists():
            return None
        study = Study(folder)
        _refuse_another(space, study)
        return study
    for database in sorted(STUDIES.glob("*/study.db")):
        try:
            study = Study(database.parent)
            if _space_of(study).id == space.id:
                return study
        except (StudyError, SpaceError, OSError):
            continue  # not ours to judge here: `mlpspace status` tells what is wrong with it
    return None


def _space_of(study: Study) -> Space:
    return read_space(study.space_text, str(study.folder / "space.yaml"))


def _refuse_another(space: Space, study: Study) -> None:
    theirs = _space_of(study)
    if theirs.id == space.id:
        return
    ours_said, theirs_said = space.said(), theirs.said()
    lines = [f"{study.folder} was searched with another space:"]
    for name in sorted({*ours_said, *theirs_said}):
        was, now = theirs_said.get(name, "not there"), ours_said.get(name, "not there")
        if was != now:
            lines.append(f"  {name} was {was}, is {now}")
    going_on = ["mlpspace", "search", str(study.folder / "space.yaml"), "--study", str(study.folder)]
    anew = ["mlpspace", "search", space.path, "--study", str(_next_folder())]
    lines.append(f"  To go on:      {shlex.join(going_on)}")
    lines.append(f"  To start anew: {shlex.join(anew)}")
    raise StudyError("\n".join(lines))


def _next_folder() -> Path:
    taken = {path.name for path in STUDIES.glob("run*")}
    return next(STUDIES / f"run{n}" for n in range(1, len(taken) + 2) if f"run{n}" not in taken)


def _create(folder: Path, space: Space, command: str, data_path: str | None) -> Study:
    data = {space.fidelity.dataset: data_path} if data_path else {}
    told = manifest(command=command, space_id=space.id, data=data)
    return Study.create(folder, space_text=space.text, manifest=told)


def _data_path_of(study: Study | None, dataset: str) -> str | None:
    """Where the dataset lay when the study was made: the same command need not say it again."""
    return None if study is None else study.manifest.get("data", {}).get(dataset)


def _is_done(study: Study, space: Space, total: int) -> bool:
    """Whether that can be told at a glance. What waits at rungs and what is to be trained anew only a search knows."""
    if len(space.fidelity.epochs) > 1 or space.fidelity.repeats_on_front:
        return False
    trials = study.trials()
    return _trained(trials) >= total and not any(trial.state == "running" for trial in trials)


def _done(trials: list[Trial]) -> int:
    """Those that count and ended, or wait at a rung."""
    return _trained([trial for trial in trials if trial.state != "running"])


def _trained(trials: list[Trial]) -> int:
    """Those that count: a network that was set aside before training does not."""
    return sum(trial.reason != SET_ASIDE for trial in trials)


def _nothing_added(study: Study, total: int) -> str:
    done = _trained(study.trials())
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
    write: Callable[[str], None],
) -> tuple[bool, str | None, bool]:
    """(whether it was interrupted, why the search stopped, whether nothing is left to draw).

    Heavy imports are here, not before anything was checked.
    """
    import math

    # first of all the heavy things: what follows must not be cut in two by seconds of imports
    write("starting the workers ...")
    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.results import Limits
    from mlpspace.search import Search
    from mlpspace.stopping import Plateau

    seed = space.seed if options.seed is None else options.seed
    domain = SpaceDomain(space, data_path=data_path)
    sampler = sampling.make(options.sampler or space.sampler, domain, seed=seed)
    with ExitStack() as stack:
        writer = stack.enter_context(study.writing(command, total=total))
        if data_path is not None and data_path != _data_path_of(study, space.fidelity.dataset):
            study.note_data(space.fidelity.dataset, data_path)  # by the one writer, as all that is noted
        view = stack.enter_context(_view(options, str(study.folder), write))
        trials = study.trials()
        tables = stack.enter_context(mirror(study, domain, trials))
        search = Search(
            domain,
            writer=writer,
            trials=trials,
            sampler=sampler,
            mirror=tables,
            shelf=Checkpoints(study.folder / "checkpoints"),
            limits=Limits(trials=total, seconds=math.inf if options.time_budget is None else options.time_budget),
            seed=seed,
            repeats=space.fidelity.repeats_on_front,
            plateau=None if space.stop is None else Plateau(space.stop.patience, space.stop.gain),
            elapsed_seconds=study.elapsed_seconds,
            clock=time.monotonic,
            observe=view.result,
        )
        view.search = search
        if search.done:
            view.note(_nothing_added(study, total))
        interrupt = stack.enter_context(_Interrupt(view.note))
        try:
            if not search.done:
                _engine(search, options, interrupt)
        except KeyboardInterrupt:
            interrupt.seen = True
    if search.enough is not None and not interrupt.seen:
        hint = "To go on all the same, take `stop` out of the file's `search`, or make it more patient."
        return False, f"Stopped, as {search.enough}.\n  {hint}", True
    return interrupt.seen, search.stopped, search.exhausted


@contextmanager
def mirror(study: Study, domain: SpaceDomain, trials: list[Trial]) -> Iterator[OptunaTables]:
    """Optuna's tables of the study, brought in line with the ledger."""
    from mlpspace.optuna_tables import OptunaTables
    from mlpspace.sampling.optuna_samplers import distribution

    distributions = {dim.name: distribution(dim) for dim, _ in domain.dimensions}
    tables = OptunaTables(
        study.database,
        study_name=study.folder.resolve().name,
        directions=[objective.goal for objective in domain.objectives],
        metric_names=[objective.metric for objective in domain.objectives],
        distributions_of=lambda point: {name: distributions[name] for name in point},
    )
    try:
        tables.reconcile(trials)
        yield tables
    finally:
        tables.close()


def _engine(search: Search, options: Options, interrupt: _Interrupt) -> None:
    if options.engine == "inline":
        from mlpspace.engines import inline

        inline.run(search, device=options.device, interrupted=lambda: interrupt.seen)
        return
    from mlpspace.engines import ray_tune

    wanted = ray_tune.Wanted(
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker,
        address=options.address,
        device=options.device,
    )
    ray_tune.run(search, wanted=wanted, interrupted=lambda: interrupt.seen)


class _Interrupt:
    """The first Ctrl-C asks the engine to end; the second one ends it at once."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.seen = False
        self._note = note
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        with suppress(RuntimeError):  # it came in the middle of another line
            self._note("Ctrl-C: the workers are ending. Once more ends at once; nothing that was measured is lost.")


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
    trials: list[Trial] = study.trials()
    done = _done(trials)
    left = f"{stopped.rstrip('.')}.\n  {done} of {total} trials are done." if stopped and done < total else None
    words = ["mlpspace", "search", file]
    for name, path in options.data.items():
        words += ["--data", f"{name}={path}"]
    if options.named:
        words += ["--study", str(study.folder)]
    for flag in ("trials", "seed", "sampler", "workers", "gpus_per_worker", "address"):
        value = getattr(options, flag)
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    if options.device != "auto":
        words += ["--device", options.device]
    if options.engine != "ray":
        words += ["--engine", options.engine]
    return Outcome(
        study=study,
        space=space,
        done=done,
        complete=sum(trial.state == "complete" for trial in trials),
        total=total,
        interrupted=interrupted,
        unfinished=left,
        go_on=None if exhausted else shlex.join(words),
    )
