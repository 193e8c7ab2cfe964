"""The picture of a front. What it looks like is for eyes; what can be checked is checked."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import pytest
from hand_made import ACCURACY, BOTH, PARAMS, THROUGHPUT, a_trial, accuracy, throughput
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mlpspace.errors import UserError
from mlpspace.front import Front, front
from mlpspace.plot import _draw, plot_front
from mlpspace.study import Trial

NAMES = ("mixer_s16 (patch 16 -> 4; depth 8 -> 6)", "resmlp_s12 (patch 16 -> 4)", "smlpnet_tiny", "ea_mlp_14")


def trials(number: int) -> list[Trial]:
    rng = random.Random(number)
    made = []
    for i in range(number):
        speed = 10 ** rng.uniform(2, 5)
        label = NAMES[i] if i < len(NAMES) else None
        made.append(a_trial(accuracy(99 - speed**0.25 - rng.uniform(0, 4)), throughput(speed), label=label))
    return made


def drawn(found: Front) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 5.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(found, figure, "a title")
    figure.draw_without_rendering()
    return figure, figure.axes[0]


@pytest.mark.parametrize("number", [10, 100])
def test_the_labels_of_fixed_points_do_not_overlap_and_stay_inside(number: int) -> None:
    _, axes = drawn(front(trials(number), BOTH))
    labels = [text for text in axes.texts if text.get_text().split("\n")[0] in {name.split(" ")[0] for name in NAMES}]
    assert len(labels) == len(NAMES)
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    room = axes.get_window_extent()
    assert all(room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1 for box in boxes)


def test_the_whole_front_is_inside_the_axes_and_throughput_is_logarithmic() -> None:
    found = front([*trials(50), a_trial(accuracy(3.0), throughput(200.0))], BOTH)
    _, axes = drawn(found)
    assert axes.get_xscale() == "log"
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for entry in found.points:
        assert left < entry.values["throughput"] < right
        assert low < entry.records["accuracy"].low
        assert entry.records["accuracy"].high < high
    assert low > 3.0  # the one that learned nothing is marked at the edge and does not press the others together


def test_axes_and_title_say_what_and_under_what_circumstances() -> None:
    _, axes = drawn(front(trials(10), BOTH))
    assert "accuracy (%)" in axes.get_ylabel()
    assert "throughput (images/s)" in axes.get_xlabel()
    assert axes.get_title(loc="left") == "a title"
    subtitle = next(text.get_text() for text in axes.texts if "networks compared" in text.get_text())
    for words in ("rung 0", "6 epochs of digits at 32 px", "Xeon, 2 cores, batch 64, fp32"):
        assert words in subtitle


@pytest.mark.parametrize(
    ("made", "objectives"),
    [
        (0, BOTH),
        (1, BOTH),
        (20, (ACCURACY, PARAMS)),
        (20, (THROUGHPUT, PARAMS)),
        (20, (*BOTH, PARAMS)),
        (20, (ACCURACY,)),
    ],
)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_any_front_can_be_drawn(tmp_path: Path, made: int, objectives: tuple, ending: str) -> None:  # type: ignore[type-arg]
    path = tmp_path / f"front.{ending}"
    plot_front(front(trials(made), objectives), path)
    assert path.stat().st_size > 5000
    if ending == "png":
        width, height = Image.open(path).size
        assert width >= 1200
        assert height >= 800


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    found = front(trials(3), BOTH)
    with pytest.raises(UserError, match=r'front\.docx: "\.docx" is no kind of picture\. Known: .*png'):
        plot_front(found, tmp_path / "front.docx")
    with pytest.raises(UserError, match="cannot be written"):
        plot_front(found, tmp_path / "nowhere" / "front.png")


def with_rungs(number: int) -> list[Trial]:
    made = []
    for i, trial in enumerate(trials(number)):
        full = trial.measurements["accuracy"].value
        records = [accuracy(full - 20), accuracy(full - 5, rung=1)][: 1 + i % 2]
        state = "complete" if len(records) == 2 else "paused"
        made.append(dataclasses.replace(trial, records=(*records, trial.measurements["throughput"]), state=state))
    return made


def legend_of(found: Front) -> list[str]:
    figure, _ = drawn(found)
    return [text.get_text() for text in figure.legends[0].get_texts()]


def subtitle_of(found: Front) -> str:
    _, axes = drawn(found)
    return next(text.get_text() for text in axes.texts if "compared" in text.get_text())


def points_of(found: Front) -> int:
    _, axes = drawn(found)
    return sum(len(collection.get_offsets()) for collection in axes.collections)


def test_partial_trainings_are_drawn_alone_and_as_what_they_are() -> None:
    partial, full = front(with_rungs(40), BOTH, rung=0), front(with_rungs(40), BOTH)
    assert any("went no further" in words for words in legend_of(partial))
    assert "NOT TRAINED TO THE END" in subtitle_of(partial)
    assert points_of(partial) == 40
    assert not any("further" in words or "went on" in words for words in legend_of(full))
    assert "20 networks compared of 40 trained" in subtitle_of(full)
    assert points_of(full) == 20


def test_the_error_bar_of_a_mean_is_that_of_the_mean() -> None:
    records = [accuracy(value, repeat=k) for k, value in enumerate((92.0, 86.0, 89.0))]
    _, axes = drawn(front([a_trial(*records, throughput(1000.0)), *trials(5)], BOTH))
    ends = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2]  # type: ignore[arg-type]
    assert any(low == pytest.approx(89 - 3**0.5) and high == pytest.approx(89 + 3**0.5) for low, high in ends)
