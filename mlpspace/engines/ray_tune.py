"""The Ray Tune engine; `ray_worker` has what runs in its workers.

A leg of a trial (see `search`) is a trial to Tune. What pauses at a rung is stopped there, and its checkpoint goes to
the study's folder by way of the driver; when it is promoted, any worker takes it up as a new leg. So a paused trial
holds no worker, no worker needs storage that it shares with others, and a search that was cut off promotes on.

Tune keeps the workers (one actor each, reused from trial to trial) and hands our assignments to them. What is decided
is decided by `Search`; what is true is in the ledger. Tune's own snapshots, loggers and retries are off: a search that
was cut off is rebuilt from the ledger, never from a snapshot.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# read when ray is imported or started
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000000")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a box even when asked to be silent
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from mlpspace.engines.ray_worker import RayWorker, Work
from mlpspace.errors import UserError
from mlpspace.measurement import Evaluate
from mlpspace.search import Search

MOST_DEATHS = 12  # in a row; then it is the machine, and not the networks


class EngineError(UserError):
    """Ray cannot do what was asked; the text says what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for; None: what suits the machines."""

    workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None  # of a running cluster; None starts Ray here
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What each worker gets."""

    workers: int
    cpus: float
    gpus: float
    threads: int  # of torch
    device: str


class _Bridge:
    """Between Tune's callbacks and the search. Tune calls all of them in the driver's one thread."""

    def __init__(self, search: Search, workers: int, interrupted: Callable[[], bool]) -> None:
        self.search = search
        self.workers = workers
        self.interrupted = interrupted
        self.numbers: dict[str, int] = {}  # Tune's trial id -> ours, of the trials at work
        self.states: dict[str, list[ray.ObjectRef]] = {}  # what a trial goes on from, until its worker has it
        self.deaths = 0  # of workers, since any of them last came to an end by itself
        self.fatal: str | None = None

    def __reduce__(self) -> Any:
        return object, ()  # Tune pickles its state into snapshots that nobody reads; ours is in the ledger

    def __deepcopy__(self, memo: Any) -> _Bridge:
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.numbers) >= self.workers:
            return None
        assignment = self.search.next_assignment()
        if assignment is None:
            return str(Searcher.FINISHED) if self.search.done else None
        self.numbers[trial_id] = assignment.trial
        state = [] if assignment.state is None else [ray.put(assignment.state)]
        assignment = dataclasses.replace(assignment, state=None)
        work = Work(assignment, self.search.measured_bounds(assignment.trial), state)
        self.states[trial_id] = work.state
        return {"work": work}

    def take(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Report what a worker sent. False: the trial shall stop."""
        number = self.numbers.get(trial_id)
        self.states.pop(trial_id, []).clear()  # its worker has it: the object store need not hold it any longer
        if number is None:
            return False
        if not all(self.search.report(number, event) for event in result.get("events", ())):
            del self.numbers[trial_id]
            self.deaths = 0
            return False
        if "fatal" in result:
            self.fatal = str(result["fatal"])
            self.search.stop("failed")
        elif result.get("done"):
            self.deaths = 0
            self.search.completed(number)
        return True

    def ended(self, trial_id: str, result: Mapping[str, Any] | None, *, error: bool) -> None:
        if not error and result:
            self.take(trial_id, result)
        number = self.numbers.pop(trial_id, None)
        self.states.pop(trial_id, None)
        if error and number is not None:
            self.deaths += 1
            self.search.lost(number, "the worker's process ended")
            if self.deaths >= MOST_DEATHS:
                self.fatal = f"{self.deaths} workers in a row died before their trial ended; see `dmesg` for why."
                self.search.stop("failed")


class _Searcher(Searcher):
    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        return self._bridge.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._bridge.ended(trial_id, result, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class _Scheduler(FIFOScheduler):
    """Ends a leg where the search says so: at a rung it was not promoted from, or because the search is over."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        go_on = self._bridge.take(trial.trial_id, result)
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP


class _Stopper(Stopper):
    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if not result.get("done"):
            # Tune keeps each trial's last result for good, and a checkpoint may be in it; the scheduler has a copy
            result.pop("events", None)
        return False

    def stop_all(self) -> bool:
        return self._bridge.search.done or self._bridge.fatal is not None or self._bridge.interrupted()


def run(
    search: Search,
    *,
    wanted: Wanted,
    interrupted: Callable[[], bool],
    make_evaluate: Callable[[], Evaluate] | None = None,
) -> None:
    """Run a search until it is done or `interrupted` says so.

    Args:
        make_evaluate: makes a worker in its own process; in tests and benchmarks a stand-in.

    Raises:
        EngineError: Ray or the cluster lacks what was asked for.
        UserError: a worker cannot evaluate anything, such as a broken dataset.
    """
    for name in ("ray", "ray.tune"):  # what it has to say of a trial, the search says
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _cluster(wanted), _scratch() as folder:
        resources = plan(wanted, [node["Resources"] for node in ray.nodes() if node.get("Alive")])
        make = make_evaluate or functools.partial(_worker_events, resources.device, resources.threads)
        bridge = _Bridge(search, resources.workers, interrupted)
        trainable = tune.with_resources(
            tune.with_parameters(RayWorker, make=make), {"cpu": resources.cpus, "gpu": resources.gpus}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(bridge),
                scheduler=_Scheduler(bridge),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(folder),
                verbose=0,
                stop=_Stopper(bridge),
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        if not search.done:
            tuner.fit()
    if bridge.fatal is not None:
        raise UserError(bridge.fatal)


def plan(wanted: Wanted, nodes: list[dict[str, float]]) -> Resources:
    """What each worker gets on nodes with these resources (Ray's "CPU" and "GPU").

    By default one worker per GPU where there are any, else one per core and at most 8 a node; a node's cores are
    shared out among its workers.

    Raises:
        EngineError: no node can hold a worker; it would be waited for without end.
    """
    on_gpus = wanted.device != "cpu" and (
        wanted.device.startswith("cuda") or any(node.get("GPU", 0) > 0 for node in nodes)
    )
    gpus = wanted.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if on_gpus else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise EngineError(f"--gpus-per-worker {gpus:g}: above 1 it is a whole number.")
    slots = [int(node.get("GPU", 0) / gpus) if gpus else min(int(node.get("CPU", 0)), 8) for node in nodes]
    if not any(slots):
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise EngineError(
            f"No node can hold a worker with {gpus:g} GPUs. Nodes have: {have}.\n"
            "  Lower --gpus-per-worker, or search with --device cpu."
        )
    workers = wanted.workers or sum(slots)
    holding = [node for node, slot in zip(nodes, slots, strict=True) if slot]
    cores = min(node.get("CPU", 1) for node in holding)
    cpus = cores / math.ceil(workers / len(holding))
    return Resources(
        workers=workers,
        cpus=float(int(cpus)) if cpus > 1 else math.floor(1000 * cpus) / 1000,  # Ray takes fractions below 1 only
        gpus=gpus,
        threads=max(1, int(cpus)),
        device=wanted.device if gpus or wanted.device != "auto" else "cpu",
    )


def _worker_events(device: str, threads: int) -> Evaluate:
    from mlpspace.engines.worker import Worker  # and torch, in the worker's process

    return Worker(device, threads).events


@contextmanager
def _cluster(wanted: Wanted) -> Iterator[None]:
    already = ray.is_initialized()
    if not already:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if wanted.address is None:
            # assignments and events are small: a store of a third of the memory would only be in the way
            # "local": without it Ray joins whatever cluster runs here already
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}
        else:
            options["address"] = wanted.address
        if " " in sys.executable:  # Ray pastes it into a shell's line as it is, and then waits without end
            options["runtime_env"] = {"py_executable": shlex.quote(sys.executable)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"Ray cannot be reached at {wanted.address or 'this machine'}: {str(error).splitlines()[0]}\n"
                "  To start a cluster: ray start --head, then --address auto on that machine."
            ) from None
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what Tune insists on writing; nothing in it is needed again."""
    folder = Path(tempfile.mkdtemp(prefix="mlpspace-tune-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
