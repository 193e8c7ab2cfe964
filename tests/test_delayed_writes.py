"""Epochs and refused draws are written with what comes next; what a process that is killed then leaves behind is enough.

What another connection sees is what is left of a process that is killed at that instant.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hand_made import COUNTS, an_assignment, measured
from stubs import Session
from test_search_cut_off import RUNGS, WHOLE, Killed, Killer, every_epoch, optuna_says, outcome, weights_of

from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.ledger import LATER_S, Writer
from mlpspace.measurement import Progress
from mlpspace.study import Study


class Clock:
    """Set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "run1", space_text="", manifest={})


def left(study: Study) -> tuple[list[int], dict[str, int]]:
    """The epochs of trial 0, and how many draws were refused."""
    left_behind = Study(study.folder)
    return [epoch for epoch, _, _ in left_behind.trial(0).curve], dict(left_behind.refused)


def begun(writer: Writer, number: int = 0) -> None:
    writer.begin(an_assignment(number), **COUNTS, origin="sampler")  # type: ignore[arg-type]


def two_epochs(writer: Writer) -> None:
    for epoch in (1, 2):
        writer.record_progress(an_assignment(0), Progress(phase="training", epoch=epoch, loss=1.0, accuracy=50.0))
    writer.refuse("macs", 3)


WHAT_COMES_NEXT: dict[str, Callable[[Writer], object]] = {
    "a rung's accuracy": lambda writer: writer.record(an_assignment(0), measured("accuracy", 50.0, rung=0, epochs=2)),
    "a throughput": lambda writer: writer.record(an_assignment(0), measured("throughput", 50.0)),
    "the end of the trial": lambda writer: writer.finish(0, "infeasible", "error"),
    "a pause": lambda writer: writer.finish(0, "paused"),
    "another trial": lambda writer: begun(writer, 1),
    "a death": lambda writer: writer.lost(0),
    "a repeat that failed": lambda writer: writer.repeat_failed(0, "error"),
    "before a checkpoint": lambda writer: writer.sync(),
    "where the time went": lambda writer: writer.keep_wall_time({}),
}


@pytest.mark.parametrize("what", WHAT_COMES_NEXT)
def test_what_was_delayed_is_there_once_something_that_decides_is(study: Study, what: str) -> None:
    clock = Clock()
    with study.writing("", clock=clock) as writer:
        begun(writer)
        two_epochs(writer)
        assert left(study) == ([], {})
        WHAT_COMES_NEXT[what](writer)
        assert left(study) == ([1, 2], {"macs": 3})


def test_nothing_is_delayed_for_long_while_epochs_come(study: Study) -> None:
    clock = Clock()
    with study.writing("", clock=clock) as writer:
        begun(writer)
        two_epochs(writer)
        clock.now += LATER_S
        writer.record_progress(an_assignment(0), Progress(phase="training", epoch=3, loss=1.0, accuracy=50.0))
        assert left(study) == ([1, 2, 3], {"macs": 3})


def test_it_is_there_with_what_it_came_before_or_neither_is(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails takes nothing: all of it comes with the next one."""
    with study.writing("", clock=Clock()) as writer:
        begun(writer)
        two_epochs(writer)
        run = writer.transactions.run

        def fails(work: Callable[[Any], Any], **told: Any) -> Any:
            def half(connection: Any) -> None:
                work(connection)
                raise StudyError("the disk is full")

            return run(half, **told)

        monkeypatch.setattr(writer.transactions, "run", fails)
        with pytest.raises(StudyError, match="the disk is full"):
            writer.record(an_assignment(0), measured("accuracy", 50.0, rung=0, epochs=2))
        monkeypatch.undo()
        assert left(study) == ([], {})
        assert not study.trial(0).records
        writer.record(an_assignment(0), measured("accuracy", 50.0, rung=0, epochs=2))
        assert left(study) == ([1, 2], {"macs": 3})
        assert len(study.trial(0).records) == 1


def test_a_trial_that_goes_on_from_a_checkpoint_keeps_no_epoch_beyond_it(study: Study) -> None:
    """Not even one that was told and not yet written when its worker died."""
    with study.writing("", clock=Clock()) as writer:
        begun(writer)
        two_epochs(writer)
        writer.begin(an_assignment(0), **COUNTS, origin="sampler", epochs=1)  # type: ignore[arg-type]
        assert left(study)[0] == [1]


class KilledForGood(Killer):
    """As `Killer`; and what was not yet written is gone, as with the process."""

    def __call__(self, outlet: Any) -> Any:
        wrapped = super().__call__(outlet)
        if isinstance(outlet, Writer):
            self.writer = outlet
        return wrapped

    def forget(self) -> None:
        self.writer._later.clear()


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param(RUNGS, 3, id="rungs, some places"),
        pytest.param(RUNGS, 25, id="rungs", marks=pytest.mark.chaos),
        pytest.param(WHOLE, 6, id="whole", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_is_killed_with_epochs_unwritten_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, text: str, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpspace.ledger.LATER_S", 1e9)  # so that all that may be delayed is

    def searched(folder: Path, killer: KilledForGood) -> None:
        with Session(folder, text=text, sampler="random", trials=4, wrapped=killer) as search:
            try:
                inline.run(search, device="cpu", evaluate=every_epoch)
            except Killed:
                killer.forget()
                raise
            assert search.done

    undisturbed, counted = tmp_path / "undisturbed", KilledForGood()
    searched(undisturbed, counted)
    for n in random.Random(0).sample(range(counted.count), places):
        folder = tmp_path / f"after{n}"
        for attempt in itertools.count():
            try:
                searched(folder, KilledForGood(n if attempt == 0 else 7 * attempt))
                break
            except Killed:
                continue
        assert outcome(folder) == outcome(undisturbed), n
        assert optuna_says(folder) == optuna_says(undisturbed), n
        assert weights_of(folder) == weights_of(undisturbed), n
