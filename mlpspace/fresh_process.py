"""A question to a fresh process of ours: a module of mlpspace, run with JSON as its argument, that answers in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from mlpspace.errors import UserError

PROCESSES = 5  # that calibrate a machine; $MLPSPACE_CALIBRATION says another number


class FreshProcessError(UserError):
    """It did not answer; the text is its last line."""


def fresh_processes() -> int:
    """How many calibrate a machine; 1: this one does, and no fresh one is asked for anything but to measure again.

    Raises:
        UserError: the setting is no such number.
    """
    told = os.environ.get("MLPSPACE_CALIBRATION") or str(PROCESSES)
    if not told.isdecimal() or not 1 <= int(told) <= 100:
        raise UserError(f'MLPSPACE_CALIBRATION "{told}" is no number of processes from 1 to 100; {PROCESSES} is usual.')
    return int(told)


def environment() -> dict[str, str]:
    """What a process of ours needs: on a node of a cluster mlpspace lies wherever Ray put it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def ask(module: str, told: Any, *, timeout_s: float) -> Any:
    """What `module` answers: see `answer`.

    Raises:
        FreshProcessError: it failed, or took longer than `timeout_s`.
    """
    command = [sys.executable, "-m", module, json.dumps(told)]
    try:
        ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=True)
        return json.loads(ran.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise FreshProcessError(lines[-1] if lines else str(error)) from error


def answer(work: Callable[[Any], Any]) -> None:
    """The whole of such a module's main: `work` on what was told."""
    found = work(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps(found) + "\n")
