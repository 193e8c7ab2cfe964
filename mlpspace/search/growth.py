"""How the hypervolume of a search grows, and whether that was enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mlpspace.leaders import Leaders
from mlpspace.results import Result
from mlpspace.stopping import Plateau
from mlpspace.trial import SET_ASIDE, Trial


class Growth:
    """The hypervolume after each trial that ended.

    Args:
        plateau: tells when it grows no more; None: nobody asks.
        trials_an_hour: at the pace of the study; only asked when it grows no more.
    """

    def __init__(self, plateau: Plateau | None, trials_an_hour: Callable[[], float]) -> None:
        self.enough: str | None = None  # why no more trials are to be begun
        self._plateau, self._trials_an_hour = plateau, trials_an_hour

    def recall(self, trials: Iterable[Trial], results: Mapping[int, Result], leaders: Leaders) -> None:
        """As it was in earlier sessions.

        Args:
            results: of these trials.
            leaders: none yet; in the end they are the front.
        """
        if self._plateau is None:
            return
        ended = [each for each in trials if each.state in ("complete", "stopped", "infeasible")]
        for trial in sorted(ended, key=lambda each: each.ended or each.started):
            result = results[trial.number]
            if result.costs is not None:
                leaders.put(result)
            if result.reason != SET_ASIDE:
                self.watch(leaders)

    def watch(self, leaders: Leaders) -> None:
        """A trial has ended, and this is the front now."""
        if self._plateau is None:
            return
        self._plateau.update(leaders.hypervolume())
        if self._plateau.reached and self.enough is None:
            self.enough = self._why_enough(self._plateau)

    def _why_enough(self, plateau: Plateau) -> str:
        trials = max(1, round(self._trials_an_hour()))
        low, high = plateau.expected_range(trials)
        return (
            f"the hypervolume grew by {100 * (plateau.grew or 0.0):.2g} % over the last {plateau.patience} trials, less"
            f" than the {100 * plateau.gain:.2g} % asked for. The next hour, some {trials:,} trials, was expected to"
            f" bring {100 * plateau.expected_gain(trials):.2g} % ({100 * low:.2g} to {100 * high:.2g} %)"
        )
