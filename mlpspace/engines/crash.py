"""What a trial leaves behind that takes the whole process with it, so that the next session knows who did it.

Where trials have processes of their own, whoever started those sees them die. A search that trains in its own process
sees nothing: it writes down whom it trains, Python writes below where it crashed, and the kernel counts how often it
ran out of memory.
"""

from __future__ import annotations

import faulthandler
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlpspace.errors import UserError, printable

_MOST_BYTES = 100_000
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_COUNTS = Path("/proc/vmstat")


class BlackBox:
    """The trial at work, in `file`; a line, and below it what Python says of a crash.

    Used as a context: an end by any way that Python knows of deletes the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> BlackBox:
        try:
            self._stream = self._file.open("wb", buffering=0)
        except OSError as error:
            raise UserError(f"{self._file} cannot be written ({error.strerror}).") from None
        self._before = faulthandler.is_enabled()
        faulthandler.enable(self._stream, all_threads=False)
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.disable()
        if self._before and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        self._stream.close()
        self._file.unlink(missing_ok=True)

    def note(self, trial: int | None) -> None:
        """From now on it is this trial's doing, or none's."""
        line = b"" if trial is None else json.dumps({"trial": trial, **_out_of_memory()}).encode() + b"\n"
        with suppress(OSError):  # of a full disk; the ledger, which needs more, says so
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(line)


def take(file: Path) -> tuple[int, str] | None:
    """Which trial ended an earlier session, and how; None where none did, or somebody killed it. Deletes `file`."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    file.unlink(missing_ok=True)
    head, _, crash = text.partition("\n")
    try:
        noted = json.loads(head)
        trial = noted["trial"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(trial, int) or isinstance(trial, bool):
        return None
    if crash.strip():
        return trial, _told(crash)
    now = _out_of_memory()
    before = noted.get("out_of_memory")
    if noted.get("boot") == now.get("boot") and isinstance(before, int) and now.get("out_of_memory", 0) > before:
        return trial, "the kernel ran out of memory and ended the process"
    return None


def _out_of_memory() -> dict[str, Any]:
    """How often the kernel ended a process since it started, as it has no other way to say whom."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _COUNTS.read_text(), re.MULTILINE)
        return {"boot": _BOOT.read_text().strip(), "out_of_memory": int(found[1])} if found else {}
    except OSError:  # another system than Linux
        return {}


def _told(crash: str) -> str:
    """`Fatal Python error: Segmentation fault` and the place, in one line."""
    lines = [printable(line.strip()) for line in crash.splitlines() if line.strip()]
    what = lines[0].removeprefix("Fatal Python error: ")
    place = next((line for line in lines if line.startswith("File ")), None)
    return f"the process crashed: {what}" + (f" at {place}" if place else "")
