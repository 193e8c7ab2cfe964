"""What the trials so far say of a candidate: its accuracy after full training, its costs, whether it can be trained."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpspace.domain import Domain
from mlpspace.forecast import Forecast
from mlpspace.objectives import Objective, corner
from mlpspace.pareto import Floats, rank
from mlpspace.sampling.base import Observation
from mlpspace.sampling.encoder import Encoder, settled
from mlpspace.sampling.expected_gain import expected_gain
from mlpspace.sampling.gaussian_process import GaussianProcess, Inputs, Posterior
from mlpspace.space.space import Candidate

MOST_TO_LEARN = 400  # trials that a process holds: its price grows with their cube
NODES = ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6))  # Gauss-Hermite: the mean of what hangs on a normal number
LOW = -0.7  # spreads below the median; what lies lower is drawn near: how bad a hopeless network is, is no matter
FLOOR = 0.25  # quantile of the first accuracies
UNLIKELY = 0.02  # the least chance that a candidate is given of being trained to its end


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A process over values brought to a spread of about 1."""

    process: GaussianProcess
    centre: float
    spread: float

    def predict(self, inputs: Inputs) -> Posterior:
        told = self.process.predict(inputs)
        return Posterior(self.centre + self.spread * told.mean, self.spread * told.sd)

    def believing(self, inputs: Inputs) -> _Scaled:
        return _Scaled(self.process.believing(inputs), self.centre, self.spread)


class Model:
    """A model of all trials so far; costs are in the order of `objectives`, the accuracy's first."""

    def __init__(self, domain: Domain, encoder: Encoder, seen: Sequence[Observation]) -> None:
        self._domain = domain
        self._encoder = encoder
        # accuracies are foretold in points, whatever scale their axis of the front has
        linear = [dataclasses.replace(o, scale="linear") if o.metric == "accuracy" else o for o in domain.objectives]
        self.objectives = sorted(linear, key=lambda objective: objective.metric != "accuracy")
        self._cheap = [objective for objective in self.objectives if objective.metric != "accuracy"]
        self._last = len(domain.epochs) - 1
        self._trials = [(trial, trial.candidate) for trial in seen if trial.candidate is not None]
        inputs = encoder.trials([(trial.number, candidate) for trial, candidate in self._trials])
        spread = inputs.traits.std(0)
        self._centre, self._spread = inputs.traits.mean(0), np.where(spread > 1e-6, spread, 1.0)
        self._inputs = settled(inputs, self._centre, self._spread)
        self._measured = {trial.key[0]: trial.known for trial in seen if not trial.disturbed}
        self._predictors: dict[str, _Scaled] = {}
        for objective in self._cheap:
            self._learn_cost(objective.metric)
        finished = [trial.costs(self.objectives, self._last) for trial in seen if trial.state == "complete"]
        self.front = np.array([costs for costs in finished if costs]).reshape(-1, len(self.objectives))
        self._forecast = Forecast([trial.accuracy for trial in seen], self._last)
        self._feasible = self._learn_failures()
        self._accuracy: _Scaled | None = None
        self._level = np.zeros((len(self._trials), 0))  # accuracy of the trials themselves, known or predicted
        if self.objectives[0].metric == "accuracy":
            self._learn_accuracy()
        at_work = [i for i, (trial, _) in enumerate(self._trials) if trial.state == "running"]
        # what is being trained is believed to come out as predicted, so that several workers do not try the same
        self._believed = np.concatenate([self.front, self._so_far()[at_work]])
        self.corner = self._aim()

    # --- what it says ---

    def believe(self, candidate: Candidate) -> None:
        """Believe from now on that this candidate is being trained, and comes out as predicted."""
        inputs = self._settled([candidate])
        values, _ = self.costs(self._told([candidate]), inputs)
        row = [_costs(objective, values[objective.metric]) for objective in self._cheap]
        if self._accuracy is not None:
            row.insert(0, -self._accuracy.predict(inputs).mean)
            self._accuracy = self._accuracy.believing(inputs)
        self._believed = np.concatenate([self._believed, np.array(row).T])

    def gain(self, candidates: Sequence[Candidate]) -> Floats:
        """The hypervolume that each is expected to add, times the chance that it can be trained: (n,)."""
        inputs = self._settled(candidates)
        values, errors = self.costs(self._told(candidates), inputs)
        if self._accuracy is None:  # nothing that training tells is an objective
            every = np.column_stack([_costs(objective, values[objective.metric]) for objective in self._cheap])
            gain = expected_gain(every[:, 0], np.full(len(every), 1e-12), every[:, 1:], self._believed, self.corner)
            return gain * self._chance(inputs)
        accuracy = self._accuracy.predict(inputs)
        uncertain = [metric for metric, error in errors.items() if np.any(error > 0)]
        total = np.zeros(len(candidates))
        for nodes in itertools.product(NODES, repeat=len(uncertain)):
            off = {metric: node for metric, (node, _) in zip(uncertain, nodes, strict=True)}
            known = np.empty((len(candidates), len(self._cheap)))
            for column, objective in enumerate(self._cheap):
                metric = objective.metric
                known[:, column] = _costs(objective, values[metric] * np.exp(off.get(metric, 0.0) * errors[metric]))
            weight = float(np.prod([weight for _, weight in nodes]))
            total += weight * expected_gain(-accuracy.mean, accuracy.sd, known, self._believed, self.corner)
        return np.nan_to_num(total * self._chance(inputs), nan=0.0, posinf=0.0)

    def costs(self, told: Sequence[Mapping[str, float]], inputs: Inputs) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Metric -> (n,) values of the objectives that take no training; and the error of their logarithms, 0 where
        they are known.

        Args:
            told: what is known of each of n candidates.
            inputs: the same candidates.
        """
        values: dict[str, Floats] = {}
        errors: dict[str, Floats] = {}
        for objective in self._cheap:
            metric = objective.metric
            value = np.array([each.get(metric, np.nan) for each in told])
            error = np.zeros(len(told))
            unknown = np.isnan(value)
            if unknown.any():
                predictor = self._predictors.get(metric)
                if predictor is None:  # nothing was measured yet: the corner, so that nothing is gained by it
                    value[unknown] = objective.worst
                else:
                    predicted = predictor.predict(inputs.take(np.flatnonzero(unknown)))
                    value[unknown], error[unknown] = np.exp(predicted.mean), predicted.sd
            values[metric], errors[metric] = value, error
        return values, errors

    def words(self, candidate: Candidate) -> str:
        """What is expected of a candidate, as a person reads it."""
        inputs = self._settled([candidate])
        told = []
        if self._accuracy is not None:
            accuracy = self._accuracy.predict(inputs)
            told = [f"accuracy {accuracy.mean[0]:.1f} ± {accuracy.sd[0]:.1f} %"]
        values, errors = self.costs(self._told([candidate]), inputs)
        for metric, value in values.items():
            about = f" ± {100 * errors[metric][0]:.0f} % predicted" if errors[metric][0] else ""
            told.append(f"{metric} {value[0]:.4g}{about}")
        return ", ".join(told)

    def parents(self) -> list[tuple[Candidate, str]]:
        """Those to breed from: the trials of the first ranks, by what is known or predicted of them."""
        ranks = rank(self._so_far())
        chosen = np.argsort(ranks, kind="stable")[: max(10, int((ranks == 0).sum()))]
        return [(self._trials[i][1], f"bred from trial {self._trials[i][0].number}") for i in chosen]

    # --- how it learns ---

    def _told(self, candidates: Sequence[Candidate]) -> list[Mapping[str, float]]:
        """What is known of candidates: by arithmetic, and of networks that were measured before."""
        if not self._predictors:
            return [self._domain.known(each) for each in candidates]
        domain = self._domain
        return [{**domain.known(each), **self._measured.get(domain.key(each)[0], {})} for each in candidates]

    def _settled(self, candidates: Sequence[Candidate]) -> Inputs:
        return settled(self._encoder.rows(candidates), self._centre, self._spread)

    def _learn_cost(self, metric: str) -> None:
        """Of the logarithm of what a device measures; nothing where arithmetic knows it."""
        if metric in self._domain.known(self._trials[0][1]):
            return
        known = [i for i, (trial, _) in enumerate(self._trials) if trial.known.get(metric, 0) > 0]
        calm = [i for i in known if not self._trials[i][0].disturbed]
        rows = (calm if len(calm) >= 3 else known)[-MOST_TO_LEARN // 2 :]  # the latest are most like those to come
        if len(rows) < 3:
            return
        logs = np.log([self._trials[i][0].known[metric] for i in rows])
        self._predictors[metric] = _learn(self._inputs.take(np.array(rows)), logs, np.zeros(len(rows)))

    def _learn_accuracy(self) -> None:
        """Of the accuracy after full training; what stands at a lower rung takes part with its forecast."""
        rows, values, deviations = [], [], []
        for i, (trial, _) in enumerate(self._trials):
            if trial.state == "infeasible" or not trial.accuracy:
                continue
            rung = max(trial.accuracy)
            if rung == self._last:
                value, deviation = trial.accuracy[rung], 0.0
            else:
                value, deviation = self._foretold(rung, trial.accuracy[rung])
            rows.append(i)
            values.append(value)
            deviations.append(deviation)
        accuracy, chosen = np.array(values), np.array(rows)
        keep = _to_hold(accuracy, self._own_costs()[chosen])
        accuracy, chosen, noise = accuracy[keep], chosen[keep], np.array(deviations)[keep] ** 2
        centre = float(np.median(accuracy))
        spread = max(float(np.std(accuracy[accuracy >= np.quantile(accuracy, 0.1)])), 1e-3)
        scaled = (accuracy - centre) / spread
        scaled = np.where(scaled < LOW, LOW - np.log1p(np.maximum(LOW - scaled, 0)), scaled)
        inputs = self._inputs.take(chosen)
        process = GaussianProcess(inputs, scaled, noise / spread**2)
        self._accuracy = _Scaled(process, centre, spread)
        level = self._accuracy.predict(self._inputs).mean
        level[rows] = values
        self._level = level[:, None]
        pending = [i for i, (trial, _) in enumerate(self._trials) if trial.state == "running" and not trial.accuracy]
        if pending:
            self._accuracy = self._accuracy.believing(self._inputs.take(np.array(pending)))

    def _so_far(self) -> Floats:
        """(trials, m) costs of the trials, known or predicted."""
        return np.column_stack([-self._level, self._own_costs()])

    def _foretold(self, rung: int, accuracy: float) -> tuple[float, float]:
        """Accuracy at the last rung and its deviation. Where no line can be drawn yet, the rung's own order says a
        little: as it stands, as uncertain as networks differ."""
        found = self._forecast.final(rung, accuracy)
        if found is not None:
            return found
        alike = [trial.accuracy[rung] for trial, _ in self._trials if rung in trial.accuracy]
        return accuracy, max(1.0, 0.5 * float(np.std(alike)))

    def _own_costs(self) -> Floats:
        """(trials, m - 1) of the trials themselves."""
        told = [self._domain.known(candidate) if trial.disturbed else trial.known for trial, candidate in self._trials]
        values, _ = self.costs(told, self._inputs)
        return (
            np.array([_costs(each, values[each.metric]) for each in self._cheap]).reshape(len(self._cheap), len(told)).T
        )

    def _learn_failures(self) -> _Scaled | None:
        """Of 1 for what was trained and 0 for what could not be; None where all could."""
        rows = [i for i, (trial, _) in enumerate(self._trials) if trial.accuracy or trial.state == "infeasible"]
        failed = np.array([self._trials[i][0].state == "infeasible" for i in rows])
        if not failed.any():
            return None
        rows, failed = rows[-MOST_TO_LEARN // 2 :], failed[-MOST_TO_LEARN // 2 :]
        return _learn(self._inputs.take(np.array(rows)), 1.0 - failed, np.full(len(rows), 0.01))

    def _chance(self, inputs: Inputs) -> Floats:
        if self._feasible is None:
            return np.ones(len(inputs))
        return np.clip(self._feasible.predict(inputs).mean, UNLIKELY, 1.0)

    def _aim(self) -> Floats:
        """The corner to gain from. An accuracy that most random networks reach is no aim: a corner far below would
        have a search collect very cheap, hopeless networks."""
        worst = np.array(corner(self.objectives))
        reached = [trial.accuracy[self._last] for trial, _ in self._trials[:40] if self._last in trial.accuracy]
        if self.objectives[0].metric == "accuracy" and len(reached) >= 4:
            worst[0] = min(worst[0], -float(np.quantile(reached[:20], FLOOR)))
        return worst


def _learn(inputs: Inputs, values: Floats, noise: Floats) -> _Scaled:
    centre, spread = float(np.mean(values)), max(float(np.std(values)), 1e-6)
    return _Scaled(GaussianProcess(inputs, (values - centre) / spread, noise / spread**2), centre, spread)


def _to_hold(accuracy: Floats, known: Floats) -> NDArray[np.int64]:
    """Which trials a process holds: half of MOST_TO_LEARN by rank, half evenly from the others."""
    if len(accuracy) <= MOST_TO_LEARN:
        return np.arange(len(accuracy))
    order = np.argsort(rank(np.column_stack([-accuracy, known])), kind="stable")
    half = MOST_TO_LEARN // 2
    rest = np.sort(order[half:])
    return np.sort(np.concatenate([order[:half], rest[np.linspace(0, len(rest) - 1, half).astype(int)]]))


def _costs(objective: Objective, values: Floats) -> Floats:
    """`Objective.cost` of many values."""
    with np.errstate(divide="ignore"):
        scaled = np.log10(values) if objective.scale == "log" else values
    return -scaled if objective.goal == "maximize" else scaled
