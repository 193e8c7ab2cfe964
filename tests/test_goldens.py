"""Our published networks put out what the official code puts out, for its weights, converted, and the same images."""

from __future__ import annotations

import goldens
import pytest
import torch
from torch import Tensor, nn

from mlpspace import papers, weights
from mlpspace.nets import build, deploy

# With the rule's weights, RepMLPNet's activations grow to 1e5 and with them what float32 rounds away: the official
# float32 logits are themselves 2e-5 deviations from those of float64. So its two forms are compared in float64.
DEPLOYED_IN_FLOAT64 = ("repmlpnet_t224",)


def network_of(name: str, state: dict[str, Tensor]) -> nn.Module:
    """Our network with the weights of an official state dict."""
    with torch.device("meta"):
        network = build(papers.architecture(name), papers.paper(name).resolution, classes=1000)
    network.load_state_dict(weights.convert(state, name), assign=True)
    assert sum(p.numel() for p in network.parameters()) == goldens.facts(name)["params"]
    return network.eval()


@pytest.mark.parametrize("name", goldens.NAMES)
def test_logits_equal_those_of_the_official_code(name: str) -> None:
    state = goldens.state_dict(name)
    network = network_of(name, state)  # cyclemlp_b1's steps are drawn by the rule too, fractions of a position
    with torch.no_grad():
        for images, logits in goldens.images_and_logits(name):
            ours = network(images)
            assert goldens.deviations(ours, logits) < 1e-4
        if name in DEPLOYED_IN_FLOAT64:
            images, network, limit = images.double(), network.double(), 1e-10
            ours = network(images)
        else:
            limit = 1e-5
        assert goldens.deviations(deploy(network)(images), ours) < limit
