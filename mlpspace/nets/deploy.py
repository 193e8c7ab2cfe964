"""The deployed form: the same function with fewer steps, for measuring throughput and for export.

A norm without statistics of its own, a BatchNorm in eval mode among them, is `alpha * x + beta` and goes into the
linear map that follows it. LayerScale goes into the linear map before it. Two linear maps with nothing between
them become one where that is cheaper. What stands before a GELU stays a scale and shift.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mlpspace.nets.channel_mixers import ChannelMlp
from mlpspace.nets.layers import Affine, BatchNorm, ClassTokenClassifier, MeanClassifier
from mlpspace.nets.network import Block, Residual
from mlpspace.nets.token_mixers import (
    AxialMixer,
    Depthwise,
    DepthwiseMixer,
    ExternalAttentionMixer,
    LinearMixer,
    double_normalised,
)


@torch.no_grad()
def deploy(network: nn.Module) -> nn.Module:
    """A folded copy of a network in eval mode; its outputs are equal up to rounding, and it cannot be trained further.

    Raises:
        ValueError: the network is in training mode, so its BatchNorms have no fixed statistics to fold.
    """
    if network.training:
        raise ValueError(
            "deploy folds what a network has learned, and this one is in training mode: call network.eval() first"
        )
    deployed = copy.deepcopy(network).requires_grad_(False)
    for module in list(deployed.modules()):
        for name, child in module.named_children():
            if isinstance(child, BatchNorm):
                setattr(module, name, _as_affine(child))
    for module in deployed.modules():
        if isinstance(module, Block):
            module.token = _fold_half(module.token)
            module.channel = _fold_half(module.channel)
        elif isinstance(module, MeanClassifier | ClassTokenClassifier) and isinstance(module.norm, Affine):
            _absorb_before(module.linear, module.norm)  # the mean of alpha * x + beta is alpha * mean + beta
            module.norm = nn.Identity()
    return deployed.requires_grad_(False)


class FoldedLinear(nn.Module):
    """A whole ResMLP token half in one matrix product: x + scale * (W x) + offset.

    With W x the map over the tokens: ls * (W (alpha * x + beta) + b) = ls * alpha * (W x) + ls * (beta * W 1 + b).

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, weight: Tensor, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (N, N)
        self.scale = nn.Parameter(scale)  # (C,)
        self.offset = nn.Parameter(offset)  # (N, C)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)  # (B, N, C)
        mixed = torch.bmm(self.weight.expand(len(x), -1, -1), tokens)
        return torch.addcmul(tokens + self.offset, self.scale, mixed).view(x.shape)


class FoldedAttention(nn.Module):
    """External attention with one linear map to the scores of all heads and one from them.

    Nothing stands between query and key, nor between value and projection, so each pair is one linear map.

    Shape:
        x: (B, H, W, C). Returns the same shape.
    """

    def __init__(self, attention: ExternalAttentionMixer) -> None:
        super().__init__()
        self.heads, self.double_norm = attention.heads, attention.double_norm
        heads = self.heads
        # float64, as products of weights are rounded once here and would be twice otherwise
        query, key, value, project = (
            copy.deepcopy(m).double() for m in (attention.query, attention.key, attention.value, attention.project)
        )
        width = query.in_features
        dtype = attention.query.weight.dtype
        to_scores = key.weight @ query.weight.unflatten(0, (heads, -1))  # (heads, memory, C)
        scores_bias = query.bias.unflatten(0, (heads, -1)) @ key.weight.T + key.bias  # (heads, memory)
        from_scores = project.weight.unflatten(1, (heads, -1)).transpose(0, 1) @ value.weight  # (heads, C, memory)
        bias = project.bias + project.weight @ value.bias.repeat(heads)
        self.to_scores = _linear(to_scores.reshape(-1, width).to(dtype), scores_bias.flatten().to(dtype))
        self.from_scores = _linear(from_scores.transpose(0, 1).reshape(width, -1).to(dtype), bias.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.to_scores(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))  # (B, N, heads, memory)
        scores = double_normalised(scores) if self.double_norm else scores.softmax(dim=-1)
        return self.from_scores(scores.flatten(2)).view(x.shape)

    @staticmethod
    def is_cheaper(attention: ExternalAttentionMixer) -> bool:
        """Fewer multiply-accumulates a token: heads * memory * 2C against what the four maps take."""
        width, queries = attention.query.in_features, attention.query.out_features
        memory = attention.key.out_features
        return 2 * attention.heads * memory * width < 2 * queries * (width + memory)


def _fold_half(half: nn.Module) -> nn.Module:
    """Half a block, folded as far as its mixer allows."""
    if not isinstance(half, Residual):  # the block has no token half
        return half
    if isinstance(half.mixer, LinearMixer) and isinstance(half.norm, Affine):
        return _folded_linear(half.mixer, half.norm, half.scale)
    if isinstance(half.mixer, AxialMixer):
        _fold_axial(half.mixer)
    kind = type(half.mixer)
    if isinstance(half.norm, Affine) and kind in _FIRST_LINEAR:
        _absorb_before(_FIRST_LINEAR[kind](half.mixer), half.norm)
        half.norm = nn.Identity()
    last = _LAST_LINEAR[kind](half.mixer) if kind in _LAST_LINEAR else None
    if half.scale is not None and last is not None:
        _absorb_after(last, half.scale)
        half.scale = None
    if isinstance(half.mixer, ExternalAttentionMixer) and FoldedAttention.is_cheaper(half.mixer):
        half.mixer = FoldedAttention(half.mixer).requires_grad_(False)
    return half


# Where a mixer begins, or ends, with a linear map over the channels. A kind without a row keeps its norm and scale.
_FIRST_LINEAR: dict[type[nn.Module], Callable[[Any], nn.Linear]] = {
    ChannelMlp: lambda mixer: mixer.expand,
    ExternalAttentionMixer: lambda mixer: mixer.query,
}
_LAST_LINEAR: dict[type[nn.Module], Callable[[Any], nn.Linear | Depthwise | None]] = {
    ChannelMlp: lambda mixer: mixer.project,
    ExternalAttentionMixer: lambda mixer: mixer.project,
    AxialMixer: lambda mixer: mixer.fuse if mixer.fusion == "concat" else None,
    DepthwiseMixer: lambda mixer: mixer.conv,
}


def _as_affine(norm: BatchNorm) -> Affine:
    """A BatchNorm in eval mode as a scale and shift."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    alpha = norm.weight.double() / deviation
    affine = Affine(norm.num_features).to(norm.weight)
    affine.alpha.copy_(alpha)
    affine.beta.copy_(norm.bias.double() - norm.running_mean.double() * alpha)
    return affine.eval()


def _absorb_before(linear: nn.Linear, norm: Affine) -> None:
    """linear(norm(x)) as linear(x)."""
    linear.bias.add_((linear.weight.double() @ norm.beta.double()).to(linear.bias.dtype))
    linear.weight.mul_(norm.alpha)


def _absorb_after(linear: nn.Linear | Depthwise, scale: Tensor) -> None:
    """scale * linear(x) as linear(x)."""
    linear.weight.mul_(scale.view(-1, *[1] * (linear.weight.dim() - 1)))
    if linear.bias is not None:
        linear.bias.mul_(scale)


def _fold_axial(mixer: AxialMixer) -> None:
    """The norm after the depthwise convolution goes into it."""
    if isinstance(mixer.local, nn.Sequential):
        conv, norm = mixer.local[2], mixer.norm
        assert isinstance(conv, Depthwise)
        assert isinstance(norm, Affine)
        conv.bias = nn.Parameter(norm.beta.clone())
        conv.weight.mul_(norm.alpha[:, None, None, None])
        mixer.norm = nn.Identity()


def _folded_linear(mixer: LinearMixer, norm: Affine, scale: Tensor | None) -> FoldedLinear:
    weight = mixer.linear.weight
    scale = torch.ones_like(norm.alpha) if scale is None else scale
    row_sums = weight.double().sum(1)
    offset = scale.double() * (row_sums[:, None] * norm.beta.double() + mixer.linear.bias.double()[:, None])  # (N, C)
    return FoldedLinear(weight.clone(), scale * norm.alpha, offset.to(weight.dtype))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # the weights it would draw are not wanted
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear
