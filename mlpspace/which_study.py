"""Which study a search is of: the one that was named, the one of the same space, or a new one."""

from __future__ import annotations

import shlex
from pathlib import Path

from mlpspace import extension
from mlpspace.address import Address
from mlpspace.errors import SpaceError, StudyError, UserError
from mlpspace.space import Space, read_space
from mlpspace.storage import holds_study, is_at, on_a_server, studies_in
from mlpspace.study import Study

STUDIES = Path("studies")


def study_of(space: Space, folder: Path | None, address: Address | None, *, extend: bool) -> Study | None:
    """The study to go on with; None where a new one is to be made.

    Args:
        folder: that was named; None: whichever in `studies` is of this space.
        address: where its tables are to be; None: wherever they are.
        extend: the study's space becomes this one.

    Raises:
        StudyError: `folder` holds another space; the text has the difference. Or its server cannot be reached.
    """
    if extend and (folder is None or not holds_study(folder)):
        raise UserError("--extend goes on with a study in a wider space: say which, with --study FOLDER.")
    if folder is not None:
        if not holds_study(folder):
            return None
        study = Study(folder, address=address)
        if extend:
            extension.check(study, _space_of(study), space)
        else:
            _refuse_another(space, study)
        return study
    for place in studies_in(STUDIES):
        if not _may_be(place, space, address):
            continue
        try:
            return Study(place, address=address)
        except StudyError:
            if on_a_server(place):  # that it is away is no reason to begin anew
                raise
            continue  # not ours to judge here: `mlpspace status` tells what is wrong with it
    return None


def _may_be(place: Path, space: Space, address: Address | None) -> bool:
    """Whether the study in `place` is of `space`, and where `address` says. No server is asked."""
    try:
        text = (place / "space.yaml").read_text(encoding="utf-8")
        return is_at(place, address) and read_space(text, str(place / "space.yaml")).id == space.id
    except (StudyError, SpaceError, OSError, UnicodeDecodeError):
        return False


def _space_of(study: Study) -> Space:
    return read_space(study.space_text, str(study.folder / "space.yaml"))


def _refuse_another(space: Space, study: Study) -> None:
    theirs = _space_of(study)
    if theirs.id == space.id:
        return
    lines = [f"{study.folder} was searched with another space:"]
    lines += [f"  {line}" for line in extension.differences(theirs, space)]
    going_on = ["mlpspace", "search", str(study.folder / "space.yaml"), "--study", str(study.folder)]
    wider = ["mlpspace", "search", space.path, "--study", str(study.folder), "--extend"]
    lines.append(f"  To go on as before: {shlex.join(going_on)}")
    try:
        extension.check(study, theirs, space)
        lines.append(f"  To go on in this one, which holds all that was measured: {shlex.join(wider)}")
    except StudyError:
        pass  # it does not
    lines.append(f"  To start anew:      {anew(space)}")
    raise StudyError("\n".join(lines))


def anew(space: Space) -> str:
    """The command that begins another study."""
    return shlex.join(["mlpspace", "search", space.path, "--study", str(next_folder())])


def next_folder() -> Path:
    """For a new study that nobody named."""
    taken = {path.name for path in STUDIES.glob("run*")}
    return next(STUDIES / f"run{n}" for n in range(1, len(taken) + 2) if f"run{n}" not in taken)


def data_path_of(study: Study | None, dataset: str) -> str | None:
    """Where the dataset lay when the study was made: the same command need not say it again."""
    noted = None if study is None else study.manifest.get("data")
    path = noted.get(dataset) if isinstance(noted, dict) else None
    return path if isinstance(path, str) else None
