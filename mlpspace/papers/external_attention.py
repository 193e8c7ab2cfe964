"""External attention: the EAMLPs, and the unit as it stands in a network for dense prediction."""

from __future__ import annotations

from mlpspace.architecture import (
    Architecture,
    ClassTokenHead,
    ExternalAttention,
    ExternalAttentionUnit,
    Mlp,
    NoChannelMixer,
    NoTokenMixer,
    Patches,
    PlainHead,
    Stage,
    TokensToToken,
)
from mlpspace.papers.published import OFFICIAL, SCRATCH, Measured, Paper, Published, Source, measured_on

_NONE = Published(top1_note="no figure was found")
_TABLE = "secondary: Andrew-Qibin/VisionPermutator README"


def _eamlp(
    name: str,
    depth: int,
    width: int,
    ratio: float,
    published: Published = _NONE,
    *,
    resolution: int = 224,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    unverified: str = "The paper's own table was not at hand.",
) -> Paper:
    # heads of 64 channels over queries four times as wide, one pair of memories of 64 units for all of them
    attention = ExternalAttention(memory=64, heads=4 * width // 64, expansion=4, double_norm=True)
    stage = Stage(depth=depth, width=width, token_mixer=attention, channel_mixer=Mlp(ratio=ratio))
    return Paper(
        name=name,
        family="External attention",
        source=Source("arXiv:2105.02358", "MenghaoGuo/EANet: EAMLP/models/t2t_vit.py"),
        architecture=Architecture(stem=TokensToToken(), stages=(stage,), head=ClassTokenHead(), norm_eps=1e-5),
        resolution=resolution,
        published=published,
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=f"The official code calls it T2t_vit_{depth}; its fixed sinusoid counts among the params.",
        unverified=unverified,
    )


_UNIT = Paper(
    name="external_attention_unit_512",
    family="External attention",
    source=Source("arXiv:2105.02358", "MenghaoGuo/EANet: model_torch.py"),
    architecture=Architecture(
        stem=Patches(patch=8),
        stages=(
            Stage(
                depth=1,
                width=512,
                token_mixer=NoTokenMixer(),
                channel_mixer=NoChannelMixer(),
                block=ExternalAttentionUnit(memory=64),
            ),
        ),
        head=PlainHead(),
        norm_eps=1e-5,
    ),
    published=Published(top1_note="made for dense prediction, not for ImageNet"),
    measured=Measured(params=591_360, implementation=OFFICIAL, part="block"),
    counted=(591_360, 462_422_016),
    notes="The unit between its two 1 x 1 convolutions. Stem and head around it are ours: patches of 8 pixels, the "
    "stride at which the authors' network for dense prediction has it.",
)

EXTERNAL_ATTENTION = (
    _eamlp("eamlp_7", 7, 256, 2, measured=(6_146_638, 1_465_194_496)),
    _eamlp("eamlp_10", 10, 256, 2, measured=(8_540_110, 2_007_439_360)),
    _eamlp("eamlp_12", 12, 256, 2, counted=(10_135_758, 2_368_935_936)),
    _eamlp(
        "eamlp_14",
        14,
        384,
        3,
        Published(params_m=30, top1=78.9, top1_note=SCRATCH, provenance=_TABLE),
        measured=(29_877_070, 6_450_351_104),
    ),
    _eamlp(
        "eamlp_19",
        19,
        448,
        3,
        Published(params_m=55, top1=79.4, top1_note=SCRATCH, provenance=_TABLE),
        counted=(54_559_054, 11_597_669_888),
    ),
    _eamlp("eamlp_24", 24, 512, 3, measured=(89_456_590, 18_820_366_336)),
    _eamlp(
        "eamlp_7_384",
        7,
        256,
        2,
        Published(
            top1=71.7, top1_note=f"{SCRATCH}, 310 epochs, at 384 px", provenance="primary: the official README and log"
        ),
        resolution=384,
        measured=(6_243_918, 4_292_929_536),
        unverified="",
    ),
    _UNIT,
)
