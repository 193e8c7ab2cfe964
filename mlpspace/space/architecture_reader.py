"""Architecture file -> Architecture: one layout of a space file, each of whose places is one value."""

from __future__ import annotations

import math
from typing import ClassVar

from mlpspace.architecture import Architecture
from mlpspace.errors import SpaceError
from mlpspace.space.dims import Branch, Choice, Span, Value
from mlpspace.space.layout import LayoutPlaces
from mlpspace.space.layout_reader import LAYOUT_FIELDS, LayoutReader
from mlpspace.space.text import Mapping, Mistakes, Node, parse


def read_architecture(text: str, path: str = "architecture.yaml") -> Architecture:
    """The architecture that a text says as a named layout or as its body alone: what `layout_yaml` writes.

    Args:
        text: YAML.
        path: what its mistakes are told under.

    Raises:
        SpaceError: with all mistakes of the text.

    Example:
        >>> read_architecture("{patch: 16, depth: 8, width: 512, token_mixer: dense}").describe()
        'patch 16, 8x512 dense r0.5 mlp r4 layer'
    """
    mistakes = Mistakes(path)
    root = parse(text, mistakes, "An architecture needs a patch, a depth, a width and a token_mixer.")
    architecture = _architecture(root, mistakes) if root is not None else None
    if mistakes or architecture is None:
        raise SpaceError(mistakes.lines())
    return architecture


def _architecture(root: Node, mistakes: Mistakes) -> Architecture | None:
    name, what, line, body = "architecture", "the architecture", root.line, root
    if isinstance(root, Mapping):
        if {"task", "space"} & root.entries.keys():
            mistakes.add(root.line, "this is a space file; an architecture is one layout with one value in each place.")
            return None
        named = [key for key, inner in root.entries.items() if isinstance(inner, Mapping) and key not in LAYOUT_FIELDS]
        if len(named) == len(root.entries) == 1:
            name = named[0]
            what, line, body = name, root.lines[name], root.entries[name]
        elif len(named) == len(root.entries) > 1:
            mistakes.add(root.lines[named[1]], f"{named[1]} is a second one; an architecture is one layout.")
            return None
    reader = _Reader(mistakes)
    layout = reader.layout(name, what, line, body, {}, set())
    if layout is None or mistakes:
        return None
    _note_what_varies(layout, reader)
    if mistakes:
        return None
    architecture = layout.architecture(_fixed)
    reason = architecture.unfit(_fitting_resolution(architecture))
    if reason:
        mistakes.add(line, f"{what}: {reason}.")
        return None
    return architecture


class _Reader(LayoutReader):
    examples: ClassVar[dict[str, str]] = {
        "stem": "patch: 16",
        "depth": "depth: 8",
        "width": "width: 512",
        "token_mixer": "token_mixer: dense",
    }


def _note_what_varies(layout: LayoutPlaces, reader: LayoutReader) -> None:
    lines = {place.name: reader.lines[id(place)] for place in reader.kept if isinstance(place, Branch | Choice | Span)}
    for dim, _ in layout.dimensions():
        what = dim.name.rsplit(".", 1)[-1]
        reader.mistakes.add(lines.get(dim.name, 1), f"{what} is {dim}; in an architecture each place has one value.")


def _fixed(dim: Choice | Span) -> Value:
    raise AssertionError(f"{dim.name} varies")


def _fitting_resolution(architecture: Architecture) -> int:
    """A resolution that stem, mergings and windows divide."""
    windows = math.lcm(*(getattr(stage.block, "partition", 1) for stage in architecture.stages))
    return int(architecture.stem.stride) * 2**architecture.mergings * windows
