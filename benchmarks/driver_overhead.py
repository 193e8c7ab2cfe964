"""What the driver adds to a trial: seconds of a whole search whose trials do nothing, over the number of trials.

    python benchmarks/driver_overhead.py                      all rows, 200 trials, 3 repeats
    python benchmarks/driver_overhead.py --only reuse --trials 60 --repeats 1
    python benchmarks/driver_overhead.py --json

Every row has two workers, two objectives, and writes each trial to SQLite on disk as it ends. A repeat is a process of
its own, and the rows take turns, so that a busy minute of the machine falls on all of them. Ray is up before the clock
starts; the start of the first worker is part of the search.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

SEED = 0


# --- the rows: (trials, workers, an empty folder) -> seconds of the search ------------------------------------------


def stock(trials: int, workers: int, folder: Path) -> float:
    """Ray Tune and its OptunaSearch with nothing changed but where Optuna stores."""
    return _tune(trials, workers, folder, reuse_actors=False)


def reuse(trials: int, workers: int, folder: Path) -> float:
    """The same, the workers kept between trials."""
    return _tune(trials, workers, folder, reuse_actors=True)


def reuse_no_loggers(trials: int, workers: int, folder: Path) -> float:
    """The same, and without the CSV and JSON files that Tune writes for each trial."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    return _tune(trials, workers, folder, reuse_actors=True)


# as many dimensions as `_space` has for the peers, four of them lists and four of them ranges
EIGHT = """
task: {classes: 10, resolution: 32}
space:
  norm: [layer, affine, batch]
  layer_scale: [none, 0.1, 1e-4]
  layout:
    isotropic:
      patch: [2, 4, 8]
      depth: 1..8
      width: 8..64 step 8
      token_mixer: {dense: {ratio: 0.5..4 step 0.5}}
      channel_mixer: {mlp: {ratio: [1, 2, 3]}}
objectives: {accuracy: {worst: 1}, throughput: {worst: 1, scale: log}}
fidelity: {dataset: mnist5k, epochs: 1, recipe: {warmup: 0.1..0.8 step 0.1}}
"""


def ours(trials: int, workers: int, folder: Path) -> float:
    """mlpspace's own search of a space of eight dimensions; the ledger and Optuna's tables as always."""
    return _search(EIGHT, trials, workers, folder)


def ours_hybrid(trials: int, workers: int, folder: Path) -> float:
    """The same on spaces/hybrid.yaml: some 15 dimensions a trial out of 50, conditional on one another."""
    text = (Path(__file__).parents[1] / "spaces" / "hybrid.yaml").read_text()
    return _search(text, trials, workers, folder)


def _search(text: str, trials: int, workers: int, folder: Path) -> float:
    import ray

    from mlpspace import sampling
    from mlpspace.checkpoints import Checkpoints
    from mlpspace.domain import SpaceDomain
    from mlpspace.engines import ray_tune
    from mlpspace.mirror import mirror
    from mlpspace.results import Limits
    from mlpspace.search import Search
    from mlpspace.space import read_space
    from mlpspace.study import Study

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    begun = time.perf_counter()
    space = read_space(text)
    domain = SpaceDomain(space)
    study = Study.create(folder / "study", space_text=space.text, manifest={})
    with study.writing("benchmark") as writer, mirror(study, domain, []) as tables:
        search = Search(
            domain,
            writer=writer,
            trials=(),
            sampler=sampling.make("tpe", domain, seed=SEED),
            mirror=tables,
            shelf=Checkpoints(folder / "study" / "checkpoints"),
            limits=Limits(trials=trials),
            seed=SEED,
            clock=time.monotonic,
        )
        wanted = ray_tune.Wanted(workers=workers, device="cpu")
        ray_tune.run(search, wanted=wanted, interrupted=lambda: False, make_evaluate=_instant_worker)
    seconds = time.perf_counter() - begun
    complete = [trial for trial in study.trials() if trial.state == "complete"]
    assert len(complete) == trials, f"{len(complete)} trials complete in SQLite, not {trials}"
    ray.shutdown()
    return seconds


def _instant_worker() -> Callable[[Any, Any], Generator[Any, None, None]]:
    return _instant_measurements


def _instant_measurements(assignment: Any, bounds: Any) -> Generator[Any, None, None]:
    """What a worker reports, without doing it; the numbers follow from the architecture, as _objective's do."""
    from mlpspace.measurement import Measurement

    cost = sum(stage.depth * stage.width for stage in assignment.architecture.stages)
    how: dict[str, Any] = {
        "seconds": 0.0,
        "device": "none",
        "batch": 64,
        "precision": "fp32",
        "threads": 1,
        "protocol": "none",
    }
    for metric, value in (("throughput", 1e6 / cost), ("peak_memory_mb", 1.0)):
        yield Measurement(metric=metric, value=value, low=value, high=value, **how)
    accuracy, epochs = 100.0 * cost / (cost + 100), assignment.epochs[-1]
    yield Measurement(metric="accuracy", value=accuracy, low=accuracy, high=accuracy, rung=0, epochs=epochs, **how)


ROWS: dict[str, tuple[str, Callable[[int, int, Path], float]]] = {
    "stock": ("Ray Tune + OptunaSearch", stock),
    "reuse": ("  + reuse_actors=True", reuse),
    "reuse-no-loggers": ("  + no logger callbacks", reuse_no_loggers),
    "ours": ("mlpspace, as many dimensions", ours),
    "ours-hybrid": ("mlpspace, spaces/hybrid.yaml", ours_hybrid),
}


def _tune(trials: int, workers: int, folder: Path, *, reuse_actors: bool) -> float:
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    search = OptunaSearch(
        _space,
        metric=["accuracy", "throughput"],  # lists are OptunaSearch's to know: TuneConfig takes one metric
        mode=["max", "max"],
        seed=SEED,
        study_name="overhead",
        storage=optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}"),
    )
    tuner = tune.Tuner(
        _objective,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, reuse_actors=reuse_actors),
        run_config=tune.RunConfig(name="overhead", storage_path=str(folder), verbose=0),
    )
    begun = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - begun
    assert len(results) == trials, f"{len(results)} trials, not {trials}"
    assert results.num_errors == 0, f"{results.num_errors} trials failed"
    told = optuna.load_study(study_name="overhead", storage=f"sqlite:///{folder / 'study.db'}")
    complete = [trial for trial in told.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == trials, f"{len(complete)} trials complete in SQLite, not {trials}"
    ray.shutdown()
    return seconds


def _space(trial: Any) -> None:
    """Eight dimensions, as many as an isotropic network of spaces/hybrid.yaml has."""
    for name in ("patch", "norm", "fusion", "layer_scale"):
        trial.suggest_categorical(name, ["a", "b", "c"])
    for name in ("depth", "width", "ratio", "memory"):
        trial.suggest_int(name, 1, 8)


def _objective(config: dict[str, Any]) -> None:
    from ray import tune

    cost = config["depth"] * config["width"]
    tune.report({"accuracy": float(cost), "throughput": 1.0 / cost})


# --- running them ---------------------------------------------------------------------------------------------------


def measure(row: str, trials: int, workers: int) -> float:
    """Milliseconds a trial of one row, from a process of its own.

    Raises:
        RuntimeError: the process failed; the text is the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", row, "--trials", str(trials), "--workers", str(workers)]
        done = subprocess.run([*command, "--folder", folder], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{row} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    seconds = float(done.stdout.splitlines()[-1])
    return 1000 * seconds / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; may be given again")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(ROWS[given.one][1](given.trials, given.workers, given.folder))
        return

    names = given.only or list(ROWS)
    ms: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(given.repeats):
        for name in names:
            ms[name].append(measure(name, given.trials, given.workers))
            print(f"repeat {repeat + 1}, {name}: {ms[name][-1]:.0f} ms a trial", file=sys.stderr)

    circumstances = {
        "trials": given.trials,
        "workers": given.workers,
        "repeats": given.repeats,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("ray", "optuna")},
    }
    if given.json:
        print(json.dumps({"ms_per_trial": ms, **circumstances}))
        return
    print(", ".join(f"{name} {value}" for name, value in circumstances.items()))
    print(f"{'':30} {'ms a trial':>10} {'lowest':>8} {'highest':>8}")
    for name in names:
        print(f"{ROWS[name][0]:30} {statistics.median(ms[name]):10.0f} {min(ms[name]):8.0f} {max(ms[name]):8.0f}")


if __name__ == "__main__":
    main()
