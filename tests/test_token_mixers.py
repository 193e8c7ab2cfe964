"""Each token mixer against a slow, obvious way to compute it, in float64."""

from __future__ import annotations

from math import erf, exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from draws import randomise
from torch import Tensor, nn

from mlpspace.architecture import Axial, Dense, DepthwiseConv, ExternalAttention, Linear, NoTokenMixer, TokenMixer
from mlpspace.nets.token_mixers import TOKEN_MIXERS

Array = np.ndarray[Any, Any]
HEIGHT, ROW, WIDTH, BATCH = 3, 5, 8, 2  # height and width of the map differ, so that no mixer can confuse them

gelu = np.vectorize(lambda x: x * 0.5 * (1 + erf(x / sqrt(2))))


def mixer_module(mixer: TokenMixer) -> tuple[nn.Module, dict[str, Array]]:
    """The module in eval mode with random weights, and these weights by name."""
    module = TOKEN_MIXERS[type(mixer)](mixer, (HEIGHT, ROW), WIDTH).double().eval()
    randomise(module, seed=1)
    return module, {name: value.numpy() for name, value in module.state_dict().items()}


def image() -> Tensor:
    return torch.randn(BATCH, HEIGHT, ROW, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def put_out(module: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return module(x).numpy()


def batch_norm(x: Array, weights: dict[str, Array], name: str) -> Array:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def depthwise(x: Array, kernel: Array) -> Array:
    """Loops over everything; outside the map there are zeros."""
    reach = kernel.shape[-1] // 2
    out = np.zeros_like(x)
    for h in range(HEIGHT):
        for w in range(ROW):
            for dh in range(-reach, reach + 1):
                for dw in range(-reach, reach + 1):
                    if 0 <= h + dh < HEIGHT and 0 <= w + dw < ROW:
                        out[:, h, w] += kernel[:, 0, dh + reach, dw + reach] * x[:, h + dh, w + dw]
    return out


@pytest.mark.parametrize("ratio", [0.5, 2])
def test_dense_is_the_papers_equation_on_the_transposed_tokens(ratio: float) -> None:
    module, weights = mixer_module(Dense(ratio=ratio))
    x = image()
    tokens = x.numpy().reshape(BATCH, HEIGHT * ROW, WIDTH)
    expected = np.zeros_like(tokens)
    for b in range(BATCH):
        for c in range(WIDTH):  # each channel by itself, with the same weights
            hidden = gelu(weights["expand.weight"] @ tokens[b, :, c] + weights["expand.bias"])
            expected[b, :, c] = weights["project.weight"] @ hidden + weights["project.bias"]
    assert weights["expand.bias"].shape == (ratio * WIDTH,)
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-12)


def test_linear_is_one_matrix_over_the_tokens_of_each_channel() -> None:
    module, weights = mixer_module(Linear())
    x = image()
    tokens = x.numpy().reshape(BATCH, HEIGHT * ROW, WIDTH)
    expected = np.zeros_like(tokens)
    for b in range(BATCH):
        for c in range(WIDTH):
            expected[b, :, c] = weights["linear.weight"] @ tokens[b, :, c] + weights["linear.bias"]
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-12)


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("fusion", ["concat", "sum", "weighted"])
@pytest.mark.parametrize("local", [0, 3, 5])
def test_axial_convolves_then_maps_rows_and_columns(local: int, fusion: str, identity: bool) -> None:
    module, weights = mixer_module(Axial(local=local, fusion=fusion, identity=identity))
    x = image()
    y = x.numpy()
    if local:
        y = depthwise(gelu(batch_norm(y, weights, "local.norm")), weights["local.conv.weight"])
    z = gelu(batch_norm(y, weights, "norm"))
    rows, columns = np.zeros_like(z), np.zeros_like(z)
    for b in range(BATCH):
        for c in range(WIDTH):
            for h in range(HEIGHT):
                rows[b, h, :, c] = weights["rows.weight"] @ z[b, h, :, c] + weights["rows.bias"]
            for w in range(ROW):
                columns[b, :, w, c] = weights["columns.weight"] @ z[b, :, w, c] + weights["columns.bias"]
    branches = [z, rows, columns] if identity else [rows, columns]
    if fusion == "concat":
        expected = np.concatenate(branches, axis=-1) @ weights["fuse.weight"].T
    elif fusion == "weighted":
        expected = sum(w * branch for w, branch in zip(weights["weights"], branches, strict=True))
    else:
        expected = sum(branches)
    np.testing.assert_allclose(put_out(module, x), expected, atol=1e-12)


@pytest.mark.parametrize("double_norm", [True, False])
@pytest.mark.parametrize(("heads", "expansion"), [(1, 1), (4, 1), (4, 2)])
def test_external_attention_looks_its_queries_up_in_two_memories(heads: int, expansion: int, double_norm: bool) -> None:
    memory = 6
    module, weights = mixer_module(
        ExternalAttention(memory=memory, heads=heads, expansion=expansion, double_norm=double_norm)
    )
    x = image()
    tokens = HEIGHT * ROW
    expected = np.zeros((BATCH, tokens, WIDTH))
    for b, values in enumerate(x.numpy().reshape(BATCH, tokens, WIDTH)):
        queries = values @ weights["query.weight"].T + weights["query.bias"]
        attended = []
        for query in np.split(queries, heads, axis=1):
            scores = query @ weights["key.weight"].T + weights["key.bias"]  # (tokens, memory)
            shares = np.zeros_like(scores)
            for n in range(tokens):
                for s in range(memory):
                    over = scores[:, s] if double_norm else scores[n, :]  # tokens, or memory units
                    shares[n, s] = exp(scores[n, s]) / sum(exp(score) for score in over)
            if double_norm:
                shares = shares / shares.sum(axis=1, keepdims=True)
            attended.append(shares @ weights["value.weight"].T + weights["value.bias"])
        expected[b] = np.concatenate(attended, axis=1) @ weights["project.weight"].T + weights["project.bias"]
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-7)  # the paper adds 1e-9


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_dwconv_is_a_loop_over_neighbours(kernel: int) -> None:
    module, weights = mixer_module(DepthwiseConv(kernel=kernel))
    x = image()
    expected = depthwise(x.numpy(), weights["conv.weight"]) + weights["conv.bias"]
    np.testing.assert_allclose(put_out(module, x), expected, atol=1e-12)


def test_external_attention_does_not_see_the_order_of_the_tokens() -> None:
    module, _ = mixer_module(ExternalAttention(memory=6, heads=2))
    x = image()
    order = torch.randperm(HEIGHT * ROW, generator=torch.Generator().manual_seed(3))
    shuffled = x.flatten(1, 2)[:, order].view(x.shape)
    expected = put_out(module, x).reshape(BATCH, -1, WIDTH)[:, order.numpy()]
    np.testing.assert_allclose(put_out(module, shuffled).reshape(BATCH, -1, WIDTH), expected, atol=1e-12)


@pytest.mark.parametrize("mixer", [Dense(), Linear(), Axial(), DepthwiseConv()])
def test_other_mixers_see_where_a_token_is(mixer: TokenMixer) -> None:
    module, _ = mixer_module(mixer)
    x = image()
    order = torch.randperm(HEIGHT * ROW, generator=torch.Generator().manual_seed(3))
    shuffled = x.flatten(1, 2)[:, order].view(x.shape)
    expected = put_out(module, x).reshape(BATCH, -1, WIDTH)[:, order.numpy()]
    assert np.abs(put_out(module, shuffled).reshape(BATCH, -1, WIDTH) - expected).max() > 1e-2


@pytest.mark.parametrize("mixer", [Dense(), Linear(), DepthwiseConv()])
def test_mixers_that_only_mix_tokens_keep_channels_apart(mixer: TokenMixer) -> None:
    module, _ = mixer_module(mixer)
    x = image()
    changed = x.clone()
    changed[..., 3] += 1
    difference = np.abs(put_out(module, changed) - put_out(module, x)).max(axis=(0, 1, 2))
    assert difference[3] > 1e-3
    assert np.delete(difference, 3).max() == 0


def test_axial_reaches_only_its_row_and_column_without_the_local_convolution() -> None:
    module, _ = mixer_module(Axial(local=0))
    x = image()
    changed = x.clone()
    changed[:, 1, 2] += 1
    touched = np.abs(put_out(module, changed) - put_out(module, x)).max(axis=(0, 3)) > 0  # (H, W)
    cross = np.zeros((HEIGHT, ROW), dtype=bool)
    cross[1, :] = cross[:, 2] = True
    assert (touched == cross).all()


@pytest.mark.parametrize("kind", [kind for kind in TOKEN_MIXERS if kind is not NoTokenMixer])
def test_every_kind_is_held_against_a_slow_way(kind: type[Any]) -> None:
    """A new mixer needs a test above."""
    assert f"mixer_module({kind.__name__}(" in Path(__file__).read_text()
