"""An architecture in one readable line."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlpspace.architecture.blocks import BLOCKS
from mlpspace.architecture.channel_mixers import CHANNEL_MIXERS
from mlpspace.architecture.heads import HEADS
from mlpspace.architecture.stems import MERGINGS, STEMS, Patches
from mlpspace.architecture.token_mixers import TOKEN_MIXERS


def describe(architecture: Any) -> str:
    """One readable line, equal neighbours told once: 'patch 16, 8x512 dense r0.5 mlp r4 layer'."""
    tails = [_stage(stage) for stage in architecture.stages]
    parts = []
    for index, stage in enumerate(architecture.stages):
        shape = f"{stage.depth}x{stage.width}"
        # stages that share their mixers say them once, after the last of them
        last_of_run = index + 1 == len(architecture.stages) or tails[index + 1] != tails[index]
        link = "" if not index else " > " if stage.merge else " + "
        parts.append(f"{link}{shape} {tails[index]}" if last_of_run else f"{link}{shape}")
    merging, head = kind_of(MERGINGS, architecture.merging), kind_of(HEADS, architecture.head)
    end = "" if merging == "conv" else f", merging {merging.removesuffix('_conv').replace('_', ' ')}"
    end += "" if head == "mean" else f", {head.replace('_', ' ')}"
    return f"{_stem(architecture.stem)}, {''.join(parts)}{end}"


def _stem(stem: Any) -> str:
    if isinstance(stem, Patches):
        return f"patch {stem.patch}"
    kind = {"tokens_to_token": "t2t"}.get(kind_of(STEMS, stem), kind_of(STEMS, stem).replace("_", " "))
    return f"{kind} {stem.patch}" if hasattr(stem, "patch") else kind


def _stage(stage: Any) -> str:
    if getattr(stage.block, "own_mixers", False):
        return " ".join(_part(BLOCKS, stage.block))
    words = [*_part(TOKEN_MIXERS, stage.token_mixer), *_part(CHANNEL_MIXERS, stage.channel_mixer), stage.norm]
    if stage.layer_scale is not None:
        words.append(f"ls{stage.layer_scale:g}")
    if kind_of(BLOCKS, stage.block) != "residual":
        words += _part(BLOCKS, stage.block)
    return " ".join(words)


_SHORT = {"ratio": "r", "memory": "s", "heads": "h", "kernel": "k", "expansion": "e", "units": "u", "share_sets": "s"}


def _part(table: dict[str, type[Any]], part: Any) -> list[str]:
    words = [kind_of(table, part)]
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        if isinstance(value, bool):
            if value != f.default:
                words.append(f.name if value else f"no-{f.name}")
        elif isinstance(value, str):
            if not (f.name == "activation" and value == f.default):
                words.append(value)
        elif not (f.name == "expansion" and value == 1):
            words.append(f"{_SHORT.get(f.name, f.name)}{value:g}")
    return words


def kind_of(table: dict[str, type[Any]], value: Any) -> str:
    """The name under which the kind of `value` stands in `table`."""
    kind = type(value)
    for name, each in table.items():
        if each is kind:
            return name
    raise AssertionError(f"{kind} is in no table")
