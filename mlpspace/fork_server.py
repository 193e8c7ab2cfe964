"""Fresh processes at the price of a fork.

A process imports a module, does nothing with it, and forks for each question. So each answer comes out of a process in
which nothing was done before, as out of a new one, without the seconds that its imports would take.

    python -m mlpspace.fork_server MODULE FUNCTION      a line of JSON for each question, one for each answer

The function takes what the JSON says. Its threads are the child's own: the server starts none.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

from mlpspace.fresh_process import FreshProcessError, environment

PR_SET_PDEATHSIG = 1  # prctl(2): what a child gets when its parent ends
READY_S = 120.0  # until it has imported its module
END_S = 5.0  # until it has ended


class NoAnswer(FreshProcessError):
    """Within the time that there was."""


class ForkServer:
    """Asks a function of a module, each time in a process of its own. For one thread, on Linux.

    It starts with the first question, and ends with the process that has it, however that ends.
    """

    def __init__(self, module: str, function: str) -> None:
        self._asks = [module, function]
        self._server: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None  # what it has to say beside its answers, such as why it ended

    def start(self) -> None:
        """Have it ready, which takes as long as the imports of its module.

        Raises:
            FreshProcessError: it does not start.
        """
        if self._server is not None and self._server.poll() is None:
            return
        self.close()
        try:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the server
            self._server = subprocess.Popen(
                [sys.executable, "-m", "mlpspace.fork_server", *self._asks],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is for its owner
            )
        except OSError as error:
            raise FreshProcessError(str(error)) from error
        self._hear(READY_S)

    def ask(self, told: Any, *, timeout_s: float) -> Any:
        """What the function answers.

        Raises:
            NoAnswer: within that time.
            FreshProcessError: the process that was to answer died.
        """
        self.start()
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._said is not None
        os.ftruncate(self._said.fileno(), 0)  # what an earlier one said
        self._said.seek(0)
        try:
            self._server.stdin.write(json.dumps(told).encode() + b"\n")
            self._server.stdin.flush()
        except OSError as error:
            raise FreshProcessError(self._ended()) from error
        answer = json.loads(self._hear(timeout_s))
        if "died" in answer:
            raise FreshProcessError(f"it died of {answer['died']}. {self._last_words()}".strip())
        return answer["found"]

    def close(self) -> None:
        """End it, with what it may be doing."""
        server, self._server = self._server, None
        if server is None:
            return
        assert server.stdin is not None
        assert server.stdout is not None
        assert self._said is not None
        with contextlib.suppress(OSError):  # what was not read is not asked any more
            server.stdin.close()  # it ends by itself then, and ends its child
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()
        self._said.close()

    def _hear(self, timeout_s: float) -> bytes:
        """Its next line. Whatever goes wrong, an interrupt too, it is ended: it would answer the wrong question."""
        server = self._server
        assert server is not None
        assert server.stdout is not None
        line, until = b"", time.monotonic() + timeout_s
        try:
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([server.stdout], [], [], max(0.0, until - time.monotonic()))
                if not readable:
                    raise NoAnswer(f"no answer within {timeout_s:.0f} s")
                more = os.read(server.stdout.fileno(), 65536)
                if not more:
                    raise FreshProcessError(self._ended())
                line += more
        except BaseException:
            self.close()
            raise
        return line

    def _ended(self) -> str:
        """Why the server itself did."""
        assert self._server is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._server.wait(END_S)
            if code < 0:
                return f"it died of {signal.Signals(-code).name}. {self._last_words()}".strip()
        return self._last_words() or "it ended without a word"

    def _last_words(self) -> str:
        assert self._said is not None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def _serve(answer: Callable[[Any], Any], asked: int, answers: int) -> None:
    """Until the questions end: whoever asks has ended then, too."""
    gc.collect()
    gc.freeze()  # what is shared with the children shall not be written to by their collector
    waiting = b""
    while True:
        while b"\n" not in waiting:
            more = os.read(asked, 65536)
            if not more:
                return
            waiting += more
        line, _, waiting = waiting.partition(b"\n")
        os.write(answers, _answered(answer, line, asked, answers))


def _answered(answer: Callable[[Any], Any], line: bytes, asked: int, answers: int) -> bytes:
    """A child's answer, or what it died of."""
    ours, theirs = os.pipe()
    server = os.getpid()
    try:
        child = os.fork()
    except OSError as error:
        os.close(ours)
        os.close(theirs)
        return json.dumps({"died": str(error)}).encode() + b"\n"
    if child == 0:
        # Ray ends a worker's children and not theirs
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        os.close(ours)
        os.close(answers)  # or nobody would see that the server has ended
        try:
            with open(theirs, "wb") as out:
                out.write(json.dumps({"found": answer(json.loads(line))}).encode() + b"\n")
            os._exit(0)
        finally:  # an error is printed by the one who raised it
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    os.close(theirs)
    found = b""
    with open(ours, "rb", buffering=0) as reader:
        watched: list[Any] = [reader, asked]
        while True:
            readable, _, _ = select.select(watched, [], [])
            if asked in readable:  # nobody asks twice at once: the one who asked has ended
                os.kill(child, signal.SIGKILL)
                os._exit(0)
            more = reader.read(65536)
            if not more:
                break
            found += more
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return json.dumps({"died": signal.Signals(os.WTERMSIG(status)).name}).encode() + b"\n"
    return found or json.dumps({"died": "an error"}).encode() + b"\n"


def _main() -> None:
    answer = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    os.write(answers, b"ready\n")
    _serve(answer, 0, answers)


if __name__ == "__main__":
    _main()
