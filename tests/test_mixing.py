"""What a token mixer learned: the matrices against what the mixer does, and the picture against the matrices."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import Session
from test_cli import mlpspace

from mlpspace.architecture import (
    Architecture,
    Axial,
    ClassTokenHead,
    Dense,
    DepthwiseConv,
    ExternalAttention,
    Gating,
    Linear,
    Mlp,
    NoTokenMixer,
    Patches,
    RepMlp,
    Stage,
)
from mlpspace.engines import inline
from mlpspace.errors import ArchitectureError, UserError
from mlpspace.nets import build
from mlpspace.nets.network import Network
from mlpspace.plot_mixing import MOST_GROUPS, _drawn, little_images, plot_mixing, rows_shown
from mlpspace.space import read_space
from mlpspace.study import Study
from mlpspace.token_matrices import TokenMatrix, check_matrices, token_matrices

SIDE, TOKENS, WIDTH = 4, 16, 8  # of the maps here: 16 px in patches of 4


def an_architecture(*stages: Stage, **other) -> Architecture:
    return Architecture(stem=Patches(patch=4), stages=stages, **other)


def a_stage(mixer, depth: int = 1, **other) -> Stage:
    return Stage(depth=depth, width=WIDTH, token_mixer=mixer, **{"channel_mixer": Mlp(ratio=1), **other})


def a_network(architecture: Architecture, resolution: int = 16) -> Network:
    """In eval mode, its BatchNorms with statistics of their own."""
    torch.manual_seed(0)
    network = build(architecture, resolution, 10)
    for module in network.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def matrices_of(architecture: Architecture, resolution: int = 16) -> list[TokenMatrix]:
    return token_matrices(a_network(architecture, resolution), architecture, resolution)


def one_hot_responses(function, tokens: int = TOKENS) -> np.ndarray:
    """(outputs, inputs): what each output token changes by when 1 is added to one input token, in channel 0."""
    with torch.no_grad():
        base = function(torch.zeros(1, tokens, WIDTH))[0, :, 0]
        answers = []
        for token in range(tokens):
            x = torch.zeros(1, tokens, WIDTH)
            x[0, token, 0] = 1
            answers.append(function(x)[0, :, 0] - base)
    return torch.stack(answers, dim=1).numpy()


# --- the matrices ---------------------------------------------------------------------------------------------------


def test_the_image_of_a_known_matrix_is_its_row_over_the_map():
    architecture = an_architecture(a_stage(Linear()))
    network = a_network(architecture)
    known = torch.arange(TOKENS * TOKENS, dtype=torch.float32).view(TOKENS, TOKENS)  # output 100 takes 100 * 16 + j
    network.blocks[0].token.mixer.linear.weight.data.copy_(known)
    (matrix,) = token_matrices(network, architecture, 16)
    assert (matrix.layer, matrix.name, matrix.outputs, matrix.side) == (1, "linear", "token", SIDE)
    for row, image in zip(rows_shown(matrix), little_images(matrix), strict=True):
        assert image.tolist() == [[row * 16 + y * 4 + x for x in range(4)] for y in range(4)]


def test_the_matrix_of_a_linear_mixer_is_what_each_token_takes_from_each():
    architecture = an_architecture(a_stage(Linear()))
    network = a_network(architecture)
    mixer = network.blocks[0].token.mixer
    expected = one_hot_responses(lambda x: mixer(x.view(1, SIDE, SIDE, WIDTH)).flatten(1, 2))
    np.testing.assert_allclose(token_matrices(network, architecture, 16)[0].weight, expected, atol=1e-6)


def test_the_matrix_of_a_dense_mixer_is_what_its_hidden_units_take_from_each_token():
    architecture = an_architecture(a_stage(Dense(ratio=3)))
    network = a_network(architecture)
    (matrix,) = token_matrices(network, architecture, 16)
    assert matrix.weight.shape == (24, TOKENS)
    expected = one_hot_responses(network.blocks[0].token.mixer.expand)
    np.testing.assert_allclose(matrix.weight, expected, atol=1e-6)


def test_the_matrix_of_gating_is_what_the_gate_of_a_token_takes_from_each():
    architecture = an_architecture(a_stage(NoTokenMixer(), channel_mixer=Gating(ratio=2)))
    network = a_network(architecture)
    (matrix,) = token_matrices(network, architecture, 16)
    assert (matrix.name, matrix.outputs) == ("gating", "token")
    expected = one_hot_responses(network.blocks[0].channel.mixer.tokens)
    np.testing.assert_allclose(matrix.weight, expected, atol=1e-6)


def test_the_matrices_of_repmlp_hold_its_convolutions_too_one_for_each_share_set():
    architecture = an_architecture(a_stage(RepMlp(share_sets=2, kernel=3)))
    network = a_network(architecture)
    mixer = network.blocks[0].token.mixer

    def ungated(x: torch.Tensor) -> torch.Tensor:
        x = x.view(1, SIDE, SIDE, WIDTH)
        return (mixer(x) / mixer.gate(x)).flatten(1, 2)

    first, second = token_matrices(network, architecture, 16)
    assert (first.name, second.name) == ("repmlp 1/2", "repmlp 2/2")
    np.testing.assert_allclose(first.weight, one_hot_responses(ungated), atol=1e-5)  # channel 0 is of the first set
    assert not np.allclose(first.weight, second.weight)


def test_axial_mixing_has_two_matrices_over_the_positions_of_a_line():
    architecture = an_architecture(a_stage(Axial(local=0)))
    network = a_network(architecture)
    rows, columns = token_matrices(network, architecture, 16)
    assert (rows.name, columns.name, rows.outputs, columns.outputs) == ("axial rows", "axial columns", "line", "line")
    expected = one_hot_responses(network.blocks[0].token.mixer.rows, tokens=SIDE)
    np.testing.assert_allclose(rows.weight, expected, atol=1e-6)
    assert [image.shape for matrix in (rows, columns) for image in little_images(matrix)] == [(SIDE, SIDE)] * 2


def test_a_class_token_is_left_out():
    for mixer, outputs in ((Linear(), TOKENS), (Dense(ratio=3), 24)):
        architecture = an_architecture(a_stage(mixer), head=ClassTokenHead())
        network = a_network(architecture)
        (matrix,) = token_matrices(network, architecture, 16)
        assert matrix.weight.shape == (outputs, TOKENS)
        assert [image.shape for image in little_images(matrix)] == [(SIDE, SIDE)] * 9
        of_all = getattr(network.blocks[0].token.mixer, "linear", None) or network.blocks[0].token.mixer.expand
        assert matrix.weight[-1, 0] == of_all.weight[-1, 1]  # the class token comes first


def test_layers_are_counted_through_the_network_and_know_their_map():
    pyramid = an_architecture(
        a_stage(Axial(), depth=2), a_stage(DepthwiseConv()), a_stage(Linear(), depth=2), a_stage(Dense(), merge=False)
    )
    found = [(matrix.layer, matrix.name, matrix.side) for matrix in matrices_of(pyramid, 32)]
    axial = [(layer, name, 8) for layer in (1, 2) for name in ("axial rows", "axial columns")]
    assert found == [*axial, (4, "linear", 2), (5, "linear", 2), (6, "dense", 2)]


@pytest.mark.parametrize("mixer", [DepthwiseConv(), ExternalAttention(memory=4)])
def test_a_mixer_without_a_token_matrix_is_refused_in_a_sentence(mixer):
    architecture = an_architecture(a_stage(mixer))
    assert matrices_of(architecture) == []
    with pytest.raises(ArchitectureError, match=r"there is no token matrix to draw. It mixes tokens by"):
        check_matrices(architecture, 16)
    check_matrices(an_architecture(a_stage(mixer), a_stage(Linear())), 16)  # one is enough


# --- the picture ----------------------------------------------------------------------------------------------------


def a_matrix(weight: np.ndarray, *, layer: int = 1, outputs: str = "token", side: int = SIDE) -> TokenMatrix:
    return TokenMatrix(layer=layer, name="linear", outputs=outputs, weight=weight.astype(np.float32), side=side)


def test_nine_tokens_spread_over_the_map_are_drawn_and_fewer_where_there_are_fewer():
    sides = {side: rows_shown(a_matrix(np.zeros((side**2, side**2)), side=side)) for side in (1, 2, 3, 14)}
    assert [len(rows) for rows in sides.values()] == [1, 4, 9, 9]
    assert sides[14] == [y * 14 + x for y in (2, 7, 11) for x in (2, 7, 11)]


def test_the_hidden_units_of_largest_weights_are_drawn():
    weight = np.ones((20, TOKENS)) * np.array([i * 7 % 20 for i in range(20)])[:, None]
    shown = rows_shown(a_matrix(weight, outputs="hidden unit"))
    assert [int(weight[row, 0]) for row in shown] == [19, 18, 17, 16, 15, 14, 13, 12, 11]


def test_the_picture_shows_the_images_with_colours_symmetric_around_zero():
    weight = np.random.default_rng(0).normal(size=(TOKENS, TOKENS))
    figure = _drawn([a_matrix(weight), a_matrix(-3 * weight, layer=2)], "title", "subtitle")
    drawn = [axes.images[0] for axes in figure.axes]
    for row, image in zip(rows_shown(a_matrix(weight)), drawn[:9], strict=True):
        np.testing.assert_allclose(image.get_array(), weight[row].reshape(SIDE, SIDE), rtol=1e-6)
    limit = np.abs(weight[rows_shown(a_matrix(weight))]).max()
    assert [image.get_clim() for image in drawn[:9]] == [pytest.approx((-limit, limit))] * 9
    assert [image.get_clim() for image in drawn[9:18]] == [pytest.approx((-3 * limit, 3 * limit))] * 9
    assert {text.get_text() for text in figure.texts} >= {"title", "subtitle", "layer 2\nlinear, 4 x 4"}


def test_of_very_many_layers_some_stand_for_all_and_the_picture_says_so():
    matrices = [a_matrix(np.ones((1, 1)), layer=layer, side=1) for layer in range(1, 101)]
    figure = _drawn(matrices, "", "")
    labels = [text.get_text() for text in figure.texts if text.get_text().startswith("layer")]
    assert len(labels) == MOST_GROUPS
    assert (labels[0], labels[-1]) == ("layer 1\nlinear, 1 x 1", "layer 100\nlinear, 1 x 1")
    assert any(f"{MOST_GROUPS} of 100 matrices" in text.get_text() for text in figure.texts)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no kind of picture"):
        plot_mixing([a_matrix(np.eye(TOKENS))], tmp_path / "a.xyz", title="", subtitle="")
    with pytest.raises(UserError, match="there is no folder"):
        plot_mixing([a_matrix(np.eye(TOKENS))], tmp_path / "nowhere" / "a.png", title="", subtitle="")


# --- a study's trial ------------------------------------------------------------------------------------------------

TINY = """\
task: {classes: 10, resolution: 8}
space:
  layout:
    isotropic: {patch: 2, depth: 1, width: 8, token_mixer: {linear: {}, dense: {ratio: [1, 2]}, dwconv: {kernel: 3}}}
objectives:
  accuracy: {goal: maximize, worst: 10}
  params: {goal: minimize, worst: 10M}
fidelity: {dataset: digits, images: 300, epochs: 2, recipe: {batch: 50}}
search: {trials: 4, seed: 0}
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """Four trials that were really trained, on 8 x 8 digits."""
    monkeypatch.chdir(tmp_path)
    with Session(Path("studies/run1"), text=TINY, trials=4) as search:
        inline.run(search, device="cpu")
    return Path("studies/run1")


def trial_with(study: Path, mixer: str) -> int:
    rows = sqlite3.connect(study / "study.db").execute(
        "select t.number, a.json from trial t join architecture a on t.architecture = a.id order by t.number"
    )
    return next(number for number, text in rows if f'"kind": "{mixer}"' in text)


@pytest.mark.slow
def test_show_trains_the_trial_again_to_the_same_accuracy_and_draws_it(study, capsys):
    number = trial_with(study, "linear")
    for kept in (study / "weights").iterdir():  # as `search --keep none` does
        kept.unlink()
    before = {path: path.read_bytes() for path in study.iterdir() if path.is_file()}
    code, out, err = mlpspace(capsys, "show", study, number, "--mixing", "mixing.png")
    assert code == 0
    assert f"trial {number}" in out
    assert Path("mixing.png").read_bytes().startswith(b"\x89PNG")
    ((accuracy,),) = sqlite3.connect(study / "study.db").execute(
        "select value from measurement where trial = ? and metric = 'accuracy'", (number,)
    )
    assert f": {accuracy:.2f} %, {accuracy:.2f} % in the search" in err
    assert "The weights were not kept" in err
    assert "epoch 1 of 2" in err
    assert {path: path.read_bytes() for path in study.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_weights_that_were_kept_are_those_of_the_training_and_drawn_at_once(study, capsys):

    from mlpspace.retraining import retrained

    opened = Study(study)
    space = read_space(opened.space_text)
    kept = [int(file.name.partition("-")[0]) for file in (study / "weights").glob("*.pt")]
    said: list[str] = []
    trial = opened.trial(kept[0])
    by_hand = retrained(opened, trial, space, data={}, device_name="cpu", write=said.append)
    assert said == [f"trial {trial.number} with the weights that the search kept, after 2 epochs"]
    for file in (study / "weights").iterdir():
        file.unlink()
    again = retrained(opened, trial, space, data={}, device_name="cpu", write=said.append)
    for mine, theirs in zip(by_hand.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_what_cannot_be_drawn_is_told_before_anything_is_trained(study, capsys):
    linear, convolution = trial_with(study, "linear"), trial_with(study, "dwconv")
    for arguments, told in (
        ([linear, "--mixing", "mixing.xyz"], "is no kind of picture"),
        ([convolution, "--mixing", "mixing.png"], "It mixes tokens by dwconv"),
        ([linear, "--mixing", "mixing.png", "--data", "cifar10=there"], "uses digits, not cifar10"),
        ([linear, "--mixing", "mixing.png", "--device", "cudo"], 'device "cudo" is not known'),
    ):
        code, _, err = mlpspace(capsys, "show", study, *arguments)
        assert (code, "epoch" in err) == (2, False)
        assert told in err
