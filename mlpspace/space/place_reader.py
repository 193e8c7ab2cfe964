"""Places of a space file -> dimensions: scalars, lists, ranges and kinds, each mistake noted with its line."""

from __future__ import annotations

import math
from dataclasses import MISSING
from typing import Any

from mlpspace.architecture import required_fields
from mlpspace.errors import did_you_mean
from mlpspace.fields import Flag, OneOf, Real, Takes, Whole, scalar_fields
from mlpspace.space.dims import Branch, Choice, Dim, Fixed, Option, Place, Span, Value, word
from mlpspace.space.text import Mapping, Mistakes, Node, Scalar, Sequence, flag, range_text, scalar, share

EXAMPLES = {"patch": 4, "units": 64}  # of fields that must be said
MOST_STEPS = 1_000_000


class PlaceReader:
    """Reads node by node. A method returns None, its mistake noted, where there is nothing to go on with."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.lines: dict[int, int] = {}  # id of a dimension -> line of its value
        self.kept: list[Place] = []  # keeps those ids alive, hence unique
        self.kind_lines: dict[tuple[str, str], int] = {}  # name of a branch, kind -> line of that kind

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
                    self.mistakes.add(item.line, f"{what}: kinds with settings are a mapping, {_kind_example(table)}.")
        else:
            kinds = [(kind, node.lines[kind], inner) for kind, inner in node.entries.items()]
        if not kinds and not (isinstance(node, Sequence) and node.items):
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
                self.kind_lines[name, kind] = line
                options.append(self.option(kind, table[kind], line, inner, f"{name}.{kind}."))
        branch = Branch(name, tuple(options)) if options else None
        return self.remember(branch, node.line) if branch else None

    def option(self, kind: str, type_: type[Any], line: int, node: Node | None, prefix: str) -> Option:
        empty = node is None or (isinstance(node, Scalar) and node.text in ("", "~", "null"))
        known = scalar_fields(type_)
        if not known and not empty and not (isinstance(node, Mapping) and not node.entries):
            self.mistakes.add(line, f"{kind} has no settings; write {kind}: {{}}.")
            return Option(kind, type_, {})
        body = None if empty else self.mapping(node, kind, tuple(known))
        if empty or body is not None:
            for field in required_fields(type_):
                if body is None or field not in body.entries:
                    example = f"{kind}: {{{field}: {EXAMPLES.get(field, 4)}}}"
                    self.mistakes.add(line, f"{kind} lacks {field}, {known[field]}, such as {example}.")
        return Option(kind, type_, self.fields(body, type_, prefix))

    def fields(self, body: Mapping | None, type_: type[Any], prefix: str) -> dict[str, Dim]:
        """A dimension for each scalar field of a dataclass: what the body says, else its default, if it has one."""
        dims: dict[str, Dim] = {}
        for field, takes in scalar_fields(type_).items():
            node = body.entries.get(field) if body else None
            found = self.dim(node, prefix + field, takes, field) if node else None
            default = type_.__dataclass_fields__[field].default
            if found or default is not MISSING:
                dims[field] = found or Fixed(default)
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
        found: dict[tuple[type, Value], Value] = {}  # with their types, as 1 and true are equal
        if not node.items:
            self.mistakes.add(node.line, f"{what} is an empty list; it takes {takes}.")
            return None
        for item in node.items:
            good, value = self.scalar(item, what, takes)
            if good and (type(value), value) in found:
                self.mistakes.add(item.line, f"{what} {show(item)} stands twice in one list.")
            elif good:
                found[type(value), value] = value
        if not found:
            return None
        values = tuple(found.values())
        return self.remember(Choice(name, values) if len(values) > 1 else Fixed(values[0]), node.line)

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
            if (takes.odd or takes.even) and (ends.log or (step or 1) % 2):
                self.mistakes.add(
                    node.line,
                    f"{shown} holds {'even' if takes.odd else 'odd'} numbers; it takes {takes}: {low}..{high} step 2.",
                )
                return None
            step = None if ends.log else step or 1
        if step is not None:
            steps = (high - low) / step
            if steps > MOST_STEPS:
                self.mistakes.add(node.line, f"{shown} holds over {MOST_STEPS:,} values; leave the step out for any.")
                return None
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
            self.mistakes.add(node.line, f"{what} takes {takes}; found {show(node)}.")
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
            self.mistakes.add(node.line, f"{what} {show(node)} {complaint}.")
            return False, None
        return True, value

    def value(self, node: Node | None, what: str, takes: Takes) -> Any:
        return None if node is None else self.scalar(node, what, takes)[1]

    def share(self, node: Node | None, what: str, default: float) -> float:
        if node is None:
            return default
        found = share(node.text) if isinstance(node, Scalar) else None
        if found is None:
            self.mistakes.add(node.line, f"{what} {show(node)} is not a share, such as 20%, 0.2 or 1/5.")
        return default if found is None else found

    def mapping(
        self, node: Node | None, what: str, known: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> Mapping | None:
        if node is None:
            return None
        if not isinstance(node, Mapping):
            self.mistakes.add(node.line, f"{what} is a mapping with the keys {', '.join(known)}; found {show(node)}.")
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


def _kind_example(table: dict[str, type[Any]]) -> str:
    """A kind with a setting, as a file says it: {dense: {ratio: 0.5}}."""
    kind, type_ = next((kind, type_) for kind, type_ in table.items() if scalar_fields(type_))
    field = next(iter(scalar_fields(type_)))
    default = type_.__dataclass_fields__[field].default
    return f"{{{kind}: {{{field}: {EXAMPLES.get(field, 4) if default is MISSING else word(default)}}}}}"


def show(node: Node) -> str:
    if isinstance(node, Scalar):
        text = node.text if len(node.text) <= 60 else node.text[:57] + "..."
        return f'"{text}"'
    return "a list" if isinstance(node, Sequence) else "a mapping"
