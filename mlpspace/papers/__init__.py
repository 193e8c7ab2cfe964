"""Published networks as points of one space, each with its source, its published figures and what its code counts.

Hyperparameters are as in the papers and their official code. Where another implementation could be run its counts
stand beside ours, and tests hold ours equal to them; `mlpspace papers --check` shows it.
"""

from __future__ import annotations

from mlpspace.architecture import Architecture
from mlpspace.comparators import Comparator
from mlpspace.errors import ArchitectureError, did_you_mean
from mlpspace.papers.comparators import COMPARATORS
from mlpspace.papers.cyclemlp import CYCLEMLP
from mlpspace.papers.external_attention import EXTERNAL_ATTENTION
from mlpspace.papers.mixer import FFONLY, GMLP, MIXER
from mlpspace.papers.published import Measured, Paper, Published, Source
from mlpspace.papers.repmlp import REPMLP_RES50, REPMLPNET
from mlpspace.papers.resmlp import ABLATIONS as RESMLP_ABLATIONS
from mlpspace.papers.resmlp import RESMLP
from mlpspace.papers.smlpnet import ABLATIONS as SMLPNET_ABLATIONS
from mlpspace.papers.smlpnet import SMLPNET
from mlpspace.papers.spach import SPACH
from mlpspace.scaling import Scaled, scaled

__all__ = [
    "FIXED_POINTS",
    "NAMES",
    "NO_FIXED_POINT",
    "PAPERS",
    "Measured",
    "Paper",
    "Published",
    "Source",
    "architecture",
    "at_resolution",
    "get",
    "paper",
]

PAPERS: tuple[Paper, ...] = (
    *MIXER,
    *RESMLP,
    *RESMLP_ABLATIONS,
    *FFONLY,
    *EXTERNAL_ATTENTION,
    *SMLPNET,
    *SMLPNET_ABLATIONS,
    *GMLP,
    *REPMLPNET,
    *REPMLP_RES50,
    *CYCLEMLP,
    *SPACH,
    *COMPARATORS,
)
NAMES: tuple[str, ...] = tuple(paper.name for paper in PAPERS)
FIXED_POINTS: tuple[str, ...] = tuple(paper.name for paper in PAPERS if not isinstance(paper.architecture, Comparator))
"""The names of those that are architectures, which is all but the comparators."""
NO_FIXED_POINT = (
    "{name} is a comparator: timm builds it, and it has no architecture that a space could hold. "
    "Measure it beside the others: mlpspace profile {name}"
)
_BY_NAME = {paper.name: paper for paper in PAPERS}


def paper(name: str) -> Paper:
    """The published network of that name.

    Raises:
        ArchitectureError: no such name; the text says which is near.
    """
    if name not in _BY_NAME:
        raise ArchitectureError(f'network "{name}" is not known.{did_you_mean(name, NAMES, listing="mlpspace papers")}')
    return _BY_NAME[name]


def get(name: str) -> Architecture | Comparator:
    """A published network, as published: what `mlpspace.build` takes.

    Raises:
        ArchitectureError: no such name; the text says which is near.

    Example:
        >>> get("mixer_s16").describe()
        'patch 16, 8x512 dense r0.5 mlp r4 layer'
    """
    return paper(name).architecture


def architecture(name: str) -> Architecture:
    """The architecture of a published network.

    Raises:
        ArchitectureError: no such name, or it is a comparator and so has no architecture of ours.
    """
    found = paper(name).architecture
    if isinstance(found, Comparator):
        raise ArchitectureError(NO_FIXED_POINT.format(name=name))
    return found


def at_resolution(name: str, resolution: int) -> Scaled:
    """A published network with its token grid kept as close as `resolution` allows, and what was changed to do so.

    Raises:
        ArchitectureError: no such name, it is a comparator, or it has no form at that resolution.
    """
    return scaled(architecture(name), resolution, designed_for=paper(name).resolution)
