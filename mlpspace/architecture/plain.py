"""Architectures as plain dicts, lists and scalars, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlpspace.architecture.blocks import BLOCKS
from mlpspace.architecture.channel_mixers import CHANNEL_MIXERS
from mlpspace.architecture.heads import HEADS
from mlpspace.architecture.stems import MERGINGS, STEMS
from mlpspace.architecture.token_mixers import TOKEN_MIXERS
from mlpspace.architecture.words import kind_of
from mlpspace.errors import ArchitectureError, did_you_mean
from mlpspace.fields import scalar_fields

TABLES: dict[str, dict[str, type[Any]]] = {
    "stem": STEMS,
    "merging": MERGINGS,
    "token_mixer": TOKEN_MIXERS,
    "channel_mixer": CHANNEL_MIXERS,
    "block": BLOCKS,
    "head": HEADS,
}
"""Each part of an architecture that is one of several kinds, with their names."""


_NAMES: dict[type[Any], tuple[str, ...]] = {}  # of fields; asked for each part of each candidate


def _names(kind: type[Any]) -> tuple[str, ...]:
    if kind not in _NAMES:
        _NAMES[kind] = tuple(f.name for f in dataclasses.fields(kind))
    return _NAMES[kind]


def to_dict(value: Any) -> dict[str, Any]:
    """A dataclass of the language as plain values; one of a kind from a table carries its name under "kind"."""
    told: dict[str, Any] = {}
    for name in _names(type(value)):
        inner = getattr(value, name)
        if name in TABLES:
            told[name] = {"kind": kind_of(TABLES[name], inner), **to_dict(inner)}
        elif name == "stages":
            told[name] = [to_dict(stage) for stage in inner]
        else:
            told[name] = inner
    return told


def read(told: Any, whole: type[Any], stage: type[Any], *, most_stages: int) -> Any:
    """The `whole`, with its stages of type `stage`, that `to_dict` told.

    Raises:
        ArchitectureError: something in it is unknown, missing or out of range; the text names its place.
    """
    fields = _object(told, whole, "architecture")
    stages = fields.get("stages")
    if not isinstance(stages, list) or not stages:
        raise ArchitectureError("architecture.stages: at least one stage is needed")
    if len(stages) > most_stages:
        raise ArchitectureError(f"architecture.stages: {len(stages):,} are too many, up to {most_stages} are taken")
    merging = fields.get("merging")
    if isinstance(merging, dict) and "kind" not in merging:  # before there were other kinds, it had none
        fields["merging"] = {"kind": "conv", **merging}
    fields["stem"] = _member("stem", fields.get("stem"), "stem")
    for name in ("head", "merging"):
        if name in fields:
            fields[name] = _member(name, fields[name], name)
    fields["stages"] = tuple(_stage(each, stage, f"stages[{i}]") for i, each in enumerate(stages))
    return _make(whole, fields, "architecture")


def _stage(told: Any, kind: type[Any], where: str) -> Any:
    fields = _object(told, kind, where)
    for name in ("token_mixer", "channel_mixer", "block"):
        if name in fields:
            fields[name] = _member(name, fields[name], f"{where}.{name}")
    return _make(kind, fields, where)


def _member(name: str, told: Any, where: str) -> Any:
    if not isinstance(told, dict) or not isinstance(told.get("kind"), str):
        raise ArchitectureError(f'{where}: expected an object with a "kind"')
    kind = told["kind"]
    table = TABLES[name]
    if kind not in table:
        raise ArchitectureError(f'{where}: kind "{_short(kind)}" is not known.{did_you_mean(kind, table)}')
    inner = {key: value for key, value in told.items() if key != "kind"}
    return _make(table[kind], _object(inner, table[kind], where), where)


def _object(told: Any, kind: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ArchitectureError(f"{where}: expected an object, found {type(told).__name__}")
    known = {f.name for f in dataclasses.fields(kind)}
    for key in told:
        if key not in known:
            raise ArchitectureError(f'{where}: "{_short(str(key))}" is not known.{did_you_mean(str(key), known)}')
    return dict(told)


def _make(kind: type[Any], fields: dict[str, Any], where: str) -> Any:
    missing = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in fields]
    if missing:
        raise ArchitectureError(f"{where}: {', '.join(missing)} missing")
    try:
        return kind(**fields)
    except ValueError as error:
        raise ArchitectureError(f"{where}: {_short(str(error))}") from None


def _short(text: str) -> str:
    """What was found may be a whole book."""
    return text if len(text) <= 500 else f"{text[:497]}..."


def required_fields(kind: type[Any]) -> tuple[str, ...]:
    """Names of the scalar fields that have no default."""
    scalars = scalar_fields(kind)
    return tuple(f.name for f in dataclasses.fields(kind) if f.name in scalars and f.default is dataclasses.MISSING)
