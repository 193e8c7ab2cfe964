"""SPACH: one token mixer in one framework at a time, in one stage or in several (MS), and the hybrids.

In the official code `pass` is a block whose token mixing is its depthwise convolution alone; `conv` networks are made
of it, and so is the first stage of every MS network.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlpspace.architecture import (
    Architecture,
    Attention,
    ConvPatches,
    DenseByTokens,
    GroupNormMerging,
    Mlp,
    NormedPatches,
    NoTokenMixer,
    ParallelDepthwise,
    Stage,
    Stem,
    TokenMixer,
)
from mlpspace.papers.published import OFFICIAL, SCRATCH, Paper, Published, Source, measured_on

Plan = Sequence[Sequence[tuple[str, int]]]  # for each stage: token mixer and depth, one or several in turn


def _spach(
    name: str,
    width: int,
    ratio: float,
    plan: Plan,
    published: tuple[float, float, float] | None = None,
    *,
    stem: Stem | None = None,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
    unverified: str = "",
) -> Paper:
    return Paper(
        name=name,
        family="SPACH",
        source=Source("arXiv:2108.13002", "microsoft/SPACH: models/spach, models/registry.py"),
        architecture=Architecture(
            stem=stem or NormedPatches(patch=16 if len(plan) == 1 else 4),
            stages=_stages(width, ratio, plan),
            merging=GroupNormMerging(),
        ),
        published=Published(top1_note="the paper's table was not readable")
        if published is None
        else Published(
            params_m=published[0],
            macs_g=published[1],
            top1=published[2],
            top1_note=f"{SCRATCH}, 300 epochs",
            provenance="primary: the official README",
        ),
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=notes,
        unverified=unverified,
    )


def _stages(width: int, ratio: float, plan: Plan) -> tuple[Stage, ...]:
    """The width doubles from stage to stage; the number of heads stays that of the first."""
    mixers: dict[str, TokenMixer] = {
        "pass": NoTokenMixer(),
        "mlp": DenseByTokens(ratio=0.5),
        "attn": Attention(heads=width // 32),
    }
    return tuple(
        Stage(
            depth=depth,
            width=width * 2**number,
            token_mixer=mixers[mixer],
            channel_mixer=Mlp(ratio=ratio),
            layer_scale=None if mixer == "pass" else 1e-4,  # of the token mixer alone, so without one of nothing
            block=ParallelDepthwise(kernel=3),
            merge=place == 0,
        )
        for number, parts in enumerate(plan)
        for place, (mixer, depth) in enumerate(parts)
    )


def _single(mixer: str, depth: int) -> Plan:
    return [[(mixer, depth)]]


def _multi(mixer: str, *depths: int) -> Plan:
    """Pass in the first stage, the mixer in the others."""
    return [[("pass" if number == 0 else mixer, depth)] for number, depth in enumerate(depths)]


_HYBRID_XS: Plan = [[("pass", 3)], [("pass", 4)], [("pass", 2), ("attn", 10)], [("pass", 1), ("attn", 2)]]
_HYBRID_S: Plan = [[("pass", 3)], [("pass", 2), ("attn", 2)], [("pass", 2), ("attn", 10)], [("pass", 1), ("attn", 2)]]
_CUT_OFF = "The README's params look cut off rather than rounded."

SPACH = (
    _spach("spach_xxs_mlp", 384, 2, _single("mlp", 12), measured=(8_307_184, 1_630_602_240)),
    _spach("spach_xxs_conv", 384, 2, _single("pass", 12), measured=(7_828_840, 1_453_581_312)),
    _spach("spach_xxs_attn", 192, 2, _single("attn", 12), measured=(3_931_048, 903_811_584)),
    _spach("spach_xs_mlp", 384, 2, _single("mlp", 24), measured=(15_932_536, 3_203_017_728)),
    _spach("spach_xs_conv", 384, 2, _single("pass", 24), measured=(14_975_848, 2_848_975_872)),
    _spach("spach_xs_attn", 384, 2, _single("attn", 12), measured=(14_938_984, 3_194_889_216)),
    _spach("spach_s_mlp", 512, 3, _single("mlp", 24), counted=(39_820_024, 7_970_066_432)),
    _spach("spach_s_conv", 512, 3, _single("pass", 24), measured=(38_854_120, 7_498_010_624)),
    _spach("spach_s_attn", 512, 3, _single("attn", 12), measured=(32_507_368, 6_726_103_040)),
    _spach("spach_ms_xxs_conv", 64, 2, _multi("pass", 2, 2, 6, 2), (5, 0.7, 73.1), measured=(5_085_224, 712_358_912)),
    _spach(
        "spach_ms_xxs_mlp",
        64,
        2,
        _multi("mlp", 2, 2, 6, 2),
        (6, 0.9, 74.5),
        measured=(6_562_446, 931_126_272),
        notes=_CUT_OFF,
    ),
    _spach("spach_ms_xxs_attn", 32, 2, _multi("attn", 2, 2, 6, 2), (2, 0.5, 65.4), measured=(2_372_744, 530_039_296)),
    _spach("spach_ms_xs_conv", 96, 2, _multi("pass", 3, 4, 12, 3), measured=(17_302_120, 2_754_640_128)),
    _spach("spach_ms_xs_mlp", 96, 2, _multi("mlp", 3, 4, 12, 3), measured=(20_260_283, 3_409_135_872)),
    _spach("spach_ms_xs_attn", 64, 2, _multi("attn", 3, 4, 12, 3), measured=(14_479_080, 3_081_744_896)),
    _spach(
        "spach_ms_s_conv", 128, 3, _multi("pass", 3, 4, 12, 3), (44, 7.2, 81.6), counted=(43_576_168, 7_141_018_624)
    ),
    _spach(
        "spach_ms_s_mlp",
        128,
        3,
        _multi("mlp", 3, 4, 12, 3),
        (46, 8.2, 82.1),
        measured=(46_542_011, 8_013_679_616),
        notes=_CUT_OFF,
        unverified="The README's 8.2 G may be of a slightly different network: the code gives 8.0 G.",
    ),
    _spach(
        "spach_ms_s_attn", 96, 3, _multi("attn", 3, 4, 12, 3), (40, 7.6, 82.9), measured=(39_537_544, 7_532_022_528)
    ),
    _spach("spach_ms_xs_hybrid", 96, 2, _HYBRID_XS, measured=(27_956_584, 4_444_316_928)),
    _spach("spach_ms_s_hybrid", 128, 3, _HYBRID_S, (63, 11.2, 83.7), measured=(63_028_584, 11_050_933_248)),
    _spach(
        "spach_ms_s_hybrid_plus",
        128,
        3,
        _HYBRID_S,
        (63, 12.3, 83.9),
        stem=ConvPatches(patch=4, hidden=64),
        measured=(63_138_728, 12_177_284_096),
        unverified="The code has no factory for it: that its stem is the one of four convolutions is inferred from the "
        "printed MACs.",
    ),
)
