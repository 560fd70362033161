from dataclasses import replace

import numpy as np
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.physics import limits
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.file import file
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectories.retiming import path_residual

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


def test_a_path_is_played_from_rest_to_rest_in_the_readout(saved):
    trajectory, path = saved
    scanner, acquisition = Scanner(gradient_raster=20e-6, max_slew=150.0), replace(ACQUISITION, n_samples=900)
    found = plugins.build("init", {"kind": "file", "path": path, "retime": True}, acquisition, scanner)
    assert (found.acquisition, found.scanner, found.name) == (acquisition, scanner, "k")
    assert all(finding.ok for finding in limits.check(found))
    played = (trajectory.points[:, 1:] + trajectory.points[:, :-1]) / 2
    for end in (0, -1):
        np.testing.assert_allclose(found.points[:, end], played[:, end], atol=1e-9)
        assert found.gradient[:, end].abs().max() < 1e-12
    assert path_residual(found, played) < 1e-2
    with pytest.raises(
        LimitError, match=r"k: the path takes \d+ samples of 4 us at best, the readout has 600; give it"
    ):
        file(ACQUISITION, scanner, path=path, retime=True)
    with pytest.raises(ConfigError, match=r"k\.npz has acquisition\.n_shots = 4, the config 8"):
        file(replace(acquisition, n_shots=8), scanner, path=path, retime=True)
    with pytest.raises(ConfigError, match=r"k\.npz has acquisition\.fov"):
        file(replace(acquisition, fov=(0.2, 0.2)), scanner, path=path, retime=True)
    with pytest.raises(ConfigError, match="leave k_unit out"):
        file(acquisition, scanner, path=path, k_unit="1/m", retime=True)


def test_a_path_without_times_is_played(tmp_path):
    # a circle of 40 points, in cycles per field of view: no scanner plays it as it stands
    angle = np.linspace(0, 2 * np.pi, 41)
    k = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None].repeat(4, axis=0)
    np.save(tmp_path / "ring.npy", k)
    table = {"kind": "file", "path": str(tmp_path / "ring.npy"), "k_unit": "1/fov"}
    found = plugins.build("init", table | {"retime": True}, ACQUISITION, Scanner())
    assert np.abs(np.linalg.norm(found.k_adc.numpy(), axis=-1) * 0.22 - 20).max() < 1e-2
    with pytest.raises(ConfigError, match=r"acquisition\.n_shots = 4, the config 2"):
        plugins.build("init", table | {"retime": True}, replace(ACQUISITION, n_shots=2), Scanner())
