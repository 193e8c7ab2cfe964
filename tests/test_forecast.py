"""What an early accuracy says of the last one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mlpspace.forecast import FEWEST, Forecast, _t


def curves(rng: np.random.Generator, count: int, *, noise: float = 0.7) -> list[dict[int, float]]:
    """Power laws towards limits, of different speed, seen with the noise of a validation split, at 2, 6 and 18 epochs."""
    limits, speed = rng.normal(70, 8, count), rng.uniform(0.5, 0.9, count)
    drop = rng.normal(40, 5, count)
    found = []
    for limit, power, lost in zip(limits, speed, drop, strict=True):
        clean = [limit - lost * epochs**-power for epochs in (2, 6, 18)]
        found.append({rung: float(value + rng.normal(0, noise)) for rung, value in enumerate(clean)})
    return found


def promoted(full: list[dict[int, float]], keep: float) -> list[dict[int, float]]:
    """What successive halving leaves of them: the best share at each rung goes on."""
    seen: list[dict[int, float]] = [{0: curve[0]} for curve in full]
    standing = list(range(len(full)))
    for rung in (0, 1):
        standing = sorted(standing, key=lambda i: -full[i][rung])[: max(1, int(len(standing) * keep))]
        for i in standing:
            seen[i][rung + 1] = full[i][rung + 1]
    return seen


@pytest.mark.parametrize("trials", [20, 45, 150])
@pytest.mark.parametrize("keep", [1 / 3, 1.0])
def test_the_top_is_above_the_truth_for_at_least_95_percent(trials, keep):
    rng = np.random.default_rng(0)
    held = {0: [], 1: []}
    for _ in range(60):
        forecast = Forecast(promoted(curves(rng, trials), keep), 2)
        for curve in curves(rng, 20):  # good and bad ones, of which halving would have kept a few
            for rung in (0, 1):
                top = forecast.top(rung, curve[rung])
                held[rung].append(top is None or curve[2] <= top)
    assert np.mean(held[0]) >= 0.95
    assert np.mean(held[1]) >= 0.95


def test_with_many_trials_the_forecast_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    x = rng.uniform(20, 60, 400)
    y = 25 + 0.7 * x + rng.normal(0, 2, 400)
    forecast = Forecast([{0: a, 1: b} for a, b in zip(x, y, strict=True)], 1)
    slope, intercept = np.polyfit(x, y, 1)
    mean, sd = forecast.final(0, 30.0)
    assert mean == pytest.approx(intercept + slope * 30, abs=0.1)
    assert sd == pytest.approx(2, rel=0.1)


def test_with_few_trials_that_lie_close_the_slope_stays_near_one():
    pairs = [(50.0, 62.0), (50.1, 61.0), (49.9, 63.0), (50.0, 62.0)]  # least squares: a slope of -10
    mean, _ = Forecast([{0: a, 1: b} for a, b in pairs], 1).final(0, 40.0)
    assert mean == pytest.approx(52, abs=2)


def test_nothing_is_said_before_enough_trials_are_through():
    rng = np.random.default_rng(2)
    known = curves(rng, FEWEST - 1)
    assert Forecast(known, 2).final(0, 50.0) is None
    assert Forecast(known, 2).top(0, 50.0) is None
    assert Forecast([], 2).top(1, 50.0) is None
    assert Forecast(known + curves(rng, 1), 2).top(0, 50.0) is not None


def test_few_trials_far_away_and_early_rungs_make_it_unsure():
    rng = np.random.default_rng(3)
    many, few = (Forecast(curves(rng, count), 2) for count in (200, 5))
    assert few.final(0, 45.0)[1] > many.final(0, 45.0)[1]
    assert few.final(0, 10.0)[1] > 2 * few.final(0, 45.0)[1]
    assert many.final(0, 45.0)[1] > many.final(1, 60.0)[1]
    assert many.final(2, 60.0) == (60.0, 0.0)


def test_halving_does_not_bend_the_forecast():
    """Those that are left at the end were lucky at the rung between; the forecast of the others knows that."""
    rng = np.random.default_rng(5)
    wrong = []
    for _ in range(60):
        forecast = Forecast(promoted(curves(rng, 150), 1 / 3), 2)
        wrong += [forecast.final(0, curve[0])[0] - curve[2] for curve in curves(rng, 20)]
    assert abs(np.mean(wrong)) < 1  # a line through those that are left alone: 3.2


def test_a_rung_that_no_trial_was_measured_at_is_left_out():
    rng = np.random.default_rng(6)
    known = [{0: curve[0], 2: curve[2]} for curve in curves(rng, 60)]
    mean, _ = Forecast(known, 2).final(0, 50.0)
    slope, intercept = np.polyfit([curve[0] for curve in known], [curve[2] for curve in known], 1)
    assert mean == pytest.approx(intercept + slope * 50, abs=0.5)
    assert Forecast(known, 2).final(1, 50.0) is None


def test_where_no_trial_has_both_ends_the_rungs_between_are_a_bridge():
    rng = np.random.default_rng(4)
    full = curves(rng, 80)
    first = [{0: curve[0], 1: curve[1]} for curve in full[:40]]
    second = [{1: curve[1], 2: curve[2]} for curve in full[40:]]
    bridged, direct = Forecast(first + second, 2), Forecast(full, 2)
    assert bridged.final(0, 50.0)[0] == pytest.approx(direct.final(0, 50.0)[0], abs=2)
    assert bridged.final(0, 50.0)[1] > bridged.final(1, 60.0)[1]
    assert Forecast(first, 2).final(0, 50.0) is None


def test_no_accuracy_is_foretold_above_100():
    close = [{0: 97.0 + i / 10, 1: 99.0 + i / 20} for i in range(6)]
    assert Forecast(close, 1).top(0, 98.0) <= 100


@pytest.mark.parametrize("freedom", [3, 5, 10, 100])
def test_the_quantile_is_student_s(freedom):
    assert _t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)
