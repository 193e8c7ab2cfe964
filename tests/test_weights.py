"""Weights of other implementations: what is read, and what is told where they do not fit.

That converted networks put out what the originals do is in test_goldens and test_timm_witness; here MLP-Mixer's JAX code
stands beside them, whose weights lie in another order.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import Any

import by_hand
import goldens
import numpy as np
import pytest
import torch
from torch import Tensor

from mlpspace import papers, weights
from mlpspace.errors import ArchitectureError, WeightsError
from mlpspace.nets import build
from mlpspace.weights.reading import readings

SMALL = "spach_ms_xxs_attn"  # the published network of fewest parameters


def state_of(name: str, implementation: str = "", **kwargs: Any) -> dict[str, Tensor]:
    """The state dict of another implementation, all zeros."""
    for reading in readings({}, papers.architecture(name), kwargs.get("resolution", papers.paper(name).resolution)):
        if implementation in reading.implementation.name:
            return {key: torch.zeros(shape) for key, shape in reading.expected.items()}
    raise LookupError(implementation)


def told(state: dict[str, Any], name: str) -> str:
    with pytest.raises(WeightsError) as error:
        weights.convert(state, name)
    return str(error.value)


# --- what is read


def flax_mixer(patch: int, tokens: int, width: int, depth: int, classes: int) -> dict[str, Any]:
    """Random weights as the JAX code names them: Dense kernels (inputs, outputs), convolutions (rows, columns, I, O)."""
    shapes: dict[str, tuple[int, ...]] = {"stem/kernel": (patch, patch, 3, width), "stem/bias": (width,)}
    for block in range(depth):
        for mlp, size, hidden in (("token_mixing", tokens, width // 2), ("channel_mixing", width, 4 * width)):
            for dense, (inputs, outputs) in enumerate([(size, hidden), (hidden, size)]):
                shapes[f"MixerBlock_{block}/{mlp}/Dense_{dense}/kernel"] = (inputs, outputs)
                shapes[f"MixerBlock_{block}/{mlp}/Dense_{dense}/bias"] = (outputs,)
        for norm in (0, 1):
            shapes[f"MixerBlock_{block}/LayerNorm_{norm}/scale"] = (width,)
            shapes[f"MixerBlock_{block}/LayerNorm_{norm}/bias"] = (width,)
    shapes |= {"pre_head_layer_norm/scale": (width,), "pre_head_layer_norm/bias": (width,)}
    shapes |= {"head/kernel": (width, classes), "head/bias": (classes,)}
    rng = np.random.default_rng(0)
    return {
        key: (rng.standard_normal(shape) / max(1, np.prod(shape[:-1])) ** 0.5).astype(np.float32)
        for key, shape in shapes.items()
    }


def flax_forward(weights: dict[str, Any], image: Any, depth: int) -> Any:
    """What the JAX code computes of one image (rows, columns, 3), in numpy."""

    def mlp(x: Any, name: str) -> Any:
        hidden = x @ weights[f"{name}/Dense_0/kernel"] + weights[f"{name}/Dense_0/bias"]
        hidden = hidden * 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
        return hidden @ weights[f"{name}/Dense_1/kernel"] + weights[f"{name}/Dense_1/bias"]

    def norm(x: Any, name: str) -> Any:
        scale_and_shift = {"n.weight": weights[f"{name}/scale"], "n.bias": weights[f"{name}/bias"]}
        return by_hand.layer_norm(x, scale_and_shift, "n", eps=1e-6)

    kernel = weights["stem/kernel"]
    patch, side = len(kernel), len(image) // len(kernel)
    cut = image.reshape(side, patch, side, patch, 3)
    x = np.einsum("hpwqc,pqcd->hwd", cut, kernel).reshape(side * side, -1) + weights["stem/bias"]
    for block in range(depth):
        name = f"MixerBlock_{block}"
        x = x + mlp(norm(x, f"{name}/LayerNorm_0").T, f"{name}/token_mixing").T
        x = x + mlp(norm(x, f"{name}/LayerNorm_1"), f"{name}/channel_mixing")
    return norm(x, "pre_head_layer_norm").mean(0) @ weights["head/kernel"] + weights["head/bias"]


def test_the_npz_of_the_jax_code_gives_its_outputs(tmp_path: Path) -> None:
    theirs = flax_mixer(patch=32, tokens=49, width=512, depth=8, classes=21)
    np.savez(tmp_path / "Mixer-S_32.npz", **theirs)
    ours = weights.load(tmp_path / "Mixer-S_32.npz", "mixer_s32_tanh")
    network = build(papers.architecture("mixer_s32_tanh"), 224, classes=21).eval()
    network.load_state_dict(ours)
    image = goldens.images_of(224, count=1)
    expected = torch.from_numpy(flax_forward(theirs, image[0].permute(1, 2, 0).numpy(), depth=8))
    with torch.no_grad():
        assert goldens.deviations(network(image)[0], expected) < 1e-4


def test_a_head_of_other_classes_is_taken_as_it_is() -> None:
    state = state_of("resmlp_s12", "deit") | {"head.weight": torch.ones(7, 384), "head.bias": torch.ones(7)}
    ours = weights.convert(state, "resmlp_s12")
    with torch.device("meta"):
        shapes = {key: v.shape for key, v in build(papers.architecture("resmlp_s12"), 224, 7).state_dict().items()}
    assert {key: entry.shape for key, entry in ours.items()} == shapes


@pytest.mark.parametrize("implementation", ["deit", "timm"])
def test_the_keys_tell_whose_weights_they_are(implementation: str) -> None:
    state = state_of("resmlp_s12", implementation)
    key = {"deit": "blocks.3.gamma_2", "timm": "blocks.3.ls2"}[implementation]
    state[key] += 5
    assert weights.convert(state, "resmlp_s12")["blocks.3.channel.scale"].eq(5).all()


NEVER_PUBLISHED = ("classmlp", "comm_tokenmlp4", "comm_conv3", "comm_dw", "wsum", "external_attention_unit")


@pytest.mark.parametrize(
    "family", ["mixer", "resmlp", "ffonly", "eamlp", "smlpnet", "gmlp", "repmlp", "cycle", "spach"]
)
def test_every_network_with_public_code_has_a_source_of_weights(family: str) -> None:
    names = [name for name in papers.NAMES if name.startswith(family) and not any(n in name for n in NEVER_PUBLISHED)]
    assert names
    for name in names:
        assert readings({}, papers.architecture(name), papers.paper(name).resolution)


# --- what does not fit


def test_all_entries_that_are_wrong_are_named_in_one_error() -> None:
    state = state_of("resmlp_s12", "deit")
    state["blocks.0.attn.wait"] = state.pop("blocks.0.attn.weight")
    state["blocks.7.mlp.fc2.weight"] = torch.zeros(1536, 384)
    state["extra"] = torch.zeros(3)
    del state["norm.beta"]
    assert told(state, "resmlp_s12").splitlines() == [
        "resmlp_s12: these weights do not fit, read as facebookresearch/deit has it",
        "  unknown: blocks.0.attn.wait (196, 196)",
        "  unknown: extra (3)",
        "  missing: blocks.0.attn.weight (196, 196)",
        "  misshapen: blocks.7.mlp.fc2.weight is (1536, 384), expected (384, 1536)",
        "  missing: norm.beta (384)",
    ]


@pytest.mark.parametrize(
    ("found", "asked", "advice"),
    [
        ("resmlp_s24", "resmlp_s12", 'give its name, "resmlp_s24"'),
        ("smlpnet_tiny", "smlpnet_small", 'give its name, "smlpnet_tiny"'),
        ("eamlp_7_384", "eamlp_7", 'give its name, "eamlp_7_384"'),
        ("spach_ms_xxs_conv", "cyclemlp_b1", 'give its name, "spach_ms_xxs_conv"'),
        ("mixer_s16", "mixer_s32", 'give its name, "mixer_s16" or "mixer_s16_tanh"'),
    ],
)
def test_weights_of_another_network_are_told_by_its_name(found: str, asked: str, advice: str) -> None:
    assert advice in told(state_of(found), asked).splitlines()[0]


def test_weights_for_other_images_are_told() -> None:
    message = told(state_of("gmlp_ti16", resolution=384), "gmlp_ti16")
    assert "they are for 384 x 384 pixels, and gmlp_ti16 is read at 224 x 224" in message


def test_our_own_weights_are_told() -> None:
    with torch.device("meta"):
        ours = build(papers.architecture(SMALL), 224, 1000).state_dict()
    assert "they are ours already: give them to load_state_dict as they are" in told(ours, SMALL)


@pytest.mark.parametrize("name", ["resmlp_s12_classmlp", "resmlp_s12_comm_conv3", "external_attention_unit_512"])
def test_a_network_without_public_code_has_no_weights_to_read(name: str) -> None:
    assert told({}, name) == f"{name}: no public code has a network of its parts, so there are no weights to read"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("repmlpnet_t224", "stages.0.0.repmlp_block.fc3.bias"),
        ("repmlp_res50_light", "stage2.1.light_repmlp.fc3.bias"),
    ],
)
def test_merged_weights_are_refused(name: str, key: str) -> None:
    message = told(state_of(name) | {key: torch.zeros(49)}, name)
    assert f"{key} is found in the merged (deploy) form only: give the weights as they were before merging" in message


def test_the_steps_of_cyclemlp_are_read_from_its_checkpoint() -> None:
    state = state_of("cyclemlp_b1")
    state["network.2.1.attn.sfc_w.offset"].view(-1, 2)[:3] = torch.tensor([[0.0, 0], [1, 0], [-1, 0]])  # down, right
    ours = weights.convert(state, "cyclemlp_b1")
    assert ours["blocks.4.token.mixer.columns.steps"][:4].tolist() == [[0, 0], [1, 0], [-1, 0], [0, 0]]


def test_what_is_no_tensor_is_told() -> None:
    assert told({"model": {}}, SMALL) == "model is no tensor but a dict: give the state dict itself"
    array = np.zeros(3, dtype=np.dtype("V2"))
    assert told({"head.bias": array}, SMALL) == "head.bias is an array of |V2, for which torch has no type"


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ArchitectureError, match='Did you mean "mixer_s16"'):
        weights.convert({}, "mixer_s116")


# --- files


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return state_of(SMALL) | {"head.bias": torch.arange(1000.0)}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 299, "args": argparse.Namespace(lr=1e-3)},
        lambda state: {"state_dict": {f"module.{key}": entry for key, entry in state.items()}, "arch": "spach"},
        lambda state: {"model_ema": state},
    ],
    ids=["bare", "model", "state_dict and module", "averaged alone"],
)
@pytest.mark.parametrize("ending", [".pth", ".pth.tar"])
def test_a_checkpoint_is_unwrapped(state: dict[str, Tensor], wrapped: Any, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"spach{ending}"
    torch.save(wrapped(state), path)
    ours = weights.load(path, SMALL)
    assert torch.equal(ours["head.linear.bias"], torch.arange(1000.0))
    with torch.device("meta"):
        assert ours.keys() == build(papers.architecture(SMALL), 224, 1000).state_dict().keys()


def test_averaged_weights_are_taken_on_request(state: dict[str, Tensor], tmp_path: Path) -> None:
    averaged = state | {"head.bias": torch.full((1000,), 5.0)}
    torch.save({"model": state, "model_ema": averaged}, tmp_path / "both.pth")
    assert weights.load(tmp_path / "both.pth", SMALL)["head.linear.bias"][7] == 7
    assert weights.load(tmp_path / "both.pth", SMALL, ema=True)["head.linear.bias"][7] == 5
    torch.save({"model": state}, tmp_path / "last.pth")
    with pytest.raises(WeightsError, match="it holds model, and averaged weights would be under model_ema"):
        weights.load(tmp_path / "last.pth", SMALL, ema=True)


def safetensors(tensors: dict[str, Tensor], **changed: Any) -> bytes:
    """A file of that format: the header's length in 8 bytes, the header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    numbers = b""
    for key, tensor in tensors.items():
        content = tensor.numpy().tobytes()
        offsets = [len(numbers), len(numbers) + len(content)]
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets} | changed
        numbers += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def test_a_safetensors_file_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "spach.safetensors").write_bytes(safetensors(state))
    ours = weights.load(tmp_path / "spach.safetensors", SMALL)
    expected = weights.convert(state, SMALL)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in ours)


def test_a_safetensors_file_of_the_library_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    half = {key: tensor.to(torch.bfloat16) for key, tensor in state.items()}
    library.save_file(half, tmp_path / "spach.safetensors")
    assert torch.equal(weights.load(tmp_path / "spach.safetensors", SMALL)["head.linear.bias"], half["head.bias"])


def sentence(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        weights.load(path, SMALL)
    return str(error.value).removeprefix(f"{path}: ")


class Executing:
    """Pickled, it makes a folder where it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_refused_and_not_executed(state: dict[str, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "executed"
    torch.save({"model": state, "extra": Executing(folder)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Executing(folder), protocol=2))
    np.savez(tmp_path / "evil.npz", head=np.array([Executing(folder)], dtype=object))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Executing(folder)))
    for name, word in [
        ("evil.pth", "execute code"),
        ("evil.pt", "execute code"),
        ("evil.npz", "execute code"),
        ("pickle.npz", "no .npz"),
    ]:
        assert word in sentence(tmp_path / name)
        assert not folder.exists()
    with pytest.raises(
        WeightsError, match=r"evil.pth: it holds a pickled posix.mkdir, and reading that can execute code"
    ):
        weights.load(tmp_path / "evil.pth", SMALL)
    pickle.loads(pickle.dumps(Executing(folder)))
    assert folder.exists()  # so it would have


def test_a_truncated_file_is_told(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", **{key: tensor.numpy() for key, tensor in state.items()})
    (tmp_path / "a.safetensors").write_bytes(safetensors(state))
    starts = {
        "a.pth": "torch cannot read it, it is broken or no file of torch's",
        "a.npz": "it is broken or no .npz",
        "a.safetensors": "it ends ",
    }
    for name, start in starts.items():
        whole = (tmp_path / name).read_bytes()
        for kept in (len(whole) // 2, 100, 3, 0):
            (tmp_path / name).write_bytes(whole[:kept])
            assert sentence(tmp_path / name).startswith(start)
            assert "\n" not in sentence(tmp_path / name)


def test_a_broken_safetensors_header_is_told(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    one = {"head.bias": state["head.bias"]}
    for changed, start in [
        ({"dtype": "F8"}, "it holds numbers of type F8, and F64, F32"),
        ({"shape": [7]}, "its header is none of a .safetensors, or is broken (4000 bytes for a shape of [7])"),
        ({"data_offsets": [-4, 3996]}, "its header is none of a .safetensors, or is broken"),
        ({"data_offsets": [8, 4008]}, "it ends 8 bytes before its tensors do"),
        ({"shape": "abc"}, "its header is none of a .safetensors, or is broken"),
        ({"data_offsets": [0]}, "its header is none of a .safetensors, or is broken"),
    ]:
        path.write_bytes(safetensors(one, **changed))
        assert sentence(path).startswith(start)
    path.write_bytes((7).to_bytes(8, "little") + b"no json" + bytes(99))
    assert sentence(path).startswith("its header is none of a .safetensors, or is broken")
    path.write_bytes((2**63).to_bytes(8, "little") + bytes(99))
    assert sentence(path) == "it ends before its header does, it is broken or no .safetensors"


def test_what_is_no_file_of_weights_is_told(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    assert sentence(tmp_path / "list.pth").startswith("it holds a list, and a state dict is needed")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "log.pth")
    assert sentence(tmp_path / "log.pth") == (
        "it holds epoch, loss, and a state dict is needed, alone or under model, state_dict, model_state_dict, "
        "model_ema, state_dict_ema, ema"
    )
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>404</title>")
    assert sentence(tmp_path / "page.pth").startswith("torch cannot read it, it is broken or no file of torch's")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    assert (
        sentence(tmp_path / "array.npz") == "it is broken or no .npz, which is an archive of arrays under their names"
    )
    assert sentence(tmp_path / "none.pth") == "there is no such file"
    assert sentence(tmp_path / "weights.h5") == (
        "weights are read from files that end in .pth, .pt, .tar, .bin, .ckpt, .npz, .safetensors"
    )
