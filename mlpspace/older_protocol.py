"""Throughputs of a study that were measured by another protocol than those that are to come, and what to say of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mlpspace.measurement import COMPILED, DISTURBED, THROUGHPUT_PROTOCOL
from mlpspace.space import Space
from mlpspace.trial import Trial


def protocols(trials: Iterable[Trial]) -> Counter[str]:
    """Protocol -> how many trials have their throughput by it; disturbed or not is the same one."""
    found: Counter[str] = Counter()
    for trial in trials:
        own = [each for each in trial.records if each.metric == "throughput" and not each.repeat]
        if own and trial.state != "infeasible":
            found[own[-1].protocol.removesuffix(DISTURBED)] += 1
    return found


def told(trials: Iterable[Trial], space: Space, folder: Path, anew: str) -> str | None:
    """That a study which goes on will hold throughputs of two kinds, and what to do; None: it will not.

    Args:
        folder: of the study.
        anew: the command that begins another study of the same space.
    """
    if all(objective.metric != "throughput" for objective in space.objectives):
        return None
    now = THROUGHPUT_PROTOCOL + COMPILED * space.deployment.compile
    found = protocols(trials)
    others = Counter({protocol: count for protocol, count in found.items() if protocol != now})
    if not others:
        return None
    by, front = " or ".join(others), shlex.join(["mlpspace", "pareto", str(folder)])
    return (
        f"The throughput of {others.total()} of {found.total()} trials was measured by protocol {by}. What comes is"
        f" measured by {now}, which does not compare with it:\n"
        "  on the front stands the protocol that more trials have, and the others are left out.\n"
        f"  To measure all of them alike, in a new study: {anew}\n"
        f"  To keep the front that there is: end this search (Ctrl-C), {front}"
    )
