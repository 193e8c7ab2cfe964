"""The state dict of another implementation as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlpspace import papers
from mlpspace.architecture import Architecture
from mlpspace.comparators import Comparator, TimmMissing
from mlpspace.errors import WeightsError
from mlpspace.nets.network import cost
from mlpspace.weights.implementations import IMPLEMENTATIONS
from mlpspace.weights.reading import Reading, StateDict, classes_found, readings, timm_reading


def convert(state_dict: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The weights of a published network as our network of that name takes them.

    Args:
        state_dict: of the official implementation, or of timm where timm has the network; tensors or numpy arrays.
            Its keys tell which it is. A head of other than 1,000 classes is taken as it is.
        name: of a published network; its weights are read at the resolution of its paper. Those of MLP-Mixer's JAX code
            are of the networks with the tanh GELU, "mixer_b16_tanh". A comparator's stay as timm has them, and are not
            checked where timm does not import.

    Returns:
        The entries for `build(papers.get(name), resolution, classes).load_state_dict`, in its order.

    Raises:
        WeightsError: no implementation with weights of that network is known, or entries are unknown, missing or
            misshapen: all are named, and the network whose weights they are, if it is another one of ours.
        ArchitectureError: no such name.

    Example:
        >>> theirs = timm.create_model("resmlp_12_224", pretrained=True).state_dict()  # doctest: +SKIP
        >>> ours = mlpspace.build(mlpspace.papers.get("resmlp_s12"), resolution=224, classes=1000)
        >>> ours.load_state_dict(mlpspace.weights.convert(theirs, "resmlp_s12"))  # doctest: +SKIP
    """
    paper = papers.paper(name)
    if not isinstance(state_dict, Mapping):
        raise WeightsError(
            f"{name}: a state dict is needed, tensors under their keys, not a {type(state_dict).__name__}"
        )
    found = {key: _tensor(key, value) for key, value in state_dict.items()}
    if isinstance(paper.architecture, Comparator):
        try:
            reading = timm_reading(found, paper.architecture, paper.resolution)
        except TimmMissing:
            return found
        return _read(found, reading, name)
    return converted(found, paper.architecture, paper.resolution, name)


def converted(found: StateDict, architecture: Architecture, resolution: int, name: str) -> dict[str, Tensor]:
    """As `convert`, for any architecture; `name` is what messages call it."""
    ways = readings(found, architecture, resolution)
    if not ways:
        raise WeightsError(f"{name}: no public code has a network of its parts, so there are no weights to read")
    best = max(ways, key=lambda reading: reading.known(found))
    return _read(found, best, name, lambda: _whose(found, best, architecture, resolution, name))


def _read(found: StateDict, reading: Reading, name: str, whose: Callable[[], str] = str) -> dict[str, Tensor]:
    mistakes = reading.mistakes(found)
    if not mistakes:
        broken = [key for key in reading.expected if found[key].is_meta or not torch.isfinite(found[key]).all()]
        if broken:
            told = ", ".join(broken[:8]) + (", ..." if len(broken) > 8 else "")
            raise WeightsError(
                f"{name}: numbers that are missing or not finite in {told}: no training that worked made them"
            )
        return reading.ours(found)
    advice = whose()
    if advice.startswith("they are ours"):
        raise WeightsError(f"{name}: these weights do not fit, {advice}")
    advice = advice or f"read as {reading.implementation.name} has it"
    raise WeightsError("\n  ".join([f"{name}: these weights do not fit, {advice}", *mistakes]))


def _whose(found: StateDict, best: Reading, architecture: Architecture, resolution: int, name: str) -> str:
    """What these weights are instead: ours, another published network's, for other images; "" if nothing known."""
    if best.parts.keys() <= found.keys():
        return "they are ours already: give them to load_state_dict as they are"
    others = [
        f'"{paper.name}"'
        for paper in papers.PAPERS
        if isinstance(paper.architecture, Architecture) and _fits(found, paper.architecture, paper.resolution)
    ]
    if others:
        return f"they are those of another network: give its name, {' or '.join(others)}"
    stride = architecture.stem.stride * 2**architecture.mergings
    for pixels in range(stride, 1025, stride):
        if pixels != resolution and _fits(found, architecture, pixels):
            return f"they are for {pixels} x {pixels} pixels, and {name} is read at {resolution} x {resolution}"
    return ""


def _fits(found: StateDict, architecture: Architecture, resolution: int) -> bool:
    if architecture.unfit(resolution):
        return False
    params = sum(entry.numel() for key, entry in found.items() if not key.endswith(_NO_PARAMETERS))
    heads = {classes_found(implementation, found) for implementation in IMPLEMENTATIONS}
    # the count first, as it needs no network
    if all(cost(architecture, resolution, classes).params != params for classes in heads if classes):
        return False
    return any(not reading.mistakes(found) for reading in readings(found, architecture, resolution))


_NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked", "offset")


def _tensor(key: Any, value: Any) -> Tensor:
    if not isinstance(key, str):
        raise WeightsError(f"the key {key!r} is no text: give the state dict itself")
    if isinstance(value, np.ndarray):
        try:
            value = torch.tensor(value)
        except (TypeError, ValueError):
            raise WeightsError(f"{key} is an array of {value.dtype}, for which torch has no type") from None
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_nested
        if not plain or value.dtype.is_complex:
            raise WeightsError(f"{key} is a tensor of another kind than weights are: {value.dtype}, {value.layout}")
        # a tensor may be told as one number a billion times over
        if value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise WeightsError(f"{key} says that it has {value.numel():,} numbers, and holds fewer: it is broken")
        return value.detach()
    raise WeightsError(f"{key} is no tensor but a {type(value).__name__}: give the state dict itself")
