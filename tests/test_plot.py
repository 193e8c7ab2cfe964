"""The picture of a front. What it looks like is for eyes; what can be checked is checked."""

from __future__ import annotations

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
    for words in ("rung 0", "6 epochs of digits at 32 px", "cpu, batch 64, fp32"):
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
