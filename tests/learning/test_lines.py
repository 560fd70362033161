import threading

import numpy as np
import pytest
import torch
from faults.tiny import tiny

import trajdesign as td
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.data.sources.phantom import phantom
from trajdesign.errors import ConfigError
from trajdesign.exporting.proof import export
from trajdesign.learning.line_choice import LineChoice
from trajdesign.learning.optimize import optimize
from trajdesign.learning.parameterizations.lines import Lines
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.spiral import spiral

ACQUISITION = Acquisition((0.2, 0.24), (32, 24), 6, 256, 8e-6)


def phantoms(acquisition, n=5):
    return phantom(acquisition, "train", n_train=n, n_val=1, n_test=1, n_coils=4)


def chosen(acquisition, noise=0.0, **options):
    lines = Lines(cartesian(acquisition, Scanner()), **options)
    lines.choose(phantoms(acquisition), noise)
    return lines


def rows_of(trajectory):
    """Return k_y of every control point (shot, point) as rows of the matrix, from 0."""
    acquisition = trajectory.acquisition
    return trajectory.points[..., 1].numpy() * acquisition.fov[1] + acquisition.matrix[1] // 2


@pytest.mark.parametrize("n_shots", [1, 6, 23, 24])
def test_each_shot_is_the_starts_on_a_row_of_its_own(n_shots):
    acquisition = Acquisition((0.2, 0.24), (32, 24), n_shots, 256, 8e-6)
    trajectory = chosen(acquisition, n_images=2, n_columns=4)()
    start = cartesian(acquisition, Scanner())
    assert torch.equal(trajectory.points[..., 0], start.points[..., 0])
    assert torch.equal(trajectory.gradient[..., 1], torch.zeros_like(trajectory.gradient[..., 1]))
    rows = rows_of(trajectory)
    np.testing.assert_allclose(rows, rows[:, :1].round() + 0 * rows, rtol=0, atol=1e-9)
    assert (np.diff(rows[:, 0]) > 0.5).all(), "all differ, and rise"
    assert rows.min() > -1e-9
    assert rows.max() < 23 + 1e-9


def test_the_rows_are_those_of_the_choice_on_images_spread_over_all():
    acquisition = ACQUISITION
    images = phantoms(acquisition)
    trajectory = chosen(acquisition, noise=0.1, n_images=3, n_columns=8, n_exchanges=2)()
    # a line has 8 times as many samples as pixels
    wanted = LineChoice(torch.stack([images[n] for n in (0, 2, 4)]), n_columns=8, noise=0.1 / 8**0.5)
    assert rows_of(trajectory)[:, 0].round().tolist() == wanted.choose(6, 2)


def test_the_choice_is_loaded_with_the_state():
    lines = chosen(ACQUISITION, n_images=2, n_columns=4)
    other = Lines(cartesian(ACQUISITION, Scanner()))
    other.load_state_dict(lines.state_dict())
    assert torch.equal(other().points, lines().points)
    assert not torch.equal(lines().points, lines.initial.points)


def test_a_run_keeps_its_rows_to_the_bit_and_its_file_plays_them(tmp_path):
    options = ["init.kind=cartesian", "parameterization.kind=lines", "parameterization.n_images=3"]
    results = optimize(tiny(*options, "acquisition.n_shots=31"), tmp_path / "run", device="cpu")
    assert results.limits["ok"]
    trajectory = td.load(tmp_path / "run")
    rows = rows_of(trajectory)
    whole = rows[:, 0].round()
    assert len(set(whole)) == 31
    assert whole.min() == 0, "also at the edge, where a projection would move it"
    np.testing.assert_allclose(rows, whole[:, None] + 0 * rows, rtol=0, atol=1e-9)
    facts = export(trajectory, tmp_path / "lines.seq")
    assert facts["max_k_error_fov"] < 1e-3
    played = np.load(tmp_path / "lines_k.npz")["k_adc"][..., 1] * 0.22 + 16
    np.testing.assert_allclose(played, whole[:, None] + 0 * played, rtol=0, atol=1e-3)


def test_a_choice_that_takes_long_is_said(tmp_path, monkeypatch):
    said, heard = [], threading.Event()

    def say(sentence):
        said.append(sentence)
        if "Choosing" in sentence:
            heard.set()

    monkeypatch.setattr(Lines, "choose", lambda *_: said.append(heard.wait(60)))
    config = tiny("init.kind=cartesian", "parameterization.kind=lines")
    optimize(config, tmp_path / "run", device="cpu", baseline=False, say=say)
    at = said.index("Choosing by the training images (parameterization.kind = lines) ...")
    assert said[at + 1] is True


@pytest.mark.parametrize(
    ("start", "options", "sentence"),
    [
        (spiral, {}, "starts from straight lines along x; take init.kind = 'cartesian' without a wave"),
        (lambda a, s: cartesian(a, s, wave=0.2), {}, "starts from straight lines"),
        (cartesian, {"n_images": 0}, "parameterization.n_images is 0; it lies between 1 and 4096"),
        (cartesian, {"n_columns": 5000}, "n_columns is 5000"),
        (cartesian, {"n_exchanges": -1}, "n_exchanges is -1; it lies between 0"),
    ],
)
def test_what_it_cannot_start_from_is_refused(start, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Lines(start(Acquisition(), Scanner()), **options)


def test_films_are_refused():
    acquisition = Acquisition((0.2, 0.2), (16, 16), 12, 100, 1e-5, n_frames=2)
    start = plugins.build("init", {"kind": "planes", "pattern": {"kind": "cartesian"}}, acquisition, Scanner())
    with pytest.raises(ConfigError, match="a film of 2 frames"):
        plugins.build("parameterization", {"kind": "lines"}, start)


def test_more_shots_than_rows_are_refused():
    acquisition = Acquisition((0.2, 0.24), (32, 24), 25, 256, 8e-6)
    with pytest.raises(ConfigError, match="25 shots are more than the 24 rows of the matrix"):
        Lines(cartesian(acquisition, Scanner()))
