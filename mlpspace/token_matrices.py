"""What a network's token mixers have learned, as matrices over the tokens.

Shapes: H W map, N = H * W tokens, S share-sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlpspace.architecture import BLOCKS, TOKEN_MIXERS, Architecture, Stage, kind_of
from mlpspace.errors import ArchitectureError
from mlpspace.nets import build, deploy
from mlpspace.nets.channel_mixers import GatingMlp
from mlpspace.nets.network import Network
from mlpspace.nets.token_mixers.axial import AxialMixer
from mlpspace.nets.token_mixers.dense import DenseMixer, LinearMixer
from mlpspace.nets.token_mixers.repmlp import RepMlpMixer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenMatrix:
    """The weights of one linear map over the tokens; row i is what output i takes from each of them."""

    layer: int  # its block, counted from 1 through the whole network
    name: str  # "dense", "linear", "gating", "repmlp 2/8" (a share-set), "axial rows", "axial columns"
    outputs: str  # what a row stands for: a "token" or a "hidden unit"; "line": see `weight`
    weight: NDArray[np.float32]  # (outputs, N), tokens in reading order; a "line": the positions of a row, or column
    side: int  # of the map, H = W


def token_matrices(network: Network, architecture: Architecture, resolution: int) -> list[TokenMatrix]:
    """Every token matrix of a network, in the order that an image passes them; empty if it has none.

    Of a token MLP it is the first of its two maps, of RepMLP what its branches merge into. A class token is left out,
    as a row and as a column. Convolutions, attention, external attention and CycleMLP's steps are no matrices over the
    tokens, and those of RepMLP-Res50 mix pixels and channels at once.

    Args:
        network: built from `architecture` at that resolution, in eval mode.
    """
    return [
        TokenMatrix(
            layer=layer,
            name=name,
            outputs=outputs,
            weight=_of_the_map(weight.detach().float().cpu().numpy(), outputs, side),
            side=side,
        )
        for layer, (block, side) in enumerate(_blocks(network, architecture, resolution), 1)
        for module in block.modules()
        for name, outputs, weight in _MATRICES.get(type(module), _none)(module)
    ]


def check_matrices(architecture: Architecture, resolution: int) -> None:
    """Refuse an architecture without any token matrix, before it is trained for the sake of one.

    Raises:
        ArchitectureError: how it mixes tokens instead.
    """
    with torch.device("meta"):
        network = build(architecture, resolution, classes=1).eval()
    if any(type(module) in _MATRICES for module in network.modules()):
        return
    kinds = {_mixes_by(stage): None for stage in architecture.stages}  # each once, in order
    raise ArchitectureError(
        f"{architecture.describe()}: there is no token matrix to draw. It mixes tokens by {', '.join(kinds)}, "
        "and only dense, linear, axial and repmlp token mixers and the gating channel mixer have one."
    )


def _mixes_by(stage: Stage) -> str:
    if getattr(stage.block, "own_mixers", False):
        return kind_of(BLOCKS, stage.block)
    return kind_of(TOKEN_MIXERS, stage.token_mixer)


def _blocks(network: Network, architecture: Architecture, resolution: int) -> Iterator[tuple[nn.Module, int]]:
    """Each block with the side of its map; the mergings between them are left out."""
    modules = iter(network.blocks)
    for index, (stage, side) in enumerate(zip(architecture.stages, architecture.grid(resolution), strict=True)):
        if index and stage.merge:
            next(modules)
        for _ in range(stage.depth):
            yield next(modules), side


def _of_the_map(weight: NDArray[np.float32], outputs: str, side: int) -> NDArray[np.float32]:
    """Without the class token, which comes before the tokens of the map where there is one."""
    extra = 0 if outputs == "line" else weight.shape[1] - side * side
    return weight[extra if outputs == "token" else 0 :, extra:]


# --- which kinds of mixer have one ----------------------------------------------------------------------------------

Found = list[tuple[str, str, Tensor]]


def _none(module: nn.Module) -> Found:
    return []


def _dense(mixer: DenseMixer) -> Found:
    return [("dense", "hidden unit", mixer.expand.weight)]


def _linear(mixer: LinearMixer) -> Found:
    return [("linear", "token", mixer.linear.weight)]


def _gating(mixer: GatingMlp) -> Found:
    return [("gating", "token", mixer.tokens.weight)]


def _axial(mixer: AxialMixer) -> Found:
    return [("axial rows", "line", mixer.rows.weight), ("axial columns", "line", mixer.columns.weight)]


def _repmlp(mixer: RepMlpMixer) -> Found:
    merged: Any = deploy(mixer)
    sets = len(merged.weight)  # (S, N, N)
    names = [f"repmlp {number}/{sets}" if sets > 1 else "repmlp" for number in range(1, sets + 1)]
    return [(name, "token", weight) for name, weight in zip(names, merged.weight, strict=True)]


_MATRICES: dict[type[nn.Module], Callable[[Any], Found]] = {
    DenseMixer: _dense,
    LinearMixer: _linear,
    GatingMlp: _gating,
    AxialMixer: _axial,
    RepMlpMixer: _repmlp,
}
