"""Who may import whom, held by reading every file of the package; nothing of it is run, but for the last test."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mlpspace"

# Lowest first. A file imports from rows below its own and from its own row, never from above, and never in a circle.
# A name stands for a file or for a whole folder. NEW FILES ARE ADDED HERE.
ROWS = (
    ("errors", "fields", "objectives", "wall_time", "fresh_process", "fork_server"),
    ("architecture", "recipe", "pareto", "forecast", "stopping"),
    ("ranks", "leaving"),
    ("rungs",),
    ("measurement", "measured_again", "references", "space", "comparators", "scaling", "papers", "fixed_points"),
    ("nets", "counts", "proof", "weights", "token_matrices"),
    (
        *("data", "device", "proxy", "throughput", "timing", "runtime", "reference", "calibration", "peak_memory"),
        *("deploy_device", "fresh_measurement", "failure", "quiet", "evaluate", "memory", "pieces"),
        *("step", "step_ways"),
        *("nvml", "processes", "fingerprint", "energy", "training_group", "sharing"),
    ),
    ("address", "ledger_tables", "damaged_file", "sqlite_file", "postgres", "storage", "study_folder"),
    ("ledger", "ledger_rows", "ledger_columns", "trial", "trial_columns", "session", "optuna_tables", "study"),
    ("comparable", "entries", "front", "front_probability", "older_protocol"),
    ("manifest", "checkpoints", "outlets", "extension", "rescue"),
    ("domain",),
    ("sampling",),
    ("ahead", "results", "recalled", "mirror"),
    ("leaders",),
    ("search",),
    ("replay",),
    ("engines",),
    ("report", "status", "manifest_table", "plot", "papers_table", "plot_mixing", "wall_time_table"),
    ("retraining", "verdict", "subjects", "machine_profile"),
    ("profile_table",),
    ("survey", "live", "replayed", "interrupt"),
    ("which_study",),
    ("driver",),
    ("cli",),
    ("__init__", "__main__"),
)

# Who may import the heavy libraries, at the top of the file or inside a function.
MAY_IMPORT = {
    "ray": (
        *("engines.ray_tune", "engines.ray_worker", "engines.ray_files", "engines.ray_mended", "engines.ray_alive"),
        *("engines.ray_measuring", "engines.ray_sharing", "engines.ray_cluster"),
    ),
    "torch": (
        *("nets", "counts", "proof", "weights", "comparators"),
        *("data", "device", "proxy", "throughput", "quiet", "evaluate", "memory", "engines"),
        *("pieces", "step", "training_group", "sharing"),
        *("timing", "runtime", "reference", "calibration", "peak_memory", "fresh_measurement", "deploy_device"),
        *("token_matrices", "retraining", "machine_profile", "fingerprint", "energy"),
    ),
    "pynvml": ("nvml",),
    "timm": ("comparators",),
    "click": ("cli",),
    "rich": ("cli", "live"),
}
NO_TORCH = ("data.catalog",)  # tells what datasets there are, to a command line that must start at once

# `mlpspace pareto` must start in well under a second: these load the slow libraries inside the function that uses them.
QUICK: tuple[str, ...] = ("errors", "fields", "objectives", "architecture", "recipe", "pareto", "measurement", "space")
QUICK += ("papers", "ledger", "optuna_tables", "study", "front", "manifest", "report", "live", "cli", "__init__")
QUICK += ("__main__", "fixed_points", "plot", "survey", "driver", "comparators", "scaling", "papers_table")
QUICK += ("which_study", "mirror")
QUICK += ("plot_mixing", "subjects", "profile_table", "checkpoints", "rungs", "forecast", "stopping")
QUICK += ("ledger_columns", "trial_columns", "comparable", "entries")
QUICK += ("address", "storage", "sqlite_file", "postgres", "damaged_file", "rescue")
QUICK += (
    "ledger_tables",
    "ledger_rows",
    "study_folder",
    "trial",
    "front_probability",
    "status",
    "session",
    "manifest_table",
    "wall_time",
    "wall_time_table",
    "fingerprint",
    "nvml",
)
SLOW_LIBRARIES = ("torch", "timm", "ray", "optuna", "pandas", "matplotlib")


@dataclass(frozen=True)
class Import:
    """One imported module; `inside`: in a function, or for the type checker alone, so not loaded with the file."""

    line: int
    module: str
    inside: bool


def in_any(module: str, places: tuple[str, ...]) -> bool:
    """Is `module` one of `places` or inside one? Both without the leading "mlpspace."."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def row_of(module: str) -> int | None:
    return next((i for i, names in enumerate(ROWS) if module.split(".")[0] in names), None)


def imports(source: str, module: str, is_folder: bool = False) -> Iterator[Import]:
    """Every module that the source of `module` imports; `from a import b` gives a.b, whatever b is."""
    here = ["mlpspace", *module.split(".")] if module != "__init__" else ["mlpspace"]
    package = here if is_folder or module == "__init__" else here[:-1]

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(child.lineno, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                start = package[: len(package) - child.level + 1] if child.level else []
                base = ".".join([*start, *([child.module] if child.module else [])])
                yield from (Import(child.lineno, f"{base}.{alias.name}", inside) for alias in child.names)
            else:
                in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
                yield from visit(child, inside or in_function or for_types)

    yield from visit(ast.parse(source), inside=False)


def breaches(module: str, source: str, is_folder: bool = False) -> list[str]:
    """What in the source of `module` breaks the import rule, each with its line."""
    own_row = row_of(module)
    assert own_row is not None
    found = []
    for each in imports(source, module, is_folder):
        library, _, inner = each.module.partition(".")
        at = f"{module}:{each.line}: "
        if library == "mlpspace" and inner != "__version__":
            row = row_of(inner) if inner else None
            if row is None:
                found.append(f"{at}{each.module} is in no row; import the file that defines it")
            elif row > own_row:
                found.append(f"{at}{each.module} stands above {module} (rows {row} and {own_row} of ROWS)")
        allowed = MAY_IMPORT.get(library)
        if allowed is not None and not in_any(module, allowed):
            found.append(f"{at}{library} is imported only in {', '.join(allowed)}")
        if library == "torch" and in_any(module, NO_TORCH):
            found.append(f"{at}torch is not imported in {module}")
        if library in SLOW_LIBRARIES and not each.inside and in_any(module, QUICK):
            found.append(f"{at}{library} is imported inside the function that uses it, so that {module} loads at once")
    return found


def prints(module: str, source: str) -> list[str]:
    """Where the source of `module` prints."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        f"{module}:{call.lineno}: only cli prints"
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "print" and not in_any(module, ("cli",))
    ]


def files() -> dict[str, Path]:
    """Module name, without the leading "mlpspace.", -> its file; a folder goes by its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


def is_folder(module: str) -> bool:
    return FILES[module].name == "__init__.py"


@pytest.mark.parametrize("module", FILES)
def test_every_file_stands_in_a_row(module: str) -> None:
    assert row_of(module) is not None, f"{FILES[module]} is in no row: add it to ROWS at the top of {__file__}"


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_downwards_only(module: str) -> None:
    if row_of(module) is None:
        pytest.skip("stands in no row yet")
    assert breaches(module, FILES[module].read_text(), is_folder(module)) == []


@pytest.mark.parametrize("module", FILES)
def test_nothing_but_the_command_line_prints(module: str) -> None:
    assert prints(module, FILES[module].read_text()) == []


def test_no_imports_go_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in FILES.items():
        graph[module] = set()
        for each in imports(path.read_text(), module, is_folder(module)):
            library, _, inner = each.module.partition(".")
            # `from mlpspace.space import Space` is an import of mlpspace.space: the longest name that is a file
            while library == "mlpspace" and inner and inner not in FILES:
                inner = inner.rpartition(".")[0]
            if library == "mlpspace" and inner and inner != module:
                graph[module].add(inner)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("pareto", "from mlpspace.study import Study", "above"),
        ("search", "def go():\n    import mlpspace.cli", "above"),
        ("study", "from mlpspace import Study", "no row"),
        ("space.space", "from ..search import Search", "above"),
        ("search", "import ray", "only in engines.ray_tune"),
        ("engines.inline", "from ray import tune", "only in engines.ray_tune"),
        ("front", "def frame():\n    import torch", "only in nets"),
        ("data.catalog", "import torch", "not imported in data.catalog"),
        ("report", "import matplotlib.pyplot as plt", "inside the function"),
        ("study", "import optuna", "inside the function"),
        ("search", "from rich.table import Table", "only in cli, live"),
        ("search", "import click", "only in cli"),
    ],
)
def test_a_breach_is_found(module: str, source: str, word: str) -> None:
    assert any(word in text for text in breaches(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search", "from mlpspace.study import Study"),
        ("search", "from mlpspace import pareto"),
        ("report", "def plot():\n    import matplotlib"),
        ("study", "if TYPE_CHECKING:\n    import pandas as pd"),
        ("engines.ray_tune", "import ray\nimport torch"),
        ("sampling.optuna_samplers", "import optuna"),
        ("space.space", "from .text import read"),
    ],
)
def test_what_is_allowed_is_no_breach(module: str, source: str) -> None:
    assert breaches(module, source) == []


@pytest.mark.parametrize(
    "module", ["", ".cli", ".study", ".report", ".space", ".front", ".papers", ".pareto", ".architecture"]
)
def test_what_the_quick_commands_import_loads_no_slow_library(module: str) -> None:
    program = f"import sys, mlpspace{module}; print(*[name for name in {SLOW_LIBRARIES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
