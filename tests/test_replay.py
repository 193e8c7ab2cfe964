"""The replay engine: a search over a table on simulated time, and `mlpspace replay`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import mlpspace
from stubs import SPACE, Session, evaluate

from mlpspace import sampling
from mlpspace.engines import inline, replay
from mlpspace.pareto import hypervolume
from mlpspace.replay.listed import ListedTable
from mlpspace.replay.recorded import of_study, recorded
from mlpspace.replay.table import TableDomain, TableError, corner, read_csv
from mlpspace.sampling import Sampler, Suggestion
from mlpspace.space import read_space
from mlpspace.study import Study

EPOCHS = 9
RUNGS = SPACE.replace("epochs: 2}", "rungs: {epochs: [1, 2], keep: 0.99}}")


def curves(tmp_path: Path, rungs: tuple[int, ...] | None = None, seconds: str | None = None) -> TableDomain:
    """24 networks: the larger the dearer and the better, with noise, after 9 epochs."""
    rng = np.random.default_rng(0)
    lines = ["width,op," + ",".join(f"e{i}" for i in range(1, EPOCHS + 1)) + ",macs,seconds"]
    for width in range(1, 9):
        for op in ("a", "b", "c"):
            top = 40 + 5 * width + rng.normal(0, 4)
            curve = [top * (1 - 0.5 / epoch) for epoch in range(1, EPOCHS + 1)]
            lines.append(f"{width},{op},{','.join(f'{each:.3f}' for each in curve)},{width * 10 + ord(op)},{width}")
    file = tmp_path / "curves.csv"
    file.write_text("\n".join(lines))
    table = read_csv(
        file,
        params=["width", "op"],
        accuracy=f"e{EPOCHS}",
        cost="macs",
        curves=[f"e{i}" for i in range(1, EPOCHS + 1)],
        epoch_seconds=seconds,
    )
    return TableDomain(table, epochs=rungs)


class InOrder(Sampler):
    """The networks of the table as they stand there."""

    def suggest(self, number, draw, seen):
        points = self.domain.table.points()  # type: ignore[attr-defined]
        point = points[number % len(points)]
        return Suggestion(self.domain.candidate(lambda dim: point[dim.name]), "in order")


def in_order(domain: TableDomain, seed: int) -> Sampler:
    return InOrder(domain, seed=seed)


def random(domain: TableDomain, seed: int) -> Sampler:
    return sampling.make("random", domain, seed=seed)


# --- time and training ---


def test_one_worker_takes_as_long_as_the_trainings_together(tmp_path):
    told = replay.run(curves(tmp_path, seconds="seconds"), in_order, trials=6, seed=0)
    assert told.epochs == 6 * EPOCHS
    assert told.seconds == EPOCHS * (1 + 1 + 1 + 2 + 2 + 2)  # an epoch takes as many seconds as the network is wide


def test_several_workers_end_their_trainings_in_the_order_of_time(tmp_path):
    domain = curves(tmp_path, seconds="seconds")
    told = replay.run(domain, in_order, trials=24, seed=0, workers=24)
    assert [each.seconds for each in told.trained] == sorted(EPOCHS * width for width in range(1, 9) for _ in "abc")
    assert told.seconds == EPOCHS * 8


def test_workers_share_the_work(tmp_path):
    domain = curves(tmp_path)
    alone, four = (replay.run(domain, in_order, trials=24, seed=0, workers=count) for count in (1, 4))
    assert alone.epochs == four.epochs == 24 * EPOCHS
    assert four.seconds == alone.seconds / 4


def test_every_network_is_trained_once_and_then_the_search_ends(tmp_path):
    domain = curves(tmp_path)
    told = replay.run(domain, random, trials=1000, seed=0, workers=3)
    assert len(told.trained) == 24
    assert Counter(each.costs for each in told.trained) == Counter(map(tuple, domain.table.costs.tolist()))


def test_the_whole_table_has_the_volume_of_its_front(tmp_path):
    domain = curves(tmp_path)
    told = replay.run(domain, random, trials=24, seed=1)
    worst = corner(domain.objectives)
    assert told.volume(worst) == pytest.approx(hypervolume(domain.table.front(), worst))
    assert told.volume(worst, trained=0) == 0.0
    assert told.volume(worst, epochs=5 * EPOCHS) == told.volume(worst, trained=5)


def test_a_budget_of_epochs_ends_the_search(tmp_path):
    told = replay.run(curves(tmp_path), random, trials=24, seed=1, epochs=40)
    assert told.epochs == 40
    assert len(told.trained) == 40 // EPOCHS


def test_the_same_seed_gives_the_same_search_and_another_gives_another(tmp_path):
    domain = curves(tmp_path, (1, 3, 9))
    first, again, other = (replay.run(domain, random, trials=24, seed=seed, workers=2) for seed in (0, 0, 1))
    assert first.trained == again.trained
    assert first.trained != other.trained


# --- rungs ---


def test_rungs_spare_epochs_and_none_is_trained_twice(tmp_path, monkeypatch):
    begun = Counter()
    events = replay.events

    def watched(table, assignment):
        for seconds, event in events(table, assignment):
            epoch = getattr(event, "epoch", 0)
            if getattr(event, "accuracy", None) is not None:
                begun[assignment.trial, epoch] += 1
            yield seconds, event

    monkeypatch.setattr(replay, "events", watched)
    told = replay.run(curves(tmp_path, (1, 3, 9)), random, trials=24, seed=0, workers=3)
    assert told.epochs == len(begun) == sum(begun.values())
    assert told.epochs < 24 * EPOCHS / 2
    reached = Counter(max(epoch for trial, epoch in begun if trial == number) for number in range(24))
    assert set(reached) == {1, 3, 9}
    assert reached[9] == len(told.trained) >= 1


def test_what_is_told_at_a_rung_is_the_curve_of_the_table(tmp_path):
    domain = curves(tmp_path, (1, 3, 9))
    seen = {}

    class Watching(InOrder):
        def suggest(self, number, draw, seen_now):
            seen.update({trial.number: dict(trial.accuracy) for trial in seen_now})
            return super().suggest(number, draw, seen_now)

    replay.run(domain, lambda d, seed: Watching(d, seed=seed), trials=24, seed=0)
    points = domain.table.points()
    for number, accuracy in seen.items():
        curve = domain.table.accuracy(points[number])
        assert accuracy == {rung: curve[epoch - 1] for rung, epoch in enumerate((1, 3, 9)) if rung in accuracy}


# --- a recorded study ---


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Twelve networks in studies/run1, trained by a stub to the end."""
    monkeypatch.chdir(tmp_path)
    with Session(Path("studies/run1"), text=RUNGS, sampler="random") as search:
        inline.run(search, evaluate=evaluate)
    return Study("studies/run1")


def space_of(study: Study):
    return read_space(study.space_text, "space.yaml")


def test_a_recorded_study_is_a_table_of_its_networks(study):
    space = space_of(study)
    table = of_study(study, space)
    complete = [trial for trial in study.trials() if trial.state == "complete" and trial.point is not None]
    assert table.size == len({trial.architecture_id for trial in complete})
    assert table.trained_epochs == (1, 2)
    for trial in complete:
        point = {place.dim.name: trial.point.get(place.dim.name) for place in table.places}
        point = {name: value for name, value in point.items() if value is not None}
        assert table.accuracy(point)[-1] == trial.value("accuracy")
        assert table.known(point)["throughput"] == trial.value("throughput")
        assert table.known(point)["params"] == trial.params


def test_what_a_sampler_proposes_becomes_the_nearest_recorded_network(study):
    space = space_of(study)
    domain = TableDomain(of_study(study, space), epochs=(1, 2))
    rng = np.random.default_rng(0)
    found = Counter()
    for _ in range(300):
        candidate = domain.candidate(lambda dim: dim.draw(rng))
        assert domain.refusal(candidate) is None
        found[domain.key(candidate)] += 1
    assert len(found) > domain.table.size / 2
    for point in domain.table.points():  # a recorded one is itself
        assert domain.candidate(lambda dim, point=point: point.get(dim.name, dim.values[0])).point == point


def test_the_recorded_search_is_told_as_it_was(study):
    told = recorded(study, space_of(study))
    trials = study.trials()
    assert len(told) == len(trials)
    assert told[-1].epochs == sum(2 if trial.state == "complete" else 1 for trial in trials)
    assert sum(each.costs is not None for each in told) == sum(trial.state == "complete" for trial in trials)


def test_a_study_with_next_to_nothing_trained_cannot_be_replayed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Session(Path("studies/run1"), trials=2, sampler="random") as search:
        inline.run(search, evaluate=evaluate)
    study = Study("studies/run1")
    with pytest.raises(TableError, match="networks that were trained to the end; a replay takes 3"):
        of_study(study, space_of(study))


# --- the command ---


def test_a_replayed_study_stands_beside_what_it_recorded(study, capsys):
    code, out, _ = mlpspace(capsys, "replay", "studies/run1", "--sampler", "random", "--sampler", "nsga2", "--seeds", 2)
    assert code == 0
    assert "rungs at 1, 2 epochs" in out
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["recorded", "random", "nsga2"]


def test_the_json_of_a_replay_says_what_was_spent(study, capsys):
    command = ("replay", "studies/run1", "--sampler", "random", "--no-rungs", "--seeds", 1, "--json")
    code, out, _ = mlpspace(capsys, *command)
    told = json.loads(out)
    assert code == 0
    assert told["rungs"] == [2]
    own, again = told["samplers"]
    networks = told["networks"]
    assert again["trained"] == networks
    assert again["epochs"] == 2 * networks
    assert again["volume"][str(round(2 * networks))] == pytest.approx(1.0)
    assert own["sampler"] == "recorded"


def test_a_table_is_replayed_from_its_columns(tmp_path, capsys):
    curves(tmp_path)
    columns = ("--params", "width,op", "--accuracy", "e9", "--cost", "macs", "--seeds", 1, "--sampler", "random")
    code, out, _ = mlpspace(capsys, "replay", "--table", tmp_path / "curves.csv", *columns)
    assert code == 0
    assert "24 networks" in out
    assert "no rungs" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Say what to replay"),
        (("studies/run1", "--table", "x.csv"), "Say what to replay"),
        (("--table", "x.csv", "--params", "a"), "needs --params"),
        (("studies/none",), "studies/none"),
        (("studies/run1", "--sampler", "nsga"), 'Did you mean "nsga2"'),
        (("studies/run1", "--rungs", "2,1"), "epochs rise"),
        (("studies/run1", "--rungs", "two"), "no list of epochs"),
        (("studies/run1", "--rungs", "1,5"), "has accuracies after epoch 1, 2"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_would_do(study, capsys, arguments, told):
    code, out, err = mlpspace(capsys, "replay", *arguments)
    assert code == 2
    assert out == ""
    assert told in err


def test_a_listed_table_may_be_made_by_hand():
    from mlpspace.objectives import Objective

    table = ListedTable(
        "by hand",
        columns={"a": [1, 2]},
        known={"cost": [1.0, 2.0]},
        accuracy=np.array([[10.0], [20.0]]),
        trained_epochs=(1,),
        objectives=(Objective("accuracy", "maximize", worst=0.0), Objective("cost", "minimize", worst=3.0)),
    )
    told = replay.run(TableDomain(table), random, trials=9, seed=0)
    assert told.volume([0.0, 3.0]) == 10 * 2 + 10 * 1
