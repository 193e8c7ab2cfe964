"""What a suggestion of the default sampler costs: CPU seconds on one core, by the number of finished trials.

    python benchmarks/suggestion_cost.py                          spaces/hybrid.yaml, 50 to 5,000 trials
    python benchmarks/suggestion_cost.py spaces/everything.yaml --trials 400 --repeats 5

The trials are random draws of the space whose accuracies come from a formula; nothing is trained. Beside it the CPU
seconds of this repository's TPE on the same trials, from the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from mlpspace.domain import SpaceDomain
from mlpspace.sampling import Observation, make
from mlpspace.space import load_space

HYBRID = Path(__file__).parents[1] / "spaces" / "hybrid.yaml"


def finished(domain: SpaceDomain, count: int) -> list[Observation]:
    """So many trials that came to the last rung."""
    rng = np.random.default_rng(0)
    trials: list[Observation] = []
    while len(trials) < count:
        candidate = domain.draw(rng)
        if domain.refusal(candidate) is not None:
            continue
        known = dict(domain.known(candidate))
        known["throughput"] = 1e11 / (known["macs"] + 1e6) * float(np.exp(rng.normal(0, 0.1)))
        known["peak_memory_mb"] = 1.0
        accuracy = 60 + 5 * np.log10(known["macs"]) - 0.5 * len(candidate.point) + rng.normal(0, 1)
        trials.append(
            Observation(
                number=len(trials),
                key=domain.key(candidate),
                candidate=candidate,
                state="complete",
                known=known,
                accuracy={len(domain.epochs) - 1: float(accuracy)},
            )
        )
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", nargs="?", default=str(HYBRID))
    parser.add_argument("--trials", default="50,100,200,400,1000,2500,5000", help="comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    counts = [int(text) for text in asked.trials.split(",")]
    domain = SpaceDomain(load_space(asked.space))
    trials = finished(domain, max(counts))
    print(f"{asked.space}: {len(domain.dimensions)} dimensions; CPU seconds a suggestion, one core, median (range)")
    print(f"{'trials':>7}  {'default':>20}  {'tpe':>20}")
    for count in counts:
        cells = []
        for name in ("default", "tpe"):
            sampler = make(name, domain, seed=0)
            sampler.suggest(count, 0, trials[:count])  # what is built up over a search is built up here
            taken = []
            for repeat in range(asked.repeats):
                begun = time.process_time()
                sampler.suggest(count + 1 + repeat, 0, trials[:count])
                taken.append(time.process_time() - begun)
            cells.append(f"{statistics.median(taken):.3f} ({min(taken):.3f}..{max(taken):.3f})")
        print(f"{count:>7}  {cells[0]:>20}  {cells[1]:>20}", flush=True)


if __name__ == "__main__":
    main()
