"""What a space holds, before anything is trained: points, dimensions, draws, counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpspace.counts import Profile, profile
from mlpspace.fixed_points import FixedPoint, fixed_points
from mlpspace.report import count
from mlpspace.space import Space
from mlpspace.space.space import NotInSpace, PointCount


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `drawn` and `meeting` are the counts of the random draws, of all and of those that meet."""

    space: Space
    count: PointCount
    drawn: list[Profile]
    meeting: list[Profile]
    refused: dict[str, int]  # requirement -> draws that broke it first
    fixed: list[tuple[FixedPoint, Profile, str | None, str | None]]  # with what it breaks; why it lies outside

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "points": self.count.points,
            "continuous": list(self.count.continua),
            "dimensions": [
                {"name": dim.name, "values": str(dim), "exists_if": condition}
                for dim, condition in self.space.dimensions()
            ],
            "draws": len(self.drawn),
            "meeting": len(self.meeting),
            "refused": self.refused,
            "params_quartiles": quartiles([each.params for each in self.meeting]),
            "macs_quartiles": quartiles([each.macs for each in self.meeting]),
            "fixed_points": [
                {
                    "name": point.name,
                    "label": point.label,
                    "params": counts.params,
                    "macs": counts.macs,
                    "breaks": broken,
                    "outside": outside,
                }
                for point, counts, broken, outside in self.fixed
            ],
        }


def survey(space: Space, *, draws: int, seed: int) -> Survey:
    """Draw from a space at random and count what comes; requirements on what only a device can tell are not judged."""
    rng = np.random.default_rng(seed)
    drawn: list[Profile] = []
    meeting: list[Profile] = []
    refused: Counter[str] = Counter()

    def judge(architecture: Any) -> tuple[Profile, str | None]:
        counts = profile(architecture, space.resolution, space.classes)
        told = {"params": counts.params, "macs": counts.macs, "tokens": counts.tokens}
        return counts, space.require.broken(architecture, told)

    for _ in range(draws):
        counts, broken = judge(space.sample(rng))
        drawn.append(counts)
        if broken is None:
            meeting.append(counts)
        else:
            refused[broken] += 1
    points = fixed_points(space, lambda a: judge(a)[1])
    fixed = [(point, *judge(point.architecture), _outside(space, point)) for point in points]
    return Survey(space, space.count(), drawn, meeting, dict(refused.most_common()), fixed)


def _outside(space: Space, point: FixedPoint) -> str | None:
    """Why a fixed point is no point of the space; None if it is one."""
    try:
        space.encode(point.architecture)
    except NotInSpace as reason:
        return str(reason)
    return None


def quartiles(values: list[int]) -> list[float] | None:
    """Minimum, the three quartiles, maximum; None of nothing."""
    numbers = np.array(values, dtype=np.float64)  # as they may be beyond any of NumPy's whole numbers
    return [float(q) for q in np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])] if values else None


def text(told: Survey) -> str:
    """The survey for people."""
    space = told.space
    pixels = f"{space.resolution} x {space.resolution} pixels"
    lines = [f"{space.path}: {told.count.points:,} points at {pixels}, {space.classes} classes"]
    if told.count.continua:
        lines.append(f"  (continuous, counted as one value each: {', '.join(told.count.continua)})")
    lines += ["", *_dimensions(space), ""]
    share = len(told.meeting) / len(told.drawn)
    lines.append(f"{len(told.meeting):,} of {len(told.drawn):,} random draws meet the requirements ({share:.0%})")
    lines += [f"  refused {number:>6,}  {reason}" for reason, number in told.refused.items()]
    if not told.meeting:
        smallest = min(told.drawn, key=lambda each: each.macs)
        lines.append(
            f"  The smallest of them needs {count(smallest.macs)} MACs and {count(smallest.params)} params. "
            "Widen the requirements or the space."
        )
    lines += ["", f"{'':22}{'min':>9}{'25 %':>9}{'median':>9}{'75 %':>9}{'max':>9}"]
    for name, group in (("all draws", told.drawn), ("meeting", told.meeting)):
        for field in ("params", "macs"):
            found = quartiles([getattr(each, field) for each in group])
            if found:
                shown = "".join(f"{count(value):>9}" for value in found)
                lines.append(f"{'MACs' if field == 'macs' else field:<9}{name:<13}{shown}")
    if told.fixed:
        lines += ["", f"fixed points (fit: {space.fixed_points.fit})"]
        for point, counts, broken, outside in told.fixed:
            note = f"  breaks {broken}, measured all the same" if broken else ""
            lines.append(f"  {point.label}: {count(counts.params)} params, {count(counts.macs)} MACs{note}")
            lines.append(f"    {point.architecture.describe()}")
            lines.append(f"    outside: {outside}" if outside else "    a point of the space")
    if len(space.fidelity.epochs) > 1:
        lines += ["", rungs_note(space)]
    return "\n".join(lines)


def rungs_note(space: Space) -> str:
    """What the rungs of a space mean, in a line."""
    first, *_, last = space.fidelity.epochs
    epochs = ", ".join(map(str, space.fidelity.epochs))
    return (
        f"rungs: accuracy is compared after {epochs} epochs; {space.fidelity.keep:.0%} of the networks go on from each,"
        f" so that most are trained for {first} epoch{'s' * (first > 1)}, not {last}."
    )


def _dimensions(space: Space) -> list[str]:
    rows = [("dimension", "values", "exists if")]
    rows += [(dim.name, str(dim), condition or "always") for dim, condition in space.dimensions()]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{name:<{widths[0]}}  {values:<{widths[1]}}  {condition}" for name, values, condition in rows]
