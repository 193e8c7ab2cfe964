"""How good a front a search finds for its training: ours beside Optuna's samplers, on any table of networks.

    python benchmarks/search_quality.py --table FILE.csv --params a,b,c --accuracy COL --cost COL
    python benchmarks/search_quality.py --table FILE.npz                       the quadratic model of Accel-NASBench
    python benchmarks/search_quality.py ... --samplers default,gp,my_module:MySampler --budget 100 --seeds 3 --json
    python benchmarks/search_quality.py ... --curves acc_1,acc_2,...,acc_18 --rungs 2,6,18 --samplers default,full

A row of the table is a network: the columns of its parameters (numbers are ordered, texts are not; an empty cell is a
parameter that does not exist), an accuracy, and a cost that is known without training. What is not in the table does
not exist, as what breaks a requirement does not in a space. Rows with equal parameters are one network, of the mean
accuracy. Every sampler gets the same table; Optuna's have the cost as their second objective (see `peers.py`), ours
runs in the real search, on the replay engine.

Printed are the quartiles, over the seeds, of the hypervolume after so many different networks were trained, 1.0 being
that of the table's front (of the npz: of the best front known, which a Pareto local search finds), and the CPU seconds
that choosing a network took. The volume's corner: the accuracy that 25 % of all networks do not reach, and 5 % of the
front's range of (log) cost beyond its dearest network.

With the columns of a learning curve, `default` trains on rungs and pauses or stops what is behind; `full` is the same
sampler without rungs, `moasha` Syne Tune's multi-objective ASHA. Then k trained networks stand for as many epochs as k
full trainings have, and the samplers of Optuna and `random` train every network to the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import peers
import torch
from threadpoolctl import threadpool_limits

from mlpspace.engines import replay
from mlpspace.errors import UserError
from mlpspace.objectives import corner
from mlpspace.pareto import hypervolume
from mlpspace.replay.quadratic import QuadraticTable
from mlpspace.replay.table import Table, TableDomain, best_volume, read_csv
from mlpspace.sampling import Sampler
from mlpspace.sampling import make as make_sampler

MARKS = (25, 50, 100, 200)
PEERS: dict[str, Callable[[TableDomain, int], Iterator[peers.Found]]] = {
    "random": peers.random,
    "moasha": peers.moasha,
    **{name: partial(peers.with_optuna, name) for name in peers.OPTUNA},
}
NO_RUNGS = ("full", "random", *peers.OPTUNA)


@dataclass(frozen=True, slots=True)
class Run:
    """One sampler with one seed: the share of the table's volume at each mark."""

    volumes: tuple[float, ...]
    cpu_seconds: float  # a suggestion


@dataclass(frozen=True, slots=True)
class Problem:
    """A table with what is asked of it."""

    domain: TableDomain  # without rungs
    rungs: tuple[int, ...]  # none: no rungs
    keep: float
    marks: tuple[int, ...]  # trained networks

    @property
    def epochs(self) -> int:
        """Of one training."""
        return self.domain.epochs[-1]


def run(problem: Problem, name: str, seed: int) -> Run:
    """One search."""
    table = problem.domain.table
    most = problem.marks[-1]
    domain = problem.domain
    if problem.rungs and name not in NO_RUNGS:
        domain = TableDomain(table, epochs=problem.rungs, keep=problem.keep)
    if name in PEERS:
        found = []
        for each in PEERS[name](domain, seed):
            found.append(each)
            if each.epochs >= most * problem.epochs:
                break
        trained = [(each.costs, each.epochs) for each in found]
        cpu_seconds = sum(each.cpu_seconds for each in found) / max(1, len(found))
    else:
        trials = int(min(table.size, 1e9))
        replayed = replay.run(domain, partial(make, name), trials=trials, seed=seed, epochs=most * problem.epochs)
        trained = [(each.costs, each.epochs) for each in replayed.trained]
        cpu_seconds = sum(replayed.cpu_seconds) / max(1, replayed.begun)
    worst, full = corner(table.objectives), best_volume(table)
    shares = []
    for mark in problem.marks:
        within = [costs for costs, epochs in trained if epochs <= mark * problem.epochs]
        shares.append(hypervolume(within, worst) / full if within else 0.0)
    return Run(tuple(shares), cpu_seconds)


def make(name: str, domain: TableDomain, *, seed: int) -> Sampler:
    return make_sampler("default" if name == "full" else name, domain, seed=seed)


# --- arguments ---


def columns(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--table", required=True, help=".csv, .csv.gz, or the .npz of a quadratic model")
    parser.add_argument("--params", type=columns, default=[], help="columns that make a network")
    parser.add_argument("--accuracy", help="column, larger is better")
    parser.add_argument("--cost", help="column that is known without training")
    parser.add_argument("--cost-goal", choices=("min", "max"), default="min")
    parser.add_argument("--linear-cost", action="store_true", help="the cost is not measured by ratio")
    parser.add_argument("--curves", type=columns, default=[], help="columns of the accuracy after epoch 1, 2, ...")
    parser.add_argument("--rungs", type=columns, help="epochs [default: a ninth and a third of the curve, and all]")
    parser.add_argument("--keep", type=Fraction, default=Fraction(1, 3), help="share that goes on after a rung")
    parser.add_argument("--samplers", type=columns, default=["default", "tpe", "nsga2", "random"])
    parser.add_argument("--budget", type=int, default=200, help="networks that are trained")
    parser.add_argument("--at", type=columns, help=f"marks [default: {', '.join(map(str, MARKS))} and the budget]")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    told = parser.parse_args()
    if not told.table.endswith(".npz") and not (told.params and told.accuracy and told.cost):
        parser.error("a CSV table needs --params, --accuracy and --cost")
    if told.budget < 1 or told.seeds < 1 or told.jobs < 1:
        parser.error("--budget, --seeds and --jobs are at least 1")
    known = ("default", "full", *PEERS)
    for name in told.samplers:
        if name not in known and ":" not in name:
            parser.error(f'no sampler "{name}"; there are {", ".join(known)}, and module:Class')
    if "moasha" in told.samplers and importlib.util.find_spec("syne_tune") is None:
        parser.error("moasha needs Syne Tune: pip install syne-tune")
    return told


def problem_of(told: argparse.Namespace) -> Problem:
    table: Table
    if told.table.endswith(".npz"):
        table = QuadraticTable(told.table)
    else:
        table = read_csv(
            told.table,
            params=told.params,
            accuracy=told.accuracy,
            cost=told.cost,
            cost_goal={"min": "minimize", "max": "maximize"}[told.cost_goal],
            log_cost=not told.linear_cost,
            curves=told.curves,
        )
    domain = TableDomain(table)
    rungs: tuple[int, ...] = ()
    if told.curves:
        last = domain.epochs[-1]
        default = sorted({max(1, round(last / 9)), max(1, round(last / 3)), last})
        rungs = tuple(map(int, told.rungs)) if told.rungs else tuple(default)
    marks = {int(mark) for mark in told.at or MARKS if int(mark) < told.budget} | {told.budget}
    return Problem(domain, rungs, float(told.keep), tuple(sorted(marks)))


# --- the work ---

_problem: Problem | None = None  # of a process of the pool


def one_core() -> None:
    """CPU seconds are those of one core."""
    threadpool_limits(1)
    torch.set_num_threads(1)


def _begin(told: argparse.Namespace) -> None:
    global _problem
    one_core()
    _problem = problem_of(told)


def _run(name: str, seed: int) -> Run:
    assert _problem is not None
    return run(_problem, name, seed)


def runs(told: argparse.Namespace, problem: Problem) -> Iterator[tuple[str, int, Run]]:
    """Every sampler with every seed, as they are done."""
    work = [(name, seed) for name in told.samplers for seed in range(told.seeds)]
    if told.jobs == 1:
        for name, seed in work:
            yield name, seed, run(problem, name, seed)
        return
    with ProcessPoolExecutor(told.jobs, get_context("spawn"), _begin, (told,)) as pool:
        waiting = [(name, seed, pool.submit(_run, name, seed)) for name, seed in work]
        for name, seed, each in waiting:
            yield name, seed, each.result()


def quartiles(found: Sequence[Run]) -> list[list[float]]:
    """Of each mark: 25 %, median, 75 %."""
    volumes = np.array([each.volumes for each in found])
    told = np.quantile(volumes, [0.25, 0.5, 0.75], axis=0).T
    return [[round(float(share), 4) for share in mark] for mark in told]


def circumstances(problem: Problem, seeds: int) -> str:
    table = problem.domain.table
    accuracy, cost = table.objectives
    goal = "above" if cost.goal == "maximize" else "below"
    text = f"{Path(table.name).name}: {table.size:,.0f} networks, {len(table.front())} on the front\n"
    text += (
        f"volume of accuracy above {accuracy.worst:.4g} and cost {goal} {cost.worst:.4g} ({cost.scale}), {seeds} seeds"
    )
    if problem.rungs:
        text += f"\nrungs {', '.join(map(str, problem.rungs))} epochs, keep {problem.keep:.3g}"
    return text


def main() -> None:
    told = arguments()
    one_core()
    problem = problem_of(told)
    progress = partial(print, file=sys.stderr, flush=True)
    progress(circumstances(problem, told.seeds))
    found: dict[str, list[Run]] = {}
    for name, seed, each in runs(told, problem):
        found.setdefault(name, []).append(each)
        progress(f"{name} seed {seed}: {each.volumes[-1]:.3f} at {problem.marks[-1]}, {each.cpu_seconds:.3f} s")
    wide = max(map(len, ["sampler", *found]))
    lines = [f"{'sampler':{wide}}" + "".join(f"{mark:>22}" for mark in problem.marks) + "   CPU s a suggestion"]
    for name, its in found.items():
        cells = "".join(f"   {mid:.3f} ({low:.3f}..{high:.3f})" for low, mid, high in quartiles(its))
        lines.append(f"{name:{wide}}{cells}   {np.mean([each.cpu_seconds for each in its]):.3f}")
    print("\n".join(lines), file=sys.stderr if told.json else sys.stdout)
    if told.json:
        marks = [str(mark) for mark in problem.marks]
        print(json.dumps({name: dict(zip(marks, quartiles(its), strict=True)) for name, its in found.items()}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
