"""Space file -> Space, or every mistake in it at once, each with its line, what was found and what would do."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from mlpspace import papers
from mlpspace.errors import ArchitectureError, SpaceError, did_you_mean
from mlpspace.fields import Flag, OneOf, Takes, Whole, scalar_fields
from mlpspace.objectives import METRICS, Deployment, Objective
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.space.dims import Dim, word
from mlpspace.space.layout_checks import check_patches, check_points
from mlpspace.space.layout_reader import LayoutReader
from mlpspace.space.place_reader import show
from mlpspace.space.space import Bound, Fidelity, FixedPoints, Require, Space, Stop
from mlpspace.space.text import (
    MOST_CHARACTERS,
    Mapping,
    Mistakes,
    Node,
    Scalar,
    Sequence,
    duration,
    parse,
    quantity,
    range_text,
)

SECTIONS = ("task", "space", "require", "objectives", "fidelity", "fixed_points", "search")
FITS = ("exact", "resolution", "space")
SAMPLERS = ("default", "tpe", "nsga2", "random")
# what a file calls a metric; memory is told in bytes there, and kept in MB
METRIC_NAMES = {name: name for name in ("accuracy", "throughput", "params", "macs")} | {"peak_memory": "peak_memory_mb"}
TRAINED = {name for name, metric in METRICS.items() if metric.trained}
# of what throughput and memory are measured with; a device is any text
_DEPLOYMENT: dict[str, Takes | None] = {
    "batch": Whole(1, 65536),
    "precision": OneOf(("fp32", "bf16")),
    "compile": Flag(),
    "device": None,
}
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
    root = parse(text, mistakes, "A space needs task, space, objectives and fidelity.")
    space = _Reader(mistakes).space(root, text, path) if root is not None else None
    if mistakes or space is None:
        raise SpaceError(mistakes.lines())
    return space


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(4 * MOST_CHARACTERS + 1)  # and no more: some files never end, such as /dev/zero
        if len(data) > 4 * MOST_CHARACTERS:
            raise SpaceError([f"{path}:1: over {len(data) - 1:,} bytes are too many for a space file."])
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        near = sorted(str(p) for p in (path.parent if path.parent.is_dir() else Path("spaces")).glob("*.y*ml"))
        raise SpaceError([f"{path}: no such file. Spaces here: {', '.join(near) or 'none'}."]) from None
    except IsADirectoryError:
        raise SpaceError([f"{path}: is a folder; a space is one YAML file."]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpaceError([f"{path}:{line}: is not UTF-8 text (byte {error.start}: {error.reason})."]) from None
    except OSError as error:
        raise SpaceError([f"{path}: cannot be read: {error.strerror}."]) from None


class _Reader(LayoutReader):
    """Reads the other sections."""

    def space(self, root: Node, text: str, path: str) -> Space | None:
        sections = self.mapping(root, "the file", SECTIONS, required=("task", "space", "objectives", "fidelity"))
        if sections is None:
            return None
        get = sections.entries.get
        resolution, classes = self.task(get("task"))
        layouts = self.layouts(get("space"))
        if resolution:
            check_patches(self, resolution)
            if not self.mistakes:
                check_points(self, layouts, resolution)
        require = self.require(get("require"))
        objectives, deployment = self.objectives(get("objectives"))
        fidelity = self.fidelity(get("fidelity"))
        fixed_points = self.fixed_points(get("fixed_points"), resolution)
        trials, seed, sampler, stop = self.search(get("search"))
        named = get("objectives")
        if fidelity and fidelity.keep < 1 and isinstance(named, Mapping) and named.entries.keys().isdisjoint(TRAINED):
            self.mistakes.add(
                sections.lines["fidelity"],
                f"fidelity: with keep below 1 a rung stops what is behind after {fidelity.epochs[0]} epochs, but no "
                "objective takes training: add accuracy to the objectives, or leave keep out.",
            )
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
            deployment=deployment,
            fidelity=fidelity,
            fixed_points=fixed_points,
            trials=trials,
            seed=seed,
            sampler=sampler,
            stop=stop,
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
                        entry.line, f'width {show(entry)}: the one requirement it knows is "non-decreasing".'
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
            self.mistakes.add(node.line, f"{name} {show(node)} is not an open or closed range, such as {example}.")
            return None
        low, high = (self.amount(name, text, node.line) if text else None for text in (ends.low, ends.high))
        if (ends.low and low is None) or (ends.high and high is None):
            return None
        low, high = (0.0 if low is None else low), (math.inf if high is None else high)
        if low > high:
            self.mistakes.add(node.line, f"{name} {show(node)} runs backwards.")
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

    def objectives(self, node: Node | None) -> tuple[tuple[Objective, ...], Deployment]:
        section = self.mapping(node, "objectives", tuple(METRIC_NAMES)) if node else None
        found = []
        said: dict[str, Any] = {}  # of the deployment
        if section and not section.entries:
            self.mistakes.add(section.line, "objectives is empty; accuracy and throughput are the usual two.")
        for name, entry in section.entries.items() if section else ():
            if name not in METRIC_NAMES:
                continue
            metric = METRIC_NAMES[name]
            known = ("goal", "worst", "scale", *(_DEPLOYMENT if name in ("throughput", "peak_memory") else ()))
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
            self.deployment(fields, name, said)
            found.append(Objective(metric, natural, worst or 0.0, scale))
        return tuple(found), Deployment(**said)

    def deployment(self, fields: Mapping, name: str, said: dict[str, Any]) -> None:
        """What an objective says of how networks are going to be used; adds it to what another one said."""
        for key, takes in _DEPLOYMENT.items():
            node = fields.entries.get(key)
            if key == "device":
                asked = self.device(node)
            else:
                asked = self.value(node, f"{name} {key}", takes) if takes else None
            if asked is None:
                continue
            if key in said and said[key] != asked:
                self.mistakes.add(
                    fields.lines[key],
                    f"{name} {key} {word(asked)}: throughput and memory are measured together, with one {key}; "
                    f"the other says {word(said[key])}.",
                )
            said.setdefault(key, asked)

    def device(self, node: Node | None) -> str | None:
        """The name of the device that networks are going to run on."""
        if node is None:
            return None
        if isinstance(node, Scalar) and 0 < len(node.text.strip()) <= 200:
            return node.text.strip()
        self.mistakes.add(node.line, f'device {show(node)} is no name of a device, such as "A100", "Xeon" or cpu.')
        return None

    def fidelity(self, node: Node | None) -> Fidelity | None:
        known = ("dataset", "images", "validation", "epochs", "rungs", "recipe", "repeats_on_front", "timeout")
        section = self.mapping(node, "fidelity", known, required=("dataset",)) if node else None
        if section is None:
            return None
        entries = section.entries
        dataset = entries.get("dataset")
        if dataset and not (isinstance(dataset, Scalar) and re.fullmatch(r"[A-Za-z][\w.-]*", dataset.text)):
            self.mistakes.add(
                dataset.line, f"dataset {show(dataset)} is not a name, such as mnist5k, cifar10 or flowers."
            )
        images = self.value(entries.get("images"), "images", Whole(1))
        validation = self.share(entries.get("validation"), "validation", 0.2)
        if not 0 < validation < 1:
            self.mistakes.add(entries["validation"].line, "validation is not a share between 0 and 1, such as 20%.")
        if ("epochs" in entries) == ("rungs" in entries):
            self.mistakes.add(section.line, "fidelity needs either epochs: 6 or rungs: {epochs: [2, 6], keep: 1/3}.")
        epochs, keep = self.rungs(entries.get("epochs"), entries.get("rungs"))
        recipe = self.recipe(entries.get("recipe"))
        repeats = self.value(entries.get("repeats_on_front"), "repeats_on_front", Whole(0, 100))
        timeout = self.seconds(entries.get("timeout"), "timeout")
        if not isinstance(dataset, Scalar) or not epochs:
            return None
        return Fidelity(dataset.text, images, validation, epochs, keep, recipe, repeats or 0, timeout)

    def seconds(self, node: Node | None, what: str) -> float | None:
        found = duration(node.text) if isinstance(node, Scalar) else None
        if node is not None and not found:
            self.mistakes.add(node.line, f"{what} {show(node)} is not a duration above 0, such as 90s, 10m or 1h30m.")
        return found or None

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
            self.mistakes.add(epochs.line, f"epochs {show(epochs)} do not rise from rung to rung, such as [2, 6, 18].")
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
                near = did_you_mean(name, papers.FIXED_POINTS, listing="mlpspace papers")
                self.mistakes.add(item.line, f"fixed point {show(item)} is not known.{near}")
            elif name not in papers.FIXED_POINTS:
                self.mistakes.add(item.line, papers.NO_FIXED_POINT.format(name=name))
            elif name in names:
                self.mistakes.add(item.line, f"fixed point {name} is named twice.")
            else:
                names.append(name)
                try:
                    if resolution and fit == "exact":
                        papers.architecture(name).grid(resolution)
                    elif resolution and fit == "resolution":
                        papers.at_resolution(name, resolution)
                except ArchitectureError as error:
                    self.mistakes.add(item.line, f"fixed point {name}: {error}. Write fit: space, or leave it out.")
        return FixedPoints(tuple(names), fit)

    def search(self, node: Node | None) -> tuple[int, int, str, Stop | None]:
        section = self.mapping(node, "search", ("trials", "seed", "sampler", "stop")) if node else None
        entries = section.entries if section else {}
        trials = self.value(entries.get("trials"), "trials", Whole(1, 10_000_000))
        seed = self.value(entries.get("seed"), "seed", Whole(0, 2**31 - 1))
        sampler = self.sampler(entries.get("sampler"))
        return trials or 24, seed or 0, sampler or SAMPLERS[0], self.stop(entries.get("stop"))

    def sampler(self, node: Node | None) -> str | None:
        if isinstance(node, Scalar) and ":" in node.text:
            self.mistakes.add(
                node.line,
                f"sampler {show(node)} names code, which a space file never does. Leave it out here and type: "
                f"mlpspace search {self.mistakes.path} --sampler {node.text}",
            )
            return None
        found: str | None = self.value(node, "sampler", OneOf(SAMPLERS))
        return found

    def stop(self, node: Node | None) -> Stop | None:
        section = self.mapping(node, "stop", ("patience", "gain"), required=("patience", "gain")) if node else None
        if section is None:
            return None
        patience = self.value(section.entries.get("patience"), "patience", Whole(1, 10_000_000))
        gain_node = section.entries.get("gain")
        gain = self.share(gain_node, "gain", 0.005)
        if gain_node and not 0 < gain < 1:
            self.mistakes.add(
                gain_node.line, f"gain {show(gain_node)} is not a share above 0 and below 100%, such as 0.5%."
            )
        return Stop(patience, gain) if patience else None
