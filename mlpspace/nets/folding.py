"""Folding: a scale and shift per channel into the linear map beside it. Products are rounded once, from float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scale_outputs(linear: nn.Linear | nn.Conv2d, scale: Tensor, shift: Tensor | None = None) -> None:
    """scale * linear(x) + shift as linear(x); a bias is made where the shift needs one."""
    dtype = linear.weight.dtype
    factor = scale.double().view(-1, *[1] * (linear.weight.dim() - 1))
    linear.weight.copy_((linear.weight.double() * factor).to(dtype))
    bias = None if linear.bias is None else linear.bias.double() * scale.double()
    if shift is not None:
        bias = shift.double() if bias is None else bias + shift.double()
    if bias is not None:
        linear.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def scale_inputs(linear: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """linear(scale * x + shift) as linear(x); a bias is made where there is none."""
    dtype = linear.weight.dtype
    bias = linear.weight.double() @ shift.double()
    if linear.bias is not None:
        bias = bias + linear.bias.double()
    linear.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    linear.weight.copy_((linear.weight.double() * scale.double()).to(dtype))


def composed(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """second(first(x)) as one linear map; without biases where neither has one."""
    weight = second.weight.double() @ first.weight.double()
    bias = torch.zeros_like(weight[:, 0])
    if first.bias is not None:
        bias = bias + second.weight.double() @ first.bias.double()
    if second.bias is not None:
        bias = bias + second.bias.double()
    has_bias = first.bias is not None or second.bias is not None
    return linear_of(weight.to(first.weight.dtype), bias.to(first.weight.dtype) if has_bias else None)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear map of these weights."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")  # what it would draw is not wanted
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def folded(module: nn.Module) -> nn.Module:
    """A module with everything inside it folded, from the inside out, as each kind's method `folded` says."""
    for name, child in list(module.named_children()):
        setattr(module, name, folded(child))
    own = getattr(module, "folded", None)
    return module if own is None else own()
