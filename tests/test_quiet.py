"""A device kept quiet among processes: real processes, real locks."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from mlpspace import quiet
from mlpspace.errors import UserError
from mlpspace.quiet import OtherPrograms, QuietDevice, node_folder

PROCESSES = multiprocessing.get_context("spawn")  # as workers are: no file shared with the parent


def train_without_end(folder: Path, steps: Path, stop: Event) -> None:
    """Each step adds one byte to a file, at the step's end."""
    device = QuietDevice("device", folder)
    with steps.open("ab", buffering=0) as done:
        while not stop.is_set():
            with device.busy():
                time.sleep(0.001)
                done.write(b".")


def hold(folder: Path, how: str, held: Event) -> None:
    with getattr(QuietDevice("device", folder), how)():
        held.set()
        time.sleep(600)


@pytest.fixture
def trainers(tmp_path: Path) -> Iterator[list[Path]]:
    """Three processes that are busy again and again; the file of each."""
    stop = PROCESSES.Event()
    files = [tmp_path / f"steps{number}" for number in range(3)]
    processes = [PROCESSES.Process(target=train_without_end, args=(tmp_path, file, stop)) for file in files]
    for process in processes:
        process.start()
    while not all(file.exists() and file.stat().st_size for file in files):
        time.sleep(0.01)
    yield files
    stop.set()
    for process in processes:
        process.join()


def work_and_give_back(folder: Path, stop: Event, gave_back: Synchronized[int], inside: Synchronized[int]) -> None:
    """As a training that keeps memory on a GPU; `inside` is what it keeps while it works."""

    def count() -> None:
        gave_back.value += 1
        inside.value = 0

    quiet._give_back = count
    device = QuietDevice("device", folder)
    while not stop.is_set():
        with device.busy():
            inside.value = 1
            time.sleep(0.001)


def test_who_pauses_gives_memory_back_first_where_it_is_short_and_only_there(tmp_path: Path) -> None:
    stop, counts = PROCESSES.Event(), [PROCESSES.Value("i", 0) for _ in range(4)]
    told = [(tmp_path, stop, *counts[:2]), (tmp_path, stop, *counts[2:])]
    processes = [PROCESSES.Process(target=work_and_give_back, args=each) for each in told]
    for process in processes:
        process.start()
    while not all(each.value for each in counts[1::2]):
        time.sleep(0.01)
    device = QuietDevice("device", tmp_path)
    with device.alone():
        pass
    assert [each.value for each in counts[::2]] == [0, 0]
    with device.short_of_memory(), device.alone():
        deadline = time.monotonic() + 30  # the last piece has ended, and they are on their way to the turnstile
        while any(each.value for each in counts[1::2]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [each.value for each in counts[1::2]] == [0, 0]
    after = [each.value for each in counts[::2]]
    assert all(after)
    with device.alone():
        pass
    stop.set()
    for process in processes:
        process.join()
    assert [each.value for each in counts[::2]] == pytest.approx(after, abs=1)  # one may have seen the very end


def test_nobody_is_busy_while_one_is_alone(trainers: list[Path], tmp_path: Path) -> None:
    with QuietDevice("device", tmp_path).alone():
        before = [file.stat().st_size for file in trainers]
        time.sleep(0.1)
        assert [file.stat().st_size for file in trainers] == before


def test_those_who_come_back_at_once_do_not_keep_the_measurer_waiting(trainers: list[Path], tmp_path: Path) -> None:
    device = QuietDevice("device", tmp_path)
    passed = []
    for _ in range(20):
        before = [file.stat().st_size for file in trainers]
        with device.alone():
            passed.append(max(file.stat().st_size - old for file, old in zip(trainers, before, strict=True)))
        time.sleep(0.005)
    assert sorted(passed)[10] <= 3  # the step under way, and one or two that slip in before the turnstile is taken
    assert max(passed) < 100


def test_many_may_be_busy_at_once(tmp_path: Path) -> None:
    with QuietDevice("device", tmp_path).busy() as first, QuietDevice("device", tmp_path).busy() as second:
        assert first >= 0
        assert second >= 0


def test_two_devices_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with QuietDevice("GPU-1", tmp_path).alone(), QuietDevice("GPU-2", tmp_path).alone():
        pass


@pytest.mark.parametrize("how", ["busy", "alone"])
def test_a_killed_process_frees_the_device(how: str, tmp_path: Path) -> None:
    held = PROCESSES.Event()
    holder: BaseProcess = PROCESSES.Process(target=hold, args=(tmp_path, how, held))
    holder.start()
    held.wait()
    holder.kill()
    with QuietDevice("device", tmp_path).alone():
        pass
    holder.join()


def test_an_error_within_frees_the_device(tmp_path: Path) -> None:
    device = QuietDevice("device", tmp_path)
    with pytest.raises(KeyboardInterrupt), device.alone():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), device.busy():
        raise KeyboardInterrupt
    with QuietDevice("device", tmp_path).alone():
        pass


@pytest.mark.parametrize("how", ["busy", "alone"])
def test_the_seconds_waited_are_told(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = QuietDevice("device", tmp_path)
    monkeypatch.setattr(quiet.time, "perf_counter", iter([3.0, 7.5]).__next__)
    with getattr(device, how)() as waited:
        assert waited == 4.5


def test_other_programs_are_what_the_kernel_counts_beside_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From proc_stat(5): user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 1/100 s."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(quiet, "PROC_STAT", stat)
    monkeypatch.setattr(quiet.os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(quiet.os, "sysconf", lambda _: 100)
    monkeypatch.setattr(quiet.time, "perf_counter", iter([10.0, 12.0]).__next__)
    monkeypatch.setattr(quiet.time, "process_time", iter([5.0, 6.5]).__next__)
    stat.write_text("cpu 1 2 3\ncpu0 100 0 0 50 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\ncpu2 10 10 10 0 0 0 0 0 0 0\n")
    others = OtherPrograms()
    stat.write_text(
        "cpu 9 9 9\ncpu0 200 10 20 99 99 1 2 7 9 9\ncpu1 999 0 0 0 0 0 0 0 0 0\ncpu2 70 10 10 0 0 0 0 0 0 0\n"
    )
    ticks = (100 + 10 + 20 + 1 + 2 + 7) + 60  # cores 0 and 2; cpu1 is not ours to use
    assert others.cores_used() == pytest.approx((ticks / 100 - 1.5) / 2.0)


@pytest.mark.parametrize("what", ["a file", "a link"])
def test_a_shared_folder_that_somebody_else_prepared_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"mlpspace-{os.getuid()}"
    assert node_folder() == place
    place.rmdir()
    if what == "a file":
        place.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is no folder of yours"):
        node_folder()
