"""Block kinds of the language: how a norm, a token mixer and a channel mixer make a block.

Nearly every network here is `Residual`; the others are what single published networks need. Those with
`own_mixers` bring both mixers, so their stage says `token_mixer: none` and `channel_mixer: none`. `width_rule`: the
fields that `unfit_for_width` looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mlpspace.fields import Checked, Whole, takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual(Checked):
    """x + T(norm(x)), then x + M(norm(x)), each optionally scaled per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFirst(Checked):
    """Feed-forward-only: x + M(norm(x)) first, then x + T(x normed over the tokens of each channel).

    Melas-Kyriazi 2021, arXiv:2105.02723.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelDepthwise(Checked):
    """SPACH: x + scale * T(norm(x)) + depthwise(x), then x + M(norm(x)), the latter never scaled (arXiv:2108.13002)."""

    kernel: int = takes(Whole(1, 31, odd=True), 3)

    needs_map: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAttentionUnit(Checked):
    """The plain unit of external attention as its authors put it into a network for dense prediction.

    relu(x + batch_norm(project(value(double_normalised(key(query(x))))))), one head (arXiv:2105.02358).
    """

    memory: int = takes(Whole(1, 4096), 64)

    own_mixers: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck(Checked):
    """ResNet's: 1 x 1 to a quarter of the channels, 3 x 3, 1 x 1 back, each with BatchNorm (arXiv:1512.03385)."""

    own_mixers: ClassVar[bool] = True
    needs_map: ClassVar[bool] = True

    def unfit_for_width(self, width: int) -> str | None:
        """Why this block cannot have that width; None if it can."""
        return _not_divided(width, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepMlpLight(Checked):
    """RepMLP-Res50's light block: 1 x 1 to an eighth of the channels, RepMLP, 1 x 1 back (arXiv:2105.01883)."""

    partition: int = takes(Whole(1, 64), 7)  # side of the windows that share one matrix
    groups: int = takes(Whole(1, 256), 4)  # of the channels in that matrix
    kernel: int = takes(Whole(1, 15, odd=True), 5)  # convolutions 1, 3, .. kernel beside it

    own_mixers: ClassVar[bool] = True
    needs_map: ClassVar[bool] = True
    width_rule: ClassVar[tuple[str, ...]] = ("groups",)

    def unfit_for_width(self, width: int) -> str | None:
        """Why this block cannot have that width; None if it can."""
        return _not_divided(width, 8 * self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepMlpBottleneck(Checked):
    """RepMLP-Res50's bottleneck: 1 x 1 to a quarter, 3 x 3 to 1 / `reduction` of that, RepMLP, 3 x 3, 1 x 1 back."""

    partition: int = takes(Whole(1, 64), 7)
    groups: int = takes(Whole(1, 256), 8)
    kernel: int = takes(Whole(1, 15, odd=True), 5)
    reduction: int = takes(Whole(1, 64), 2)

    own_mixers: ClassVar[bool] = True
    needs_map: ClassVar[bool] = True
    width_rule: ClassVar[tuple[str, ...]] = ("reduction", "groups")

    def unfit_for_width(self, width: int) -> str | None:
        """Why this block cannot have that width; None if it can."""
        return _not_divided(width, 4 * self.reduction * self.groups)


def _not_divided(width: int, by: int) -> str | None:
    return f"its width must be a multiple of {by}, not {width}" if width % by else None


Block: TypeAlias = (
    Residual | ChannelFirst | ParallelDepthwise | ExternalAttentionUnit | Bottleneck | RepMlpLight | RepMlpBottleneck
)

BLOCKS: dict[str, type[Any]] = {
    "residual": Residual,
    "channel_first": ChannelFirst,
    "parallel_depthwise": ParallelDepthwise,
    "external_attention_unit": ExternalAttentionUnit,
    "bottleneck": Bottleneck,
    "repmlp_light": RepMlpLight,
    "repmlp_bottleneck": RepMlpBottleneck,
}
