"""Datasets that are broken or meant to harm: a DataError that names the file, soon, and nothing of theirs is run."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import mlpspace
from guard import ending, tame
from PIL import Image
from stubs import SPACE
from test_data_sources import (
    all_images,
    noise,
    opened,
    png,
    structs,
    write_cifar10,
    write_idx,
    write_images,
    write_parquet,
)

from mlpspace.data import load, pixels
from mlpspace.errors import DataError

Spoil = Callable[[Path], Path]


def loaded(path: Path | str, name: str = "mine", classes: int = 2) -> Any:
    return load(name, str(path), resolution=8, classes=classes, images=None, validation=0.5, seed=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPSPACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def refusal(path: Path | str, **task: Any) -> str:
    """What is said of a dataset that cannot be loaded."""
    with ending(), pytest.raises(DataError) as caught:
        loaded(path, **task)
    assert tame(str(caught.value))
    return str(caught.value)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, 0, 7], r"has labels up to 7 (PATH/train.parquet, row 3), which is 8 classes, and the task says 2"),
        ([0, 1, -1, 0], r"PATH/train.parquet, row 2: label -1; they count from 0"),
        ([0, 1, 2**63 - 1, 0], "has labels up to 9223372036854775807 (PATH/train.parquet, row 2)"),
        (pa.array([0, 1, 2**64 - 1, 0], pa.uint64()), "PATH/train.parquet, row 2: label"),
        ([0, 1, None, 0], 'PATH/train.parquet, row 2: no label in the column "label"'),
        (["cat", "dog", "cat", "dog"], "should have one integer label column and has none. Its columns: image ("),
        ([0.0, 1.0, 0.5, float("nan")], "should have one integer label column and has none"),
        ([True, False, True, False], "should have one integer label column and has none"),
        ([[0], [1], [0], [1]], "should have one integer label column and has none"),
        ([0, 0, 0, 0], "has labels up to 0"),
        ([1, 1, 1, 1], "no image in PATH has label 0; number them 0 to n-1"),
    ],
)
def test_a_label_that_is_none_is_told_with_its_row(place: Path, labels: Any, says: str) -> None:
    write_parquet(place / "train.parquet", image=structs(noise(4, 8, 8)), label=labels)
    assert says in refusal(place).replace(str(place), "PATH")


def test_a_set_without_rows_is_told(place: Path) -> None:
    empty = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    pq.write_table(empty, place / "train.parquet")
    assert refusal(place).endswith("holds no image")


# --- parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [7, "ab", None, {"a": 1}, [1, 2]])
def test_class_names_that_are_none_are_passed_by(place: Path, names: Any) -> None:
    table = pa.table({"image": structs(noise(4, 8, 8)), "label": [0, 1, 0, 1]})
    told = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), place / "train.parquet")
    assert opened(place, 2).labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("note", ["[" * 100_000, '{"info": [1]}', "\x00", '{"info": {"features": {"label": 3}}}'])
def test_a_note_in_the_schema_that_is_none_is_passed_by(place: Path, note: str) -> None:
    table = pa.table({"image": structs(noise(4, 8, 8)), "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), place / "train.parquet")
    assert opened(place, 2).labels.tolist() == [0, 1, 0, 1]


def test_bytes_within_bytes_are_no_image_column(place: Path) -> None:
    inner = [{"bytes": {"bytes": png(image)}} for image in noise(2, 8, 8)]
    write_parquet(place / "train.parquet", image=inner, label=[0, 1])
    assert "should have one image column (bytes, or a struct with bytes) and has none" in refusal(place)


def test_a_column_that_unpacks_to_more_than_the_machine_holds_is_not_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"image": [bytes(1_000_000 + n) for n in range(4)], "label": [0, 1, 0, 1]})
    pq.write_table(table, place / "train.parquet", compression="zstd")
    assert (place / "train.parquet").stat().st_size < 100_000
    monkeypatch.setattr(pixels, "machine_bytes", lambda: 4_000_000)
    assert 'the values of the column "image" take 0.0 GB, more than half' in refusal(place)


def test_names_of_columns_do_not_drive_the_terminal(place: Path) -> None:
    write_parquet(place / "train.parquet", **{"\x1b[2J": [1], "\x9b1A": [2], "image": structs(noise(1, 8, 8))})
    assert "\\x1b[2J, \\x9b1A" in refusal(place)


# --- images -----------------------------------------------------------------------------------------------------------


def png_head(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(done) (w) file closefile\nshowpage\n%%EOF\n"
)


def gif_that_says(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(1, 1)).save(stream, "GIF")
    whole = stream.getvalue()
    return whole[:6] + struct.pack("<HH", width, height) + whole[10:]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png_head(30_000, 30_000), "could be decompression bomb"),
        (png_head(2**31 - 1, 2**31 - 1), "could be decompression bomb"),
        (png_head(0, 0), "Pillow cannot read this image"),
        (gif_that_says(65535, 65535), "could be decompression bomb"),
        (png(noise(8, 8))[:70], "Pillow cannot read this image"),
        (png(noise(8, 8))[:20], "Pillow cannot read this image"),
        (b"", "Pillow cannot read this image"),
        (b"\0" * 1000, "Pillow cannot read this image (none of PNG, JPEG, "),
        (POSTSCRIPT, "Pillow cannot read this image (none of PNG, JPEG, "),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Pillow cannot read this image (none of PNG"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "Pillow cannot read this image"),
        (b"II*\0\x08\0\0\0" + b"\xff" * 200, "Pillow cannot read this image"),
    ],
    ids=["30000", "2**31", "0", "gif", "cut", "head", "empty", "zeros", "postscript", "svg", "jpeg", "tiff"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_an_image_that_is_none_is_named(place: Path, form: str, data: bytes, says: str) -> None:
    whole = [png(image) for image in noise(4, 8, 8)]
    if form == "folder":
        write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
        (place / "b" / "001.png").write_bytes(data)
        where = f"{place / 'b' / '001.png'}"
    elif not data:
        pytest.skip("no bytes are told otherwise")
    else:
        write_parquet(place / "train.parquet", image=[*whole[:3], data], label=[0, 1, 0, 1])
        where = f"{place / 'train.parquet'}, row 3"
    told = refusal(place)
    assert told.startswith(f"{where}: ")
    assert says in told
    assert not Path("done").exists()


def decoded(data: bytes) -> tuple[Any, DataError | None]:
    try:
        with ending():
            return pixels.decode(lambda start: [("here", data)], 1, 8).whole(), None
    except DataError as error:
        return None, error


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it passes by
def test_five_hundred_spoiled_images_are_images_or_data_errors(place: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(noise(40, 30, 3))
    whole = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        stream = io.BytesIO()
        image.save(stream, kind)
        whole.append(stream.getvalue())
    told = {"images": 0, "errors": 0}
    for _ in range(500):
        spoiled = bytearray(whole[rng.integers(len(whole))])
        for at in rng.integers(0, len(spoiled), rng.integers(1, 20)):
            spoiled[at] = rng.integers(256)
        if rng.random() < 0.3:
            del spoiled[rng.integers(len(spoiled)) :]
        found, error = decoded(bytes(spoiled))
        assert found.shape in [(1, 1, 8, 8), (1, 3, 8, 8)] if error is None else str(error).startswith("here: ")
        told["images" if error is None else "errors"] += 1
    assert min(told.values()) > 50


# --- IDX --------------------------------------------------------------------------------------------------------------


def test_a_gzip_that_unpacks_to_more_than_it_promises_is_not_unpacked(place: Path) -> None:
    write_idx(place, noise(2, 8, 8), [0, 1], zipped=True)
    bomb = struct.pack(">IIII", 0x803, 2, 8, 8) + bytes(300_000_000)
    (place / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bomb, 1))
    assert "train-images-idx3-ubyte.gz promises 128 values and holds more: fetch it again" in refusal(place)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2, 2**32 - 1, 2**31)])
def test_an_idx_file_that_promises_more_than_the_machine_holds_is_not_read(place: Path, shape: tuple[int, ...]) -> None:
    write_idx(place, noise(2, 8, 8), [0, 1])
    (place / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, *shape))
    assert re.search("promises .* values, which take .* GB, more than half of the", refusal(place))


def test_idx_images_of_no_pixels_are_told(place: Path) -> None:
    write_idx(place, noise(2, 0, 8), [0, 1])
    assert "train-images-idx3-ubyte promises images of no pixels" in refusal(place)


# --- pickles ----------------------------------------------------------------------------------------------------------


def batch_of(data: bytes) -> bytes:
    """A batch whose "data" is what these opcodes make."""
    return b"}(U\x04data" + data + b"U\x06labels](K\x00K\x01eu."


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({b"data": np.zeros((2, 3072), object), b"labels": [0, 1]}, 2),
        pickle.dumps({b"data": np.zeros((2, 3072), [("a", "u1")]), b"labels": [0, 1]}, 2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.float64), b"labels": [0, 1]}, 2),
        batch_of(
            ARRAY + b"(K\x01(J\xff\xff\xff\x7fM\x00\x0ctcnumpy\ndtype\n(U\x02u1tR\x89U\x01xtb"
        ),  # 2**31 rows of one byte
        batch_of(ARRAY + b"(K\x01(K\x02M\x00\x0ctcnumpy\ndtype\n(U\x02O8tR\x89]tb"),
        batch_of(
            ARRAY
            + b"(K\x01(K\x02M\x00\x0ctcnumpy\ndtype\n(U\x02u1tR(K\x03U\x01|(U\x01atNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89]tb"
        ),
        batch_of(b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR"),
        batch_of(b"cnumpy\ndtype\n(U\x02O8tR"),
        b"}(" + b"K\x01" + b"\x85" * 400_000 + b"K\x01u.",  # tuples in each other: their hash would overflow the stack
        b"}(" + b"]" * 1_000_000 + b"u.",
        b"\x80\x02" + b"(" * 1_000_000 + b".",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a string of 2**63 characters
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray
        b'c__builtin__\neval\n(S\'open("done", "w")\'\ntR.',
        b"cos\nsystem\n(S'touch done'\ntR.",
        b"(S'touch done'\nios\nsystem\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\ntouch done\x85R.",
        b"\x80\x02\x82\x01.",
        b"P1\n.",
        b"",
        b".",
        b"N.",
        b"]q\x00h\x00a.",  # a list that holds itself
    ],
)
def test_a_pickle_that_is_no_batch_is_refused_and_runs_nothing(place: Path, data: bytes, monkeypatch) -> None:
    monkeypatch.chdir(place)
    write_cifar10(place, noise(10, 3, 32, 32), [0, 1] * 5)
    (place / "data_batch_3").write_bytes(data)
    assert str(place / "data_batch_3") in refusal(place)
    assert not Path("done").exists()


def test_two_thousand_spoiled_batches_are_batches_or_data_errors(place: Path) -> None:
    """Bytes of the pickle's structure are changed, not those of the pixels."""
    rng = np.random.default_rng(0)
    write_cifar10(place, noise(10, 3, 32, 32), [0, 1] * 5)
    file = place / "data_batch_2"
    whole = file.read_bytes()
    pixels_at = whole.index(noise_of(whole))
    structure = [*range(pixels_at), *range(pixels_at + 6144, len(whole))]
    read = 0
    for _ in range(2000):
        spoiled = bytearray(whole)
        for at in rng.choice(structure, rng.integers(1, 4)):
            spoiled[at] = rng.integers(256)
        file.write_bytes(spoiled)
        with contextlib.suppress(DataError), ending():
            part = opened(place, 2)
            assert all_images(part, 32).shape == (10, 3, 32, 32)
            read += 1
    assert read > 10


def noise_of(batch: bytes) -> bytes:
    """The pixels within a pickled batch."""
    rows: Any = pickle.loads(batch)[b"data"]
    data: bytes = rows.tobytes()
    return data if data in batch else data.decode("latin1").encode("utf-8")


# --- files that are none ----------------------------------------------------------------------------------------------


def a_pipe(place: Path) -> Path:
    os.mkfifo(place / "pipe")
    return place / "pipe"


def a_pipe_among_parquet(place: Path) -> Path:
    os.mkfifo(place / "train.parquet")
    return place


def a_folder_among_parquet(place: Path) -> Path:
    (place / "train.parquet").mkdir()
    return place


def a_pipe_among_images(place: Path) -> Path:
    write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
    os.mkfifo(place / "a" / "pipe.png")
    return place


def a_device_among_images(place: Path) -> Path:
    write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
    (place / "b" / "zero.png").symlink_to("/dev/zero")
    return place


def a_link_to_nothing_among_images(place: Path) -> Path:
    write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
    (place / "b" / "gone.png").symlink_to(place / "nowhere.png")
    return place


def a_pipe_for_idx(place: Path) -> Path:
    write_idx(place, noise(2, 8, 8), [0, 1])
    (place / "train-labels-idx1-ubyte").unlink()
    os.mkfifo(place / "train-labels-idx1-ubyte")
    return place


def a_pipe_for_a_batch(place: Path) -> Path:
    write_cifar10(place, noise(10, 3, 32, 32), [0, 1] * 5)
    (place / "data_batch_1").unlink()
    os.mkfifo(place / "data_batch_1")
    return place


def a_device(place: Path) -> Path:
    return Path("/dev/zero")


def a_link_to_itself(place: Path) -> Path:
    (place / "loop").symlink_to(place / "loop")
    return place / "loop"


def a_name_that_is_too_long(place: Path) -> Path:
    return place / ("x" * 5000)


def a_home_of_nobody(place: Path) -> Path:
    return Path("~nobody-of-that-name/data")


def a_zip_that_climbs(place: Path) -> Path:
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        archive.writestr("../../climbed.png", png(noise(8, 8)))
    return place / "set.zip"


def a_tar_that_climbs(place: Path) -> Path:
    (place / "x.png").write_bytes(png(noise(8, 8)))
    with tarfile.open(place / "set.tar.gz", "w:gz") as archive:
        archive.add(place / "x.png", "../../climbed.png")
    return place / "set.tar.gz"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (a_pipe, "data/pipe is no dataset that we read"),
        (a_pipe_among_parquet, "data/train.parquet is no file, or a link to none: take it away"),
        (a_folder_among_parquet, "data/train.parquet is no file"),
        (a_pipe_among_images, "data/a/pipe.png is no file, or a link to none: take it away"),
        (a_device_among_images, "data/b/zero.png is no file"),
        (a_link_to_nothing_among_images, "data/b/gone.png is no file, or a link to none"),
        (a_pipe_for_idx, "has one IDX file of two"),
        (a_pipe_for_a_batch, "has no data_batch_1"),
        (a_device, "/dev/zero is no dataset that we read"),
        (a_link_to_itself, "there is no "),
        (a_name_that_is_too_long, "cannot be read (File name too long)"),
        (a_home_of_nobody, "there is no ~nobody-of-that-name/data"),
        (a_zip_that_climbs, "is packed: unpack it and give the folder"),
        (a_tar_that_climbs, "is packed: unpack it and give the folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_file_is_told_and_not_waited_for(place: Path, write: Spoil, says: str) -> None:
    assert says in refusal(write(place))
    assert not list(place.parent.glob("climbed*"))


def test_links_in_a_circle_do_not_multiply_the_images(place: Path) -> None:
    write_images(place, {"a": noise(3, 8, 8), "b": noise(2, 8, 8)})
    for name in ("one", "two", "three"):  # each way through them is another path: three to the power of forty
        (place / "a" / name).symlink_to(place / "a")
    (place / "b" / "up").symlink_to(place / "b")
    with ending():
        part = opened(place, 2)
    assert part.labels.tolist() == [0, 0, 0, 1, 1]


def test_a_class_may_be_a_link_to_a_folder_elsewhere(tmp_path: Path, place: Path) -> None:
    write_images(tmp_path / "elsewhere", {"a": noise(3, 8, 8)})
    write_images(place, {"b": noise(2, 8, 8)})
    (place / "a").symlink_to(tmp_path / "elsewhere" / "a")
    assert opened(place, 2).labels.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", ["\x1b[2J\x1b]0;owned\x07.png", "a\nmlpspace: all is well.png", "\u202egnp.png"])
def test_names_of_files_do_not_drive_the_terminal(place: Path, name: str) -> None:
    write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
    (place / "a" / name).write_bytes(b"no image")
    told = refusal(place)
    assert "Pillow cannot read this image" in told


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["place", "file", "above"])
def test_what_may_not_be_read_is_told(tmp_path: Path, place: Path, closed: str) -> None:
    write_images(place, {"a": noise(2, 8, 8), "b": noise(2, 8, 8)})
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's are for their owner alone
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o755)
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    {"place": place, "file": place / "a" / "000.png", "above": tmp_path}[closed].chmod(0)
    try:
        with as_nobody():
            told = refusal(place)
    finally:
        tmp_path.chmod(0o755)
        place.chmod(0o755)
    assert "cannot be read" in told
    assert "Permission denied" in told


# --- as it is typed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [a_pipe, a_pipe_among_parquet, a_device, a_name_that_is_too_long, a_home_of_nobody])
def test_a_search_refuses_such_a_place_before_it_makes_a_study(
    tmp_path: Path, place: Path, write: Spoil, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE.replace("mnist5k", "mine"))
    with ending():
        code, out, err = mlpspace(
            capsys, "search", "space.yaml", "--data", f"mine={write(place)}", "--engine", "inline"
        )
    assert code == 2
    assert "Traceback" not in err
    assert tame(out + err)
    assert not (tmp_path / "studies").exists()
