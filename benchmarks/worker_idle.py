"""How long a worker is idle between two trials: from the end of one to the start of the next, by the worker's clock.

    python benchmarks/worker_idle.py                       all rows, two workers, about three minutes
    python benchmarks/worker_idle.py --only ours --seconds 2

Every row is a whole search on Ray with two workers whose trials keep one core busy for some seconds and train nothing;
two objectives; each trial is written to SQLite on disk as it ends. The peers are stock Tune with OptunaSearch and its
TPE, ours is spaces/hybrid.yaml with the default sampler, in a study that holds 400 trials already: a suggestion then
takes most of a second of a core. Ours is also asked how long a worker waits for the driver within a trial, as the
search decides on a network between its throughput and its training.

Idle is paired without asking who took what: with W workers the k-th trial to end frees the place that the (k+W)-th to
begin takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORKERS = 2
KNOWN = 400  # trials that our study holds when the workers start


def burn(seconds: float) -> None:
    """Keeps one core busy."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def stamp(folder: str, what: str, at: float | None = None) -> None:
    """By the worker's clock, which is the machine's; one short write to a file of its own."""
    with open(f"{folder}/{os.getpid()}.stamps", "a") as file:
        file.write(f"{what} {time.monotonic() if at is None else at!r}\n")


def idle_ms(folder: Path) -> tuple[list[float], list[float]]:
    """Between two trials, and within one for the driver."""
    stamps: dict[str, list[float]] = {"begin": [], "end": [], "waited": []}
    for file in folder.glob("*.stamps"):
        for line in file.read_text().splitlines():
            what, at = line.split()
            stamps[what].append(float(at))
    for each in stamps.values():
        each.sort()
    between = [b - e for e, b in zip(stamps["end"], stamps["begin"][WORKERS:], strict=False)]
    return [1000 * s for s in between], [1000 * s for s in stamps["waited"]]


# --- the rows: (trials, seconds of one, an empty folder) ------------------------------------------------------------


def stock(trials: int, seconds: float, folder: Path) -> None:
    """Ray Tune and its OptunaSearch with nothing changed but where Optuna stores."""
    _tune(trials, seconds, folder, reuse_actors=False)


def reuse(trials: int, seconds: float, folder: Path) -> None:
    """The same, the workers kept between trials."""
    _tune(trials, seconds, folder, reuse_actors=True)


def _tune(trials: int, seconds: float, folder: Path, *, reuse_actors: bool) -> None:
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    search = OptunaSearch(
        _space,
        metric=["accuracy", "throughput"],
        mode=["max", "max"],
        seed=0,
        study_name="idle",
        storage=optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}"),
    )
    tuner = tune.Tuner(
        tune.with_parameters(_objective, seconds=seconds, folder=str(folder)),
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, reuse_actors=reuse_actors),
        run_config=tune.RunConfig(name="idle", storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0, f"{results.num_errors} trials failed"


def _space(trial: Any) -> None:
    """Eight dimensions, as many as an isotropic network of spaces/hybrid.yaml has."""
    for name in ("patch", "norm", "fusion", "layer_scale"):
        trial.suggest_categorical(name, ["a", "b", "c"])
    for name in ("depth", "width", "ratio", "memory"):
        trial.suggest_int(name, 1, 8)


def _objective(config: dict[str, Any], *, seconds: float, folder: str) -> None:
    from ray import tune

    stamp(folder, "begin")
    burn(seconds)
    cost = config["depth"] * config["width"]
    stamp(folder, "end")
    tune.report({"accuracy": float(cost), "throughput": 1.0 / cost})


def ours(trials: int, seconds: float, folder: Path) -> None:
    """mlpspace's own search with its default sampler; the ledger and Optuna's tables as always."""
    import ray

    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.engines import inline, ray_tune
    from mlpspace.mirror import mirror
    from mlpspace.results import Limits
    from mlpspace.search import Search
    from mlpspace.space import read_space
    from mlpspace.study import Study

    hybrid = (Path(__file__).parents[1] / "spaces" / "hybrid.yaml").read_text().splitlines()
    space = read_space("\n".join(line for line in hybrid if not line.startswith("fixed_points")))
    domain = SpaceDomain(space)
    study = Study.create(folder / "study", space_text=space.text, manifest={})
    with study.writing("benchmark") as writer, mirror(study, domain, []) as tables:

        def search(sampler: str, trials: int) -> Search:
            return Search(
                domain,
                writer=writer,
                trials=study.trials(),
                sampler=sampling.make(sampler, domain, seed=0),
                mirror=tables,
                shelf=Checkpoints(folder / "study" / "checkpoints"),
                limits=Limits(trials=trials),
                seed=0,
                clock=time.monotonic,
            )

        inline.run(search("random", KNOWN), evaluate=partial(_busy, 0.0))
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
        wanted = ray_tune.Wanted(workers=WORKERS, device="cpu")
        make = partial(_worker, str(folder), seconds)
        ray_tune.run(search("default", KNOWN + trials), wanted=wanted, interrupted=lambda: False, make_evaluate=make)


def _worker(folder: str, seconds: float) -> Callable[[Any, Any], Generator[Any, None, None]]:
    return partial(_stamped, folder, seconds)


def _stamped(folder: str, seconds: float, assignment: Any, bounds: Any) -> Generator[Any, None, None]:
    """`_busy`, and when it began, what it said last, and how long it waited for leave to train."""
    stamp(folder, "begin")
    said = time.monotonic()
    try:
        for event in _busy(seconds, assignment, bounds):
            said = time.monotonic()
            yield event
            if getattr(event, "phase", "") == "training" and not event.epoch:
                stamp(folder, "waited", time.monotonic() - said)
    finally:  # closed from outside, where it was set aside before training
        stamp(folder, "end", said)


def _busy(seconds: float, assignment: Any, bounds: Any) -> Generator[Any, None, None]:
    """Tells what a worker tells, when it would; the numbers follow from the architecture, as _objective's do."""
    from mlpspace.measurement import Measurement, Progress

    cost = sum(stage.depth * stage.width for stage in assignment.architecture.stages)
    how: dict[str, Any] = {"seconds": 0.0, "device": "none", "batch": 64, "precision": "fp32", "threads": 1}
    yield Progress(phase="data")
    for metric, value in (("throughput", 1e6 / cost), ("peak_memory_mb", 1.0)):
        yield Measurement(metric=metric, value=value, low=value, high=value, protocol="none", **how)
    yield Progress(phase="training", epochs=assignment.epochs[-1])
    accuracy, epochs = 100.0 * cost / (cost + 100), assignment.epochs[-1]
    for epoch in range(1, epochs + 1):
        burn(seconds / epochs)
        yield Progress(phase="training", epoch=epoch, epochs=epochs, loss=1.0, accuracy=accuracy)
    yield Measurement(
        metric="accuracy", value=accuracy, low=accuracy, high=accuracy, protocol="none", rung=0, epochs=epochs, **how
    )


ROWS: dict[str, tuple[str, Callable[[int, float, Path], None]]] = {
    "stock": ("Ray Tune + OptunaSearch", stock),
    "reuse": ("  + reuse_actors=True", reuse),
    "ours": ("mlpspace, default sampler", ours),
}


# --- running them ---------------------------------------------------------------------------------------------------


def measure(row: str, trials: int, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds idle of one row, from a process of its own.

    Raises:
        RuntimeError: the process failed; the text is the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--one",
            row,
            "--trials",
            str(trials),
            "--seconds",
            str(seconds),
            "--folder",
            folder,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{row} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return idle_ms(Path(folder))


def spread(values: list[float]) -> str:
    """Median, quartiles, largest."""
    quarters = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):8.0f} {quarters[0]:8.0f} {quarters[2]:8.0f} {max(values):8.0f} {len(values):6d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one trial")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; may be given again")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        ROWS[given.one][1](given.trials, given.seconds, given.folder)
        return

    names = given.only or list(ROWS)
    between: dict[str, list[float]] = {name: [] for name in names}
    within: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(given.repeats):
        for name in names:
            idle, asked = measure(name, given.trials, given.seconds)
            between[name] += idle
            within[name] += asked
            print(f"repeat {repeat + 1}, {name}: {statistics.median(idle):.0f} ms", file=sys.stderr)

    circumstances = {
        "trials": given.trials,
        "seconds": given.seconds,
        "workers": WORKERS,
        "repeats": given.repeats,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("ray", "optuna")},
    }
    if given.json:
        print(json.dumps({"idle_ms": between, "waiting_within_ms": within, **circumstances}))
        return
    print(", ".join(f"{name} {value}" for name, value in circumstances.items()))
    print(f"{'ms idle between two trials':30} {'median':>8} {'1st qu.':>8} {'3rd qu.':>8} {'largest':>8} {'of':>6}")
    for name in names:
        print(f"{ROWS[name][0]:30} {spread(between[name])}")
    if "ours" in names:
        print(f"{'  for the driver, within one':30} {spread(within['ours'])}")
        for name in names:
            if name != "ours":
                ratio = statistics.median(between[name]) / statistics.median(between["ours"])
                print(f"{ROWS[name][0].strip()} is idle {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
