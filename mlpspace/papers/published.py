"""What is known of a published network: where it comes from, what was printed, what its code counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlpspace.architecture import Architecture
from mlpspace.comparators import Comparator

SCRATCH = "ImageNet-1k from scratch"
CLASSES = 1000  # of ImageNet-1k, and of all counts here


@dataclass(frozen=True, slots=True)
class Source:
    """The paper, and the public code it was checked against."""

    paper: str  # "arXiv:2105.01601"
    code: str  # "owner/repository: file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Figures as printed, with the digits they were printed with; None: not printed, or not readable."""

    params_m: float | None = None  # millions; a whole number is printed as an int
    macs_g: float | None = None  # 1e9 multiply-adds, whatever the paper calls them
    top1: float | None = None  # %, ImageNet-1k validation
    top1_note: str = ""  # how that was trained
    classifier: bool = True  # is it counted in params_m?
    provenance: str = "primary"  # primary: the paper or its repository; else where the figures were found


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Counts of another implementation at 1,000 classes; MACs are those of torch's FlopCounterMode, halved."""

    params: int  # all, frozen ones included
    macs: int | None = None  # None: not run
    implementation: str
    form: str = "train"  # or "merged": as it is deployed, its branches and BatchNorms folded
    part: str = "network"  # or "block": one block alone
    unseen_macs: int = 0  # known to be missing from the counter's figure, and part of `macs`


OFFICIAL = "the official code"
ARITHMETIC = "arithmetic alone"
SURGERY = "surgery on the official code"


def measured_on(implementation: str, counts: tuple[int, int] | None) -> Measured | None:
    """Params and MACs of that implementation as it is trained; None where none are on record."""
    return None if counts is None else Measured(params=counts[0], macs=counts[1], implementation=implementation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A published network and where it comes from."""

    name: str
    family: str
    source: Source
    architecture: Architecture | Comparator
    resolution: int = 224  # pixels of the published counts
    published: Published = field(default_factory=Published)
    measured: Measured | None = None
    counted: tuple[int, int] | None = None  # params and MACs as we count them, where `measured` has none on record
    notes: str = ""
    unverified: str = ""  # what is taken on trust, or was worked out from less than a statement

    @property
    def params(self) -> int:
        """At `resolution`, 1,000 classes and `measured.form`."""
        if self.measured is not None:
            return self.measured.params
        assert self.counted is not None, self.name
        return self.counted[0]

    @property
    def macs(self) -> int:
        """At `resolution`, 1,000 classes and `measured.form`."""
        if self.measured is not None and self.measured.macs is not None:
            return self.measured.macs
        assert self.counted is not None, self.name
        return self.counted[1]

    @property
    def form(self) -> str:
        """The form that the counts are of: "train" or "merged"."""
        return self.measured.form if self.measured is not None else "train"

    @property
    def part(self) -> str:
        """What the counts are of: "network" or "block"."""
        return self.measured.part if self.measured is not None else "network"
