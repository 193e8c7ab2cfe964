"""Peak memory against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mlpspace.peak_memory import peak_bytes


@pytest.mark.parametrize(
    ("widths", "widest_pair"),
    [
        pytest.param((48, 2000, 500), 2000 + 2000, marks=pytest.mark.slow),
        pytest.param((48, 100, 3000), 100 + 3000, marks=pytest.mark.slow),
        ((48, 300, 10), 300 + 300),
    ],
)
def test_peak_memory_of_a_chain_is_weights_images_and_its_widest_pair_of_maps(
    widths: tuple[int, int, int], widest_pair: int
) -> None:
    """Linear, relu, linear: what goes into a step and what comes out are alive at once, and nothing else."""
    a, b, c = widths
    network = nn.Sequential(nn.Flatten(), nn.Linear(a, b, bias=False), nn.ReLU(), nn.Linear(b, c, bias=False))
    numbers = a * b + b * c + 16 * a + 16 * widest_pair
    assert peak_bytes(network, torch.randn(16, 3, 4, 4)) == 4 * numbers


def test_peak_memory_counts_a_shared_weight_and_a_view_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(48, 48, bias=False)
            self.two = nn.Linear(48, 48, bias=False)
            self.two.weight = self.one.weight

        def forward(self, images: Tensor) -> Tensor:
            x = self.two(self.one(images.flatten(1)))
            return x.view(-1, 3, 16).transpose(1, 2)[:, :2]

    assert peak_bytes(Twice(), torch.randn(16, 3, 4, 4)) == 4 * (48 * 48 + 16 * 48 + 2 * 16 * 48)
