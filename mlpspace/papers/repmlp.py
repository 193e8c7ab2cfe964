"""RepMLPNet, and RepMLP-Res50 of the first RepMLP paper."""

from __future__ import annotations

from mlpspace.architecture import (
    Architecture,
    BatchNormMerging,
    BatchNormPatches,
    Block,
    Bottleneck,
    BottleneckMerging,
    MeanHead,
    NoChannelMixer,
    NormedMlp,
    NoTokenMixer,
    PlainHead,
    RepMlp,
    RepMlpBottleneck,
    RepMlpLight,
    ResNetStem,
    Stage,
)
from mlpspace.papers.published import OFFICIAL, SCRATCH, Measured, Paper, Published, Source, measured_on


def _repmlpnet(
    name: str,
    resolution: int,
    width: int,
    depths: tuple[int, ...],
    share_sets: tuple[int, ...],
    published: tuple[float, float, float],
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
    unverified: str = "",
) -> Paper:
    stages = tuple(
        Stage(
            depth=depth,
            width=width * 2**i,
            token_mixer=RepMlp(share_sets=sets, kernel=3),
            channel_mixer=NormedMlp(ratio=4),
            norm="batch",
        )
        for i, (depth, sets) in enumerate(zip(depths, share_sets, strict=True))
    )
    return Paper(
        name=name,
        family="RepMLPNet",
        source=Source("arXiv:2112.11081", "DingXiaoH/RepMLP: repmlpnet.py"),
        architecture=Architecture(
            stem=BatchNormPatches(patch=4), stages=stages, merging=BatchNormMerging(), head=MeanHead(norm="batch")
        ),
        resolution=resolution,
        published=Published(
            params_m=published[0],
            macs_g=published[1],
            top1=published[2],
            top1_note=f"{SCRATCH}, the repository's own recipe",
            provenance="primary: the official README",
        ),
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=f"Printed counts are of the form that is trained. {notes}".strip(),
        unverified=unverified,
    )


_T, _B, _D, _L = (2, 2, 6, 2), (2, 2, 12, 2), (2, 2, 18, 2), (2, 2, 18, 2)

REPMLPNET = (
    _repmlpnet(
        "repmlpnet_t224", 224, 64, _T, (1, 4, 16, 128), (38.3, 2.8, 76.62), measured=(38_293_608, 2_807_987_200)
    ),
    _repmlpnet(
        "repmlpnet_t256",
        256,
        64,
        _T,
        (1, 4, 16, 128),
        (58.7, 4.2, 77.44),
        counted=(58_687_848, 4_258_078_720),
        notes="repmlpnet_t224 for larger images.",
    ),
    _repmlpnet(
        "repmlpnet_b224", 224, 96, _B, (1, 4, 32, 128), (68.2, 6.7, 80.32), measured=(68_242_712, 6_675_721_728)
    ),
    _repmlpnet(
        "repmlpnet_b256",
        256,
        96,
        _B,
        (1, 4, 32, 128),
        (96.5, 9.6, 81.03),
        counted=(96_447_512, 9_640_209_408),
        notes="repmlpnet_b224 for larger images.",
        unverified="The printed 96.5 M is 0.05 M above what the official code gives.",
    ),
    _repmlpnet(
        "repmlpnet_d256", 256, 80, _D, (1, 4, 16, 128), (86.9, 8.6, 80.83), measured=(86_887_648, 8_636_207_360)
    ),
    _repmlpnet(
        "repmlpnet_l256",
        256,
        96,
        _L,
        (1, 4, 32, 256),
        (117.7, 11.5, 81.68),
        measured=(117_641_560, 11_609_484_288),
        unverified="The printed figures are neither those of the trained form nor those of the merged one.",
    ),
)


def _res50(name: str, third: Block, fourth: Block, published: Published, params: int, macs: int, notes: str) -> Paper:
    """ResNet-50 with those blocks in the second and third stage; the first block of a stage is stem or merging."""
    blocks = (Bottleneck(), third, fourth, Bottleneck())
    stages = tuple(
        Stage(
            depth=depth,
            width=width,
            token_mixer=NoTokenMixer(),
            channel_mixer=NoChannelMixer(),
            norm="batch",
            block=block,
        )
        for depth, width, block in zip((2, 3, 5, 2), (256, 512, 1024, 2048), blocks, strict=True)
    )
    return Paper(
        name=name,
        family="RepMLP-Res50",
        source=Source("arXiv:2105.01883", "DingXiaoH/RepMLP: repmlp_resnet.py, since removed from the repository"),
        architecture=Architecture(stem=ResNetStem(), stages=stages, merging=BottleneckMerging(), head=PlainHead()),
        published=published,
        measured=Measured(params=params, macs=macs, implementation=OFFICIAL, form="merged"),
        notes=notes,
    )


_RES50_RECIPE = f"{SCRATCH}, 100 epochs"

REPMLP_RES50 = (
    _res50(
        "repmlp_res50_base",
        Bottleneck(),
        Bottleneck(),
        Published(
            params_m=25.5,
            macs_g=4.1,
            top1=77.19,
            top1_note=_RES50_RECIPE,
            provenance="top-1: primary; params and MACs: common knowledge of ResNet-50",
        ),
        25_530_472,
        4_089_184_256,
        "ResNet-50, the yardstick of the other two.",
    ),
    _res50(
        "repmlp_res50_light",
        RepMlpLight(partition=7, groups=4, kernel=5),
        RepMlpLight(partition=7, groups=4, kernel=5),
        Published(top1=77.14, top1_note=_RES50_RECIPE),
        86_142_440,
        3_076_915_200,
        "The paper's tables were not readable; its text says 30 % fewer FLOPs than ResNet-50.",
    ),
    _res50(
        "repmlp_res50_bottleneck",
        RepMlpBottleneck(partition=7, groups=8, kernel=5, reduction=2),
        RepMlpBottleneck(partition=7, groups=8, kernel=5, reduction=4),
        Published(top1_note="the paper's table was not readable"),
        40_871_528,
        3_890_710_528,
        "The paper's text says as accurate as ResNet-101 with half its FLOPs and about 4 M fewer params.",
    ),
)
