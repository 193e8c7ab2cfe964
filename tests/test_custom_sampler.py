"""A sampler of the user's own: `--sampler module:Class`."""

from __future__ import annotations

import pytest
from stubs import Session, evaluate

from mlpspace.engines import inline
from mlpspace.sampling.custom import SamplerError
from mlpspace.study import Study

CODE = """
import numpy as np
from mlpspace.sampling import Suggestion

class Drawn:  # has suggest, and nothing else
    def __init__(self, domain, *, seed):
        self.domain, self.seed = domain, seed

    def suggest(self, number, draw, seen):
        return Suggestion(self.domain.draw(np.random.default_rng([self.seed, number, draw])), "as it came")

class Broken(Drawn):
    def suggest(self, number, draw, seen):
        if number == 5:
            raise ValueError("no idea")
        return super().suggest(number, draw, seen)

class Silent(Drawn):
    def suggest(self, number, draw, seen):
        return None
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "own_samplers.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_samplers", raising=False)
    return tmp_path


def test_it_needs_suggest_alone_and_its_reasons_are_kept(here):
    with Session(here / "run1", sampler="own_samplers:Drawn") as search:
        inline.run(search, device="cpu", evaluate=evaluate)
        assert search.done
    assert Study(here / "run1").trials()[-1].why == "as it came"


def test_one_that_raises_is_named_with_the_trial_and_the_study_goes_on(here):
    with pytest.raises(SamplerError, match="failed in suggest, for trial 5: ValueError: no idea"):  # noqa: SIM117
        with Session(here / "run1", sampler="own_samplers:Broken") as search:
            inline.run(search, device="cpu", evaluate=evaluate)
    with Session(here / "run1", sampler="own_samplers:Drawn") as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    assert len(Study(here / "run1").trials()) == 12


def test_one_that_gives_nothing_is_told_what_it_should_have_given(here):
    with Session(here / "run1", sampler="own_samplers:Silent") as search, pytest.raises(SamplerError, match="NoneType"):
        inline.run(search, device="cpu", evaluate=evaluate)
