"""The reference network: small, fixed, timed beside every other one, so that the machine's drift cancels.

And two probes unlike it, which tell how far the quotient of two networks' speeds varies from process to process.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from mlpspace.architecture import Architecture, Stage
from mlpspace.architecture.channel_mixers import Mlp
from mlpspace.architecture.stems import Patches
from mlpspace.architecture.token_mixers import DepthwiseConv, ExternalAttention
from mlpspace.nets import build, deploy

CLASSES = 10
SIDE = 8  # tokens along a side, at least, where the pixels allow


def reference_architecture(resolution: int) -> Architecture:
    """A mixer of 4 blocks, wider where an image has more pixels: 4 x 64 at patch 4 for 32 px, 4 x 256 at 16 for 224.

    Changing it changes the protocol: see `throughput.THROUGHPUT_PROTOCOL`.
    """
    patch = _patch(resolution)
    return Architecture(stem=Patches(patch=patch), stages=(Stage(depth=4, width=16 * patch),))


def probe_architectures(resolution: int) -> tuple[Architecture, ...]:
    """One of convolutions, one of external attention: kinds of work that the reference has none of."""
    patch = _patch(resolution)
    convolution, attention = DepthwiseConv(kernel=5), ExternalAttention(memory=32)
    stages = (
        Stage(depth=3, width=24 * patch, token_mixer=convolution, channel_mixer=Mlp(ratio=2), norm="affine"),
        Stage(depth=6, width=8 * patch, token_mixer=attention),
    )
    return tuple(Architecture(stem=Patches(patch=patch), stages=(stage,)) for stage in stages)


@functools.lru_cache(maxsize=4)
def reference_network(resolution: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Deployed, on the device; built once in a process."""
    return deployed(reference_architecture(resolution), resolution).to(device=device, dtype=dtype)


def deployed(architecture: Architecture, resolution: int, classes: int = CLASSES) -> nn.Module:
    """With random weights of a fixed seed; torch's global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return deploy(build(architecture, resolution, classes).eval())


def random_images(batch: int, resolution: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """What networks are timed on: (batch, 3, resolution, resolution), normal, on the device; the same each time."""
    normal = torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    return normal.to(device=device, dtype=dtype)


def _patch(resolution: int) -> int:
    """The largest of 16, 8, 4, 2 that leaves enough tokens; 1 where the pixels are few or odd."""
    fitting = (patch for patch in (16, 8, 4, 2) if resolution % patch == 0 and resolution // patch >= SIDE)
    return next(fitting, 1)
