"""Which way of doing a step pays: trainings on a clock that only their steps move."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mlpspace.step_ways import PAYS, UNTRIED, Bet, Choice, Experience, Way

BOTH = ("captured", "compiled")


@dataclass
class Machine:
    """Steps of 10 ms, less what a change saves of them; what a change costs falls on the first step after it."""

    shares: dict[str, float]
    costs: dict[str, float]
    ways: list[Way] = field(default_factory=list)
    seconds: float = 0.0

    def train(self, choice: Choice, steps: int, piece: int = 10) -> float:
        """Seconds of the training, told in pieces, the first after each change a single step."""
        last, size, begun = choice.way, 1, self.seconds
        while steps:
            count = min(size, steps)
            each = 0.010
            for change, share in self.shares.items():
                each *= share if getattr(choice.way, change) else 1.0
            new = [change for change in BOTH if getattr(choice.way, change) and not getattr(last, change)]
            took = count * each + sum(self.costs[change] for change in new)
            last = choice.way
            self.ways.append(choice.way)
            self.seconds += took
            steps -= count
            size = 1 if choice.took(count, took) else piece
        return self.seconds - begun


def choice(
    steps: int, *, experience: Experience | None = None, changes: tuple[str, ...] = BOTH, size: int = 10
) -> Choice:
    return Choice(steps=steps, size=size, changes=changes, experience=experience or Experience())


def test_what_pays_is_taken_and_kept() -> None:
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    took = machine.train(choice(100_000), 100_000)
    assert machine.ways[-1] == Way(captured=True, compiled=True)
    assert took == pytest.approx(30.5 + 100_000 * 0.010 * 0.4 * 0.6, rel=0.01)  # but for the first steps


def test_a_short_training_is_plain() -> None:
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    machine.train(choice(200), 200)
    assert set(machine.ways) == {Way()}


@pytest.mark.parametrize(("steps", "compiled"), [(5_000, False), (100_000, True)])
def test_half_a_minute_of_compiling_pays_within_a_long_training_only(steps: int, compiled: bool) -> None:
    """100,000 steps are 17 minutes plain. Captured they take 7, of which compiling should save a quarter."""
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    machine.train(choice(steps), steps)
    assert machine.ways[-1] == Way(captured=True, compiled=compiled)


def test_what_is_not_faster_is_given_up_by_the_clock() -> None:
    machine = Machine({"captured": 0.99, "compiled": 1.3}, {"captured": 0.5, "compiled": 30.0})
    took = machine.train(choice(100_000), 100_000)
    assert machine.ways[-1] == Way()
    assert {way.compiled for way in machine.ways} == {True, False}  # it was tried
    assert took < 1.05 * 1000 + 30.5


def test_after_a_change_that_failed_the_other_is_still_tried() -> None:
    machine = Machine({"captured": 1.1, "compiled": 0.5}, {"captured": 0.5, "compiled": 30.0})
    machine.train(choice(100_000), 100_000)
    assert machine.ways[-1] == Way(compiled=True)


def test_the_cost_of_a_change_is_not_held_against_its_steps() -> None:
    machine = Machine({"captured": 0.5, "compiled": 1.0}, {"captured": 2.0, "compiled": 0.0})
    machine.train(choice(5000, changes=("captured",)), 5000)
    assert machine.ways[-1] == Way(captured=True)


def test_where_nothing_can_be_changed_nothing_is() -> None:
    machine = Machine({"captured": 0.1, "compiled": 0.1}, {"captured": 0.0, "compiled": 0.0})
    machine.train(choice(100_000, changes=()), 100_000)
    assert set(machine.ways) == {Way()}


def test_only_the_steps_until_the_next_rung_can_pay() -> None:
    """The rung may be the end; once it is passed, what is left until the next one counts."""
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    one = choice(300)
    machine.train(one, 300)
    assert machine.ways[-1] == Way()
    one.go_on(3000)
    machine.train(one, 3000)
    assert machine.ways[-1] == Way(captured=True)


def test_what_failed_is_not_tried_again_in_a_training() -> None:
    one = choice(100_000)
    one.took(1, 0.01)
    assert one.took(100, 1.0)
    assert one.way == Way(captured=True)
    one.failed(0.3)
    assert one.way == Way()
    one.took(1, 0.01)
    assert one.took(100, 1.0)
    assert one.way == Way(compiled=True)
    one.failed(5.0)
    one.took(1, 0.01)
    assert not one.took(100, 1.0)
    assert one.way == Way()


def test_a_way_back_that_fails_is_plain_for_good() -> None:
    machine = Machine({"captured": 0.4, "compiled": 1.2}, {"captured": 0.5, "compiled": 30.0})
    one = choice(10**6)
    machine.train(one, 10**5)
    assert one.way == Way(captured=True)  # compiling was tried and given up
    one.failed(0.1)
    machine.train(one, 10**5)
    assert one.way == Way()


def test_after_a_capture_that_failed_no_training_of_the_process_tries_again() -> None:
    experience = Experience()
    first = choice(100_000, experience=experience)
    first.took(1, 0.01)
    assert first.took(100, 1.0)
    assert first.way == Way(captured=True)
    first.failed(0.3, capture=True)
    assert first.way == Way()
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    machine.train(choice(100_000, experience=experience), 100_000)
    assert set(machine.ways) == {Way(), Way(compiled=True)}


def test_a_capture_that_fails_once_it_is_compiled_leaves_a_way_without_any() -> None:
    machine = Machine({"captured": 0.4, "compiled": 0.6}, {"captured": 0.5, "compiled": 30.0})
    one = choice(10**6)
    machine.train(one, 10**5)
    assert one.way == Way(captured=True, compiled=True)
    one = choice(10**6)
    one.took(1, 0.01)
    assert one.took(100, 1.0)
    one.took(1, 0.01)
    assert one.took(100, 0.4)
    assert one.way == Way(captured=True, compiled=True)
    one.failed(5.0, capture=True)
    assert one.way == Way()


# --- what a process learns ---


def test_before_anything_was_tried_the_guesses_count() -> None:
    assert Experience().bet("compiled", 50) == UNTRIED["compiled"]


def test_a_cost_grows_with_the_network_and_a_share_is_the_mean_of_all() -> None:
    known = Experience()
    known.learn("compiled", 20, 30.0, 0.5)
    known.learn("compiled", 10, 8.0, 0.7)
    assert known.bet("compiled", 40) == Bet(pytest.approx(32.0), pytest.approx((UNTRIED["compiled"].share + 1.2) / 3))
    assert known.bet("captured", 40) == UNTRIED["captured"]


def test_a_warm_compiler_pays_in_trainings_that_a_cold_one_does_not() -> None:
    known = Experience()
    machine = Machine({"captured": 1.0, "compiled": 0.6}, {"captured": 0.0, "compiled": 5.0})
    steps = round(0.9 * PAYS * UNTRIED["compiled"].cost_s / (1 - UNTRIED["compiled"].share) / 0.010)
    machine.train(choice(steps, experience=known, changes=("compiled",)), steps)
    assert machine.ways[-1] == Way()
    machine.train(choice(10 * steps, experience=known, changes=("compiled",)), 10 * steps)
    machine.train(choice(steps, experience=known, changes=("compiled",)), steps)
    assert machine.ways[-1] == Way(compiled=True)


def test_what_never_saves_is_tried_less_and_less() -> None:
    known = Experience()
    machine = Machine({"captured": 1.0, "compiled": 1.2}, {"captured": 0.5, "compiled": 40.0})
    tried = 0
    for _ in range(20):
        machine.ways.clear()
        machine.train(choice(30_000, experience=known, changes=("compiled",)), 30_000)
        tried += any(way.compiled for way in machine.ways)
    assert 1 <= tried <= 3
