"""Samplers compared on real trainings: the same space, the same number of epochs, several seeds.

    python benchmarks/real_proxies.py --data cifar10=PATH                       some 3 minutes a search on one core
    python benchmarks/real_proxies.py --data cifar10=PATH --plot docs/real-proxies.png

Each search is a study of its own under --studies and goes on where it was cut off; what is done is only read. Every
network is trained for all epochs of benchmarks/data/cifar10_small.yaml, so that so many networks are as many epochs for
every sampler. The cost is MACs, which are exact: a throughput would differ between two searches by the machine's mood.

Printed is the hypervolume after so many networks, the median over the seeds and its range.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from mlpspace.objectives import corner, costs
from mlpspace.pareto import hypervolume
from mlpspace.space import load_space
from mlpspace.study import Study

SPACE = Path(__file__).parent / "data" / "cifar10_small.yaml"
MARKS = (10, 15, 20, 25, 30)


def searched(folder: Path, sampler: str, seed: int, data: list[str]) -> Study:
    """A finished search: run, or read where it is done."""
    command = [sys.executable, "-m", "mlpspace", "search", str(SPACE), "--study", str(folder), "--engine", "inline"]
    command += ["--sampler", sampler, "--seed", str(seed), "--device", "cpu", "--plain"]
    for each in data:
        command += ["--data", each]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Study(folder)


def volumes(study: Study) -> list[float]:
    """The hypervolume after each network that was trained to the end."""
    objectives = load_space(SPACE).objectives
    worst = corner(objectives)
    metrics = [objective.metric for objective in objectives]
    found = []
    for trial in study.trials():
        if trial.state == "complete":
            found.append(costs(objectives, {metric: float(trial.value(metric) or 0.0) for metric in metrics}))
    return [hypervolume(found[: i + 1], worst) for i in range(len(found))]


def plot(curves: dict[str, list[list[float]]], path: str) -> None:
    """The median over the seeds, and the range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, runs in curves.items():
        count = min(map(len, runs))
        x = range(1, count + 1)
        columns = list(zip(*(run[:count] for run in runs), strict=True))
        (line,) = axes.plot(x, [statistics.median(column) for column in columns], label=name, linewidth=2)
        low, high = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="networks trained", ylabel="hypervolume (% × factors of ten of MACs)", ylim=(0, None))
    axes.set_title("1,000 images of CIFAR-10, 4 epochs each; median and range of the seeds", fontsize=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", default=[], help="cifar10=PATH")
    parser.add_argument("--samplers", default="default,tpe,nsga2,random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--studies", type=Path, default=Path("studies/real_proxies"))
    parser.add_argument("--plot")
    asked = parser.parse_args()
    curves: dict[str, list[list[float]]] = {}
    print(f"{'networks':>10}" + "".join(f"{mark:>22}" for mark in MARKS))
    for sampler in asked.samplers.split(","):
        runs = [
            volumes(searched(asked.studies / f"{sampler}-{seed}", sampler, seed, asked.data))
            for seed in range(asked.seeds)
        ]
        curves[sampler] = runs
        cells = []
        for mark in MARKS:
            now = [run[min(mark, len(run)) - 1] for run in runs]
            cells.append(f"{statistics.median(now):.2f} ({min(now):.2f}..{max(now):.2f})")
        print(f"{sampler:>10}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    if asked.plot:
        plot(curves, asked.plot)


if __name__ == "__main__":
    main()
