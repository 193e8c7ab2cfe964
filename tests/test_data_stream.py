"""Sets larger than the device: decoded into a file a piece at a time, and read from there while the device computes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most
from PIL import Image
from torch import nn

from mlpspace.architecture import Architecture, Dense, Patches, Stage
from mlpspace.cli.size import Size
from mlpspace.data import Dataset, cache, dataset, load, loading, pixels
from mlpspace.data.stored import Stored
from mlpspace.engines import worker
from mlpspace.errors import DataError
from mlpspace.evaluate import evaluate
from mlpspace.measurement import Assignment, Checkpoint, Event, Failure, Measurement, Progress
from mlpspace.proxy import train
from mlpspace.quiet import QuietDevice
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.wall_time import PROCESS

CPU = torch.device("cpu")
SIDE = 16
IMAGES = 60
SET = IMAGES * 3 * SIDE**2  # bytes, decoded
RECIPE = Recipe(batch=10, augmentation=Augmentation(shift=2, flip="always", cutout=4))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 30 images, photographs' sizes and formats, none like another; a gray one among them."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "set" / f"class{label}").mkdir(parents=True)
        for at in range(IMAGES // 2):
            image = rng.integers(0, 256, (20 + at % 7, 18 + at % 5, 3), dtype=np.uint8)
            image[:, :9] //= 2 + label
            kind = "jpg" if at % 3 else "png"
            drawn = Image.fromarray(image if at != 11 else image[:, :, 0])
            drawn.save(tmp_path / "set" / f"class{label}" / f"{at:02}.{kind}")
    return tmp_path / "set"


def loaded(folder: Path, resident: int | None = None, **named: Any) -> Dataset:
    asked: dict[str, Any] = {"resolution": SIDE, "classes": 2, "images": None, "validation": 0.2, "seed": 0}
    return load("mine", str(folder), **(asked | named), resident=resident)


def all_of(images: Any) -> np.ndarray:
    if isinstance(images, Stored):
        found = np.zeros(images.shape, np.uint8)
        images.read(slice(None), found)
        return found
    return images.numpy()


def trained(data: Dataset, tmp_path: Path, network: nn.Module | None = None, **named: Any) -> Generator[Event]:
    torch.manual_seed(0)
    network = network or nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2))
    quiet = QuietDevice("cpu", tmp_path / "quiet")
    asked: dict[str, Any] = {"recipe": RECIPE, "epochs": (1, 3), "seed": 3, "device": CPU}
    return train(network, data, quiet=quiet, **(asked | named))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlpspace-images"]


# --- the same training ------------------------------------------------------------------------------------------------


def test_a_set_larger_than_the_limit_gives_the_same_curve_and_weights_to_the_last_bit(
    folder: Path, tmp_path: Path
) -> None:
    kept, streamed = loaded(folder, resident=SET), loaded(folder, resident=SET - 1)
    assert (kept.resident, streamed.resident) == (True, False)
    assert kept.fingerprint == streamed.fingerprint
    assert torch.equal(kept.mean, streamed.mean)
    assert torch.equal(kept.std, streamed.std)
    one, other = (list(trained(data, tmp_path)) for data in (kept, streamed))
    assert [e for e in one if isinstance(e, Progress) and e.accuracy is not None] == [
        e for e in other if isinstance(e, Progress) and e.accuracy is not None
    ]
    states = [[e.state for e in events if isinstance(e, Checkpoint)] for events in (one, other)]
    assert len(states[0]) == 2
    weights = [torch.load(io.BytesIO(each[-1]), weights_only=True) for each in states]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    values = [[(e.value, e.data) for e in events if isinstance(e, Measurement)] for events in (one, other)]
    assert values[0] == values[1]


def test_a_streamed_training_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    folder: Path, tmp_path: Path
) -> None:
    data = loaded(folder, resident=0)
    whole = [e for e in trained(data, tmp_path) if isinstance(e, Progress) and e.accuracy is not None]
    state = next(e.state for e in trained(data, tmp_path) if isinstance(e, Checkpoint))
    rest = [e for e in trained(data, tmp_path, state=state) if isinstance(e, Progress) and e.accuracy is not None]
    assert rest == whole[1:]


def test_batches_are_the_images_of_the_order_asked_for_and_the_last_may_be_smaller(folder: Path) -> None:
    kept, streamed = loaded(folder), loaded(folder, resident=0)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    for data in (kept, streamed):
        got = [some.clone() for some in data.train_batches(order, 11)]
        assert [len(some) for some in got] == [11, 11, 11, 11, 4]
        assert torch.equal(torch.cat(got), kept.train_images[order])
        assert torch.equal(torch.cat([some.clone() for some in data.val_batches(5)]), kept.val_images)


def test_a_batch_holds_until_the_next_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the thread has come meanwhile."""
    data = loaded(folder, resident=0)
    expected = all_of(data.train_images)
    for at, some in enumerate(data.train_batches(torch.arange(48), 4)):
        time.sleep(0.005)
        assert np.array_equal(some.numpy(), expected[4 * at : 4 * at + 4])


def test_an_embedded_set_above_the_limit_is_streamed_too() -> None:
    asked: dict[str, Any] = {"resolution": 8, "classes": 10, "images": 300, "validation": 0.1, "seed": 0}
    kept, streamed = load("digits", None, **asked), load("digits", None, **asked, resident=1000)
    assert (kept.resident, streamed.resident) == (True, False)
    assert kept.fingerprint == streamed.fingerprint
    assert np.array_equal(all_of(streamed.train_images), kept.train_images.numpy())
    assert torch.equal(kept.std, streamed.std)


def test_without_a_limit_a_quarter_of_the_free_memory_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, resident in ((4 * SET, True), (4 * SET - 4, False)):
        monkeypatch.setattr(dataset, "free_memory_bytes", lambda free=free: free)
        assert loaded(folder).resident is resident
    monkeypatch.setattr(dataset, "free_memory_bytes", lambda: SET - 1)
    assert not loaded(folder, resident=10 * SET).resident  # never more than there is


def test_the_room_is_asked_for_once_all_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start together wait for one to decode; until then the device is empty for each of them."""
    free = [100 * SET]
    monkeypatch.setattr(dataset, "free_memory_bytes", lambda: free[0])
    decoded = cache.decoded

    def then_full(*told: Any) -> Generator[float | None, None, Stored]:
        images = yield from decoded(*told)
        free[0] = SET  # what the others have brought there meanwhile
        return images

    monkeypatch.setattr(dataset.cache, "decoded", then_full)
    assert not loaded(folder).resident


def test_images_that_find_no_room_after_all_are_streamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several workers that asked at the same time each was told the same."""
    kept = loaded(folder)
    brought = dataset._brought

    def too_late(images: Stored, *told: Any) -> Generator[None, None, torch.Tensor]:
        if len(images) == len(kept.val_labels):  # the training images are there by then
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (yield from brought(images, *told))

    monkeypatch.setattr(dataset, "_brought", too_late)
    data = loaded(folder)
    assert isinstance(data.train_images, Stored)
    assert isinstance(data.val_images, Stored)
    assert data.fingerprint == kept.fingerprint
    assert np.array_equal(all_of(data.train_images), all_of(kept.train_images))


def test_another_error_on_the_way_to_the_device_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*told: Any) -> Generator[None, None, torch.Tensor]:
        yield None
        raise DataError("cut short")

    monkeypatch.setattr(dataset, "_brought", broken)
    with pytest.raises(DataError, match="cut short"):
        loaded(folder)


# --- the thread -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "closed", "forgotten", "error"])
def test_the_thread_is_gone_when_nobody_wants_more(folder: Path, how: str) -> None:
    data = loaded(folder, resident=0)
    batches = data.train_batches(torch.arange(48), 4)
    next(batches)
    assert len(readers()) == 1
    if how == "end":
        list(batches)
    elif how == "closed":
        batches.close()
    elif how == "forgotten":
        del batches
    else:
        with pytest.raises(ZeroDivisionError):
            batches.throw(ZeroDivisionError())
    assert readers() == []


@pytest.mark.parametrize("how", ["end", "closed", "failure", "error"])
def test_the_thread_is_gone_when_a_training_ends(folder: Path, tmp_path: Path, how: str) -> None:
    data = loaded(folder, resident=0)

    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 3 and how == "error":
                raise ValueError("broken")
            scale = torch.nan if self.calls == 3 and how == "failure" else 1.0
            return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1) * self.weight * scale

    events = trained(data, tmp_path, Breaks())
    if how == "end":
        list(events)
    elif how == "closed":
        next(event for event in events if isinstance(event, Progress) and event.accuracy is not None)
        events.close()
    elif how == "failure":
        assert [event.reason for event in events if isinstance(event, Failure)] == ["not a number"]
    else:
        with pytest.raises(ValueError, match="broken"):
            list(events)
    assert readers() == []


def test_no_more_than_two_batches_are_read_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a device that shall be quiet soon is."""
    data = loaded(folder, resident=0)
    read = []
    before = Stored.read
    monkeypatch.setattr(Stored, "read", lambda self, rows, into: (read.append(len(rows)), before(self, rows, into))[1])
    batches = data.train_batches(torch.arange(48), 4)
    next(batches)
    until = time.monotonic() + 10
    while len(read) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(read) == 3
    batches.close()
    assert len(read) == 3


def test_waiting_for_the_reader_is_counted_as_data_and_not_as_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = loaded(folder, resident=0)
    read = Stored.read
    seen: list[str] = []

    def late(self: Stored, places: Any, into: Any) -> None:
        """Reads once somebody waits for it."""
        until = time.monotonic() + 10
        while PROCESS._open[-1] != "data" and not seen and time.monotonic() < until:
            time.sleep(0.001)
        seen.append(PROCESS._open[-1])
        read(self, places, into)

    monkeypatch.setattr(Stored, "read", late)
    PROCESS.begin("training")
    batches = data.train_batches(torch.arange(48), 4)
    next(batches)
    assert seen[0] == "data"
    assert PROCESS._open == ["training"]  # while the batch is used
    batches.close()


# --- what the disk does -----------------------------------------------------------------------------------------------


def test_a_file_that_is_deleted_meanwhile_is_read_to_the_end(folder: Path, own_cache: Path) -> None:
    kept, data = loaded(folder), loaded(folder, resident=0)
    for file in own_cache.iterdir():
        file.unlink()
    got = torch.cat([some.clone() for some in data.train_batches(torch.arange(48), 7)])
    assert torch.equal(got, kept.train_images)


def test_a_file_that_is_cut_short_meanwhile_is_told_and_is_not_the_networks_fault(
    folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    data = loaded(folder, resident=0)
    (file,) = own_cache.glob("*.npy")
    os.truncate(file, 10_000)
    assignment = Assignment(
        trial=0,
        attempt=1,
        architecture=Architecture(
            stem=Patches(patch=4), stages=(Stage(depth=1, width=8, token_mixer=Dense(ratio=1.0)),)
        ),
        recipe=RECIPE,
        resolution=SIDE,
        classes=2,
        dataset="mine",
        data_path=str(folder),
        images=None,
        validation=0.2,
        epochs=(1,),
        seed=0,
        deployment=None,
    )
    events = evaluate(assignment, dataset=data, device=CPU, quiet=QuietDevice("cpu", tmp_path / "quiet"))
    with pytest.raises(DataError, match=r"\.npy: decoded images cannot be read \(it was cut short\)\. Delete it"):
        list(events)
    assert readers() == []
    assert np.array_equal(all_of(loaded(folder, resident=0).train_images), all_of(loaded(folder).train_images))


def test_a_disk_without_room_is_told_before_anything_is_decoded(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=SET - 1))
    monkeypatch.setattr(pixels, "_decoded", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"60 images of 16 x 16 pixels need 0\.0 GB more .* MLPSPACE_CACHE=FOLDER"):
        loaded(folder)
    assert [file.suffix for file in own_cache.iterdir()] == [".lock"]


def test_a_disk_that_fills_up_on_the_way_is_told_and_left_with_room(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_piece", lambda *_: 8)
    with files_of_at_most(20_000), pytest.raises(DataError, match=r"cannot keep decoded images in .*MLPSPACE_CACHE="):
        loaded(folder)
    assert [file.suffix for file in own_cache.iterdir()] == [".lock"]
    assert len(loaded(folder).train_labels) == 48


# --- decoding: whole or not at all, and never twice -------------------------------------------------------------------


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of which images, in the order that they were decoded; in pieces of 8."""
    told: list[str] = []
    before = pixels._decoded

    def decoded(where: str, *args: Any, **named: Any) -> pixels.Pixels:
        told.append(where)
        return before(where, *args, **named)

    monkeypatch.setattr(pixels, "_decoded", decoded)
    monkeypatch.setattr(pixels, "_piece", lambda *_: 8)
    return told


def begun(folder: Path, pieces: int, busy: Callable[[], AbstractContextManager[object]] = nullcontext) -> list[Any]:
    """A load that is given up after so many pieces; gives the shares that were told."""
    asked: dict[str, Any] = {"resolution": SIDE, "classes": 2, "images": None, "validation": 0.2, "seed": 0}
    coming = loading("mine", str(folder), **asked, busy=busy)
    shares = [next(coming) for _ in range(pieces + 1)]
    coming.close()
    return shares


def test_what_was_decoded_before_an_end_is_not_decoded_again(
    folder: Path, own_cache: Path, decodings: list[str]
) -> None:
    expected = loaded(folder)
    decodings.clear()
    for file in own_cache.iterdir():
        file.unlink()
    assert begun(folder, pieces=3) == [pytest.approx(8 * n / IMAGES) for n in range(4)]
    assert len(decodings) == 24
    (half,) = own_cache.glob("*.half")
    os.truncate(half, half.stat().st_size - 100)  # killed within a write
    data = loaded(folder)
    assert len(decodings) == 24 + IMAGES - 23  # the one that was cut off is decoded anew, no other
    assert torch.equal(data.train_images, expected.train_images)
    assert data.fingerprint == expected.fingerprint
    assert not list(own_cache.glob("*.half"))


@pytest.mark.parametrize("harm", ["another start", "another head", "too long"])
def test_what_may_not_be_whole_is_decoded_anew(
    folder: Path, own_cache: Path, decodings: list[str], harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun(folder, pieces=3)
    (half,) = own_cache.glob("*.half")
    if harm == "another start":  # of the machine: what was written before may not have come to the disk
        (tmp_path / "boot").write_text("01234567-89ab\n")
        monkeypatch.setattr(cache, "_BOOT", tmp_path / "boot")
        os.utime(half, (0, time.time() - 100_000))
    elif harm == "another head":
        with half.open("r+b") as stream_:
            stream_.seek(70)
            stream_.write(b"9")
    else:
        with half.open("ab") as stream_:
            stream_.truncate(half.stat().st_size + 10 * SET)
    data = loaded(folder)
    assert not list(own_cache.glob("*.half"))
    assert len(decodings) == 24 + IMAGES
    decodings.clear()
    for file in own_cache.iterdir():
        file.unlink()
    assert torch.equal(data.train_images, loaded(folder).train_images)


def test_a_broken_image_leaves_nothing_behind(folder: Path, own_cache: Path, decodings: list[str]) -> None:
    (folder / "class1" / "05.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class1/05\.jpg: Pillow cannot read this image"):
        loaded(folder)
    assert [file.suffix for file in own_cache.iterdir()] == [".lock"]


def test_the_device_is_let_go_of_between_pieces(folder: Path, decodings: list[str]) -> None:
    held = []

    @contextmanager
    def busy() -> Generator[None]:
        before = len(decodings)
        yield
        held.append(len(decodings) - before)

    begun(folder, 4, busy)
    assert max(held) == 8


def test_who_waits_for_another_gives_signs_of_life_and_says_how_far_that_one_is(
    folder: Path, decodings: list[str]
) -> None:
    asked: dict[str, Any] = {"resolution": SIDE, "classes": 2, "images": None, "validation": 0.2, "seed": 0}
    one, other = (loading("mine", str(folder), **asked) for _ in range(2))
    assert [next(one) for _ in range(4)][-1] == pytest.approx(24 / IMAGES)
    assert next(other) == pytest.approx(24 / IMAGES)
    list(one)
    assert list(other)  # the fingerprint is there too, or it waits for that
    assert len(decodings) == IMAGES


def test_a_worker_tells_how_much_is_decoded(
    folder: Path, tmp_path: Path, decodings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SIGN_OF_LIFE_S", 0.0)
    asked = SimpleNamespace(
        dataset="mine", data_path=str(folder), resolution=SIDE, classes=2, images=None, validation=0.2, resident=0
    )
    events = worker.Worker("cpu", 1)._dataset(asked, CPU, QuietDevice("cpu", tmp_path / "quiet"))  # type: ignore[arg-type]
    told = [event for event in events if event.share is not None]
    assert {event.phase for event in told} == {"data"}
    assert [event.share for event in told] == sorted(event.share or 0 for event in told)
    assert told[-1].share == 1.0


SLOW_LOAD = """
import os, sys, time
from mlpspace.data import load, pixels
before = pixels._decoded
def decoded(where, *args, **named):
    with open(sys.argv[2], "a") as told:
        told.write(f"{os.getpid()}\\n")
    time.sleep(0.03)
    return before(where, *args, **named)
pixels._decoded = decoded
pixels._piece = lambda *_: 4
data = load("mine", sys.argv[1], resolution=16, classes=2, images=None, validation=0.2, seed=0)
print(data.fingerprint)
"""


def test_of_two_processes_one_decodes_and_the_other_goes_on_where_that_one_is_killed(
    folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    told = tmp_path / "told"
    told.touch()
    command = [sys.executable, "-c", SLOW_LOAD, str(folder), str(told)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        until = time.monotonic() + 60
        while len(told.read_text().splitlines()) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        (first,) = set(told.read_text().split())
        os.kill(int(first), signal.SIGKILL)
        other = next(each for each in both if each.pid != int(first))
        found, _ = other.communicate(timeout=60)
    finally:
        for each in both:
            each.kill()
            each.communicate()
    decoded = len(told.read_text().splitlines())
    assert IMAGES <= decoded <= IMAGES + 8  # a piece of 4 was under way, and one may have been written late
    for file in own_cache.iterdir():
        file.unlink()
    assert found.strip() == loaded(folder).fingerprint


MEASURED = """
import json, sys
from pathlib import Path
import torch
from mlpspace.data import load, loading
torch.zeros(8).sum()
def peak():  # ru_maxrss would begin with that of the process that started this one
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
data = load("mine", sys.argv[1], resolution=320, classes=2, images=None, validation=0.1, seed=0, resident=int(sys.argv[2]))
sums = [int(some.numpy().sum(dtype='int64')) for some in data.train_batches(torch.arange(len(data.train_labels)).flip(0), 16)]
print(json.dumps([data.resident, peak() - before, sum(sums)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """Neither to decode it nor to go through it: 123 MB of images within less than half of that, where a resident set
    takes all of it."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for at in range(200):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(tmp_path / "set" / str(label) / f"{at:03}.png")
    size = 400 * 3 * 320**2
    told = []
    for limit in (0, 2 * size):
        command = [sys.executable, "-c", MEASURED, str(tmp_path / "set"), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told.append(json.loads(done.stdout))
    (streamed, little, one), (resident, much, other) = told
    assert (streamed, resident) == (False, True)
    assert one == other
    assert little < size / 2
    assert much > size


# --- mean, deviation and fingerprint ----------------------------------------------------------------------------------


def test_a_second_load_reads_no_image_of_a_streamed_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(folder, resident=0)
    monkeypatch.setattr(Stored, "read", lambda *_: pytest.fail("read"))
    again = loaded(folder, resident=0)
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.mean, first.mean)
    assert torch.equal(again.std, first.std)


def test_of_images_that_were_changed_in_the_cache_the_fingerprint_is_another(folder: Path, own_cache: Path) -> None:
    first = loaded(folder)
    (file,) = own_cache.glob("*.npy")
    with file.open("r+b") as stream_:
        stream_.seek(-5, os.SEEK_END)
        stream_.write(b"\0\1\2\3\4")
    assert loaded(folder).fingerprint != first.fingerprint


@pytest.mark.parametrize("harm", ["", "\n", "{}", "1 2\n{}", "[" * 100_000, '{"mean": 3}'])
def test_a_broken_note_of_them_is_written_anew(folder: Path, own_cache: Path, harm: str) -> None:
    first = loaded(folder)
    (file,) = own_cache.glob("*.json")
    whole = file.read_text()
    head = whole.split("\n")[0]
    for text in (harm, f"{head}\n{harm}"):
        file.write_text(text)
        assert loaded(folder).fingerprint == first.fingerprint
        assert file.read_text() == whole


def test_each_split_of_the_same_images_has_its_own(folder: Path, own_cache: Path) -> None:
    prints = {loaded(folder, seed=seed, resident=resident).fingerprint for seed in range(3) for resident in (0, None)}
    assert len(prints) == 3
    assert len(list(own_cache.glob("*.npy"))) == 1


def test_mean_and_deviation_are_those_of_the_training_pixels(folder: Path) -> None:
    data = loaded(folder, resident=0)
    values = all_of(data.train_images).astype(np.float64) / 255
    assert np.allclose(data.mean.numpy(), values.mean((0, 2, 3)), rtol=1e-6)
    assert np.allclose(data.std.numpy(), values.std((0, 2, 3)), rtol=1e-6)


# --- as it is typed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2_000_000_000), ("500 mb", 500_000_000), ("1.5T", 1_500_000_000_000), ("0", 0)]
)
def test_a_size_is_in_powers_of_ten(text: str, size: int) -> None:
    assert Size()(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 GiB", "1e9", "9" * 30, "٣GB"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(Exception, match="is no size; write 500MB, 2GB or 1"):
        Size()(text)


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_batches_are_the_same_while_it_is_busy_with_the_last(folder: Path) -> None:
    gpu = torch.device("cuda", 0)
    kept, data = loaded(folder), loaded(folder, resident=0, device=gpu)
    matrix = torch.rand(4096, 4096, device=gpu)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    got = []
    for some in data.train_batches(order.to(gpu), 5):
        for _ in range(5):  # what reads the batch comes late
            matrix = matrix @ matrix / 4096
        got.append(some.clone())
    assert torch.equal(torch.cat(got).cpu(), kept.train_images[order])
    with torch.inference_mode():
        assert torch.equal(torch.cat([some.clone() for some in data.val_batches(5)]).cpu(), kept.val_images)
    resident = loaded(folder, device=gpu)
    assert resident.resident
    assert torch.equal(resident.train_images.cpu(), kept.train_images)
