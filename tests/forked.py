"""What forks are asked in tests/test_fork_server.py."""

from __future__ import annotations

import os
import signal
import sys
import time

asked = 0


def times(told: int) -> list[int]:
    """[told, the process, its parent, how often this was asked there]"""
    global asked
    asked += 1
    return [told, os.getpid(), os.getppid(), asked]


def obey(told: str) -> str:
    if told == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if told == "fail":
        raise ZeroDivisionError("in a fork")
    if told == "warn":
        print("UserWarning: something harmless", file=sys.stderr, flush=True)
    if told == "print":
        print("a library says something")
    if told.startswith("sleep"):
        _, seconds, file = told.split()
        with open(file, "w") as out:
            out.write(str(os.getpid()))
        time.sleep(float(seconds))
    return told


def dies(told: object) -> None:
    obey("die")


def sleeps(told: object) -> None:
    time.sleep(60)


def dies_once(told: object) -> dict[str, object]:
    died = os.environ["FORKED_DIED"]
    if not os.path.exists(died):
        open(died, "w").close()
        obey("die")
    return {"measurements": []}


def finds_no_compiler(told: object) -> dict[str, str]:
    return {"wrong": "no compiler"}
