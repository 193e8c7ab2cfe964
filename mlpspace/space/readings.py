"""What a layout says, as flat names and readings: equal for files that say the same in other words."""

from __future__ import annotations

from dataclasses import replace

from mlpspace.space.dims import Branch, Choice, Fixed, Option, Place, Span, dimensions, word
from mlpspace.space.layout import LayoutPlaces, StagePlaces


def layout_readings(layout: LayoutPlaces) -> dict[str, str]:
    """Name of a place -> what it may be."""
    told = {}
    stem = layout.stem.options[0]
    if len(layout.stem.options) == 1 and stem.kind == "patches" and stem.fields["bias"] == Fixed(True):
        told[f"{layout.name}.patch"] = _named(layout.patch, f"{layout.name}.patch")
    else:
        told[f"{layout.name}.stem"] = _named(layout.stem, f"{layout.name}.stem")
    for number, stage in enumerate(layout.stages, 1):
        where = f"{layout.name}.stage{number}" if len(layout.stages) > 1 else layout.name
        for name in StagePlaces.__dataclass_fields__:
            told[f"{where}.{name}"] = _named(getattr(stage, name), f"{where}.{name}")
    told[f"{layout.name}.merging"] = _named(layout.merging, f"{layout.name}.merging")
    told[f"{layout.name}.head"] = _named(_own_part(layout.head, layout), f"{layout.name}.head")
    told[f"{layout.name}.norm_eps"] = word(layout.norm_eps)
    return {name: what for name, what in told.items() if _LATER.get(name.rsplit(".", 1)[-1]) != what}


# Places that came after there were studies: left out where they have their default, so that ids stand.
_AS_LAST = Fixed("as the last stage")
_LATER = {
    "block": "residual{}",
    "merge": "true",
    "merging": "conv{bias: true}",
    "head": f"mean{{norm: {_AS_LAST.value}}}",
    "norm_eps": "1e-06",
}


def _own_part(head: Branch, layout: LayoutPlaces) -> Branch:
    """The head without the place that it shares with the last stage."""

    def own(option: Option) -> Option:
        fields = {n: _AS_LAST if dim is layout.stages[-1].norm else dim for n, dim in option.fields.items()}
        return replace(option, fields=fields)

    return replace(head, options=tuple(map(own, head.options)))


def reading(place: Place) -> str:
    """What a place may be."""
    if isinstance(place, Fixed):
        return word(place.value)
    if isinstance(place, Choice):  # the order of a list is free
        return "[" + ", ".join(sorted(map(word, place.values))) + "]"
    if isinstance(place, Span):
        return str(place)
    options = (
        option.kind + "{" + ", ".join(f"{name}: {reading(dim)}" for name, dim in _fields(option)) + "}"
        for option in place.options
    )
    return " | ".join(sorted(options))


def _fields(option: Option) -> list[tuple[str, Place]]:
    later = {"activation": Fixed("gelu")}  # as with the places above
    return sorted((name, dim) for name, dim in option.fields.items() if later.get(name) != dim)


def _named(place: Place, where: str) -> str:
    """What a place may be and where its dimensions stand: one above the layout is drawn once for all that use it."""
    if isinstance(place, Fixed) or place.name == where or not any(True for _ in dimensions(place)):
        return reading(place)
    return f"{reading(place)} as {place.name}"
