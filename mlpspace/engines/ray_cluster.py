"""The Ray that a search runs on, started on this machine or joined; and the folder that Tune asks for."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from mlpspace.engines.ray_mended import own_signals
from mlpspace.engines.resources import EngineError, Wanted
from mlpspace.quiet import node_folder


@contextmanager
def cluster(wanted: Wanted, **resources: float) -> Iterator[None]:
    """Ray as it is asked for, where it does not run in this process already.

    Args:
        resources: that a Ray started here believes to have, such as num_gpus; in tests.

    Raises:
        EngineError: it cannot be reached, or not be started.
    """
    already = ray.is_initialized()
    if not already:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if wanted.address is None:
            # assignments and events are small: a store of a third of the memory would only be in the way
            # "local": without it Ray joins whatever cluster runs here already
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20, **resources}
        else:
            options["address"] = wanted.address
            # the nodes need what mlpspace needs, but not mlpspace: they get the one that runs here
            options["runtime_env"] = {"py_modules": [str(Path(__file__).parents[1])]}
        if " " in sys.executable:  # Ray pastes it into a shell's line as it is, and then waits without end
            options.setdefault("runtime_env", {})["py_executable"] = shlex.quote(sys.executable)
        _knock(wanted)
        try:
            with warnings.catch_warnings(), own_signals():
                warnings.simplefilter("ignore")
                ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable(wanted, str(error).splitlines()[0]) from None
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


def _knock(wanted: Wanted) -> None:
    """Is anybody there? Ray itself tries for minutes."""
    host, colon, port = (wanted.address or "").rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _unreachable(wanted, error.strerror or str(error)) from None


def _unreachable(wanted: Wanted, why: str) -> EngineError:
    text = f"Ray cannot be reached at {wanted.address or 'this machine'}: {why}."
    text += "\n  To start a cluster: ray start --head, then --address auto on that machine."
    if wanted.address is not None:
        text += "\n  One that asks for a token: export RAY_AUTH_MODE=token, and have its ~/.ray/auth_token here too."
    return EngineError(text)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what Tune insists on writing; nothing in it is needed again. Those of dead drivers are cleared away:
    a driver's lock on its own ends with it, however it ends.
    """
    place = node_folder() / "tune"
    place.mkdir(exist_ok=True)
    for left in place.glob("*.lock"):
        with suppress(OSError), left.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink()
    descriptor, name = tempfile.mkstemp(suffix=".lock", dir=place)
    with os.fdopen(descriptor) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(name).with_suffix("")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(name).unlink(missing_ok=True)
