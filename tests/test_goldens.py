"""Our published networks put out what the official code puts out, for the same weights and images.

The outputs of the official code lie in the folder of reference data beside the checkout; weights and images follow
from a rule, so they need not be stored.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlpspace import papers
from mlpspace.nets import build, deploy

GOLDENS = Path(__file__).parents[2] / "shared" / "reference" / "goldens"

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="the reference data are not beside this checkout")

# Official key -> ours, as regular expressions; the first that matches the whole key counts.
MIXER = {  # timm
    r"stem\.proj\.(.*)": r"stem.project.\1",
    r"blocks\.(\d+)\.norm1\.(.*)": r"blocks.\1.token.norm.\2",
    r"blocks\.(\d+)\.mlp_tokens\.fc1\.(.*)": r"blocks.\1.token.mixer.expand.\2",
    r"blocks\.(\d+)\.mlp_tokens\.fc2\.(.*)": r"blocks.\1.token.mixer.project.\2",
    r"blocks\.(\d+)\.norm2\.(.*)": r"blocks.\1.channel.norm.\2",
    r"blocks\.(\d+)\.mlp_channels\.fc1\.(.*)": r"blocks.\1.channel.mixer.expand.\2",
    r"blocks\.(\d+)\.mlp_channels\.fc2\.(.*)": r"blocks.\1.channel.mixer.project.\2",
    r"norm\.(.*)": r"head.norm.\1",
    r"head\.(.*)": r"head.linear.\1",
}
RESMLP = {  # facebookresearch/deit
    r"patch_embed\.proj\.(.*)": r"stem.project.\1",
    r"blocks\.(\d+)\.gamma_1": r"blocks.\1.token.scale",
    r"blocks\.(\d+)\.gamma_2": r"blocks.\1.channel.scale",
    r"blocks\.(\d+)\.norm1\.(.*)": r"blocks.\1.token.norm.\2",
    r"blocks\.(\d+)\.attn\.(.*)": r"blocks.\1.token.mixer.linear.\2",
    r"blocks\.(\d+)\.norm2\.(.*)": r"blocks.\1.channel.norm.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(.*)": r"blocks.\1.channel.mixer.expand.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(.*)": r"blocks.\1.channel.mixer.project.\2",
    r"norm\.(.*)": r"head.norm.\1",
    r"head\.(.*)": r"head.linear.\1",
}
SMLPNET = {  # microsoft/SPACH; proj_h maps along the width and proh_w [sic] along the height
    r"to_patch_embedding\.0\.0\.(.*)": r"stem.project.\1",
    r"to_patch_embedding\.([123])\.0\.(.*)": r"merging.\1.project.\2",
    r"token_mix\.(\d+)\.0\.conv_merge\.BN\.(.*)": r"block.\1.token.mixer.local.norm.\2",
    r"token_mix\.(\d+)\.0\.conv_merge\.Conv\.(.*)": r"block.\1.token.mixer.local.conv.\2",
    r"token_mix\.(\d+)\.1\.BN\.(.*)": r"block.\1.token.mixer.norm.\2",
    r"token_mix\.(\d+)\.1\.proj_h\.(.*)": r"block.\1.token.mixer.rows.\2",
    r"token_mix\.(\d+)\.1\.proh_w\.(.*)": r"block.\1.token.mixer.columns.\2",
    r"token_mix\.(\d+)\.1\.fuse\.(.*)": r"block.\1.token.mixer.fuse.\2",
    r"channel_mix\.(\d+)\.1\.(.*)": r"block.\1.channel.norm.\2",
    r"channel_mix\.(\d+)\.2\.net\.0\.(.*)": r"block.\1.channel.mixer.expand.\2",
    r"channel_mix\.(\d+)\.2\.net\.3\.(.*)": r"block.\1.channel.mixer.project.\2",
    r"batch_norm\.(.*)": r"head.norm.\1",
    r"mlp_head\.0\.(.*)": r"head.linear.\1",
}
EAMLP = {  # MenghaoGuo/EANet; our stem holds the T2T module and, after it, the class token
    r"cls_token": "stem.1.token",
    r"pos_embed": "stem.1.positions",
    r"tokens_to_token\.attention1\.(.*)": r"stem.0.first.\1",
    r"tokens_to_token\.attention2\.(.*)": r"stem.0.second.\1",
    r"tokens_to_token\.project\.(.*)": r"stem.0.project.\1",
    r"blocks\.(\d+)\.norm1\.(.*)": r"blocks.\1.token.norm.\2",
    r"blocks\.(\d+)\.attn\.trans_dims\.(.*)": r"blocks.\1.token.mixer.query.\2",
    r"blocks\.(\d+)\.attn\.linear_0\.(.*)": r"blocks.\1.token.mixer.key.\2",
    r"blocks\.(\d+)\.attn\.linear_1\.(.*)": r"blocks.\1.token.mixer.value.\2",
    r"blocks\.(\d+)\.attn\.proj\.(.*)": r"blocks.\1.token.mixer.project.\2",
    r"blocks\.(\d+)\.norm2\.(.*)": r"blocks.\1.channel.norm.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(.*)": r"blocks.\1.channel.mixer.expand.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(.*)": r"blocks.\1.channel.mixer.project.\2",
    r"norm\.(.*)": r"head.norm.\1",
    r"head\.(.*)": r"head.linear.\1",
}
T2T_BLOCK = {
    "attn.q_linear": "query",
    "attn.linear_0": "key",
    "attn.linear_1": "value",
    "attn.proj": "project",
    "norm1": "norm",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
LAYER_NORM_EPS = {"smlpnet_tiny": 1e-5, "eamlp_7": 1e-5}  # torch's default; ours is 1e-6 everywhere, as in MLP-Mixer
KEYS = {"mixer_s32": MIXER, "resmlp_s12": RESMLP, "smlpnet_tiny": SMLPNET, "eamlp_7": EAMLP}


def our_key(name: str, key: str) -> str:
    """Where the official entry `key` of the network `name` is in ours."""
    pattern, replacement = next((p, r) for p, r in KEYS[name].items() if re.fullmatch(p, key))
    ours = re.fullmatch(pattern, key).expand(replacement)  # type: ignore[union-attr]
    if ours.startswith(("stem.0.first", "stem.0.second")):
        for official, inside in T2T_BLOCK.items():
            ours = ours.replace(official, inside)
    if name == "smlpnet_tiny" and ours.startswith(("block.", "merging.")):  # ours stand in one row with the mergings
        depths = [stage.depth for stage in papers.get(name).stages]
        kind, number, rest = ours.split(".", 2)
        if kind == "merging":
            row = sum(depths[: int(number)]) + int(number) - 1
        else:
            row = int(number) + next(s for s in range(4) if int(number) < sum(depths[: s + 1]))
        ours = f"blocks.{row}.{rest}"
    return ours


def drawn(key: str, shape: list[int]) -> np.ndarray[Any, Any]:
    """The entry that the rule of the goldens gives."""
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape, dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 0.75 + 0.25 * np.tanh(n)
    if leaf in ("ls1", "ls2") or leaf.startswith("gamma"):
        return 0.3 + 0.05 * n
    if leaf == "alpha" or (leaf == "weight" and len(shape) == 1):
        return 1 + 0.1 * n
    if len(shape) <= 1 or leaf in ("beta", "pos_embed", "cls_token", "cls_pos_embed"):
        return 0.1 * n
    return n / np.sqrt(np.prod(shape[1:]), dtype=np.float32)


def in_our_layout(value: Tensor, ours: Tensor, key: str) -> Tensor:
    """Convolution weights as the linear maps they are; our merging joins a window's tokens channels innermost."""
    if key.startswith("to_patch_embedding") and not key.startswith("to_patch_embedding.0"):
        value = value.permute(0, 2, 3, 1)
    return value.reshape(ours.shape)


@pytest.mark.parametrize("name", KEYS)
def test_logits_equal_those_of_the_official_code(name: str) -> None:
    golden = json.loads((GOLDENS / f"{name}.json").read_text())
    logits = np.load(GOLDENS / f"{name}.npz")
    side = golden["image_size"]
    network = build(papers.get(name), side, classes=1000).eval()

    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = LAYER_NORM_EPS.get(name, module.eps)

    state = network.state_dict()
    filled = {}
    for key, shape, _, value in golden["state"]:
        entry = torch.tensor(value) if value is not None else torch.from_numpy(drawn(key, shape).astype(np.float32))
        ours = our_key(name, key)
        filled[ours] = in_our_layout(entry, state[ours], key)
    assert filled.keys() == state.keys()  # each of ours is filled, by one of theirs
    assert len(filled) == len(golden["state"])
    network.load_state_dict(filled)
    assert sum(p.numel() for p in network.parameters()) == golden["params"]

    x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, side, side), dtype=np.float32)
    for form in (network, deploy(network)):
        for expected, image in ((logits["logits"], x), (logits["logits_rolled"], np.roll(x, 1, axis=-1))):
            with torch.no_grad():
                ours = form(torch.from_numpy(image)).numpy()
            assert np.abs(ours - expected).max() < 1e-4 * expected.std()
