"""The account of a process's time: what it sums up to, and what is counted as what."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mlpspace.wall_time import Tallies, WallTime, counted


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(clock: Clock) -> WallTime:
    return WallTime(clock)


def test_every_moment_belongs_to_one_kind_and_the_kinds_sum_up_to_the_time_that_passed(
    clock: Clock, account: WallTime
) -> None:
    """Of a worker's life, second by second, written down by hand beside it."""
    clock.take(8)  # starting
    account.turn_to("reporting")
    clock.take(1)  # reporting
    with account.spent("building"):
        clock.take(2)  # building
        with account.spent("training"):
            clock.take(16)  # training
            with account.spent("validating"):
                clock.take(4)  # validating
                with account.spent("paused"):
                    clock.take(32)  # paused
            clock.take(16)  # training
        clock.take(2)  # building
    clock.take(1)  # reporting
    told = {"starting": 8, "reporting": 2, "building": 4, "training": 32, "validating": 4, "paused": 32}
    assert account.tally() == told
    assert sum(account.tally().values()) == clock.now - 100.0


def test_a_tally_amid_a_block_holds_what_was_spent_in_it_up_to_now(clock: Clock, account: WallTime) -> None:
    with account.spent("training"):
        clock.take(3)
        assert account.tally() == {"starting": 0, "training": 3}
        clock.take(4)
    assert account.tally() == {"starting": 0, "training": 7}


def test_while_a_generator_is_suspended_amid_a_block_whoever_has_taken_over_is_counted(
    clock: Clock, account: WallTime
) -> None:
    def events() -> Iterator[int]:
        with account.spent("training"):
            clock.take(1)
            yield 0
            clock.take(2)
            yield 1

    for _ in events():
        with account.spent("deciding"):
            clock.take(10)
    assert account.tally() == {"starting": 0, "training": 3, "deciding": 20}


def test_what_a_generator_had_open_ends_when_it_is_closed(clock: Clock, account: WallTime) -> None:
    def events() -> Iterator[int]:
        with account.spent("building"), account.spent("training"):
            clock.take(1)
            yield 0

    suspended = events()
    next(suspended)
    account.enter("reporting")
    clock.take(5)
    account.leave("waiting")  # only now it is known that the trial had ended
    suspended.close()  # type: ignore[attr-defined]
    clock.take(2)
    assert account.tally() == {"starting": 2, "building": 0, "training": 1, "waiting": 5}


def test_an_error_ends_the_blocks_it_leaves(clock: Clock, account: WallTime) -> None:
    with pytest.raises(ZeroDivisionError), account.spent("training"):
        account.enter("compiling")
        clock.take(1)
        raise ZeroDivisionError
    clock.take(2)
    assert account.tally() == {"starting": 2, "training": 0, "compiling": 1}


def test_a_life_may_begin_before_its_process_did(clock: Clock, account: WallTime) -> None:
    clock.take(7)
    account.begin("starting", ago=3.0)
    clock.take(1)
    assert account.tally() == {"starting": 4}


def test_what_other_threads_spend_is_not_counted(clock: Clock, account: WallTime) -> None:
    def work() -> None:
        with account.spent("sampling"):
            clock.take(1)

    with account.spent("training"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert account.tally() == {"starting": 0, "training": 1}


def test_the_methods_of_a_counted_object_are_its_own_and_take_their_kind(clock: Clock, account: WallTime) -> None:
    class Writer:
        written = 0

        def write(self, number: int) -> int:
            clock.take(number)
            self.written += 1
            return 2 * number

    writer = Writer()
    stand_in = counted(writer, "writing", account)
    assert (stand_in.write(3), stand_in.write(4), stand_in.written, writer.written) == (6, 8, 2, 2)
    assert account.tally() == {"starting": 0, "writing": 7}


# --- what a session keeps of it ---------------------------------------------------------------------------------------


class Kept:
    """What was written, and how often."""

    def __init__(self, clock: Clock, takes: float = 0.0) -> None:
        self.clock, self.takes = clock, takes
        self.all: list[dict] = []

    def write(self, told: dict) -> None:
        self.clock.take(self.takes)
        self.all.append(told)


def tallies(kept: Kept) -> Tallies:
    return Tallies(kept.write, lambda: {"writing": 1.0}, clock=kept.clock, every_s=5.0)


def test_tallies_are_written_every_few_seconds_and_not_with_every_word(clock: Clock) -> None:
    kept = Kept(clock)
    told = tallies(kept)
    for second in range(1, 101):
        clock.take(1)
        told.heard("a", {"training": float(second)})
        told.look()
    assert len(kept.all) == 20
    assert kept.all[-1] == {"workers": {"a": {"training": 100.0}}, "driver": {"writing": 1.0}}


def test_where_writing_takes_long_it_is_done_rarely(clock: Clock) -> None:
    kept = Kept(clock, takes=1.0)
    told = tallies(kept)
    for _ in range(1000):
        clock.take(1)
        told.look()
    assert len(kept.all) == 10


def test_a_worker_whose_trial_ended_waits_until_it_is_heard_of_again(clock: Clock) -> None:
    kept = Kept(clock)
    told = tallies(kept)
    told.heard("a", {"training": 10.0})
    told.idle("a")
    clock.take(3)
    told.keep()
    assert kept.all[-1]["workers"] == {"a": {"training": 10.0, "waiting": 3.0}}
    told.heard("a", {"training": 10.5, "waiting": 3.5})  # its own account, which it is
    clock.take(3)
    told.keep()
    assert kept.all[-1]["workers"] == {"a": {"training": 10.5, "waiting": 3.5}}


def test_the_account_of_a_process_that_ended_stands_as_it_was(clock: Clock) -> None:
    kept = Kept(clock)
    told = tallies(kept)
    told.heard("a", {"training": 10.0})
    clock.take(4)
    told.gone("a")
    told.heard("b", {"starting": 1.0})
    told.idle("b")
    clock.take(2)
    told.gone("b")
    clock.take(5)
    told.keep()
    assert kept.all[-1]["workers"] == {
        "a": {"training": 10.0, "lost": 4.0},
        "b": {"starting": 1.0, "waiting": 2.0},
    }


def test_what_a_process_said_before_it_was_ended_comes_too_late(clock: Clock) -> None:
    """It hung; once it was ended, its last words neither hide the time that was lost nor make it wait for ever."""
    kept = Kept(clock)
    told = tallies(kept)
    told.gone("never heard of")
    told.heard("a", {"training": 10.0})
    clock.take(60)
    told.gone("a")
    told.heard("a", {"training": 11.0})
    told.idle("a")
    clock.take(5)
    told.gone("a")
    told.keep()
    assert kept.all[-1]["workers"] == {"a": {"training": 10.0, "lost": 60.0}}
