"""The ways to do a step of training, and which of them pays for itself within what is left of one.

Plain, as the network is written. Captured: the kernels of a step are recorded once as a CUDA graph and replayed, which
spares their launches one by one. Compiled: torch.compile makes few kernels of many. Either costs time before it saves
any, so each is a bet, decided by the clock: what a plain step takes is measured, what the change costs and leaves of a
step is what it did for earlier trainings of this process. After a change the step is measured again, and one that is
not faster is given up.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass

ENOUGH_S = 0.2  # of steps, and at least
ENOUGH_STEPS = 5  # of them, make a measured step
PAYS = 1.5  # times what a change is expected to cost: what it has to save
WORTH = 0.97  # of the step's seconds before: a change that leaves more is given up


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is done; plain without either."""

    captured: bool = False
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Bet:
    """What a change is expected to cost, and which share of a step's seconds it leaves."""

    cost_s: float
    share: float


# Before this process has tried. Guesses: no GPU was there to measure them on. A wrong one costs a training that is long
# enough for it some seconds once, as the process knows better from then on.
UNTRIED = {"captured": Bet(1.0, 0.7), "compiled": Bet(40.0, 0.75)}

# By the device's type, in the order in which they are tried. None on a CPU, where a kernel's launch is no cost, and
# torch.compile never pays within a proxy: a 1.1 M mixer at batch 256 and 2 threads trained at 422 images/s compiled and
# at 401 and 435 plain before and after, and compiling took 32 s, for a second network 15 s; a small one (70 k weights,
# batch 128, 1 thread) at 2,660 to 2,830 compiled and 2,780 to 3,060 plain, after 18 s and 8 s of compiling (2-core
# Xeon, torch 2.13, 2026-11-22).
CHANGES: dict[str, tuple[str, ...]] = {"cuda": ("captured", "compiled")}


class Experience:
    """What changes cost and saved in the trainings of this process so far.

    Attributes:
        captures: whether a step can be recorded; not any more once that failed.
    """

    def __init__(self) -> None:
        self.captures = True
        self._costs: dict[str, tuple[float, int]] = {}  # seconds, and of a network of that size: the last
        self._shares: dict[str, list[float]] = {}

    def bet(self, change: str, size: int) -> Bet:
        """Cost in proportion to the size, by the last time; the share is the mean of all times and of the guess."""
        untried = UNTRIED[change]
        seconds, of = self._costs.get(change, (untried.cost_s, size))
        return Bet(seconds * size / of, statistics.fmean([untried.share, *self._shares.get(change, [])]))

    def learn(self, change: str, size: int, cost_s: float, share: float) -> None:
        """It cost so much for a network of that size, and left such a share of a step; 1.0: it came to nothing."""
        self._costs[change] = cost_s, size
        self._shares.setdefault(change, []).append(min(share, 1.0))


class Choice:
    """The way of a training's steps; told of each piece of them what it took.

    Args:
        steps: that are left until the training may end, which is its next rung.
        size: of the network, in modules.
        changes: of `CHANGES`, those that can be tried.
    """

    def __init__(self, *, steps: int, size: int, changes: tuple[str, ...], experience: Experience) -> None:
        self.way = Way()
        self._left = steps
        self._size = size
        self._untried = list(changes)
        self._experience = experience
        self._change: str | None = None  # on trial
        self._before = (Way(), 0.0)  # where it goes back to, and the seconds of a step there
        self._first_s: float | None = None
        self._begun()

    def go_on(self, steps: int) -> None:
        """A rung is passed; so many steps are left until the next."""
        self._left = steps

    def took(self, steps: int, seconds: float) -> bool:
        """So many steps took so long, all of them in `way`. True: the next is done in another one.

        The first piece in a way should be a single step: it holds what comes only once, and is not held against it.
        """
        self._left -= steps
        if self._first_s is None:
            self._first_s = seconds
            return False
        self._steps += steps
        self._seconds += seconds
        if self._steps < ENOUGH_STEPS or self._seconds < ENOUGH_S:
            return False
        each = self._seconds / self._steps
        now = self.way
        if self._change is not None:
            _, before = self._before
            self._experience.learn(self._change, self._size, max(0.0, self._first_s - each), each / before)
            self._change = None
            if each > WORTH * before:
                self.way, each = self._before
        self._try(each)
        if self.way == now:
            return False
        self._begun()
        return True

    def failed(self, seconds: float, *, capture: bool = False) -> None:
        """The way came to nothing after so long: back to the one before, or plain for good if it was that.

        Args:
            capture: a step could not be recorded, and no training of this process shall try again.
        """
        if self._change is not None:
            self._experience.learn(self._change, self._size, seconds, 1.0)
            self._change = None
            self.way, _ = self._before
        else:
            self.way, self._untried = Way(), []
        if capture:
            self._experience.captures = False
            self.way = dataclasses.replace(self.way, captured=False)
        self._begun()

    def _try(self, each: float) -> None:
        """Takes up the first change that should pay, at so many seconds a step."""
        for change in self._untried:
            if change == "captured" and not self._experience.captures:
                continue
            bet = self._experience.bet(change, self._size)
            if self._left * each * (1 - bet.share) > PAYS * bet.cost_s:
                self._untried.remove(change)
                self._change, self._before = change, (self.way, each)
                self.way = dataclasses.replace(self.way, **{change: True})
                return

    def _begun(self) -> None:
        self._first_s = None
        self._steps, self._seconds = 0, 0.0
