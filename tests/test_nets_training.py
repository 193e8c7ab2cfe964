"""Networks with every kind of part train, on either precision, and stay what they are when moved, copied and compiled."""

from __future__ import annotations

import copy

import pytest
import torch
from draws import KINDS, of_kind, randomise
from torch import nn
from torch.nn import functional as F

from mlpspace.nets import build, deploy

MIXING = [(table, kind) for table, kind in KINDS if table in ("token_mixer", "channel_mixer", "block")]


def images() -> torch.Tensor:
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def network_of(table: str, kind: str) -> nn.Module:
    torch.manual_seed(3)
    return build(of_kind(table, kind, "layer", 0.1), 32, 10)


@pytest.mark.parametrize(("table", "kind"), MIXING)
def test_a_few_steps_reduce_the_loss(table: str, kind: str) -> None:
    network = network_of(table, kind)
    labels = torch.arange(16) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(images()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.3, abs=0.3)  # ln 10: a fresh network has no opinion
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_every_weight_that_is_trained_gets_a_finite_gradient(table: str, kind: str, precision: str) -> None:
    network = randomise(network_of(table, kind))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = network(images())
    F.cross_entropy(logits.float(), torch.arange(16) % 10).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == (["stem.1.positions"] if kind == "class_token" else [])


@torch.no_grad()
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_bfloat16_is_near_float32_trained_and_deployed(table: str, kind: str) -> None:
    network = randomise(network_of(table, kind)).eval()
    expected = network(images())
    for form in (network, deploy(network)):
        with torch.autocast("cpu", torch.bfloat16):
            found = form(images()).float()
        assert (found - expected).abs().max() < 0.1 * expected.std()


@torch.no_grad()
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_the_weights_are_all_in_the_state_dict(table: str, kind: str) -> None:
    """In the deployed form too: a copy that lost every weight has them back from it."""
    trained = randomise(network_of(table, kind)).eval()
    for network in (trained, deploy(trained)):
        other = copy.deepcopy(network).to_empty(device="cpu")
        for value in other.state_dict().values():
            value.zero_()
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(images()), network(images()), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_images_are_left_as_they_are(table: str, kind: str) -> None:
    """What is computed in place is never the network's input, a weight or the residual."""
    network = deploy(randomise(network_of(table, kind)).eval())
    given = images()
    first, second = network(given), network(given)
    assert torch.equal(given, images())
    assert torch.equal(first, second)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("table", "kind"), KINDS)
def test_every_kind_compiles_to_one_graph(table: str, kind: str) -> None:
    torch._dynamo.reset()
    trained = randomise(network_of(table, kind)).eval()
    for network in (trained, deploy(trained)):
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images()), network(images()))
