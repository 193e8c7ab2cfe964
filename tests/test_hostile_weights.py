"""Files of weights that are broken or meant to harm: a WeightsError that names the file, and nothing of theirs is run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guard import ending, tame
from test_weights import SMALL, safetensors, state_of
from torch import Tensor

from mlpspace import weights
from mlpspace.errors import WeightsError


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return state_of(SMALL)


def refusal(path: Path) -> str:
    """What is said of a file whose weights cannot be read."""
    with ending(), pytest.raises(WeightsError) as caught:
        weights.load(path, SMALL)
    assert str(caught.value).startswith(f"{path}: ")
    assert tame(str(caught.value))
    return str(caught.value)


# --- code -------------------------------------------------------------------------------------------------------------


class Calls:
    """Pickled, it calls a function where it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        Calls(os.mkdir, "done"),
        Calls(os.system, "mkdir done"),
        Calls(exec, "import os; os.mkdir('done')"),
        Calls(eval, "__import__('os').mkdir('done')"),
        Calls(subprocess.Popen, ["mkdir", "done"]),
        Calls(torch.load, "other.pth", None, None, False),
        Calls(getattr, "done", "upper"),
    ],
)
@pytest.mark.parametrize(
    "where", ["beside the weights", "as a key", "in place of a weight", "alone", "in the old format"]
)
def test_a_call_in_a_pickle_is_not_made(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Calls, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told: Any = {
        "beside the weights": {"model": state, "args": call},
        "as a key": {call: 1, **state},
        "in place of a weight": state | {"head.bias": call},
        "in the old format": {"model": state, "args": call},
    }.get(where, call)
    torch.save(told, tmp_path / "evil.pth", _use_new_zipfile_serialization=where != "in the old format")
    assert "reading that can execute code" in refusal(tmp_path / "evil.pth")
    assert not Path("done").exists()


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(state: dict[str, Tensor], tmp_path: Path, value: float) -> None:
    spoiled = {key: tensor.clone() for key, tensor in state.items()}
    spoiled["head.bias"][7] = value
    torch.save(spoiled, tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(safetensors(spoiled))
    for name in ("a.pth", "a.safetensors"):
        assert "numbers that are missing or not finite in head.bias" in refusal(tmp_path / name)


OTHER_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda bias: bias.to_sparse(),
    "quantized": lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
    "complex": lambda bias: bias.to(torch.complex64),
    "meta": lambda bias: bias.to("meta"),
    "one number a thousand times": lambda bias: bias[:1].expand(1000),
    "one number a billion billion times": lambda bias: bias[:1].clone().expand(10**9, 10**9),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_tensor_of_another_kind_is_refused(state: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    bias = torch.zeros(1) if kind.startswith("one") else torch.zeros(1000)
    torch.save(state | {"head.bias": OTHER_KINDS[kind](bias)}, tmp_path / "a.pth")
    assert "head.bias" in refusal(tmp_path / "a.pth")


def test_a_head_of_a_billion_classes_takes_no_memory(state: dict[str, Tensor], tmp_path: Path) -> None:
    classes, width = 10**9, state["head.weight"].shape[1]
    told = state | {"head.bias": torch.zeros(1).expand(classes), "head.weight": torch.zeros(1).expand(classes, width)}
    torch.save(told, tmp_path / "a.pth")
    assert "says that it has 256,000,000,000 numbers, and holds fewer" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [">f4", "datetime64[s]", "S3", "U3", "V8", [("a", "f4"), ("b", "f4")]])
def test_numpy_arrays_of_other_numbers_are_refused(state: dict[str, Tensor], tmp_path: Path, dtype: Any) -> None:
    arrays: dict[str, Any] = {key: tensor.numpy() for key, tensor in state.items()}
    np.savez(tmp_path / "a.npz", **arrays | {"head.bias": np.zeros(1000, dtype)})
    assert "head.bias is an array of" in refusal(tmp_path / "a.npz")


# --- sizes ------------------------------------------------------------------------------------------------------------


def header(told: Any, content: bytes = bytes(64), length: int | None = None) -> bytes:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def tensor(shape: Any, begin: Any = 0, end: Any = 64, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header({"a": tensor([10**11], 0, 4 * 10**11)}), "it ends 399999999936 bytes before its tensors do"),
        (header({"a": tensor([0, 10**30], 0, 0)}), "its header is none of a .safetensors"),
        (header({"a": tensor([2**62, 4], 0, 0)}), "its header is none of a .safetensors"),
        (header({"a": tensor([-4, -4])}), "its header is none of a .safetensors"),
        (header({"a": tensor([4.0, 4.0])}), "its header is none of a .safetensors"),
        (header({"a": tensor([True] * 5)}), "its header is none of a .safetensors"),
        (header({"a": tensor("16")}), "its header is none of a .safetensors"),
        (header({"a": tensor([16], "0", "64")}), "its header is none of a .safetensors"),
        (header({"a": tensor([16], 10**30, 10**30 + 64)}), "its header is none of a .safetensors"),
        (header({"a": tensor([16], float("nan"), 64)}), "its header is none of a .safetensors"),
        (header({"a": tensor([16], dtype=["F32"])}), "its header is none of a .safetensors"),
        (header({"a": tensor([16], dtype="\x1b[2J")}), "it holds numbers of type \\x1b[2J"),
        (header({f"a{n}": tensor([16]) for n in range(1000)}), "its tensors lie in each other: it is broken"),
        (header({"a": [tensor([16])]}), "its header is none of a .safetensors"),
        (header([tensor([16])]), "its header is none of a .safetensors"),
        (header("a"), "its header is none of a .safetensors"),
        (header(b"[" * 100_000), "its header is none of a .safetensors"),
        (header(b'{"a": ' * 100_000), "its header is none of a .safetensors"),
        (header(b"\xff\xfe" * 10), "its header is none of a .safetensors"),
        (header(b"9" * 10_000), "its header is none of a .safetensors"),
        (header({}, length=2**63), "it ends before its header does"),
        (header({}, length=2**64 - 1), "it ends before its header does"),
        (header({}, length=0), "it ends before its header does"),
        (header({"\x1b[2J": tensor([16])}), "unknown: \\x1b[2J (16)"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        assert says in refusal(tmp_path / "a.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 100e6  # bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [8, 2**40 - 8])
def test_a_file_of_a_terabyte_of_nothing_is_not_read(tmp_path: Path, length: int) -> None:
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(length.to_bytes(8, "little") + b'{"a": 1}')
        file.truncate(2**40)  # takes no room on the disk
    assert "a.safetensors" in refusal(tmp_path / "a.safetensors")


def test_an_npz_that_unpacks_to_very_much_is_not_unpacked(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(25_000_000))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.npy", stream.getvalue())
    assert (tmp_path / "a.npz").stat().st_size < 2e6
    assert "it unpacks to 0.2 GB, so often the same that it is no weights" in refusal(tmp_path / "a.npz")


def test_an_npz_whose_array_says_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue() + bytes(64))
    assert "numpy cannot read it, it is broken or no .npz" in refusal(tmp_path / "a.npz")


# --- spoiled at random ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pth", ".tar", ".npz", ".safetensors"])
def test_three_hundred_spoiled_files_of_each_kind_are_refused(tmp_path: Path, suffix: str) -> None:
    """None has the keys of a network, so that each is refused for something."""
    rng = np.random.default_rng(0)
    some = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4)}
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in some.items()})
    elif suffix == ".safetensors":
        path.write_bytes(safetensors(some))
    else:
        torch.save(some, path, _use_new_zipfile_serialization=suffix == ".pth")
    whole = path.read_bytes()
    for _ in range(300):
        spoiled = bytearray(whole)
        for at in rng.integers(0, len(spoiled), rng.integers(1, 6)):
            spoiled[at] = rng.integers(256)
        if rng.random() < 0.2:
            del spoiled[rng.integers(len(spoiled)) :]
        path.write_bytes(spoiled)
        refusal(path)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_pipe, a_folder, a_device, a_link_to_itself])
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path, make: Any, suffix: str) -> None:
    make(tmp_path / f"a{suffix}")
    assert refusal(tmp_path / f"a{suffix}").endswith("there is no such file")
