"""YAML text -> nodes that know their line.

PyYAML's objects have lost their lines, load `1e-3` as a string, `no` as False, `1:30` as 90, and let the last of two
equal keys win in silence. So we take its nodes, and read the scalars ourselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

# A space file has some hundreds of values and a few thousand characters. These keep what is none from taking minutes.
MOST_NODES = 10_000  # a few aliases of aliases can stand for billions of nodes
MOST_CHARACTERS = 200_000
LONGEST_SCALAR = 200  # characters


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word or a number, as written."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """[a, b, c]"""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """{key: value}; `lines` has the line of each key."""

    line: int
    entries: dict[str, Node]
    lines: dict[str, int] = field(default_factory=dict)


Node: TypeAlias = Scalar | Sequence | Mapping


class Mistakes:
    """The mistakes found so far in one file, each with its line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._found: dict[tuple[int, str], None] = {}  # an alias is read wherever it is used, its mistake is one

    def add(self, line: int, text: str) -> None:
        self._found[line, text.replace("\n", "\\n")] = None

    def lines(self) -> list[str]:
        """`file:line: text`, in the order of the file."""
        return [f"{self.path}:{line}: {text}" for line, text in sorted(self._found, key=lambda found: found[0])]

    def __bool__(self) -> bool:
        return bool(self._found)


def parse(text: str, mistakes: Mistakes, needs: str) -> Node | None:
    """The root node of a YAML text; None, with the mistake noted, where there is none. `needs`: what it should hold."""
    if len(text) > MOST_CHARACTERS:
        mistakes.add(1, f"{len(text):,} characters are too many: up to {MOST_CHARACTERS:,} are read.")
        return None
    try:
        root = yaml.compose(text, Loader=_Composer)
    except _TooMany as error:
        mistakes.add(error.line, f"there are more than {MOST_NODES:,} values.")
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        mistakes.add(line, f"not valid YAML: the character {chr(error.character)!a} may not stand in it.")
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        hint = " (indent with spaces, not tabs)" if "\\t" in what else ""
        mistakes.add(mark.line + 1 if mark else 1, f"not valid YAML: {what}{hint}.")
        return None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        mistakes.add(1, f"not valid YAML: {what}.")
        return None
    if root is None:
        mistakes.add(1, f"the file is empty. {needs}")
        return None
    return _Converter(mistakes).node(root)


class _TooMany(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Composer(yaml.SafeLoader):
    """Counts as it goes, since PyYAML takes a second for every twenty thousand values."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _TooMany(self.peek_event().start_mark.line + 1)
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return ""  # no tag: what a value is, its place says


class _Converter:
    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.nodes = 0
        self.open: set[int] = set()  # nodes we are inside of: an alias to one of them would never end

    def node(self, raw: yaml.Node) -> Node:
        line = raw.start_mark.line + 1
        self.nodes += 1
        if self.nodes >= MOST_NODES:
            if self.nodes == MOST_NODES:
                self.mistakes.add(line, f"the aliases stand for more than {MOST_NODES:,} values.")
            return Scalar(line, "")
        if id(raw) in self.open or len(self.open) > 100:
            self.mistakes.add(line, "an alias stands inside of what it stands for, or values nest over 100 deep.")
            return Scalar(line, "")
        if raw.tag:
            tag = raw.tag.replace("tag:yaml.org,2002:", "!!")
            self.mistakes.add(line, f'the tag "{_short(tag)}" is not part of the space language; leave it out.')
        if isinstance(raw, yaml.ScalarNode):
            text = str(raw.value).strip()
            return Scalar(line, text if self.is_word(line, text) else "")
        self.open.add(id(raw))
        try:
            if isinstance(raw, yaml.SequenceNode):
                return Sequence(line, tuple(self.node(item) for item in raw.value))
            assert isinstance(raw, yaml.MappingNode)
            return self.mapping(raw, line)
        finally:
            self.open.discard(id(raw))

    def mapping(self, raw: yaml.MappingNode, line: int) -> Mapping:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for raw_key, raw_value in raw.value:
            at = raw_key.start_mark.line + 1
            if not isinstance(raw_key, yaml.ScalarNode):
                self.mistakes.add(at, "a key must be one word.")
                continue
            key = str(raw_key.value)
            if not self.is_word(at, key):
                continue
            if key == "<<":
                self.mistakes.add(at, 'merging with "<<" is not part of the space language; use "key: *name" instead.')
                continue
            if key in entries:
                self.mistakes.add(at, f'"{key}" stands twice in one mapping, first in line {lines[key]}.')
                continue
            entries[key] = self.node(raw_value)
            lines[key] = at
        return Mapping(line, entries, lines)

    def is_word(self, line: int, text: str) -> bool:
        if len(text) > LONGEST_SCALAR:
            self.mistakes.add(
                line, f'"{_short(text)}" has {len(text):,} characters; no word or number here is so long.'
            )
        return len(text) <= LONGEST_SCALAR


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# --- scalars --------------------------------------------------------------------------------------------------------

_WHOLE = re.compile(r"[+-]?\d+(_\d+)*", re.ASCII)
_REAL = re.compile(r"[+-]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FRACTION = re.compile(r"(\d{1,30}) */ *(\d{1,30})", re.ASCII)
_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def scalar(text: str) -> int | float | str:
    """A number where the text is one, else the text: `3e-3`, `1e6`, `10`, `layer`, `no`, `1:30` (a word)."""
    if len(text) <= 30 and _WHOLE.fullmatch(text):
        return int(text)
    if len(text) <= 40 and _REAL.fullmatch(text):
        return float(text.replace("_", ""))
    return text


def flag(text: str) -> bool | None:
    """True or False where the text is a word for one, in any of YAML's spellings."""
    return _WORDS.get(text.lower())


def share(text: str) -> float | None:
    """`0.2`, `20%` and `1/5` are one share; None where it is none."""
    fraction = _FRACTION.fullmatch(text)
    if fraction and int(fraction[2]):
        return int(fraction[1]) / int(fraction[2])
    value = scalar(text.removesuffix("%").strip())
    if isinstance(value, str):
        return None
    return value / 100 if text.endswith("%") else float(value)


def quantity(text: str) -> float | None:
    """A number with an optional K, M or G: `10M`, `1.5G`, `5000`; None where it is none."""
    suffix = text[-1:].upper()
    body = text[:-1] if suffix in ("K", "M", "G") else text
    value = scalar(body.strip())
    if isinstance(value, str):
        return None
    product = value * _SUFFIXES[suffix if body != text else ""]
    return product if product == product and abs(product) != float("inf") else None


_DURATION = re.compile(r"(\d+(\.\d+)?[dhms])+", re.ASCII)
_LONGEST = 1e9  # seconds, thirty years; no clock of the operating system waits for centuries
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def duration(text: str) -> float | None:
    """`90`, `90s`, `10m`, `1h30m` and `2d` in seconds; None where it is none."""
    if _DURATION.fullmatch(text):
        value: int | float | str = sum(float(n) * _SECONDS[unit] for n, unit in re.findall(r"([\d.]+)([dhms])", text))
    else:
        value = scalar(text)
    return None if isinstance(value, str) or not 0 <= value <= _LONGEST else float(value)


@dataclass(frozen=True, slots=True)
class RangeText:
    """`low..high`, `low..high step n`, `low..high log`; either end may be missing in a requirement."""

    low: str
    high: str
    step: str | None
    log: bool


_RANGE = re.compile(r"(?P<low>\S*?) *\.\. *(?P<high>\S*)( +step +(?P<step>\S+)| +(?P<log>log))?")


def range_text(text: str) -> RangeText | None:
    """The parts of a range; None where the text is none."""
    match = _RANGE.fullmatch(text)
    return RangeText(match["low"], match["high"], match["step"], bool(match["log"])) if match else None


def children(node: Node) -> Iterator[Node]:
    """The nodes directly inside of one."""
    if isinstance(node, Sequence):
        yield from node.items
    elif isinstance(node, Mapping):
        yield from node.entries.values()
