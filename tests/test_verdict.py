"""When two curves are the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hand_made import a_trial, accuracy

from mlpspace import verdict as judging
from mlpspace.errors import UserError
from mlpspace.manifest import manifest
from mlpspace.measurement import Failure
from mlpspace.retraining import Again, check_trained, on_cpu, recorded
from mlpspace.session import Session
from mlpspace.trial import SET_ASIDE, Epoch, Trial
from mlpspace.verdict import BITS, NOISE, NOISY, NOT, ROUNDED, as_json, text, verdict

CPU = "A processor, 2 cores"
GPU = "NVIDIA H100 80GB HBM3"
CURVE: tuple[Epoch, ...] = ((1, 2.0, 50.0), (2, 1.5, 80.0), (3, 1.0, 90.0))
NOTED = manifest(command="", space_id="", data={}, seeds={}).told


def a_study(noted: Any = NOTED) -> Any:
    session = Session(number=1, started=0.0, seen=9.0, host="h", pid=1, command="", total=None, manifest=noted)
    return SimpleNamespace(folder="studies/run1", sessions=lambda: [session], manifest=NOTED)


def searched(**other: Any) -> Trial:
    told = {"device": CPU, "threads": 2, "data": "images", "seed": 7, "protocol": "proxy-v1", **other.pop("record", {})}
    return a_trial(accuracy(90.0, rung=0, **{"epochs": 3, **told}), **{"curve": CURVE, "seed": 7, "number": 4, **other})


def again(curve: tuple[Epoch, ...] = CURVE, **other: Any) -> Again:
    told: dict[str, Any] = {"failure": None, "seconds": 1.0, "validation_images": 1000, "seed": 7, "data": "images"}
    told |= {"device": CPU, "threads": 2, "precision": "fp32", "micro_batch": None, "protocol": "proxy-v1"}
    return Again(curve=curve, **{**told, **other})


def moved(points: float = 0.0, loss: float = 0.0) -> tuple[Epoch, ...]:
    """The curve with its second epoch so many points higher, and its losses so many times larger."""
    return tuple((e, (1 + loss) * x, y + points * (e == 2)) for e, x, y in CURVE)  # type: ignore[operator]


ELSEWHERE = {"device": "Another processor, 8 cores"}
ERROR = 100 * (0.8 * 0.2 / 1000) ** 0.5  # of 80 % of 1,000 images: 1.26 points


@pytest.mark.parametrize(
    ("curve", "now", "how", "word"),
    [
        (CURVE, {}, BITS, "to the last bit"),
        (CURVE, ELSEWHERE, BITS, "to the last bit"),
        (CURVE, {"data": "others"}, BITS, "to the last bit"),
        # nothing differs: then nothing may
        (moved(0.1), {}, NOT, "should be the same to the last bit"),
        (moved(loss=1e-9), {}, NOT, "the accuracies are equal, the losses differ"),
        # another machine: rounding, noise, too much
        (moved(0.1, 1e-5), ELSEWHERE, ROUNDED, "0.10 points, in epoch 2"),
        (moved(loss=1e-5), ELSEWHERE, ROUNDED, "the accuracies are equal"),
        (moved(0.1, 0.05), ELSEWHERE, NOISY, "another seed might come as near"),
        (moved(2.7 * ERROR, 0.05), ELSEWHERE, NOISY, "the standard error of one measurement is 1.26"),
        (
            moved(2.9 * ERROR, 0.05),
            ELSEWHERE,
            NOT,
            "more than 3.51 is no noise. The ends are within the noise: 90.00 %",
        ),
        (moved(0.1), {"threads": 1}, ROUNDED, "rounding"),
        # a GPU is never asked for the same bits
        (moved(0.1), {"device": GPU}, ROUNDED, "rounding"),
        (moved(9.0), {"device": GPU}, NOT, "A CPU and a GPU draw other random numbers"),
        # what no rounding explains
        (moved(0.1), {**ELSEWHERE, "seed": 8}, NOT, "another training"),
        (moved(0.1), {**ELSEWHERE, "data": "others"}, NOT, "another training"),
        (moved(0.1), {"device": GPU, "protocol": "proxy-v2"}, NOT, "another training"),
    ],
)
def test_two_curves_are_the_same_where_nothing_but_rounding_and_noise_parts_them(
    curve: tuple[Epoch, ...], now: dict[str, Any], how: str, word: str
) -> None:
    judged = verdict(a_study(), searched(), again(curve, **now))
    assert (judged.how, judged.same) == (how, how != NOT)
    assert word in judged.why
    assert as_json(judged)["same"] is judged.same


def test_noise_is_what_19_of_20_pairs_of_independent_measurements_stay_in() -> None:
    rng = np.random.default_rng(0)
    for share, images in ((0.5, 1000), (0.9, 1500), (0.97, 5000)):
        first, second = rng.binomial(images, share, (2, 200_000)) / images
        within = np.abs(first - second) <= NOISE * np.sqrt(share * (1 - share) / images)
        assert within.mean() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("change", "what", "then"),
    [
        (lambda told: told["torch"].update(version="2.12.1+cu126"), "torch", "2.12.1+cu126"),
        (lambda told: told.update(source="0" * 16), "mlpspace", "(code 0000000000000000)"),
        (lambda told: told["machine"].update(cpu_model="6-85-7"), "CPU (family-model-stepping)", "6-85-7"),
        (lambda told: told["environment"].update(MKL_CBWR="AVX2"), "MKL_CBWR", "AVX2"),
    ],
)
def test_what_the_session_noted_otherwise_is_told_and_excuses_roundings(change: Any, what: str, then: str) -> None:
    noted = {**NOTED, **{name: dict(NOTED[name]) for name in ("torch", "machine", "environment")}}
    change(noted)
    judged = verdict(a_study(noted), searched(), again(moved(0.1)))
    assert judged.how == ROUNDED
    (difference,) = judged.different
    assert difference.what == what
    assert then in difference.then
    assert f"{what}  {difference.then} then, {difference.now} now" in text(judged)


def test_threads_of_the_driver_and_packages_that_do_not_compute_are_no_difference() -> None:
    noted = {**NOTED, "environment": {**NOTED["environment"], "OMP_NUM_THREADS": "64"}}
    noted["packages"] = {**NOTED["packages"], "rich": "1.0"}
    assert verdict(a_study(noted), searched(), again()).different == ()


def test_where_nothing_was_noted_the_bits_are_not_asked_for_and_a_difference_says_so() -> None:
    assert verdict(a_study(None), searched(), again(moved(0.1))).how == ROUNDED
    judged = verdict(a_study(None), searched(), again(moved(20.0)))
    assert judged.how == NOT
    assert "noted nothing" in judged.why


def test_a_trial_that_went_on_elsewhere_has_both_devices_in_its_differences() -> None:
    early = accuracy(50.0, rung=0, epochs=1, device=GPU, threads=2, data="images", seed=7, protocol="proxy-v1")
    late = accuracy(90.0, rung=1, epochs=3, device=CPU, threads=2, data="images", seed=7, protocol="proxy-v1")
    judged = verdict(a_study(), a_trial(early, late, curve=CURVE), again())
    assert [(each.what, each.then) for each in judged.different] == [("device", GPU)]


@pytest.mark.parametrize(
    ("failed", "curve", "failure", "same", "word"),
    [
        (None, CURVE[:1], Failure("not a number", "d"), False, "it fails now"),
        ("not a number", CURVE[:1], Failure("not a number", "d"), True, 'The same failure: "not a number" in epoch 2.'),
        ("not a number", CURVE[:2], None, False, 'in epoch 2 ("not a number"); it has finished epoch 2 now'),
        ("not a number", CURVE[:1], Failure("error", "d"), False, 'with "error" in epoch 2, in the search with "not'),
        ("not a number", ((1, 9.0, 10.0),), Failure("not a number", "d"), False, "after a curve that is not the same"),
        ("time limit", CURVE[:2], Failure("time limit", "d"), True, "in epoch 3, in the search in epoch 2"),
        ("worker died", (), Failure("worker died", "d"), True, 'The same failure: "worker died" in epoch 1'),
    ],
)
def test_a_failure_is_the_same_where_it_comes_again(
    failed: str | None, curve: tuple[Epoch, ...], failure: Failure | None, same: bool, word: str
) -> None:
    trial = searched()
    if failed is not None:
        trial = a_trial(state="infeasible", reason=failed, detail="once", curve=CURVE[:1], seed=7)
    judged = verdict(a_study(), trial, again(curve, failure=failure))
    assert judged.same is same
    assert word in judged.why
    assert f"failure then  {f'{failed}: once' if failed else 'none'}" in text(judged)


def test_the_curves_stand_side_by_side() -> None:
    lines = text(verdict(a_study(), searched(), again((*moved(-1.25), (4, 0.5, 95.0))))).splitlines()
    assert lines[3].split() == ["1", "50.00", "50.00", "+0.00", "2.0000", "2.0000"]
    assert lines[4].split() == ["2", "80.00", "78.75", "-1.25", "1.5000", "1.5000"]
    assert lines[6].split() == ["4", "-", "95.00", "-", "-", "0.5000"]


def test_where_a_rung_alone_was_kept_it_is_compared_alone() -> None:
    trial = searched(curve=())
    assert recorded(trial) == {3: (3, None, 90.0)}
    assert verdict(a_study(), trial, again()).how == BITS


@pytest.mark.parametrize(
    ("trial", "word"),
    [
        ({"state": "stopped", "reason": SET_ASIDE, "detail": "gain 0.1 of 2.0"}, "gain 0.1 of 2.0"),
        ({"state": "infeasible", "reason": "broken requirement"}, "mlpspace profile studies/run1:4"),
        ({"state": "running"}, "end of an epoch so far"),
    ],
)
def test_a_trial_without_a_training_is_refused_with_a_word(trial: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        check_trained(a_study(), a_trial(number=4, **trial))


def test_a_cpu_is_told_from_a_gpu_by_its_name() -> None:
    assert [on_cpu(name) for name in (CPU, "x86, 1 core", GPU, "NVIDIA GB10, 20 cores of it")] == [
        True,
        True,
        False,
        False,
    ]


def test_rounding_lies_between_what_threads_and_what_seeds_made() -> None:
    assert 8e-4 < judging.ROUNDING < 6e-3  # the measured figures of its comment
