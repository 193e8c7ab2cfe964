"""The layouts of a space file: which place holds in which stage, and which values can never be part of a network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from mlpspace.architecture import CHANNEL_MIXERS, TOKEN_MIXERS, Mlp, Stage
from mlpspace.fields import Whole, scalar_fields
from mlpspace.space.dims import Branch, Dim, Fixed, Option, Place, Span, Value, values
from mlpspace.space.layout import LayoutPlaces, StagePlaces, count_layout
from mlpspace.space.place_reader import PlaceReader
from mlpspace.space.text import Mapping, Mistakes, Node, Sequence

STAGE_FIELDS = ("depth", "width", "token_mixer", "channel_mixer", "norm", "layer_scale")
PATCH = Whole(1, 64)


class LayoutReader(PlaceReader):
    """Reads the section `space`."""

    def __init__(self, mistakes: Mistakes) -> None:
        super().__init__(mistakes)
        self.patches: list[tuple[Dim, int]] = []  # patch of a layout, and what its later stages divide by

    def layouts(self, node: Node | None, resolution: int | None) -> tuple[LayoutPlaces, ...]:
        """The layouts, as far as they can be read; what cannot fit `resolution` is noted too, if it is known."""
        outer = self.mapping(node, "space", ("patch", *STAGE_FIELDS, "layout"), required=("layout",)) if node else None
        if outer is None or "layout" not in outer.entries:
            return ()
        body = outer.entries["layout"]
        if not isinstance(body, Mapping) or not body.entries:
            self.mistakes.add(body.line, "layout needs at least one named layout: {isotropic: {patch: .., depth: ..}}.")
            return ()
        above = self.places(outer, "")
        used: set[int] = set()
        layouts = []
        for name, inner in body.entries.items():
            if not re.fullmatch(r"[A-Za-z][\w-]*", name):
                self.mistakes.add(body.lines[name], f'layout "{name}" is not a word of letters, digits, _ and -.')
            layout = self.layout(name, body.lines[name], inner, above, used)
            if layout:
                layouts.append(layout)
        for field, place in above.items():
            if place is not None and len(layouts) == len(body.entries) and id(place) not in used:
                self.mistakes.add(outer.lines[field], f"{field} is never used: every layout says its own.")
        if resolution:
            self.check_patches(resolution)
            if not self.mistakes:
                self.check_points(tuple(layouts), resolution)
        return tuple(layouts)

    def layout(
        self, name: str, line: int, node: Node, above: dict[str, Place | None], used: set[int]
    ) -> LayoutPlaces | None:
        body = self.mapping(node, f"layout {name}", ("patch", *STAGE_FIELDS, "stages"))
        if body is None:
            return None
        own = self.places(body, f"{name}.")
        # the scope of each stage itself, its line, and what it is called; None for one with a mistake
        stages: list[tuple[dict[str, Place | None], int, str] | None] = []
        if "stages" in body.entries:
            if "depth" in body.entries:
                self.mistakes.add(
                    body.lines["depth"],
                    f"layout {name} has both depth (isotropic) and stages (pyramid); depth belongs into each stage.",
                )
            listed = body.entries["stages"]
            items = listed.items if isinstance(listed, Sequence) else ()
            if not items:
                self.mistakes.add(listed.line, f"stages of layout {name} is a list: [{{depth: 2, width: 64}}, ...].")
            for number, item in enumerate(items, 1):
                stage = self.mapping(item, f"stage {number}", STAGE_FIELDS)
                scope = self.places(stage, f"{name}.stage{number}.") if stage else None
                stages.append(None if scope is None else (scope, item.line, f"stage {number} of layout {name}"))
        else:
            stages.append(({}, line, f"layout {name}"))
        seen: set[int] = set()
        found = [self.stage((each[0], own, above), *each[1:], seen) if each else None for each in stages]
        patch = self.pick("patch", (own, above), line, f"layout {name}", seen)
        if patch is not None:
            self.patches.append((patch, 2 ** max(0, len(stages) - 1)))
        whole = bool(found) and all(found) and patch is not None
        for field, place in own.items() if whole else ():
            if place is not None and id(place) not in seen:
                self.mistakes.add(
                    body.lines[field], f"{field} is never used: every stage of layout {name} says its own."
                )
        used |= seen
        return LayoutPlaces(name, patch, tuple(stage for stage in found if stage)) if whole else None

    def places(self, body: Mapping, prefix: str) -> dict[str, Place | None]:
        """The places that one scope says itself, named by that scope; None for one with a mistake."""
        found: dict[str, Place | None] = {}
        for field, node in body.entries.items():
            if field == "patch":
                found[field] = self.dim(node, prefix + field, PATCH, field)
            elif field == "token_mixer":
                found[field] = self.branch(node, prefix + field, TOKEN_MIXERS)
            elif field == "channel_mixer":
                found[field] = self.branch(node, prefix + field, CHANNEL_MIXERS)
            elif field in STAGE_FIELDS:
                found[field] = self.dim(node, prefix + field, scalar_fields(Stage)[field], field)
        return found

    def stage(
        self, scopes: tuple[dict[str, Place | None], ...], line: int, what: str, seen: set[int]
    ) -> StagePlaces | None:
        picked: dict[str, Any] = {field: self.pick(field, scopes, line, what, seen) for field in STAGE_FIELDS}
        return None if any(place is None for place in picked.values()) else StagePlaces(**picked)

    def pick(self, field: str, scopes: Iterable[dict[str, Place | None]], line: int, what: str, seen: set[int]) -> Any:
        """The place of a field from the nearest scope that says it, else its default."""
        for scope in scopes:
            if field in scope:
                place = scope[field]
                if place is not None:
                    seen.add(id(place))
                return place
        defaults: dict[str, Place] = {
            "channel_mixer": Branch("channel_mixer", (_default_option("mlp", Mlp),)),
            "norm": Fixed("layer"),
            "layer_scale": Fixed(None),
        }
        if field in defaults:
            return defaults[field]
        example = {"patch": "patch: 4", "depth": "depth: 4..12", "width": "width: 64..256 step 32"}
        hint = example.get(field, "token_mixer: [dense, linear, axial]")
        self.mistakes.add(line, f"{what} needs a {field}, such as {hint}.")
        return None

    def check_patches(self, resolution: int) -> None:
        """A patch size that can never divide the resolution, whatever else is chosen, is a mistake."""
        for patch in {id(patch): patch for patch, _ in self.patches}.values():
            line = self.lines.get(id(patch), 1)
            strides = [stride for other, stride in self.patches if other is patch]
            sizes = [size for size in values(patch) or [] if isinstance(size, int)]
            unfit = [size for size in sizes if all(resolution % (size * stride) for stride in strides)]
            if not isinstance(patch, Span):
                for size in unfit:
                    self.mistakes.add(line, _no_patch(size, resolution, min(strides)))
            elif len(unfit) == len(sizes):
                self.mistakes.add(line, f"patch {patch}: none of these divides {resolution} pixels.")

    def check_points(self, layouts: tuple[LayoutPlaces, ...], resolution: int) -> None:
        """Values that no point of the space can have are refused here; combinations are simply no points."""
        occurring: set[tuple[int, Value]] = set()
        counts = {
            layout.name: count_layout(layout, resolution, lambda dim, value: occurring.add((id(dim), value)))
            for layout in layouts
        }
        for layout in layouts:
            for stage in layout.stages:
                ruled = [(stage.width, "width")]
                for option in stage.token_mixer.options:
                    for field in getattr(option.type, "width_rule", ()):
                        ruled.append((option.fields[field], f"{option.kind} {field}"))
                for dim, what in ruled:
                    for value in values(dim) or []:
                        if not isinstance(dim, Span) and counts[layout.name] and (id(dim), value) not in occurring:
                            self.mistakes.add(
                                self.lines.get(id(dim), 1),
                                f"{what} {value} goes with none of the values beside it: "
                                "heads must divide width times expansion.",
                            )
            if not counts[layout.name]:
                self.mistakes.add(
                    self.lines.get(id(layout.stages[0].width), 1),
                    f"layout {layout.name} has no points: its widths, heads and patch sizes do not go together.",
                )


def _default_option(kind: str, type_: type[Any]) -> Option:
    defaults = {name: Fixed(type_.__dataclass_fields__[name].default) for name in scalar_fields(type_)}
    return Option(kind, type_, dict(defaults))


def _no_patch(value: int, resolution: int, stride: int) -> str:
    fits = [p for p in range(1, resolution + 1) if resolution % (p * stride) == 0]
    near = sorted(sorted(fits, key=lambda p: abs(math.log(p / value)))[:2])
    merged = f" with {int(math.log2(stride)) + 1} stages" if stride > 1 else ""
    if not fits:
        return f"patch {value} can never divide {resolution} pixels{merged}; no patch size can."
    return f"patch {value} can never divide {resolution} pixels{merged}; {' or '.join(map(str, near))} would."
