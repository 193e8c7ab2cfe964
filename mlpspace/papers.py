"""Published networks as architectures.

Hyperparameters as in the papers and their official code; `params` is the count of the official implementation with
1,000 classes at `resolution` where it could be run (tests hold ours equal to it), `top1` the published ImageNet-1k
accuracy of training from scratch. None: not published, or not verified.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mlpspace.architecture import (
    Architecture,
    Axial,
    ClassTokenHead,
    Dense,
    ExternalAttention,
    Linear,
    MeanHead,
    Merging,
    Mlp,
    Patches,
    Stage,
    TokensToToken,
)
from mlpspace.errors import ArchitectureError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A published network and where it comes from."""

    name: str
    family: str
    source: str
    architecture: Architecture
    resolution: int = 224  # pixels of the published counts
    params: int | None = None
    top1: float | None = None  # %
    note: str = ""


def _mixer(name: str, patch: int, depth: int, width: int, params: int | None, top1: float | None = None) -> Paper:
    stage = Stage(depth=depth, width=width, token_mixer=Dense(ratio=0.5), channel_mixer=Mlp(ratio=4), norm="layer")
    return Paper(
        name=name,
        family="MLP-Mixer",
        source="arXiv:2105.01601",
        architecture=Architecture(stem=Patches(patch=patch), stages=(stage,), head=MeanHead(norm="layer")),
        params=params,
        top1=top1,
        note="ImageNet-1k from scratch, 300 epochs" if top1 else "no from-scratch ImageNet-1k figure published",
    )


def _resmlp(
    name: str, patch: int, depth: int, width: int, scale: float, params: int | None, top1: float | None
) -> Paper:
    stage = Stage(
        depth=depth,
        width=width,
        token_mixer=Linear(),
        channel_mixer=Mlp(ratio=4),
        norm="affine",
        layer_scale=scale,
    )
    return Paper(
        name=name,
        family="ResMLP",
        source="arXiv:2105.03404",
        architecture=Architecture(stem=Patches(patch=patch), stages=(stage,), head=MeanHead(norm="affine")),
        params=params,
        top1=top1,
        note="ImageNet-1k from scratch, 400 epochs",
    )


def _smlpnet(name: str, width: int, depths: tuple[int, ...], params: int | None, top1: float) -> Paper:
    stages = tuple(
        Stage(
            depth=depth,
            width=width * 2**i,
            token_mixer=Axial(local=3, fusion="concat", identity=True),
            channel_mixer=Mlp(ratio=3),
            norm="layer",
        )
        for i, depth in enumerate(depths)
    )
    return Paper(
        name=name,
        family="sMLPNet",
        source="arXiv:2109.05422",
        architecture=Architecture(
            stem=Patches(patch=4, bias=False),
            stages=stages,
            merging=Merging(bias=False),
            head=MeanHead(norm="batch"),
        ),
        params=params,
        top1=top1,
        note="ImageNet-1k from scratch, 300 epochs",
    )


def _eamlp(
    name: str, depth: int, width: int, ratio: float, params: int | None, top1: float | None, resolution: int = 224
) -> Paper:
    # heads of 64 channels over queries four times as wide, one pair of memories of 64 units for all of them
    attention = ExternalAttention(memory=64, heads=4 * width // 64, expansion=4, double_norm=True)
    stage = Stage(depth=depth, width=width, token_mixer=attention, channel_mixer=Mlp(ratio=ratio), norm="layer")
    return Paper(
        name=name,
        family="External attention",
        source="arXiv:2105.02358",
        architecture=Architecture(stem=TokensToToken(), stages=(stage,), head=ClassTokenHead(norm="layer")),
        resolution=resolution,
        params=params,
        top1=top1,
        note="top-1 from a third-party table" if top1 and resolution == 224 else "",
    )


PAPERS: tuple[Paper, ...] = (
    _mixer("mixer_s32", 32, 8, 512, 19_104_624),
    _mixer("mixer_s16", 16, 8, 512, 18_528_264),
    _mixer("mixer_b32", 32, 12, 768, None),
    _mixer("mixer_b16", 16, 12, 768, 59_880_472, 76.44),
    _mixer("mixer_l32", 32, 24, 1024, 206_939_264),
    _mixer("mixer_l16", 16, 24, 1024, None, 71.76),
    _mixer("mixer_h14", 14, 32, 1280, 432_350_952),
    _resmlp("resmlp_s12", 16, 12, 384, 0.1, 15_350_872, 76.6),
    _resmlp("resmlp_s24", 16, 24, 384, 1e-5, 30_020_680, 79.4),
    _resmlp("resmlp_s36", 16, 36, 384, 1e-6, 44_690_488, 79.7),
    _resmlp("resmlp_b24_p16", 16, 24, 768, 1e-6, None, 81.0),
    _resmlp("resmlp_b24_p8", 8, 24, 768, 1e-6, 129_138_280, 81.0),
    _smlpnet("smlpnet_tiny", 80, (2, 8, 14, 2), 24_123_584, 81.9),
    _smlpnet("smlpnet_small", 96, (2, 10, 24, 2), 48_558_136, 83.1),
    _smlpnet("smlpnet_base", 112, (2, 10, 24, 2), None, 83.4),
    _eamlp("eamlp_7", 7, 256, 2, 6_146_638, None),
    _eamlp("eamlp_10", 10, 256, 2, 8_540_110, None),
    _eamlp("eamlp_12", 12, 256, 2, None, None),
    _eamlp("eamlp_14", 14, 384, 3, 29_877_070, 78.9),
    _eamlp("eamlp_19", 19, 448, 3, None, 79.4),
    _eamlp("eamlp_24", 24, 512, 3, 89_456_590, None),
    _eamlp("eamlp_7_384", 7, 256, 2, 6_243_918, 71.7, resolution=384),
)

NAMES: tuple[str, ...] = tuple(paper.name for paper in PAPERS)


def paper(name: str) -> Paper:
    """The published network of that name.

    Raises:
        ArchitectureError: no such name; the text has the known ones.
    """
    for entry in PAPERS:
        if entry.name == name:
            return entry
    raise ArchitectureError(f'network "{name}" is not known.{did_you_mean(name, NAMES)}')


def get(name: str) -> Architecture:
    """The architecture of a published network, as published.

    Example:
        >>> get("mixer_s16").describe()
        'patch 16, 8x512 dense r0.5 mlp r4 layer'
    """
    return paper(name).architecture


def at_resolution(name: str, resolution: int) -> tuple[Architecture, str]:
    """A published network with its token grid kept as close as `resolution` allows, and what was changed to do so.

    Only the patch size changes: to the one that divides the image and gives the number of tokens nearest, by ratio,
    to the published one (of two equally near, the fewer tokens).

    Raises:
        ArchitectureError: no patch size will do, or the stem has no other.
    """
    entry = paper(name)
    published = entry.architecture
    if entry.resolution == resolution:
        return published, ""
    if not isinstance(published.stem, Patches):
        if published.unfit(resolution) is None:
            was, now = (size // published.stem.stride for size in (entry.resolution, resolution))
            return published, f"grid {was} x {was} -> {now} x {now}"
        raise ArchitectureError(f"its stem has a stride of {published.stem.stride} and no other patch size")
    merged = 2 ** (len(published.stages) - 1)
    fits = [patch for patch in range(1, 65) if resolution % (patch * merged) == 0]
    if not fits:
        raise ArchitectureError(f"its {len(published.stages)} stages need a multiple of {merged} pixels")
    grid = entry.resolution / published.stem.patch
    patch = min(fits, key=lambda p: (max(resolution / p / grid, grid / (resolution / p)), -p))
    changed = f"patch {published.stem.patch} -> {patch}" if patch != published.stem.patch else ""
    return dataclasses.replace(published, stem=dataclasses.replace(published.stem, patch=patch)), changed
