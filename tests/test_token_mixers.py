"""Each token mixer against a slow, obvious way to compute it, in float64."""

from __future__ import annotations

import re
from math import exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ACTIVATION, Array, batch_norm, gelu, linear, weights_of
from draws import randomise
from torch import Tensor, nn

from mlpspace.architecture import (
    ACTIVATIONS,
    Attention,
    Axial,
    Conv,
    Cycle,
    Dense,
    DenseByTokens,
    DenseUnits,
    DepthwiseConv,
    ExternalAttention,
    Identity,
    Linear,
    Local,
    RepMlp,
    SeparableConv,
    TokenMixer,
)
from mlpspace.nets.token_mixers import TOKEN_MIXERS
from mlpspace.nets.token_mixers.cycle import CycleLinear

HEIGHT, ROW, WIDTH, BATCH = 3, 5, 8, 2  # height and width of the map differ, so that no mixer can confuse them


def mixer_module(mixer: TokenMixer) -> tuple[nn.Module, dict[str, Array]]:
    """The module in eval mode with random weights, and these weights by name."""
    module = TOKEN_MIXERS[type(mixer)](mixer, (HEIGHT, ROW), WIDTH).double().eval()
    randomise(module, seed=1)
    return module, weights_of(module)


def image() -> Tensor:
    return torch.randn(BATCH, HEIGHT, ROW, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def put_out(module: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return module(x).numpy()


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


def dense(weights: dict[str, Array], activation: str) -> Array:
    """The paper's equation on each channel by itself, with the same weights."""
    x = image().numpy()
    tokens = x.reshape(BATCH, HEIGHT * ROW, WIDTH)
    out = np.zeros_like(tokens)
    for b in range(BATCH):
        for c in range(WIDTH):
            hidden = ACTIVATION[activation](weights["expand.weight"] @ tokens[b, :, c] + weights["expand.bias"])
            out[b, :, c] = weights["project.weight"] @ hidden + weights["project.bias"]
    return out.reshape(x.shape)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ratio", [0.5, 2])
def test_dense_is_the_papers_equation_on_the_transposed_tokens(ratio: float, activation: str) -> None:
    module, weights = mixer_module(Dense(ratio=ratio, activation=activation))
    assert weights["expand.bias"].shape == (ratio * WIDTH,)
    np.testing.assert_allclose(put_out(module, image()), dense(weights, activation), atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("ratio", "hidden"), [(0.5, 7), (4, 60)])
def test_dense_by_tokens_sizes_the_same_by_the_tokens(ratio: float, hidden: int, activation: str) -> None:
    module, weights = mixer_module(DenseByTokens(ratio=ratio, activation=activation))
    assert weights["expand.bias"].shape == (hidden,)  # of 15 tokens, rounded down
    np.testing.assert_allclose(put_out(module, image()), dense(weights, activation), atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_units_sizes_the_same_by_a_number(activation: str) -> None:
    module, weights = mixer_module(DenseUnits(units=11, activation=activation))
    assert weights["expand.bias"].shape == (11,)
    np.testing.assert_allclose(put_out(module, image()), dense(weights, activation), atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_two_activations_are_not_the_same(activation: str) -> None:
    _, weights = mixer_module(Dense(activation=activation))
    assert 1e-5 < np.abs(dense(weights, "gelu") - dense(weights, "gelu_tanh")).max() < 1e-2


def test_linear_is_one_matrix_over_the_tokens_of_each_channel() -> None:
    module, weights = mixer_module(Linear())
    x = image()
    tokens = x.numpy().reshape(BATCH, HEIGHT * ROW, WIDTH)
    expected = np.zeros_like(tokens)
    for b in range(BATCH):
        for c in range(WIDTH):
            expected[b, :, c] = weights["linear.weight"] @ tokens[b, :, c] + weights["linear.bias"]
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_local_is_norm_gelu_and_a_depthwise_convolution(kernel: int) -> None:
    module, weights = mixer_module(Local(kernel=kernel))
    expected = depthwise(gelu(batch_norm(image().numpy(), weights, "norm")), weights["conv.weight"])
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


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
        queries = linear(values, weights, "query")
        attended = []
        for query in np.split(queries, heads, axis=1):
            scores = linear(query, weights, "key")  # (tokens, memory)
            shares = np.zeros_like(scores)
            for n in range(tokens):
                for s in range(memory):
                    over = scores[:, s] if double_norm else scores[n, :]  # tokens, or memory units
                    shares[n, s] = exp(scores[n, s]) / sum(exp(score) for score in over)
            if double_norm:
                shares = shares / shares.sum(axis=1, keepdims=True)
            attended.append(linear(shares, weights, "value"))
        expected[b] = linear(np.concatenate(attended, axis=1), weights, "project")
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-7)  # the paper adds 1e-9


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_dwconv_is_a_loop_over_neighbours(kernel: int) -> None:
    module, weights = mixer_module(DepthwiseConv(kernel=kernel))
    x = image()
    expected = depthwise(x.numpy(), weights["conv.weight"]) + weights["conv.bias"]
    np.testing.assert_allclose(put_out(module, x), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
def test_separable_conv_maps_the_channels_after_the_neighbours(kernel: int) -> None:
    module, weights = mixer_module(SeparableConv(kernel=kernel))
    y = depthwise(image().numpy(), weights["conv.weight"]) + weights["conv.bias"]
    expected = linear(y, weights, "project")
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_conv_maps_the_channels_of_each_neighbour(kernel: int) -> None:
    module, weights = mixer_module(Conv(kernel=kernel))
    x, reach = image().numpy(), kernel // 2
    expected = np.zeros_like(x) + weights["conv.bias"]
    for h in range(HEIGHT):
        for w in range(ROW):
            for dh in range(-reach, reach + 1):
                for dw in range(-reach, reach + 1):
                    if 0 <= h + dh < HEIGHT and 0 <= w + dw < ROW:
                        tap = weights["conv.weight"][:, :, dh + reach, dw + reach]
                        expected[:, h, w] += x[:, h + dh, w + dw] @ tap.T
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


def cycled(x: Array, kernel: int, dh: int, dw: int) -> Array:
    """Channel i read its step further on, (i + k // 2) mod k - k // 2 times (dh, dw); outside the map there are zeros."""
    out = np.zeros_like(x)
    for h in range(HEIGHT):
        for w in range(ROW):
            for i in range(WIDTH):
                step = (i + kernel // 2) % kernel - kernel // 2
                if 0 <= h + step * dh < HEIGHT and 0 <= w + step * dw < ROW:
                    out[:, h, w, i] = x[:, h + step * dh, w + step * dw, i]
    return out


@pytest.mark.parametrize("kernel", [1, 3, 5, 11])  # of 11 positions the 8 channels reach some, the map holds fewer
def test_cycle_reads_each_channel_at_its_own_step_and_weighs_three_maps(kernel: int) -> None:
    module, weights = mixer_module(Cycle(kernel=kernel))
    x = image().numpy()
    rows = linear(cycled(x, kernel, 0, 1), weights, "rows")
    columns = linear(cycled(x, kernel, 1, 0), weights, "columns")
    place = linear(x, weights, "place")
    assert "place.bias" not in weights
    mean = (rows + columns + place).mean((1, 2))  # (B, C)
    hidden = gelu(linear(mean, weights, "reweight.0"))
    scores = linear(hidden, weights, "reweight.2")
    mixed = np.zeros_like(x)
    for b in range(BATCH):
        for c in range(WIDTH):
            three = np.exp(scores[b, 3 * c : 3 * c + 3])
            shares = three / three.sum()
            mixed[b, :, :, c] = shares[0] * rows[b, :, :, c] + shares[1] * columns[b, :, :, c]
            mixed[b, :, :, c] += shares[2] * place[b, :, :, c]
    expected = linear(mixed, weights, "project")
    assert hidden.shape == (BATCH, WIDTH // 4)
    np.testing.assert_allclose(put_out(module, image()), expected, atol=1e-12)


@pytest.mark.parametrize("axis", [1, 2])
def test_cycle_reads_between_positions_where_a_checkpoint_says_so(axis: int) -> None:
    """1.25 further on is three quarters of the next position and a quarter of the one after it, zeros outside."""
    linear = CycleLinear(4, kernel=3, axis=1).double()
    steps = torch.zeros(4, 2)
    steps[1, axis - 1] = 1.25
    linear.load_state_dict({"weight": torch.eye(4), "bias": torch.zeros(4), "steps": steps})
    x = image()[..., :4]
    ahead = torch.cat([x, torch.zeros_like(x)], dim=axis)
    expected = x.clone()
    length = x.shape[axis]
    expected[..., 1] = (0.75 * ahead.narrow(axis, 1, length) + 0.25 * ahead.narrow(axis, 2, length))[..., 1]
    np.testing.assert_allclose(put_out(linear, x), expected.numpy(), atol=1e-12)


def test_cycle_goes_back_to_the_papers_steps_with_their_checkpoint() -> None:
    linear, published = CycleLinear(4, kernel=3, axis=1), CycleLinear(4, kernel=3, axis=1)
    linear.load_state_dict({**published.state_dict(), "steps": torch.ones(4, 2)})
    assert linear.reach == 1
    linear.load_state_dict(published.state_dict())
    assert linear.reach is None


@pytest.mark.parametrize("kernel", [0, 1, 5])
@pytest.mark.parametrize("share_sets", [1, 2, 8])
def test_repmlp_sums_a_matrix_and_convolutions_and_gates_them(share_sets: int, kernel: int) -> None:
    module, weights = mixer_module(RepMlp(share_sets=share_sets, kernel=kernel))
    x = image().numpy()
    tokens = x.reshape(BATCH, HEIGHT * ROW, WIDTH)

    def normed(y: Array, c: int, name: str) -> Array:
        """BatchNorm with the one scale and shift of the share-set of channel c."""
        own = {
            key: value[c % share_sets] for key, value in weights.items() if key.startswith(f"{name}.") and value.ndim
        }
        return batch_norm(y, own, name)

    summed = np.zeros_like(x)
    for c in range(WIDTH):
        matrix = weights["matrix.weight"][c % share_sets]
        for b in range(BATCH):
            summed[b, :, :, c] = normed(matrix @ tokens[b, :, c], c, "norm").reshape(HEIGHT, ROW)
        for number in range((kernel + 1) // 2):
            name = f"convs.{number}"
            assert weights[f"{name}.weight"].shape[-1] == 2 * number + 1
            alone = depthwise(x[..., c : c + 1], weights[f"{name}.weight"][c % share_sets][None])
            summed[..., c] += normed(alone[..., 0], c, f"{name}.norm")
    hidden = np.maximum(0, linear(x.mean((1, 2)), weights, "gate.reduce"))
    gate = 1 / (1 + np.exp(-linear(hidden, weights, "gate.expand")))  # (B, C)
    assert hidden.shape == (BATCH, WIDTH // 4)
    np.testing.assert_allclose(put_out(module, image()), summed * gate[:, None, None], atol=1e-12)


def test_repmlp_norms_a_share_set_over_images_tokens_and_its_channels() -> None:
    module, weights = mixer_module(RepMlp(share_sets=2, kernel=0))
    before = module.norm.running_mean.numpy().copy()
    module.train()
    put_out(module, image())
    tokens = image().numpy().reshape(BATCH, HEIGHT * ROW, WIDTH)
    for s in range(2):
        mixed = np.einsum("nm,bmc->bnc", weights["matrix.weight"][s], tokens[..., s::2])
        expected = 0.9 * before[s] + 0.1 * mixed.mean()
        assert module.norm.running_mean[s].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_weighs_the_tokens_by_softmax_in_each_head(heads: int) -> None:
    module, weights = mixer_module(Attention(heads=heads))
    x = image()
    tokens, size = HEIGHT * ROW, WIDTH // heads
    attended = np.zeros((BATCH, tokens, WIDTH))
    for b, values in enumerate(x.numpy().reshape(BATCH, tokens, WIDTH)):
        q, k, v = np.split(linear(values, weights, "qkv"), 3, axis=1)  # each (N, C)
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for n in range(tokens):
                scores = np.array([exp(q[n, own] @ k[m, own] / sqrt(size)) for m in range(tokens)])
                attended[b, n, own] = scores @ v[:, own] / scores.sum()
    expected = linear(attended, weights, "project")
    np.testing.assert_allclose(put_out(module, x), expected.reshape(x.shape), atol=1e-12)


def test_identity_leaves_each_token_as_it_is() -> None:
    module, weights = mixer_module(Identity())
    assert weights == {}
    np.testing.assert_array_equal(put_out(module, image()), image().numpy())


@pytest.mark.parametrize("mixer", [ExternalAttention(memory=6, heads=2), Attention(heads=2), Identity()])
def test_some_mixers_do_not_see_the_order_of_the_tokens(mixer: TokenMixer) -> None:
    module, _ = mixer_module(mixer)
    assert np.abs(shuffled_first(module) - shuffled_last(module)).max() < 1e-12


def shuffled_first(module: nn.Module) -> Array:
    x = image()
    order = torch.randperm(HEIGHT * ROW, generator=torch.Generator().manual_seed(3))
    return put_out(module, x.flatten(1, 2)[:, order].view(x.shape)).reshape(BATCH, -1, WIDTH)


def shuffled_last(module: nn.Module) -> Array:
    order = torch.randperm(HEIGHT * ROW, generator=torch.Generator().manual_seed(3))
    return put_out(module, image()).reshape(BATCH, -1, WIDTH)[:, order.numpy()]


SEEING = [Dense(), DenseByTokens(), DenseUnits(units=4), Linear(), Axial(), Local(), DepthwiseConv(), SeparableConv()]


@pytest.mark.parametrize("mixer", [*SEEING, Conv(), Cycle(), RepMlp()], ids=lambda mixer: type(mixer).__name__)
def test_other_mixers_see_where_a_token_is(mixer: TokenMixer) -> None:
    module, _ = mixer_module(mixer)
    assert np.abs(shuffled_first(module) - shuffled_last(module)).max() > 1e-2


APART = [Dense(), DenseByTokens(), DenseUnits(units=4), Linear(), Local(), DepthwiseConv(), Identity()]


@pytest.mark.parametrize("mixer", APART, ids=lambda mixer: type(mixer).__name__)
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


@pytest.mark.parametrize("kind", list(TOKEN_MIXERS), ids=lambda kind: kind.__name__)
def test_every_kind_is_held_against_a_slow_way(kind: type[Any]) -> None:
    """A new mixer needs a test above."""
    assert re.search(rf"mixer_module\(\s*{kind.__name__}\(", Path(__file__).read_text())
