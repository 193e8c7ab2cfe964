"""Space file -> Space, or every mistake in it at once, each with its line, what was found and what would do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlpspace import papers
from mlpspace.architecture import CHANNEL_MIXERS, TOKEN_MIXERS, Mlp, Stage
from mlpspace.errors import ArchitectureError, SpaceError, did_you_mean
from mlpspace.fields import Flag, OneOf, Real, Takes, Whole, scalar_fields
from mlpspace.objectives import METRICS, Objective
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.space.dims import Branch, Choice, Dim, Fixed, Option, Place, Span, Value, values
from mlpspace.space.space import (
    Bound,
    Fidelity,
    FixedPoints,
    LayoutPlaces,
    Require,
    Space,
    StagePlaces,
    count_layout,
)
from mlpspace.space.text import (
    Mapping,
    Mistakes,
    Node,
    Scalar,
    Sequence,
    flag,
    parse,
    quantity,
    range_text,
    scalar,
    share,
)

SECTIONS = ("task", "space", "require", "objectives", "fidelity", "fixed_points", "search")
STAGE_FIELDS = ("depth", "width", "token_mixer", "channel_mixer", "norm", "layer_scale")
FITS = ("exact", "resolution", "space")
PATCH = Whole(1, 64)
# what a file calls a metric; memory is told in bytes there, and kept in MB
METRIC_NAMES = {**{name: name for name in METRICS if name != "peak_memory_mb"}, "peak_memory": "peak_memory_mb"}
_MB = {"KB": 1e-3, "MB": 1.0, "GB": 1e3}


def load_space(path: str | Path) -> Space:
    """The space that a file describes.

    Raises:
        SpaceError: with all mistakes of the file.

    Example:
        >>> space = load_space("spaces/hybrid.yaml")      # doctest: +SKIP
        >>> space.count().points                          # doctest: +SKIP
    """
    return read_space(_text_of(Path(path)), str(path))


def read_space(text: str, path: str = "space.yaml") -> Space:
    """The space that a text describes; `path` is what its mistakes are told under.

    Raises:
        SpaceError: with all mistakes of the text.
    """
    mistakes = Mistakes(path)
    root = parse(text, mistakes)
    space = _Reader(mistakes).space(root, text, path) if root is not None else None
    if mistakes or space is None:
        raise SpaceError(mistakes.lines())
    return space


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = sorted(str(p) for p in (path.parent if path.parent.is_dir() else Path("spaces")).glob("*.y*ml"))
        raise SpaceError([f"{path}: no such file. Spaces here: {', '.join(near) or 'none'}."]) from None
    except IsADirectoryError:
        raise SpaceError([f"{path}: is a folder; a space is one YAML file."]) from None
    except UnicodeDecodeError as error:
        raise SpaceError([f"{path}: is not UTF-8 text (byte {error.start}: {error.reason})."]) from None
    except OSError as error:
        raise SpaceError([f"{path}: cannot be read: {error.strerror}."]) from None


class _Reader:
    """Reads node by node. A method returns None, its mistake noted, where there is nothing to go on with."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.lines: dict[int, int] = {}  # id of a dimension -> line of its value
        self.kept: list[Place] = []  # keeps those ids alive, hence unique

    # --- the file ---

    def space(self, root: Node, text: str, path: str) -> Space | None:
        sections = self.mapping(root, "the file", SECTIONS, required=("task", "space", "objectives", "fidelity"))
        if sections is None:
            return None
        get = sections.entries.get
        resolution, classes = self.task(get("task"))
        layouts = self.layouts(get("space"))
        require = self.require(get("require"))
        objectives, batch = self.objectives(get("objectives"))
        fidelity = self.fidelity(get("fidelity"))
        fixed_points = self.fixed_points(get("fixed_points"), resolution)
        trials, seed = self.search(get("search"))
        if layouts and resolution:
            self.check_points(layouts, resolution)
        if self.mistakes or not (resolution and classes and layouts and fidelity):
            return None
        return Space(
            path=path,
            text=text,
            resolution=resolution,
            classes=classes,
            layouts=layouts,
            require=require,
            objectives=objectives,
            throughput_batch=batch,
            fidelity=fidelity,
            fixed_points=fixed_points,
            trials=trials,
            seed=seed,
        )

    def task(self, node: Node | None) -> tuple[int | None, int | None]:
        task = self.mapping(node, "task", ("classes", "resolution"), required=("classes", "resolution"))
        if task is None:
            return None, None
        resolution = self.value(task.entries.get("resolution"), "resolution", Whole(1, 4096))
        classes = self.value(task.entries.get("classes"), "classes", Whole(2, 1_000_000))
        return resolution, classes

    def require(self, node: Node | None) -> Require:
        known = ("params", "macs", "tokens", "throughput", "peak_memory", "width")
        section = self.mapping(node, "require", known) if node else None
        bounds = []
        rising = False
        for name, entry in section.entries.items() if section else ():
            if name not in known:
                continue
            if name == "width":
                rising = isinstance(entry, Scalar) and entry.text == "non-decreasing"
                if not rising:
                    self.mistakes.add(
                        entry.line, f'width {_show(entry)}: the one requirement it knows is "non-decreasing".'
                    )
                continue
            bound = self.bound(name, entry)
            if bound:
                bounds.append(bound)
        return Require(tuple(bounds), rising)

    def bound(self, name: str, node: Node) -> Bound | None:
        ends = range_text(node.text) if isinstance(node, Scalar) else None
        example = "..500MB" if name == "peak_memory" else "..10M"
        if ends is None or ends.step or ends.log or not (ends.low or ends.high):
            self.mistakes.add(node.line, f"{name} {_show(node)} is not an open or closed range, such as {example}.")
            return None
        low, high = (self.amount(name, text, node.line) if text else None for text in (ends.low, ends.high))
        if (ends.low and low is None) or (ends.high and high is None):
            return None
        low, high = (0.0 if low is None else low), (math.inf if high is None else high)
        if low > high:
            self.mistakes.add(node.line, f"{name} {_show(node)} runs backwards.")
            return None
        return Bound(METRIC_NAMES.get(name, name), low, high, f"{name} {node.text if isinstance(node, Scalar) else ''}")

    def amount(self, name: str, text: str, line: int) -> float | None:
        """A number with its suffix; memory with its unit, in MB."""
        if name == "peak_memory":
            number = quantity(text[:-2]) if text[-2:].upper() in _MB else None
            if number is None:
                self.mistakes.add(line, f'peak_memory "{text}" needs a number with a unit, such as 500MB or 2GB.')
                return None
            return number * _MB[text[-2:].upper()]
        number = quantity(text)
        if number is None:
            self.mistakes.add(line, f'{name} "{text}" is not a number, such as 500, 10M or 1.5G.')
        return number

    def objectives(self, node: Node | None) -> tuple[tuple[Objective, ...], int]:
        section = self.mapping(node, "objectives", tuple(METRIC_NAMES)) if node else None
        found = []
        batch = 64
        if section and not section.entries:
            self.mistakes.add(section.line, "objectives is empty; accuracy and throughput are the usual two.")
        for name, entry in section.entries.items() if section else ():
            if name not in METRIC_NAMES:
                continue
            metric = METRIC_NAMES[name]
            known = ("goal", "worst", "scale", *(("batch",) if name in ("throughput", "peak_memory") else ()))
            fields = self.mapping(entry, name, known, required=("worst",))
            if fields is None:
                continue
            goal = self.value(fields.entries.get("goal"), f"{name} goal", OneOf(("maximize", "minimize")))
            natural = METRICS[metric].goal
            if goal and goal != natural:
                self.mistakes.add(fields.lines["goal"], f"{name} has the goal {natural}, not {goal}.")
            scale = self.value(fields.entries.get("scale"), f"{name} scale", OneOf(("linear", "log"))) or "linear"
            worst_node = fields.entries.get("worst")
            worst = None
            if isinstance(worst_node, Scalar):
                worst = self.amount(name, worst_node.text, worst_node.line)
            elif worst_node:
                self.mistakes.add(worst_node.line, f"{name} worst is not a number.")
            if worst is not None and worst_node:
                if scale == "log" and worst <= 0:
                    self.mistakes.add(worst_node.line, f"{name} worst {worst:g} has no logarithm; it must be above 0.")
                if metric == "accuracy" and not 0 <= worst < 100:
                    self.mistakes.add(
                        worst_node.line, f"accuracy worst {worst:g} is not a percentage from 0 to below 100."
                    )
            batch = self.value(fields.entries.get("batch"), f"{name} batch", Whole(1, 65536)) or batch
            found.append(Objective(metric, natural, worst or 0.0, scale))
        return tuple(found), batch

    def fidelity(self, node: Node | None) -> Fidelity | None:
        known = ("dataset", "images", "validation", "epochs", "rungs", "recipe")
        section = self.mapping(node, "fidelity", known, required=("dataset",)) if node else None
        if section is None:
            return None
        entries = section.entries
        dataset = entries.get("dataset")
        if dataset and not (isinstance(dataset, Scalar) and re.fullmatch(r"[A-Za-z][\w.-]*", dataset.text)):
            self.mistakes.add(
                dataset.line, f"dataset {_show(dataset)} is not a name, such as mnist5k, cifar10 or flowers."
            )
        images = self.value(entries.get("images"), "images", Whole(1))
        validation = self.share(entries.get("validation"), "validation", 0.2)
        if not 0 < validation < 1:
            self.mistakes.add(entries["validation"].line, "validation is not a share between 0 and 1, such as 20%.")
        if ("epochs" in entries) == ("rungs" in entries):
            self.mistakes.add(section.line, "fidelity needs either epochs: 6 or rungs: {epochs: [2, 6], keep: 1/3}.")
        epochs, keep = self.rungs(entries.get("epochs"), entries.get("rungs"))
        recipe = self.recipe(entries.get("recipe"))
        if not isinstance(dataset, Scalar) or not epochs:
            return None
        return Fidelity(dataset.text, images, validation, epochs, keep, recipe)

    def rungs(self, epochs: Node | None, rungs: Node | None) -> tuple[tuple[int, ...], float]:
        keep = 1.0
        if rungs is not None:
            fields = self.mapping(rungs, "rungs", ("epochs", "keep"), required=("epochs",))
            if fields is None:
                return (), keep
            epochs = fields.entries.get("epochs")
            keep = self.share(fields.entries.get("keep"), "keep", 1.0)
            if not 0 < keep <= 1:
                self.mistakes.add(fields.entries["keep"].line, "keep is not a share above 0 and up to 1, such as 1/3.")
        if epochs is None:
            return (), keep
        items = epochs.items if isinstance(epochs, Sequence) else (epochs,)
        found = [self.value(item, "epochs", Whole(1, 1_000_000)) for item in items]
        numbers = [number for number in found if number is not None]
        if not items or numbers != sorted(set(numbers)):
            self.mistakes.add(epochs.line, f"epochs {_show(epochs)} do not rise from rung to rung, such as [2, 6, 18].")
        return tuple(numbers), keep

    def recipe(self, node: Node | None) -> dict[str, Dim]:
        places = scalar_fields(Recipe)
        section = self.mapping(node, "recipe", (*places, "augmentation")) if node else None
        dims = self.fields(section, Recipe, "recipe.")
        inner = section.entries.get("augmentation") if section else None
        augmentation = self.mapping(inner, "augmentation", tuple(scalar_fields(Augmentation))) if inner else None
        nested = self.fields(augmentation, Augmentation, "recipe.augmentation.")
        return dims | {f"augmentation.{name}": dim for name, dim in nested.items()}

    def fixed_points(self, node: Node | None, resolution: int | None) -> FixedPoints:
        section = self.mapping(node, "fixed_points", ("names", "fit"), required=("names",)) if node else None
        if section is None:
            return FixedPoints()
        fit = self.value(section.entries.get("fit"), "fit", OneOf(FITS)) or "resolution"
        listed = section.entries.get("names")
        items = listed.items if isinstance(listed, Sequence) else (listed,) if listed else ()
        names: list[str] = []
        for item in items:
            name = item.text if isinstance(item, Scalar) else ""
            if name not in papers.NAMES:
                self.mistakes.add(
                    item.line, f"fixed point {_show(item)} is not known.{did_you_mean(name, papers.NAMES)}"
                )
            elif name in names:
                self.mistakes.add(item.line, f"fixed point {name} is named twice.")
            else:
                names.append(name)
                if resolution and fit != "space":
                    try:
                        _check_fit(name, fit, resolution)
                    except ArchitectureError as error:
                        self.mistakes.add(item.line, f"fixed point {name}: {error}. Write fit: space, or leave it out.")
        return FixedPoints(tuple(names), fit)

    def search(self, node: Node | None) -> tuple[int, int]:
        section = self.mapping(node, "search", ("trials", "seed")) if node else None
        entries = section.entries if section else {}
        trials = self.value(entries.get("trials"), "trials", Whole(1, 10_000_000))
        seed = self.value(entries.get("seed"), "seed", Whole(0, 2**31 - 1))
        return trials or 24, seed or 0

    # --- layouts ---

    def layouts(self, node: Node | None) -> tuple[LayoutPlaces, ...]:
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
            if place is not None and layouts and id(place) not in used:
                self.mistakes.add(outer.lines[field], f"{field} is never used: every layout says its own.")
        return tuple(layouts)

    def layout(
        self, name: str, line: int, node: Node, above: dict[str, Place | None], used: set[int]
    ) -> LayoutPlaces | None:
        body = self.mapping(node, f"layout {name}", ("patch", *STAGE_FIELDS, "stages"))
        if body is None:
            return None
        if "stages" in body.entries and "depth" in body.entries:
            self.mistakes.add(
                body.lines["depth"],
                f"layout {name} has both depth (isotropic) and stages (pyramid); depth belongs into each stage.",
            )
            return None
        own = self.places(body, f"{name}.")
        stages: list[tuple[dict[str, Place | None], int, str]] = []
        if "stages" in body.entries:
            listed = body.entries["stages"]
            if not isinstance(listed, Sequence) or not listed.items:
                self.mistakes.add(listed.line, f"stages of layout {name} is a list: [{{depth: 2, width: 64}}, ...].")
                return None
            for number, item in enumerate(listed.items, 1):
                stage = self.mapping(item, f"stage {number}", STAGE_FIELDS)
                if stage is None:
                    return None
                stages.append(
                    (self.places(stage, f"{name}.stage{number}."), item.line, f"stage {number} of layout {name}")
                )
        else:
            stages.append(({}, line, f"layout {name}"))
        seen: set[int] = set()
        found = [self.stage((inner, own, above), at, what, seen) for inner, at, what in stages]
        patch = self.pick("patch", (own, above), line, f"layout {name}", seen)
        for field, place in own.items():
            if place is not None and id(place) not in seen:
                self.mistakes.add(
                    body.lines[field], f"{field} is never used: every stage of layout {name} says its own."
                )
        used |= seen
        if patch is None or any(stage is None for stage in found):
            return None
        return LayoutPlaces(name, patch, tuple(stage for stage in found if stage))

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

    def check_points(self, layouts: tuple[LayoutPlaces, ...], resolution: int) -> None:
        """Values that no point of the space can have are refused here; combinations are simply no points."""
        occurring: set[tuple[int, Value]] = set()
        counts = {
            layout.name: count_layout(layout, resolution, lambda dim, value: occurring.add((id(dim), value)))
            for layout in layouts
        }
        patches: dict[int, list[int]] = {}  # id of a patch dimension -> strides it must divide with
        for layout in layouts:
            patches.setdefault(id(layout.patch), []).append(2 ** (len(layout.stages) - 1))
        for layout in layouts:
            line = self.lines.get(id(layout.patch), 1)
            strides = patches[id(layout.patch)]
            if isinstance(layout.patch, Span):
                sizes = [p for p in values(layout.patch) or [] if isinstance(p, int)]
                if not any(resolution % (p * stride) == 0 for p in sizes for stride in strides):
                    self.mistakes.add(line, f"patch {layout.patch}: none of these divides {resolution} pixels.")
                continue
            for value in values(layout.patch) or []:
                assert isinstance(value, int)
                if not any(resolution % (value * stride) == 0 for stride in strides):
                    self.mistakes.add(line, _no_patch(value, resolution, min(strides)))
        if self.mistakes:
            return
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

    # --- places ---

    def branch(self, node: Node, name: str, table: dict[str, type[Any]]) -> Branch | None:
        what = name.rsplit(".", 1)[-1]
        kinds: list[tuple[str, int, Node | None]] = []
        if isinstance(node, Scalar):
            kinds = [(node.text, node.line, None)]
        elif isinstance(node, Sequence):
            for item in node.items:
                if isinstance(item, Scalar):
                    kinds.append((item.text, item.line, None))
                else:
                    self.mistakes.add(
                        item.line, f"{what}: kinds with settings are a mapping, {{dense: {{ratio: 0.5}}}}."
                    )
        else:
            kinds = [(kind, node.lines[kind], inner) for kind, inner in node.entries.items()]
        if not kinds:
            self.mistakes.add(node.line, f"{what} is empty. Known: {', '.join(sorted(table))}.")
            return None
        options: list[Option] = []
        for kind, line, inner in kinds:
            kind = "none" if kind in ("", "~", "null") and "none" in table else kind
            if kind not in table:
                self.mistakes.add(line, f'{what} "{kind}" is not known.{did_you_mean(kind, table)}')
            elif any(option.kind == kind for option in options):
                self.mistakes.add(line, f"{what} {kind} stands twice.")
            else:
                options.append(self.option(kind, table[kind], inner, f"{name}.{kind}."))
        branch = Branch(name, tuple(options)) if options else None
        return self.remember(branch, node.line) if branch else None

    def option(self, kind: str, type_: type[Any], node: Node | None, prefix: str) -> Option:
        empty = node is None or (isinstance(node, Scalar) and node.text in ("", "~", "null"))
        body = None if empty else self.mapping(node, kind, tuple(scalar_fields(type_)))
        return Option(kind, type_, self.fields(body, type_, prefix))

    def fields(self, body: Mapping | None, type_: type[Any], prefix: str) -> dict[str, Dim]:
        """A dimension for each scalar field of a dataclass: what the body says, else its default."""
        dims: dict[str, Dim] = {}
        for field, takes in scalar_fields(type_).items():
            node = body.entries.get(field) if body else None
            found = self.dim(node, prefix + field, takes, field) if node else None
            dims[field] = found or Fixed(type_.__dataclass_fields__[field].default)
        return dims

    def dim(self, node: Node, name: str, takes: Takes, what: str) -> Dim | None:
        if isinstance(node, Mapping):
            self.mistakes.add(node.line, f"{what} takes {takes}, a list or a range of such; found a mapping.")
            return None
        if isinstance(node, Sequence):
            return self.choice(node, name, takes, what)
        ends = range_text(node.text)
        if ends and isinstance(takes, Whole | Real):
            dim = self.span(node, name, takes, what)
            return self.remember(dim, node.line) if dim else None
        found, value = self.scalar(node, what, takes)
        return self.remember(Fixed(value), node.line) if found else None

    def choice(self, node: Sequence, name: str, takes: Takes, what: str) -> Dim | None:
        found: list[Value] = []
        if not node.items:
            self.mistakes.add(node.line, f"{what} is an empty list; it takes {takes}.")
            return None
        for item in node.items:
            good, value = self.scalar(item, what, takes)
            if good and any(value == other and type(value) is type(other) for other in found):
                self.mistakes.add(item.line, f"{what} {_show(item)} stands twice in one list.")
            elif good:
                found.append(value)
        if not found:
            return None
        return self.remember(Choice(name, tuple(found)) if len(found) > 1 else Fixed(found[0]), node.line)

    def span(self, node: Scalar, name: str, takes: Whole | Real, what: str) -> Dim | None:
        ends = range_text(node.text)
        assert ends
        shown = f"{what} {node.text}"
        numbers: list[Any] = []
        for text in (ends.low, ends.high):
            number = scalar(text)
            if isinstance(takes, Real) and isinstance(number, int):
                number = float(number)
            complaint = "is no number" if isinstance(number, str) else takes.complaint(number)
            if not text:
                complaint = "is missing: a dimension has two ends"
            if complaint:
                self.mistakes.add(node.line, f"{shown}: {text or 'an end'} {complaint}.")
                return None
            numbers.append(number)
        low, high = numbers
        step: Any = scalar(ends.step) if ends.step else None
        if ends.step and (
            isinstance(step, str) or step <= 0 or (isinstance(takes, Whole) and not isinstance(step, int))
        ):
            self.mistakes.add(
                node.line,
                f"{shown}: step {ends.step} is not a {'whole ' if isinstance(takes, Whole) else ''}number above 0.",
            )
            return None
        if low > high:
            self.mistakes.add(node.line, f"{shown} runs backwards: {high:g}..{low:g}.")
            return None
        if low == high:
            return Fixed(low)
        if ends.log and low <= 0:
            self.mistakes.add(node.line, f"{shown}: a log range begins above 0.")
            return None
        if isinstance(takes, Whole):
            if takes.odd and (ends.log or (step or 1) % 2):
                self.mistakes.add(node.line, f"{shown} holds even numbers; it takes {takes}: {low}..{high} step 2.")
                return None
            step = None if ends.log else step or 1
        if step is not None:
            steps = (high - low) / step
            if not math.isclose(steps, round(steps), abs_tol=1e-9):
                below = low + math.floor(steps) * step
                ways = [f"{low:g}..{end:g}" for end in (below, below + step) if end > low and not takes.complaint(end)]
                self.mistakes.add(node.line, f"{shown} does not end on a step: {' or '.join(ways)}.")
                return None
        return Span(name, low, high, step, ends.log)

    # --- small things ---

    def scalar(self, node: Node, what: str, takes: Takes) -> tuple[bool, Any]:
        """(whether it will do, the value) of one scalar."""
        if not isinstance(node, Scalar):
            self.mistakes.add(node.line, f"{what} takes {takes}; found {_show(node)}.")
            return False, None
        value: Any = node.text
        if isinstance(takes, Flag):
            word = flag(node.text)
            value = node.text if word is None else word
        elif isinstance(takes, Real) and takes.or_none and node.text.lower() in ("none", "null", "~", "off", "no"):
            value = None
        elif isinstance(takes, Whole | Real):
            value = scalar(node.text)
            if isinstance(takes, Real) and isinstance(value, int):
                value = float(value)
        elif isinstance(takes, OneOf) and node.text not in takes.words:
            self.mistakes.add(node.line, f'{what} "{node.text}" is not known.{did_you_mean(node.text, takes.words)}')
            return False, None
        complaint = takes.complaint(value)
        if complaint:
            self.mistakes.add(node.line, f"{what} {_show(node)} {complaint}.")
            return False, None
        return True, value

    def value(self, node: Node | None, what: str, takes: Takes) -> Any:
        return None if node is None else self.scalar(node, what, takes)[1]

    def share(self, node: Node | None, what: str, default: float) -> float:
        if node is None:
            return default
        found = share(node.text) if isinstance(node, Scalar) else None
        if found is None:
            self.mistakes.add(node.line, f"{what} {_show(node)} is not a share, such as 20%, 0.2 or 1/5.")
        return default if found is None else found

    def mapping(
        self, node: Node | None, what: str, known: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> Mapping | None:
        if node is None:
            return None
        if not isinstance(node, Mapping):
            self.mistakes.add(node.line, f"{what} is a mapping with the keys {', '.join(known)}; found {_show(node)}.")
            return None
        for key in node.entries:
            if key not in known:
                self.mistakes.add(node.lines[key], f'{what}: "{key}" is not known.{did_you_mean(key, known)}')
        for key in required:
            if key not in node.entries:
                self.mistakes.add(node.line, f"{what} lacks {key}.")
        return node

    def remember(self, place: Any, line: int) -> Any:
        self.lines[id(place)] = line
        self.kept.append(place)
        return place


def _check_fit(name: str, fit: str, resolution: int) -> None:
    if fit == "resolution":
        papers.at_resolution(name, resolution)
    else:
        papers.get(name).grid(resolution)


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


def _show(node: Node) -> str:
    if isinstance(node, Scalar):
        text = node.text if len(node.text) <= 60 else node.text[:57] + "..."
        return f'"{text}"'
    return "a list" if isinstance(node, Sequence) else "a mapping"
