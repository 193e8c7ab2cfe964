"""Tables in the place of training: what a CSV file says of dimensions, their existence, and the corner."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlpspace.replay.quadratic import QuadraticTable
from mlpspace.replay.table import TableDomain, TableError, best_volume, corner, read_csv
from mlpspace.space.dims import Choice

TABLES = Path(__file__).parents[2] / "shared" / "data" / "tables"


def table(tmp_path: Path, text: str, params: str = "", **options: object) -> TableDomain:
    """Of a CSV text; `params` are all columns but `acc` and `cost` unless they are named."""
    file = tmp_path / "table.csv"
    file.write_text(text)
    names = params.split() or [name for name in text.split("\n")[0].split(",") if name not in ("acc", "cost")]
    told = {"accuracy": "acc", "cost": "cost", "log_cost": False, **options}
    return TableDomain(read_csv(file, params=names, **told))  # type: ignore[arg-type]


def dimensions(domain: TableDomain) -> dict[str, tuple[tuple[object, ...], str | None]]:
    """Name -> (values, condition)."""
    return {dim.name: (dim.values, condition) for dim, condition in domain.dimensions if isinstance(dim, Choice)}


def rows_of(columns: str, cells: list[tuple[object, ...]]) -> str:
    """A CSV text with made-up accuracies and costs."""
    lines = [",".join(map(str, each)) + f",{50 + i},{10 + 3 * i}" for i, each in enumerate(cells)]
    return "\n".join([f"{columns},acc,cost", *lines])


# --- dimensions ---


def test_numbers_are_ordered_as_numbers_and_texts_are_not(tmp_path):
    found = dimensions(table(tmp_path, rows_of("width,norm", [(10, "layer"), (2, "batch"), (2.5, "layer")])))
    assert found == {"width": ((2.0, 2.5, 10.0), None), "norm": (("batch", "layer"), None)}


def test_a_column_that_never_varies_is_no_dimension(tmp_path):
    assert list(dimensions(table(tmp_path, rows_of("a,b", [(1, 7), (2, 7)])))) == ["a"]


def test_an_empty_cell_is_a_dimension_that_does_not_exist(tmp_path):
    cells = [("conv", 3), ("conv", 5), ("pool", ""), ("skip", "")]
    domain = table(tmp_path, rows_of("op,kernel", cells))
    assert dimensions(domain)["kernel"] == ((3, 5), "op = conv")
    assert domain.candidate(first_of(op="pool")).point == {"op": "pool"}
    assert domain.candidate(first_of(op="conv")).point == {"op": "conv", "kernel": 3}


def first_of(**values: object):
    return lambda dim: values.get(dim.name, dim.values[0])


def test_a_condition_may_stand_behind_the_column_that_it_rules(tmp_path):
    domain = table(tmp_path, rows_of("kernel,op", [(3, "conv"), (5, "conv"), ("", "pool")]))
    assert dimensions(domain) == {"op": (("conv", "pool"), None), "kernel": ((3, 5), "op = conv")}


def test_conditions_nest(tmp_path):
    cells = [("a", "", ""), ("b", "x", ""), ("b", "y", 1), ("b", "y", 2)]
    found = dimensions(table(tmp_path, rows_of("kind,sub,size", cells)))
    assert found["sub"] == (("x", "y"), "kind = b")
    assert found["size"] == ((1, 2), "sub = y")


def test_two_columns_together_may_rule_a_third(tmp_path):
    cells = [
        (depth, op, size)
        for depth in (1, 2)
        for op in ("conv", "skip")
        for size in ((3, 5) if depth == 2 and op == "conv" else ("",))
        for _ in range(2)  # seen twice, so that no row stands for itself alone
    ]
    found = dimensions(table(tmp_path, rows_of("depth,op,size", cells)))
    assert found["size"] == ((3, 5), "depth = 2 and op = conv")


def test_where_no_column_tells_when_a_cell_is_empty_empty_is_a_value(tmp_path):
    cells = [("a", ""), ("a", 1), ("b", ""), ("b", 1), ("b", 2)]
    found = dimensions(table(tmp_path, rows_of("op,size", cells)))
    assert found["size"] == ((1, 2, None), None)


def test_of_two_columns_that_exclude_each_other_one_rules(tmp_path):
    cells = [(1, ""), (2, ""), ("", "x"), ("", "y")]
    found = dimensions(table(tmp_path, rows_of("a,b", cells)))
    assert found == {"a": ((1, 2, None), None), "b": (("x", "y"), "a = none")}


def test_the_own_values_of_every_row_lead_to_it(tmp_path):
    cells = [("conv", k, e) for k in (3, 5) for e in ("", 2)] + [("pool", "", "")]
    domain = table(tmp_path, rows_of("op,kernel,extra", cells))
    for i, (op, kernel, extra) in enumerate(cells):
        own = {"op": op, "kernel": kernel or None, "extra": extra or None}
        candidate = domain.candidate(lambda dim, own=own: own[dim.name])
        assert domain.refusal(candidate) is None
        assert domain.table.accuracy(candidate.point) == [50 + i]
        assert domain.known(candidate) == {"cost": 10 + 3 * i}


# --- what is there and what is not ---


def test_a_combination_that_is_not_in_the_table_is_refused_and_nothing_is_known_of_it(tmp_path):
    domain = table(tmp_path, rows_of("a,b", [(1, 1), (1, 2), (2, 1)]))
    candidate = domain.candidate(lambda dim: 2)
    assert domain.refusal(candidate) == "not in the table"
    assert domain.known(candidate) == {}


def test_rows_with_equal_parameters_are_one_network_of_the_mean_accuracy(tmp_path):
    domain = table(tmp_path, "a,acc,cost\n1,50,7\n2,60,8\n1,54,9\n")
    candidate = domain.candidate(lambda dim: 1)
    assert domain.table.size == 2
    assert domain.table.accuracy(candidate.point) == [52]
    assert domain.known(candidate) == {"cost": 7}


def test_rows_without_accuracy_or_cost_are_left_out(tmp_path):
    assert table(tmp_path, "a,acc,cost\n1,50,7\n2,,8\n3,40,nan\n4,45,9\n").table.size == 2


def test_every_row_is_drawn_as_often_as_any_other(tmp_path):
    cells = [("pool", "")] + [("conv", k) for k in range(1, 8)]  # by dimensions, pool would be half of all
    domain = table(tmp_path, rows_of("op,kernel", cells))
    rng = np.random.default_rng(0)
    drawn = Counter(domain.key(domain.draw(rng)) for _ in range(8000))
    assert len(drawn) == 8
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in drawn.values())


def test_a_compressed_table_is_read_alike(tmp_path):
    text = rows_of("a", [(1,), (2,), (3,)])
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    told = read_csv(tmp_path / "t.csv.gz", params=["a"], accuracy="acc", cost="cost")
    assert np.array_equal(told.costs, table(tmp_path, text, log_cost=True).table.costs)


# --- the corner ---

NETS = "a,acc,cost\n1,10,1\n2,20,10\n3,30,100\n4,5,1000\n5,30,10000\n"  # front: 1, 2, 3


def test_the_corner_is_the_quartile_of_accuracy_and_a_little_beyond_the_fronts_dearest(tmp_path):
    accuracy, cost = table(tmp_path, NETS, log_cost=True).objectives
    assert accuracy.worst == 10  # 5 10 20 30 30
    assert cost.worst == pytest.approx(10 ** (2 + 0.05 * 2))


def test_a_linear_cost_is_measured_by_difference(tmp_path):
    _, cost = table(tmp_path, NETS, log_cost=False).objectives
    assert cost.worst == pytest.approx(100 + 0.05 * 99)


def test_a_cost_that_is_to_be_large_has_its_corner_below(tmp_path):
    domain = table(tmp_path, "a,acc,cost\n1,10,1000\n2,20,10\n3,15,1\n", log_cost=True, cost_goal="maximize")
    assert domain.objectives[1].worst == pytest.approx(10 ** (1 - 0.05 * 2))
    assert best_volume(domain.table) == pytest.approx((20 - 12.5) * 0.1)  # the quartile leaves one network


def test_the_volume_of_the_front_is_that_of_another_library(tmp_path):
    from optuna._hypervolume import compute_hypervolume

    rng = np.random.default_rng(1)
    text = "a,acc,cost\n" + "\n".join(f"{i},{rng.uniform(10, 90)},{rng.uniform(1, 100)}" for i in range(200))
    found = table(tmp_path, text, log_cost=True).table
    worst = np.array(corner(found.objectives))
    inside = found.costs[np.all(found.costs < worst, axis=1)]
    assert best_volume(found) == pytest.approx(compute_hypervolume(inside, worst))


# --- curves ---


def test_a_curve_is_the_accuracy_after_each_epoch(tmp_path):
    text = "a,e1,e2,e3,cost\n1,10,20,30,5\n2,12,14,16,4\n3,1,2,3,4\n"
    domain = table(tmp_path, text, params="a", accuracy="e3", curves=["e1", "e2", "e3"])
    assert domain.table.trained_epochs == (1, 2, 3)
    assert domain.table.accuracy(domain.candidate(lambda dim: 2).point) == [12, 14, 16]
    assert domain.epochs == (3,)
    assert TableDomain(domain.table, epochs=(1, 3)).epochs == (1, 3)
    with pytest.raises(TableError, match=r"Rungs 1, 4.*after epoch 1, 2, 3"):
        TableDomain(domain.table, epochs=(1, 4))


# --- the user's mistakes ---


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("a,acc\n1,2\n", {}, 'has no column "cost"'),
        ("a,acc,costs\n1,2,3\n", {}, 'Did you mean "costs"'),
        ("a,acc,cost\n1,2,x\n", {}, r'table.csv:2: "cost" is "x", not a number'),
        ("a,acc,cost\n1,2,3\n2,3\n", {}, "table.csv:3 has 2 cells, the header has 3"),
        ("a,acc,cost\n1,2,0\n2,3,1\n", {"log_cost": True}, 'table.csv:2: "cost" is 0, .* --linear-cost'),
        ("a,acc,cost\n1,,3\n", {}, "no row with both"),
        ("a,e1,acc,cost\n1,2,3,4\n", {"curves": ["acc", "e1"]}, 'ends with "e1", but the accuracy is "acc"'),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_would_do(tmp_path, text, options, told):
    with pytest.raises(TableError, match=told):
        table(tmp_path, text, params="a", **options)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TableError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", params=["a"], accuracy="acc", cost="cost")


# --- the quadratic model ---


def archive(folder: Path, choices: list[int], seed: int = 0) -> Path:
    """A random model in the form of the one of Accel-NASBench."""
    rng = np.random.default_rng(seed)
    one_hot = np.array([(i, value) for i, count in enumerate(choices) for value in range(1, count)])
    pairs = np.array([(a, b) for a, b in itertools.combinations(range(len(one_hot)), 2)])
    size = len(one_hot) + len(pairs)
    np.savez(
        folder / "model.npz",
        choices=np.array(choices),
        one_hot=one_hot,
        pairs=pairs,
        accuracy_weights=rng.normal(size=size),
        accuracy_bias=60.0,
        log_throughput_weights=-np.abs(rng.normal(size=size)) / 5,
        log_throughput_bias=9.0,
    )
    return folder / "model.npz"


def by_the_readme(file: Path, code: tuple[int, ...], quantity: str) -> float:
    told = np.load(file)
    hot = np.array([float(code[i] == value) for i, value in told["one_hot"]])
    weights = told[f"{quantity}_weights"]
    value = float(told[f"{quantity}_bias"]) + hot @ weights[: len(hot)]
    for k, (a, b) in enumerate(told["pairs"]):
        value += weights[len(hot) + k] * hot[a] * hot[b]
    return float(value)


def test_the_quadratic_model_is_the_formula_of_its_readme(tmp_path):
    file = archive(tmp_path, [3, 2, 4])
    domain = TableDomain(QuadraticTable(file))
    rng = np.random.default_rng(3)
    for _ in range(20):
        candidate = domain.draw(rng)
        code = tuple(candidate.point.values())
        assert domain.table.accuracy(candidate.point)[0] == pytest.approx(by_the_readme(file, code, "accuracy"))
        log = by_the_readme(file, code, "log_throughput")
        assert domain.known(candidate)["cost"] == pytest.approx(np.exp(log))


def test_the_front_of_the_model_is_that_of_all_its_networks(tmp_path):
    from optuna.study._multi_objective import _is_pareto_front

    choices = [3, 2, 3, 2, 4, 2, 3]
    found = QuadraticTable(archive(tmp_path, choices, seed=5))
    codes = np.array(list(itertools.product(*(range(n) for n in choices))))
    accuracy, throughput = found.values(codes)
    costs = np.column_stack([-accuracy, -np.log10(throughput)])
    front = costs[_is_pareto_front(costs, assume_unique_lexsorted=False)]
    assert np.allclose(np.unique(front, axis=0), np.unique(found.front(), axis=0))


def test_a_file_that_is_no_model_is_told(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(TableError, match="is no quadratic model"):
        QuadraticTable(tmp_path / "other.npz")


# --- the reference tables ---


@pytest.mark.skipif(not TABLES.is_dir(), reason="the reference tables are not here")
def test_the_reference_tables_are_what_their_readme_says():
    names = [f"b{i}" for i in range(8)]
    macro = read_csv(TABLES / "nas_bench_macro.csv.gz", params=names, accuracy="mean_acc", cost="flops")
    assert macro.size == 3**8
    assert [dim.name for dim, _ in TableDomain(macro).dimensions] == names
    assert macro.repeated == 0


@pytest.mark.slow
@pytest.mark.skipif(not TABLES.is_dir(), reason="the reference tables are not here")
def test_no_evolution_finds_more_than_the_front_of_accel_nasbench():
    found = QuadraticTable(TABLES / "accel_nasbench_quadratic.npz")
    assert found.size == pytest.approx(1.04e11, rel=0.01)
    rng = np.random.default_rng(7)
    codes = rng.integers(found.choices, size=(20_000, len(found.choices)))
    worst = np.array(corner(found.objectives))
    from mlpspace.pareto import hypervolume, rank

    def costs(codes: np.ndarray) -> np.ndarray:
        accuracy, throughput = found.values(codes)
        return np.column_stack([-accuracy, -np.log10(throughput)])

    for _ in range(60):  # NSGA-like: the best ranks, crossed and mutated
        best = codes[np.argsort(rank(costs(codes)), kind="stable")[:1000]]
        mothers, fathers = best[rng.integers(1000, size=(2, 3000))]
        young = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
        fresh = rng.integers(found.choices, size=young.shape)
        codes = np.vstack([best, np.where(rng.random(young.shape) < 0.05, fresh, young)])
    share = hypervolume(costs(codes), worst) / best_volume(found)
    assert 0.97 < share <= 1 + 1e-9
