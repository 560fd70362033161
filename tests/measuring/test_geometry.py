"""Where an image lies: points at known places, sampled by exact sums at any k, must come out where the view says."""

import json

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trajdesign.acquisition import Acquisition
from trajdesign.cli.app import app
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import delays, geometry, places
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.measuring.solving import encoding_at

N, FOV = 32, 0.2
VOXEL = FOV / N
ACQUISITION = Acquisition((FOV, FOV), (N, N), 24, 2 * N, 4e-6)


def spokes():
    """Return radial k (shot, sample, 2), 1/m, of uneven angles."""
    angle = np.pi * (np.arange(ACQUISITION.n_shots) + 0.1) / ACQUISITION.n_shots
    radius = np.linspace(-1, 1, ACQUISITION.n_samples, endpoint=False) * ACQUISITION.k_max[0]
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]


def sampled(k, points):
    """Return k-space (1, shot, sample) of points (x, y, strength), m, by exact sums."""
    return sum(strength * np.exp(-2j * np.pi * (k @ np.array(r)))[None] for *r, strength in points)


def written(path, points, k=None):
    """Write k-space of points at k, and beside it the trajectory's file of k; return their paths."""
    np.save(path / "x.npy", sampled(spokes() if k is None else k, points).astype(np.complex64))
    np.savez(path / "x_k.npz", k_adc=spokes(), fov_m=[FOV, FOV], matrix=[N, N], dwell_s=4e-6)
    return path / "x.npy", path / "x_k.npz"


def brightest(image):
    """Return the pixel (x, y) of the brightest point."""
    y, x = np.unravel_index(np.abs(image).argmax(), image.shape)
    return int(x), int(y)


@pytest.mark.parametrize("r", [(0.03, -0.045), (0.13, 0.02), (-0.0831, 0.0777)])
def test_what_lies_at_the_shift_comes_to_the_centre_and_does_not_alias(tmp_path, r):
    """Also from outside the field of view, and from between two pixels."""
    raw, k = written(tmp_path, [(*r, 1.0)])
    found = reconstruct(raw, k=k, out=tmp_path / "out", shift=r)
    middle, _ = written(tmp_path, [(0, 0, 1.0)])
    wanted = reconstruct(middle, k=k, out=tmp_path / "wanted")
    for name, image in found.images.items():
        assert brightest(image[0, 0]) == (N // 2, N // 2)
        assert np.abs(image - wanted.images[name]).max() < 1e-4 * np.abs(image).max()
    assert found.facts.shift == r


def test_the_image_is_turned_from_x_towards_y_about_the_shifted_centre(tmp_path):
    centre, arm = np.array([0.03, -0.02]), 8 * VOXEL
    raw, k = written(tmp_path, [(*centre, 2.0), (centre[0] + arm, centre[1], 1.0)])
    for angle, (dx, dy) in {90: (0, 8), -90: (0, -8), 180: (-8, 0), 270: (0, -8), 360: (8, 0)}.items():
        image = reconstruct(raw, k=k, out=tmp_path / f"{angle}", shift=centre, rotate=angle).images["adjoint"][0, 0]
        assert brightest(image) == (N // 2, N // 2)
        without = image * (np.hypot(*(np.indices(image.shape) - N // 2)) > 3)
        assert brightest(without) == (N // 2 + dx, N // 2 + dy)


def test_any_angle_is_exact(tmp_path):
    """An object that was turned before it was measured, by exact sums, is the one that is turned afterwards."""
    points = np.array([(0.02, 0.05, 1.0), (-0.04, 0.01, 2.0), (0.0, -0.03, 1.5)])
    angle = np.radians(25.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = np.concatenate([points[:, :2] @ rotation.T, points[:, 2:]], axis=1)
    k = torch.from_numpy(spokes())
    data = torch.from_numpy(sampled(spokes(), points).astype(np.complex64))[None, None]
    kspace, encodings = geometry.shown(data, [encoding_at(k, ACQUISITION)], geometry.View(rotation=25.0))
    at = geometry.k_of(encodings[0]).numpy()
    wanted = sampled(at, turned)  # what the turned object gives at the turned k
    assert np.abs(kspace[0, 0].numpy() - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_files_tell_where_a_shifted_and_turned_image_lies(tmp_path):
    r = np.array([0.04, -0.03])
    raw, k = written(tmp_path, [(*r, 1.0)])
    centre = r - [3 * VOXEL, -2 * VOXEL]
    for angle in (0, 90, 30):
        found = reconstruct(raw, k=k, out=tmp_path / f"{angle}", shift=centre, rotate=angle)
        file = nibabel.load(tmp_path / f"{angle}" / "adjoint.nii")
        if angle != 30:
            place = file.affine @ [*brightest(found.images["adjoint"][0, 0]), 0, 1]
        else:  # between pixels
            x, y = geometry.View(rotation=30).matrix @ (r - centre) / VOXEL + N // 2
            assert np.abs(np.array(brightest(found.images["adjoint"][0, 0])) - [x, y]).max() <= 0.5
            place = file.affine @ [x, y, 0, 1]
        # the axes of the gradients are to the left and to the back
        assert place[:2] == pytest.approx([-1e3 * r[0], -1e3 * r[1]], abs=1e-3)
        assert np.linalg.det(file.affine[:2, :2]) == pytest.approx((1e3 * VOXEL) ** 2, rel=1e-6)


def test_the_phase_is_that_of_the_delayed_k(tmp_path):
    """With gradients that are late, an object off the centre comes to it without an error in its phase."""
    late, r = (3e-6, 1.5e-6), (0.07, 0.05)
    encoding = encoding_at(torch.from_numpy(spokes()), ACQUISITION)
    found = Assigned(torch.zeros(1, 1, 1, *spokes().shape[:2], dtype=torch.complex64), ACQUISITION)
    actual = geometry.k_of(places.delayed(found, [encoding], late)[0]).numpy()
    objects = [(x, y, 1.0) for x in np.linspace(-0.05, 0.05, 5) for y in np.linspace(-0.05, 0.05, 5)]
    moved = [(x + r[0], y + r[1], strength) for x, y, strength in objects]
    raw, k = written(tmp_path, moved, actual)
    found = reconstruct(raw, k=k, out=tmp_path / "given", shift=r, delay=late)
    (tmp_path / "middle").mkdir()
    middle, _ = written(tmp_path / "middle", objects, actual)
    wanted = reconstruct(middle, k=k, out=tmp_path / "wanted", delay=late)
    assert np.abs(found.images["cg_sense"] - wanted.images["cg_sense"]).max() < 1e-4 * wanted.images["cg_sense"].max()
    tried = reconstruct(raw, k=k, out=tmp_path / "auto", shift=r, delay="auto").facts.delay
    assert tried["by"] == "consistency"
    assert tried["axes"] == pytest.approx(late, abs=0.3e-6)


def test_a_delay_is_suspected_off_the_centre_too():
    k, r = torch.from_numpy(spokes()), (0.07, 0.05)
    actual = delays.delayed(k, 4e-6, (1.5e-6, 1.5e-6)).numpy()
    points = [(x + r[0], y + r[1], 1.0) for x in np.linspace(-0.05, 0.05, 5) for y in np.linspace(-0.05, 0.05, 5)]
    data = geometry.centred(torch.from_numpy(sampled(actual, points).astype(np.complex64)), k, r)
    assert delays.suspected(data, k, ACQUISITION, 4e-6, r) == pytest.approx(1.5e-6, abs=0.5e-6)


def test_the_command_takes_both(tmp_path):
    raw, k = written(tmp_path, [(0.03, -0.02, 1.0)])
    command = ["reconstruct", str(raw), "--k", str(k), "--out", str(tmp_path / "out"), "--json"]
    found = CliRunner().invoke(app, [*command, "--shift", "-0.03,0.02", "--rotate", "-90"])
    told = json.loads(found.stdout)
    assert (told["shift"], told["rotate"]) == ([-0.03, 0.02], -90.0)
    refused = CliRunner().invoke(app, [*command, "--shift", "3;4"])
    assert isinstance(refused.exception, ConfigError)
    assert "two numbers in m" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shift": (30, 0)}, "at most 0.5 m"),
        ({"shift": (np.nan, 0)}, "at most 0.5 m"),
        ({"shift": (0.01,)}, "along x and y"),
        ({"rotate": 400}, "at most 360 degrees"),
        ({"rotate": np.nan}, "at most 360 degrees"),
    ],
)
def test_nonsense_is_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        reconstruct(tmp_path / "x.npy", k=tmp_path / "x_k.npz", out=tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_frames": [1, 2]}, "n_frames is int64"),
        ({"n_frames": 1.5}, "n_frames is float64"),
        ({"dwell_s": "4 us"}, "dwell_s is <U4"),
        ({"fov_m": [0.2 + 0j, 0.2]}, "fov_m is complex128"),
        ({"matrix": [32.5, 32]}, "matrix is float64"),
        ({"k_adc": 1e3 * spokes()}, "1e\\+03 times as far as its matrix"),
    ],
)
def test_a_file_of_k_that_is_none_is_refused(tmp_path, changes, words):
    raw, k = written(tmp_path, [(0, 0, 1.0)])
    np.savez(k, **{**np.load(k), **changes})
    with pytest.raises(InputError, match=words):
        reconstruct(raw, k=k, out=tmp_path / "out")


def test_an_oblong_field_of_view_is_turned_by_half_turns_alone():
    oblong = Acquisition((0.2, 0.1), (32, 16), 4, 8, 4e-6)
    geometry.View(rotation=-180).require_fits(oblong)
    with pytest.raises(ConfigError, match="is not square"):
        geometry.View(rotation=90).require_fits(oblong)
