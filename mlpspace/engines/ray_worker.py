"""What runs in a worker's process under Ray Tune: an actor that keeps its worker from trial to trial."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from mlpspace.deploy_device import DeviceMissing
from mlpspace.errors import DataError, DeviceLost, UserError
from mlpspace.measurement import Assignment, Evaluate, Event, Measurement, Progress
from mlpspace.wall_time import PROCESS

PARKED_SECONDS = 1.0
STEP_SECONDS = 0.2  # a worker reports what happened in about this time at once, so that quick trials take one message


@dataclass(frozen=True, slots=True)
class Work:
    """What Tune carries to a worker as a trial's config."""

    assignment: Assignment  # without its state, which is large, and would be kept with the config of each old trial
    bounds: Mapping[str, tuple[float, float]]
    make: Callable[[], Evaluate]  # of what evaluates, in the worker's process and once
    state: list[ray.ObjectRef] = field(default_factory=list)  # of the state, until the worker has it; or empty
    asked: float = field(default_factory=time.time)  # when it was given out; a new worker's life begins there

    def __deepcopy__(self, memo: Any) -> Work:
        return self  # Tune copies configs again and again; nobody changes this one


class RayWorker(tune.Trainable):
    """Evaluates one assignment after the other, each a generator of events."""

    def setup(self, config: dict[str, Any]) -> None:
        # by two clocks, where it is another machine than the driver's: then right as far as these are
        PROCESS.begin("starting", ago=max(0.0, time.time() - config["work"].asked))
        self._name = f"pid {os.getpid()} on {socket.gethostname()}"
        self._evaluate = config["work"].make()
        # the driver ends this worker if it hangs, and must know where a worker was that died
        self._told = {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        PROCESS.leave("waiting")  # since the last step: that trial had come to its end
        self._events.close()
        self._begin(new_config)
        PROCESS.enter("waiting")
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        work: Work = config["work"]
        assignment = work.assignment
        if work.state:
            assignment = dataclasses.replace(assignment, state=ray.get(work.state[0]))
        self._events: Any = self._evaluate(assignment, work.bounds)
        self._parked = False
        self._unsaid = self._told  # goes with the first result of each trial

    def step(self) -> dict[str, Any]:
        if self._parked:
            time.sleep(PARKED_SECONDS)
            return {}
        PROCESS.leave()
        PROCESS.turn_to("reporting")
        told, self._unsaid = self._unsaid, {}
        told |= self._some()
        # no mapping: Tune would follow each number of it
        told |= {"worker": self._name, "wall_time": tuple(PROCESS.tally().items())}
        PROCESS.enter("reporting")
        return told

    def _some(self) -> dict[str, Any]:
        events: list[Event] = []
        begun = time.monotonic()
        while time.monotonic() - begun < STEP_SECONDS:
            try:
                events.append(next(self._events))
                last = events[-1]
                if isinstance(last, Progress) and not last.epoch:  # what comes next may take long
                    break
                if isinstance(last, Measurement) and last.rung is not None:  # the search decides who goes on
                    break
            except StopIteration:
                return {"events": events, "done": True}
            except DeviceLost:
                os._exit(1)  # the trial is given out again, to a process that has the device anew
            except DataError as error:  # another node may have the dataset
                self._parked = True
                return {"events": events, "unfit": str(error)}
            except DeviceMissing:  # it is to be measured where another worker is
                return {"events": events, "elsewhere": True, "done": True}
            except Exception as error:
                return {"events": events, "fatal": failed(error), "done": True}
        return {"events": events}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: what there is to go on from comes as an event, and the search keeps it."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""

    def cleanup(self) -> None:
        self._events.close()


def failed(error: Exception) -> str:
    """Why no trial can be evaluated, as what goes wrong with a network comes as an event."""
    if isinstance(error, UserError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}, in {where.name})"
    return f"A worker failed, which is a bug of mlpspace: {text}"
