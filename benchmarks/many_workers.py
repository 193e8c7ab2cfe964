"""How many workers one driver can feed: its own cost of a trial, with 1 to 3,000 simulated workers.

    python benchmarks/many_workers.py                             10,000 stored trials, without rungs and with them
    python benchmarks/many_workers.py --stored 100000 --only whole
    python benchmarks/many_workers.py --workers 1,100,1000 --seconds 60 --sampler default

The workers are those of the replay engine: their trainings pass in simulated time, each of about `--seconds`, and what
they report is what a real worker does. All else is real: the search of spaces/hybrid.yaml, the ledger and Optuna's
tables in one SQLite file on disk, with its fsyncs, checkpoints and weights as files, `overdue` once a simulated
second. Timed is what the driver does for a trial: to ask, to take note of everything a worker says, to commit, to tell.
The sampler's thinking is taken out and told apart.

First a study of so many trials is made by the same search, and the driver's cost is told over each tenth of it. Then,
from copies of that study, so many workers are at work at once, until as many trials have ended as there are workers
(200 at least). Beside it, on a copy of the same file, Optuna's own ask and tell through its RDBStorage, as it comes:
with random draws, in which Optuna's sampler costs nothing either, and with its TPE.

"Feeds" is the number of workers that are busy all the time when a training takes so long: trial seconds / driver
seconds. What Ray and Tune add to each trial is not simulated: benchmarks/driver_overhead.py measures the whole of a
search on Ray.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances, saved
from large_studies import SEED, SPACE, measured_by_a_formula, memory_mb

from mlpspace import sampling
from mlpspace.checkpoints import Checkpoints
from mlpspace.domain import SpaceDomain
from mlpspace.engines import replay
from mlpspace.measurement import Assignment, Checkpoint, Event, Measurement, Progress
from mlpspace.mirror import mirror
from mlpspace.replay.simulation import SimulatedClock
from mlpspace.results import Limits
from mlpspace.sampling.optuna_samplers import distribution
from mlpspace.search import Search
from mlpspace.space import read_space
from mlpspace.space.dims import Choice, Span
from mlpspace.study import Study

LOOK_S = 1.0  # simulated, between two looks at trials that hang
TENTHS = 10
MAKERS = 100  # workers that make the study
ASKED = 20  # trials of Optuna's own
LENGTHS = (10, 60, 600)  # seconds of a training, of which "feeds" is told
SPACES = {
    "whole": ("without rungs", SPACE.read_text(encoding="utf-8")),
    "rungs": (
        "rungs of 2, 6 and 18 epochs, a third goes on",
        SPACE.read_text(encoding="utf-8").replace("epochs: 8\n", "rungs: {epochs: [2, 6, 18], keep: 1/3}\n"),
    ),
}


# --- simulated workers ----------------------------------------------------------------------------------------------


def trained(assignment: Assignment, seconds: float) -> Generator[tuple[float, Event], None, None]:
    """What a worker says of an assignment, each with the seconds that pass before it.

    Args:
        seconds: of a whole training; that of one network takes half to one and a half times as long.
    """
    begun = int(assignment.state or b"0")
    seconds *= 0.5 + np.random.default_rng(assignment.seed).random()
    for event in measured_by_a_formula(assignment, {}):
        epoch = event.epochs if isinstance(event, Checkpoint | Measurement) else event.epoch
        if begun and (epoch or 0) <= begun and not (isinstance(event, Progress) and not event.epoch):
            continue  # it is behind the state that this leg goes on from
        if isinstance(event, Checkpoint):
            event = dataclasses.replace(event, state=str(event.epochs).encode())
        passes = isinstance(event, Progress) and event.accuracy is not None
        yield seconds / assignment.epochs[-1] if passes else 0.0, event


class Stopwatch:
    """A search as an engine sees it, with the real seconds that its answers took."""

    def __init__(self, search: Search, clock: SimulatedClock) -> None:
        self.search, self._clock = search, clock
        self.seconds = 0.0
        self._looked = 0.0

    def next_assignment(self) -> Assignment | None:
        return self._timed(self.search.next_assignment)

    def report(self, number: int, event: Event) -> bool:
        if self._clock.now - self._looked >= LOOK_S:
            self._looked = self._clock.now
            self._timed(self.search.overdue)
        told: bool = self._timed(self.search.report, number, event)
        return told

    def completed(self, number: int) -> None:
        self._timed(self.search.completed, number)

    def _timed(self, call: Callable[..., Any], *told: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*told)
        finally:
            self.seconds += time.perf_counter() - begun


class Session:
    """A search of the study in `folder`, with simulated workers."""

    def __init__(self, folder: Path, text: str, *, workers: int, seconds: float, sampler: str = "random") -> None:
        self.thinking: list[float] = []
        self._folder, self._text, self._workers, self._seconds, self._name = folder, text, workers, seconds, sampler

    @contextmanager
    def open(self) -> Iterator[None]:
        space = read_space(self._text)
        domain = SpaceDomain(space)
        new = not (self._folder / "study.db").exists()
        study = Study.create(self._folder, space_text=space.text, manifest={}) if new else Study(self._folder)
        clock = SimulatedClock()
        with study.writing("benchmark") as writer:
            trials = study.trials()
            with mirror(study, domain, trials) as tables:
                self.search = Search(
                    domain,
                    writer=writer,
                    trials=trials,
                    sampler=replay.Timed(
                        sampling.make(self._name, domain, seed=SEED), self.thinking, time.perf_counter
                    ),
                    mirror=tables,
                    shelf=Checkpoints(self._folder / "checkpoints"),
                    weights=Checkpoints(self._folder / "weights"),
                    limits=Limits(trials=10**9),
                    seed=SEED,
                    clock=clock,
                )
                del trials
                self._watch = Stopwatch(self.search, clock)
                self._at_work = replay.Workers(
                    self._watch,  # type: ignore[arg-type]
                    clock,
                    self._workers,
                    lambda assignment: trained(assignment, self._seconds),
                )
                yield

    def work(self, trials: int) -> tuple[float, list[float]]:
        """Until so many trials more have been begun; the driver's milliseconds for each, and the sampler's, in which
        it thought."""
        self.thinking.clear()
        self._watch.seconds = 0.0
        until = self._at_work.begun + trials
        self._at_work.work(until=lambda: self._at_work.begun >= until)
        thought = sum(self.thinking)
        return 1000 * (self._watch.seconds - thought) / trials, [1000 * each for each in self.thinking]


# --- rows -----------------------------------------------------------------------------------------------------------


def make(folder: Path, text: str, stored: int, seconds: float) -> None:
    """The study; prints what the driver took over each tenth."""
    session = Session(folder, text, workers=MAKERS, seconds=seconds)
    with session.open():
        told = []
        for tenth in range(TENTHS):
            driver_ms, _ = session.work(stored // TENTHS)
            told.append(driver_ms)
            print(
                f"  {(tenth + 1) * stored // TENTHS:,} trials: {driver_ms:.2f} ms each, {memory_mb():.0f} MB",
                file=sys.stderr,
            )
        print(f"  driver, ms a trial, tenth by tenth: {' '.join(f'{each:.2f}' for each in told)}; {memory_mb():.0f} MB")


def row(folder: Path, text: str, workers: int, seconds: float, sampler: str) -> tuple[float, list[float]]:
    """The driver's milliseconds a trial, and the sampler's each time it was asked, all workers being busy."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        copy = shutil.copytree(folder, Path(place) / folder.name)
        session = Session(copy, text, workers=workers, seconds=seconds, sampler=sampler)
        with session.open():
            if sampler != "random":
                return session.work(ASKED)
            session.work(workers)  # until all are busy, and the study's own unfinished trials are given out
            return session.work(max(200, workers))


def optuna_ms(folder: Path, text: str, name: str) -> tuple[float, float]:
    """Milliseconds of Optuna's own ask and of its tell, through its RDBStorage as it comes."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = read_space(text)
    distributions = {dim.name: distribution(dim) for dim, _ in space.dimensions()}
    samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
    asks, tells = [], []
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        file = shutil.copy(folder / "study.db", place)
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        study = optuna.load_study(study_name=None, storage=storage, sampler=samplers[name](seed=SEED))
        for _ in range(ASKED // 2 if name == "TPE" else ASKED):
            begun = time.perf_counter()
            trial = study.ask()
            space.candidate(partial(_ask, trial, distributions))
            asks.append(1000 * (time.perf_counter() - begun))
            begun = time.perf_counter()
            study.tell(trial, [50.0, 1000.0])
            tells.append(1000 * (time.perf_counter() - begun))
        storage.remove_session()
        storage.engine.dispose()
    return statistics.median(asks), statistics.median(tells)


def _ask(trial: Any, distributions: Mapping[str, Any], dim: Choice | Span) -> Any:
    return trial._suggest(dim.name, distributions[dim.name])


# --- printing -------------------------------------------------------------------------------------------------------


def table(name: str, given: argparse.Namespace, place: Path) -> None:
    """All rows of one kind of space."""
    words, text = SPACES[name]
    print(f"\n{words}; {given.stored:,} stored trials")
    folder = (given.keep or place) / name
    if not (folder / "study.db").exists():
        make(folder, text, given.stored, given.seconds)
    size = (folder / "study.db").stat().st_size / 1e6
    begun = time.perf_counter()
    with Session(folder, text, workers=1, seconds=given.seconds).open():
        opened = time.perf_counter() - begun
    print(f"  study.db {size:.0f} MB; to go on with it takes {opened:.1f} s, imports left out; {memory_mb():.0f} MB")
    feeds = " ".join(f"{f'at {seconds} s':>9}" for seconds in LENGTHS)
    print(f"  {'workers':>9} {'driver, ms a trial':>20} {'trials a second':>16}   feeds so many workers {feeds}")
    ours = []
    for workers in given.workers:
        ms, _ = row(folder, text, workers, given.seconds, "random")
        ours.append(ms)
        fed = " ".join(f"{1000 * seconds / ms:9,.0f}" for seconds in LENGTHS)
        print(f"  {workers:9,} {ms:20.2f} {1000 / ms:16,.0f}   {'':21} {fed}", flush=True)
    middle = statistics.median(ours)
    grown = [f"{workers:,}" for workers, ms in zip(given.workers, ours, strict=True) if ms > 1.5 * ours[0]]
    where = f"from {grown[0]} workers on" if grown else "nowhere in this range"
    print(f"  The driver's own cost of a trial grows by half or more: {where}.")
    if given.optuna:
        for sampler in ("random", "TPE"):
            ask, tell = optuna_ms(folder, text, sampler)
            print(
                f"  Optuna's RDBStorage, {sampler:6}: ask {ask:7.1f} ms + tell {tell:6.1f} ms;"
                f" {(ask + tell) / middle:,.0f} times ours, the sampler's thinking left out of ours"
            )
    for sampler in given.sampler:
        _, thought = row(folder, text, 1, given.seconds, sampler)
        a_trial = sum(thought) / ASKED
        print(
            f"  The sampler's own thinking, {sampler}: {a_trial:,.0f} ms a trial on top, the median answer"
            f" {statistics.median(thought):,.0f} ms: {1000 / (middle + a_trial):,.1f} trials a second"
        )


def main(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as place:
        print(circumstances(f"{os.cpu_count()} cores", "optuna", "sqlalchemy"))
        print(f"# trainings of {given.seconds:g} s, simulated; one search a row")
        for name in given.only or SPACES:
            table(name, given, Path(place))
    return 0


def numbers(text: str) -> Sequence[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=10_000, help="trials in the study beforehand")
    parser.add_argument("--workers", type=numbers, default=[1, 10, 100, 300, 1000, 3000], help="comma-separated")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a training, simulated")
    parser.add_argument("--only", choices=SPACES, action="append", help="this kind of space; may be given again")
    parser.add_argument("--sampler", action="append", default=[], help="whose thinking is timed too, such as default")
    parser.add_argument("--no-optuna", dest="optuna", action="store_false", help="leave Optuna's own ask and tell out")
    parser.add_argument("--keep", type=Path, help="folder of the studies, made only if they are not there")
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results")
    asked = parser.parse_args()
    sys.exit(saved("many_workers", "cpu", lambda: main(asked)) if asked.save else main(asked))
