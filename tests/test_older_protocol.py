"""Who goes on with a study of an older mlpspace is told that its throughputs and those to come do not compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import mlpspace
from hand_made import a_trial, accuracy, throughput
from stubs import SPACE, Session, evaluate

from mlpspace.engines import inline
from mlpspace.measurement import COMPILED, DISTURBED, THROUGHPUT_PROTOCOL, Assignment, Event, Measurement
from mlpspace.older_protocol import protocols, told
from mlpspace.space import read_space

NOW, BEFORE = THROUGHPUT_PROTOCOL, "deployed-eval-v1"
COMMAND = "mlpspace search space.yaml --study studies/run2"


def said(*of: str, text: str = SPACE) -> str | None:
    trials = [a_trial(throughput(100.0, protocol=protocol)) for protocol in of]
    return told(trials, read_space(text), Path("studies/run1"), COMMAND)


def test_of_each_trial_the_throughput_that_stands_counts() -> None:
    trials = [
        a_trial(accuracy(50.0)),
        a_trial(throughput(1.0, protocol=BEFORE), throughput(1.0, protocol=NOW, attempt=2)),
        a_trial(throughput(1.0, protocol=BEFORE), throughput(1.0, protocol=NOW, repeat=1)),
        a_trial(throughput(1.0, protocol=BEFORE + DISTURBED)),
        a_trial(throughput(1.0, protocol=BEFORE), state="infeasible"),
    ]
    assert protocols(trials) == {NOW: 1, BEFORE: 2}


def test_how_many_trials_do_not_compare_is_told_with_what_to_do() -> None:
    assert said(BEFORE, NOW, BEFORE + DISTURBED) == (
        "The throughput of 2 of 3 trials was measured by protocol deployed-eval-v1. What comes is measured by"
        f" {NOW}, which does not compare with it:\n"
        "  on the front stands the protocol that more trials have, and the others are left out.\n"
        f"  To measure all of them alike, in a new study: {COMMAND}\n"
        "  To keep the front that there is: end this search (Ctrl-C), mlpspace pareto studies/run1"
    )


def test_where_all_compare_or_throughput_is_no_objective_nothing_is_told() -> None:
    assert said() is said(NOW, NOW + DISTURBED) is None
    by_compiler = SPACE.replace("scale: log}", "scale: log, compile: true}")
    assert said(NOW + COMPILED, text=by_compiler) is None
    assert said(NOW, text=by_compiler) is not None
    without = SPACE.replace("  throughput: {goal: maximize, worst: 100, scale: log}", "  params: {worst: 10M}")
    assert said(BEFORE, text=without) is None


def measured_by(protocol: str, assignment: Assignment, bounds: object) -> Iterator[Event]:
    for event in evaluate(assignment, bounds):
        timed = isinstance(event, Measurement) and event.metric == "throughput"
        yield dataclasses.replace(event, protocol=protocol) if timed else event


@pytest.mark.parametrize("protocol", [BEFORE, NOW])
def test_a_search_that_goes_on_says_it_once_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with Session(tmp_path / "studies" / "run1", trials=3) as search:
        inline.run(search, device="cpu", evaluate=lambda *told: measured_by(protocol, *told))
    monkeypatch.setattr(
        "mlpspace.driver._engine",
        lambda search, *told: inline.run(search, device="cpu", evaluate=lambda *told: measured_by(NOW, *told)),
    )
    Path("space.yaml").write_text(SPACE)
    for is_done in (False, True):
        code, out, _ = mlpspace(capsys, "search", "space.yaml", "--trials", 4)
        assert code == 0
        assert ("nothing was added" in out) == is_done
        times = 1 if protocol == BEFORE and not is_done else 0
        assert out.count("The throughput of 3 of 3 trials was measured by protocol deployed-eval-v1.") == times
        assert out.count("in a new study: mlpspace search space.yaml --study studies/run2") == times
