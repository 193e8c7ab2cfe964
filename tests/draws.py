"""Random architectures and random weights for tests."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mlpspace.architecture import (
    BLOCKS,
    CHANNEL_MIXERS,
    HEADS,
    MERGINGS,
    NORMS,
    STEMS,
    TABLES,
    TOKEN_MIXERS,
    Architecture,
    NoChannelMixer,
    NoTokenMixer,
    Patches,
    Residual,
    Stage,
)
from mlpspace.counts import profile
from mlpspace.fields import Flag, OneOf, Real, Takes, scalar_fields

_NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 0.3, 0.5, 2.0)


def any_of(rng: random.Random, table: dict[str, type[Any]], width: int | None = None) -> Any:
    """A part of any kind of `table`, with any setting that goes with a stage of that width."""
    kind = rng.choice(list(table.values()))
    while True:
        part = kind(**{name: _setting(rng, takes) for name, takes in scalar_fields(kind).items()})
        rule = getattr(part, "unfit_for_width", None)
        if width is None or rule is None or rule(width) is None:
            return part


def _setting(rng: random.Random, takes: Takes) -> object:
    if isinstance(takes, OneOf):
        return rng.choice(takes.words)
    if isinstance(takes, Flag):
        return rng.random() < 0.5
    number = float if isinstance(takes, Real) else int
    return rng.choice([n for n in _NUMBERS if isinstance(n, number) and takes.complaint(n) is None])


def _stage(rng: random.Random, before: Stage | None) -> Stage:
    """A stage of any kind whose parts go together; the plain block comes more often, as the mixers matter most."""
    merge = before is None or rng.random() < 0.7
    width = 8 * rng.randint(1, 12) if merge or before is None else before.width
    while True:
        block = Residual() if rng.random() < 0.5 else any_of(rng, BLOCKS, width)
        alone = getattr(block, "own_mixers", False)
        stage = Stage(
            depth=rng.randint(1, 2),
            width=width,
            token_mixer=NoTokenMixer() if alone else any_of(rng, TOKEN_MIXERS, width),
            channel_mixer=NoChannelMixer() if alone else any_of(rng, CHANNEL_MIXERS),
            norm=rng.choice(NORMS),
            layer_scale=rng.choice([None, 0.1]),
            block=block,
            merge=merge,
        )
        if stage.unfit() is None:
            return stage


def architecture(rng: random.Random) -> Architecture:
    """A small architecture of any kind that can be built at 32 and at 64 pixels."""
    while True:
        stages: list[Stage] = []
        for _ in range(rng.randint(1, 3)):
            stages.append(_stage(rng, stages[-1] if stages else None))
        drawn = Architecture(
            stem=any_of(rng, STEMS),
            stages=tuple(stages),
            merging=any_of(rng, MERGINGS),
            head=any_of(rng, HEADS),
            norm_eps=rng.choice([1e-6, 1e-5, 1e-3]),
        )
        if drawn.unfit(32) is None and drawn.unfit(64) is None and _small(drawn):
            return drawn


def _small(drawn: Architecture) -> bool:
    counts = profile(drawn, 32, classes=10)
    return counts.params <= 1_000_000 and counts.macs <= 30_000_000


def architectures(number: int, seed: int = 0) -> list[Architecture]:
    """So many of them, always the same."""
    rng = random.Random(seed)
    return [architecture(rng) for _ in range(number)]


KINDS = [(table, name) for table, kinds in TABLES.items() for name in kinds]
_SMALL = {"patch": 4, "hidden": 8, "token_width": 8, "memory": 8, "heads": 2, "units": 6, "share_sets": 4}
_SMALL |= {"partition": 4, "groups": 2}


def of_kind(table: str, name: str, norm: str = "layer", layer_scale: float | None = None) -> Architecture:
    """A small architecture for 32 pixels with a part of that kind; the kinds are `KINDS`."""
    kind = TABLES[table][name]
    part = kind(**{field: value for field, value in _SMALL.items() if field in scalar_fields(kind)})
    told: dict[str, Any] = {table: part} if table in ("token_mixer", "channel_mixer", "block") else {}
    if getattr(part, "own_mixers", False):
        told |= {"token_mixer": NoTokenMixer(), "channel_mixer": NoChannelMixer()}
    stage = Stage(depth=2, width=32, norm=norm, layer_scale=layer_scale, **told)
    stages = (stage,) if getattr(part, "joins_tokens", False) else (stage, replace(stage, depth=1, width=48))
    whole: dict[str, Any] = {} if told else {table: part}
    return Architecture(**{"stem": Patches(patch=4), "stages": stages, **whole})


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every weight and every running statistic anew, so that none is at a value that hides a mistake.

    Matrices keep the scale of what they map, vectors spread around 1 where they scale and around 0 where they shift.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if not value.is_floating_point() or name.endswith("steps"):  # constants of CycleMLP, no weights
                continue
            noise = torch.randn(value.shape, generator=generator).to(value)
            if name.endswith("running_var"):
                value.copy_(0.75 + 0.25 * noise.tanh())
            elif value.dim() > 1 and not name.endswith("positions"):
                # a stack of matrices has its inputs last, any other map all that is not its outputs
                inputs = value.shape[-1] if value.dim() == 3 else value[0].numel()
                value.copy_(noise / inputs**0.5)
            elif name.endswith(("alpha", "scale", "weight", "weights")):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(0.2 * noise)
    return network
