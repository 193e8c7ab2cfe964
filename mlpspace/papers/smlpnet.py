"""sMLPNet: its sizes and the ablations, for channel ratios 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence

from mlpspace.architecture import Architecture, Axial, Local, MeanHead, Merging, Mlp, Patches, Stage, TokenMixer
from mlpspace.papers.published import OFFICIAL, SCRATCH, SURGERY, Paper, Published, Source, measured_on

_SOURCE = Source("arXiv:2109.05422", "microsoft/SPACH: models/smlp.py")
_DEPTHS = (2, 8, 14, 2)


def _architecture(
    width: int, depths: Sequence[int], mixers: Sequence[TokenMixer] = (Axial(),) * 4, ratio: float = 3
) -> Architecture:
    stages = tuple(
        Stage(depth=depth, width=width * 2**i, token_mixer=mixer, channel_mixer=Mlp(ratio=ratio))
        for i, (depth, mixer) in enumerate(zip(depths, mixers, strict=True))
    )
    return Architecture(
        stem=Patches(patch=4, bias=False),
        stages=stages,
        merging=Merging(bias=False),
        head=MeanHead(norm="batch"),
        norm_eps=1e-5,
    )


def _smlpnet(
    name: str,
    width: int,
    depths: tuple[int, ...],
    published: tuple[float, float, float],
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
) -> Paper:
    return Paper(
        name=name,
        family="sMLPNet",
        source=_SOURCE,
        architecture=_architecture(width, depths),
        published=Published(
            params_m=published[0],
            macs_g=published[1],
            top1=published[2],
            top1_note=f"{SCRATCH}, 300 epochs, much as DeiT",
            provenance="primary: the official README",
        ),
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=notes,
    )


SMLPNET = (
    _smlpnet(
        "smlpnet_tiny",
        80,
        _DEPTHS,
        (24, 5.0, 81.9),
        measured=(24_123_584, 4_989_451_520),
        notes="No official checkpoint is public; a third party's reaches 81.74 % with the official code.",
    ),
    _smlpnet("smlpnet_small", 96, (2, 10, 24, 2), (49, 10.3, 83.1), measured=(48_558_136, 10_312_161_792)),
    _smlpnet("smlpnet_base", 112, (2, 10, 24, 2), (66, 14.0, 83.4), counted=(65_880_408, 13_986_515_200)),
)


def _local_in(number: int) -> tuple[TokenMixer, ...]:
    """The depthwise convolution alone in that stage, counted from 1."""
    return tuple(Local(kernel=3) if stage == number else Axial() for stage in range(1, 5))


_CHANGES: dict[str, tuple[TokenMixer, ...]] = {
    "": (Axial(),) * 4,
    "no_local": (Axial(local=0),) * 4,
    "no_global": (Local(kernel=3),) * 4,
    "no_smlp_stage1": _local_in(1),
    "no_smlp_stage2": _local_in(2),
    "no_smlp_stage3": _local_in(3),
    "no_smlp_stage4": _local_in(4),
    "fuse_sum": (Axial(fusion="sum"),) * 4,
    "fuse_wsum": (Axial(fusion="weighted"),) * 4,
    "no_identity": (Axial(identity=False),) * 4,
}
_OMISSIONS = tuple(change for change in _CHANGES if change.startswith(("no_local", "no_global", "no_smlp")))
_QUOTED = {"no_local": 80.6, "no_global": 80.7}  # %, by a review that does not say of which alpha

# Params and MACs of each alpha (the channel ratio) and change: on the official code so changed, else ours.
_MEASURED: dict[tuple[int, str], tuple[int, int]] = {
    (2, ""): (19_175_584, 3_945_790_720),
    (2, "no_local"): (19_096_384, 3_923_776_000),
    (2, "no_global"): (11_718_120, 2_242_440_960),
    (2, "no_smlp_stage1"): (19_124_096, 3_769_171_200),
    (2, "no_smlp_stage2"): (18_545_632, 3_407_904_000),
    (2, "no_smlp_stage4"): (16_715_200, 3_824_490_240),
    (2, "fuse_sum"): (11_764_384, 2_380_299_520),
    (2, "fuse_wsum"): (11_764_462, 2_380_299_520),
    (2, "no_identity"): (16_705_184, 3_423_960_320),
    (3, "no_local"): (24_044_384, 4_967_436_800),
    (3, "no_global"): (16_666_120, 3_286_101_760),
    (3, "no_smlp_stage1"): (24_072_096, 4_812_832_000),
    (3, "no_smlp_stage3"): (19_807_944, 4_121_908_480),
    (3, "no_smlp_stage4"): (21_663_200, 4_868_151_040),
    (3, "fuse_sum"): (16_712_384, 3_423_960_320),
    (3, "fuse_wsum"): (16_712_462, 3_423_960_320),
    (3, "no_identity"): (21_653_184, 4_467_621_120),
}
_COUNTED: dict[tuple[int, str], tuple[int, int]] = {
    (2, "no_smlp_stage3"): (14_859_944, 3_078_247_680),
    (3, "no_smlp_stage2"): (23_493_632, 4_451_564_800),
}


def _ablation(alpha: int, change: str) -> Paper:
    top1 = _QUOTED.get(change)
    return Paper(
        name=f"smlpnet_tiny_alpha{alpha}{'_' * bool(change)}{change}",
        family="sMLPNet ablations",
        source=_SOURCE,
        architecture=_architecture(80, _DEPTHS, _CHANGES[change], ratio=alpha),
        published=Published(
            top1=top1,
            top1_note=f"{SCRATCH}; which alpha is not said" if top1 else "the paper's table was not readable",
            provenance="secondary: a review of 2021",
        ),
        measured=measured_on(SURGERY if change else OFFICIAL, _MEASURED.get((alpha, change))),
        counted=_COUNTED.get((alpha, change)),
        notes="What is left out goes with its BatchNorm and GELU." if change in _OMISSIONS else "",
        unverified="Whether the paper's ablations have alpha 2 or 3 and what their baseline reaches was not readable.",
    )


# alpha 3 without a change is smlpnet_tiny itself
ABLATIONS = tuple(_ablation(alpha, change) for alpha in (2, 3) for change in _CHANGES if (alpha, change) != (3, ""))
