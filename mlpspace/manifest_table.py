"""What a study and its sessions noted, and what its measurements were made on: as text and as plain values."""

from __future__ import annotations

import dataclasses
import datetime
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlpspace.manifest import facts
from mlpspace.report import duration
from mlpspace.session import Session
from mlpspace.study import Study
from mlpspace.trial import Record

MADE = "when made"  # in place of a session's number, where the sessions noted nothing

_MACHINE = ("mlpspace", "python", "torch", "host", "system", "cpu", "gpus", "environment", "seeds", "data")


def as_json(study: Study) -> dict[str, Any]:
    """The study's manifest, its sessions with theirs, what differs between those, and what was measured on what."""
    sessions = study.sessions()
    noted = _noted(study, sessions)
    records = [record for trial in study.trials() for record in trial.records]
    return {
        "study": str(study.folder),
        "manifest": study.manifest,
        "sessions": [dataclasses.asdict(session) for session in sessions],
        "alike": alike(noted),
        "different": different(noted),
        "devices": _counted(records, ("metric", "device", "threads", "precision", "batch")),
        "datasets": _counted((each for each in records if each.data), ("dataset", "resolution", "data")),
    }


def rows(told: Mapping[str, Any]) -> dict[str, str]:
    """What a person reads of one manifest: "torch" -> "2.13.0+cu130, CUDA 13.0". A package goes by its name."""
    known = facts(told)

    def join(*parts: str | None) -> str:
        return ", ".join(part for part in parts if part)

    def get(name: str, before: str = "", after: str = "") -> str | None:
        return f"{before}{known[name]}{after}" if name in known else None

    def all_of(prefix: str, between: str) -> str:
        return ", ".join(
            f"{name[len(prefix) :]}{between}{value}" for name, value in known.items() if name.startswith(prefix)
        )

    commit = f"commit {known['git.commit'][:12]}" if "git.commit" in known else get("git.why", "commit not known: ")
    changed = get("git.diff", "changed (", ")") or ("changed" if known.get("git.changed") == "True" else None)
    about_cpu = "; ".join(text for name in ("cpu_model", "instructions") if (text := known.get(f"machine.{name}")))
    cores = get("machine.cores", after=" cores")
    packages = {"torch": known.get("torch.version") or known.get("packages.torch", "")}
    packages |= {
        name[9:]: value for name, value in known.items() if name.startswith("packages.") and name[9:] != "torch"
    }
    packages |= {name[6:]: value for name, value in known.items() if name.startswith("torch.") and "-" in name}
    found = {
        **packages,
        "mlpspace": join(known.get("packages.mlpspace"), commit, changed, get("source", "code ")),
        "python": known.get("python", ""),
        "torch": join(packages["torch"], get("torch.cuda", "CUDA "), get("torch.hip", "HIP ")),
        "host": known.get("machine.host", ""),
        "system": known.get("machine.system", ""),
        "cpu": join(
            join(known.get("machine.cpu"), cores) + (f" ({about_cpu})" if about_cpu else ""),
            get("machine.memory_gb", after=" GB of memory"),
        ),
        "gpus": join(known.get("machine.gpus"), get("machine.driver", "driver ")),
        "environment": all_of("environment.", "="),
        "seeds": all_of("seeds.", " "),
        "data": all_of("data.", " in "),
    }
    return {label: text for label, text in found.items() if text}


def alike(noted: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What is the same in all of `noted` (session -> `rows`)."""
    first, *others = noted.values()
    return {label: text for label, text in first.items() if all(each.get(label) == text for each in others)}


def different(noted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, list[str]]]:
    """What is not: label -> text -> the sessions that noted it. "none" stands for what a session did not have."""
    labels = {label: None for told in noted.values() for label in told}  # in order
    same, found = alike(noted), {}
    for label in labels:
        if label not in same:
            texts: dict[str, list[str]] = {}
            for session, told in noted.items():
                texts.setdefault(told.get(label, "none"), []).append(session)
            found[label] = texts
    return found


def _noted(study: Study, sessions: Sequence[Session]) -> dict[str, dict[str, str]]:
    noted = {str(session.number): rows(session.manifest) for session in sessions if session.manifest is not None}
    return noted or {MADE: rows(study.manifest)}


def _counted(records: Iterable[Record], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """How many of the records have each combination of values, the commonest first."""
    counted = Counter(tuple(getattr(record, name) for name in names) for record in records)
    return [dict(zip(names, values, strict=True)) | {"measurements": n} for values, n in counted.most_common()]


# --- for people -------------------------------------------------------------------------------------------------------


def text(study: Study, *, width: int = 120) -> str:
    """The same for people."""
    told, sessions = as_json(study), study.sessions()
    made = facts(study.manifest)
    lines = [
        f"{study.folder}: made {made.get('created', 'nobody noted when')}, space {made.get('space_id', 'not noted')}"
    ]
    lines += _sessions(sessions, width)
    noted = sum(session.manifest is not None for session in sessions)
    where = ("Noted when it was made", "Noted", "Alike in all sessions")[min(noted, 2)]
    lines += ["", where, *_alike(told["alike"], width)]
    if told["different"]:
        lines += ["", "DIFFERENT between sessions", *_different(told["different"], width)]
    lines += _measured(told["devices"])
    lines += _datasets(told["datasets"])
    return "\n".join(lines)


def _sessions(sessions: Sequence[Session], width: int) -> list[str]:
    if not sessions:
        return ["", "No search has begun yet."]
    cells = [
        (str(s.number), _when(s.started), duration(max(0.0, s.seen - s.started)), f"{s.host}, pid {s.pid}")
        for s in sessions
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["", "Sessions"]
    for session, row in zip(sessions, cells, strict=True):
        head = f"  {row[0]:>{widths[0]}}  {row[1]}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}"
        lines.append(f"{head}  {session.command}")
    without = [str(session.number) for session in sessions if session.manifest is None]
    if without:
        lines.append(f"  An older mlpspace noted nothing more of {', '.join(without)}.")
    return lines


def _alike(told: Mapping[str, str], width: int) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(told.items()) if name not in _MACHINE)
    shown = {label: told[label] for label in _MACHINE if label in told} | ({"packages": packages} if packages else {})
    return [line for label, value in shown.items() for line in _row(label, value, width)]


def _different(told: Mapping[str, Mapping[str, Sequence[str]]], width: int) -> list[str]:
    lines = []
    for label, texts in told.items():
        for i, (value, sessions) in enumerate(texts.items()):
            lines += _row("" if i else label, f"in {', '.join(sessions)}: {value}", width)
    return lines


def _row(label: str, value: str, width: int) -> list[str]:
    indent = 16
    first, *more = textwrap.wrap(value, max(40, width - indent), break_on_hyphens=False) or [""]
    return [f"  {label:<{indent - 4}}  {first}", *(f"{'':{indent}}{line}" for line in more)]


def _measured(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["", "Measured on"] if devices else []
    for each in devices:
        threads = f"{each['threads']} thread{'' if each['threads'] == 1 else 's'}"
        how = f"{threads}, {each['precision']}, batch {each['batch']}"
        lines.append(f"  {each['measurements']:>5} {each['metric']:<14}  {each['device']}, {how}")
    return lines


def _datasets(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    if not datasets:
        return []
    lines = ["", "Datasets, with the fingerprint of images, labels and split"]
    for each in datasets:
        known = f"{each['dataset']} at {each['resolution']} px"
        lines.append(f"  {each['measurements']:>5} accuracies on {known}: {each['data']}")
    if len({(each["dataset"], each["resolution"]) for each in datasets}) < len(datasets):
        lines.append("  These are NOT the same images: accuracies on them do not compare.")
    return lines


def _when(seconds: float) -> str:
    try:
        at = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "at no time"
    return at.strftime("%Y-%m-%d %H:%M UTC")
