"""When a search has nothing more to expect: its hypervolume has stopped growing."""

from __future__ import annotations

import math

SLOWEST, FASTEST = 0.0, 3.0  # of the exponents that a trend is read with


class Plateau:
    """Watches the hypervolume after each finished trial.

    Args:
        patience: trials over which the growth is judged.
        gain: share of the hypervolume that these must have added, 0.005 for 0.5 %.
    """

    def __init__(self, patience: int, gain: float) -> None:
        assert patience >= 1
        assert gain >= 0
        self.patience = patience
        self.gain = gain
        self._volumes = [0.0]  # after so many finished trials

    @property
    def finished(self) -> int:
        """Trials so far."""
        return len(self._volumes) - 1

    def update(self, hypervolume: float) -> None:
        """A trial has finished; this is the hypervolume now."""
        self._volumes.append(hypervolume)

    @property
    def grew(self) -> float | None:
        """By what share of itself the hypervolume grew over the last `patience` trials; None while none can be told."""
        if len(self._volumes) <= self.patience or self._volumes[-1 - self.patience] <= 0:
            return None
        return max(0.0, self._volumes[-1] / self._volumes[-1 - self.patience] - 1)

    @property
    def reached(self) -> bool:
        """Whether it grew by less than it must; never before it was above 0 for `patience` trials."""
        return self.grew is not None and self.grew < self.gain

    def expected_gain(self, trials: int) -> float:
        """What so many more trials will bring if the trend goes on, as a share of the hypervolume now.

        The trend: each doubling of the trials brings a fixed share of what the doubling before it brought (a power
        law's distance from its limit; a logarithm where the share is 1). The share is read from the last two
        doublings, the amount from the last one. An estimate from few lucky trials: see `expected_range`.
        """
        return self._expected(trials, self._gained(self._half, self.finished))

    def expected_range(self, trials: int) -> tuple[float, float]:
        """Roughly the central 80 % of what so many more trials will bring, as shares of the hypervolume now.

        As wide as sums of improvements scatter that come at random (a compound Poisson process): those of the last two
        doublings, from which the trend is read, and those to come. Where the last doubling brought none, one of the
        average size so far counts as possible.
        """
        last = self._improvements(self._half, self.finished)
        if last and trials:
            before, seen = _alike(self._improvements(max(1, self._half // 2), self._half)), _alike(last)
            coming = seen * trials / (self.finished - self._half)  # at most: they become rarer
            count = 1 / (1 / max(1.0, before) + 1 / seen + 1 / coming)  # scatters as all of them together
            middle = self.expected_gain(trials)
            return middle * _fewest(count) / count, middle * _most(count) / count
        ever = self._improvements(1, self.finished)
        return 0.0, self._expected(trials, sum(ever) / len(ever) * _most(0)) if ever else 0.0

    def _expected(self, trials: int, last_half: float) -> float:
        if self._volumes[-1] <= 0:
            return 0.0
        before, after = self._gained(max(1, self._half // 2), self._half), self._gained(self._half, self.finished)
        exponent = math.log2(before / after) if before > 0 and after > 0 else 1.0
        exponent = min(max(exponent, SLOWEST), FASTEST)
        ratio = 1 + trials / self.finished
        doublings = math.log2(ratio) if exponent < 1e-6 else (1 - ratio**-exponent) / (2**exponent - 1)
        return last_half * doublings / self._volumes[-1]

    @property
    def _half(self) -> int:
        return max(1, self.finished // 2)  # before the first trial there was nothing, which is no trend

    def _gained(self, first: int, last: int) -> float:
        return max(0.0, self._volumes[last] - self._volumes[min(first, last)])

    def _improvements(self, first: int, last: int) -> list[float]:
        pairs = zip(self._volumes[first:last], self._volumes[first + 1 : last + 1], strict=True)
        return [later - earlier for earlier, later in pairs if later > earlier]


def _alike(sizes: list[float]) -> float:
    """How many numbers of equal size scatter as a sum of these does (Kish's effective size)."""
    return sum(sizes) ** 2 / sum(size**2 for size in sizes) if sizes else 0.0


def _fewest(count: float) -> float:
    return max(0.0, math.sqrt(count) - 0.64) ** 2  # 0.64 = 1.28 / 2: the root of a Poisson count varies by a half


def _most(count: float) -> float:
    return (math.sqrt(count + 1) + 0.64) ** 2
