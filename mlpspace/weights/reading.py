"""A network as another implementation would have it: which entry of its state dict is which of ours.

What to expect is worked out from our network: each entry of its state dict, built without memory on the meta device,
has keys and shapes there. What was found is then compared with that, so that a mistake is told in the words of the
file that the user has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mlpspace import comparators
from mlpspace.architecture import BLOCKS, CHANNEL_MIXERS, STEMS, TOKEN_MIXERS, Architecture, Stage, kind_of
from mlpspace.comparators import Comparator
from mlpspace.nets import build
from mlpspace.weights.forms import SAME, Form, Part, Shape
from mlpspace.weights.implementations import IMPLEMENTATIONS, TIMM, Implementation, Place

StateDict: TypeAlias = Mapping[str, Tensor]
Row: TypeAlias = tuple[Stage | None, Place]


@dataclass(frozen=True)
class Reading:
    """A network as one implementation would have it."""

    implementation: Implementation
    parts: dict[str, tuple[Part, Shape]]  # each entry of ours: where it is there, and its shape here
    expected: dict[str, Shape]  # each key there with its shape

    def known(self, found: StateDict) -> int:
        """How many of the keys found are expected."""
        return len(self.expected.keys() & found.keys())

    def mistakes(self, found: StateDict) -> list[str]:
        """Everything that is wrong with what was found, a line each; none if it fits."""
        mark = self.implementation.merged_mark
        merged = next((key for key in found if mark and key.endswith(mark)), None)
        if merged:
            return [f"{merged} is found in the merged (deploy) form only: give the weights as they were before merging"]
        lines = [f"unknown: {key} {_told(entry.shape)}" for key, entry in found.items() if key not in self.expected]
        for key, shape in self.expected.items():
            if key not in found:
                lines.append(f"missing: {key} {_told(shape)}")
            elif tuple(found[key].shape) != shape:
                lines.append(f"misshapen: {key} is {_told(found[key].shape)}, expected {_told(shape)}")
        return lines

    def ours(self, found: StateDict) -> dict[str, Tensor]:
        """What was found, without mistakes, as the entries of our state dict."""
        return {
            key: part.form.ours(shape, *(found[there] for there in part.keys)).reshape(shape).contiguous()
            for key, (part, shape) in self.parts.items()
        }


def readings(found: StateDict, architecture: Architecture, resolution: int) -> list[Reading]:
    """The network as each implementation has it that can have it, with the classes of the head that was found."""
    made = []
    shapes: dict[int, dict[str, Shape]] = {}
    for implementation in IMPLEMENTATIONS:
        classes = classes_found(implementation, found) or 1000
        if classes not in shapes:
            with torch.device("meta"):
                network = build(architecture, resolution, classes)
            shapes[classes] = {key: tuple(entry.shape) for key, entry in network.state_dict().items()}
        reading = _reading(implementation, architecture, shapes[classes])
        if reading is not None:
            made.append(reading)
    return made


def timm_reading(found: StateDict, comparator: Comparator, resolution: int) -> Reading:
    """A comparator as timm has it, which is as we have it, with the classes of the head that was found.

    Raises:
        TimmMissing: timm does not import.
    """
    with torch.device("meta"):
        network: Any = comparators.build(comparator, resolution, 1000)
        head = next(name for name, module in network.named_modules() if module is network.get_classifier())
        bias = found.get(f"{head}.bias")
        if bias is not None and bias.dim() == 1:
            network = comparators.build(comparator, resolution, len(bias))
    shapes = {key: tuple(entry.shape) for key, entry in network.state_dict().items()}
    return Reading(TIMM, {key: (SAME.of(key), shape) for key, shape in shapes.items()}, shapes)


def classes_found(implementation: Implementation, found: StateDict) -> int | None:
    """The number of classes of the head, if it has one where that implementation has it."""
    part = _part(implementation, "head.linear.bias", (1,))
    assert part is not None
    bias = found.get(part.keys[0])
    return None if bias is None or bias.dim() != 1 else len(bias)


def _reading(there: Implementation, architecture: Architecture, shapes: dict[str, Shape]) -> Reading | None:
    """None if it has no such part."""
    reading = Reading(there, {}, {})
    rows = list(_rows(architecture))
    for ours, shape in shapes.items():
        inside, number = _place(there, architecture, rows, ours)
        part = _part(there, inside, shape)
        if part is None:
            return None
        keys = tuple(key.format(number) for key in part.keys)
        reading.parts[ours] = Part(keys, part.form), shape
        reading.expected.update(zip(keys, part.form.shapes(shape), strict=True))
    return reading


def _part(there: Implementation, inside: str, shape: Shape) -> Part | None:
    """Where the entry `inside` a part of ours is: by its own row, or by that of the module it belongs to."""
    module, _, leaf = inside.rpartition(".")
    for row, tail in ((there.parts.get(inside), ""), (there.parts.get(module), f".{leaf}")):
        if row is not None:
            part = row if isinstance(row, Part) else Part((row,), SAME)
            form: Form = part.form if part.form.dims == len(shape) else SAME
            return Part(tuple(f"{key}{tail}" for key in part.keys), form)
    return None


def _place(there: Implementation, architecture: Architecture, rows: list[Row], ours: str) -> tuple[str, str]:
    """Our entry as the rows of an implementation call it, and the number of its block or merging there."""
    where, _, inside = ours.partition(".")
    if where == "blocks":
        row, _, inside = inside.partition(".")
        stage, place = rows[int(row)]
        if stage is None:
            return f"merging.{inside}", there.merging(place.map)
        return _by_kind(stage, inside), there.block(place)
    if where == "stem":
        if getattr(architecture.head, "joins_tokens", False):  # then the stem is two modules: the stem, the class token
            step, _, inside = inside.partition(".")
            if step == "1":
                return f"entry.{inside}", ""
        return f"{kind_of(STEMS, architecture.stem)}.{inside}", ""
    return ours, ""


def _by_kind(stage: Stage, inside: str) -> str:
    if getattr(stage.block, "own_mixers", False):
        return f"{kind_of(BLOCKS, stage.block)}.{inside}"
    for half, kind in (
        ("token.mixer.", kind_of(TOKEN_MIXERS, stage.token_mixer)),
        ("channel.mixer.", kind_of(CHANNEL_MIXERS, stage.channel_mixer)),
    ):
        if inside.startswith(half):
            return f"{kind}.{inside.removeprefix(half)}"
    return inside


def _rows(architecture: Architecture) -> Iterator[Row]:
    """What stands in each row of our network's blocks: a block of a stage, or (None) the merging to a map."""
    number, at, within = 0, 0, 0
    for index, stage in enumerate(architecture.stages):
        if index and stage.merge:
            at, within = at + 1, 0
            yield None, Place(number, at, within)
        for _ in range(stage.depth):
            yield stage, Place(number, at, within)
            number, within = number + 1, within + 1


def _told(shape: Shape | torch.Size) -> str:
    return f"({', '.join(map(str, shape))})"
