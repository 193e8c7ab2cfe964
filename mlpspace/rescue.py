"""What can be read of a study whose study.db is damaged, as a new study.

Rows are taken as `damaged_file` finds them and checked as every reader checks them. SQLite keeps no checksums, so a
number that was changed into another that makes sense stays unseen. An architecture is told by its content id, and where
its row is lost it is made again from the point that the sampler drew.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlpspace import checkpoints, extension, ledger_rows, ledger_tables
from mlpspace.architecture import Architecture
from mlpspace.damaged_file import DamagedFile
from mlpspace.errors import ArchitectureError, StudyError
from mlpspace.fingerprint import Fingerprint, content_id
from mlpspace.ledger import driver_of
from mlpspace.objectives import METRICS
from mlpspace.recipe import Recipe
from mlpspace.space import Space, read_space
from mlpspace.space.dims import Choice, Span, contains
from mlpspace.storage import on_a_server
from mlpspace.study import Study, no_study_at
from mlpspace.study_folder import check_folder, read_text
from mlpspace.trial import Record, Trial

Row = dict[str, Any]
_LATEST = 2e11  # seconds since 1970; beyond it there are no dates
_STATES = ("checkpoints", "weights")


@dataclass(frozen=True, kw_only=True)
class Rescued:
    """What could be read, and where it is."""

    folder: Path
    trials: int
    known: int  # trials that there were, as far as anything tells
    measurements: int
    epochs: int
    left_out: int  # rows that make no sense, or are of nothing that could be read
    again: int  # trials some of whose measurements are lost: a search measures them again
    nameless: int  # measurements whose circumstances are lost
    renumbered: bool


def rescue(folder: Path, to: Path) -> Rescued | None:
    """Save what can be read of the study in `folder` as a new study in `to`. None: nothing can, and nothing is made.

    Nothing in `folder` is touched. `to` is there as a whole or not at all. Where trials are lost, the others are
    numbered anew from 0 in their order, as a search knows no holes.

    Raises:
        StudyError: there is no such study, it is being searched, a newer mlpspace wrote it, or `to` is taken.
        SpaceError: its space.yaml is none.
    """
    _check_places(folder, to)
    space_text = read_text(folder / "space.yaml")
    space = read_space(space_text, str(folder / "space.yaml"))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as beside:
            found = _read(DamagedFile(folder / "study.db", Path(beside)), folder, space)
            if not found.trials and found.damaged:
                return None
            again = _set_back(found, folder, space) if found.damaged else set()
            numbers = {old: new for new, old in enumerate(sorted(found.trials))}
            study = Study.create(Path(beside) / "study", space_text=space_text, manifest=_manifest(folder))
            _fill(study, found, numbers)
            _copy_files(folder, study.folder, numbers, again)
            (study.folder / "lock").unlink(missing_ok=True)
            study.folder.rename(to)
    except OSError as error:
        raise StudyError(f"{to} cannot be made ({error.strerror or error}). {folder} is as it was.") from None
    return Rescued(
        folder=to,
        trials=len(found.trials),
        known=found.known,
        measurements=len(found.measurements),
        epochs=len(found.progress),
        left_out=found.left_out,
        again=len(again),
        nameless=sum(row["fingerprint"] not in {None, *found.fingerprints} for row in found.measurements.values()),
        renumbered=any(old != new for old, new in numbers.items()),
    )


def _check_places(folder: Path, to: Path) -> None:
    check_folder(folder)
    if on_a_server(folder):
        raise StudyError(
            f"{folder} has its tables on a server, and this is for damaged files.\n"
            "  A server's tables are put back from its own backups (pg_dump, pg_restore)."
        )
    if not (folder / "study.db").is_file():
        raise no_study_at(folder)
    driver = driver_of(folder)
    if driver is not None:
        raise StudyError(f"{folder} is being searched by {driver}. Let that end first.")
    if to.resolve().is_relative_to(folder.resolve()):
        raise StudyError(f"{to} lies in {folder}, which is left as it is. Give another folder: --to FOLDER")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StudyError(f"{to} is there already. Give another folder: --to FOLDER")


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Found:
    """The rows that make sense, by what they are of; trials under their old numbers."""

    source: str
    architectures: dict[str, Row] = field(default_factory=dict)
    trials: dict[int, Row] = field(default_factory=dict)
    fingerprints: dict[str, Row] = field(default_factory=dict)
    measurements: dict[Any, Row] = field(default_factory=dict)
    progress: dict[Any, Row] = field(default_factory=dict)
    refused: dict[str, Row] = field(default_factory=dict)
    sessions: dict[int, Row] = field(default_factory=dict)
    known: int = 0
    left_out: int = 0
    damaged: bool = False


def _read(file: DamagedFile, folder: Path, space: Space) -> _Found:
    ledger_tables.refuse_newer(file.version, str(folder / "study.db"))
    found = _Found(source=str(folder / "study.db"))
    # where an extension was cut off, points may be those of the space before: the next search puts them right
    free = (folder / extension.MARK).exists()
    dims = None if free else {dim.name: dim for dim, _ in space.dimensions()}

    rungs = set(enumerate(space.fidelity.epochs))

    def architecture(row: Row) -> str:
        if Architecture.from_json(row["json"]).id != row["id"]:
            raise ValueError("not what its content id says")
        for name in ("params", "macs", "tokens", "activations"):
            _number(row[name])
        return str(row["id"])

    def trial(row: Row) -> int:
        return _check_trial(row, found, space, dims)

    def fingerprint(row: Row) -> str:
        Fingerprint.from_json(row["json"])
        if content_id(row["json"]) != row["id"]:
            raise ValueError("not what its content id says")
        return str(row["id"])

    def measurement(row: Row) -> Any:
        number, record = ledger_rows.record({name: row[name] for name in _MEASURED}, found.source)
        Recipe.from_json(row["recipe"])
        if METRICS[record.metric].trained and (record.rung, record.epochs) not in rungs:
            raise ValueError("a rung that the space does not have")
        if row["architecture"] != _trial_of(number, found)["architecture"]:
            raise ValueError("of another architecture than its trial's")
        return number, record.attempt, record.metric, record.rung, record.repeat

    def epoch(row: Row) -> Any:
        number, told = ledger_rows.epoch({name: row[name] for name in ("trial", "epoch", "loss", "accuracy")}, "")
        _trial_of(number, found)
        return number, _number(row["attempt"]), told[0]

    def refused(row: Row) -> str:
        return next(iter(ledger_rows.refused([(row["reason"], row["count"])], found.source)))

    def session(row: Row) -> int:
        told = dict(row)
        ledger_rows.session({"number": told.pop("id"), **told}, found.source)
        return _number(row["id"])

    for table, check, rows in (
        (ledger_tables.architecture, architecture, found.architectures),
        (ledger_tables.trial, trial, found.trials),
        (ledger_tables.fingerprint, fingerprint, found.fingerprints),
        (ledger_tables.measurement, measurement, found.measurements),
        (ledger_tables.progress, epoch, found.progress),
        (ledger_tables.refused, refused, found.refused),
        (ledger_tables.session, session, found.sessions),
    ):
        if file.version >= ledger_tables.SINCE.get(table, 0):
            _take(file, table, check, rows, found)
    return found


def _take(file: DamagedFile, table: sa.Table, check: Callable[[Row], Any], rows: dict[Any, Row], found: _Found) -> None:
    """Into `rows` the rows of `table` that make sense, by their key; of two with one key the first.

    Args:
        check: gives the key of a row, or raises what reading it raises.
    """
    in_tree, whole = file.in_tree(table)
    for rowid in sorted(in_tree):
        key = _key(check, in_tree[rowid])
        if key is None or key in rows:
            found.left_out += 1
            whole = False
        else:
            rows[key] = in_tree[rowid]
    if whole and file.whole:
        return
    found.damaged = True
    for _, row in file.in_leaves(table):
        key = _key(check, row)
        if key is not None:
            rows.setdefault(key, row)


def _key(check: Callable[[Row], Any], row: Row) -> Any:
    """None: the row makes no sense."""
    try:
        for value in row.values():
            if isinstance(value, str):
                value.encode()  # what was no text came as half of a character
            elif isinstance(value, bytes):
                return None
        return check(row)
    except (StudyError, ArchitectureError, ValueError, TypeError, KeyError):
        return None


_MEASURED = (*Record.__dataclass_fields__, "trial")
_ALONE = ("architecture", "recipe", "resumed")  # columns that the row of a trial is not checked by
_NETWORK = {"params": 0, "macs": 0, "tokens": 0, "activations": 0, "architecture_json": ""}  # is checked by itself


def _check_trial(row: Row, found: _Found, space: Space, dims: Mapping[str, Choice | Span] | None) -> int:
    told = {name: value for name, value in row.items() if name not in _ALONE}
    told |= {"architecture_id": row["architecture"], "recipe_json": row["recipe"]}
    (trial,) = ledger_rows.trials([_NETWORK | told], {}, {}, found.source)
    Recipe.from_json(row["recipe"])
    for moment in (row["started"], row["ended"], row["resumed"]):
        if moment is not None and not 0 <= float(moment) < _LATEST:
            raise ValueError("no date")
    for name, value in (trial.point or {}).items():
        if dims is not None and not contains(dims[name], value):
            raise ValueError("not in the space")
    found.known = max(found.known, trial.number + 1)
    if trial.architecture_id not in found.architectures:
        found.architectures[trial.architecture_id] = _made_again(trial, space)
    return trial.number


def _made_again(trial: Trial, space: Space) -> Row:
    """The row of an architecture that could not be read, from the point that was drawn: the content id holds both
    together.

    Raises:
        ValueError, ArchitectureError: there is no point, or it is of another architecture.
    """
    from mlpspace.counts import profile  # which loads torch

    if trial.point is None:
        raise ValueError("its architecture is lost")
    network = space.decode(trial.point)
    if network.id != trial.architecture_id:
        raise ValueError("of another architecture than its point's")
    told = profile(network, space.resolution, space.classes)
    counts = {name: getattr(told, name) for name in ("params", "macs", "tokens", "activations")}
    return {"id": network.id, "json": network.to_json(), **counts}


def _trial_of(number: int, found: _Found) -> Row:
    """
    Raises:
        KeyError: it could not be read.
    """
    found.known = max(found.known, number + 1)
    return found.trials[number]


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no number")
    return value


# --- what a search can go on from -------------------------------------------------------------------------------------


def _set_back(found: _Found, folder: Path, space: Space) -> set[int]:
    """Trials run again where a measurement of theirs that was there is lost: no search would ever miss it.

    Returns which. They begin anew, so that their checkpoints are of no use.
    """
    untrained = {each.metric for each in space.objectives if METRICS[each.metric].measured}
    untrained -= {metric for metric in untrained if METRICS[metric].trained}
    trains = any(METRICS[each.metric].trained for each in space.objectives)
    metrics: defaultdict[int, set[str]] = defaultdict(set)
    rungs: defaultdict[int, set[int]] = defaultdict(set)
    for row in found.measurements.values():
        if row["repeat"] == 0:
            metrics[row["trial"]].add(row["metric"])
            if METRICS[row["metric"]].trained:
                rungs[row["trial"]].add(row["rung"])
    shelf = checkpoints.Checkpoints(folder / "checkpoints")
    again = set()
    for number, row in found.trials.items():
        state, epochs = row["state"], shelf.epochs(number)
        if state not in ("complete", "paused", "running") or (state == "running" and not epochs):
            continue
        behind = sum(each <= epochs for each in space.fidelity.epochs)  # rungs
        needed = {"complete": len(space.fidelity.epochs), "paused": max(1, behind), "running": behind}[state]
        if untrained <= metrics[number] and (not trains or set(range(needed)) <= rungs[number]):
            continue
        again.add(number)
        row.update(state="running", reason=None, detail=None, ended=None)
    return again


def _manifest(folder: Path) -> Mapping[str, Any]:
    """What the study noted of itself; nothing where that is damaged too: each session has its own beside it."""
    path = folder / "manifest.json"
    try:
        return ledger_rows.json_object(read_text(path), str(path))
    except StudyError:
        return {}


def _fill(study: Study, found: _Found, numbers: Mapping[int, int]) -> None:
    def renumbered(rows: Iterable[Row], name: str) -> list[Row]:
        return [{**row, name: numbers[row[name]]} for row in rows]

    tables = (
        (ledger_tables.architecture, list(found.architectures.values())),
        (ledger_tables.trial, renumbered(found.trials.values(), "number")),
        (ledger_tables.fingerprint, list(found.fingerprints.values())),
        (ledger_tables.measurement, renumbered(found.measurements.values(), "trial")),
        (ledger_tables.progress, renumbered(found.progress.values(), "trial")),
        (ledger_tables.refused, list(found.refused.values())),
        (ledger_tables.session, list(found.sessions.values())),
    )

    def write(connection: sa.Connection) -> None:
        for table, rows in tables:
            if rows:
                connection.execute(sa.insert(table), rows)

    with study.storage.writing(alone=True) as transactions:
        transactions.run(write)


def _copy_files(folder: Path, to: Path, numbers: Mapping[int, int], again: set[int]) -> None:
    """What else a search or a reader asks for: spaces before an extension, changes of the code, states of trainings."""
    for pattern in ("space-*.yaml", extension.MARK, "*.diff"):
        for file in folder.glob(pattern):
            shutil.copyfile(file, to / file.name)
    kept = {old: new for old, new in numbers.items() if old not in again}
    for name in _STATES:
        for file in (folder / name).glob("*.pt"):
            new = checkpoints.renamed(file.name, kept)
            if new is not None:
                (to / name).mkdir(exist_ok=True)
                shutil.copyfile(file, to / name / new)


def text(folder: Path, rescued: Rescued) -> str:
    """What came of it, and what to type next."""
    lost = rescued.known - rescued.trials
    of = f"{rescued.trials} of {rescued.known}" if lost else f"{rescued.trials}"
    lines = [
        f"{of} trials, {rescued.measurements} measurements and {rescued.epochs} epochs of {folder} could be read; they"
        f" are in {rescued.folder}."
    ]
    if lost:
        anew = "; the others are numbered anew from 0" if rescued.renumbered else ""
        lines.append(f"{lost} trial{'s are' if lost > 1 else ' is'} lost{anew}.")
    if rescued.again:
        some = "trials have" if rescued.again > 1 else "trial has"
        lines.append(f"{rescued.again} {some} lost measurements, which a search makes again.")
    if rescued.nameless:
        some = "measurements were" if rescued.nameless > 1 else "measurement was"
        lines.append(f"The clocks, driver and libraries under which {rescued.nameless} {some} made are lost.")
    if rescued.left_out:
        rows = f"{rescued.left_out} row{'s' if rescued.left_out > 1 else ''}"
        lines.append(f"{rows} left out, which make no sense or are of what is lost.")
    new = rescued.folder
    going_on = shlex.join(["mlpspace", "search", str(new / "space.yaml"), "--study", str(new)])
    lines += [f"  To go on: {going_on}", f"  To see them: {shlex.join(['mlpspace', 'pareto', str(new)])}"]
    return "\n".join(lines)
