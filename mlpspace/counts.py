"""What a network costs at a resolution: by arithmetic, and by counting the built network."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from ptflops import get_model_complexity_info
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlpspace.architecture import Architecture
from mlpspace.nets.network import cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Counts at one image of `resolution` pixels."""

    params: int  # all, frozen ones included
    macs: int  # multiply-accumulates of matrix products and convolutions
    activations: int  # numbers that the matrix products and convolutions put out
    tokens: int  # of the first stage, a class token not among them
    resolution: int
    classes: int


def profile(architecture: Architecture, resolution: int, classes: int = 1000) -> Profile:
    """The counts of the network that `build` would make, by arithmetic alone, thousands a second.

    Raises:
        ArchitectureError: it cannot be built at that resolution; the text says why.

    Example:
        >>> mixer_s16 = Architecture(stem=Patches(patch=16), stages=(Stage(depth=8, width=512),))
        >>> profile(mixer_s16, resolution=224).params
        18528264
    """
    total = cost(architecture, resolution, classes)
    return Profile(
        params=total.params,
        macs=total.macs,
        activations=total.activations,
        tokens=architecture.grid(resolution)[0] ** 2,
        resolution=resolution,
        classes=classes,
    )


def counted(network: nn.Module, resolution: int) -> tuple[int, int]:
    """Parameters and MACs of a built network, counted by running it on one image: the check on `profile`.

    ptflops counts on the "aten" level, where no way of writing a product hides it; what it adds for biases is left
    out. The network runs on the meta device, so nothing is computed and the network itself is left as it is.
    """
    image = torch.empty(1, 3, resolution, resolution, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # written out, so that attention's products are seen
        macs, _ = get_model_complexity_info(
            copy.deepcopy(network).to("meta"),
            (3, resolution, resolution),
            as_strings=False,
            print_per_layer_stat=False,
            ost=sys.stderr,
            input_constructor=lambda _: image,
            custom_modules_hooks=_PRODUCTS,
            backend="aten",
        )
    if macs is None:
        raise RuntimeError("ptflops could not count this network; what it printed says why")
    return sum(parameter.numel() for parameter in network.parameters()), macs


def _matrix_product_macs(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """The last two inputs are the factors; a bias, where there is one, comes before them."""
    return outputs[0].numel() * inputs[-1].shape[-2]


def _convolution_macs(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    return outputs[0].numel() * prod(inputs[1].shape[1:])


_aten = torch.ops.aten
_PRODUCTS = {
    _aten.mm: _matrix_product_macs,
    _aten.addmm: _matrix_product_macs,
    _aten.bmm: _matrix_product_macs,
    _aten.baddbmm: _matrix_product_macs,
    _aten.convolution: _convolution_macs,
}
