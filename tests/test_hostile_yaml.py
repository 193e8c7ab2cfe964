"""Space and architecture files that were spoiled or are meant to harm: a space or mistakes with their lines, soon."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import mlpspace
from guard import ending, tame
from mutations import mutants
from stubs import SPACE

from mlpspace import papers, survey
from mlpspace.architecture import Architecture
from mlpspace.counts import profile
from mlpspace.domain import SpaceDomain
from mlpspace.errors import SpaceError, UserError
from mlpspace.space import Space, load_space, read_space
from mlpspace.space.architecture_reader import read_architecture
from mlpspace.space.dims import Choice, Span, Value, nearest, values
from mlpspace.space.space import FixedPoints
from mlpspace.space.text import duration, share
from mlpspace.space.writer import layout_yaml

SPACES = [path.read_text() for path in sorted((Path(__file__).parents[1] / "spaces").glob("*.yaml"))]
PUBLISHED = [
    layout_yaml(paper.architecture, paper.name)
    for paper in papers.PAPERS
    if isinstance(paper.architecture, Architecture)
]


def refusal(work: Callable[[], object]) -> UserError | None:
    """What the user is told by `work`; None where it is done. Anything else that it raises is our mistake."""
    try:
        with ending():
            work()
    except UserError as error:
        return error
    return None


def read_spoiled(count: int, *, seed: int, folder: Path) -> dict[str, int]:
    """How many of so many spoiled spaces are a space, and how many are told the user as mistakes."""
    told = {"spaces": 0, "mistakes": 0}
    file = folder / "space.yaml"
    for number, spoiled in enumerate(mutants(SPACES, count, seed=seed)):
        file.write_bytes(spoiled)
        with explained(spoiled, seed, number):
            error = refusal(lambda number=number: use(load_space(file), with_fixed_points=number % 20 == 0))
            told["spaces" if error is None else "mistakes"] += 1
            if error is not None:
                assert tame(str(error))
            if isinstance(error, SpaceError):
                assert all(re.match(rf"{re.escape(str(file))}:(\d+: |.* draws )", line) for line in error.mistakes)
    return told


@contextmanager
def explained(spoiled: bytes, seed: int, number: int) -> Iterator[None]:
    """A failure within tells how to come to it again."""
    try:
        yield
    except BaseException:
        print(f"spoiled file {number} of seed {seed}:\n{spoiled[:2000]!r}")
        raise


def use(space: Space, *, with_fixed_points: bool) -> None:
    """What the command line and a sampler do with a space that was read."""
    if not with_fixed_points:  # to fit them takes seconds
        space = dataclasses.replace(space, fixed_points=FixedPoints())
    assert space.count().points > 0
    rng = np.random.default_rng(0)
    for _ in range(2):
        drawn = space.draw(rng)
        assert space.decode(drawn.point) == drawn.architecture
        assert tame(drawn.architecture.describe())
    told = survey.survey(space, draws=2, seed=0)
    assert tame(survey.text(told))
    json.dumps(told.as_json())
    space.id.encode()


def test_a_spoiled_space_file_is_a_space_or_mistakes_with_their_lines(tmp_path: Path) -> None:
    told = read_spoiled(300, seed=0, folder=tmp_path)
    assert told["spaces"] > 10  # else only the first line of the reader was tried
    assert told["mistakes"] > 200


@pytest.mark.slow
def test_more_spoiled_space_files_are_spaces_or_mistakes_with_their_lines(tmp_path: Path) -> None:
    assert sum(read_spoiled(60, seed=2, folder=tmp_path).values()) == 60


@pytest.mark.fuzz
def test_ten_thousand_spoiled_space_files_are_spaces_or_mistakes_with_their_lines(tmp_path: Path) -> None:
    told = read_spoiled(10_000, seed=1, folder=tmp_path)
    assert told["spaces"] > 500
    assert sum(told.values()) == 10_000


def read_spoiled_architectures(count: int, *, seed: int) -> int:
    """How many of so many spoiled architectures are one."""
    read = 0
    for number, spoiled in enumerate(mutants(PUBLISHED, count, seed=seed)):
        with explained(spoiled, seed, number):
            error = refusal(lambda spoiled=spoiled: use_architecture(spoiled.decode(errors="replace")))
            assert error is None or tame(str(error))
            read += error is None
    return read


def use_architecture(text: str) -> None:
    architecture = read_architecture(text)
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert read_architecture(layout_yaml(architecture, "again")) == architecture
    profile(architecture, 224)


def test_a_spoiled_architecture_file_is_an_architecture_or_mistakes() -> None:
    assert read_spoiled_architectures(300, seed=0) > 10


@pytest.mark.fuzz
def test_five_thousand_spoiled_architecture_files_are_architectures_or_mistakes() -> None:
    assert read_spoiled_architectures(5_000, seed=1) > 200


# --- single harms, and what is said of them ---------------------------------------------------------------------------


def laughs(levels: int = 9) -> str:
    """Nine lists of nine aliases each: a billion words (after "billion laughs", CVE-2003-1564)."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def with_width(text: str) -> str:
    return SPACE.replace("width: 16..64 step 16", f"width: {text}")


def with_mixer(text: str, width: str = "16..64 step 16") -> str:
    return re.sub(r"token_mixer: .*", lambda _: f"token_mixer: {text}", with_width(width))


def with_recipe(text: str) -> str:
    return SPACE.replace("epochs: 2}", f"epochs: 2, recipe: {text}}}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (laughs(), r"1:|10: the aliases stand for more than 10,000 values"),
        (with_width("&a [*a, *a]"), r"8: an alias stands inside of what it stands for"),
        (with_width("[" * 100_000), r"not valid YAML: nested too deeply"),
        (with_width("[" * 200 + "]" * 200), r"(nested too deeply|values nest over 100 deep)"),
        (with_width("[" + "1, " * 50_000 + "2]"), r"8: there are more than 10,000 values"),
        (with_width("[" + "1, " * 1_000_000 + "2]"), r"1: 3,000,\d{3} characters are too many: up to 200,000 are read"),
        (with_width("1" * 100_000 + "x"), r'8: "1111.*" has 100,001 characters; no word or number here is so long'),
        (with_width("." * 100_000 + " x"), r"8: .* characters; no word or number here is so long"),
        (SPACE.replace("isotropic:", "x" * 1000 + ":"), r"has 1,000 characters; no word or number"),
        (
            with_width("0..1000000000000000000 step 1"),
            r"8: width 0\.\.1000000000000000000 step 1: 0 is not a whole number",
        ),
        (with_width("1..65536") + "\nx: 1", r'"x" is not known'),
        (
            with_mixer("{external_attention: {heads: 1..256, expansion: 1..16}}", "1..65536"),
            r"8: .*combinations of widths",
        ),
        (
            with_mixer(
                "{none: {}}\n      block: {repmlp_bottleneck: {partition: 1..64, groups: 1..256, reduction: 1..64}}"
            ),
            "combinations",
        ),
        (with_recipe("{lr: 1e-5..100 step 1e-320}"), r"14: lr .* holds over 1,000,000 values"),
        (with_recipe("{weight_decay: 0..1 step 1e-300}"), r"14: weight_decay .* holds over 1,000,000 values"),
        (with_recipe("{lr: 1e999}"), r"14: lr \"1e999\" is not a number"),
        (with_recipe("{lr: .nan}"), r"14: lr \"\.nan\" is not a number"),
        (SPACE.replace("epochs: 2", "rungs: {epochs: [1, 2], keep: 1/" + "9" * 150 + "}"), "is not a share"),
        (SPACE.replace("epochs: 2", "epochs: 2, timeout: " + "9" * 180 + "d"), "timeout .* is not a duration"),
        (SPACE.replace("..4M", "..1e308G"), r'macs "1e308G" is not a number'),
        (
            with_width("!!python/object/apply:os.system ['touch HERE/done']"),
            r'8: the tag "!!python/object/apply:os.system"',
        ),
        (
            with_width("!!python/name:os.system 32"),
            r'8: the tag "!!python/name:os.system" is not part of the space language',
        ),
        (with_width("!own 32"), r'8: the tag "!own" is not part'),
        ("%TAG ! tag:evil,2000:\n---\n" + with_width("!x 32"), r'10: the tag "tag:evil,2000:x" is not part'),
        (with_width("{<<: *nothing}"), "found undefined alias"),
        (with_width('"\\e]0;owned\\a"'), r'8: width "\\x1b\]0;owned\\x07" is not a whole number'),
        (with_width('"\\uD800"'), r'8: width "\\ud800" is not a whole number'),
        (with_width('"\\u202E46"'), r'8: width "\\u202e46" is not a whole number'),
        (with_width('"a\\nspace.yaml:1: all is well"'), r'8: width "a\\nspace.yaml:1: all is well" is not'),
        (with_width("32\0"), r"8: not valid YAML: the character '\\x00' may not stand in it"),
        (with_width("32\x1b"), r"8: not valid YAML: the character '\\x1b' may not stand in it"),
        (SPACE + "---\n" + SPACE, "expected a single document"),
        (SPACE.replace("mnist5k", "../../etc/passwd"), r'14: dataset "../../etc/passwd" is not a name'),
        (
            SPACE.replace("seed: 0", "seed: 0, sampler: os:system"),
            r"16: sampler .* names code, which a space file never does",
        ),
        (
            SPACE.replace("      patch: [4, 8]\n      depth: 1..4\n      width: 16..64 step 16\n", "      patch: 4\n")
            + "",
            "needs a depth",
        ),
    ],
    ids=lambda value: value[-40:] if "\n" not in value else "",
)
def test_a_harm_is_a_mistake_that_says_its_line(text: str, says: str) -> None:
    with ending(), pytest.raises(SpaceError) as caught:
        read_space(text)
    assert re.search(says, str(caught.value)), str(caught.value)[:2000]
    assert all(re.match(r"space\.yaml:\d+: ", line) for line in caught.value.mistakes)
    assert tame(str(caught.value))


@pytest.mark.parametrize("text", [laughs(30), with_width("[" + "1, " * 30_000 + "2]"), with_width("x" * 190_000)])
def test_what_stands_for_much_takes_little_memory(text: str) -> None:
    tracemalloc.start()
    try:
        with ending(), pytest.raises(SpaceError):
            read_space(text)
        assert tracemalloc.get_traced_memory()[1] < 100e6  # bytes
    finally:
        tracemalloc.stop()


def test_more_stages_than_any_network_has_are_a_mistake() -> None:
    stages = "[" + ", ".join(["{depth: 1, width: 8, merge: false}"] * 700) + "]"
    text = SPACE.replace("      depth: 1..4\n      width: 16..64 step 16\n", f"      stages: {stages}\n")
    with (
        ending(),
        pytest.raises(SpaceError, match=r"space.yaml:7: layout isotropic has 700 stages; up to 100 are taken"),
    ):
        read_space(text)


def test_the_largest_layout_there_can_be_is_counted_and_drawn() -> None:
    text = "task: {classes: 1000000, resolution: 4096}\nspace:\n  layout:\n    a:\n      patch: 1\n      stages:\n"
    stage = "{depth: 1000, width: 65536, token_mixer: {dense: {ratio: 16}}, channel_mixer: {mlp: {ratio: 16}}, merge: false}"
    text += f"        - {stage.replace(', merge: false', '')}\n" + f"        - {stage}\n" * 99
    text += "objectives: {params: {worst: 1M}}\nfidelity: {dataset: anything, epochs: 1}\n"
    with ending():
        space = read_space(text)
        told = survey.survey(space, draws=5, seed=0)
    assert space.count().points == 1
    assert SpaceDomain(space).refusal(space.draw(np.random.default_rng(0))) == "too large to be counted in a database"
    assert told.drawn[0].macs > 2**63
    assert "params" in survey.text(told)
    json.dumps(told.as_json())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (SPACE.encode("utf-16"), r":1: is not UTF-8 text \(byte 0: invalid start byte\)"),
        (SPACE.encode().replace(b"depth", b"\xff\xfedepth"), r":7: is not UTF-8 text"),
        (b"\x1f\x8b" + b"\0" * 100, r":1: is not UTF-8 text"),
        (b"", r":1: the file is empty"),
        (b"#" * 1_000_000, r":1: over 800,000 bytes are too many for a space file"),
    ],
    ids=["utf-16", "broken utf-8", "gzip", "empty", "long"],
)
def test_a_file_that_is_no_text_is_told_with_its_line(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "space.yaml").write_bytes(data)
    with pytest.raises(SpaceError, match=says):
        load_space(tmp_path / "space.yaml")


def test_a_device_that_never_ends_is_no_space() -> None:
    with ending(), pytest.raises(SpaceError, match=r"/dev/zero:1: over 800,000 bytes are too many"):
        load_space("/dev/zero")


def test_what_a_file_says_never_drives_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.yaml").write_text(with_mixer('{"\\e[2Jdense": {}}').replace("isotropic", '"\\x9biso"'))
    code, out, err = mlpspace(capsys, "space", tmp_path / "space.yaml")
    assert code == 2
    assert "\\x1b[2Jdense" in err
    assert "\\x9biso" in err
    assert tame(out + err)


def test_a_byte_order_mark_and_other_line_ends_are_no_harm(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_bytes(b"\xef\xbb\xbf" + SPACE.replace("\n", "\r\n").encode())
    assert load_space(tmp_path / "space.yaml").id == read_space(SPACE).id


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1/" + "9" * 5000, "9" * 5000 + "/1", "9" * 400 + "%", "1/0", "9" * 5000])
def test_a_share_of_too_many_digits_is_none(text: str) -> None:
    assert share(text) is None


@pytest.mark.parametrize("text", ["9" * 400 + "d", "1e999", "nan", "-1s", "9" * 5000])
def test_a_duration_without_end_is_none(text: str) -> None:
    assert duration(text) is None


def slow_nearest(dim: Span | Choice, target: float) -> Value:
    """All of them looked at."""
    numbers = [v for v in values(dim) or [] if isinstance(v, int | float) and v > 0]
    return min(numbers, key=lambda v: (abs(math.log(v / target)), v))


def test_the_nearest_value_of_a_range_is_the_nearest_of_all_its_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        low, step, count = int(rng.integers(1, 100)), int(rng.integers(1, 40)), int(rng.integers(2, 60))
        span = Span("width", low, low + step * (count - 1), step, log=False)
        for target in (float(rng.uniform(0.1, 3000)), float(low), low + step * rng.integers(count) + step / 2):
            assert nearest(span, target) == slow_nearest(span, target), (span, target)
