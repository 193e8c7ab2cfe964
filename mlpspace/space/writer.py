"""Architecture -> the YAML that says it, as a layout of a space file or as a file of its own."""

from __future__ import annotations

from typing import Any

from mlpspace.architecture import TABLES, Architecture, MeanHead, Merging, Patches, Stage, kind_of
from mlpspace.fields import default_of, scalar_fields
from mlpspace.space.dims import word

_MIXERS = ("token_mixer", "channel_mixer")
_DEFAULTS = {"norm": "layer", "layer_scale": "none", "channel_mixer": "mlp", "block": "residual", "merge": "true"}


def layout_yaml(architecture: Architecture, name: str, indent: int = 4) -> str:
    """The architecture as a named layout, to be pasted under `layout:` of a space file.

    What its reader takes for granted is left out, and what all stages agree on is said once. `read_architecture` reads
    it back to an equal architecture.
    """
    stages = [_stage(stage) for stage in architecture.stages]
    shared = {part: stages[0].pop(part) for part in list(stages[0])} if len(stages) == 1 else _agreed(stages)
    body = [
        f"{part}: {said}" for part, said in (_network(architecture) | shared).items() if _DEFAULTS.get(part) != said
    ]
    if len(stages) > 1:
        body.append("stages:")
        body += [f"  - {_flow({p: said for p, said in stage.items() if _DEFAULTS.get(p) != said})}" for stage in stages]
    return "\n".join(" " * indent + line for line in [f"{name}:", *(f"  {line}" for line in body)]) + "\n"


def _network(architecture: Architecture) -> dict[str, str]:
    """Stem, merging, head and norm_eps, as far as they are not what the reader takes for granted."""
    said = {}
    if architecture.stem == Patches(patch=getattr(architecture.stem, "patch", 1)):
        said["patch"] = word(architecture.stem.patch)
    else:
        said["stem"] = _kind("stem", architecture.stem)
    if architecture.merging != Merging():
        said["merging"] = _kind("merging", architecture.merging)
    norm = architecture.stages[-1].norm
    if architecture.head != MeanHead(norm=norm):
        said["head"] = _kind("head", architecture.head, norm=norm)
    if architecture.norm_eps != default_of(Architecture, "norm_eps"):
        said["norm_eps"] = word(architecture.norm_eps)
    return said


def _stage(stage: Stage) -> dict[str, str]:
    said = {name: word(getattr(stage, name)) for name in ("depth", "width")}
    if not getattr(stage.block, "own_mixers", False):
        said |= {name: _kind(name, getattr(stage, name)) for name in _MIXERS}
    said |= {name: word(getattr(stage, name)) for name in ("norm", "layer_scale")}
    return said | {"block": _kind("block", stage.block), "merge": word(stage.merge)}


def _agreed(stages: list[dict[str, str]]) -> dict[str, str]:
    """Takes out of the stages what all agree on; of the mixers, all that have one."""
    agreed = {}
    for part in (*_MIXERS, "norm", "layer_scale", "block"):
        found = {stage[part] for stage in stages if part in stage}
        if len(found) == 1:
            agreed[part] = found.pop()
            for stage in stages:
                stage.pop(part, None)
    return agreed


def _kind(table: str, part: Any, **defaults: Any) -> str:
    """`axial`, or `{axial: {local: 5}}` where a setting is not its default."""
    fields = type(part).__dataclass_fields__
    said = {
        name: word(getattr(part, name))
        for name in scalar_fields(type(part))
        if getattr(part, name) != defaults.get(name, fields[name].default)
    }
    kind = kind_of(TABLES[table], part)
    return _flow({kind: _flow(said)}) if said else kind


def _flow(said: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in said.items()) + "}"
