"""Studies of many trials: how long it takes to open them and to look at them, beside Optuna on the same file.

    python benchmarks/large_studies.py                         10,000 and 100,000 trials, 3 repeats of each row
    python benchmarks/large_studies.py --trials 10000 --searched     what the driver adds to each trial, too
    python benchmarks/large_studies.py --keep FOLDER --save    the studies stay there, made only if they are not

The trials are drawn from spaces/hybrid.yaml at random and "measured" by a formula with noise, as no trial's training is
of interest here. Mostly they are written in bulk by the ledger's own functions (100,000 in some three minutes); with
--searched a search writes them, with all that belongs to it, and what its driver takes is told over each tenth of them.

Then each row is a process of its own, and the rows take turns. The rows of a process are timed from its start to its
end; those of a call, from after the imports to its result:

    Study.columns    Study(folder) and what a front asks of all trials, checked
    Study.front      that, and the front of it
    Study.trials     Study(folder) and each trial as an object, with its measurements and its curve

Optuna's own is a process that calls `load_study` and `best_trials` on the same file; it is ended after --limit seconds.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances, saved

SPACE = Path(__file__).parents[1] / "spaces" / "hybrid.yaml"
SEED = 0

OPEN = """
from pathlib import Path
from mlpspace import sampling
from mlpspace.checkpoints import MemoryCheckpoints
from mlpspace.domain import SpaceDomain
from mlpspace.engines.replay import NullMirror, NullWriter
from mlpspace.results import Limits
from mlpspace.search import Search
from mlpspace.space import read_space
from mlpspace.study import Study
study = Study(Path({folder!r}))
domain = SpaceDomain(read_space(study.space_text))
search = Search(
    domain, writer=NullWriter(), trials=study.trials(), sampler=sampling.make("random", domain, seed=0),
    mirror=NullMirror(), shelf=MemoryCheckpoints(), limits=Limits(trials=10**9), seed=0, clock=lambda: 0.0,
)
assert search.ended == {trials}, search.ended
"""

CALL = """
import time
from mlpspace.front import front
from mlpspace.ledger_columns import Reader
from mlpspace.space import read_space
from mlpspace.study import Study
begun = time.perf_counter()
study = Study({folder!r})
found = {call}
print(time.perf_counter() - begun)
"""
CALLS = {
    "Study.columns": "study.at_one_instant(Reader.columns)",
    "Study.front": "front(study, read_space(study.space_text).objectives)",
    "Study.trials": "study.trials()",
}

OPTUNA = """
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name={name!r}, storage="sqlite:///" + {file!r})
assert study.best_trials
"""


PEER = "Optuna: load_study, best_trials"


def rows(folder: Path, trials: int) -> dict[str, list[str]]:
    """What is looked at, and the command that does it."""
    mlpspace = [sys.executable, "-m", "mlpspace"]
    optuna = OPTUNA.format(name=folder.resolve().name, file=str(folder / "study.db"))
    opened = OPEN.format(folder=str(folder), trials=trials)
    calls = {name: CALL.format(folder=str(folder), call=call) for name, call in CALLS.items()}
    return {
        **{name: [sys.executable, "-c", program] for name, program in calls.items()},
        "mlpspace pareto": [*mlpspace, "pareto", str(folder)],
        "mlpspace pareto --plot": [*mlpspace, "pareto", str(folder), "--plot", str(folder / "front.png")],
        "mlpspace status": [*mlpspace, "status", str(folder)],
        "a search that goes on, to its first draw": [sys.executable, "-c", opened],
        PEER: [sys.executable, "-c", optuna],
    }


# --- making it ------------------------------------------------------------------------------------------------------


def make(folder: Path, trials: int) -> list[float]:
    """A study of so many trials; milliseconds a trial of each tenth, the drawing of candidates included."""
    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.engines import inline
    from mlpspace.mirror import mirror
    from mlpspace.results import Limits, Result
    from mlpspace.search import Search
    from mlpspace.space import read_space
    from mlpspace.study import Study

    space = read_space(SPACE.read_text(encoding="utf-8"))
    domain = SpaceDomain(space)
    study = Study.create(folder, space_text=space.text, manifest={})
    tenths: list[float] = []
    begun = time.perf_counter()

    def observe(result: Result) -> None:
        nonlocal begun
        if search.ended % max(1, trials // 10) == 0:
            now = time.perf_counter()
            tenths.append(1000 * (now - begun) / max(1, trials // 10))
            print(f"{search.ended:,} trials: {tenths[-1]:.1f} ms each, {memory_mb():.0f} MB", file=sys.stderr)
            begun = now

    with study.writing("benchmark", total=trials) as writer, mirror(study, domain, []) as tables:
        search = Search(
            domain,
            writer=writer,
            trials=(),
            sampler=sampling.make("random", domain, seed=SEED),
            mirror=tables,
            shelf=Checkpoints(folder / "checkpoints"),
            weights=Checkpoints(folder / "weights"),
            limits=Limits(trials=trials),
            seed=SEED,
            clock=time.monotonic,
            observe=observe,
        )
        inline.run(search, device="cpu", evaluate=measured_by_a_formula)
    return tenths


def make_in_bulk(folder: Path, trials: int) -> None:
    """A study of so many trials, each drawn, evaluated and written as in `make`, but a thousand in one transaction and
    without a search that thinks about them. Optuna's tables get what its samplers read: the point and the values."""
    from mlpspace.domain import SpaceDomain
    from mlpspace.measurement import Measurement, Progress
    from mlpspace.mirror import mirror
    from mlpspace.space import read_space
    from mlpspace.study import Study

    space = read_space(SPACE.read_text(encoding="utf-8"))
    domain = SpaceDomain(space)
    rng = np.random.default_rng(SEED)
    study = Study.create(folder, space_text=space.text, manifest={})
    with mirror(study, domain, []):
        pass  # the tables are there now
    seen: set[Any] = set()
    with study.writing("benchmark", total=trials) as writer:
        files, bulk = writer.transactions, _Bulk()
        writer.transactions = bulk  # type: ignore[assignment]
        while len(seen) < trials:
            candidate = domain.draw(rng)
            if domain.refusal(candidate) or domain.key(candidate) in seen:
                continue
            number = len(seen)
            seen.add(domain.key(candidate))
            seed = int(rng.integers(2**31))
            assignment = domain.assignment(number, 1, candidate.architecture, candidate.recipe, seed=seed)
            counts = domain.counts(candidate.architecture)
            named = {name: getattr(counts, name) for name in ("params", "macs", "tokens", "activations")}
            writer.begin(assignment, **named, origin="sampler", point=candidate.point, why="random")
            values = {}
            for event in measured_by_a_formula(assignment, {}):
                if isinstance(event, Measurement):
                    values[event.metric] = event.value
                    writer.record(assignment, event)
                elif isinstance(event, Progress) and event.accuracy is not None:
                    writer.record_progress(assignment, event)
            writer.finish(number, "complete")
            bulk.for_optuna.append((number, candidate.point, [values[each.metric] for each in domain.objectives]))
            if len(bulk.for_optuna) == 1000 or len(seen) == trials:
                files.run(lambda connection: bulk.flush(connection, domain))
                print(f"{len(seen):,} trials, {memory_mb():.0f} MB", file=sys.stderr)


class _Bulk:
    """In place of a ledger's transactions: what is written is kept, statement by statement, until it is flushed."""

    rowcount = 1

    def __init__(self) -> None:
        self.steps: dict[Any, list[Any]] = {}  # statement -> its rows
        self.for_optuna: list[tuple[int, dict[str, Any], list[float]]] = []  # number, point, values

    def run(self, do: Any, *, durable: bool = True) -> Any:
        return do(self)

    def execute(self, statement: Any, row: Any) -> _Bulk:
        rows = row if isinstance(row, list) else [row]
        self.steps.setdefault(statement, []).extend(map(dict, rows))
        return self

    def flush(self, connection: Any, domain: Any) -> None:
        import sqlalchemy as sa
        from optuna.distributions import distribution_to_json

        from mlpspace.sampling.optuna_samplers import distribution

        for statement, rows in self.steps.items():
            connection.execute(statement, rows)
        known = {dim.name: distribution(dim) for dim, _ in domain.dimensions}
        texts = {name: distribution_to_json(each) for name, each in known.items()}
        tables: dict[str, list[dict[str, Any]]] = {"trials": [], "trial_params": [], "trial_values": []}
        for number, point, values in self.for_optuna:
            at, which = datetime.now(), {"trial_id": number + 1}
            told = {"number": number, "study_id": 1, "state": "COMPLETE", "datetime_start": at, "datetime_complete": at}
            tables["trials"].append(which | told)
            for name, value in point.items():
                row = {"param_name": name, "param_value": known[name].to_internal_repr(value)}
                tables["trial_params"].append(which | row | {"distribution_json": texts[name]})
            for objective, value in enumerate(values):
                tables["trial_values"].append(which | {"objective": objective, "value": value, "value_type": "FINITE"})
        for name, rows in tables.items():
            connection.execute(sa.insert(sa.table(name, *(sa.column(column) for column in rows[0]))), rows)
        self.steps.clear()
        self.for_optuna.clear()


def measured_by_a_formula(assignment: Any, bounds: Any) -> Iterator[Any]:
    from mlpspace.measurement import Checkpoint, Measurement, Progress

    rng = np.random.default_rng(assignment.seed)
    size = sum(stage.depth * stage.width**2 for stage in assignment.architecture.stages)
    how: dict[str, Any] = {"seconds": 0.1, "device": "none", "batch": 64, "precision": "fp32", "threads": 1}
    speed = 1e9 / size * math.exp(rng.normal(0, 0.3))
    yield Progress(phase="throughput")
    for metric, value in (("throughput", speed), ("peak_memory_mb", 1.0)):
        yield Measurement(metric=metric, value=value, low=0.98 * value, high=1.02 * value, protocol="none", **how)
    epochs = assignment.epochs[-1]
    top = min(99.0, 60 + 6 * math.log10(size) - abs(rng.normal(0, 8)))
    yield Progress(phase="training", epochs=epochs)
    for epoch in range(1, epochs + 1):
        accuracy = top * epoch / epochs
        yield Progress(phase="training", epoch=epoch, epochs=epochs, loss=1.0, accuracy=accuracy)
        if epoch in assignment.epochs:
            yield Checkpoint(epoch, b"weights")
            bounds = {"low": accuracy - 0.5, "high": accuracy + 0.5, "protocol": "none"}
            rung = assignment.epochs.index(epoch)
            yield Measurement(metric="accuracy", value=accuracy, rung=rung, epochs=epoch, **bounds, **how)


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- looking at it --------------------------------------------------------------------------------------------------


def seconds(name: str, command: list[str], limit: float) -> float:
    """Of a process, from its start to its end, or as it says itself where it times a call; inf: it was ended.

    Raises:
        RuntimeError: it failed; the text is the end of what it wrote.
    """
    begun = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit if name == PEER else None)
    except subprocess.TimeoutExpired:
        return math.inf
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return float(done.stdout) if name in CALLS else time.perf_counter() - begun


def look(folder: Path, trials: int, given: argparse.Namespace) -> None:
    """The table of one study."""
    took: dict[str, list[float]] = {}
    for _ in range(given.repeats):
        for name, command in rows(folder, trials).items():
            if math.inf not in took.get(name, ()):  # what was ended once is not waited for again
                took.setdefault(name, []).append(seconds(name, command, given.limit))
    peer = statistics.median(took[PEER])
    size_mb = (folder / "study.db").stat().st_size / 1e6
    print(f"\n{trials:,} trials, study.db {size_mb:.0f} MB, {given.repeats} repeats")
    print(f"{'':42} {'seconds':>8} {'lowest':>8} {'highest':>8}  Optuna's takes")
    for name, found in took.items():
        if math.inf in found:
            print(f"{name:42} {f'>{given.limit:.0f}':>8}  ended")
            continue
        middle = statistics.median(found)
        times = "" if name == PEER else f"{min(peer, given.limit) / middle:.0f}x"
        ratio = f"over {times}" if times and math.isinf(peer) else times
        print(f"{name:42} {middle:8.2f} {min(found):8.2f} {max(found):8.2f}  {ratio}".rstrip())


def main(given: argparse.Namespace) -> int:
    print(circumstances(f"{os.cpu_count()} CPU cores", "optuna", "sqlalchemy", "numpy"))
    with tempfile.TemporaryDirectory() as place:
        for trials in given.trials:
            folder = (given.keep or Path(place)) / f"trials{trials}"
            if (folder / "study.db").exists():
                pass
            elif given.searched:
                tenths = make(folder, trials)
                told = " ".join(f"{each:.1f}" for each in tenths)
                print(f"\n{trials:,} trials: the driver took, ms a trial, tenth by tenth: {told}")
            else:
                make_in_bulk(folder, trials)
            look(folder, trials, given)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that Optuna's own may take")
    parser.add_argument("--searched", action="store_true", help="written by a search, some ten times as slow")
    parser.add_argument("--keep", type=Path, help="folder of the studies")
    parser.add_argument("--save", action="store_true", help="keep what is printed in benchmarks/results")
    asked = parser.parse_args()
    sys.exit(saved("large_studies", "cpu", lambda: main(asked)) if asked.save else main(asked))
