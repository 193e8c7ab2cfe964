"""How a search is doing, seen from outside, as plain values and as text. Nothing prints."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mlpspace.front import Front
from mlpspace.report import duration, epochs_text, networks
from mlpspace.study import Study
from mlpspace.trial import SET_ASIDE, Trial


def status(study: Study, found: Front, *, now: float | None = None) -> dict[str, Any]:
    """How a search is doing, seen from outside, as plain values.

    Args:
        found: the front of the study.
        now: seconds since 1970; None: by the clock.
    """
    facts = found.columns.facts
    states = Counter(zip(facts["state"], facts["reason"], strict=True))
    set_aside = sum(trials for (_, reason), trials in states.items() if reason == SET_ASIDE)  # count as no trials
    counted = Counter[str]()
    for (state, reason), trials in states.items():
        counted[state] += trials if reason != SET_ASIDE else 0
    infeasible = Counter({reason: trials for (state, reason), trials in states.items() if state == "infeasible"})
    running = [number for number, state in zip(facts["number"], facts["state"], strict=True) if state == "running"]
    seen = study.last_seen
    return {
        "study": str(study.folder),
        "driver": study.driver,
        "trials": sum(counted.values()) - counted["running"],
        "total": study.total,
        "complete": counted["complete"],
        "paused": counted["paused"],
        "stopped": counted["stopped"],
        "standing": [dataclasses.asdict(each) for each in found.standing],
        "set_aside": set_aside,
        "infeasible": dict(infeasible.most_common()),
        "refused_draws": sum(study.refused.values()),
        "running": [_at_work(trial) for trial in study.trials(running)],
        "front": int(found.entries.on_front.sum()),
        "hypervolume": found.hypervolume,
        "elapsed_seconds": study.elapsed_seconds,
        "seconds_since_last_write": None if seen is None else max(0.0, (time.time() if now is None else now) - seen),
    }


def _at_work(trial: Trial) -> dict[str, Any]:
    epoch, loss, accuracy = trial.curve[-1] if trial.curve else (0, None, None)
    told = {"trial": trial.number, "epoch": epoch, "loss": loss, "accuracy": accuracy, "attempt": trial.attempt}
    return {**told, "architecture": trial.architecture.describe(), "fixed_point": trial.label}


def _rungs(told: Mapping[str, Any]) -> list[str]:
    """A line for each rung."""
    lines = []
    for each in told["standing"]:
        here = [f"{each[state]} {state}" for state in ("paused", "stopped", "running") if each[state]]
        now = f", {', '.join(here)} there" if here else ""
        lines.append(f"  rung {each['rung']}    {each['reached']} reached {epochs_text(each['epochs'])}{now}")
    return lines


def status_text(told: Mapping[str, Any]) -> str:
    """What `status` found, for people."""
    of = f" of {told['total']}" if told["total"] is not None else ""
    reasons = ", ".join(f"{trials} {reason}" for reason, trials in told["infeasible"].items())
    words = [
        f"{told[state]} {state}" for state in ("complete", "paused", "stopped") if told[state] or state == "complete"
    ]
    words += [f"infeasible: {reasons}"] if reasons else []
    lines = [f"{told['study']}: {told['trials']}{of} trials done ({', '.join(words)})"]
    at_work = "running  " if told["driver"] else "cut off  "
    for each in told["running"]:
        words = [f"epoch {each['epoch']}" if each["epoch"] else "not trained yet"]
        words += [f"{each['accuracy']:.2f} %"] if each["accuracy"] is not None else []
        label = f"{each['fixed_point']}: " if each["fixed_point"] else ""
        lines.append(f"  {at_work} trial {each['trial']}, {', '.join(words)}  {label}{each['architecture']}")
    if len(told["standing"]) > 1 or told["paused"] or told["stopped"]:
        lines += _rungs(told)
    if told["set_aside"]:
        lines.append(f"  set aside {networks(told['set_aside'])}, after the throughput was measured: none was trained")
    if told["refused_draws"]:
        lines.append(f"  refused   {told['refused_draws']:,} draws, before they became trials")
    lines.append(f"  front     {networks(told['front'])}, hypervolume {told['hypervolume']:.4g}")
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
