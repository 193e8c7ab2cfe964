"""Who measures on a cluster, where a space names the device that networks are going to run on.

Where every worker has that device each measures what it trains, as ever. Else one more worker is started on each node
that has it, in a process which takes none of Ray's resources, and measures for all. Tune's workers on such a node train
as the others do, and pause between two steps while it measures (`quiet`).
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlpspace.deploy_device import DeviceMissing, Devices, devices_here, meant
from mlpspace.engines.ray_worker import failed
from mlpspace.engines.resources import EngineError, Resources, holds
from mlpspace.errors import DeviceLost
from mlpspace.measurement import Assignment, Evaluate
from mlpspace.search import Search
from mlpspace.wall_time import PROCESS, Tallies

ANSWER_S = 120.0  # that nodes have at the start to say what devices they have; torch may come over a network
POLL_S = 0.02
MOST_DEATHS = 12  # in a row; then it is the machine, and not the networks

Node = Mapping[str, Any]  # as `ray.nodes` tells it


class _Measurer:
    """What runs in such a worker."""

    def __init__(self, make: Callable[[], Evaluate]) -> None:
        PROCESS.begin("starting")
        self._evaluate = make()
        self._worker = f"pid {os.getpid()} on {socket.gethostname()}"
        PROCESS.turn_to("waiting")

    def events(self, assignment: Assignment, bounds: Mapping[str, tuple[float, float]]) -> Iterator[dict[str, Any]]:
        try:
            for event in self._evaluate(assignment, bounds):
                yield {"event": event, "worker": self._worker, "wall_time": PROCESS.tally()}
        except DeviceLost:
            os._exit(1)  # the trial is given out again, to a process that has the device anew
        except DeviceMissing as error:
            yield {"elsewhere": str(error)}
        except Exception as error:
            yield {"fatal": failed(error)}


@dataclass(slots=True)
class _AtWork:
    """A worker that measures, and what it is at."""

    node: str
    actor: Any
    number: int | None = None  # the trial
    events: Any = None  # what comes of it; None: nothing more
    worker: str | None = None  # its name


class Measuring:
    """In the driver: which nodes have the device, and the workers that measure on it.

    Args:
        word: the device as the space file names it.
        resources: what each of Tune's workers gets.
        devices_of: runs on a node and says what it has; in tests a stand-in.

    Raises:
        UserError: no node has the device, or the word may mean several.
    """

    def __init__(
        self,
        search: Search,
        word: str,
        resources: Resources,
        nodes: Mapping[str, Node],
        note: Callable[[str], None],
        tallies: Tallies,
        devices_of: Callable[[], Devices] = devices_here,
    ) -> None:
        self.fatal: str | None = None
        self.make: Callable[[], Evaluate] | None = None  # what evaluates, in a worker
        self._search, self._resources, self._note, self._tallies = search, resources, note, tallies
        self._devices_of = devices_of
        self._nodes: dict[str, Node] = dict(nodes)
        self._devices: dict[str, Devices | None] = {}  # by node, as far as they have said; None: it cannot
        self._blind: set[str] = set()  # nodes with workers that do not see it
        self._asked = {node: self._ask(node) for node in nodes}
        self._at_work: dict[str, _AtWork] = {}  # by node
        self._polled = -math.inf
        self._deaths = 0  # since any of the workers last came to an end
        self._hear(timeout_s=ANSWER_S)
        told = {node: devices for node, devices in self._devices.items() if devices is not None}
        if not told:
            raise EngineError(f"None of the nodes says what devices it has, within {ANSWER_S:g} s.")
        holding = [devices for node, devices in told.items() if self._trains(node)]
        self.device = meant(word, holding, [devices for node, devices in told.items() if not self._trains(node)])
        self._decide()

    def look(self, nodes: Mapping[str, Node]) -> None:
        """These nodes are there now."""
        left = nodes.keys() & self._nodes.keys()
        had = bool(self._having())
        self._nodes = dict(nodes)
        self._devices = {node: devices for node, devices in self._devices.items() if node in left}
        self._asked = {node: asked for node, asked in self._asked.items() if node in left}
        self._asked |= {node: self._ask(node) for node in nodes.keys() - left}
        self._decide()
        if had and not self._having():
            self._note(f"no node is left that has {self.device}: what was measured is trained, the rest waits for one")

    def cannot(self, node: str) -> None:
        """A worker of the node, one of those that train, does not see the device."""
        self._blind.add(node)
        self._decide()

    def poll(self, ahead: int) -> None:
        """Take what was measured, give out what is to be. Called all the time.

        Args:
            ahead: see `Search.next_to_measure`.
        """
        now = time.monotonic()
        if now - self._polled < POLL_S:
            return
        self._polled = now
        if self._asked:
            self._hear(timeout_s=0)
            self._decide()
        self._take()
        if not self._search.apart:
            return
        # those that disturb no training come first, and the same one again, as it is warm
        for node in sorted(self._having(), key=lambda node: (self._trains(node), node not in self._at_work, node)):
            found = self._at_work.get(node)
            if found is not None and found.events is not None:
                continue
            assignment = self._search.next_to_measure(ahead)
            if assignment is None:
                return
            found = self._at_work[node] = found or _AtWork(node, self._started(node))
            found.number = assignment.trial
            bounds = self._search.measured_bounds(assignment.trial)
            found.events = found.actor.events.options(num_returns="streaming").remote(assignment, bounds)

    def end(self, number: int) -> bool:
        """Kill the worker that measures trial `number`, which hangs. False: none of them has it."""
        for found in list(self._at_work.values()):
            if found.number == number and found.events is not None:
                self._drop(found)
                return True
        return False

    def close(self) -> None:
        """All of them end."""
        for found in list(self._at_work.values()):
            self._drop(found)

    # --- nodes ---

    def _ask(self, node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        # a process of its own, as it comes to hold memory of each GPU
        return ray.remote(num_cpus=0, max_calls=1, scheduling_strategy=there)(_answer).remote(self._devices_of)

    def _hear(self, timeout_s: float) -> None:
        nodes = {asked: node for node, asked in self._asked.items()}
        answers, _ = ray.wait(list(nodes), num_returns=len(nodes), timeout=timeout_s)
        for answer in answers:
            node = nodes[answer]
            del self._asked[node]
            try:
                self._devices[node] = ray.get(answer)
            except RayError as error:  # nothing of ours runs there, as without torch: it is for nobody to measure on
                address = self._nodes.get(node, {}).get("NodeManagerAddress", node)
                self._note(f"node {address} does not say what devices it has: {str(error).strip().splitlines()[-1]}")
                self._devices[node] = None

    def _trains(self, node: str) -> bool:
        return holds(self._nodes[node]["Resources"], self._resources)

    def _having(self) -> list[str]:
        """The nodes that have the device."""
        told = ((node, devices) for node, devices in self._devices.items() if devices is not None)
        return [node for node, devices in told if self.device in (devices.cpu, *devices.gpus)]

    def _decide(self) -> None:
        """A node that has not said yet passes for one that has it: a worker that has not hands its trial back."""
        on_gpus = self._resources.gpus > 0
        training = [node for node in self._devices if self._trains(node)]
        told = [self._devices[node] for node in training]
        able = all(each is not None and each.all_have(self.device, on_gpus=on_gpus) for each in told)
        before, self._search.apart = self._search.apart, not able or not self._blind.isdisjoint(training)
        if self._search.apart and not before:
            having = f"{len(self._having())} of {len(self._nodes)} nodes"
            self._note(f"throughput is measured on {self.device}, which {having} have; all of them train")

    # --- workers ---

    def _started(self, node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return ray.remote(num_cpus=0, scheduling_strategy=there)(_Measurer).remote(self.make)

    def _take(self) -> None:
        """What they have said since the last time."""
        while talking := {found.events: found for found in self._at_work.values() if found.events is not None}:
            ready, _ = ray.wait(list(talking), num_returns=len(talking), timeout=0)
            if not ready:
                return
            for each in ready:
                self._hear_of(talking[each])
            self._search.prepare()

    def _hear_of(self, found: _AtWork) -> None:
        number = found.number
        assert number is not None
        try:
            told = ray.get(next(found.events))
        except StopIteration:
            found.events, self._deaths = None, 0
            self._search.measured(number)
        except RayError:
            self._died(found, number)
        else:
            if "fatal" in told:
                self.fatal = told["fatal"]
                self._search.stop("failed")
            elif "elsewhere" in told:
                found.events = None
                self._devices[found.node] = None
                self._decide()
                self._search.returned(number)
                if not self._having():
                    self.fatal = told["elsewhere"]
                    self._search.stop("failed")
            else:
                found.worker = told["worker"]
                # it is there for whenever there is something to measure: that it waits tells nothing
                self._tallies.heard(told["worker"], {**told["wall_time"], "waiting": 0.0})
                if not self._search.report(number, told["event"]):
                    found.events = None

    def _died(self, found: _AtWork, number: int) -> None:
        self._drop(found)
        if not any(node["NodeID"] == found.node and node.get("Alive") for node in ray.nodes()):
            self._search.returned(number)
            return
        self._deaths += 1
        self._search.lost(number, "the worker's process ended")
        if self._deaths >= MOST_DEATHS:
            self.fatal = f"{self._deaths} workers in a row died while they measured; see `dmesg` for why."
            self._search.stop("failed")

    def _drop(self, found: _AtWork) -> None:
        del self._at_work[found.node]
        ray.kill(found.actor)


def _answer(devices_of: Callable[[], Devices]) -> Devices:
    return devices_of()
