"""How the same weights lie in another implementation's tensors.

A form goes both ways: which shapes to expect there for one of our tensors, and our tensor from those found there. That
a shape is checked before anything is reshaped keeps a transposed or foreign tensor from passing because its count of
numbers is right.

Shapes: C channels, N tokens, p side of a patch, O outputs, I inputs, S share-sets or groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Where one of our tensors, or all entries of one of our modules, is: the keys there and the form it has there."""

    keys: tuple[str, ...]
    form: Form


@dataclass(frozen=True, slots=True)
class Form:
    """What another implementation makes of our tensors of `dims` dimensions; the others, say biases, are as ours."""

    dims: int
    shapes: Callable[[Shape], tuple[Shape, ...]]  # of ours -> of theirs
    ours: Callable[..., Tensor]  # (shape of ours, *theirs) -> ours, up to a reshape

    def of(self, *keys: str) -> Part:
        return Part(keys, self)


# (...) -> (...)
SAME = Form(-1, lambda shape: (shape,), lambda shape, x: x)
# a linear map (O, I) as a 1 x 1 convolution
POINTWISE = Form(2, lambda shape: ((*shape, 1, 1),), lambda shape, x: x)
# the linear map of a stem (C, 3pp) as a p x p convolution
PATCHES = Form(2, lambda shape: ((shape[0], 3, *2 * [math.isqrt(shape[1] // 3)]),), lambda shape, x: x)
# patch merging (C, 4I), a window's tokens row by row with channels innermost, as a 2 x 2 convolution
WINDOWS = Form(2, lambda shape: ((shape[0], shape[1] // 4, 2, 2),), lambda shape, x: x.permute(0, 2, 3, 1))
# matrices of share-sets or groups (S, O, I) as a grouped 1 x 1 convolution
MATRICES = Form(3, lambda shape: ((shape[0] * shape[1], shape[2], 1, 1),), lambda shape, x: x)
# one number a channel (C,), for tokens (B, N, C)
CHANNELS = Form(1, lambda shape: ((1, 1, *shape),), lambda shape, x: x)
# a map of position embeddings (C, side, side)
POSITIONS = Form(3, lambda shape: ((1, *shape),), lambda shape, x: x)
# how far down and to the right each channel is read (C, 2), as the offsets of a deformable 1 x 1 convolution
STEPS = Form(2, lambda shape: ((1, 2 * shape[0], 1, 1),), lambda shape, x: x)
# position embeddings (N + 1, C) in one, for tokens (B, N + 1, C)
BATCHED = Form(2, lambda shape: ((1, *shape),), lambda shape, x: x)
# flax: a linear map (I, O); a convolution (p, p, 3, C)
KERNEL = Form(2, lambda shape: (shape[::-1],), lambda shape, x: x.T)
PATCH_KERNEL = Form(
    2, lambda shape: ((*2 * [math.isqrt(shape[1] // 3)], 3, shape[0]),), lambda shape, x: x.permute(3, 2, 0, 1)
)
