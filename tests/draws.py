"""Random architectures and random weights for tests."""

from __future__ import annotations

import random

import torch
from torch import nn

from mlpspace.architecture import (
    NORMS,
    TOKEN_MIXERS,
    Architecture,
    ClassTokenHead,
    MeanHead,
    Merging,
    Mlp,
    Patches,
    Stage,
    TokenMixer,
    TokensToToken,
)
from mlpspace.fields import Flag, OneOf, Real, Takes, scalar_fields

_NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 0.3, 0.5, 2.0)


def token_mixer(rng: random.Random) -> TokenMixer:
    """A token mixer of any kind there is, with any setting; its heads divide a multiple of 8."""
    kind = rng.choice(list(TOKEN_MIXERS.values()))
    while True:
        mixer = kind(**{name: _setting(rng, takes) for name, takes in scalar_fields(kind).items()})
        rule = getattr(mixer, "unfit_for_width", None)
        if rule is None or rule(8) is None:
            return mixer


def _setting(rng: random.Random, takes: Takes) -> object:
    if isinstance(takes, OneOf):
        return rng.choice(takes.words)
    if isinstance(takes, Flag):
        return rng.random() < 0.5
    number = float if isinstance(takes, Real) else int
    return rng.choice([n for n in _NUMBERS if isinstance(n, number) and takes.complaint(n) is None])


def architecture(rng: random.Random) -> Architecture:
    """An architecture of any kind that can be built at 32 and at 64 pixels."""
    stages = tuple(
        Stage(
            depth=rng.randint(1, 2),
            width=8 * rng.randint(1, 12),
            token_mixer=token_mixer(rng),
            channel_mixer=Mlp(ratio=rng.choice([0.7, 2, 4])),
            norm=rng.choice(NORMS),
            layer_scale=rng.choice([None, 0.1]),
        )
        for _ in range(rng.randint(1, 3))
    )
    norm = rng.choice(NORMS)
    alone = len(stages) == 1  # then nothing is merged: any stem and any head will do
    if alone and rng.random() < 0.4:
        stem: Patches | TokensToToken = TokensToToken(token_width=rng.choice([8, 20]), memory=rng.choice([5, 32]))
    else:
        stem = Patches(patch=rng.choice([1, 2, 4, 8]) if not alone else rng.choice([4, 8]), bias=rng.random() < 0.5)
    head = ClassTokenHead(norm=norm) if alone and rng.random() < 0.5 else MeanHead(norm=norm)
    return Architecture(stem=stem, stages=stages, merging=Merging(bias=rng.random() < 0.5), head=head)


def architectures(number: int, seed: int = 0) -> list[Architecture]:
    """So many of them, always the same."""
    rng = random.Random(seed)
    return [architecture(rng) for _ in range(number)]


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every weight and every running statistic anew, so that none is at a value that hides a mistake.

    Matrices keep the scale of what they map, vectors spread around 1 where they scale and around 0 where they shift.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator).to(value)
            if name.endswith("running_var"):
                value.copy_(0.75 + 0.25 * noise.tanh())
            elif value.dim() > 1 and not name.endswith("positions"):
                value.copy_(noise / value[0].numel() ** 0.5)
            elif name.endswith(("alpha", "scale", "weight", "weights")):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(0.2 * noise)
    return network
