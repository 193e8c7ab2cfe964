"""The Ray Tune engine; `ray_worker` has what runs in its workers.

A leg of a trial (see `search`) is a trial to Tune. What pauses at a rung is stopped there, and its checkpoint goes to
the study's folder by way of the driver; when it is promoted, any worker takes it up as a new leg. So a paused trial
holds no worker, no worker needs storage that it shares with others, and a search that was cut off promotes on.

Tune keeps the workers (one actor each, reused from trial to trial) and hands our assignments to them. What is decided
is decided by `Search`; what is true is in the ledger. Tune's own snapshots, loggers and retries are off: a search that
was cut off is rebuilt from the ledger, never from a snapshot.

Of a cluster: nodes that join are used and the trials of one that dies go on elsewhere. A node that cannot read the
dataset is set aside: Tune knows no such thing, so the Tune trials on it stay there and sleep ("parked"), each with a
worker's share of the node, and our trials are given to others.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# read when ray is imported or started
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "5")  # a worker in a long step is not waited for: all is kept
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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlpspace.ahead import Ahead
from mlpspace.deploy_device import Devices, devices_here
from mlpspace.engines.ray_alive import watched
from mlpspace.engines.ray_cluster import cluster, scratch
from mlpspace.engines.ray_files import Files, offer
from mlpspace.engines.ray_measuring import Measuring
from mlpspace.engines.ray_mended import mend
from mlpspace.engines.ray_sharing import Find, settled
from mlpspace.engines.ray_worker import RayWorker, Work
from mlpspace.engines.resources import Wanted, plan, widened
from mlpspace.errors import UserError
from mlpspace.measurement import Evaluate
from mlpspace.search import Search
from mlpspace.sharing import Trials
from mlpspace.wall_time import PROCESS, Tallies, spent

MOST_DEATHS = 12  # in a row; then it is the machine, and not the networks
LOOK_S = 1.0  # between two looks at trials that hang and nodes that come or go


@dataclass(slots=True)
class _AtWork:
    """One of our trials at a worker."""

    number: int
    state: list[ray.ObjectRef]  # what it goes on from, until its worker has it
    node: str | None = None  # of its worker, once that was heard of
    pid: int | None = None
    worker: str | None = None


class _Bridge:
    """Between Tune's callbacks and the search. Tune calls all of them in the driver's one thread."""

    def __init__(
        self,
        search: Search,
        wanted: Wanted,
        interrupted: Callable[[], bool],
        note: Callable[[str], None],
        tallies: Tallies,
    ) -> None:
        self.search = search
        self.interrupted = interrupted
        self.deaths = 0  # of workers, since any of them last came to an end by itself
        self.fatal: str | None = None
        self.make: Callable[[], Evaluate] | None = None  # what evaluates, in a worker
        self.measuring: Measuring | None = None  # where the space names a device to measure on
        self.wanted = wanted
        self._note = note
        self._tallies = tallies
        self._at_work: dict[str, _AtWork] = {}  # by Tune's trial id
        self._parked: dict[str, str] = {}  # Tune's trial id -> its node, which is set aside
        self._alive: dict[str, dict[str, Any]] = {}  # node id -> node
        self._gone: dict[str, float] = {}  # node id -> when it was missed first
        self._looked = -math.inf
        self._look_at_nodes()
        self._planned = set(self._alive)  # the nodes that `resources` are of
        self.resources = plan(wanted, [node["Resources"] for node in self._alive.values()])

    def __reduce__(self) -> Any:
        return object, ()  # Tune pickles its state into snapshots that nobody reads; ours is in the ledger

    def __deepcopy__(self, memo: Any) -> _Bridge:
        return self

    def look_for(self, device: str, devices_of: Callable[[], Devices]) -> None:
        """Find out which nodes have the device that networks are measured on.

        Raises:
            UserError: none has.
        """
        told = self.search, device, self.resources, self._alive, self._note, self._tallies
        self.measuring = Measuring(*told, devices_of)

    @spent("deciding")
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.look_after()
        resources, at_work = self.resources, len(self._at_work)
        if self.interrupted() or self.fatal is not None:
            return str(Searcher.FINISHED)
        if at_work >= resources.workers or at_work + len(self._parked) >= resources.slots:
            return None
        if self.search.ahead is not None:
            self.search.ahead.workers = resources.workers
        assignment = self.search.next_assignment()
        if assignment is None:
            return str(Searcher.FINISHED) if self.search.done else None
        state = [] if assignment.state is None else [ray.put(assignment.state)]
        self._at_work[trial_id] = _AtWork(assignment.trial, state)
        assignment = dataclasses.replace(assignment, state=None)
        assert self.make is not None
        return {"work": Work(assignment, self.search.measured_bounds(assignment.trial), self.make, state)}

    @spent("deciding")
    def take(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Report what a worker sent. False: the trial shall stop."""
        worker = result.get("worker")
        if worker is not None:
            self._tallies.heard(worker, dict(result["wall_time"]))
        goes_on = self._take(trial_id, result)
        self.search.prepare()
        if worker is not None and (not goes_on or result.get("done")):
            self._tallies.idle(worker)
        return goes_on

    def _take(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        if trial_id in self._parked:
            return True
        at_work = self._at_work.get(trial_id)
        if at_work is None:
            return False
        at_work.state.clear()  # its worker has it: the object store need not hold it any longer
        at_work.node, at_work.pid = result.get("node", at_work.node), result.get("pid", at_work.pid)
        at_work.worker = result.get("worker", at_work.worker)
        if not all(self.search.report(at_work.number, event) for event in result.get("events", ())):
            del self._at_work[trial_id]
            self.deaths = 0
            return False
        if "fatal" in result:
            self.fatal = str(result["fatal"])
            self.search.stop("failed")
        elif "unfit" in result:
            self._set_aside(trial_id, str(result["unfit"]))
        elif "elsewhere" in result:
            del self._at_work[trial_id]
            self.search.returned(at_work.number)
            if self.measuring is not None and at_work.node is not None:
                self.measuring.cannot(at_work.node)
        elif result.get("done"):
            self.deaths = 0
            self.search.completed(at_work.number)
        return True

    @spent("deciding")
    def ended(self, trial_id: str, result: Mapping[str, Any] | None, *, error: bool) -> None:
        if not error and result:
            self.take(trial_id, result)
        self._parked.pop(trial_id, None)
        at_work = self._at_work.pop(trial_id, None)
        if at_work is None or not error:
            return
        if at_work.worker is not None:
            self._tallies.gone(at_work.worker)
        if self._its_node_is_gone(at_work):
            self.search.returned(at_work.number)
            return
        self.deaths += 1
        self.search.lost(at_work.number, "the worker's process ended")
        if self.deaths >= MOST_DEATHS:
            self.fatal = f"{self.deaths} workers in a row died before their trial ended; see `dmesg` for why."
            self.search.stop("failed")

    @spent("deciding")
    def look_after(self) -> None:
        """What nobody reports: trials that hang, nodes that come and go. Tune asks for it all the time."""
        self._measure()
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        self._tallies.look()
        for number in self.search.overdue():
            if self.measuring is not None and self.measuring.end(number):
                self.search.hung(number)
                continue
            trial_id, at_work = next(each for each in self._at_work.items() if each[1].number == number)
            self.search.hung(number)
            del self._at_work[trial_id]
            if at_work.worker is not None:
                self._tallies.gone(at_work.worker)
            if at_work.node is not None and at_work.pid is not None:
                there = NodeAffinitySchedulingStrategy(at_work.node, soft=False)
                # Tune hears of it, and starts another worker
                ray.remote(num_cpus=0, scheduling_strategy=there)(_kill).remote(at_work.pid)
        self._look_at_nodes()
        if self._alive.keys() != self._planned:
            self._planned = set(self._alive)
            resources = [node["Resources"] for node in self._alive.values()]
            self.resources = widened(self.resources, self.wanted, resources)
            self._note(f"{_count(len(self._alive), 'node')}, room for {_count(self.resources.slots, 'worker')} now")
            if self.measuring is not None:
                self.measuring.look(self._alive)
            for trial_id in [each for each, node in self._parked.items() if node not in self._alive]:
                del self._parked[trial_id]

    def _measure(self) -> None:
        if self.measuring is None or self.interrupted() or self.fatal is not None:
            return
        workers = self.resources.workers
        # for those that wait, and for those that will ask before another is measured
        self.measuring.poll(max(0, workers - len(self._at_work)) + 1 + workers // 4)
        self.fatal = self.measuring.fatal

    def _look_at_nodes(self) -> None:
        alive = {node["NodeID"]: node for node in ray.nodes() if node.get("Alive")}
        before, self._alive = self._alive, alive
        self._gone.update({node: time.monotonic() for node in before.keys() - alive.keys()})

    def _its_node_is_gone(self, at_work: _AtWork) -> bool:
        self._look_at_nodes()
        if at_work.node is not None:
            return at_work.node not in self._alive
        # where its worker was starting is not known: was there a node that died about now?
        return any(time.monotonic() - since < 60 for since in self._gone.values())

    def _set_aside(self, trial_id: str, why: str) -> None:
        """The node of a Tune trial cannot read the dataset: nothing more is trained there."""
        at_work = self._at_work.pop(trial_id)
        node = at_work.node or "?"
        self.search.returned(at_work.number)
        if len(self._alive) == 1:
            self.fatal = why
        elif node not in self._parked.values():
            address = self._alive.get(node, {}).get("NodeManagerAddress", node)
            self._note(f"node {address} is set aside, the others go on. It says: {why}")
        self._parked[trial_id] = node
        if len(self._parked) >= self.resources.slots:
            self.fatal = why
        if self.fatal is not None:
            self.search.stop("failed")


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
        self._bridge.look_after()
        return self._bridge.search.done or self._bridge.fatal is not None or self._bridge.interrupted()


def run(
    search: Search,
    *,
    wanted: Wanted,
    interrupted: Callable[[], bool],
    note: Callable[[str], None] = lambda text: None,
    make_evaluate: Callable[[], Evaluate] | None = None,
    tallies: Tallies | None = None,
    devices_of: Callable[[], Devices] = devices_here,
    trials: Callable[[], Trials] | None = None,
    find: Find | None = None,
) -> None:
    """Run a search until it is done or `interrupted` says so.

    Args:
        note: hears of nodes that come, go or are set aside.
        make_evaluate: makes a worker in its own process; in tests and benchmarks a stand-in.
        tallies: hear where the workers' time goes.
        devices_of: runs on a node and says what it has; in tests a stand-in.
        trials: tells what trials train, to find out how many of them share a GPU; None: that is not asked.
        find: finds it out on a node; in tests a stand-in.

    Raises:
        EngineError: Ray or the cluster lacks what was asked for.
        UserError: a worker cannot evaluate anything, such as a broken dataset.
    """
    for name in ("ray", "ray.tune"):  # what it has to say of a trial, the search says
        logging.getLogger(name).setLevel(logging.CRITICAL)
    mend()
    # Tune has one thread for what all workers say, so the sampler thinks in another
    with cluster(wanted), watched(wanted.address, note, interrupted), scratch() as folder, Ahead() as search.ahead:
        tallies = tallies or Tallies(lambda told: None, dict)
        if trials is not None:
            wanted = settled(wanted, search, trials, interrupted=interrupted, note=note, find=find)
        bridge = _Bridge(search, wanted, interrupted, note, tallies)
        if wanted.measures_on is not None:
            bridge.look_for(wanted.measures_on, devices_of)
        PROCESS.turn_to("engine")
        try:
            _fit(bridge, make_evaluate, folder)
        finally:
            if bridge.measuring is not None:
                bridge.measuring.close()
    if bridge.fatal is not None:
        raise UserError(bridge.fatal)


def _fit(bridge: _Bridge, make_evaluate: Callable[[], Evaluate] | None, folder: Path) -> None:
    resources, wanted = bridge.resources, bridge.wanted
    files = None if wanted.data_path is None or wanted.address is None else offer(wanted.data_path)
    threads, measuring = resources.threads, bridge.measuring
    measures_on = None if measuring is None else measuring.device
    bridge.make = make_evaluate or functools.partial(
        _worker_events, resources.device, threads, files, measures_on, shared=resources.shared
    )
    if measuring is not None:
        measuring.make = make_evaluate or functools.partial(_worker_events, "cpu", threads, None, measures_on)
    tuner = tune.Tuner(
        tune.with_resources(RayWorker, {"cpu": resources.cpus, "gpu": resources.gpus}),
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
    if not bridge.search.done:
        tuner.fit()


def _worker_events(
    device: str, threads: int, files: Files | None, measures_on: str | None, *, shared: bool = False
) -> Evaluate:
    from mlpspace.engines.worker import Worker  # and torch, in the worker's process

    here = (lambda path: path) if files is None else files.here
    return Worker(device, threads, here=here, measures_on=measures_on, shared=shared).events
