"""Whether a trial that was trained again got the same curve, and if not, what is different from the search.

What counts as the same stands here and nowhere else:

- On the CPU that the search used, with its threads, torch, code and settings, the same to the last bit, losses and
  accuracies. Anything else is not the same, however near. Nor is it with another seed or other images.
- Where one of the former differs, and on a GPU, sums are added up in another order, and the roundings grow with each
  step. There two curves are the same where the accuracies after every epoch lie within NOISE standard errors of one
  measurement. So far apart are 5 in 100 of two independent measurements; two on the same images are nearer.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlpspace.manifest import facts, manifest
from mlpspace.proxy import standard_error
from mlpspace.retraining import Again, on_cpu, recorded
from mlpspace.study import Study
from mlpspace.trial import Epoch, Trial

Pair: TypeAlias = tuple[Epoch | None, Epoch | None]  # of one epoch: in the search, and now

NOISE = 1.96 * math.sqrt(2)

# Relative difference of an epoch's loss. Where nothing but the order of summation (threads) or the precision (bf16 for
# fp32) differed, 8 small networks came to at most 4e-7 and 8e-4 over 4 epochs; another seed made at least 6e-3 in one
# of the epochs (mnist5k, 1,000 images, lr 3e-3, CPU, torch 2.13). Long trainings at high rates drift further.
ROUNDING = 2e-3

BITS, ROUNDED, NOISY, NOT = "to the last bit", "but for rounding", "within the noise", "not the same"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was in the search."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of training a trial again."""

    study: str
    trial: int
    architecture: str
    how: str  # BITS, ROUNDED, NOISY or NOT
    why: str  # in words
    epochs: tuple[Pair, ...]
    validation_images: int
    failure_then: str | None
    failure_now: str | None
    different: tuple[Difference, ...]  # from the search
    seconds: float | None  # of work, now

    @property
    def same(self) -> bool:
        return self.how != NOT


def verdict(study: Study, trial: Trial, again: Again) -> Verdict:
    """Compare a trial's curve, or its failure, with that of `again`."""
    then, now = recorded(trial), {epoch[0]: epoch for epoch in again.curve}
    epochs = tuple((then.get(number), now.get(number)) for number in sorted({*then, *now}))
    noted = [s.manifest for s in study.sessions() if s.manifest is not None and s.may_have_trained(trial)]
    cpu = on_cpu(again.device)
    other_training = tuple(_of_measurements(trial, again, ("seed", "data", "protocol")))
    elsewhere = (
        *_of_measurements(trial, again, ("device", "threads", "precision", "micro_batch")),
        *_of_manifests(noted or [study.manifest], cpu=cpu),
    )
    to_the_bit = cpu and bool(noted) and not elsewhere
    how, why = _curve(epochs, again.validation_images, to_the_bit=to_the_bit, other_training=bool(other_training))
    if how in (NOT, NOISY) and any(each.what == "device" and on_cpu(each.then) != cpu for each in elsewhere):
        why += " A CPU and a GPU draw other random numbers, so that the images came in another order."
    if how == NOT and not noted:
        why += " The session that trained it noted nothing, so there may be more that differs than is told below."
    failed = trial.reason if trial.state == "infeasible" else None
    if failed is not None or again.failure is not None:
        how, why = _failure(failed, again, finished=len(then), curve=(how, why))
    return Verdict(
        study=str(study.folder),
        trial=trial.number,
        architecture=trial.architecture.describe(),
        how=how,
        why=why,
        epochs=epochs,
        validation_images=again.validation_images,
        failure_then=None if failed is None else ": ".join(filter(None, (failed, trial.detail))),
        failure_now=None if again.failure is None else f"{again.failure.reason}: {again.failure.detail}",
        different=(*other_training, *elsewhere),
        seconds=again.seconds,
    )


def _curve(epochs: Sequence[Pair], images: int, *, to_the_bit: bool, other_training: bool) -> tuple[str, str]:
    """How the curves agree where both have an epoch, and in words.

    Args:
        images: of the validation split.
        to_the_bit: whether nothing is known that could lead to other roundings.
        other_training: whether something is known that no rounding explains.
    """
    both = [(then, now) for then, now in epochs if then is not None and now is not None]
    if all(then[2] == now[2] and then[1] in (None, now[1]) for then, now in both):
        return BITS, "The same curve, to the last bit."
    then, now = max(both, key=lambda pair: _apart(*pair) / _error(pair[0], images))
    error = _error(then, images)
    losses = max((abs(n[1] - t[1]) / abs(t[1]) for t, n in both if t[1] and n[1]), default=0.0)
    apart = f"the accuracies are equal, the losses differ by up to {100 * losses:.2g} %"
    if _apart(then, now):
        where = f"in epoch {then[0]}, where the standard error of one measurement is {error:.2f}"
        apart = f"the largest difference is {_apart(then, now):.2f} points, {where}"
    if other_training:
        return NOT, f"NOT the same curve: {apart}. It is another training, as is told below."
    if to_the_bit:
        return NOT, (
            f"NOT the same curve: {apart}. CPU, threads, torch and mlpspace's code are those of the search, so that it"
            " should be the same to the last bit."
        )
    if _apart(then, now) > NOISE * error:
        end_then, end_now = both[-1]
        ends = ""
        if _apart(end_then, end_now) <= NOISE * _error(end_then, images):
            ends = f" The ends are within the noise: {end_then[2]:.2f} % then, {end_now[2]:.2f} % now."
        return NOT, f"NOT the same curve: {apart}; more than {NOISE * error:.2f} is no noise.{ends}"
    if losses <= ROUNDING:
        agree = f", and the losses agree to {100 * losses:.2g} %" if _apart(then, now) else ""
        return ROUNDED, f"The same curve but for rounding: {apart}{agree}."
    near = f"The losses differ by up to {100 * losses:.2g} %, so another seed might come as near."
    return NOISY, f"The same curve within the noise: {apart}. {near}"


def _apart(then: Epoch, now: Epoch) -> float:
    """Difference of the accuracies, in percentage points."""
    assert then[2] is not None
    assert now[2] is not None
    return abs(now[2] - then[2])


def _error(epoch: Epoch, images: int) -> float:
    """Standard error of an epoch's accuracy, in percentage points."""
    assert epoch[2] is not None
    return 100 * standard_error(epoch[2] / 100, images)


def _failure(failed: str | None, again: Again, *, finished: int, curve: tuple[str, str]) -> tuple[str, str]:
    """The verdict where one of the two trainings failed, or both. `finished`: epochs, in the search."""
    how, why = curve
    now = again.failure
    if now is None:
        after = f"; it has finished epoch {len(again.curve)} now" if again.curve else ""
        return NOT, f'NOT the same: in the search it failed in epoch {finished + 1} ("{failed}"){after}.'
    came = f'"{now.reason}" in epoch {len(again.curve) + 1}'
    if failed is None:
        return NOT, f"NOT the same: it fails now, {came}. In the search it did not."
    if failed != now.reason:
        return NOT, f'NOT the same: it fails now with {came}, in the search with "{failed}" in epoch {finished + 1}.'
    if how == NOT:
        return NOT, f"The same failure, {came}, after a curve that is not the same. {why}"
    sooner = "" if len(again.curve) == finished else f", in the search in epoch {finished + 1}"
    return how, f"The same failure: {came}{sooner}." + (f" Until then: {why}" if finished and again.curve else "")


# --- what is different from the search --------------------------------------------------------------------------------


def _of_measurements(trial: Trial, again: Again, names: Iterable[str]) -> Iterator[Difference]:
    """From the trial's accuracies, rung by rung: a trial that went on elsewhere has several circumstances."""
    records = [r for r in trial.records if r.metric == "accuracy" and r.repeat == 0 and r.attempt == trial.attempt]
    for name in names:
        now = getattr(again, name)
        for then in dict.fromkeys(getattr(record, name) for record in records):
            not_known = (name == "data" and then is None) or (name == "micro_batch" and again.seconds is None)
            if then != now and not not_known:
                yield Difference(_WORDS.get(name, name), _word(then), _word(now))


_WORDS = {"data": "fingerprint of the images", "micro_batch": "images at a time"}


def _word(value: Any) -> str:
    return "the whole batch" if value is None else str(value)


def _of_manifests(noted: Iterable[Mapping[str, Any]], *, cpu: bool) -> Iterator[Difference]:
    """From what the sessions noted that may have trained it; what one of them did not note is left out."""
    now = facts(manifest(command="", space_id="", data={}, seeds={}).told)
    found: dict[Difference, None] = {}  # each once, in order
    for told in noted:
        then = facts(told)
        if _code_id(then, now) != _code_id(now, then):
            found[Difference("mlpspace", _code(then), _code(now))] = None
        if "packages.torch" in then and _torch(then) != _torch(now):
            found[Difference("torch", _torch(then), _torch(now))] = None
        names = [name for name in {**then, **now} if name.startswith("environment.") and name[12:] not in _TOLD]
        if "source" not in then:  # it is from before the environment was noted
            names = []
        names += ["machine.cpu_model", "machine.instructions"] if cpu else ["machine.driver"]
        names += [] if cpu else [name for name in {**then, **now} if name.startswith("torch.") and "-" in name]
        for name in names:
            if then.get(name) != now.get(name) and (name.startswith("environment.") or name in then):
                what = name.partition(".")[2].replace("cpu_model", "CPU (family-model-stepping)")
                found[Difference(what, then.get(name, "none"), now.get(name, "none"))] = None
    yield from found


# by the measurements: a worker's threads and device are its own, whatever the driver was started with
_TOLD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def _code_id(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """What tells mlpspace's code, in a way that both know."""
    if "source" in one and "source" in other:
        return one["source"]
    return f"{one.get('git.commit')} {one.get('git.changed')}"


def _code(told: Mapping[str, str]) -> str:
    changed = " changed" if told.get("git.changed") == "True" else ""
    release = told.get("packages.mlpspace", "not known")
    commit = f"{told['git.commit'][:12]}{changed}" if "git.commit" in told else release
    return f"{commit} (code {told['source']})" if "source" in told else commit


def _torch(told: Mapping[str, str]) -> str:
    return told.get("torch.version") or told["packages.torch"]


# --- for people and programs ------------------------------------------------------------------------------------------


def text(judged: Verdict) -> str:
    """The curves side by side, the verdict, and what is different from the search."""
    lines = [f"trial {judged.trial} of {judged.study}: {judged.architecture}"]
    if judged.epochs:
        lines += ["", "  epoch  accuracy % then     now  difference  loss then     now"]
        lines += [_line(then, now) for then, now in judged.epochs]
    if judged.failure_then or judged.failure_now:
        failures = (judged.failure_then or "none", judged.failure_now or "none")
        lines += ["", f"  failure then  {failures[0]}", f"          now   {failures[1]}"]
    lines += ["", *textwrap.wrap(judged.why, 116)]
    if judged.different:
        may = "Different from the search, " + (
            "and may be why" if judged.how != BITS else "without a trace in the curve"
        )
        rows = [(each.what, each.then, each.now) for each in judged.different]
        width = max(len(row[0]) for row in rows)
        lines += [f"  {may}:", *(f"    {what:<{width}}  {then} then, {now} now" for what, then, now in rows)]
    return "\n".join(lines)


def _line(then: Epoch | None, now: Epoch | None) -> str:
    epoch = then or now
    assert epoch is not None
    apart = f"{now[2] - then[2]:+.2f}" if then and now and then[2] is not None and now[2] is not None else "-"
    cells = [_number(then, 2, 2), _number(now, 2, 2), apart, _number(then, 1, 4), _number(now, 1, 4)]
    widths = (15, 6, 10, 9, 6)
    return f"  {epoch[0]:>5}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _number(epoch: Epoch | None, index: int, digits: int) -> str:
    value = None if epoch is None else epoch[index]
    return "-" if value is None else f"{value:.{digits}f}"


def as_json(judged: Verdict) -> dict[str, Any]:
    """The verdict as plain values; accuracies and their standard error in %."""
    epochs = []
    for then, now in judged.epochs:
        epoch = then or now
        assert epoch is not None
        epochs.append(
            {
                "epoch": epoch[0],
                "loss_then": then and then[1],
                "loss_now": now and now[1],
                "accuracy_then": then and then[2],
                "accuracy_now": now and now[2],
                "accuracy_se": then and _error(then, judged.validation_images),
            }
        )
    told = {name: getattr(judged, name) for name in ("study", "trial", "architecture", "same", "how", "why")}
    return {
        **told,
        "epochs": epochs,
        "failure_then": judged.failure_then,
        "failure_now": judged.failure_now,
        "different": [dataclasses.asdict(each) for each in judged.different],
        "seconds": judged.seconds,
    }
