"""Comparators: published networks of other kinds, built through timm and never rewritten.

They are measured beside ours and cannot be searched. timm is an extra: `pip install 'mlpspace[timm]'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpspace.errors import ArchitectureError, UserError

if TYPE_CHECKING:
    from torch import nn


class TimmMissing(UserError):
    """timm does not import; the text says why, and what to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparator:
    """A network that timm has."""

    timm: str  # its name there
    multiple: int = 1  # the sides of its images are multiples of this
    sized: bool = False  # is it built for one image size?

    def unfit(self, resolution: int) -> str | None:
        """Why it cannot be built at that resolution; None if it can."""
        if resolution % self.multiple == 0:
            return None
        return f"timm's {self.timm} needs a multiple of {self.multiple} pixels, not {resolution}"

    def describe(self) -> str:
        """One readable line."""
        return f"timm {self.timm}"


def build(comparator: Comparator, resolution: int, classes: int) -> nn.Module:
    """The network with fresh weights, for square images of `resolution` pixels.

    Raises:
        TimmMissing: timm does not import.
        ArchitectureError: it cannot be built at that resolution; the text says why.
    """
    reason = comparator.unfit(resolution)
    if reason:
        raise ArchitectureError(reason)
    timm = imported()
    size = {"img_size": resolution} if comparator.sized else {}
    network: nn.Module = timm.create_model(comparator.timm, pretrained=False, num_classes=classes, **size)
    return network


def imported() -> Any:
    """timm itself.

    Raises:
        TimmMissing: it does not import; the text says why.
    """
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit torch raises nearly anything
        raise TimmMissing(
            f"Comparators are built by timm, which does not import here ({type(error).__name__}: {error}).\n"
            "  pip install 'mlpspace[timm]'"
        ) from error
    return timm
