"""How workers are laid out on machines, by hand-made nodes."""

from __future__ import annotations

import pytest

from mlpspace.engines.resources import EngineError, Wanted, plan

LAPTOP = [{"CPU": 2.0}]
SERVER = [{"CPU": 16.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("wanted", "nodes", "workers", "cpus", "gpus", "threads"),
    [
        (Wanted(), LAPTOP, 2, 1.0, 0.0, 1),
        (Wanted(workers=1), LAPTOP, 1, 2.0, 0.0, 2),
        (Wanted(workers=3), LAPTOP, 3, 0.666, 0.0, 1),
        (Wanted(), [{"CPU": 64.0}], 8, 8.0, 0.0, 8),
        (Wanted(), SERVER, 4, 4.0, 1.0, 4),
        (Wanted(gpus_per_worker=0.5), SERVER, 8, 2.0, 0.5, 2),
        (Wanted(device="cpu"), SERVER, 8, 2.0, 0.0, 2),
        (Wanted(), [{"CPU": 8.0}, *SERVER, *SERVER], 8, 4.0, 1.0, 4),  # a head without GPUs holds no worker
        (Wanted(workers=6), [{"CPU": 8.0}] * 3, 6, 4.0, 0.0, 4),
    ],
)
def test_cores_are_shared_out_among_the_workers_of_a_node(wanted, nodes, workers, cpus, gpus, threads):
    found = plan(wanted, nodes)
    assert (found.workers, found.cpus, found.gpus, found.threads) == (workers, cpus, gpus, threads)


def test_without_gpus_auto_means_the_cpu_everywhere():
    assert plan(Wanted(), LAPTOP).device == "cpu"
    assert plan(Wanted(), SERVER).device == "auto"


@pytest.mark.parametrize("wanted", [Wanted(device="cuda"), Wanted(gpus_per_worker=1)])
def test_asking_for_a_gpu_where_there_is_none_is_refused(wanted):
    with pytest.raises(EngineError, match="2 CPUs and 0 GPUs"):
        plan(wanted, LAPTOP)


def test_a_share_above_one_is_whole():
    with pytest.raises(EngineError, match="whole number"):
        plan(Wanted(gpus_per_worker=1.5), SERVER)


@pytest.mark.parametrize(
    ("wanted", "shared"), [(Wanted(), False), (Wanted(gpus_per_worker=2), False), (Wanted(gpus_per_worker=0.5), True)]
)
def test_workers_share_a_gpu_where_each_has_less_than_one(wanted, shared):
    assert plan(wanted, SERVER).shared is shared
