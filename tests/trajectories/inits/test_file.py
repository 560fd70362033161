from dataclasses import replace

import numpy as np
import pytest

from trajdesign import plugins
from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.file import file
from trajdesign.trajectories.inits.spiral import spiral

ACQUISITION = Acquisition(matrix=(64, 48), n_shots=4, n_samples=600)


@pytest.fixture
def saved(tmp_path):
    """Return a trajectory, and the file that holds it."""
    trajectory = spiral(ACQUISITION, Scanner())
    trajectory.with_points(trajectory.points, "my spiral").save(tmp_path / "k.npz")
    return trajectory, str(tmp_path / "k.npz")


def test_a_file_gives_its_control_points_back(saved):
    trajectory, path = saved
    again = plugins.build("init", {"kind": "file", "path": path}, ACQUISITION, Scanner())
    assert again.points.equal(trajectory.points)
    assert again.name == "my spiral"
    assert (again.acquisition, again.scanner) == (ACQUISITION, Scanner())


def test_another_scanner_is_taken_if_it_can_play_the_file(saved):
    path = saved[1]
    stronger = Scanner(max_slew=250.0, limit_norm="axis")
    assert file(ACQUISITION, stronger, path=path).scanner == stronger
    with pytest.raises(LimitError, match=r"k\.npz: a shot needs 19\d.* T/m/s, limit 150 T/m/s; take the scanner"):
        file(ACQUISITION, Scanner(max_slew=150.0), path=path)
    with pytest.raises(LimitError, match=r"mT/m, limit 10 mT/m; take the scanner .* trajdesign\.project"):
        file(ACQUISITION, Scanner(max_gradient=10e-3), path=path)


@pytest.mark.parametrize(
    "change",
    [
        {"fov": (0.22, 0.24)},
        {"matrix": (64, 64)},
        {"n_shots": 8},
        {"n_samples": 500},
        {"dwell": 5e-6},
        {"fov": (0.2,) * 3, "matrix": (32,) * 3},
    ],
)
def test_another_acquisition_is_refused(saved, change):
    with pytest.raises(ConfigError, match=rf"k\.npz has acquisition\.{next(iter(change))} = .*, the config .*the same"):
        file(replace(ACQUISITION, **change), Scanner(), path=saved[1])


def test_another_raster_is_refused(saved):
    with pytest.raises(ConfigError, match=r"scanner\.gradient_raster = 1e-05, the config 4e-06"):
        file(ACQUISITION, Scanner(gradient_raster=4e-6), path=saved[1])


def test_what_is_no_file_of_trajdesign_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        file(ACQUISITION, Scanner(), path=str(tmp_path / "none.npz"))
    np.savez(tmp_path / "other.npz", k=np.zeros((4, 600, 2)))
    with pytest.raises(ConfigError, match=r"other\.npz does not tell its k unit"):
        file(ACQUISITION, Scanner(), path=str(tmp_path / "other.npz"))


def test_the_path_must_be_given():
    with pytest.raises(ConfigError, match=r"init\.path"):
        plugins.resolve("init", {"kind": "file"})
