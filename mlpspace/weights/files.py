"""Files of weights, read without executing anything that is in them."""

from __future__ import annotations

import argparse
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mlpspace.errors import WeightsError
from mlpspace.weights.convert import convert

LAST = ("model", "state_dict", "model_state_dict")  # where training scripts keep the weights of the last step,
AVERAGED = ("model_ema", "state_dict_ema", "ema")  # and those averaged over the steps


def load(path: str | Path, name: str, *, ema: bool = False) -> dict[str, Tensor]:
    """The weights in a file as our network of that name takes them; see `convert`.

    A training script's checkpoint is unwrapped: a state dict under "model" or "state_dict", keys that begin with
    "module.". Nothing in the file is executed: pickled objects other than tensors and plain values are refused.

    Args:
        path: a .pth, .pt, .tar, .bin or .ckpt of torch, a .npz of numpy (the JAX code of MLP-Mixer), a .safetensors.
        name: of a published network.
        ema: take the weights averaged over training, which some checkpoints hold beside the last ones.

    Raises:
        WeightsError: the file is missing, broken, of another type, or holds more than plain values; or its weights do
            not fit. The text says what.
        ArchitectureError: no such name.
    """
    path = Path(path)
    read = READERS.get(path.suffix)
    if read is None:
        raise WeightsError(f"{path}: weights are read from files that end in {', '.join(READERS)}")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    try:
        return convert(_state_dict(read(path), ema), name)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _state_dict(found: Any, ema: bool) -> dict[str, Any]:
    """The state dict in what a file holds."""
    if not isinstance(found, Mapping):
        raise WeightsError(f"it holds a {type(found).__name__}, and a state dict is needed: tensors under their keys")
    names = AVERAGED if ema else (*LAST, *AVERAGED)
    inner = next((found[name] for name in names if isinstance(found.get(name), Mapping)), None)
    if inner is None and ema:
        raise WeightsError(f"it holds {_listed(found)}, and averaged weights would be under {', '.join(AVERAGED)}")
    state = found if inner is None else inner
    if not state or not all(isinstance(value, Tensor | np.ndarray) for value in state.values()):
        raise WeightsError(f"it holds {_listed(state)}, and a state dict is needed, alone or under {', '.join(names)}")
    keys = [str(key) for key in state]
    if all(key.startswith("module.") for key in keys):
        keys = [key.removeprefix("module.") for key in keys]
    return dict(zip(keys, state.values(), strict=True))


def _listed(found: Mapping[Any, Any]) -> str:
    first = ", ".join(str(key) for key in list(found)[:8]) or "nothing"
    return first + (", ..." if len(found) > 8 else "")


def _read_torch(path: Path) -> Any:
    # training scripts keep their command line beside the weights, and a Namespace is no more than a dict
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # broken files end in nearly any exception, of the zip as of the unpickler
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            if wanted:
                raise WeightsError(
                    f"it holds a pickled {wanted[1]}, and reading that can execute code. Have it saved with its state "
                    "dict alone, or, if you trust it, do that yourself: "
                    'torch.save(torch.load(FILE, weights_only=False)["model"], NEW_FILE)'
                ) from error
            line = str(error).strip().partition("\n")[0]
            # torch's own words on what it refuses advise to drop the protection
            because = f" ({line})" if line and not line.startswith("Weights only load failed") else ""
            raise WeightsError(f"torch cannot read it, it is broken or no file of torch's{because}") from error


def _read_numpy(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):  # numpy takes anything else for a pickle
        raise WeightsError("it is broken or no .npz, which is an archive of arrays under their names")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MOST_UNPACKED * path.stat().st_size:
            raise WeightsError(f"it unpacks to {unpacked / 1e9:.1f} GB, so often the same that it is no weights")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except WeightsError:
        raise
    except Exception as error:  # as above
        if "allow_pickle" in str(error):
            raise WeightsError("it holds pickled objects, and reading those can execute code") from error
        raise WeightsError(f"numpy cannot read it, it is broken or no .npz ({error})") from error


MOST_UNPACKED = 100  # times its own size; of weights, which hardly pack, it is no more than 1.2
MOST_HEADER = 10_000_000  # bytes of a .safetensors' header; a thousand tensors take 0.1 MB


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """8 bytes with the length of the header, the header in JSON, the numbers (safetensors's README, "Format")."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            start = 8 + length
            if not 8 < start <= size or length > MOST_HEADER:
                raise WeightsError("it ends before its header does, it is broken or no .safetensors")
            header = json.loads(file.read(length))
            wanted = {key: _Stored.of(entry) for key, entry in header.items() if key != "__metadata__"}
            if sum(stored.end - stored.begin for stored in wanted.values()) > size - start:
                ends = max(stored.end for stored in wanted.values())
                missing = f"it ends {start + ends - size} bytes before its tensors do" if start + ends > size else ""
                raise WeightsError(f"{missing or 'its tensors lie in each other'}: it is broken")
            return {key: stored.read(file, start) for key, stored in wanted.items()}
    except OSError as error:
        raise WeightsError(f"it cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise WeightsError(f"its header is none of a .safetensors, or is broken ({error})") from error


@dataclass(frozen=True, slots=True)
class _Stored:
    """One tensor of a .safetensors: its bytes begin and end so far behind the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    @staticmethod
    def of(entry: dict[str, Any]) -> _Stored:
        if entry["dtype"] not in DTYPES:
            raise WeightsError(f"it holds numbers of type {entry['dtype']}, and {', '.join(DTYPES)} can be read")
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and 0 <= number < 2**40 for number in (*shape, begin, end)):
            raise ValueError(f"a shape of {shape} from {begin} to {end}")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{end - begin} bytes for a shape of {shape}")
        return _Stored(dtype, tuple(shape), begin, end)

    def read(self, file: BinaryIO, start: int) -> Tensor:
        if self.begin == self.end:  # frombuffer has no empty tensors
            return torch.empty(self.shape, dtype=self.dtype)
        file.seek(start + self.begin)
        content = bytearray(file.read(self.end - self.begin))  # frombuffer wants memory that may be written
        if len(content) < self.end - self.begin:
            raise WeightsError(
                f"it ends {self.end - self.begin - len(content)} bytes before its tensors do: it is broken"
            )
        return torch.frombuffer(content, dtype=self.dtype).reshape(self.shape)


DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys((".pth", ".pt", ".tar", ".bin", ".ckpt"), _read_torch),
    ".npz": _read_numpy,
    ".safetensors": _read_safetensors,
}
