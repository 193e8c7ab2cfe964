"""How many trials share a GPU of this cluster: asked of one of its GPUs, by a task of Ray's, before the workers start.

The task is a process of its own that ends with it, on a node that has a GPU, so that it does not matter where the
driver is. Of several kinds of GPU the first answers for all.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlpspace.device import resolve
from mlpspace.engines.resources import Wanted
from mlpspace.search import Search
from mlpspace.sharing import LIMIT_S, Sharing, Trials, found

FEWEST = 8  # trials left for each GPU: of fewer, those that share one would leave others idle at the end
SHORT_S = 20 * LIMIT_S  # of the time budget: where less is left, measuring would take too much of it
MORE_S = 120.0  # beside the measuring: for imports, which may come over a network, and for others that measure
POLL_S = 0.2

Find: TypeAlias = Callable[[Trials, str, int], Sharing]
"""(what trials train, the device's name, at most so many at once) -> how many share it; on a node, in its process."""


def settled(
    wanted: Wanted,
    search: Search,
    trials: Callable[[], Trials],
    *,
    interrupted: Callable[[], bool],
    note: Callable[[str], None],
    find: Find | None = None,
) -> Wanted:
    """`wanted` with a share of a GPU for each worker, where there are GPUs and the user left that open.

    One GPU for each worker where it would not help (few trials or little time left, no second core for a GPU), or
    could not be found out, which is noted.

    Args:
        trials: tells what trials train; asked only if it matters.
        find: in tests a stand-in.
    """
    nodes = [node for node in ray.nodes() if node.get("Alive")]
    held = [node["Resources"] for node in nodes]
    gpus = sum(int(each.get("GPU", 0)) for each in held)
    if wanted.workers is not None or wanted.gpus_per_worker is not None or wanted.device == "cpu" or not gpus:
        return wanted
    if search.total - search.ended < FEWEST * gpus or search.limits.seconds - search.elapsed_seconds < SHORT_S:
        return wanted
    most = cores_for_a_gpu(held)
    if most < 2:
        return wanted
    there = next(node["NodeID"] for node in nodes if int(node["Resources"].get("GPU", 0)) > 0)
    note("finding out how many trials share a GPU; --gpus-per-worker says it beforehand")
    what = trials()
    if not what.trainings:
        return wanted
    sharing = _answer(find or _found, there, (what, wanted.device, most), interrupted)
    if sharing is None:
        return wanted
    note(sharing.words())
    return dataclasses.replace(wanted, gpus_per_worker=1 / sharing.at_once)


def cores_for_a_gpu(nodes: Sequence[Mapping[str, float]]) -> int:
    """How many CPU cores there are for each GPU, on the node with the fewest: each worker needs one to feed it."""
    return min(int(node.get("CPU", 0) / node["GPU"]) for node in nodes if node.get("GPU", 0) > 0)


def _answer(find: Find, node: str, told: tuple[Any, ...], interrupted: Callable[[], bool]) -> Sharing | None:
    """None: interrupted."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, num_gpus=1, max_calls=1, max_retries=0, scheduling_strategy=there)(find)
    answer = task.remote(*told)
    until = time.monotonic() + LIMIT_S + MORE_S
    while not ray.wait([answer], timeout=POLL_S)[0]:
        if interrupted() or time.monotonic() > until:
            ray.cancel(answer, force=True)
            return None if interrupted() else Sharing(1, failed=f"no answer within {LIMIT_S + MORE_S:g} s")
    try:
        sharing: Sharing = ray.get(answer)
    except RayError as error:
        return Sharing(1, failed=str(error).strip().splitlines()[-1])
    return sharing


def _found(trials: Trials, device: str, most: int) -> Sharing:
    return found(trials, resolve(device), most=most)
