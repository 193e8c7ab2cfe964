"""One driver that trains by itself, struck at twenty instants of two searches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chaos import instants
from chaos.figures import Figures
from chaos.instants import Instant
from chaos.ordeal import Ordeal, kept_if_it_fails, new_place
from chaos.references import References

pytestmark = pytest.mark.chaos

# of each search
KINDS = (
    *("kill -9",) * 4,
    "kill -9 of the group",
    "kill -9 after a sleep",
    "kill",
    "terminal closed",
    "Ctrl-C",
    "Ctrl-C twice",
)

# the making of a study is a part of life that random instants would seldom meet
BIRTH = (
    Instant("file manifest.json", 1, 0.0),
    Instant("file study.db.new", 1, 0.004),
    Instant("file study.db", 1, 0.001),
    Instant("file study.db", 1, 0.3),
)


def test_a_search_killed_at_any_instant_is_the_search_undisturbed(
    seeds: Callable[[float], Iterator[int]], figures: Figures, references: References
) -> None:
    for seed in seeds(0.4):
        with ThreadPoolExecutor(2) as pool:  # each on a core of its own
            works = [
                pool.submit(_round, name, seed, core, figures, references)
                for core, name in enumerate(("rungs", "whole"))
            ]
        for work in works:
            work.result()


def _round(name: str, seed: int, core: int, figures: Figures, references: References) -> None:
    """A search undisturbed, and the same one struck as often as KINDS has; a new one where it is done before."""
    rng = random.Random(f"{name} {seed}")
    reference = references.of(name, seed, core)
    to_work_s = reference.sessions[0].seconds_to_work()
    assert to_work_s is not None
    kinds = rng.sample(KINDS, len(KINDS))
    row = figures.rows[f"inline engine, {name}.yaml"]
    while kinds:
        place = new_place(reference.place.space, reference.place.engine, core=core)
        with kept_if_it_fails(place, f"{name}.yaml, --chaos-seed {seed}"):
            search = Ordeal(place, row, reference.total, reference.last_rung)
            births = rng.sample(BIRTH, 2)
            while kinds:
                born = place.database.exists()
                instant = instants.drawn(rng, to_work_s=to_work_s) if born or not births else births.pop()
                if not search.strike_driver(kinds[-1], instant):
                    break
                kinds.pop()
            search.finish(400)
            search.compare(reference)
