"""The layouts of a space file: which place holds in which stage."""

from __future__ import annotations

import re
from dataclasses import MISSING, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

from mlpspace.architecture import (
    MOST_STAGES,
    PATCH,
    TABLES,
    Architecture,
    MeanHead,
    Merging,
    Mlp,
    NoChannelMixer,
    NoTokenMixer,
    Patches,
    Residual,
    Stage,
)
from mlpspace.fields import default_of, scalar_fields
from mlpspace.space.dims import Branch, Dim, Fixed, Option, Place
from mlpspace.space.layout import LayoutPlaces, StagePlaces, brings_mixers
from mlpspace.space.place_reader import PlaceReader
from mlpspace.space.text import Mapping, Mistakes, Node, Sequence

STAGE_FIELDS = ("depth", "width", "token_mixer", "channel_mixer", "norm", "layer_scale", "block", "merge")
NETWORK_FIELDS = ("patch", "stem", "merging", "head", "norm_eps")
LAYOUT_FIELDS = (*NETWORK_FIELDS, *STAGE_FIELDS, "stages")
MIXERS = ("token_mixer", "channel_mixer")
MERGES = ("merge", "merging")


Scope: TypeAlias = dict[str, Place | None]
"""The places that one part of a file says itself; None for one with a mistake."""


class _Said(NamedTuple):
    """Where one stage or layout looks its places up."""

    scopes: tuple[Scope, ...]  # the nearest first
    line: int
    what: str  # as a mistake calls it
    seen: set[int]  # ids of the places that were taken


class LayoutReader(PlaceReader):
    """Reads the section `space`."""

    # what a layout cannot do without, as a mistake shows it
    examples: ClassVar[dict[str, str]] = {
        "stem": "patch: 4",
        "depth": "depth: 4..12",
        "width": "width: 64..256 step 32",
        "token_mixer": "token_mixer: [dense, linear, axial]",
    }

    def __init__(self, mistakes: Mistakes) -> None:
        super().__init__(mistakes)
        self.stems: list[tuple[Branch, int]] = []  # stem of a layout, and how often its map is surely halved later
        self.needless: set[str] = set()  # mixers that some stage's block brings

    def layouts(self, node: Node | None) -> tuple[LayoutPlaces, ...]:
        """The layouts, as far as they can be read."""
        known = (*NETWORK_FIELDS, *STAGE_FIELDS, "layout")
        outer = self.mapping(node, "space", known, required=("layout",)) if node else None
        if outer is None or "layout" not in outer.entries:
            return ()
        body = outer.entries["layout"]
        if not isinstance(body, Mapping) or not body.entries:
            self.mistakes.add(body.line, "layout needs at least one named layout: {isotropic: {patch: .., depth: ..}}.")
            return ()
        above = self.scope(outer, "")
        used: set[int] = set()
        layouts = []
        for name, inner in body.entries.items():
            if not re.fullmatch(r"[A-Za-z][\w-]*", name):
                self.mistakes.add(body.lines[name], f'layout "{name}" is not a word of letters, digits, _ and -.')
            layout = self.layout(name, f"layout {name}", body.lines[name], inner, above, used)
            if layout:
                layouts.append(layout)
        for field, place in above.items():
            if place is not None and len(layouts) == len(body.entries) and id(place) not in used:
                self.unused(outer, field, "any layout", "every layout")
        return tuple(layouts)

    def layout(self, name: str, what: str, line: int, node: Node, above: Scope, used: set[int]) -> LayoutPlaces | None:
        """One layout, `what` to its mistakes; adds the places that it takes from `above` to `used`."""
        body = self.mapping(node, what, LAYOUT_FIELDS)
        if body is None:
            return None
        own = self.scope(body, f"{name}.")
        seen: set[int] = set()
        # where each stage looks its places up; None for one with a mistake
        stages: list[_Said | None] = []
        if "stages" in body.entries:
            if "depth" in body.entries:
                self.mistakes.add(
                    body.lines["depth"],
                    f"{what} has both depth (isotropic) and stages (pyramid); depth belongs into each stage.",
                )
            listed = body.entries["stages"]
            items = listed.items if isinstance(listed, Sequence) else ()
            if not items:
                self.mistakes.add(listed.line, f"stages of {what} is a list: [{{depth: 2, width: 64}}, ...].")
            if len(items) > MOST_STAGES:
                self.mistakes.add(listed.line, f"{what} has {len(items):,} stages; up to {MOST_STAGES} are taken.")
                return None
            for number, item in enumerate(items, 1):
                stage = self.mapping(item, f"stage {number}", STAGE_FIELDS)
                scope = self.scope(stage, f"{name}.stage{number}.") if stage else None
                if stage and number == 1 and "merge" in stage.entries:
                    self.mistakes.add(stage.lines["merge"], "merge: before the first stage there is the stem alone.")
                told = f"stage {number} of {what}"
                stages.append(None if scope is None else _Said((scope, own, above), item.line, told, seen))
        else:
            stages.append(_Said((own, above), line, what, seen))
        network = _Said((own, above), line, what, seen)
        found = [self.stage(said, first=i == 0) if said else None for i, said in enumerate(stages)]
        stem = self.pick("stem", network)
        if stem is not None:
            self.stems.append((stem, sum(stage is None or stage.merge == Fixed(True) for stage in found[1:])))
        complete = tuple(stage for stage in found if stage)
        merging = _default("merging", "conv", Merging)
        if any(stage.merge != Fixed(False) for stage in complete[1:]):
            merging = self.pick("merging", network)
        head = self.head(network, complete[-1] if complete else None)
        norm_eps = self.pick("norm_eps", network)
        if len(complete) < max(1, len(stages)) or stem is None or merging is None or head is None or norm_eps is None:
            return None
        for field, place in own.items():
            if place is not None and id(place) not in seen:
                self.unused(body, field, what, f"every stage of {what}")
        used |= seen
        return LayoutPlaces(name, stem, complete, merging, head, norm_eps.value)

    def scope(self, body: Mapping, prefix: str) -> Scope:
        """The places that a part of the file says itself, named by that part."""
        found: Scope = {}
        for field, node in body.entries.items():
            if field == "patch":
                if "stem" in body.entries:
                    self.mistakes.add(
                        body.lines["patch"], "patch is short for stem: {patches: {patch: ..}}; say one of the two."
                    )
                    continue
                dim = self.dim(node, prefix + field, PATCH, field)
                found["stem"] = None
                if dim:
                    option = Option("patches", Patches, _default_fields(Patches) | {"patch": dim})
                    found["stem"] = self.remember(Branch(prefix + "stem", (option,)), node.line)
            elif field in TABLES:
                found[field] = self.branch(node, prefix + field, TABLES[field])
            elif field == "norm_eps":
                good, value = self.scalar(node, field, scalar_fields(Architecture)[field])
                found[field] = self.remember(Fixed(value), node.line) if good else None
            elif field in STAGE_FIELDS:
                found[field] = self.dim(node, prefix + field, scalar_fields(Stage)[field], field)
        return found

    def unused(self, body: Mapping, field: str, inside: str, every: str) -> None:
        said = "patch" if field == "stem" and "stem" not in body.entries else field
        why = f"nothing is merged in {inside}" if field in MERGES else f"{every} says its own"
        if field in self.needless:
            why += ", or has a block that brings its own"
        self.mistakes.add(body.lines[said], f"{said} is never used: {why}.")

    def stage(self, said: _Said, *, first: bool) -> StagePlaces | None:
        block = self.pick("block", said)
        picked: dict[str, Any] = {"block": block}
        alone = block is not None and all(map(brings_mixers, block.options))
        for field in STAGE_FIELDS:
            if field in MIXERS and alone:
                picked[field] = self.no_mixer(field, block, said)
            elif field == "merge" and first:
                picked[field] = Fixed(True)
            elif field != "block":
                picked[field] = self.pick(field, said)
        return None if any(place is None for place in picked.values()) else StagePlaces(**picked)

    def no_mixer(self, field: str, block: Branch, said: _Said) -> Branch:
        """None, which a stage need not say whose block brings its own; a mixer further out is for other stages."""
        self.needless.add(field)
        kind = "/".join(option.kind for option in block.options)
        for scope in said.scopes:
            place = scope.get(field)
            if isinstance(place, Branch):
                if [option.kind for option in place.options] == ["none"]:
                    said.seen.add(id(place))
                elif scope is not said.scopes[-1]:  # above the layout it is for other layouts
                    line = self.lines.get(id(place), said.line)
                    self.mistakes.add(line, f"block {kind} brings its own mixers: leave {field} out.")
                    said.seen.add(id(place))
                break
            if any(each is block for each in scope.values()):
                break
        return _default(field, "none", NoTokenMixer if field == "token_mixer" else NoChannelMixer)

    def head(self, said: _Said, last: StagePlaces | None) -> Branch | None:
        """The head; its norm, where it is not said, is that of the last stage."""
        place = self.pick("head", said)
        if place is None or last is None:
            return None
        options = []
        for option in place.options:
            silent = "norm" in option.fields and id(option.fields["norm"]) not in self.lines
            options.append(replace(option, fields={**option.fields, "norm": last.norm}) if silent else option)
        return Branch(place.name, tuple(options))

    def pick(self, field: str, said: _Said) -> Any:
        """The place of a field from the nearest scope that says it, else its default."""
        for scope in said.scopes:
            if field in scope:
                place = scope[field]
                if place is not None:
                    said.seen.add(id(place))
                return place
        defaults: dict[str, Place] = {
            "channel_mixer": _default("channel_mixer", "mlp", Mlp),
            "norm": Fixed("layer"),
            "layer_scale": Fixed(None),
            "block": _default("block", "residual", Residual),
            "merge": Fixed(True),
            "merging": _default("merging", "conv", Merging),
            "head": _default("head", "mean", MeanHead),
            "norm_eps": Fixed(default_of(Architecture, "norm_eps")),
        }
        if field in defaults:
            return defaults[field]
        hint = self.examples[field]
        self.mistakes.add(said.line, f"{said.what} needs a {'patch' if field == 'stem' else field}, such as {hint}.")
        return None


def _default(name: str, kind: str, type_: type[Any]) -> Branch:
    return Branch(name, (Option(kind, type_, _default_fields(type_)),))


def _default_fields(type_: type[Any]) -> dict[str, Dim]:
    fields: dict[str, Any] = type_.__dataclass_fields__
    return {name: Fixed(fields[name].default) for name in scalar_fields(type_) if fields[name].default is not MISSING}
