import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import j1

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.psf import psf
from trajdesign.errors import InputError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectory import Trajectory, n_points

SCANNER = Scanner()


def dirichlet(x, n, step):
    """Mean of exp(2i pi k x) over n points k, `step` apart."""
    x = np.asarray(x, dtype=float)
    return np.abs(np.sin(n * np.pi * step * x) / (n * np.sin(np.pi * step * np.where(x == 0, 1e-9, x))))


def random_trajectory(fov, matrix, seed):
    acquisition = Acquisition(fov, matrix, n_shots=3, n_samples=40, dwell=5e-6)
    rng = np.random.default_rng(seed)
    shape = (3, n_points(acquisition, SCANNER), 2)
    k = rng.uniform(-1, 1, shape) * np.array(acquisition.k_max)
    return Trajectory(torch.from_numpy(k), acquisition, SCANNER, "random")


@pytest.mark.parametrize(("fov", "matrix"), [((0.2, 0.2), (16, 16)), ((0.24, 0.18), (12, 17))])
def test_images_are_the_exact_sum_over_the_samples(fov, matrix):
    trajectory = random_trajectory(fov, matrix, seed=1)
    weights = torch.from_numpy(np.random.default_rng(2).uniform(0.1, 1, (3, 40)))
    report = psf(trajectory, weights)
    k = trajectory.k_adc.numpy().reshape(-1, 2)
    w = weights.numpy().ravel() / weights.sum().item()
    for image, step in ((report.image, report.image_step), (report.detail, report.detail_step)):
        y, x = (np.arange(n) - n // 2 for n in image.shape)
        exact = np.abs(
            np.einsum(
                "jy,jx,j->yx",
                np.exp(2j * np.pi * np.outer(k[:, 1], y * step[1])),
                np.exp(2j * np.pi * np.outer(k[:, 0], x * step[0])),
                w,
            )
        )
        np.testing.assert_allclose(image, exact, atol=1e-9)
    assert report.image.shape == (8 * matrix[1], 8 * matrix[0])
    np.testing.assert_allclose(np.array(report.image_step), np.array(fov) / np.array(matrix) / 4)
    for axis, line in enumerate(report.profiles):
        assert len(line) * report.profile_step[axis] == pytest.approx(2 * fov[axis])
        at = (np.arange(len(line)) - len(line) // 2) * report.profile_step[axis]
        np.testing.assert_allclose(line, np.abs(np.exp(2j * np.pi * np.outer(at, k[:, axis])) @ w), atol=1e-9)


def test_full_cartesian_sampling_is_the_dirichlet_kernel():
    # the y axis has fewer, larger voxels than the x axis
    acquisition = Acquisition((0.2, 0.24), (64, 48), n_shots=48, n_samples=256)
    trajectory = cartesian(acquisition, SCANNER)
    step_x = float(trajectory.k_adc[0, 1, 0] - trajectory.k_adc[0, 0, 0])
    report = psf(trajectory, torch.ones(48, 256))
    for got, n, step in ((report.fwhm_x, 256, step_x), (report.fwhm_y, 48, 1 / 0.24)):
        half = brentq(lambda x, n=n, step=step: dirichlet(x, n, step) - 0.5, 1e-6, 1 / (n * step))
        assert got == pytest.approx(2 * half, rel=2e-4)
        assert got == pytest.approx(1.207 / (n * step), rel=2e-3)
    lobes = [
        -minimize_scalar(
            lambda x, n=n, step=step: -float(dirichlet(x, n, step)),
            bounds=(1.05 / (n * step), 1.95 / (n * step)),
        ).fun
        for n, step in ((256, step_x), (48, 1 / 0.24))
    ]
    assert report.peak_side_lobe == pytest.approx(20 * math.log10(max(lobes)), abs=0.01)
    assert report.peak_side_lobe == pytest.approx(-13.26, abs=0.05)


def test_integrated_side_lobe_ratio_is_that_of_the_kernel_on_a_fine_grid():
    acquisition = Acquisition((0.2, 0.2), (32, 32), n_shots=32, n_samples=128)
    trajectory = cartesian(acquisition, SCANNER)
    report = psf(trajectory, torch.ones(32, 128))
    step_x = float(trajectory.k_adc[0, 1, 0] - trajectory.k_adc[0, 0, 0])
    grid = (np.arange(4000) - 2000 + 0.5) / 4000 * 0.2
    energy = np.outer(dirichlet(grid, 32, 5.0), dirichlet(grid, 128, step_x)) ** 2
    radius = np.hypot(*np.meshgrid(grid, grid)) / (0.2 / 32)
    inside = energy[radius <= report.main_lobe].sum()
    assert report.integrated_side_lobe == pytest.approx(10 * math.log10(energy.sum() / inside - 1), abs=0.02)


def test_a_filled_disc_is_the_airy_pattern():
    acquisition = Acquisition((0.22, 0.22), (64, 64), n_shots=128, n_samples=500)
    trajectory = radial(acquisition, SCANNER)
    k = trajectory.k_adc.norm(dim=-1)
    report = psf(trajectory, k)
    edge = float(k.max())

    def airy(r):
        return 2 * abs(j1(2 * np.pi * edge * r)) / (2 * np.pi * edge * r)

    fwhm = 2 * brentq(lambda r: airy(r) - 0.5, 1e-6, 0.6 / edge)
    for width in (report.fwhm_x, report.fwhm_y, report.fwhm_radial):
        assert width == pytest.approx(fwhm, rel=5e-3)
    first_zero = 3.8317 / (2 * np.pi * edge)
    assert report.main_lobe * 0.22 / 64 == pytest.approx(first_zero, rel=0.03)
    assert report.peak_side_lobe == pytest.approx(-17.57, abs=0.2)
    np.testing.assert_allclose(report.radial[0], 1, atol=1e-9)
    inner = slice(1, int(report.main_lobe / report.radius[1]))
    expected = [airy(r * 0.22 / 64) for r in report.radius[inner]]
    np.testing.assert_allclose(report.radial[inner], expected, atol=5e-3)


def test_the_mean_over_directions_is_that_of_exact_sums_from_the_peak_to_half_the_field_of_view():
    trajectory = radial(Acquisition((0.22, 0.22), (64, 64), n_shots=128, n_samples=500), SCANNER)
    k = trajectory.k_adc.norm(dim=-1)
    edge = float(k.max())
    distance, mean, largest = psf(trajectory, k).over_directions()
    assert (np.diff(distance) > 0).all()
    assert distance[0] == 0
    assert 0.108 < distance[-1] < 0.11
    # a filled disc: the Airy pattern, with steps of a part of a voxel near the peak
    near = distance < 4 * 0.22 / 64
    assert np.diff(distance[near]).max() < 0.22 / 64 / 16
    at = 2 * np.pi * edge * np.where(distance == 0, 1e-9, distance)
    airy = np.abs(2 * j1(at) / at)
    np.testing.assert_allclose(mean[near], airy[near], atol=5e-3)
    assert (largest >= mean - 1e-12).all()


def test_half_the_lines_alias_at_full_strength_at_half_the_field_of_view():
    report = psf(cartesian(Acquisition(matrix=(64, 64), n_shots=32), SCANNER), torch.ones(32, 1000))
    assert report.peak_side_lobe == pytest.approx(0, abs=1e-6)


def test_one_line_has_no_width_across_it():
    report = psf(cartesian(Acquisition(matrix=(64, 64), n_shots=1), SCANNER))
    assert report.fwhm_y == math.inf
    assert report.fwhm_x == pytest.approx(1.207 * 0.22 / 64, rel=0.01)
    assert report.to_dict()["fwhm_y_m"] is None


def test_the_numbers_are_json_with_units_in_the_keys():
    report = psf(radial(Acquisition(matrix=(32, 32)), SCANNER))
    numbers = json.loads(json.dumps(report.to_dict()))
    assert numbers["name"] == "radial"
    assert set(numbers) == {
        "name", "voxel_x_m", "voxel_y_m", "fwhm_x_m", "fwhm_y_m", "fwhm_radial_m",
        "main_lobe_voxels", "peak_side_lobe_db", "integrated_side_lobe_db",
        "echo_time_s", "echo_time_spread_s", "echo_k_fov",
    }  # fmt: skip
    assert numbers["fwhm_x_m"] == report.fwhm_x


def test_the_sum_of_the_weights_does_not_matter_and_the_default_is_near_the_ramp():
    trajectory = radial(Acquisition(matrix=(64, 64), n_shots=101), SCANNER)
    ramp = trajectory.k_adc.norm(dim=-1)
    first, scaled, default = (psf(trajectory, w) for w in (ramp, 7 * ramp, None))
    assert first.fwhm_x == pytest.approx(scaled.fwhm_x, rel=1e-9)
    assert default.fwhm_x == pytest.approx(first.fwhm_x, rel=0.02)


def test_turning_the_pattern_swaps_the_axes():
    trajectory = random_trajectory((0.2, 0.2), (16, 16), seed=5)
    swapped = dataclasses.replace(trajectory, points=trajectory.points.flip(-1))
    first, second = psf(trajectory, torch.ones(3, 40)), psf(swapped, torch.ones(3, 40))
    assert (first.fwhm_x, first.fwhm_y) == pytest.approx((second.fwhm_y, second.fwhm_x))
    assert first.peak_side_lobe == pytest.approx(second.peak_side_lobe, abs=0.01)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (torch.ones(8, 999), r"shape \(8, 999\).*\(8, 1000\)"),
        (torch.full((8, 1000), math.nan), "finite"),
        (torch.zeros(8, 1000), "positive sum"),
    ],
)
def test_unusable_weights_are_refused(weights, sentence):
    with pytest.raises(InputError, match=sentence):
        psf(radial(Acquisition(), SCANNER), weights)


def test_a_volume_shows_the_plane_through_the_point_and_the_width_along_z():
    # by sums over the samples, with the weights that it takes
    trajectory = radial(Acquisition((0.2, 0.16, 0.12), (16, 16, 16), 40, 200), SCANNER)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(40, 200, generator=generator, dtype=torch.float64)
    report = psf(trajectory, weights)
    k, shares = trajectory.k_adc.flatten(0, 1), (weights / weights.sum()).flatten()
    x = (torch.arange(report.image.shape[1], dtype=torch.float64) - report.image.shape[1] // 2) * report.image_step[0]
    y = (torch.arange(report.image.shape[0], dtype=torch.float64) - report.image.shape[0] // 2) * report.image_step[1]
    rows, columns = (
        torch.polar(torch.ones(()).double(), 2 * math.pi * r[:, None] * k[:, i]) for i, r in ((1, y), (0, x))
    )
    wanted = ((rows * shares) @ columns.T).abs()
    np.testing.assert_allclose(report.image, wanted.numpy(), atol=1e-10)

    def along_z(z):
        return float((shares * torch.polar(torch.ones(()).double(), 2 * math.pi * k[:, 2] * z)).sum().abs()) - 0.5

    half = brentq(along_z, 0, 0.12 / 16 * 2)
    assert report.fwhm_z == pytest.approx(2 * half, rel=2e-3)
    assert report.to_dict()["fwhm_z_m"] == report.fwhm_z
    assert dict(report.rows())["voxel x, y, z (mm)"] == "12.500, 10.000, 7.500"


def test_a_film_shows_its_first_frame():
    acquisition = Acquisition((0.2, 0.2), (32, 32), 12, 200, 4e-6, 3)
    film = Trajectory(radial(dataclasses.replace(acquisition, n_frames=1), SCANNER).points, acquisition, SCANNER)
    one = dataclasses.replace(
        film, points=film.points[:4], acquisition=dataclasses.replace(acquisition, n_shots=4, n_frames=1)
    )
    np.testing.assert_array_equal(psf(film).image, psf(one).image)
    assert psf(film).peak_side_lobe == psf(one).peak_side_lobe
