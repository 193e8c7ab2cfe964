"""Trials of earlier sessions: an architecture is read where it is asked for, and is what it would have been at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from stubs import SPACE, Session, evaluate

from mlpspace.architecture import Architecture
from mlpspace.domain import SpaceDomain
from mlpspace.engines import inline
from mlpspace.errors import StudyError
from mlpspace.front import front
from mlpspace.recalled import recalled
from mlpspace.space import read_space
from mlpspace.study import Study

DOMAIN = SpaceDomain(read_space(SPACE))
TRIALS = 12


@pytest.fixture
def study(tmp_path: Path) -> Study:
    with Session(tmp_path / "run1", sampler="random", trials=TRIALS) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    return Study(tmp_path / "run1")


def spoil(study: Study, number: int, json: str) -> None:
    with closing(sqlite3.connect(study.database)) as connection:
        changed = "update architecture set json = ? where id = (select architecture from trial where number = ?)"
        connection.execute(changed, (json, number))
        connection.commit()


def test_an_architecture_that_is_read_later_is_the_one_that_the_point_stands_for(study: Study) -> None:
    for trial in study.trials():
        network = recalled(DOMAIN, trial, {}).network
        assert network.architecture == Architecture.from_json(trial.architecture_json)
        assert network.architecture.id == trial.architecture_id
        assert network.architecture is network.architecture  # read once
        if trial.point is not None:
            assert network.architecture == DOMAIN.space.decode(trial.point)
            assert network.point == trial.point
        assert network.recipe == trial.recipe


def test_a_trial_that_goes_on_is_the_one_that_it_was(study: Study) -> None:
    for trial in study.trials():
        assignment = recalled(DOMAIN, trial, {}).running(DOMAIN).assignment
        assert assignment.architecture == trial.architecture
        assert (assignment.trial, assignment.attempt, assignment.seed) == (trial.number, trial.attempt, trial.seed)


def test_the_networks_of_a_front_are_the_same_whether_they_were_read_with_it_or_later(study: Study) -> None:
    objectives = read_space(SPACE).objectives
    at_once, later = front(study.trials(), objectives), front(study, objectives)
    assert len(at_once.entries) > len(at_once.points)  # else none would be read later
    assert later.entries == at_once.entries
    assert [entry.trial.architecture for entry in later.entries] == [
        Architecture.from_json(entry.trial.architecture_json) for entry in at_once.entries
    ]


@pytest.mark.parametrize("json", ["", "[]", "{}", '{"stages": 1}', '{"stem": {"kind": "patches"}'])
def test_one_that_is_damaged_is_told_where_it_is_asked_for(study: Study, json: str) -> None:
    number = next(trial.number for trial in study.trials() if trial.point is not None)
    spoil(study, number, json)
    trial = study.trial(number)
    network = recalled(DOMAIN, trial, {}).network  # nobody needs it yet
    for ask in (lambda: network.architecture, lambda: trial.architecture):
        with pytest.raises(StudyError, match=rf"study\.db: the architecture of trial {number} cannot be read \("):
            ask()


def test_one_that_was_damaged_since_the_front_was_made_is_told_when_its_entry_is_asked_for(study: Study) -> None:
    found = front(study, read_space(SPACE).objectives)
    at = int(np.flatnonzero(~found.entries.on_front & ~found.entries.compared.labelled)[0])
    number = found.columns.facts["number"][int(found.entries.compared.trials[at])]
    with closing(sqlite3.connect(study.database)) as connection:
        connection.execute("update trial set detail = x'ff' where number = ?", (number,))
        connection.commit()
    with pytest.raises(StudyError, match=rf"trial {number}: detail .* is no text"):
        found.entries[at]
    assert found.points  # which were read with the front
