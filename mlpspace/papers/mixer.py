"""MLP-Mixer, Feed-forward-only and gMLP: one stage of patches each."""

from __future__ import annotations

from mlpspace.architecture import (
    Architecture,
    ChannelFirst,
    Dense,
    DenseByTokens,
    Gating,
    LearnedClassTokenHead,
    MeanHead,
    Mlp,
    NoTokenMixer,
    Patches,
    Stage,
)
from mlpspace.papers.published import OFFICIAL, SCRATCH, Paper, Published, Source, measured_on

_MIXER = Source("arXiv:2105.01601", "google-research/vision_transformer: vit_jax/models_mixer.py")
_NO_SCRATCH = "published only with pre-training"


def _mixer(
    name: str,
    patch: int,
    depth: int,
    width: int,
    params_m: int,
    top1: float | None = None,
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
) -> tuple[Paper, Paper]:
    """The network with exact GELU, as timm has it, and with the GELU of its authors' code."""

    def paper(name: str, activation: str, notes: str) -> Paper:
        stage = Stage(
            depth=depth,
            width=width,
            token_mixer=Dense(ratio=0.5, activation=activation),
            channel_mixer=Mlp(ratio=4, activation=activation),
        )
        return Paper(
            name=name,
            family="MLP-Mixer",
            source=_MIXER,
            architecture=Architecture(stem=Patches(patch=patch), stages=(stage,)),
            published=Published(
                params_m=params_m,
                top1=top1,
                top1_note=f"{SCRATCH}, 300 epochs, extra regularisation" if top1 else _NO_SCRATCH,
                classifier=False,
            ),
            measured=measured_on("timm", measured),
            counted=counted,
            notes=notes,
        )

    exact = f"GELU is exact, as in timm; its authors' JAX code takes the tanh approximation: that is {name}_tanh."
    tanh = f"For the official weights: GELU by its tanh approximation, JAX's default. It counts as {name} does."
    return paper(name, "gelu", exact), paper(f"{name}_tanh", "gelu_tanh", tanh)


_PAIRS = (
    _mixer("mixer_s32", 32, 8, 512, 19, measured=(19_104_624, 1_002_426_368)),
    _mixer("mixer_s16", 16, 8, 512, 18, measured=(18_528_264, 3_776_958_464)),
    _mixer("mixer_b32", 32, 12, 768, 60, counted=(60_293_428, 3_237_722_112)),
    _mixer("mixer_b16", 16, 12, 768, 59, 76.44, measured=(59_880_472, 12_601_767_936)),
    _mixer("mixer_l32", 32, 24, 1024, 206, measured=(206_939_264, 11_253_293_056)),
    _mixer("mixer_l16", 16, 24, 1024, 207, 71.76, counted=(208_196_168, 44_547_678_208)),
    _mixer("mixer_h14", 14, 32, 1280, 431, measured=(432_350_952, 120_989_911_040)),
)
MIXER = tuple(exact for exact, _ in _PAIRS) + tuple(tanh for _, tanh in _PAIRS)


def _ffonly(
    name: str,
    patch: int,
    depth: int,
    width: int,
    params_m: float,
    top1: float,
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
) -> Paper:
    stage = Stage(
        depth=depth,
        width=width,
        token_mixer=DenseByTokens(ratio=4),
        channel_mixer=Mlp(ratio=4),
        block=ChannelFirst(),
    )
    return Paper(
        name=name,
        family="Feed-forward only",
        source=Source("arXiv:2105.02723", "lukemelas/do-you-even-need-attention: vision_transformer_linear.py"),
        architecture=Architecture(stem=Patches(patch=patch), stages=(stage,), head=LearnedClassTokenHead()),
        published=Published(params_m=params_m, top1=top1, top1_note=f"{SCRATCH}, DeiT's recipe without distillation"),
        measured=measured_on(OFFICIAL, measured),
        counted=counted,
        notes=notes,
    )


FFONLY = (
    _ffonly("ffonly_tiny", 16, 12, 192, 7.7, 61.4, measured=(7_676_332, 1_441_592_832)),
    _ffonly("ffonly_base", 16, 12, 768, 62, 74.9, measured=(61_943_020, 14_132_434_944)),
    _ffonly(
        "ffonly_large",
        32,
        24,
        1024,
        206,
        71.4,
        counted=(206_363_576, 10_713_014_272),
        notes="Patches of 32 pixels, unlike the smaller two; its 14 x 14 map of positions is stretched to 7 x 7.",
    ),
)


def _gmlp(
    name: str,
    width: int,
    params_m: int,
    macs_g: float,
    top1: float,
    *,
    measured: tuple[int, int] | None = None,
    counted: tuple[int, int] | None = None,
    notes: str = "",
) -> Paper:
    stage = Stage(depth=30, width=width, token_mixer=NoTokenMixer(), channel_mixer=Gating(ratio=6))
    return Paper(
        name=name,
        family="gMLP",
        source=Source("arXiv:2105.08050", "timm: models/mlp_mixer.py; lucidrains/g-mlp-pytorch"),
        architecture=Architecture(stem=Patches(patch=16), stages=(stage,), head=MeanHead()),
        published=Published(
            params_m=params_m,
            macs_g=macs_g,
            top1=top1,
            top1_note=f"{SCRATCH}, 300 epochs, much as DeiT",
            provenance="secondary: third-party tables",
        ),
        measured=measured_on("timm", measured),
        counted=counted,
        notes=notes,
        unverified="The paper's own table was not at hand; its MACs are 0.5 to 5 % above what timm's network counts.",
    )


GMLP = (
    _gmlp("gmlp_ti16", 128, 6, 1.4, 72.3, measured=(5_867_328, 1_328_989_184)),
    _gmlp(
        "gmlp_s16",
        256,
        20,
        4.5,
        79.6,
        measured=(19_422_656, 4_392_060_928),
        notes="Elsewhere quoted with 19.5 M.",
    ),
    _gmlp(
        "gmlp_b16",
        512,
        73,
        15.8,
        81.6,
        counted=(73_075_392, 15_720_452_096),
        notes="Elsewhere quoted with 73.4 M, which neither timm's network nor lucidrains' has.",
    ),
)
