"""The benchmark of search quality: what it prints, and that every sampler is counted alike."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpspace.replay.table import TableDomain, read_csv

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module, beside `peers`."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import search_quality

        yield search_quality
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """96 networks, an eighth of the combinations missing, kernel only where there is a convolution."""
    rng = np.random.default_rng(0)
    lines = ["depth,op,kernel,acc,macs"]
    for depth, op, kernel in itertools.product(range(1, 17), ("conv", "pool"), ("3", "5", "7")):
        if (op == "pool" and kernel != "3") or rng.random() < 1 / 8:
            continue
        macs = depth * (int(kernel) ** 2 if op == "conv" else 4)
        accuracy = 60 + 8 * np.log(depth) + (op == "conv") * 2 * int(kernel) + rng.normal()
        lines.append(f"{depth},{op},{kernel if op == 'conv' else ''},{accuracy:.3f},{macs}")
    told = tmp_path / "nets.csv"
    told.write_text("\n".join(lines))
    return told


def arguments(file: Path, *more: str) -> list[str]:
    columns = ["--params", "depth,op,kernel", "--accuracy", "acc", "--cost", "macs"]
    return ["search_quality.py", "--table", str(file), *columns, *more]


def test_with_json_there_is_nothing_else_on_stdout(benchmark, file, monkeypatch, capsys):
    more = ("--samplers", "random,nsga2", "--seeds", "3", "--budget", "40", "--json")
    monkeypatch.setattr(sys, "argv", arguments(file, *more))
    benchmark.main()
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert list(told) == ["random", "nsga2"]
    for marks in told.values():
        assert list(marks) == ["25", "40"]
        for low, middle, high in marks.values():
            assert 0 < low <= middle <= high <= 1
        assert marks["25"][1] <= marks["40"][1]
    assert "CPU s a suggestion" in err
    assert "random seed 2" in err


def test_who_has_trained_the_whole_table_has_all_of_its_volume(benchmark, file, monkeypatch, capsys):
    size = len(file.read_text().splitlines()) - 1
    more = ("--samplers", "random,tpe,nsga2", "--seeds", "1", "--budget", str(size), "--json")
    monkeypatch.setattr(sys, "argv", arguments(file, *more))
    benchmark.main()
    for marks in json.loads(capsys.readouterr().out).values():
        assert marks[str(size)] == [1.0, 1.0, 1.0]


def test_ours_runs_in_the_real_search(benchmark, file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", arguments(file, "--samplers", "default", "--seeds", "1", "--budget", "15"))
    benchmark.main()
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1].startswith("default")


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_no_peer_is_credited_for_a_network_twice(benchmark, file, name):
    domain = TableDomain(read_csv(file, params=["depth", "op", "kernel"], accuracy="acc", cost="macs"))
    found = list(itertools.islice(benchmark.PEERS[name](domain, 0), 30))
    assert len({each.costs for each in found}) == 30
    assert [each.epochs for each in found] == list(range(1, 31))
    again = list(itertools.islice(benchmark.PEERS[name](domain, 0), 30))
    assert [each.costs for each in found] == [each.costs for each in again]


def test_a_stuck_peer_goes_on_with_a_random_network(benchmark, file, monkeypatch):
    import optuna
    import peers

    class Stubborn(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            return param_distribution.to_external_repr(0)

    monkeypatch.setitem(peers.OPTUNA, "stubborn", lambda seed: Stubborn(seed=seed))
    domain = TableDomain(read_csv(file, params=["depth", "op", "kernel"], accuracy="acc", cost="macs"))
    found = list(itertools.islice(peers.with_optuna("stubborn", domain, 0), 10))
    assert len({each.costs for each in found}) == 10


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--samplers", "nsga"), 'no sampler "nsga"'),
        (("--seeds", "0"), "at least 1"),
        (("--accuracy", ""), "needs --params, --accuracy and --cost"),
    ],
)
def test_mistakes_are_told_before_the_work(benchmark, file, monkeypatch, capsys, more, told):
    monkeypatch.setattr(sys, "argv", arguments(file, *more))
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
