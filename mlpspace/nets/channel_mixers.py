"""Channel mixers: what moves information between the channels of one position.

Each module takes its dataclass of `architecture`, the grid (H, W) and the width C of its stage, and maps (B, H, W, C)
to the same shape. To add one: its dataclass there, its module and a row of `CHANNEL_MIXERS` here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mlpspace.architecture import Gating, Mlp, NormedMlp, hidden_width
from mlpspace.nets.activations import Gelu
from mlpspace.nets.cost import Cost, Grid, linear_cost
from mlpspace.nets.folding import scale_outputs
from mlpspace.nets.norms import Affine, BatchNorm
from mlpspace.nets.token_mixers.dense import TokenLinear


class ChannelMlp(nn.Module):
    """Two linear maps over the channels with a GELU between them (arXiv:2105.01601, eq. 1).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Mlp, grid: Grid, width: int) -> None:
        super().__init__()
        hidden = hidden_width(mixer.ratio, width)
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)
        self.activation = Gelu("tanh" if mixer.activation == "gelu_tanh" else "none")

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.activation(self.expand(x)))

    @staticmethod
    def cost(mixer: Mlp, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = hidden_width(mixer.ratio, width)
        return linear_cost(width, hidden, tokens) + linear_cost(hidden, width, tokens)

    @property
    def first(self) -> nn.Linear:
        return self.expand

    @property
    def last(self) -> nn.Linear:
        return self.project


class GatingMlp(nn.Module):
    """gMLP's channel MLP with its spatial gating unit (arXiv:2105.08050, eqs. 1 to 4).

        u, v = halves of gelu(expand(x)),   out = project(u * tokens(norm(v)))

    The linear map over the tokens starts at 1 for every token, so that the unit first passes u on.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: Gating, grid: Grid, width: int) -> None:
        super().__init__()
        tokens, gate = grid[0] * grid[1], mixer.gate(width)
        self.expand = nn.Linear(width, 2 * gate)
        self.activation = Gelu()
        self.norm = nn.LayerNorm(gate)  # its eps is 1e-5 in the code, whatever that of the blocks
        self.tokens = GateLinear(tokens, tokens)
        self.project = nn.Linear(gate, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        # each half by a product of its own, as halves of one do not lie together, and norm would copy its half first
        maps = zip(self.expand.weight.chunk(2), self.expand.bias.chunk(2), strict=True)
        u, v = (self.activation(F.linear(tokens, weight, bias)) for weight, bias in maps)  # each (B, N, gate)
        return self.project(u * self.tokens(self.norm(v))).view(x.shape)

    @staticmethod
    def cost(mixer: Gating, grid: Grid, width: int) -> Cost:
        tokens, gate = grid[0] * grid[1], mixer.gate(width)
        maps = linear_cost(width, 2 * gate, tokens) + linear_cost(gate, width, tokens)
        return maps + Cost(params=2 * gate) + linear_cost(tokens, tokens, positions=gate)

    @property
    def first(self) -> nn.Linear:
        return self.expand

    @property
    def last(self) -> nn.Linear:
        return self.project


class GateLinear(TokenLinear):
    """The linear map of a spatial gating unit; it starts near weights 0 and biases 1."""


class NormedChannelMlp(nn.Module):
    """norm(project(gelu(norm(expand(x))))), the norms BatchNorms (RepMLPNet, arXiv:2112.11081).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, mixer: NormedMlp, grid: Grid, width: int) -> None:
        super().__init__()
        hidden = hidden_width(mixer.ratio, width)
        self.expand = nn.Linear(width, hidden, bias=False)
        self.expand_norm: nn.Module = BatchNorm(hidden)
        self.project = nn.Linear(hidden, width, bias=False)
        self.project_norm: nn.Module = BatchNorm(width)
        self.activation = Gelu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.expand_norm(self.expand(x)))
        return self.project_norm(self.project(y))

    @staticmethod
    def cost(mixer: NormedMlp, grid: Grid, width: int) -> Cost:
        tokens = grid[0] * grid[1]
        hidden = hidden_width(mixer.ratio, width)
        maps = linear_cost(width, hidden, tokens, bias=False) + linear_cost(hidden, width, tokens, bias=False)
        return maps + BatchNorm.cost(hidden) + BatchNorm.cost(width)

    @property
    def first(self) -> nn.Linear:
        return self.expand

    @property
    def last(self) -> nn.Linear | None:
        return self.project if isinstance(self.project_norm, nn.Identity) else None

    def folded(self) -> NormedChannelMlp:
        """Each norm goes into the linear map before it."""
        for linear, name in ((self.expand, "expand_norm"), (self.project, "project_norm")):
            norm = getattr(self, name)
            if isinstance(norm, Affine):
                scale_outputs(linear, norm.alpha, norm.beta)
                setattr(self, name, nn.Identity())
        return self


# NoChannelMixer has no row: its block has no channel half.
CHANNEL_MIXERS: dict[type[Any], Any] = {Mlp: ChannelMlp, Gating: GatingMlp, NormedMlp: NormedChannelMlp}
