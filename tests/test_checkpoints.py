"""What is kept of a training that pauses."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest
from full_disk import files_of_at_most

from mlpspace.checkpoints import Checkpoints, MemoryCheckpoints, Shelf
from mlpspace.errors import StudyError
from mlpspace.measurement import Checkpoint


@pytest.fixture(params=["files", "memory"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Checkpoints(tmp_path / "study" / "checkpoints") if request.param == "files" else MemoryCheckpoints()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# --- on disk and in memory alike ---


def state(shelf: Shelf, trial: int) -> bytes | None:
    checkpoint = shelf.get(trial)
    return None if checkpoint is None else checkpoint.state


def test_what_is_put_is_what_one_gets(shelf: Shelf) -> None:
    shelf.put(3, Checkpoint(2, b"three"))
    shelf.put(14, Checkpoint(2, b""))
    assert (state(shelf, 3), state(shelf, 14), state(shelf, 4)) == (b"three", b"", None)
    assert (shelf.epochs(3), shelf.epochs(14), shelf.epochs(4)) == (2, 2, 0)


def test_the_latest_state_is_the_one_that_counts(shelf: Shelf) -> None:
    shelf.put(3, Checkpoint(2, b"after rung 0, the longer one"))
    shelf.put(3, Checkpoint(6, b"after rung 1"))
    assert (state(shelf, 3), shelf.epochs(3)) == (b"after rung 1", 6)
    shelf.put(3, Checkpoint(4, b"another attempt"))
    assert (state(shelf, 3), shelf.epochs(3)) == (b"another attempt", 4)


def test_what_is_dropped_is_gone_and_may_be_dropped_again(shelf: Shelf) -> None:
    shelf.put(3, Checkpoint(2, b"three"))
    shelf.put(4, Checkpoint(2, b"four"))
    shelf.drop(3)
    shelf.drop(3)
    assert (state(shelf, 3), state(shelf, 4)) == (None, b"four")


def test_all_but_some_are_cleared(shelf: Shelf) -> None:
    shelf.clear_except([1])  # nothing was kept yet
    for trial in (1, 2, 11):
        shelf.put(trial, Checkpoint(2, b"state"))
    shelf.clear_except({11, 99})
    assert [trial for trial in (1, 2, 11, 99) if shelf.get(trial) is not None] == [11]


def test_a_training_anew_has_a_state_of_its_own_and_goes_with_its_trial(shelf: Shelf) -> None:
    shelf.put(3, Checkpoint(2, b"its own"))
    shelf.put(3, Checkpoint(4, b"the second anew"), repeat=2)
    shelf.put(3, Checkpoint(6, b"the second anew, later"), repeat=2)
    assert shelf.epochs(3) == 2
    assert state(shelf, 3) == b"its own"
    assert shelf.get(3, repeat=1) is None
    assert shelf.get(3, repeat=2) == Checkpoint(6, b"the second anew, later")
    shelf.clear_except([3])
    assert shelf.get(3, repeat=2) is not None
    shelf.drop(3)
    assert shelf.get(3, repeat=2) is None


# --- files ---


def test_a_folder_is_made_only_when_there_is_something_to_keep(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shelf = Checkpoints(folder)
    shelf.drop(1)
    shelf.clear_except([])
    assert shelf.get(1) is None
    assert not folder.exists()


def test_another_process_finds_what_one_kept(tmp_path: Path) -> None:
    Checkpoints(tmp_path).put(7, Checkpoint(2, b"state"))
    assert state(Checkpoints(tmp_path), 7) == b"state"


def test_a_full_disk_is_told_and_leaves_the_state_before(tmp_path: Path) -> None:
    shelf = Checkpoints(tmp_path / "checkpoints")
    shelf.put(7, Checkpoint(2, b"before"))
    with files_of_at_most(4096), pytest.raises(StudyError) as told:
        shelf.put(7, Checkpoint(2, bytes(2_000_000)))
    assert str(told.value) == (
        f"{tmp_path}/checkpoints: the checkpoint of trial 7, 2.0 MB, cannot be kept: {os.strerror(errno.EFBIG)}.\n"
        "  Make room there, or make the folder writable, and type the same command again: the study goes on, and\n"
        "  loses at most what was being trained."
    )
    assert state(shelf, 7) == b"before"
    assert names(tmp_path / "checkpoints") == [f"7-epoch2-{zlib.crc32(b'before'):08x}.pt"]


def test_a_process_that_ends_while_writing_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Checkpoints(tmp_path)
    shelf.put(7, Checkpoint(2, b"before"))

    def ends(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", ends)
    with pytest.raises(KeyboardInterrupt):
        shelf.put(7, Checkpoint(2, b"half of what there was to write"))
    assert state(shelf, 7) == b"before"
    shelf.clear_except([7])
    assert names(tmp_path) == [f"7-epoch2-{zlib.crc32(b'before'):08x}.pt"]


@pytest.mark.parametrize("use", [lambda shelf: shelf.put(1, Checkpoint(2, b"x")), lambda shelf: shelf.get(1)])
def test_a_folder_that_is_none_is_told(tmp_path: Path, use: object) -> None:
    (tmp_path / "checkpoints").write_text("a file of somebody")
    with pytest.raises(StudyError, match=r"checkpoints: the checkpoint of trial 1.* cannot be (kept|read): "):
        use(Checkpoints(tmp_path / "checkpoints"))  # type: ignore[operator]


def test_a_state_that_was_damaged_is_not_taken_but_the_one_before_it_is(tmp_path: Path) -> None:
    shelf = Checkpoints(tmp_path)
    shelf.put(7, Checkpoint(2, b"after 2 epochs"))
    (older,) = tmp_path.iterdir()
    kept = older.read_bytes()
    shelf.put(7, Checkpoint(4, b"after 4 epochs"))
    (newer,) = tmp_path.iterdir()
    newer.write_bytes(b"after 4 e")  # cut off
    assert shelf.get(7) is None
    older.write_bytes(kept)  # as when the process ended before it could delete it
    shelf = Checkpoints(tmp_path)
    assert shelf.get(7) == Checkpoint(2, b"after 2 epochs")
    shelf.drop(7)
    assert names(tmp_path) == []


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mixer.pt").write_text("mine too")
    shelf = Checkpoints(tmp_path)
    shelf.put(1, Checkpoint(2, b"state"))
    shelf.clear_except([])
    assert names(tmp_path) == ["mixer.pt", "notes.txt"]
