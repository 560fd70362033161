"""The patterns of mri-nufft, beside what mri-nufft itself makes of them."""

import sys

import mrinufft
import numpy as np
import pytest
from mrinufft.trajectories import utils
from scipy.spatial import cKDTree

from trajdesign import Acquisition, Scanner
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, LimitError, ResourceError

PLANE = Acquisition((0.24, 0.2), (64, 48), 4, 800, 4e-6)
VOLUME = Acquisition((0.24, 0.2, 0.22), (32, 24, 16), 6, 800, 4e-6)


def build(acquisition, pattern, options=None, scanner=None):
    table = {"kind": "mrinufft", "pattern": pattern, "options": options}
    return plugins.build("init", table, acquisition, scanner or Scanner())


def of_mri_nufft(acquisition, pattern, n_points, options):
    function = getattr(mrinufft, f"initialize_{acquisition.n_dims}D_{pattern}")
    samples = function(acquisition.n_shots, n_points, **options)
    return samples / max(0.5, np.abs(samples).max()) * np.array(acquisition.k_max)


@pytest.mark.parametrize(
    ("acquisition", "pattern", "options"),
    [
        (PLANE, "waves", {}),
        (PLANE, "lissajous", {}),
        (PLANE, "rings", {"nb_rings": 4}),
        (VOLUME, "floret", {}),
        (VOLUME, "wong_radial", {}),
    ],
)
def test_a_pattern_that_can_be_played_is_that_of_mri_nufft(acquisition, pattern, options):
    k = build(acquisition, pattern, options).points.numpy()
    np.testing.assert_allclose(k, of_mri_nufft(acquisition, pattern, k.shape[1], options), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("acquisition", "pattern", "options"),
    [
        (PLANE, "cones", {"nb_zigzags": 3}),
        (PLANE, "sinusoide", {"nb_zigzags": 2}),
        (VOLUME, "cones", {}),
        (VOLUME, "seiffert_spiral", {}),
    ],
)
def test_another_one_keeps_its_path_and_mri_nufft_finds_it_playable(acquisition, pattern, options):
    scanner = Scanner(max_gradient=40e-3, max_slew=60.0)
    trajectory = build(acquisition, pattern, options, scanner)
    path = of_mri_nufft(acquisition, pattern, 100_000, options)
    for shot, wanted in zip(trajectory.points.numpy(), path, strict=True):
        assert cKDTree(wanted).query(shot)[0].max() * max(acquisition.fov) < 0.05
        np.testing.assert_allclose(shot[[0, -1]], wanted[[0, -1]], rtol=0, atol=2e-3)
    hardware = utils.Hardware(gmax=40e-3, smax=60.0, grad_raster_time=10e-6)
    fov, matrix = ((*values, values[-1])[:3] for values in (acquisition.fov, acquisition.matrix))
    theirs = utils.Acquisition(fov=fov, img_size=matrix, hardware=hardware)
    samples = trajectory.points.numpy() / (2 * np.array(acquisition.k_max))
    checked = utils.compute_gradients_and_slew_rates(samples, theirs)
    assert utils.check_hardware_constraints(*checked, theirs)[0]


def test_what_mri_nufft_does_not_have_is_refused_with_a_remedy():
    with pytest.raises(ConfigError, match="no 2D pattern 'cone'; did you mean 'cones'"):
        build(PLANE, "cone")
    with pytest.raises(ConfigError, match="no 2D pattern 'floret'"):
        build(PLANE, "floret")
    with pytest.raises(ConfigError, match=r"cones with the options {'zigzags': 3}"):
        build(PLANE, "cones", {"zigzags": 3})
    with pytest.raises(ConfigError, match=r"rings with the options {}: missing a required argument: 'nb_rings'"):
        build(PLANE, "rings")
    with pytest.raises(ConfigError, match="turbine gives 2 shots, the acquisition has 6"):
        build(VOLUME, "turbine", {"Ns_readouts": 50, "Ns_transitions": 10, "nb_blades": 2})


def test_a_path_that_is_too_long_is_refused():
    with pytest.raises(LimitError, match=r"cones: a shot takes .* ms at best, the readout has 3.21 ms"):
        build(PLANE, "cones", {"nb_zigzags": 60})


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mrinufft", None)
    with pytest.raises(ResourceError, match=r'pip install -e "\.\[mrinufft\]"'):
        build(PLANE, "cones")
