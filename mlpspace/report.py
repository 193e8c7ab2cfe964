"""What people and programs are shown of a study: texts, tables, JSON, CSV; the picture is in `plot`. Nothing prints."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from mlpspace.architecture import to_dict
from mlpspace.front import Entry, Front
from mlpspace.objectives import METRICS, Objective
from mlpspace.plot import plot_front as plot_front
from mlpspace.trial import Record, Trial

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


def networks(number: int) -> str:
    return f"{number} network{'' if number == 1 else 's'}"


def rate(value: float) -> str:
    """Images a second, or MB: 12,345 or 12.3."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def epochs_text(number: int | None) -> str:
    """1 epoch, 18 epochs."""
    return f"{number} epoch{'' if number == 1 else 's'}"


# --- the front as a table -------------------------------------------------------------------------------------------


def front_table(front: Front, width: int = 120, *, validation_images: int | None = None) -> str:
    """The front, the fixed points off it, what was left out, and what all of it rests on.

    Args:
        width: of the terminal, in characters; a network that does not fit is broken over lines.
        validation_images: how many stand behind an accuracy, if that is known.
    """
    parts = []
    if front.points:
        shown = [_cells(entry, front) for entry in front.points]
        off = [_cells(entry, front) for entry in front.fixed_points_off]
        lines = _aligned([*shown, *off], width)
        head, rows = lines[0], lines[1:]
        parts.append("\n".join([*_heading(front), "", head, *rows[: len(shown)]]))
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


def _heading(front: Front) -> list[str]:
    number = f"{len(front.points)} of {networks(len(front.entries))}"
    if not front.partial:
        return [f"Pareto front: {number}"]
    none = ["No trial has been trained to the end yet."] if front.rung == front.standing[-1].rung else []
    return [
        f"Front of PARTIAL trainings, rung {front.rung}: {number}",
        *none,
        f"These are the accuracies after {epochs_text(front.epochs)}, before the end of training: they may be compared",
        "with one another, never with those of full trainings.",
    ]


_ACCURACY = ("accuracy %", "± se", "spread", "seeds", "P(front) %")
_HEADINGS = ("", "trial", *_ACCURACY, "images/s", "95 % interval", "params", "MACs", "memory MB", "network")
_NUMBERS = len(_HEADINGS) - 1


def _cells(entry: Entry, front: Front) -> list[str]:
    accuracy, speed = entry.accuracy, entry.records.get("throughput")
    memory, trial = entry.records.get("peak_memory_mb"), entry.trial
    network = trial.architecture.describe()
    return [
        FIXED_POINT_MARK if trial.label else "",
        str(trial.number),
        f"{accuracy.mean:.2f}" if accuracy else "-",
        f"{accuracy.error:.2f}" if accuracy else "-",
        f"{accuracy.spread:.2f}" if accuracy and accuracy.spread is not None else "-",
        str(accuracy.trainings) if accuracy and front.repeated else "-",
        f"{100 * entry.probability:.0f}" if front.repeated else "-",
        rate(speed.value) if speed else "-",
        "-" if not speed else "disturbed" if speed.disturbed else f"{rate(speed.low)}..{rate(speed.high)}",
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
        trained = f"rung {front.rung}, {epochs_text(front.epochs)} of {accuracy.dataset} at {accuracy.resolution} px"
        lines.append(f"Accuracy: {trained}{images}; ± one standard error")
        if front.repeated:
            lines.append(
                "  Where several seeds were trained: their mean; spread is the standard deviation between them."
            )
            lines.append(
                "  P(front): how often nothing dominates the network, in draws from the errors of all; that of one seed"
            )
            lines.append("  is of the validation images alone.")
    if len(front.standing) > 1:
        lines.append(rungs_text(front))
    if speed:
        threads = f", {speed.threads} threads" if speed.threads else ""
        loud = " beside other programs" if speed.disturbed else ""
        how = f"batch {speed.batch}, {speed.precision}, deployed form{loud}"
        lines.append(f"Throughput: {speed.device}{threads}, {how}")
        if speed.disturbed:
            lines.append("  Other programs used it during all of these measurements: the throughputs tell of them")
            lines.append("  as much as of the networks. One more trial on a quiet machine has them measured again.")
    return lines


def rungs_text(front: Front) -> str:
    """How many trials have reached each rung, and at which of them the front is."""
    first, *others = front.standing
    told = [f"{first.reached} trial{'' if first.reached == 1 else 's'} reached {epochs_text(first.epochs)}"]
    told += [f"{each.reached} reached {each.epochs}" for each in others]
    at = "" if front.rung is None else "; the front is of the last"
    if at and front.rung != front.standing[-1].rung:
        at = f"; this front is of rung {front.rung}, {epochs_text(front.epochs)}"
    return f"Rungs: {', '.join(told)}{at}"


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
        "partial": front.partial,
        "standing": [dataclasses.asdict(each) for each in front.standing],
        "dataset": accuracy and accuracy.dataset,
        "resolution": accuracy and accuracy.resolution,
        "device": speed and speed.device,
        "disturbed": speed and speed.disturbed,
        "left_out": dict(front.left_out),
    }


def front_csv(front: Front) -> str:
    """The front as CSV with a heading, in the words and units of `front_json`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _PLAIN, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(entry) for entry in front.points)
    return text.getvalue()


_TRAINED = ("accuracy", "accuracy_se", "accuracy_spread", "trainings", "probability")
_MEASURED = (*_TRAINED, "throughput", "throughput_low", "throughput_high", "params", "macs", "peak_memory_mb")
_PLAIN = ("trial", "id", *_MEASURED, "architecture", "fixed_point", "state", "rung", "epochs", "disturbed")


def _plain(entry: Entry) -> dict[str, Any]:
    accuracy, speed = entry.accuracy, entry.records.get("throughput")
    memory, trained = entry.records.get("peak_memory_mb"), entry.records.get("accuracy")
    values = (
        entry.trial.number,
        entry.trial.architecture_id,
        accuracy and accuracy.mean,
        accuracy and accuracy.error,
        entry.spread,
        accuracy.trainings if accuracy else 0,
        entry.probability,
        speed and speed.value,
        speed and speed.low,
        speed and speed.high,
        entry.trial.params,
        entry.trial.macs,
        memory and memory.value,
        entry.trial.architecture.describe(),
        entry.trial.label,
        entry.trial.state,
        trained and trained.rung,
        trained and trained.epochs,
        speed and speed.disturbed,
    )
    return dict(zip(_PLAIN, values, strict=True))


# --- one trial -------------------------------------------------------------------------------------------------------


def trial_text(trial: Trial, *, yaml: str | None = None) -> str:
    """One trial: its network, its counts, its measurements, its curve.

    Args:
        yaml: the architecture as text that can be pasted into a space; None: the one-line description alone.
    """
    again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
    lines = [
        f"trial {trial.number}  {trial.standing}{again}  ({trial.label or trial.origin}, id {trial.architecture_id})"
    ]
    if trial.detail:
        lines += ["", *(f"  {line}" for line in trial.detail.strip().splitlines())]
    counts = [f"{count(trial.params)} params", f"{count(trial.macs)} MACs", f"{trial.tokens:,} tokens"]
    lines += [
        "",
        f"  {trial.architecture.describe()}",
        f"  {', '.join(counts)}, {count(trial.activations)} activations",
    ]
    if trial.why:
        lines += textwrap.wrap(f"why: {trial.why}", 116, initial_indent="  ", subsequent_indent="       ")
    if yaml is not None:
        lines += ["", *yaml.rstrip().splitlines()]
    if trial.records:
        lines += ["", "measurements"]
        rows = [_measured(record) for record in trial.records]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines += [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    if trial.repeats:
        values = [trial.measurements["accuracy"].value, *(record.value for record in trial.repeats)]
        spread = f"{statistics.fmean(values):.2f} %, spread {statistics.stdev(values):.2f}"
        lines.append(f"  accuracy over {len(values)} seeds: mean {spread}")
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
        again = f", trained again with seed {record.seed}" if record.repeat else ""
        trained = f"rung {record.rung}, {epochs_text(record.epochs)} of {record.dataset}{again}"
        circumstances = f"{trained}, {duration(record.seconds)}"
        if record.micro_batch is not None:
            circumstances += f", {record.micro_batch} images at a time to fit the memory"
    text = f"{record.value:.2f}" if METRICS[record.metric].trained else rate(record.value)
    low, high = (
        f"{bound:.2f}" if METRICS[record.metric].trained else rate(bound) for bound in (record.low, record.high)
    )
    unit = METRICS[record.metric].unit
    loud = ", disturbed: other programs used the device" if record.disturbed else ""
    return record.metric, text, f"{unit}  ({low}..{high})", circumstances + loud


def trial_json(trial: Trial) -> dict[str, Any]:
    """One trial as plain values."""
    names = (
        "label",
        "origin",
        "why",
        "state",
        "reason",
        "detail",
        "rung",
        "attempt",
        "seed",
        "started",
        "ended",
        "seconds",
    )
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
