"""What people and programs are shown of a study: texts, tables, JSON, CSV; the picture is in `plot`. Nothing prints."""

from __future__ import annotations

import csv
import dataclasses
import io
import shlex
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlpspace.architecture import to_dict
from mlpspace.front import Entry, Front
from mlpspace.objectives import METRICS, Objective
from mlpspace.plot import plot_front as plot_front
from mlpspace.study import Record, Study, Trial

FIXED_POINT_MARK = "*"


# --- numbers for people ---------------------------------------------------------------------------------------------


def count(number: float) -> str:
    """Three digits and a unit: 950, 1.23k, 45.6M, 1.05G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # 999.6k would round to 1000k
            scaled = number / size
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """42 s, 5 min 07 s, 3 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def _networks(number: int) -> str:
    return f"{number} network{'' if number == 1 else 's'}"


def rate(value: float) -> str:
    """Images a second, or MB: 12,345 or 12.3."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def standard_error(accuracy: Record) -> float:
    """Of an accuracy, in percentage points: its bounds stand one to either side."""
    return (accuracy.high - accuracy.low) / 2


# --- the front as a table -------------------------------------------------------------------------------------------


def front_table(front: Front, width: int = 120, *, validation_images: int | None = None) -> str:
    """The front, the fixed points off it, what was left out, and what all of it rests on.

    Args:
        width: of the terminal, in characters; a network that does not fit is broken over lines.
        validation_images: how many stand behind an accuracy, if that is known.
    """
    parts = []
    if front.points:
        shown = [_cells(entry) for entry in front.points]
        off = [_cells(entry) for entry in front.fixed_points_off]
        lines = _aligned([*shown, *off], width)
        head, rows = lines[0], lines[1:]
        parts.append(
            f"Pareto front: {len(shown)} of {_networks(len(front.entries))}\n\n"
            + "\n".join([head, *rows[: len(shown)]])
        )
        if off:
            parts.append("Fixed points off the front\n\n" + "\n".join([head, *rows[len(shown) :]]))
        if any(entry.trial.label for entry in (*front.points, *front.fixed_points_off)):
            parts.append(f"{FIXED_POINT_MARK} a published network, measured like any trial")
    else:
        parts.append("Nothing to show yet: no trial has all that the objectives ask for.")
    if front.left_out:
        rows = [f"  {trials:>4}  {reason}" for reason, trials in front.left_out.items()]
        parts.append("Left out\n\n" + "\n".join(rows))
    if front.points:
        parts.append("\n".join(_footing(front, validation_images)))
    return "\n\n".join(parts)


_HEADINGS = ("", "trial", "accuracy %", "± se", "images/s", "95 % interval", "params", "MACs", "memory MB", "network")
_NUMBERS = len(_HEADINGS) - 1


def _cells(entry: Entry) -> list[str]:
    accuracy, speed = entry.records.get("accuracy"), entry.records.get("throughput")
    memory, trial = entry.records.get("peak_memory_mb"), entry.trial
    network = trial.architecture.describe()
    return [
        FIXED_POINT_MARK if trial.label else "",
        str(trial.number),
        f"{accuracy.value:.2f}" if accuracy else "-",
        f"{standard_error(accuracy):.2f}" if accuracy else "-",
        rate(speed.value) if speed else "-",
        f"{rate(speed.low)}..{rate(speed.high)}" if speed else "-",
        count(trial.params),
        count(trial.macs),
        rate(memory.value) if memory else "-",
        f"{trial.label}: {network}" if trial.label else network,
    ]


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The heading and each row; numbers to the right, networks to the left and broken where they are too long."""
    table = [_HEADINGS, *rows]
    # a column in which nobody has a number is left away
    columns = [i for i in range(_NUMBERS) if any(row[i] not in ("", "-") for row in rows)]
    widths = {i: max(len(row[i]) for row in table) for i in columns}
    lines = []
    for row in table:
        numbers = "  ".join(row[i].rjust(widths[i]) for i in columns)
        indent = len(numbers) + 2
        if width - indent >= 30:
            network = textwrap.wrap(row[-1], width - indent, break_on_hyphens=False)
            lines.append(f"{numbers}  {network[0]}" + "".join(f"\n{'':{indent}}{more}" for more in network[1:]))
        else:  # a narrow terminal: the network gets lines of its own
            network = textwrap.wrap(row[-1], max(20, width - 8), break_on_hyphens=False)
            lines.append(numbers + "".join(f"\n{'':8}{more}" for more in network))
    return lines


def _footing(front: Front, validation_images: int | None) -> list[str]:
    corner = ", ".join(_worst(objective) for objective in front.objectives)
    lines = [f"Hypervolume {front.hypervolume:.4g} (to the corner {corner})"]
    accuracy, speed = front.circumstances("accuracy"), front.circumstances("throughput")
    if accuracy and front.rung is not None:
        images = f", {validation_images:,} validation images" if validation_images else ""
        trained = f"rung {front.rung}, {front.epochs} epochs of {accuracy.dataset} at {accuracy.resolution} px"
        lines.append(f"Accuracy: {trained}{images}; ± one standard error")
    if speed:
        threads = f", {speed.threads} threads" if speed.threads else ""
        loud = " beside other programs" if speed.disturbed else ""
        how = f"batch {speed.batch}, {speed.precision}, deployed form{loud}"
        lines.append(f"Throughput: {speed.device}{threads}, {how}")
        if speed.disturbed:
            lines.append("  Other programs used the CPU during all of these measurements: the throughputs tell of them")
            lines.append("  as much as of the networks. On a quiet machine a new study tells of the networks alone.")
    return lines


def _worst(objective: Objective) -> str:
    unit = METRICS[objective.metric].unit
    number = f"{objective.worst:,.0f}" if objective.worst >= 100 else f"{objective.worst:g}"
    scale = ", log10" if objective.scale == "log" else ""
    return f"{objective.metric} {number}{f' {unit}' if unit else ''}{scale}"


# --- the front for programs -----------------------------------------------------------------------------------------


def front_json(front: Front) -> dict[str, Any]:
    """The front as plain values. accuracy and accuracy_se in %, throughput in images/s, memory in MB."""
    speed, accuracy = front.circumstances("throughput"), front.circumstances("accuracy")
    return {
        "front": [_plain(entry) for entry in front.points],
        "fixed_points_off_front": [_plain(entry) for entry in front.fixed_points_off],
        "hypervolume": front.hypervolume,
        "objectives": [objective.metric for objective in front.objectives],
        "rung": front.rung,
        "epochs": front.epochs,
        "dataset": accuracy and accuracy.dataset,
        "resolution": accuracy and accuracy.resolution,
        "device": speed and speed.device,
        "left_out": dict(front.left_out),
    }


def front_csv(front: Front) -> str:
    """The front as CSV with a heading, in the words and units of `front_json`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _PLAIN, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(entry) for entry in front.points)
    return text.getvalue()


_MEASURED = ("accuracy", "accuracy_se", "throughput", "throughput_low", "throughput_high")
_PLAIN = ("trial", "id", *_MEASURED, "params", "macs", "peak_memory_mb", "architecture", "fixed_point")


def _plain(entry: Entry) -> dict[str, Any]:
    accuracy, speed = entry.records.get("accuracy"), entry.records.get("throughput")
    memory = entry.records.get("peak_memory_mb")
    values = (
        entry.trial.number,
        entry.trial.architecture_id,
        accuracy and accuracy.value,
        accuracy and standard_error(accuracy),
        speed and speed.value,
        speed and speed.low,
        speed and speed.high,
        entry.trial.params,
        entry.trial.macs,
        memory and memory.value,
        entry.trial.architecture.describe(),
        entry.trial.label,
    )
    return dict(zip(_PLAIN, values, strict=True))


# --- one trial, and a search at work --------------------------------------------------------------------------------


def trial_text(trial: Trial, *, yaml: str | None = None) -> str:
    """One trial: its network, its counts, its measurements, its curve.

    Args:
        yaml: the architecture as text that can be pasted into a space; None: the one-line description alone.
    """
    state = trial.state if trial.reason is None else f"{trial.state}: {trial.reason}"
    again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
    lines = [f"trial {trial.number}  {state}{again}  ({trial.label or trial.origin}, id {trial.architecture_id})"]
    if trial.detail:
        lines += ["", *(f"  {line}" for line in trial.detail.strip().splitlines())]
    counts = [f"{count(trial.params)} params", f"{count(trial.macs)} MACs", f"{trial.tokens:,} tokens"]
    lines += [
        "",
        f"  {trial.architecture.describe()}",
        f"  {', '.join(counts)}, {count(trial.activations)} activations",
    ]
    if yaml is not None:
        lines += ["", *yaml.rstrip().splitlines()]
    if trial.records:
        lines += ["", "measurements"]
        rows = [_measured(record) for record in trial.records]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines += [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    if trial.curve:
        lines += ["", "curve", "  epoch    loss  accuracy %"]
        for epoch, loss, accuracy in trial.curve:
            told = "-" if accuracy is None else f"{accuracy:.2f}"
            lines.append(f"  {epoch:>5}  {'-' if loss is None else f'{loss:.4f}':>6}  {told:>10}")
    return "\n".join(lines)


def _measured(record: Record) -> tuple[str, str, str, str]:
    if record.rung is None:
        circumstances = f"{record.device}, batch {record.batch}, {record.precision}, {duration(record.seconds)}"
    else:
        circumstances = f"rung {record.rung}, {record.epochs} epochs of {record.dataset}, {duration(record.seconds)}"
    text = f"{record.value:.2f}" if METRICS[record.metric].trained else rate(record.value)
    low, high = (
        f"{bound:.2f}" if METRICS[record.metric].trained else rate(bound) for bound in (record.low, record.high)
    )
    unit = METRICS[record.metric].unit
    return record.metric, text, f"{unit}  ({low}..{high})", circumstances


def trial_json(trial: Trial) -> dict[str, Any]:
    """One trial as plain values."""
    names = ("label", "origin", "state", "reason", "detail", "attempt", "seed", "started", "ended")
    counts = ("params", "macs", "tokens", "activations")
    return {
        "trial": trial.number,
        "id": trial.architecture_id,
        **{name: getattr(trial, name) for name in names},
        **{name: getattr(trial, name) for name in counts},
        "point": None if trial.point is None else dict(trial.point),
        "architecture": to_dict(trial.architecture),
        "recipe": dataclasses.asdict(trial.recipe),
        "measurements": [dataclasses.asdict(record) for record in trial.records],
        "curve": [{"epoch": epoch, "loss": loss, "accuracy": accuracy} for epoch, loss, accuracy in trial.curve],
    }


def status(study: Study, found: Front, *, now: float | None = None) -> dict[str, Any]:
    """How a search is doing, seen from outside, as plain values.

    Args:
        found: the front of the study.
        now: seconds since 1970; None: by the clock.
    """
    trials = study.trials()
    running = [trial for trial in trials if trial.state == "running"]
    seen = study.last_seen
    return {
        "study": str(study.folder),
        "driver": study.driver,
        "trials": len(trials) - len(running),
        "total": study.total,
        "complete": sum(trial.state == "complete" for trial in trials),
        "infeasible": dict(Counter(trial.reason for trial in trials if trial.state == "infeasible").most_common()),
        "refused_draws": sum(study.refused.values()),
        "running": [_at_work(trial) for trial in running],
        "front": len(found.points),
        "hypervolume": found.hypervolume,
        "elapsed_seconds": study.elapsed_seconds,
        "seconds_since_last_write": None if seen is None else max(0.0, (time.time() if now is None else now) - seen),
    }


def _at_work(trial: Trial) -> dict[str, Any]:
    epoch, loss, accuracy = trial.curve[-1] if trial.curve else (0, None, None)
    told = {"trial": trial.number, "epoch": epoch, "loss": loss, "accuracy": accuracy, "attempt": trial.attempt}
    return {**told, "architecture": trial.architecture.describe(), "fixed_point": trial.label}


def status_text(told: Mapping[str, Any]) -> str:
    """What `status` found, for people."""
    of = f" of {told['total']}" if told["total"] is not None else ""
    reasons = ", ".join(f"{trials} {reason}" for reason, trials in told["infeasible"].items())
    infeasible = f", infeasible: {reasons}" if reasons else ""
    lines = [f"{told['study']}: {told['trials']}{of} trials done ({told['complete']} complete{infeasible})"]
    at_work = "running  " if told["driver"] else "cut off  "
    for each in told["running"]:
        words = [f"epoch {each['epoch']}" if each["epoch"] else "not trained yet"]
        words += [f"{each['accuracy']:.2f} %"] if each["accuracy"] is not None else []
        label = f"{each['fixed_point']}: " if each["fixed_point"] else ""
        lines.append(f"  {at_work} trial {each['trial']}, {', '.join(words)}  {label}{each['architecture']}")
    if told["refused_draws"]:
        lines.append(f"  refused   {told['refused_draws']:,} draws, before they became trials")
    lines.append(f"  front     {_networks(told['front'])}, hypervolume {told['hypervolume']:.4g}")
    since = told["seconds_since_last_write"]
    ago = "nothing was written yet" if since is None else f"last written {duration(since)} ago"
    lines.append(f"  time      {duration(told['elapsed_seconds'])} searched, {ago}")
    if told["driver"]:
        lines.append(f"  driver    {told['driver']}")
    elif told["running"] or (told["total"] or 0) > told["trials"]:
        words = ["mlpspace", "search", f"{told['study']}/space.yaml", "--study", str(told["study"])]
        words += ["--trials", str(told["total"])] if told["total"] else []
        lines.append(f"  driver    none at work. To go on: {shlex.join(words)}")
    return "\n".join(lines)
