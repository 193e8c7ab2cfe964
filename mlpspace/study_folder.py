"""What lies in a study's folder: files and folders of its own, no way out of it."""

from __future__ import annotations

import os
from pathlib import Path

from mlpspace.errors import StudyError

_INNER = ("checkpoints", "weights")
_MOST_BYTES = 50_000_000  # of a text


def check_folder(folder: Path) -> None:
    """Before anything in a study's folder is opened: a stranger's may hold a link to somebody's own files, which a
    search would write to or clear away, or a pipe, which nothing comes out of.

    Raises:
        StudyError: there is one; nothing was touched.
    """
    for place in (folder, *(folder / name for name in _INNER)):
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:  # it is not there, or no folder: whoever needs it says so
            continue
        for entry in entries:
            if entry.name.startswith("."):  # none of ours
                continue
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                kind = f"a link to {os.readlink(entry)}" if entry.is_symlink() else "no file and no folder"
                raise StudyError(
                    f"{entry.path} is {kind}; a study's folder holds files of its own alone. Nothing was touched.\n"
                    "  If the study is yours, put in its place what it stands for; a stranger's may mean harm."
                )


def read_text(path: Path) -> str:
    """A text of a study's folder.

    Raises:
        StudyError: it cannot be read.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise StudyError(f"{path} is larger than any that mlpspace writes; it is left as it is.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path} cannot be read ({error}). It was written when the study was made: put it back."
        ) from None
