"""The whole response of a gradient system: cross terms, the field at the isocentre and its phase, delays."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.real_data import real
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError
from trajdesign.physics.response import Response
from trajdesign.scanner import Scanner

RASTER = 10e-6
FREQUENCY = np.linspace(0, 50e3, 5001)


def write(path, response, b0=None, frequency=FREQUENCY):
    np.savez(path, frequency_hz=frequency, response=response, **({} if b0 is None else {"b0": b0}))
    return {"kind": "girf", "path": str(path)}


def measured(seed=0):
    """Return a response (3, 3, n) and a field's (3, n), m, smooth over frequency and unlike each other."""
    rng = np.random.default_rng(seed)
    delays, corners = rng.uniform(5e-6, 40e-6, (4, 3)), rng.uniform(1e4, 4e4, (4, 3))
    curves = np.exp(-2j * np.pi * FREQUENCY * delays[..., None]) / (1 + (FREQUENCY / corners[..., None]) ** 2)
    sizes = rng.normal(0, 0.1, (3, 3)) + np.eye(3)
    return sizes[..., None] * curves[:3], rng.normal(0, 5e-3, (3, 1)) * curves[3]


def bursts(n=512):
    """Return a gradient (sample, 3) that is nothing far from the middle."""
    t = np.arange(n) * RASTER
    envelope = np.exp(-(((t - 2.5e-3) / 0.4e-3) ** 2)) * 10e-3
    return t, np.stack([envelope * np.cos(2 * np.pi * f * t + f) for f in (1e3, 2e3, 3e3)], axis=-1)


def test_what_acts_is_the_sum_over_axes_and_frequencies(tmp_path):
    response, b0 = measured()
    t, played = bursts()
    gradient, field = plugins.build(
        "response", write(tmp_path / "x.npz", response, b0), torch.from_numpy(played)[None], RASTER
    )
    # two direct sums: over time to the spectrum of each axis, over frequency back
    few, step = slice(None, None, 20), FREQUENCY[20] * RASTER
    spectrum = np.exp(-2j * np.pi * np.outer(FREQUENCY[few], t)) @ played
    back = np.exp(2j * np.pi * np.outer(t[150:350:9], FREQUENCY[few]))
    back[:, [0, -1]] /= 2  # which occur once, all others with both signs
    wanted = [2 * step * (back @ sum(row[i, few] * spectrum[:, i] for i in range(3))).real for row in (*response, b0)]
    assert gradient[0, 150:350:9].numpy() == pytest.approx(np.stack(wanted[:3], axis=-1), abs=2e-6)
    assert field[0, 150:350:9].numpy() == pytest.approx(wanted[3], abs=2e-8)
    assert np.abs(wanted[3]).max() > 1e-5


def test_a_constant_response_is_a_product(tmp_path):
    response, b0 = np.array([[1.0, 0.1, 0], [-0.2, 0.9, 0], [0, 0, 1]]), np.array([2e-3, -1e-3, 0])
    table = write(tmp_path / "x.npz", *(np.repeat(part[..., None], 5001, -1) for part in (response, b0)))
    scanner, acquisition = Scanner(), Acquisition(n_shots=2, n_samples=200)
    spiral = plugins.build("init", {"kind": "spiral"}, acquisition, scanner)
    acting = Response(table)(spiral)  # of two axes, the first two of three
    start = spiral.points[:, :1]
    assert torch.allclose(acting.points - start, (spiral.points - start) @ torch.tensor(response[:2, :2]).T, atol=1e-9)
    # field is b0 . g, so turns are b0 . k, from the first control point on
    wanted = 2 * np.pi * (spiral.k_adc - start) @ torch.tensor(b0[:2])
    assert torch.allclose(Response(table).phase(spiral), wanted, atol=1e-10)
    assert Response({}).phase(spiral) is None
    assert Response({"kind": "delay", "delays": [1e-6]}).phase(spiral) is None


def test_diagonals_alone_say_the_same_as_a_matrix_of_them(tmp_path):
    response, b0 = measured()
    diagonal, whole = np.einsum("aaf->af", response), np.einsum("aaf,ab->abf", response, np.eye(3))
    gradient = torch.from_numpy(bursts()[1])
    for of_field in (None, b0):
        found = plugins.build("response", write(tmp_path / "d.npz", diagonal, of_field), gradient, RASTER)
        wanted = plugins.build("response", write(tmp_path / "w.npz", whole, of_field), gradient, RASTER)
        for one, other in zip(*([x] if of_field is None else x for x in (found, wanted)), strict=True):
            assert torch.allclose(one, other, atol=1e-15)


def test_training_passes_gradients_through_cross_terms(tmp_path):
    table = write(tmp_path / "x.npz", *measured())
    spiral = plugins.build("init", {"kind": "spiral"}, Acquisition(n_shots=1, n_samples=200), Scanner())
    points = spiral.points.clone().requires_grad_()
    reached = Response(table)(spiral.with_points(points)).k_adc[0, 80, 0]
    slope = torch.autograd.grad(reached, points)[0][0, 34, 1]  # of x by y
    moved = spiral.points.clone()
    moved[0, 34, 1] += 1.0
    step = Response(table)(spiral.with_points(moved)).k_adc[0, 80, 0] - reached.detach()
    assert float(slope) == pytest.approx(float(step), rel=1e-6)
    assert abs(float(slope)) > 1e-4


def test_a_delay_is_the_same_straight_lines_later():
    t, played = bursts()
    delays = [13e-6, -4e-6, 30e-6]
    found = plugins.build("response", {"kind": "delay", "delays": delays}, torch.from_numpy(played)[None], RASTER)[0]
    wanted = np.stack([np.interp(t - late, t, axis) for late, axis in zip(delays, played.T, strict=True)], axis=-1)
    assert found.numpy() == pytest.approx(wanted, abs=1e-15)
    one = plugins.build("response", {"kind": "delay", "delays": [13e-6]}, torch.from_numpy(played), RASTER)
    assert torch.equal(one[:, 0], found[:, 0])


@pytest.mark.parametrize(
    ("delays", "match"), [([1e-6, 2e-6], "2 delays; give one for all"), ([2.0], "at most"), ([], "0 delays")]
)
def test_impossible_delays(delays, match):
    with pytest.raises(ConfigError, match=match):
        plugins.build("response", {"kind": "delay", "delays": delays}, torch.zeros(10, 3), RASTER)


@pytest.mark.parametrize(
    ("response", "b0", "match"),
    [
        (np.ones((2, 2, 10)), None, "has 2 axes; the gradient has 3"),
        (np.ones((3, 4, 10)), None, "3 axes act and 4 play"),
        (np.ones((3, 10)), np.ones((2, 10)), r"b0 has the shape \(2, 10\)"),
        (np.ones((3, 10)), np.full((3, 10), np.nan), "finite"),
        (np.ones((3, 10)), np.full((3, 10), 127.0), "b0 reaches 127 m"),
        (np.ones((3, 10)), np.full((3, 10), "a"), "b0 is <U1"),
    ],
)
def test_impossible_files(tmp_path, response, b0, match):
    table = write(tmp_path / "x.npz", response, b0, np.linspace(0, 1e4, 10))
    with pytest.raises(InputError, match=match):
        plugins.build("response", table, torch.zeros(10, 3, dtype=torch.float64), RASTER)


def test_the_recipe_of_the_docs_makes_what_its_project_predicts(tmp_path, monkeypatch):
    shutil.copy(real("girf/bonn_girf_10us.npy"), tmp_path / "girf_10us.npy")
    page = (Path(__file__).parents[2] / "docs" / "scanner.md").read_text()
    [recipe] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "girf_10us" in block]
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    t, played = bursts(10_000)  # as long as that response, which rings for long
    table = {"kind": "girf", "path": str(tmp_path / "girf.npz")}
    gradient, field = plugins.build("response", table, torch.from_numpy(played), RASTER)
    # as that project's code has it: a product of whole spectra, field and x, y, z in the order of the second axis
    whole = np.fft.ifftshift(np.load("girf_10us.npy"), axes=-1)
    spectrum = np.fft.fft(played.T, whole.shape[-1])
    wanted = np.fft.ifft(np.einsum("iof,if->of", whole, spectrum))[:, : len(t)].real
    assert field.numpy() == pytest.approx(wanted[0], abs=2e-3 * np.abs(wanted[0]).max())
    assert gradient.numpy() == pytest.approx(wanted[1:].T, abs=2e-5 * np.abs(played).max())
    assert np.abs(wanted[0]).max() > 1e-6  # T, 40 Hz
    crossed = np.einsum("aof,af->of", whole[:, 1:] * (1 - np.eye(3))[..., None], spectrum)
    assert np.abs(np.fft.ifft(crossed)).max() > 1e-3 * np.abs(played).max()
