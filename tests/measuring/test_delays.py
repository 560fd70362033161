"""Delays that were planted are found again, and that of a real echo-planar scan by its navigator."""

import math

import numpy as np
import pytest
import torch

from benchmarks.measured import ghost, navigator
from tests.real_data import real
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.encoding.nufft import nufft
from trajdesign.errors import ConfigError
from trajdesign.measuring import delays
from trajdesign.measuring.reconstruct import reconstruct

SETTINGS = ["acquisition.matrix=[48,48]", "acquisition.n_shots=24", "acquisition.n_samples=400", "init.kind=radial"]


def measured(*late):
    """Return k-space of a phantom on radial spokes whose axes are late, the k that is told, and the acquisition."""
    config = load_config(None, SETTINGS)
    acquisition = config.acquisition
    k = plugins.build("init", config.init, acquisition, config.scanner).k_adc
    acting = delays.delayed(k, acquisition.dwell, late)
    coils = plugins.build("data", {"kind": "phantom", "n_coils": 6}, acquisition, "test")[0].to(torch.complex128)
    kspace = nufft(coils, (acting * (2 * math.pi * acquisition.voxel[0])).flatten(0, 1))
    return kspace.view(6, 24, 400).to(torch.complex64), k, acquisition


def test_gradients_that_are_late_reach_the_same_k_later():
    time = torch.arange(50, dtype=torch.float64) * 4e-6
    k = torch.stack([time**2, 3 * time], dim=-1)[None] * 1e9
    found = delays.delayed(k, 4e-6, [3e-6, -1e-6])[0].numpy()
    assert found[:, 0] == pytest.approx(1e9 * (time.numpy() - 3e-6) ** 2, abs=1e-6)
    assert found[:, 1] == pytest.approx(3e9 * (time.numpy() + 1e-6), rel=1e-9)


@pytest.mark.parametrize("late", [(0.0, 0.0), (2e-6, 3e-6), (-3e-6, -1.5e-6)])
def test_planted_delays_are_found(late):
    kspace, k, acquisition = measured(*late)
    found = delays.found(kspace / kspace.abs().max(), k, acquisition, acquisition.dwell)
    assert found.by == "consistency"
    assert found.axes == pytest.approx(late, abs=0.2e-6)
    quick = delays.suspected(kspace / kspace.abs().max(), k, acquisition, acquisition.dwell)
    assert quick == pytest.approx(np.mean(late), abs=0.8e-6)
    assert (abs(quick) > delays.SUSPICIOUS) == any(late)


def test_parallel_lines_tell_no_delay():
    n = 32
    acquisition = Acquisition((0.2, 0.2), (n, n), n, n, 10e-6)
    line = (torch.arange(n, dtype=torch.float64) - n // 2) / 0.2
    k = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    image = torch.zeros(1, n, n, dtype=torch.complex128)
    image[0, 8:20, 10:25] = 1
    kspace = nufft(image, (k * (2 * math.pi * 0.2 / n)).flatten(0, 1)).view(1, n, n).to(torch.complex64)
    assert delays.suspected(kspace / 100, k, acquisition, 10e-6) is None
    assert delays.found(kspace / 100, k, acquisition, 10e-6).by == "nothing"


def test_a_real_echo_planar_image_loses_its_ghost(tmp_path):
    raw, seq = real("pulseq_raw/epi_basic_pe.dat"), real("pulseq_raw/epi_basic_pe.seq")
    told = navigator(real("pulseq_raw/epi_basic_pe0.seq"), real("pulseq_raw/epi_basic_pe0.dat"))
    before = reconstruct(raw, seq=seq, out=tmp_path / "before")
    after = reconstruct(raw, seq=seq, delay="auto", out=tmp_path / "after")
    assert after.facts.delay["by"] == "sharpness"
    assert after.facts.delay["axes"][0] == pytest.approx(told, abs=0.5e-6)
    assert ghost(before.images["adjoint"][0, 0]) > 0.5
    assert ghost(after.images["adjoint"][0, 0]) < 0.2
    given = reconstruct(raw, seq=seq, delay=after.facts.delay["axes"], out=tmp_path / "given")
    assert np.array_equal(given.images["adjoint"], after.images["adjoint"])
    with pytest.raises(ConfigError, match=r"at most 0.0001 s each"):
        reconstruct(raw, seq=seq, delay=[3.0, 3.0], out=tmp_path / "wrong")
