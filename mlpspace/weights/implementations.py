"""The implementations whose checkpoints are read, and what each calls our parts.

A row of `parts` says where one of our modules, or one tensor, is there. On the left is what stands in a block,
merging, stem or head of ours, a mixer or stem named by its kind: `dense.expand` is the module `expand` of the token
mixer `dense`. On the right is the key there, `{}` being the number of the block or merging, and a form where its
tensors lie otherwise. What has no row does not exist there: a network with such a part has no weights from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mlpspace.weights.forms import (
    BATCHED,
    CHANNELS,
    KERNEL,
    MATRICES,
    PATCH_KERNEL,
    PATCHES,
    POINTWISE,
    POSITIONS,
    STEPS,
    WINDOWS,
    Part,
)

Parts: TypeAlias = Mapping[str, str | Part]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block stands, all from 0: among all blocks, at which map of the pyramid, among the blocks there."""

    number: int
    map: int
    within: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """One implementation: `block` and `merging` number them as it does, a merging told by the map that comes out."""

    name: str
    parts: Parts
    block: Callable[[Place], str] = lambda at: str(at.number)
    merging: Callable[[int], str] = str
    merged_mark: str | None = None  # the end of a key that only the merged (deploy) form has


MIXER_TIMM = Implementation(
    name="timm",
    parts={
        "patches.project": PATCHES.of("stem.proj"),
        "token.norm": "blocks.{}.norm1",
        "dense.expand": "blocks.{}.mlp_tokens.fc1",
        "dense.project": "blocks.{}.mlp_tokens.fc2",
        "channel.norm": "blocks.{}.norm2",
        "mlp.expand": "blocks.{}.mlp_channels.fc1",
        "mlp.project": "blocks.{}.mlp_channels.fc2",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

MIXER_FLAX = Implementation(
    name="google-research/vision_transformer",
    parts={
        "patches.project.weight": PATCH_KERNEL.of("stem/kernel"),
        "patches.project.bias": "stem/bias",
        "token.norm.weight": "MixerBlock_{}/LayerNorm_0/scale",
        "token.norm.bias": "MixerBlock_{}/LayerNorm_0/bias",
        "dense.expand.weight": KERNEL.of("MixerBlock_{}/token_mixing/Dense_0/kernel"),
        "dense.expand.bias": "MixerBlock_{}/token_mixing/Dense_0/bias",
        "dense.project.weight": KERNEL.of("MixerBlock_{}/token_mixing/Dense_1/kernel"),
        "dense.project.bias": "MixerBlock_{}/token_mixing/Dense_1/bias",
        "channel.norm.weight": "MixerBlock_{}/LayerNorm_1/scale",
        "channel.norm.bias": "MixerBlock_{}/LayerNorm_1/bias",
        "mlp.expand.weight": KERNEL.of("MixerBlock_{}/channel_mixing/Dense_0/kernel"),
        "mlp.expand.bias": "MixerBlock_{}/channel_mixing/Dense_0/bias",
        "mlp.project.weight": KERNEL.of("MixerBlock_{}/channel_mixing/Dense_1/kernel"),
        "mlp.project.bias": "MixerBlock_{}/channel_mixing/Dense_1/bias",
        "head.norm.weight": "pre_head_layer_norm/scale",
        "head.norm.bias": "pre_head_layer_norm/bias",
        "head.linear.weight": KERNEL.of("head/kernel"),
        "head.linear.bias": "head/bias",
    },
)

RESMLP_DEIT = Implementation(
    name="facebookresearch/deit",
    parts={
        "patches.project": PATCHES.of("patch_embed.proj"),
        "token.norm": "blocks.{}.norm1",
        "linear.linear": "blocks.{}.attn",
        "token.scale": "blocks.{}.gamma_1",
        "channel.norm": "blocks.{}.norm2",
        "mlp.expand": "blocks.{}.mlp.fc1",
        "mlp.project": "blocks.{}.mlp.fc2",
        "channel.scale": "blocks.{}.gamma_2",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

RESMLP_TIMM = Implementation(
    name="timm",
    parts={
        "patches.project": PATCHES.of("stem.proj"),
        "token.norm": CHANNELS.of("blocks.{}.norm1"),
        "linear.linear": "blocks.{}.linear_tokens",
        "token.scale": "blocks.{}.ls1",
        "channel.norm": CHANNELS.of("blocks.{}.norm2"),
        "mlp.expand": "blocks.{}.mlp_channels.fc1",
        "mlp.project": "blocks.{}.mlp_channels.fc2",
        "channel.scale": "blocks.{}.ls2",
        "head.norm": CHANNELS.of("norm"),
        "head.linear": "head",
    },
)

GMLP_TIMM = Implementation(
    name="timm",
    parts={
        "patches.project": PATCHES.of("stem.proj"),
        "channel.norm": "blocks.{}.norm",
        "gating.expand": "blocks.{}.mlp_channels.fc1",
        "gating.norm": "blocks.{}.mlp_channels.gate.norm",
        "gating.tokens": "blocks.{}.mlp_channels.gate.proj",
        "gating.project": "blocks.{}.mlp_channels.fc2",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

FEED_FORWARD = Implementation(
    name="lukemelas/do-you-even-need-attention",
    parts={
        "patches.project": PATCHES.of("patch_embed.proj"),
        "entry.token": CHANNELS.of("cls_token"),
        "entry.token_position": CHANNELS.of("pos_encoding.cls_pos_embed"),
        "entry.positions": POSITIONS.of("pos_encoding.pos_embed"),
        "channel.norm": "blocks.{}.norm1",
        "mlp.expand": "blocks.{}.mlp1.fc1",
        "mlp.project": "blocks.{}.mlp1.fc2",
        "token.norm.norm": "blocks.{}.norm2",
        "dense_by_tokens.expand": "blocks.{}.mlp2.fc1",
        "dense_by_tokens.project": "blocks.{}.mlp2.fc2",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

EAMLP = Implementation(
    name="MenghaoGuo/EANet",
    parts={
        "tokens_to_token.first.norm": "tokens_to_token.attention1.norm1",
        "tokens_to_token.first.query": "tokens_to_token.attention1.attn.q_linear",
        "tokens_to_token.first.key": "tokens_to_token.attention1.attn.linear_0",
        "tokens_to_token.first.value": "tokens_to_token.attention1.attn.linear_1",
        "tokens_to_token.first.project": "tokens_to_token.attention1.attn.proj",
        "tokens_to_token.first.mlp_norm": "tokens_to_token.attention1.norm2",
        "tokens_to_token.first.mlp.0": "tokens_to_token.attention1.mlp.fc1",
        "tokens_to_token.first.mlp.2": "tokens_to_token.attention1.mlp.fc2",
        "tokens_to_token.second.norm": "tokens_to_token.attention2.norm1",
        "tokens_to_token.second.query": "tokens_to_token.attention2.attn.q_linear",
        "tokens_to_token.second.key": "tokens_to_token.attention2.attn.linear_0",
        "tokens_to_token.second.value": "tokens_to_token.attention2.attn.linear_1",
        "tokens_to_token.second.project": "tokens_to_token.attention2.attn.proj",
        "tokens_to_token.second.mlp_norm": "tokens_to_token.attention2.norm2",
        "tokens_to_token.second.mlp.0": "tokens_to_token.attention2.mlp.fc1",
        "tokens_to_token.second.mlp.2": "tokens_to_token.attention2.mlp.fc2",
        "tokens_to_token.project": "tokens_to_token.project",
        "entry.token": CHANNELS.of("cls_token"),
        "entry.positions": BATCHED.of("pos_embed"),
        "token.norm": "blocks.{}.norm1",
        "external_attention.query": "blocks.{}.attn.trans_dims",
        "external_attention.key": "blocks.{}.attn.linear_0",
        "external_attention.value": "blocks.{}.attn.linear_1",
        "external_attention.project": "blocks.{}.attn.proj",
        "channel.norm": "blocks.{}.norm2",
        "mlp.expand": "blocks.{}.mlp.fc1",
        "mlp.project": "blocks.{}.mlp.fc2",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

SMLPNET = Implementation(
    name="microsoft/SPACH",
    parts={
        "patches.project": PATCHES.of("to_patch_embedding.0.0"),
        "merging.project": WINDOWS.of("to_patch_embedding.{}.0"),
        "local.norm": "token_mix.{}.0.conv_merge.BN",
        "local.conv": "token_mix.{}.0.conv_merge.Conv",
        "axial.local.norm": "token_mix.{}.0.conv_merge.BN",
        "axial.local.conv": "token_mix.{}.0.conv_merge.Conv",
        "axial.norm": "token_mix.{}.1.BN",
        "axial.rows": POINTWISE.of("token_mix.{}.1.proj_h"),  # along the width, whatever its name says
        "axial.columns": POINTWISE.of("token_mix.{}.1.proh_w"),
        "axial.fuse": POINTWISE.of("token_mix.{}.1.fuse"),
        "channel.norm": "channel_mix.{}.1",
        "mlp.expand": "channel_mix.{}.2.net.0",
        "mlp.project": "channel_mix.{}.2.net.3",
        "head.norm": "batch_norm",
        "head.linear": "mlp_head.0",
    },
)

_SPACH: Parts = {
    "normed_patches.project": PATCHES.of("stem.proj"),
    "normed_patches.norm": "norm1",
    "conv_patches.convs.0.conv": "stem.proj.0",
    "conv_patches.convs.0.norm": "stem.proj.1",
    "conv_patches.convs.1.conv": "stem.proj.3",
    "conv_patches.convs.1.norm": "stem.proj.4",
    "conv_patches.convs.2.conv": "stem.proj.6",
    "conv_patches.convs.2.norm": "stem.proj.7",
    "conv_patches.project": "stem.proj.9",
    "conv_patches.norm": "norm1",
    "token.norm": "{}.norm1",
    "dense_by_tokens.expand": "{}.spatial_func.fc1",
    "dense_by_tokens.project": "{}.spatial_func.fc2",
    "attention.qkv": "{}.spatial_func.qkv",
    "attention.project": "{}.spatial_func.proj",
    "token.scale": CHANNELS.of("{}.gamma_1"),
    "depthwise": "{}.cpe_net.net.1",
    "channel.norm": "{}.norm2",
    "mlp.expand": "{}.channel_func.fc1",
    "mlp.project": "{}.channel_func.fc2",
    "head.norm": "norm2",
    "head.linear": "head",
}

SPACH = Implementation(name="microsoft/SPACH", parts=_SPACH, block=lambda at: f"blocks.{at.number}")

SPACH_MS = Implementation(
    name="microsoft/SPACH",
    parts={**_SPACH, "merging.project": WINDOWS.of("{}.net.1.0"), "merging.norm": "{}.net.1.1"},
    block=lambda at: f"layer{at.map + 1}.{at.within + (at.map > 0)}",  # a later map's first entry is the merging
    merging=lambda map: f"layer{map + 1}.0",
)

REPMLPNET = Implementation(
    name="DingXiaoH/RepMLP",
    block=lambda at: f"{at.map}.{at.within}",
    merging=lambda map: str(map - 1),
    merged_mark=".fc3.bias",
    parts={
        "batch_norm_patches.project": PATCHES.of("conv_embedding.conv"),
        "batch_norm_patches.norm": "conv_embedding.bn",
        "token.norm": "stages.{}.prebn1",
        "repmlp.gate.reduce": POINTWISE.of("stages.{}.repmlp_block.gp.fc1"),
        "repmlp.gate.expand": POINTWISE.of("stages.{}.repmlp_block.gp.fc2"),
        "repmlp.matrix": MATRICES.of("stages.{}.repmlp_block.fc3"),
        "repmlp.norm": "stages.{}.repmlp_block.fc3_bn",
        "repmlp.convs.0": "stages.{}.repmlp_block.repconv1.conv",
        "repmlp.convs.0.norm": "stages.{}.repmlp_block.repconv1.bn",
        "repmlp.convs.1": "stages.{}.repmlp_block.repconv3.conv",
        "repmlp.convs.1.norm": "stages.{}.repmlp_block.repconv3.bn",
        "channel.norm": "stages.{}.prebn2",
        "normed_mlp.expand": POINTWISE.of("stages.{}.ffn_block.ffn_fc1.conv"),
        "normed_mlp.expand_norm": "stages.{}.ffn_block.ffn_fc1.bn",
        "normed_mlp.project": POINTWISE.of("stages.{}.ffn_block.ffn_fc2.conv"),
        "normed_mlp.project_norm": "stages.{}.ffn_block.ffn_fc2.bn",
        "merging.project": WINDOWS.of("embeds.{}.conv"),
        "merging.norm": "embeds.{}.bn",
        "head.norm": "head_norm",
        "head.linear": "head",
    },
)


def _conv_norm(ours: str, theirs: str) -> Parts:
    return {f"{ours}.conv": f"{theirs}.conv", f"{ours}.norm": f"{theirs}.bn"}


def _window_repmlp(ours: str, theirs: str) -> Parts:
    return {
        f"{ours}.mean_norm": f"{theirs}.avg.bn",
        f"{ours}.exchange.0": f"{theirs}.fc1_fc2.fc1",
        f"{ours}.exchange.2": f"{theirs}.fc1_fc2.fc2",
        f"{ours}.matrix": MATRICES.of(f"{theirs}.fc3"),
        f"{ours}.norm": f"{theirs}.fc3_bn",
        **_conv_norm(f"{ours}.convs.0", f"{theirs}.repconv1"),
        **_conv_norm(f"{ours}.convs.1", f"{theirs}.repconv3"),
        **_conv_norm(f"{ours}.convs.2", f"{theirs}.repconv5"),
    }


def _projecting_bottleneck(ours: str, theirs: str) -> Parts:
    return {
        **_conv_norm(f"{ours}.shortcut", f"{theirs}.shortcut"),
        **_conv_norm(f"{ours}.reduce", f"{theirs}.conv1"),
        **_conv_norm(f"{ours}.mix", f"{theirs}.conv2"),
        **_conv_norm(f"{ours}.expand", f"{theirs}.conv3"),
    }


REPMLP_RESNET = Implementation(
    name="DingXiaoH/RepMLP (the code of 2021)",
    block=lambda at: (
        f"{at.map + 1}.{at.within + 1}"
    ),  # the first entry of each is our stem's bottleneck, or the merging
    merging=lambda map: f"{map + 1}.0",
    merged_mark=".fc3.bias",
    parts={
        **_conv_norm("resnet.conv", "stage0.0"),
        **_projecting_bottleneck("resnet.block", "stage1.0"),
        **_projecting_bottleneck("merging", "stage{}"),
        **_conv_norm("bottleneck.reduce", "stage{}.conv1"),
        **_conv_norm("bottleneck.mix", "stage{}.conv2"),
        **_conv_norm("bottleneck.expand", "stage{}.conv3"),
        **_conv_norm("repmlp_light.reduce", "stage{}.light_conv1"),
        **_window_repmlp("repmlp_light.repmlp", "stage{}.light_repmlp"),
        **_conv_norm("repmlp_light.expand", "stage{}.light_conv3"),
        **_conv_norm("repmlp_bottleneck.reduce", "stage{}.btnk_conv1"),
        **_conv_norm("repmlp_bottleneck.narrow", "stage{}.btnk_conv2"),
        **_window_repmlp("repmlp_bottleneck.repmlp", "stage{}.btnk_repmlp"),
        **_conv_norm("repmlp_bottleneck.widen", "stage{}.btnk_conv4"),
        **_conv_norm("repmlp_bottleneck.expand", "stage{}.btnk_conv5"),
        "head.linear": "linear",
    },
)


CYCLEMLP = Implementation(
    name="ShoufaChen/CycleMLP",
    block=lambda at: f"{2 * at.map}.{at.within}",  # maps and mergings in turn
    merging=lambda map: str(2 * map - 1),
    parts={
        "overlapping_patches.conv": "patch_embed.proj",
        "token.norm": "network.{}.norm1",
        "cycle.rows": POINTWISE.of("network.{}.attn.sfc_h"),
        "cycle.rows.steps": STEPS.of("network.{}.attn.sfc_h.offset"),
        "cycle.columns": POINTWISE.of("network.{}.attn.sfc_w"),
        "cycle.columns.steps": STEPS.of("network.{}.attn.sfc_w.offset"),
        "cycle.place": "network.{}.attn.mlp_c",
        "cycle.reweight.0": "network.{}.attn.reweight.fc1",
        "cycle.reweight.2": "network.{}.attn.reweight.fc2",
        "cycle.project": "network.{}.attn.proj",
        "channel.norm": "network.{}.norm2",
        "mlp.expand": "network.{}.mlp.fc1",
        "mlp.project": "network.{}.mlp.fc2",
        "merging.conv": "network.{}.proj",
        "head.norm": "norm",
        "head.linear": "head",
    },
)

TIMM = Implementation(name="timm", parts={})  # of the networks that it builds for us, every part is called as there

IMPLEMENTATIONS: tuple[Implementation, ...] = (
    MIXER_TIMM,
    MIXER_FLAX,
    RESMLP_DEIT,
    RESMLP_TIMM,
    GMLP_TIMM,
    FEED_FORWARD,
    EAMLP,
    SMLPNET,
    SPACH,
    SPACH_MS,
    REPMLPNET,
    REPMLP_RESNET,
    CYCLEMLP,
)
