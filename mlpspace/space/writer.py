"""Architecture -> the YAML that says it in a space file."""

from __future__ import annotations

from typing import Any

from mlpspace.architecture import CHANNEL_MIXERS, TOKEN_MIXERS, Architecture, MeanHead, Patches, Stage, kind_of
from mlpspace.fields import scalar_fields
from mlpspace.space.dims import word


def layout_yaml(architecture: Architecture, name: str, indent: int = 4) -> str:
    """The architecture as a named layout, to be pasted under `layout:` of a space file.

    What a space file has no words for (a published network's own stem, merging or head) stands above it as a comment.
    """
    lines = [f"# not said here: {part}" for part in _unsaid(architecture)]
    lines.append(f"{name}:")
    if isinstance(architecture.stem, Patches):
        lines.append(f"  patch: {architecture.stem.patch}")
    if len(architecture.stages) == 1:
        lines += [f"  {line}" for line in _stage_lines(architecture.stages[0])]
    else:
        lines.append("  stages:")
        for stage in architecture.stages:
            first, *rest = _stage_lines(stage)
            lines.append(f"    - {first}")
            lines += [f"      {line}" for line in rest]
    return "\n".join(" " * indent + line for line in lines) + "\n"


def _stage_lines(stage: Stage) -> list[str]:
    return [
        f"depth: {stage.depth}",
        f"width: {stage.width}",
        f"norm: {stage.norm}",
        f"layer_scale: {word(stage.layer_scale)}",
        f"token_mixer: {_mixer(TOKEN_MIXERS, stage.token_mixer)}",
        f"channel_mixer: {_mixer(CHANNEL_MIXERS, stage.channel_mixer)}",
    ]


def _mixer(table: dict[str, type[Any]], mixer: Any) -> str:
    fields = ", ".join(f"{name}: {word(getattr(mixer, name))}" for name in scalar_fields(type(mixer)))
    return f"{{{kind_of(table, mixer)}: {{{fields}}}}}"


def _unsaid(architecture: Architecture) -> list[str]:
    said = Architecture(
        stem=architecture.stem
        if not isinstance(architecture.stem, Patches)
        else Patches(patch=architecture.stem.patch),
        stages=architecture.stages,
        head=MeanHead(norm=architecture.stages[-1].norm),
    )
    parts = [
        str(getattr(architecture, part))
        for part in ("merging", "head")
        if getattr(architecture, part) != getattr(said, part)
    ]
    if not isinstance(architecture.stem, Patches) or architecture.stem != said.stem:
        parts.insert(0, str(architecture.stem))
    return parts
