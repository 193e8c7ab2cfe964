"""A study of many trials: what the driver adds to each, and how long it takes to open and to look at.

    python benchmarks/large_studies.py                        10,000 trials, 3 repeats of each command
    python benchmarks/large_studies.py --trials 100000
    python benchmarks/large_studies.py --keep FOLDER          the study stays there, and is made only if it is not

The trials are drawn from spaces/hybrid.yaml at random and "measured" by a formula with noise, as no trial's training is
of interest here; all else is as in any search: the ledger, Optuna's tables beside it, the front, its weights. What the
driver takes is told over each tenth of the study. Then each row is a process of its own, from its start to its end, and
the rows take turns; the last is Optuna itself on the same file.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

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

OPTUNA = """
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name={name!r}, storage="sqlite:///" + {file!r})
assert study.best_trials
"""


def rows(folder: Path, trials: int) -> dict[str, list[str]]:
    """What is looked at, and the command that does it."""
    mlpspace = [sys.executable, "-m", "mlpspace"]
    optuna = OPTUNA.format(name=folder.name, file=str(folder / "study.db"))
    return {
        "mlpspace pareto": [*mlpspace, "pareto", str(folder)],
        "mlpspace status": [*mlpspace, "status", str(folder)],
        "a search that goes on, to its first draw": [
            sys.executable,
            "-c",
            OPEN.format(folder=str(folder), trials=trials),
        ],
        "Optuna's load_study and best_trials": [sys.executable, "-c", optuna],
    }


# --- making it ------------------------------------------------------------------------------------------------------


def make(folder: Path, trials: int) -> list[float]:
    """A study of so many trials; milliseconds a trial of each tenth, the drawing of candidates included."""
    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.driver import mirror
    from mlpspace.engines import inline
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
            print(f"{search.ended:,} trials: {tenths[-1]:.1f} ms each, {_memory_mb():.0f} MB", file=sys.stderr)
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
        inline.run(search, device="cpu", evaluate=_measured_by_a_formula)
    return tenths


def _measured_by_a_formula(assignment: Any, bounds: Any) -> Iterator[Any]:
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


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- looking at it --------------------------------------------------------------------------------------------------


def seconds(command: list[str]) -> float:
    """Of a process, from its start to its end.

    Raises:
        RuntimeError: it failed; the text is the end of what it wrote.
    """
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder of the study")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = given.keep or Path(place) / "study"
        tenths = [] if (folder / "study.db").exists() else make(folder, given.trials)
        took: dict[str, list[float]] = {}
        for _ in range(given.repeats):
            for name, command in rows(folder, given.trials).items():
                took.setdefault(name, []).append(seconds(command))
        size_mb = (folder / "study.db").stat().st_size / 1e6
    told = {"cores": os.cpu_count(), "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}
    told |= {name: version(name) for name in ("optuna", "sqlalchemy")}
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    print(f"{given.trials:,} trials, study.db {size_mb:.0f} MB")
    if tenths:
        print(f"driver, ms a trial, tenth by tenth: {' '.join(f'{each:.1f}' for each in tenths)}")
    print(f"{'':42} {'seconds':>8} {'lowest':>8} {'highest':>8}")
    for name, found in took.items():
        print(f"{name:42} {statistics.median(found):8.2f} {min(found):8.2f} {max(found):8.2f}")


if __name__ == "__main__":
    main()
