"""Heads of the language: from the last token map to the classes. Their modules are in `nets.heads`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mlpspace.fields import Checked, OneOf, Real, Whole, takes

NORMS = ("layer", "affine", "batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanHead(Checked):
    """Norm, mean over the tokens, linear classifier."""

    norm: str = takes(OneOf(NORMS), "layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainHead(Checked):
    """Mean over the tokens, linear classifier: ResNet's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTokenHead(Checked):
    """A class token and fixed sinusoidal position embeddings join the tokens after the stem; norm and a linear
    classifier read the class token after the blocks (EAMLP, after arXiv:2010.11929)."""

    norm: str = takes(OneOf(NORMS), "layer")

    joins_tokens: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedClassTokenHead(Checked):
    """As `ClassTokenHead`, the position embeddings learned, as a map that is stretched to that of the tokens.

    Feed-forward-only's, arXiv:2105.02723.
    """

    norm: str = takes(OneOf(NORMS), "layer")
    side: int = takes(Whole(1, 1024), 14)  # of the learned map

    joins_tokens: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMlpHead(Checked):
    """ResMLP's class-MLP: a class token that `depth` layers after the blocks fill from the tokens (arXiv:2105.03404).

    Each layer: one linear map over class token and tokens to one vector, then a channel MLP of that vector; both
    scaled per channel. There is no public code: this reading of the paper's sentence gives its three counts.
    """

    depth: int = takes(Whole(1, 100), 2)
    ratio: float = takes(Real(0.0, 16.0, above=True), 4.0)  # hidden width of the channel MLP / C
    norm: str = takes(OneOf(NORMS), "affine")
    layer_scale: float = takes(Real(0.0, 10.0, above=True), 0.1)  # its initial value


Head: TypeAlias = MeanHead | PlainHead | ClassTokenHead | LearnedClassTokenHead | ClassMlpHead

HEADS: dict[str, type[Any]] = {
    "mean": MeanHead,
    "plain": PlainHead,
    "class_token": ClassTokenHead,
    "learned_class_token": LearnedClassTokenHead,
    "class_mlp": ClassMlpHead,
}
