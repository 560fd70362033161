"""Concomitant fields, against their formula and sums over pixels and samples, both written out here."""

import math

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.physics.response import Response
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points

GAMMA, TESLA, RASTER = {"1H": 42.577478461e6, "23Na": 7.0808493e7 / (2 * math.pi)}, 1.5, 10e-6
AXIAL, CORONAL, SAGITTAL = ([1, 0, 0], [0, 1, 0]), ([1, 0, 0], [0, 0, 1]), ([0, 1, 0], [0, 0, 1])
C, S = math.cos(0.5), math.sin(0.5)
OBLIQUE = [C, 0, -S], [S * S, C, S * C]


def table(axes=AXIAL, position=(0.01, -0.02, 0.05), **more):
    return {"kind": "concomitant", "tesla": TESLA, "axes": [*axes[0], *axes[1]], "position": list(position), **more}


def formula(gradient, place, axes):
    """B_c, T, at a place (3,), m, of gradients (..., 3), T/m, both along the axes of a sequence."""
    e1, e2 = map(np.array, axes)
    e3 = np.cross(e1, e2)
    x, y, z = place[0] * e1 + place[1] * e2 + place[2] * e3
    gx, gy, gz = (gradient[..., 0] * e1[i] + gradient[..., 1] * e2[i] + gradient[..., 2] * e3[i] for i in range(3))
    return (
        (gx**2 + gy**2) * z**2 / (2 * TESLA)
        + gz**2 * (x**2 + y**2) / (8 * TESLA)
        - gx * gz * x * z / (2 * TESLA)
        - gy * gz * y * z / (2 * TESLA)
    )


def wave(n_axes=2, n_shots=2, nucleus="1H", fov=(0.22, 0.2), matrix=(12, 10), strength=30e-3, n_samples=300, n_modes=4):
    scanner, acquisition = Scanner(nucleus=nucleus), Acquisition(fov, matrix, n_shots, n_samples, 4e-6)
    t = np.linspace(0, 1, n_points(acquisition, scanner) - 1)
    modes = np.stack([np.sin(np.pi * (m + 0.5) * t) for m in range(n_modes)])  # from rest: nothing leads to it
    g = np.einsum("sdm,mt->std", np.random.default_rng(3).normal(size=(n_shots, n_axes, n_modes)), modes)
    g *= strength / np.abs(g).max()
    steps = GAMMA[nucleus] * RASTER * np.concatenate([np.zeros((n_shots, 1, n_axes)), g.cumsum(axis=1)], axis=1)
    return Trajectory(torch.from_numpy(steps), acquisition, scanner), g


@pytest.mark.parametrize("axes", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
def test_value_and_slope_are_those_of_the_formula(axes):
    gradient, middle = np.random.default_rng(0).normal(size=(2, 50, 3)) * 20e-3, np.array([0.03, -0.02, 0.06])
    acting, field = plugins.build("response", table(axes, middle), torch.from_numpy(gradient), RASTER)
    assert field.numpy() == pytest.approx(formula(gradient, middle, axes), rel=1e-12, abs=1e-18)
    assert field.min() >= 0
    for axis, step in enumerate(np.eye(3) * 1e-3):  # of second order, so that differences are exact
        slope = (formula(gradient, middle + step, axes) - formula(gradient, middle - step, axes)) / 2e-3
        assert (acting.numpy() - gradient)[..., axis] == pytest.approx(slope, abs=1e-15)
    two, same = plugins.build("response", table(axes, middle), torch.from_numpy(gradient[..., :2].copy()), RASTER)
    flat = gradient * [1, 1, 0]
    acting, field = plugins.build("response", table(axes, middle), torch.from_numpy(flat), RASTER)
    assert torch.allclose(two, acting[..., :2], atol=1e-18)
    assert torch.allclose(same, field, atol=1e-20)


def test_the_size_that_the_docs_give():
    gradient = torch.full((400, 2), 40e-3, dtype=torch.float64) * torch.tensor([1.0, 0.0])
    _, field = plugins.build("response", {**table(position=(0, 0, 0.05)), "tesla": 3.0}, gradient, RASTER)
    assert GAMMA["1H"] * float(field[0]) == pytest.approx(28.4, abs=0.05)
    assert 2 * math.pi * GAMMA["1H"] * float(field[0]) * 4e-3 == pytest.approx(0.71, abs=0.01)


@pytest.mark.parametrize("nucleus", ["1H", "23Na"])
@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE])
def test_what_is_encoded_is_the_sum_over_pixels_and_samples(axes, nucleus):
    # at a distance from the isocentre far above the field of view, so that second order is little
    place, fov = np.array([0.3, -0.2, 0.4]), (4e-3, 5e-3)
    trajectory, g = wave(nucleus=nucleus, fov=fov, strength=60e-3, n_modes=3)
    response = Response(table(axes, place))
    acting, phase = response(trajectory), response.phase(trajectory)
    image = torch.randn(1, 1, 10, 12, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    found = (Encoding(acting, dtype=torch.float64).forward(image)[0, 0] * torch.exp(-1j * phase)).numpy()
    # the gradient in straight lines from the first control point on, in steps of a hundredth of the raster
    fine, last = RASTER / 100, float(trajectory.adc_times[-1])
    t = np.arange(-RASTER / 2, last + fine, fine) + fine / 2
    g = np.concatenate([g, np.zeros((*g.shape[:2], 1))], axis=-1)
    played = np.stack([[np.interp(t, np.arange(g.shape[1]) * RASTER, g[s, :, d]) for d in range(3)] for s in range(2)])
    at = np.floor((trajectory.adc_times.numpy() + RASTER / 2) / fine).astype(int)
    wanted = np.zeros((2, 300), complex)
    for y, x in np.ndindex(10, 12):
        r = np.array([(x - 6) * fov[0] / 12, (y - 5) * fov[1] / 10, 0])
        hertz = played.transpose(0, 2, 1) @ r + formula(played.transpose(0, 2, 1), place + r, axes)
        turns = np.pad(np.cumsum(hertz, axis=1) * fine * GAMMA[nucleus], ((0, 0), (1, 0)))
        wanted += complex(image[0, 0, y, x]) * np.exp(-2j * np.pi * turns[:, at])
    assert np.ptp(phase.numpy()) > 1
    assert np.linalg.norm(found - wanted) < 3e-3 * np.linalg.norm(wanted)
    moved = np.abs((acting.k_adc - trajectory.k_adc).numpy() * np.array(fov)).max()
    assert (moved > 1e-3) == (axes == OBLIQUE)
    # every sign: the phase or k of the opposite one shows
    for k, turned in ((acting, -phase), (trajectory if axes == OBLIQUE else acting, 0 * phase)):
        other = Encoding(k, dtype=torch.float64).forward(image)[0, 0] * torch.exp(-1j * turned)
        assert np.linalg.norm(other.numpy() - wanted) > 0.2 * np.linalg.norm(wanted)


def test_training_passes_gradients_through_the_slope_of_the_field():
    trajectory, _ = wave()
    response = Response(table(OBLIQUE, (0.1, 0.05, 0.2)))
    points = trajectory.points.clone().requires_grad_()
    direction = torch.randn(points.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def away(step):
        return float((response(trajectory.with_points(trajectory.points + step * direction)).k_adc ** 2).sum())

    (response(trajectory.with_points(points)).k_adc ** 2).sum().backward()
    assert float((points.grad * direction).sum()) == pytest.approx((away(1e-3) - away(-1e-3)) / 2e-3, rel=1e-7)
    without = trajectory.points.clone().requires_grad_()
    (trajectory.with_points(without).k_adc ** 2).sum().backward()
    assert float(((points.grad - without.grad) * direction).sum()) != pytest.approx(0, abs=1e-3)


def test_the_gradient_that_acts_makes_the_field(tmp_path):
    frequency = [0.0, 5e4]
    np.savez(
        tmp_path / "x.npz", frequency_hz=frequency,
        response=np.array([[0.8, 0.1, 0], [0, 1.1, 0], [0, 0, 1]])[..., None] * np.ones(2),
        b0=np.array([2e-3, -1e-3, 0])[:, None] * np.ones(2),
    )  # fmt: skip
    girf = {"kind": "girf", "path": str(tmp_path / "x.npz")}
    gradient = np.random.default_rng(0).normal(size=(40, 3)) * 10e-3
    truly = gradient @ np.array([[0.8, 0.1, 0], [0, 1.1, 0], [0, 0, 1]]).T
    place = (0.02, 0.03, 0.06)
    acting, field = plugins.build("response", table(OBLIQUE, place, system=girf), torch.from_numpy(gradient), RASTER)
    wanted, of_formula = plugins.build("response", table(OBLIQUE, place), torch.from_numpy(truly), RASTER)
    assert acting.numpy() == pytest.approx(wanted.numpy(), abs=1e-12)
    assert field.numpy() == pytest.approx(gradient @ [2e-3, -1e-3, 0] + of_formula.numpy(), abs=1e-15)
    assert of_formula.numpy() == pytest.approx(formula(truly, place, OBLIQUE), abs=1e-18)


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("axes", [AXIAL, CORONAL, OBLIQUE])
def test_what_is_left_out_is_the_second_order_of_the_formula(axes, n_axes):
    fov, matrix, place = (0.2, 0.24, 0.1)[:n_axes], (12, 10, 8)[:n_axes], np.array([0.02, 0.0, 0.05])
    trajectory, g = wave(n_axes, fov=fov, matrix=matrix)
    response = Response(table(axes, place))
    g = np.concatenate([g, np.zeros((*g.shape[:2], 3 - n_axes))], axis=-1)
    rest, last = 0.0, float(trajectory.adc_times[-1])
    t = np.arange(-RASTER / 2, last, RASTER / 50)
    g = np.stack([[np.interp(t, np.arange(g.shape[1]) * RASTER, g[s, :, d]) for d in range(3)] for s in range(2)])
    for signs in np.ndindex(*[2] * n_axes):
        away = np.pad((np.array(signs) - 0.5) * fov, (0, 3 - n_axes))
        # a quadratic form has no other second order than itself about 0
        rest = max(
            rest, 2 * np.pi * GAMMA["1H"] * RASTER / 50 * formula(g.swapaxes(1, 2), away, axes).sum(axis=1).max()
        )
    assert response.left_out(fov, lambda one: one.phase(trajectory)) == pytest.approx(rest, rel=2e-3, abs=1e-9)
    assert (rest < 1e-9) == (axes == AXIAL and n_axes == 2)
    assert (response.remark(trajectory) is None) == (rest < 0.1)
    if rest > 0.1:
        assert f"up to {rest:.1f}" in response.remark(trajectory) or f"up to {rest:.2g}" in response.remark(trajectory)
    assert Response({"kind": "delay", "delays": [1e-6]}).remark(trajectory) is None


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"tesla": 3000.0}, "up to 25 T"),
        ({"tesla": 0.0}, "up to 25 T"),
        ({"position": [0.0, 0.05]}, "three numbers"),
        ({"position": [0.0, 0.0, 50.0]}, "within"),
        ({"axes": [1.0, 0.0, 0.0]}, "two directions of three"),
        ({"axes": [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]}, "right angle"),
        ({"axes": [2.0, 0.0, 0.0, 0.0, 1.0, 0.0]}, "length 1"),
        ({"system": {"kind": "griff"}}, "unknown response 'griff'"),
    ],
)
def test_what_makes_no_sense_is_refused(more, match):
    with pytest.raises(ConfigError, match=match):
        plugins.build("response", {**table(), **more}, torch.zeros(4, 2, dtype=torch.float64), RASTER)
