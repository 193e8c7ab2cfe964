"""The networks that the papers compare themselves with; timm has them."""

from __future__ import annotations

from mlpspace.comparators import Comparator
from mlpspace.papers.published import SCRATCH, Paper, Published, Source, measured_on

_QUOTED = "as quoted in ResMLP's table 1"


def _comparator(
    name: str,
    comparator: Comparator,
    resolution: int,
    published: tuple[float, float, float],
    measured: tuple[int, int],
    *,
    top1_note: str = _QUOTED,
    provenance: str = "primary",
    paper: str = "arXiv:2105.03404, table 1",
    notes: str = "",
    unverified: str = "",
) -> Paper:
    return Paper(
        name=name,
        family="comparators",
        source=Source(paper, f"timm: {comparator.timm}"),
        architecture=comparator,
        resolution=resolution,
        published=Published(
            params_m=published[0],
            macs_g=published[1],
            top1=published[2],
            top1_note=top1_note,
            provenance=provenance,
        ),
        measured=measured_on("timm", measured),
        notes=notes,
        unverified=unverified,
    )


def _deit(timm: str) -> Comparator:
    """A transformer of one stage; DeiT's and CaiT's patches are 16 pixels wide."""
    return Comparator(timm=timm, multiple=16, sized=True)


def _swin(timm: str) -> Comparator:
    return Comparator(timm=timm, multiple=4, sized=True)


_LARGER = "ResMLP's table says 224 px of all its rows; the figures are those at the resolution given here."
_SWIN = {
    "top1_note": SCRATCH,
    "provenance": "from secondary sources and from memory",
    "paper": "arXiv:2103.14030",
    "unverified": "The published figures were not read in the paper itself.",
}

COMPARATORS = (
    _comparator(
        "efficientnet_b3",
        Comparator(timm="tf_efficientnet_b3"),
        300,
        (12, 1.8, 81.1),
        (12_233_232, 1_827_141_392),
        notes=_LARGER,
    ),
    _comparator(
        "efficientnet_b4",
        Comparator(timm="tf_efficientnet_b4"),
        380,
        (19, 4.2, 82.6),
        (19_341_616, 4_393_771_024),
        notes=_LARGER,
    ),
    _comparator(
        "efficientnet_b5",
        Comparator(timm="tf_efficientnet_b5"),
        456,
        (30, 9.9, 83.3),
        (30_389_784, 10_266_384_752),
        notes=_LARGER,
    ),
    _comparator("regnety_4gf", Comparator(timm="regnety_040"), 224, (21, 4.0, 80.0), (20_646_656, 3_973_288_448)),
    _comparator(
        "regnety_8gf",
        Comparator(timm="regnety_080"),
        224,
        (39, 8.0, 81.7),
        (39_180_068, 7_963_057_312),
        notes="timm's regnety_080_tv is another network.",
    ),
    _comparator("regnety_16gf", Comparator(timm="regnety_160"), 224, (84, 16.0, 82.9), (83_590_140, 15_911_510_272)),
    _comparator("deit_s", _deit("deit_small_patch16_224"), 224, (22, 4.6, 79.8), (22_050_664, 4_598_882_304)),
    _comparator("deit_b", _deit("deit_base_patch16_224"), 224, (86, 17.5, 81.8), (86_567_656, 17_563_828_224)),
    _comparator(
        "cait_xs24_224",
        _deit("cait_xs24_384"),
        224,
        (27, 5.4, 81.8),
        (26_560_648, 5_390_354_304),
        notes="timm has it for 384 px; it is built for the resolution asked for.",
    ),
    _comparator(
        "cait_m48_448",
        _deit("cait_m48_448"),
        448,
        (356, 329.6, 86.5),
        (356_460_520, 329_107_670_016),
        top1_note=f"distilled, at 448 px, {_QUOTED}",
        notes=_LARGER,
    ),
    _comparator(
        "nfnet_f6_576",
        Comparator(timm="dm_nfnet_f6"),
        576,
        (438, 377.3, 86.5),
        (438_359_116, 377_280_307_200),
        top1_note=f"with SAM, at 576 px, {_QUOTED}",
        notes=_LARGER,
    ),
    _comparator(
        "swin_t", _swin("swin_tiny_patch4_window7_224"), 224, (29, 4.5, 81.3), (28_288_354, 4_490_566_656), **_SWIN
    ),
    _comparator(
        "swin_s", _swin("swin_small_patch4_window7_224"), 224, (50, 8.7, 83.0), (49_606_258, 8_740_875_264), **_SWIN
    ),
    _comparator(
        "swin_b", _swin("swin_base_patch4_window7_224"), 224, (88, 15.4, 83.5), (87_768_224, 15_430_946_816), **_SWIN
    ),
)
