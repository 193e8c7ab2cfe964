"""What has to hold after each fault, and at the end beside an undisturbed search."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from chaos.books import Book
from chaos.searches import Place, Session, trained
from mlpspace.architecture import Architecture
from mlpspace.trial import SET_ASIDE

ENDED = ("complete", "stopped", "infeasible")

# --- after each fault -----------------------------------------------------------------------------------------------


def nothing_was_lost(before: Book, now: Book) -> None:
    """What the ledger held before a fault it holds after it; no number, no architecture twice."""
    assert sorted(now.trials) == list(range(len(now.trials))), "trial numbers are not 0, 1, 2 ..."
    tried = Counter((row["architecture"], row["recipe"]) for row in now.trials.values() if not _is_set_aside(row))
    assert max(tried.values(), default=1) == 1, f"an architecture is two trials: {tried.most_common(1)}"
    assert before.trials.keys() <= now.trials.keys()
    for number, was in before.trials.items():
        row = now.trials[number]
        for name in ("architecture", "recipe", "seed", "point", "origin", "label"):
            assert row[name] == was[name], f"trial {number}: {name} was {was[name]}, is {row[name]}"
        if was["state"] in ENDED:
            assert row == was, f"trial {number} had ended and was touched: {was} became {row}"
    for key, was in before.measurements.items():
        assert key in now.measurements, f"the measurement {key} is gone"
        if key[2] == "accuracy":
            assert now.measurements[key]["value"] == was["value"], f"the measurement {key} has another value"


def lost_epochs(witnessed: Iterable[Mapping[str, Any]], book: Book) -> int:
    """Epochs trained since the last rung that the ledger holds, of what was being trained when a fault struck.

    This is the tail that a fault may cost, told by the witness: the ledger says only which rungs it has.

    Args:
        witnessed: by the processes that were struck.
        book: as the fault left it.
    """
    open_legs: dict[int, list[int]] = {}
    for line in witnessed:
        if line["what"] == "begun":
            open_legs[line["seed"]] = []
        elif line["what"] == "epoch":
            open_legs.setdefault(line["seed"], []).append(line["epoch"])
        elif line["what"] == "ended":
            open_legs.pop(line["seed"], None)
    by_seed = book.by_seed
    lost = 0
    for seed, epochs in open_legs.items():
        known = book.reached(by_seed[seed]) if seed in by_seed else 0
        lost += sum(epoch > known for epoch in epochs)
    return lost


def _is_set_aside(row: Mapping[str, Any]) -> bool:
    """Not trained, as its counts said that it would not pay; it counts for nothing and may be chosen again."""
    return (row["state"], row["reason"]) == ("stopped", SET_ASIDE)


# --- what was printed -----------------------------------------------------------------------------------------------

_FIRST = re.compile(r"\[ *\d+/")
_LINE = re.compile(
    r"\[ *(?P<done>\d+)/(?P<total>\d+)\] trial (?P<trial>\d+) *(?P<mark>\+?) +"
    r"(?:infeasible, (?P<reason>[^:]*?)(?:: .*?)?  |"
    r"(?P<accuracy>[\d.]+) % +(?P<macs>[\d.]+[kMG]?) macs +(?P<seconds>\d+) s  "
    r"(?:(?P<standing>paused|stopped) at (?P<epochs>\d+) epochs?(?:, (?P<why>[^ ]+(?: [^ ]+)*))?  )?)"
    r"(?P<architecture>.*?)  \| front (?P<front>\d+), hypervolume (?P<volume>[\d.]+)"
)
_ROW = re.compile(
    r" +(?P<trial>\d+) +(?P<accuracy>[\d.]+) +(?P<se>[\d.]+) +(?P<rate>[\d,.]+) +(?P<low>[\d,.]+?)\.\.(?P<high>[\d,.]+)"
    r" +(?P<params>[\d.]+[kMG]?) +(?P<macs>[\d.]+[kMG]?) +(?P<memory>[\d.]+)  (?P<architecture>.*)"
)


def printed_is_in_the_ledger(lines: Iterable[str], book: Book, *, total: int, last_rung: int) -> int:
    """Every number of a search's lines stands in the ledger. Returns how many lines had any."""
    found = 0
    for line in lines:
        if _FIRST.match(line):
            match = _LINE.match(line)
            assert match, f"a line of another form: {line}"
            _line_is_in_the_ledger(line, match, book, total, last_rung)
            found += 1
        elif match := _ROW.fullmatch(line):
            _row_is_in_the_ledger(line, match, book, last_rung)
            found += 1
    return found


def _line_is_in_the_ledger(line: str, match: re.Match[str], book: Book, total: int, last_rung: int) -> None:
    number = int(match["trial"])
    assert number in book.trials, f"not in the ledger: {line}"
    row = book.trials[number]
    assert int(match["total"]) == total, line
    assert int(match["done"]) <= len(book.trials), line
    label = f"  {row['label']}" if row["label"] else ""
    assert match["architecture"] == Architecture.from_json(row["json"]).describe() + label, line
    if match["reason"]:
        assert (row["state"], row["reason"]) == ("infeasible", match["reason"]), line
        return
    assert _is_rounded(match["macs"], row["macs"]), line
    measured = [
        each for key, each in book.measurements.items() if key[0] == number and key[2] == "accuracy" and not key[4]
    ]
    epochs = int(match["epochs"]) if match["epochs"] else None
    values = [each["value"] for each in measured if (each["epochs"] == epochs if epochs else each["rung"] == last_rung)]
    assert match["accuracy"] in {f"{value:.2f}" for value in values}, f"{values} in the ledger: {line}"
    if match["standing"] == "stopped":
        assert (row["state"], row["reason"]) == ("stopped", match["why"]), line
    if row["state"] in ENDED and not match["standing"]:
        assert abs(row["seconds"] - int(match["seconds"])) <= 1, f"{row['seconds']} s in the ledger: {line}"
    else:  # it has gone on since
        assert int(match["seconds"]) <= row["seconds"] + 1, f"{row['seconds']} s in the ledger: {line}"
    if row["state"] == "complete" and not match["standing"]:
        ended = [
            (book.accuracies(other)[last_rung], each["macs"])
            for other, each in book.trials.items()
            if each["state"] == "complete" and each["ended"] <= row["ended"]
        ]
        front = _front(ended)
        assert int(match["front"]) == len(front), f"{len(front)} by the ledger: {line}"
        assert match["volume"] == f"{_volume(front):.3f}", f"{_volume(front)} by the ledger: {line}"


def _row_is_in_the_ledger(line: str, match: re.Match[str], book: Book, last_rung: int) -> None:
    number = int(match["trial"])
    assert number in book.trials, f"not in the ledger: {line}"
    row = book.trials[number]
    attempt = row["attempt"]
    accuracy = book.measurements[number, attempt, "accuracy", last_rung, 0]
    rate = book.measurements[number, attempt, "throughput", None, 0]
    memory = book.measurements[number, attempt, "peak_memory_mb", None, 0]
    assert match["accuracy"] == f"{accuracy['value']:.2f}", line
    assert match["se"] == f"{(accuracy['high'] - accuracy['low']) / 2:.2f}", line
    for told, name in (("rate", "value"), ("low", "low"), ("high", "high")):
        assert abs(float(match[told].replace(",", "")) - rate[name]) <= 0.5, f"{rate[name]} in the ledger: {line}"
    assert abs(float(match["memory"]) - memory["value"]) <= 0.05, line
    assert _is_rounded(match["params"], row["params"]), line
    assert _is_rounded(match["macs"], row["macs"]), line


def _is_rounded(text: str, value: float) -> bool:
    """Whether `text`, "90.9k", is a value rounded to its digits."""
    size = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
    digits = text.rstrip("kMG")
    decimals = len(digits.partition(".")[2])
    return abs(float(digits) * size - value) <= 0.5001 * size * 10**-decimals


def _front(found: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """(accuracy, macs) that no other is at least as good as in both, slowly; twins are both on it."""
    every = list(found)
    return [
        one for one in every if not any(other[0] >= one[0] and other[1] <= one[1] and other != one for other in every)
    ]


def _volume(front: Sequence[tuple[float, float]]) -> float:
    """Area between the front and the corner of 10 % and 1M macs, macs by their common logarithm."""
    area, reached = 0.0, 10.0
    for accuracy, macs in sorted(front, key=lambda each: each[1]):
        if accuracy > reached and macs < 1e6:
            area += (accuracy - reached) * (6 - math.log10(macs))
            reached = accuracy
    return area


# --- at the end -----------------------------------------------------------------------------------------------------


def is_whole(book: Book, *, total: int, last_rung: int) -> None:
    """A search that came to its end: each trial once, all of it in Optuna's tables too."""
    counted = sum(not _is_set_aside(row) for row in book.trials.values())
    assert counted == total, f"{counted} trials, {total} were asked for"
    states = Counter(row["state"] for row in book.trials.values())
    assert states["running"] == 0, f"zombies: {states}"
    assert sorted(book.optuna) == sorted(book.trials), "Optuna's tables have other trials"
    for number, row in book.trials.items():
        state, values = book.optuna[number]
        complete = row["state"] == "complete"
        assert state == ("COMPLETE" if complete else "PRUNED"), f"trial {number}: {row['state']}, Optuna says {state}"
        if complete:
            assert values == (book.accuracies(number)[last_rung], row["macs"]), f"trial {number}: Optuna has {values}"


def sessions_count_once(book: Book, sessions: Sequence[Session]) -> None:
    """The time of a study is that of its sessions: each lies within the process that wrote it, and none overlap."""
    by_pid = {session.process.pid: session for session in sessions}
    for row in book.sessions:
        session = by_pid[row["pid"]]
        assert session.ended is not None
        assert session.begun <= row["started"] <= row["seen"] <= session.ended + 0.1, dict(row)
    for earlier, later in zip(book.sessions, book.sessions[1:], strict=False):
        assert earlier["seen"] <= later["started"], (dict(earlier), dict(later))


def same_as(book: Book, undisturbed: Book, *, but: Collection[int] = ()) -> None:
    """Trial for trial what an undisturbed search with the same seed came to, as far as that went.

    Args:
        but: trials whose workers were killed too often: they may be infeasible.
    """
    ours, theirs = (
        {
            row["architecture"]
            for number, row in each.trials.items()
            if row["state"] == "complete" and number in undisturbed.trials and number not in but
        }
        for each in (book, undisturbed)
    )
    assert ours == theirs, f"finished undisturbed and not here: {theirs - ours}; here alone: {ours - theirs}"
    for number, row in undisturbed.trials.items():
        if number in but:
            continue
        told = (row["architecture"], row["state"], row["reason"], undisturbed.accuracies(number))
        here = book.trials[number]
        found = (here["architecture"], here["state"], here["reason"], book.accuracies(number))
        assert found == told, f"trial {number} is {found}, undisturbed {told}"


def trained_the_same(place: Place, reference: Place, book: Book) -> None:
    """By the witness: each epoch of the undisturbed search was trained here too, and came to the same, however often."""
    once = {(seed, epoch): accuracy for seed, epoch, accuracy in trained(reference.witnessed())}
    for seed, epoch, accuracy in trained(place.witnessed()):
        if (seed, 1) in once:
            assert once.get((seed, epoch)) == accuracy, (
                f"trial {book.by_seed.get(seed)}, epoch {epoch}: {accuracy}, undisturbed {once.get((seed, epoch))}"
            )


def within(epochs: int, undisturbed: int, lost: int) -> None:
    """Nothing is missing, and the sum of trained epochs is at most 10 % above undisturbed plus the lost tails.

    It may be less than that sum: of what was cut off, the epochs before a checkpoint are not trained again.
    """
    assert undisturbed <= epochs <= 1.1 * (undisturbed + lost), (
        f"{epochs} epochs were trained; {undisturbed} undisturbed and {lost} in lost tails"
    )


def trained_after_its_end(place: Place, book: Book) -> int:
    """How many trials were trained although they had ended."""
    ends = {row["seed"]: row["ended"] for row in book.trials.values() if row["state"] in ENDED}
    again = {
        line["seed"]
        for line in place.witnessed()
        if line["what"] == "epoch" and line["at"] > ends.get(line["seed"], math.inf)
    }
    assert not again, f"trials trained after their end: {sorted(book.by_seed[seed] for seed in again)}"
    return len(again)
