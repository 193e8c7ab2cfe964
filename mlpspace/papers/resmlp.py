"""ResMLP: its sizes, class-MLP, and the ablations of its table 3."""

from __future__ import annotations

from mlpspace.architecture import (
    Architecture,
    ClassMlpHead,
    Conv,
    DenseByTokens,
    DepthwiseConv,
    Head,
    Identity,
    Linear,
    MeanHead,
    Mlp,
    Patches,
    SeparableConv,
    Stage,
    TokenMixer,
)
from mlpspace.papers.published import (
    ARITHMETIC,
    OFFICIAL,
    SCRATCH,
    SURGERY,
    Measured,
    Paper,
    Published,
    Source,
    measured_on,
)

_SOURCE = Source("arXiv:2105.03404", "facebookresearch/deit: resmlp_models.py")
_LINEAR, _MEAN = Linear(), MeanHead(norm="affine")
_RECIPE = f"{SCRATCH}, 400 epochs, much as DeiT"


def _resmlp(
    name: str,
    patch: int,
    depth: int,
    width: int,
    scale: float,
    published: tuple[float, float, float] | None,
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
    unverified: str = "",
) -> Paper:
    return Paper(
        name=name,
        family="ResMLP",
        source=_SOURCE,
        architecture=_architecture(patch, depth, width, scale),
        published=Published(top1_note="not published")
        if published is None
        else Published(params_m=published[0], macs_g=published[1], top1=published[2], top1_note=_RECIPE),
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=notes,
        unverified=unverified,
    )


def _class_mlp(
    name: str, depth: int, scale: float, published: tuple[float, float, float], params: int, counted: tuple[int, int]
) -> Paper:
    return Paper(
        name=name,
        family="ResMLP",
        source=Source("arXiv:2105.03404, table D.3", ""),
        architecture=_architecture(16, depth, 384, scale, head=ClassMlpHead(layer_scale=scale)),
        published=Published(
            params_m=published[0], macs_g=published[1], top1=published[2], top1_note=f"{SCRATCH}, class-MLP pooling"
        ),
        measured=Measured(params=params, implementation=ARITHMETIC),
        counted=counted,
        unverified="No code is public: the two class-MLP layers are read from one sentence of the paper; the params of "
        "all three sizes agree with it, its wiring and LayerScale are taken on trust.",
    )


def _ablation(
    name: str,
    mixer: TokenMixer,
    published: tuple[float, float, float],
    *,
    norm: str = "affine",
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    implementation: str = SURGERY,
    notes: str = "",
    unverified: str = "",
) -> Paper:
    return Paper(
        name=name,
        family="ResMLP ablations",
        source=Source("arXiv:2105.03404, table 3", _SOURCE.code),
        architecture=_architecture(16, 12, 384, 0.1, mixer=mixer, norm=norm),
        published=Published(params_m=published[0], macs_g=published[1], top1=published[2], top1_note=SCRATCH),
        measured=measured_on(implementation, measured),
        counted=counted,
        notes=notes,
        unverified=unverified,
    )


def _architecture(
    patch: int,
    depth: int,
    width: int,
    scale: float,
    *,
    mixer: TokenMixer = _LINEAR,
    norm: str = "affine",
    head: Head = _MEAN,
) -> Architecture:
    stage = Stage(depth=depth, width=width, token_mixer=mixer, channel_mixer=Mlp(ratio=4), norm=norm, layer_scale=scale)
    return Architecture(stem=Patches(patch=patch), stages=(stage,), head=head)


RESMLP = (
    _resmlp(
        "resmlp_s12",
        16,
        12,
        384,
        0.1,
        (15.4, 3.0, 76.6),
        measured=(15_350_872, 3_009_739_776),
        notes="LayerScale starts at 0.1 as in the official code; timm leaves it at 1e-4.",
    ),
    _resmlp("resmlp_s24", 16, 24, 384, 1e-5, (30.0, 6.0, 79.4), measured=(30_020_680, 5_961_292_800)),
    _resmlp(
        "resmlp_s36",
        16,
        36,
        384,
        1e-6,
        (44.7, 8.9, 79.7),
        measured=(44_690_488, 8_912_845_824),
        notes="The official README prints the figures of B24 at patch 16 beside this name.",
    ),
    _resmlp(
        "resmlp_b24_p16",
        16,
        24,
        768,
        1e-6,
        (115.7, 23.0, 81.0),
        counted=(115_736_776, 23_020_713_984),
        unverified="LayerScale's start is taken from the patch-8 network: the official code has no such factory.",
    ),
    _resmlp(
        "resmlp_b24_p8",
        8,
        24,
        768,
        1e-6,
        (129.1, 100.2, 81.0),
        measured=(129_138_280, 100_230_739_968),
        notes="The official resmlpB_24, timm's resmlp_big_24_224.",
    ),
    _resmlp("resmlp_s12_p8", 8, 12, 384, 0.1, (22.1, 14.0, 79.1), counted=(22_051_624, 13_988_649_984)),
    _resmlp("resmlp_s12_p14", 14, 12, 384, 0.1, (15.6, 4.0, 76.9), counted=(15_607_912, 3_984_055_296)),
    _resmlp(
        "resmlp_s24_p8",
        8,
        24,
        384,
        1e-5,
        None,
        measured=(43_643_368, 27_919_113_216),
        notes="Not published; it stands between those that are.",
    ),
    _class_mlp("resmlp_s12_classmlp", 12, 0.1, (17.7, 3.0, 77.5), 17_719_396, (17_719_396, 3_012_250_368)),
    _class_mlp("resmlp_s24_classmlp", 24, 1e-5, (32.4, 6.0, 79.8), 32_389_204, (32_389_204, 5_963_803_392)),
    _class_mlp("resmlp_s36_classmlp", 36, 1e-6, (47.1, 8.9, 80.5), 47_059_012, (47_059_012, 8_915_356_416)),
)

ABLATIONS = (
    _ablation("resmlp_s12_comm_none", Identity(), (14.9, 2.8, 56.5), measured=(14_887_528, 2_832_718_848)),
    _ablation(
        "resmlp_s12_comm_tokenmlp4",
        DenseByTokens(ratio=4),
        (18.6, 4.3, 77.3),
        measured=(18_587_224, 4_248_886_272),
        unverified="The expansion of 4 is worked out from the printed params and MACs.",
    ),
    _ablation("resmlp_s12_comm_conv3", Conv(kernel=3), (30.8, 6.0, 77.3), measured=(30_817_384, 5_954_067_456)),
    _ablation("resmlp_s12_comm_dw3", DepthwiseConv(kernel=3), (14.9, 2.8, 76.3), measured=(14_933_608, 2_840_847_360)),
    _ablation(
        "resmlp_s12_comm_dwsep3", SeparableConv(kernel=3), (16.7, 3.2, 77.0), counted=(16_707_688, 3_187_663_872)
    ),
    _ablation(
        "resmlp_s12_layernorm",
        _LINEAR,
        (15.4, 3.0, 77.7),
        norm="layer",
        measured=(15_350_872, 3_009_739_776),
        implementation=ARITHMETIC,
        notes="LayerNorm has as many params as the affine map it stands for.",
        unverified="No code is public: LayerScale and the norm of the head are taken to be those of resmlp_s12.",
    ),
)
