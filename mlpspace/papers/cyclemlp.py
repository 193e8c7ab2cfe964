"""CycleMLP B1 to B5. (Of its T, S and B there is no code to prove a network against.)"""

from __future__ import annotations

from mlpspace.architecture import Architecture, Cycle, MeanHead, Mlp, OverlappingMerging, OverlappingPatches, Stage
from mlpspace.papers.published import OFFICIAL, SCRATCH, Measured, Paper, Published, Source

_NARROW, _WIDE = (64, 128, 320, 512), (96, 192, 384, 768)
_FOURS, _EIGHTS = (4, 4, 4, 4), (8, 8, 4, 4)


def _cyclemlp(
    name: str,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    ratios: tuple[int, ...],
    published: tuple[float, float, float],
    *,
    measured: tuple[int, int, int] | None = None,
    counted: tuple[int, int] | None = None,
) -> Paper:
    """`measured`: params, MACs that a counter sees, MACs of the deformable convolutions that it does not see."""
    stages = tuple(
        Stage(depth=depth, width=width, token_mixer=Cycle(kernel=3), channel_mixer=Mlp(ratio=ratio))
        for depth, width, ratio in zip(depths, widths, ratios, strict=True)
    )
    return Paper(
        name=name,
        family="CycleMLP",
        source=Source("arXiv:2107.10224", "ShoufaChen/CycleMLP: cycle_mlp.py"),
        architecture=Architecture(
            stem=OverlappingPatches(patch=4),
            stages=stages,
            merging=OverlappingMerging(),
            head=MeanHead(),
            norm_eps=1e-5,
        ),
        published=Published(
            params_m=published[0],
            macs_g=published[1],
            top1=published[2],
            top1_note=f"{SCRATCH}, 300 epochs",
            provenance="primary: the official README",
        ),
        measured=Measured(
            params=measured[0],
            macs=measured[1] + measured[2],
            unseen_macs=measured[2],
            implementation=OFFICIAL,
        )
        if measured
        else None,
        counted=counted,
        notes="The official code shifts by a deformable convolution, whose products no counter sees; ours shifts first "
        "and then multiplies, so they count.",
    )


CYCLEMLP = (
    _cyclemlp(
        "cyclemlp_b1",
        _NARROW,
        (2, 2, 4, 2),
        _FOURS,
        (15, 2.1, 78.9),
        measured=(15_155_400, 1_806_819_328, 314_703_872),
    ),
    _cyclemlp(
        "cyclemlp_b2",
        _NARROW,
        (2, 3, 10, 3),
        _FOURS,
        (27, 3.9, 81.6),
        measured=(26_802_504, 3_268_837_376, 606_928_896),
    ),
    _cyclemlp("cyclemlp_b3", _NARROW, (3, 4, 18, 3), _EIGHTS, (38, 6.9, 82.4), counted=(38_385_720, 6_830_968_832)),
    _cyclemlp("cyclemlp_b4", _NARROW, (3, 8, 27, 3), _EIGHTS, (52, 10.1, 83.0), counted=(51_796_552, 10_027_163_648)),
    _cyclemlp(
        "cyclemlp_b5",
        _WIDE,
        (3, 4, 24, 3),
        _FOURS,
        (76, 12.3, 83.2),
        measured=(75_747_280, 10_267_143_168, 1_965_293_568),
    ),
)
