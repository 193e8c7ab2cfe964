"""Weights, images and outputs of official implementations.

The outputs are stored there; weights and images follow from a rule, so they need not be.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "goldens"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """The entry of that key and shape as the rule has it: any implementation's state dict can be filled so."""
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape, dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        n = 0.75 + 0.25 * np.tanh(n)
    elif leaf in ("ls1", "ls2") or leaf.startswith("gamma"):
        n = 0.3 + 0.05 * n
    elif leaf == "alpha" or (leaf == "weight" and len(shape) == 1):
        n = 1 + 0.1 * n
    elif len(shape) <= 1 or leaf in ("beta", "pos_embed", "cls_token", "cls_pos_embed"):
        n = 0.1 * n
    else:
        n = n / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def facts(name: str) -> dict[str, Any]:
    """`image_size`, `params` and the rest that is known of a golden."""
    known: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return known


def state_dict(name: str) -> dict[str, Tensor]:
    """That of the official implementation, filled by the rule."""
    return {
        key: drawn(key, shape) if value is None else torch.tensor(value)
        for key, shape, _, value in facts(name)["state"]
    }


def images_and_logits(name: str) -> list[tuple[Tensor, Tensor]]:
    """Two batches of two images, the second the first moved by one pixel along the rows; what the official code says."""
    images = images_of(facts(name)["image_size"])
    logits = np.load(FOLDER / f"{name}.npz")
    moved = images.roll(1, dims=-1)
    return [(images, torch.from_numpy(logits["logits"])), (moved, torch.from_numpy(logits["logits_rolled"]))]


def images_of(side: int, count: int = 2) -> Tensor:
    """(count, 3, side, side)."""
    numbers = np.random.Generator(np.random.PCG64(0)).standard_normal((count, 3, side, side), dtype=np.float32)
    return torch.from_numpy(numbers)


def deviations(ours: Tensor, expected: Tensor) -> float:
    """The largest difference of two outputs in standard deviations of the expected one."""
    return float((ours - expected).abs().max() / expected.std())
