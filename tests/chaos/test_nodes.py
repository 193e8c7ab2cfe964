"""A search on a cluster of three nodes, whose raylets are killed and replaced while it runs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chaos import books, instants, processes
from chaos.figures import Figures, Row
from chaos.ordeal import Ordeal, kept_if_it_fails, new_place
from chaos.references import References
from chaos.searches import Place, Session

pytestmark = pytest.mark.chaos

TRIALS = 32
EPOCHS = 4  # of each
NODES = 3  # the driver's among them, which is left alone; each has one CPU
KILLS = 5
USED_WITHIN_S = 120.0


def test_nodes_die_and_join(
    seeds: Callable[[float], Iterator[int]], figures: Figures, references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = figures.rows["Ray, nodes of a cluster"]
    for seed in seeds(0.2):
        rng = random.Random(f"nodes {seed}")
        reference = references.of("whole", seed)
        left = KILLS
        while left:
            place = new_place(reference.place.space, ("--seed", str(seed), "--trials", str(TRIALS)))
            with kept_if_it_fails(place, f"nodes, --chaos-seed {seed}"), _cluster(place, monkeypatch) as cluster:
                at = (*place.engine, "--address", cluster.address)
                search = Ordeal(Place(place.folder, place.space, at), row, TRIALS, 0)
                session = search.start()
                while left and _strike_node(search, session, rng, cluster, row):
                    left -= 1
                search.finish(400, session)
                search.compare(reference, undisturbed_epochs=EPOCHS * TRIALS)


@contextmanager
def _cluster(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Real raylets on this machine, with the environment of the search's processes: the witness is in their workers."""
    from ray.cluster_utils import Cluster

    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        monkeypatch.undo()


def _strike_node(search: Ordeal, session: Session, rng: random.Random, cluster: Any, row: Row) -> bool:
    """Kill a raylet, let another node join some seconds later, see it used. False: the search was done before."""
    if not instants.drawn_at_work(rng).wait_for(session):
        return False
    node = rng.choice(sorted(cluster.worker_nodes, key=_raylet))
    raylet = _raylet(node)
    its_own = [process for process in processes.marked(search.place.mark) if process.parent == raylet]
    os.kill(raylet, signal.SIGKILL)
    struck = time.time()
    row.faults["kill -9 of a raylet"] += 1
    by_them = [line for line in search.place.witnessed() if line["parent"] == raylet]
    search.cut_off(by_them, books.read_live(search.place.database))
    search.watch(its_own)
    time.sleep(rng.uniform(0, 5))
    joined = time.time()
    cluster.remove_node(node, allow_graceful=False)
    new = _raylet(cluster.add_node(num_cpus=1))
    until = time.monotonic() + USED_WITHIN_S
    while session.lives:
        by_it = [line["at"] for line in search.place.witnessed() if line["parent"] == new and line["what"] == "epoch"]
        if by_it:
            row.back_s.append(min(by_it) - struck)
            break
        assert time.monotonic() < until, f"a node that joined {time.time() - joined:.0f} s ago trains nothing"
        time.sleep(0.1)
    search.look(session, live=session.lives)
    return session.lives


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
