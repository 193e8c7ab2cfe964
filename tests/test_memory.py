"""Main memory that a process keeps, by what the kernel counts of it; each in a process of its own."""

from __future__ import annotations

import gc
import json
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mlpspace import memory
from mlpspace.memory import MicroBatches

COUNT = """
import gc, json, resource, torch
from mlpspace import memory
torch.set_num_threads(1)

def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

def passes(mb):
    for _ in range(20):
        torch.ones(mb << 18)  # float32

CPU = torch.device("cpu")
"""

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="it is glibc's memory, as Linux counts it"
)


def counted(program: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", COUNT + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(done.stdout)
    return found


@linux
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    """A tensor of 64 MB is 16,384 pages of 4 kB, and so many faults each time that it comes from the system."""
    plain, inside = counted("""
plain = faults(lambda: passes(64))
with memory.memory_kept(CPU):
    passes(64)  # until what lies between large tensors has found its place
    inside = faults(lambda: passes(64))
print(json.dumps([plain, inside]))
""")
    assert plain > 15 * 16_384
    assert inside < 16_384


@linux
def test_on_leaving_memory_goes_back_to_the_system() -> None:
    before, after = counted("""
before = resident()
with memory.memory_kept(CPU):
    some = [torch.ones(1 << 18) for _ in range(200)]
    held, some = some[-1], None
print(json.dumps([before, resident()]))
""")
    assert after - before < 50e6  # of 200 MB


def test_on_a_gpu_main_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: pytest.fail("asked for"))
    with memory.memory_kept(torch.device("cuda")):
        pass


def micro_batches(work: Callable[[int], Tensor]) -> tuple[MicroBatches, Callable[[], Tensor]]:
    batches = MicroBatches(8, fewest=1, device=torch.device("cpu"))
    return batches, lambda: batches.run(work)


def test_memory_that_lacked_for_a_moment_halves_nothing() -> None:
    """What filled it was garbage: of it and of the first error's frames nothing is left when the step is done again."""
    alive: list[int] = []
    tries: list[int] = []

    class Held:
        def __init__(self) -> None:
            self.circle = self
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def step(count: int) -> Tensor:
        tries.append(count)
        if alive:
            held = Held()
            raise torch.OutOfMemoryError(f"CUDA out of memory, {held is None}")
        return torch.ones(())

    gc.collect()
    gc.disable()
    try:
        Held()
        batches, run = micro_batches(step)
        assert run() == 1
    finally:
        gc.enable()
    assert tries == [1, 1]
    assert batches.count == 1


def test_memory_that_does_lack_halves_after_one_more_try() -> None:
    tries: list[int] = []

    def step(count: int) -> Tensor:
        tries.append(count)
        if count < 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(())

    batches, run = micro_batches(step)
    run()
    assert tries == [1, 1, 2, 4]
    run()
    assert tries == [1, 1, 2, 4, 4]
    assert batches.images == 2


def test_the_smallest_micro_batch_is_tried_once_more_too() -> None:
    """One image at once may lack memory for a moment, as many may."""
    tries: list[int] = []

    def step(count: int) -> Tensor:
        tries.append(count)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(())

    batches, run = micro_batches(step)
    batches.count = 8
    run()
    assert tries == [8, 8]
