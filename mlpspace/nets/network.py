"""From an architecture to a network, and what it costs.

Shapes: B batch, H W map, N = H * W tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlpspace.architecture import Architecture, ClassTokenHead, NoTokenMixer, Stage
from mlpspace.nets.channel_mixers import CHANNEL_MIXERS
from mlpspace.nets.cost import Cost, Grid
from mlpspace.nets.layers import HEADS, NORMS, ClassToken, ClassTokenClassifier, MeanClassifier, PatchMerging
from mlpspace.nets.stems import STEMS
from mlpspace.nets.token_mixers import TOKEN_MIXERS, TokenLinear


class Residual(nn.Module):
    """Half a block: x + scale * mixer(norm(x)), `scale` (LayerScale, arXiv:2103.17239) per channel or not at all.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, norm: nn.Module, mixer: nn.Module, width: int, layer_scale: float | None) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(self.norm(x))
        return x + y if self.scale is None else torch.addcmul(x, self.scale, y)


class Block(nn.Module):
    """A token half, which may be missing, and a channel half.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, stage: Stage, grid: Grid) -> None:
        super().__init__()
        width, norm = stage.width, NORMS[stage.norm]
        self.token: nn.Module = nn.Identity()
        if not isinstance(stage.token_mixer, NoTokenMixer):
            mixer = TOKEN_MIXERS[type(stage.token_mixer)](stage.token_mixer, grid, width)
            before = nn.Identity() if _brings_norm(stage) else norm(width)
            self.token = Residual(before, mixer, width, stage.layer_scale)
        mixer = CHANNEL_MIXERS[type(stage.channel_mixer)](stage.channel_mixer, width)
        self.channel: nn.Module = Residual(norm(width), mixer, width, stage.layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(self.token(x))

    @staticmethod
    def cost(stage: Stage, grid: Grid) -> Cost:
        width = stage.width
        norm = NORMS[stage.norm].cost(width)
        scale = Cost() if stage.layer_scale is None else Cost(params=width)
        cost = norm + CHANNEL_MIXERS[type(stage.channel_mixer)].cost(stage.channel_mixer, grid, width) + scale
        if not isinstance(stage.token_mixer, NoTokenMixer):
            cost += TOKEN_MIXERS[type(stage.token_mixer)].cost(stage.token_mixer, grid, width) + scale
            cost += Cost() if _brings_norm(stage) else norm
        return cost


def _brings_norm(stage: Stage) -> bool:
    return getattr(stage.token_mixer, "own_norm", False)


class Network(nn.Module):
    """Stem, blocks with patch merging between the stages, head.

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


def build(architecture: Architecture, resolution: int, classes: int) -> Network:
    """The network that `architecture` describes, with fresh weights, for square images of `resolution` pixels.

    The weights follow from torch's global seed. Under `torch.device("meta")` it has shapes only.

    Raises:
        ArchitectureError: it cannot be built at that resolution; the text says why.

    Example:
        >>> mixer = Architecture(stem=Patches(patch=4), stages=(Stage(depth=2, width=64),))
        >>> build(mixer, resolution=32, classes=10)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    sides = architecture.grid(resolution)
    stages = architecture.stages
    stem: nn.Module = STEMS[type(architecture.stem)](architecture.stem, stages[0].width)
    grids = [(side, side) for side in sides]
    if isinstance(architecture.head, ClassTokenHead):  # which has one stage
        stem = nn.Sequential(stem, ClassToken(grids[0], stages[0].width))
        grids = [_with_class_token(grids[0])]
    blocks: list[nn.Module] = []
    for index, (stage, grid) in enumerate(zip(stages, grids, strict=True)):
        if index:
            blocks.append(PatchMerging(architecture.merging, stages[index - 1].width, stage.width))
        blocks += [Block(stage, grid) for _ in range(stage.depth)]
    head = HEADS[type(architecture.head)](architecture.head, stages[-1].width, classes)
    return Network(stem, blocks, head).apply(_initialise)


def cost(architecture: Architecture, resolution: int, classes: int) -> Cost:
    """What `build` would cost at one image, without building it.

    Raises:
        ArchitectureError: it cannot be built at that resolution; the text says why.
    """
    sides = architecture.grid(resolution)
    stages = architecture.stages
    total = STEMS[type(architecture.stem)].cost(architecture.stem, resolution, stages[0].width)
    grids = [(side, side) for side in sides]
    if isinstance(architecture.head, ClassTokenHead):
        total += ClassToken.cost(grids[0], stages[0].width)
        grids = [_with_class_token(grids[0])]
    for index, (stage, grid) in enumerate(zip(stages, grids, strict=True)):
        if index:
            total += PatchMerging.cost(architecture.merging, stages[index - 1].width, grid, stage.width)
        total += Block.cost(stage, grid) * stage.depth
    return total + HEADS[type(architecture.head)].cost(architecture.head, stages[-1].width, classes)


def _with_class_token(grid: Grid) -> Grid:
    return 1, grid[0] * grid[1] + 1


def _initialise(module: nn.Module) -> None:
    """Weights as MLP-Mixer starts: a normal cut at 2 deviations of 1 / sqrt(inputs), biases 0; a classifier near 0.

    ResMLP, sMLPNet and EAMLP take a deviation of 0.02 everywhere, which suits widths of many hundreds and long
    training; narrow networks that train for a few epochs get further from here.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | TokenLinear):
        deviation = module.weight[0].numel() ** -0.5
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, MeanClassifier | ClassTokenClassifier):  # comes after its linear map
        nn.init.trunc_normal_(module.linear.weight, std=0.02)
