"""The README is run: what it shows must work as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from stubs import SPACE, Session, evaluate

from mlpspace import cli, papers
from mlpspace.architecture import TABLES
from mlpspace.data.catalog import DATASETS
from mlpspace.engines import inline
from mlpspace.fields import scalar_fields
from mlpspace.recipe import Augmentation, Recipe
from mlpspace.space import load_space, read_space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)


def test_the_space_file_in_it_is_one():
    (text,) = blocks("yaml")
    assert read_space(text).count().points > 1000


def test_the_notebook_in_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spaces").symlink_to(ROOT / "spaces")
    with Session(Path("studies/run1"), text=SPACE) as search:
        inline.run(search, device="cpu", evaluate=evaluate)
    (code,) = [block for block in blocks("python") if block.startswith("import mlpspace, numpy")]
    names: dict[str, object] = {}
    exec(code, names)
    assert names["front"].sum() >= 1
    assert len(names["frame"]) == 12


def test_every_flag_in_it_exists_and_every_flag_that_exists_is_in_it():
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    flags = {
        flag for command in cli.cli.commands.values() for p in command.params for flag in p.opts if flag[:2] == "--"
    }
    elsewhere = {"--head", "--port", "--block", "--generate"}  # ray's
    elsewhere |= {"--nodes", "--ntasks", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"}  # SLURM's
    elsewhere |= {"--time", "--signal", "--overlap", "--chaos-minutes"}
    assert told - flags - elsewhere == set()
    assert flags - told <= {"--draws", "--plain", "--seed"}  # those that help alone teaches


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, table in TABLES.items() for name in table])
def test_every_kind_stands_in_the_table_of_its_part_with_its_dimensions(part, name):
    table = README.partition(f"| `{part}` | from |")[2].partition("\n\n")[0]
    row = next((line for line in table.splitlines() if line.startswith(f"| `{name}` |")), None)
    assert row is not None, f"add a row for {part} {name} to the README"
    for field in scalar_fields(TABLES[part][name]):
        assert f"`{field}`" in row, f"{name}: {field}"


def test_every_known_dataset_setting_and_fixed_point_stands_in_it():
    for name in (*DATASETS, *scalar_fields(Recipe)):
        assert f"`{name}`" in README, name
    for name in scalar_fields(Augmentation):
        assert name in README, name
    family, members = zip(*re.findall(r"`(\w+_)\{([\w,]+)\}`", README), strict=True)
    told = {f"{prefix}{size}" for prefix, sizes in zip(family, members, strict=True) for size in sizes.split(",")}
    assert told == set(papers.NAMES)


@pytest.mark.parametrize("path", sorted(ROOT.glob("spaces/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_is_read_and_says_how_to_run_it(path):
    space = load_space(path)
    assert space.count().points > 100
    assert f"mlpspace search spaces/{path.name}" in path.read_text()
    assert yaml.safe_load(path.read_text())  # plain YAML for any other tool, too
