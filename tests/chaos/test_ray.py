"""A search on Ray: 25 of its workers killed while it runs, and its driver five times."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from chaos import books, instants, processes
from chaos.faults import WORKER_FAULTS
from chaos.figures import Figures, Row
from chaos.ordeal import Ordeal, kept_if_it_fails, new_place
from chaos.references import References
from chaos.searches import Session, trained

pytestmark = pytest.mark.chaos

TRIALS = 52
EPOCHS = 4  # of each
WORKERS = 2
DRIVER_KINDS = ("kill -9", "kill -9", "kill -9 of the group", "kill", "terminal closed")
WORKER_KINDS = (*("kill -9",) * 7, *("segfault",) * 2, "kill")  # as often of ten
WORKER_FAULTS_EACH = 5  # in each session whose driver is then struck
MOST_DEATHS = 3  # of a trial's workers; then it is infeasible
BACK_WITHIN_S = 90.0


def test_workers_and_drivers_die_on_ray(
    seeds: Callable[[float], Iterator[int]], figures: Figures, references: References
) -> None:
    for seed in seeds(0.4):
        rng = random.Random(f"ray {seed}")
        reference = references.of("whole", seed)
        kinds = rng.sample(DRIVER_KINDS, len(DRIVER_KINDS))
        drivers, workers = figures.rows["Ray, driver"], figures.rows["Ray, workers"]
        while kinds:
            engine = ("--seed", str(seed), "--trials", str(TRIALS), "--workers", str(WORKERS))
            place = new_place(reference.place.space, engine)
            with kept_if_it_fails(place, f"Ray, --chaos-seed {seed}"):
                search = Ordeal(place, drivers, TRIALS, 0)
                while kinds:
                    session = search.start()
                    struck = workers.faults.total()
                    while workers.faults.total() - struck < WORKER_FAULTS_EACH:
                        if not _strike_workers(search, session, rng, workers):
                            break
                    if not search.strike_driver(kinds[-1], instants.drawn_at_work(rng), session):
                        break
                    kinds.pop()
                search.finish(400)
                _check_deaths(search)
                died = {number for number, row in search.book.trials.items() if row["state"] == "infeasible"}
                search.compare(reference, undisturbed_epochs=_undisturbed_epochs(search), but=died)


def _strike_workers(search: Ordeal, session: Session, rng: random.Random, row: Row) -> bool:
    """Kill one of the workers at a random instant, or both; the driver lives on. False: the search was done."""
    if not instants.drawn_at_work(rng).wait_for(session):
        return False
    while not (victims := _victims(search)):
        if not session.lives:
            return False
        time.sleep(0.05)
    victims = rng.sample(victims, rng.randint(1, min(2, len(victims))))
    begun = time.time()
    for victim in victims:
        kind = rng.choice(WORKER_KINDS)
        with suppress(ProcessLookupError):
            os.kill(victim.pid, WORKER_FAULTS[kind])
        row.faults[kind] += 1
    _, left = processes.until_gone(victims, 10)
    assert not left, f"{left} survived"
    pids = {victim.pid for victim in victims}
    by_them = [line for line in search.place.witnessed() if line["pid"] in pids]
    search.cut_off(by_them, books.read_live(search.place.database))  # now, before other workers train it
    back_s = _seconds_until_replaced(search, session, begun, len(victims))
    if back_s is not None:
        row.back_s.append(back_s)
    if session.lives:
        search.look(session, live=True)
    return session.lives


def _victims(search: Ordeal) -> list[processes.Process]:
    """Workers that train; none while a trial is at work that one more death would end."""
    book = books.read_live(search.place.database)
    at_work = [row for row in book.trials.values() if row["state"] == "running"]
    if any((row["deaths"] or 0) >= MOST_DEATHS - 1 for row in at_work):
        return []
    return processes.workers(search.place.mark)


def _seconds_until_replaced(search: Ordeal, session: Session, since: float, struck: int) -> float | None:
    """Until as many processes train that did not before: full width again. None: the search was done before."""
    known = {line["pid"] for line in search.place.witnessed() if line["at"] < since}
    until = time.monotonic() + BACK_WITHIN_S
    while session.lives:
        new: dict[int, float] = {}
        for line in search.place.witnessed():
            if line["what"] == "epoch" and line["pid"] not in known:
                new.setdefault(line["pid"], line["at"])
        if len(new) >= struck:
            return sorted(new.values())[struck - 1] - since
        assert time.monotonic() < until, f"{len(new)} of {struck} dead workers replaced after {BACK_WITHIN_S:g} s"
        time.sleep(0.05)
    return None


def _undisturbed_epochs(search: Ordeal) -> int:
    """Of all that did not die too often, and what was trained of those."""
    complete = sum(row["state"] == "complete" for row in search.book.trials.values())
    seeds = {row["seed"] for row in search.book.trials.values() if row["state"] == "infeasible"}
    return EPOCHS * complete + sum(seed in seeds for seed, _, _ in trained(search.place.witnessed()))


def _check_deaths(search: Ordeal) -> None:
    """A trial is infeasible only after as many deaths as it may have, and says so."""
    for number, row in search.book.trials.items():
        if row["state"] == "infeasible":
            assert row["reason"] == "worker died", f"trial {number}: {row['reason']}, {row['detail']}"
            assert row["deaths"] >= MOST_DEATHS, f"trial {number} was given up after {row['deaths']} deaths"
        else:
            assert row["deaths"] < MOST_DEATHS, f"trial {number}: {row['deaths']} deaths and {row['state']}"
