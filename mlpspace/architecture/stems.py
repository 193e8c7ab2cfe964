"""Stems and mergings of the language: from the image to the first token map, and from one map to the next smaller one.

A stem with a field `patch` makes one token of each patch x patch pixels and can change its patch size with the
resolution; the others have a fixed `stride`. Every merging halves the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mlpspace.fields import Checked, Flag, Whole, takes

PATCH = Whole(1, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches(Checked):
    """Cuts the image into patches and projects each: a p x p convolution of stride p."""

    patch: int = takes(PATCH)
    bias: bool = takes(Flag(), True)

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class NormedPatches(Checked):
    """SPACH's stem: patches, each projected, then LayerNorm (arXiv:2108.13002)."""

    patch: int = takes(PATCH)

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNormPatches(Checked):
    """RepMLPNet's stem: patches, each projected without bias, then BatchNorm and ReLU (arXiv:2112.11081)."""

    patch: int = takes(PATCH)

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappingPatches(Checked):
    """CycleMLP's stem: a convolution of stride p whose kernel of 2p - 1 pixels reaches over its neighbours.

    arXiv:2107.10224, where p = 4 and the kernel 7.
    """

    patch: int = takes(PATCH)

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvPatches(Checked):
    """SPACH's stem of four convolutions: 7 x 7 of stride 2, two of 3 x 3, patches of p / 2, then LayerNorm."""

    patch: int = takes(Whole(2, 64, even=True))
    hidden: int = takes(Whole(1, 4096), 64)  # channels of the first three

    @property
    def stride(self) -> int:
        return self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensToToken(Checked):
    """EAMLP's stem: three overlapping unfoldings with external attention between them, stride 16 in all.

    The T2T module of arXiv:2101.11986 with the attention of arXiv:2105.02358.
    """

    token_width: int = takes(Whole(1, 4096), 64)
    memory: int = takes(Whole(1, 4096), 128)

    stride: ClassVar[int] = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetStem(Checked):
    """ResNet's stem: 7 x 7 convolution of stride 2, 3 x 3 maximum of stride 2, and the first, projecting, bottleneck.

    That bottleneck alone of its stage changes the width, so the stage's other blocks are equal (arXiv:1512.03385).
    """

    hidden: int = takes(Whole(1, 4096), 64)  # channels before the bottleneck

    stride: ClassVar[int] = 4


Stem: TypeAlias = (
    Patches | NormedPatches | BatchNormPatches | OverlappingPatches | ConvPatches | TokensToToken | ResNetStem
)

STEMS: dict[str, type[Any]] = {
    "patches": Patches,
    "normed_patches": NormedPatches,
    "batch_norm_patches": BatchNormPatches,
    "overlapping_patches": OverlappingPatches,
    "conv_patches": ConvPatches,
    "tokens_to_token": TokensToToken,
    "resnet": ResNetStem,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging(Checked):
    """Patch merging between stages: a 2 x 2 convolution of stride 2 to the next stage's width."""

    bias: bool = takes(Flag(), True)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNormMerging(Checked):
    """SPACH's: a 2 x 2 convolution of stride 2 without bias, then GroupNorm with one group (arXiv:2108.13002)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNormMerging(Checked):
    """RepMLPNet's: a 2 x 2 convolution of stride 2 without bias, then BatchNorm and ReLU (arXiv:2112.11081)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappingMerging(Checked):
    """CycleMLP's: a 3 x 3 convolution of stride 2 (arXiv:2107.10224)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckMerging(Checked):
    """ResNet's: the first bottleneck of a stage, of stride 2 and with a projected shortcut (arXiv:1512.03385)."""


AnyMerging: TypeAlias = Merging | GroupNormMerging | BatchNormMerging | OverlappingMerging | BottleneckMerging

MERGINGS: dict[str, type[Any]] = {
    "conv": Merging,
    "group_norm_conv": GroupNormMerging,
    "batch_norm_conv": BatchNormMerging,
    "overlapping_conv": OverlappingMerging,
    "bottleneck": BottleneckMerging,
}
