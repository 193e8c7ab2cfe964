"""The device that networks are going to run on: what a name of it means, and that only there they are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import mlpspace
from stubs import SPACE
from test_evaluate import ASSIGNMENT

from mlpspace import deploy_device, device
from mlpspace import evaluate as evaluating
from mlpspace import quiet as quieting
from mlpspace.data import Dataset
from mlpspace.deploy_device import DeviceMissing, Devices, meant, measuring_device
from mlpspace.device import describe
from mlpspace.engines.worker import Worker
from mlpspace.errors import UserError
from mlpspace.measurement import Measurement, Progress
from mlpspace.quiet import OtherPrograms
from mlpspace.study import Study
from mlpspace.throughput import measure_throughput

CPU = torch.device("cpu")
XEON = "Intel(R) Xeon(R) CPU @ 2.20GHz, 8 cores"
A100, A100_80, T4 = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "Tesla T4"
HEAD, MIXED = Devices(XEON), Devices(XEON, (A100, T4))


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("cpu", [XEON]),
        ("CPU", [XEON]),
        ("Xeon", [XEON]),
        ("xeon(r)cpu", [XEON]),
        ("A100", [A100, A100_80]),
        ("nvidia a100", [A100, A100_80]),
        ("A100-SXM4-80GB", [A100_80]),
        ("T4", [T4]),
        ("H100", []),
        ("cuda", []),
    ],
)
def test_a_name_is_part_of_what_the_maker_calls_it_whatever_its_capitals_and_spaces(word, found):
    assert Devices(XEON, (A100, A100_80, A100, T4)).named(word) == found


RTX, RTX_TI = "NVIDIA GeForce RTX 3080", "NVIDIA GeForce RTX 3080 Ti"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        (RTX, [RTX]),  # all of a name is that device, also where it is part of another's
        (RTX.lower().replace(" ", ""), [RTX]),
        (RTX_TI, [RTX_TI]),
        ("3080 Ti", [RTX_TI]),
        ("3080ti", [RTX_TI]),
        ("RTX 3080", [RTX_TI, RTX]),
        ("A10", ["NVIDIA A10"]),
        ("A100", [A100]),
        ("L4", ["NVIDIA L4"]),
        ("L40", []),
        ("H200", []),
        ("(R) Xeon(R)", [XEON]),
    ],
)
def test_a_word_of_a_name_is_a_whole_one(word, found):
    gpus = (RTX_TI, RTX, "NVIDIA A10", A100, "NVIDIA L4", "NVIDIA L40S", "NVIDIA GH200 480GB")
    assert Devices(XEON, gpus).named(word) == found


def test_a_worker_measures_on_the_gpu_of_that_name_and_not_on_its_own_whose_name_goes_on(monkeypatch):
    monkeypatch.setattr(deploy_device, "_gpus", lambda: [torch.device("cuda", 0), torch.device("cuda", 1)])
    monkeypatch.setattr(device, "describe", lambda each: XEON if each.type == "cpu" else (RTX_TI, RTX)[each.index])
    assert measuring_device(RTX, torch.device("cuda", 0)) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("word", "machines", "others", "device"),
    [
        ("Xeon", [HEAD, MIXED], [], XEON),
        ("T4", [HEAD], [MIXED], T4),  # nobody trains there
        ("A100", [Devices(XEON, (A100,))], [Devices(XEON, (A100_80,))], A100),  # those that train come first
        ("a100", [Devices(XEON, ("A100",)), Devices(XEON, (A100_80,))], [], "A100"),  # a whole name is that device
    ],
)
def test_a_name_means_one_device_of_all_machines(word, machines, others, device):
    assert meant(word, machines, others) == device


def test_a_device_that_is_nowhere_is_refused_with_those_that_there_are():
    with pytest.raises(DeviceMissing) as refused:
        meant("H100", [MIXED, Devices(XEON, (T4, T4))], [HEAD])
    assert str(refused.value).splitlines()[:4] == [
        'objectives.throughput.device "H100" is not here. There is:',
        "    Intel(R) Xeon(R) CPU @ 2.20GHz, 8 cores, on 3 machines",
        "    NVIDIA A100-SXM4-40GB",
        "    Tesla T4, on 2 machines",
    ]


def test_a_name_of_two_devices_is_refused_as_they_do_not_compare():
    with pytest.raises(UserError, match=f"does not compare:\n    {A100}\n    {A100_80}\n  Write as much"):
        meant("A100", [Devices(XEON, (A100,)), Devices(XEON, (A100_80,))])


@pytest.mark.parametrize(
    ("devices", "device", "on_gpus", "all_have"),
    [
        (MIXED, XEON, True, True),  # whoever trains on a GPU has a CPU, too
        (MIXED, A100, True, False),  # the one that trains on the T4 does not see it
        (Devices(XEON, (A100, A100)), A100, True, True),
        (HEAD, A100, True, False),
        (MIXED, T4, False, True),  # who trains on the CPU sees all GPUs
        (HEAD, T4, False, False),
    ],
)
def test_whether_each_worker_of_a_machine_can_measure(devices, device, on_gpus, all_have):
    assert devices.all_have(device, on_gpus=on_gpus) == all_have


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [torch.device("cuda", 0), torch.device("cuda", 1)]
    monkeypatch.setattr(deploy_device, "_gpus", lambda: gpus)
    monkeypatch.setattr(device, "describe", lambda each: XEON if each.type == "cpu" else (A100, T4)[each.index])


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("word", "own", "found"),
    [
        (None, "cuda:1", "cuda:1"),
        ("cpu", "cuda:1", "cpu"),
        ("T4", "cuda:1", "cuda:1"),
        ("A100", "cuda:1", "cuda:0"),
        ("T4", "cpu", "cuda:1"),
        ("Xeon", "cuda:0", "cpu"),
    ],
)
def test_a_worker_measures_on_its_own_device_if_that_is_meant_else_on_another_it_sees(word, own, found):
    assert measuring_device(word, torch.device(own)) == torch.device(found)


# --- a worker ---


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Worker]:
    """Of this CPU, with no dataset."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(OtherPrograms, "cores_used", lambda self: 0.0)
    monkeypatch.setattr(
        evaluating, "measure_throughput", lambda *a, **how: measure_throughput(*a, **how, budget_s=0.01)
    )
    yield Worker("cpu", 1)
    torch.set_num_threads(threads)


def test_what_is_only_to_be_measured_takes_no_dataset_and_is_not_trained(worker: Worker) -> None:
    worker.measures_on = "cpu"
    assignment = dataclasses.replace(ASSIGNMENT, measure_only=True, dataset="there is none such")
    told = list(worker.events(assignment, {}))
    measured = [event for event in told if isinstance(event, Measurement)]
    assert [event.metric for event in measured][:2] == ["throughput", "peak_memory_mb"]
    assert {event.device for event in measured} == {describe(CPU)}
    assert not any(isinstance(event, Progress) and event.phase in ("data", "training") for event in told)


def test_a_worker_without_the_device_says_so_before_it_reads_anything_and_trains_what_was_measured(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randint(256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(40) % 2
    dataset = Dataset(
        name="noise",
        train_images=noise[:32],
        train_labels=labels[:32],
        val_images=noise[32:],
        val_labels=labels[32:],
        mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.3),
        classes=2,
        mirrors=False,
        fingerprint="0" * 16,
    )
    read: list[Any] = []

    def reading(self: Worker, *told: Any) -> Iterator[Progress]:
        read.append(told)
        yield from ()
        return dataset

    monkeypatch.setattr(Worker, "_dataset", reading)
    worker.measures_on = "H100"
    with pytest.raises(DeviceMissing, match='"H100" is not here'):
        list(worker.events(ASSIGNMENT, {}))
    assert not read
    measured = dataclasses.replace(ASSIGNMENT, deployment=None)
    accuracies = [event for event in worker.events(measured, {}) if isinstance(event, Measurement)]
    assert [event.metric for event in accuracies] == ["accuracy", "accuracy"]


@pytest.mark.usefixtures("two_gpus")
def test_what_trains_on_a_gpu_is_at_work_on_the_cpu_that_is_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(quieting, "key", str)
    quiet = quieting.quiet_on(torch.device("cuda:0"), CPU)
    with quiet.busy():
        assert not _free("cpu", tmp_path)
        assert not _free("cuda:0", tmp_path)
    with quiet.alone():
        assert not _free("cpu", tmp_path)
        assert _free("cuda:0", tmp_path)  # others may measure there


def _free(device_key: str, place: Path) -> bool:
    """Whether nobody is at work on the device."""
    import fcntl

    (folder,) = place.glob("mlpspace-*")
    with open(folder / f"{device_key}.room", "w") as room:
        try:
            fcntl.flock(room, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# --- a search ---


def test_a_search_here_for_a_device_that_is_elsewhere_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE.replace("scale: log}", "scale: log, device: GTX 480}"))
    code, _, err = mlpspace(capsys, "search", "space.yaml", "--study", "run1", "--engine", "inline")
    assert code == 2
    assert 'objectives.throughput.device "GTX 480" is not here. There is:' in err
    assert describe(CPU) in err
    assert Study(Path("run1")).trials() == []
