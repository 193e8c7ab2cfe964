"""From an architecture to a network, and what it costs.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

from typing import overload

from torch import Tensor, nn

from mlpspace import comparators
from mlpspace.architecture import Architecture
from mlpspace.comparators import Comparator
from mlpspace.errors import ArchitectureError
from mlpspace.fields import Whole
from mlpspace.nets.blocks import BLOCKS
from mlpspace.nets.channel_mixers import GateLinear
from mlpspace.nets.cost import Cost, Grid
from mlpspace.nets.heads import ENTRIES, HEADS, Classifier
from mlpspace.nets.mergings import MERGINGS
from mlpspace.nets.norms import LayerNorm
from mlpspace.nets.resnet import GroupedLinear
from mlpspace.nets.stems import STEMS
from mlpspace.nets.token_mixers.dense import TokenLinear
from mlpspace.nets.token_mixers.repmlp import ShareSetConv, ShareSetLinear


class Network(nn.Module):
    """Stem, blocks with merging between the stages, head.

    Shape:
        image: (B, 3, R, R). Returns logits (B, classes).
    """

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)))


@overload
def build(architecture: Architecture, resolution: int, classes: int) -> Network: ...
@overload
def build(architecture: Comparator, resolution: int, classes: int) -> nn.Module: ...


def build(architecture: Architecture | Comparator, resolution: int, classes: int) -> nn.Module:
    """The network that `architecture` describes, with fresh weights, for square images of `resolution` pixels.

    The weights follow from torch's global seed. Under `torch.device("meta")` it has shapes only. A comparator is built
    by timm, with the fresh weights that timm gives it.

    Raises:
        ArchitectureError: it cannot be built at that resolution; the text says why.
        TimmMissing: it is a comparator, and timm does not import.

    Example:
        >>> mixer = Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=64),))
        >>> build(mixer, resolution=32, classes=10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if isinstance(architecture, Comparator):
        return comparators.build(architecture, resolution, classes)
    if not isinstance(architecture, Architecture):
        raise ArchitectureError(
            f"an architecture can be built, such as mlpspace.papers.get(NAME), not {architecture!r}"
        )
    complaint = Whole(1).complaint(classes)
    if complaint:
        raise ArchitectureError(f"classes {classes!r} {complaint}")
    stages, grids = architecture.stages, _grids(architecture, resolution)
    stem: nn.Module = STEMS[type(architecture.stem)](architecture.stem, stages[0].width)
    entry = ENTRIES.get(type(architecture.head))
    if entry is not None:
        stem = nn.Sequential(stem, entry(architecture.head, _stem_grid(architecture, resolution), stages[0].width))
    blocks: list[nn.Module] = []
    for index, (stage, grid) in enumerate(zip(stages, grids, strict=True)):
        if index and stage.merge:
            merging = MERGINGS[type(architecture.merging)]
            blocks.append(merging(architecture.merging, stages[index - 1].width, stage.width))
        blocks += [BLOCKS[type(stage.block)](stage, grid) for _ in range(stage.depth)]
    head = HEADS[type(architecture.head)](architecture.head, grids[-1], stages[-1].width, classes)
    network = Network(stem, blocks, head).apply(_initialise)
    for module in network.modules():
        if isinstance(module, LayerNorm):
            module.eps = architecture.norm_eps
    return network


def cost(architecture: Architecture, resolution: int, classes: int) -> Cost:
    """What `build` would cost at one image, without building it.

    Raises:
        ArchitectureError: it cannot be built at that resolution; the text says why.
    """
    stages, grids = architecture.stages, _grids(architecture, resolution)
    total: Cost = STEMS[type(architecture.stem)].cost(architecture.stem, resolution, stages[0].width)
    entry = ENTRIES.get(type(architecture.head))
    if entry is not None:
        total += entry.cost(architecture.head, _stem_grid(architecture, resolution), stages[0].width)
    for index, (stage, grid) in enumerate(zip(stages, grids, strict=True)):
        if index and stage.merge:
            merging = MERGINGS[type(architecture.merging)]
            total += merging.cost(architecture.merging, stages[index - 1].width, grid, stage.width)
        total += BLOCKS[type(stage.block)].cost(stage, grid) * stage.depth
    head: Cost = HEADS[type(architecture.head)].cost(architecture.head, grids[-1], stages[-1].width, classes)
    return total + head


def _stem_grid(architecture: Architecture, resolution: int) -> Grid:
    side = architecture.grid(resolution)[0]
    return side, side


def _grids(architecture: Architecture, resolution: int) -> list[Grid]:
    """The map of each stage; a class token joins the tokens of all, in one row."""
    sides = architecture.grid(resolution)
    if type(architecture.head) in ENTRIES:
        return [(1, side * side + 1) for side in sides]
    return [(side, side) for side in sides]


def _initialise(module: nn.Module) -> None:
    """Weights as MLP-Mixer starts: a normal cut at 2 deviations of 1 / sqrt(inputs), biases 0; a classifier near 0.

    ResMLP, sMLPNet and EAMLP take a deviation of 0.02 everywhere, which suits widths of many hundreds and long
    training; narrow networks that train for a few epochs get further from here.
    """
    if isinstance(module, GateLinear):
        nn.init.normal_(module.weight, std=1e-6)
        nn.init.ones_(module.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d | TokenLinear | ShareSetLinear | ShareSetConv | GroupedLinear):
        inputs = module.weight.shape[2] if isinstance(module, ShareSetLinear | GroupedLinear) else None
        deviation = (inputs or module.weight[0].numel()) ** -0.5
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
    elif isinstance(module, Classifier):  # comes after its linear map
        nn.init.trunc_normal_(module.linear.weight, std=0.02)
