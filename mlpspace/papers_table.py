"""What `mlpspace papers` shows: the list, one network, the check, and their JSON. Nothing prints."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mlpspace.architecture import Architecture, to_dict
from mlpspace.papers.published import ARITHMETIC, CLASSES, Paper
from mlpspace.report import count
from mlpspace.space.writer import layout_yaml

if TYPE_CHECKING:
    from mlpspace.proof import Proof

UNVERIFIED = "?"
NEEDS_TIMM = "needs mlpspace[timm]"


# --- the list -------------------------------------------------------------------------------------------------------


def table(papers: Sequence[Paper], width: int = 120) -> str:
    """The networks by family: resolution, counts, published top-1 and how it was trained."""
    lines = []
    for family, members in groupby(papers, key=lambda paper: paper.family):
        rows = list(members)
        lines += [f"{family}  ({_origin(rows)})", *_rows(rows, width), ""]
    return "\n".join([*lines, *_footing(papers)])


def _origin(papers: Sequence[Paper]) -> str:
    """The one paper of a family; a comparator is timm's."""
    if not isinstance(papers[0].architecture, Architecture):
        return "through timm: pip install 'mlpspace[timm]'"
    return papers[0].source.paper.partition(",")[0]


def _rows(papers: Sequence[Paper], width: int) -> Iterator[str]:
    cells = [("", "", "px", "params", "MACs", "top-1 %"), *map(_cells, papers)]
    widths = [max(len(row[i]) for row in cells) for i in range(6)]
    notes = ["how it was trained", *(paper.published.top1_note for paper in papers)]
    for row, note in zip(cells, notes, strict=True):
        told = f"  {row[0]:{widths[0]}} {row[1]:1}" + "".join(
            f"  {cell:>{size}}" for cell, size in zip(row[2:], widths[2:], strict=True)
        )
        wrapped = textwrap.wrap(note, max(24, width - len(told) - 2)) or [""]
        yield f"{told}  {wrapped[0]}".rstrip()
        yield from (" " * (len(told) + 2) + rest for rest in wrapped[1:])


def _cells(paper: Paper) -> tuple[str, ...]:
    top1 = paper.published.top1
    return (
        paper.name,
        UNVERIFIED if paper.unverified else "",
        str(paper.resolution),
        count(paper.params),
        count(paper.macs),
        "-" if top1 is None else str(top1),
    )


def _footing(papers: Sequence[Paper]) -> list[str]:
    lines = [f"params, MACs: at px and {CLASSES:,} classes, by the official code where that is on record, else by ours"]
    if any(paper.form == "merged" for paper in papers):
        lines.append("RepMLP-Res50: of the merged form")
    if any(paper.part == "block" for paper in papers):
        lines.append("external_attention_unit_512: of that block alone")
    if any(paper.unverified for paper in papers):
        lines.append(f"{UNVERIFIED}: something of it is unverified; mlpspace papers NAME says what")
    return [*lines, "One of them, as YAML: mlpspace papers NAME. Built and counted anew: mlpspace papers --check"]


# --- one network ----------------------------------------------------------------------------------------------------


def text(paper: Paper, width: int = 120) -> str:
    """All that is on record of one network, and how to have it."""
    published = paper.published
    by = f" ({paper.measured.implementation})" if paper.measured else " (ours)"
    macs_by = by if paper.measured and paper.measured.macs is not None else " (ours)"
    facts = {
        "family": paper.family,
        "paper": paper.source.paper,
        "code": paper.source.code or "none is public",
        "resolution": f"{paper.resolution} px",
        "params": f"{paper.params:,}{by}; published: {_million(paper)}",
        "MACs": f"{paper.macs:,}{macs_by}; published: {_giga(paper)}",
        "top-1": f"{'-' if published.top1 is None else f'{published.top1} %'}"
        + (f", {published.top1_note}" if published.top1_note else ""),
        "figures": published.provenance if _has_figures(paper) else "",
        "counts": " ".join(_caveats(paper)),
        "notes": paper.notes,
        "unverified": paper.unverified,
    }
    lines = [paper.name]
    for name, told in facts.items():
        wrapped = textwrap.wrap(told, max(40, width - 14))
        lines += [f"  {name if i == 0 else '':11} {part}" for i, part in enumerate(wrapped)]
    return "\n".join([*lines, "", *_how_to_have_it(paper)])


def _has_figures(paper: Paper) -> bool:
    return any(value is not None for value in (paper.published.params_m, paper.published.macs_g, paper.published.top1))


def _million(paper: Paper) -> str:
    published = paper.published
    if published.params_m is None:
        return "-"
    return f"{published.params_m} M{'' if published.classifier else ' without the classifier'}"


def _giga(paper: Paper) -> str:
    return "-" if paper.published.macs_g is None else f"{paper.published.macs_g} G"


def _how_to_have_it(paper: Paper) -> list[str]:
    python = f'mlpspace.build(mlpspace.papers.get("{paper.name}"), resolution={paper.resolution}, classes={CLASSES})'
    measure = f"mlpspace profile {paper.name}"
    if not isinstance(paper.architecture, Architecture):
        return [
            "A comparator has no YAML: timm builds it, and no space can hold it.",
            "  pip install 'mlpspace[timm]'",
            f"  {measure}",
            f"  {python}",
        ]
    yaml = layout_yaml(paper.architecture, paper.name, indent=0)
    return [
        "# a layout: under `layout:` of a space file, or a file of its own for mlpspace profile",
        yaml,
        f"  {measure}",
        f"  {python}",
    ]


# --- the check ------------------------------------------------------------------------------------------------------

_HEADINGS = (("params", "measured", "published"), ("MACs", "measured", "published"))
_WIDTHS = ((11, 11, 9), (15, 15, 9))


def check_heading(papers: Sequence[Paper]) -> str:
    """The heading of the lines of the check, for these networks."""
    first = "network".ljust(_name_width(papers))
    return first + "".join(
        f"  {name:>{size}}"
        for names, sizes in zip(_HEADINGS, _WIDTHS, strict=True)
        for name, size in zip(names, sizes, strict=True)
    )


def check_line(proof: Proof, papers: Sequence[Paper], width: int = 120) -> str:
    """Ours beside measured and published; below it, what is to be said of that network."""
    paper = proof.paper
    measured = paper.measured
    params = (proof.params, measured.params if measured else None), paper.published.params_m, "M"
    macs = (proof.macs, measured.macs if measured else None), paper.published.macs_g, "G"
    line = paper.name.ljust(_name_width(papers))
    for (counts, published, unit), sizes in zip((params, macs), _WIDTHS, strict=True):
        for number, size in zip(counts, sizes, strict=False):
            line += f"  {'-' if number is None else f'{number:,}':>{size}}"
        line += f"  {'-' if published is None else f'{published} {unit}':>{sizes[2]}}"
    told = {True: "equal" if measured else "not measured", False: "DIFFERS", None: NEEDS_TIMM}[proof.agrees]
    notes = [note for remark in remarks(proof) for note in textwrap.wrap(remark, max(40, width - 4))]
    return "\n".join([f"{line}  {told}", *(f"    {note}" for note in notes)])


def check_summary(proofs: Sequence[Proof]) -> str:
    """What the check found."""
    built = [proof for proof in proofs if proof.agrees is not None]
    differing = [proof.paper.name for proof in built if not proof.agrees]
    witnesses = [proof.paper.measured.implementation for proof in built if proof.paper.measured]
    by_hand = witnesses.count(ARITHMETIC)
    beside = f"{len(witnesses) - by_hand} of them beside another implementation"
    beside += f" and {by_hand} beside arithmetic alone" if by_hand else ""
    none = "none differs" if built else "so nothing was checked"
    lines = [
        f"{len(built)} built and counted at {CLASSES:,} classes, {beside}; "
        f"{none if not differing else f'{len(differing)} differ: ' + ', '.join(differing)}"
    ]
    missing = [proof for proof in proofs if proof.agrees is None]
    if missing:
        lines.append(f"{len(missing)} not built. {missing[0].missing}")
    return "\n".join(lines)


def _name_width(papers: Sequence[Paper]) -> int:
    return max(len("network"), *(len(paper.name) for paper in papers))


def remarks(proof: Proof) -> list[str]:
    """What is to be said of a row of the check, each in one sentence."""
    paper = proof.paper
    if proof.agrees is not False:
        return _caveats(paper)
    on_record = paper.measured.implementation if paper.measured else "ours, when it was put on record,"
    return [f"{on_record} has {paper.params:,} params and {paper.macs:,} MACs.", *_caveats(paper)]


def _caveats(paper: Paper) -> list[str]:
    """What is to be known of the counts on record, each in one sentence."""
    said = []
    measured = paper.measured
    if measured is not None and measured.unseen_macs:
        said.append(
            f"A counter sees {paper.macs - measured.unseen_macs:,} MACs of {measured.implementation}; the "
            f"{measured.unseen_macs:,} of its deformable convolutions, which it does not see, are added."
        )
    if paper.form == "merged":
        said.append("Counts of the merged form.")
    if paper.part == "block":
        said.append("Counts of the block alone.")
    return said + _rounding(paper)


def _rounding(paper: Paper) -> list[str]:
    """Where the published figures are not those counts, rounded."""
    published, params = paper.published, paper.params
    if not published.classifier:
        assert isinstance(paper.architecture, Architecture)
        params -= (paper.architecture.stages[-1].width + 1) * CLASSES
    told = ((published.params_m, params / 1e6, "M params"), (published.macs_g, paper.macs / 1e9, "G MACs"))
    return [
        f"Published are {printed} {what}, which {counts:.{_digits(printed) + 2}f} does not round to."
        for printed, counts, what in told
        if printed is not None and round(counts, _digits(printed)) != printed
    ]


def _digits(printed: float) -> int:
    """Digits after the point."""
    return 0 if isinstance(printed, int) else len(str(printed).partition(".")[2])


# --- JSON -----------------------------------------------------------------------------------------------------------


def as_json(paper: Paper) -> dict[str, Any]:
    """All that is on record of one network, as plain values; null for what is not."""
    architecture = paper.architecture
    return {
        "name": paper.name,
        "family": paper.family,
        "paper": paper.source.paper,
        "code": paper.source.code,
        "resolution": paper.resolution,
        "classes": CLASSES,
        "params": paper.params,
        "macs": paper.macs,
        "form": paper.form,
        "part": paper.part,
        "top1": paper.published.top1,
        "top1_note": paper.published.top1_note,
        "published": dataclasses.asdict(paper.published),
        "measured": None if paper.measured is None else dataclasses.asdict(paper.measured),
        "notes": paper.notes,
        "unverified": paper.unverified,
        "architecture": to_dict(architecture) if isinstance(architecture, Architecture) else None,
        "timm": None if isinstance(architecture, Architecture) else architecture.timm,
        "yaml": layout_yaml(architecture, paper.name, indent=0) if isinstance(architecture, Architecture) else None,
    }


def check_json(proof: Proof) -> dict[str, Any]:
    """One row of the check as plain values: `params` and `macs` are ours, null where it was not built."""
    paper = proof.paper
    return {
        "name": paper.name,
        "family": paper.family,
        "resolution": paper.resolution,
        "classes": CLASSES,
        "form": paper.form,
        "part": paper.part,
        "params": proof.params,
        "macs": proof.macs,
        "published": dataclasses.asdict(paper.published),
        "measured": None if paper.measured is None else dataclasses.asdict(paper.measured),
        "agrees": proof.agrees,
        "remarks": remarks(proof) + ([proof.missing] if proof.missing else []),
    }
