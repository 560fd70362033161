"""Spectra against sines, plain FFTs, scipy and pypulseq."""

import math

import numpy as np
import pypulseq
import pytest
import scipy.signal
import torch
from pypulseq.utils.siemens.asc_to_hw import asc_to_acoustic_resonances
from pypulseq.utils.siemens.readasc import readasc

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError
from trajdesign.physics import resonances as acoustics
from trajdesign.physics.constraints.acoustics import Acoustics
from trajdesign.physics.resonances import Band
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

RASTER = 10e-6


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=0.01, size=shape))


def sine(frequency, n, amplitude=0.02):
    """Return a sine along x (time, axis), at the raster centres."""
    x = amplitude * torch.sin(2 * math.pi * frequency * RASTER * (torch.arange(n, dtype=torch.float64) + 0.5))
    return torch.stack([x, 0 * x], dim=-1)


def resonances(name, bands):
    """Return the lines of an .asc file that name acoustic resonances."""
    return "".join(f"{name}Frequency[{i}] = {f}\n{name}Bandwidth[{i}] = {b}\n" for i, (f, b) in enumerate(bands))


# --- a train of shots ---


def test_a_train_has_the_lines_of_its_fourier_series():
    shots, n_tr = noise(3, 400, 2), 1000
    waiting = torch.zeros(3, n_tr - 400, 2, dtype=torch.float64)
    whole = torch.cat([shots, waiting], dim=1).flatten(0, 1)
    lines = 2 / len(whole) * np.abs(np.fft.rfft(whole.numpy(), axis=0))
    harmonics = np.fft.rfftfreq(len(whole), RASTER)
    some = slice(1, 60)
    found = acoustics.train_spectrum(shots, RASTER, n_tr * RASTER, torch.from_numpy(harmonics[some]))
    np.testing.assert_allclose(found.numpy(), lines[some], rtol=1e-10, atol=1e-15)


def test_a_sine_has_its_amplitude_at_its_frequency():
    shot = sine(1000.0, 500)[None]
    at, beside = torch.tensor([1000.0]), torch.tensor([1200.0])
    assert float(acoustics.train_spectrum(shot, RASTER, 5e-3, at)[0, 0]) == pytest.approx(0.02)
    assert float(acoustics.train_spectrum(shot, RASTER, 5e-3, beside)[0, 0]) == pytest.approx(0, abs=1e-12)
    # half of the time silent: half of the amplitude
    assert float(acoustics.train_spectrum(shot, RASTER, 10e-3, at)[0, 0]) == pytest.approx(0.01)
    with pytest.raises(ConfigError, match="shorter than a shot"):
        acoustics.train_spectrum(shot, RASTER, 4e-3, at)


def test_no_train_exceeds_the_strongest_of_its_shots():
    shots, frequencies = noise(5, 300, 2), torch.linspace(200, 2000, 50)
    train = acoustics.combined(acoustics.train_spectrum(shots, RASTER, 8e-3, frequencies))
    alone = acoustics.combined(acoustics.train_spectrum(shots[:, None], RASTER, 8e-3, frequencies))
    assert alone.shape == (5, 50)
    assert (train <= alone.amax(dim=0)).all()
    # equal shots reach it at the multiples of 1 / TR
    equal = shots[:1].expand(5, -1, -1)
    lines = torch.tensor([125.0, 1000.0])
    torch.testing.assert_close(
        acoustics.train_spectrum(equal, RASTER, 8e-3, lines), acoustics.train_spectrum(shots[:1], RASTER, 8e-3, lines)
    )


# --- a whole sequence ---


def test_the_windows_are_those_of_scipy():
    gradient = noise(5000 + 3 * 2500, 3)
    frequencies, found = acoustics.sequence_spectrum(gradient, RASTER)
    f, _, theirs = scipy.signal.spectrogram(
        gradient.numpy(), 1e5, ("tukey", 1), 5000, 2500, 15000, "constant", scaling="spectrum", axis=0, mode="magnitude"
    )
    np.testing.assert_allclose(frequencies, f)
    # one-sided amplitudes are twice scipy's
    np.testing.assert_allclose(found.numpy(), 2 * theirs.transpose(2, 0, 1), rtol=1e-9, atol=1e-15)


def test_the_worst_window_is_that_of_pypulseq_in_other_units():
    system = pypulseq.Opts(max_grad=50, grad_unit="mT/m", max_slew=200, slew_unit="T/m/s")
    sequence = pypulseq.Sequence(system)
    for i in range(50):
        for channel in "xy":
            sequence.add_block(pypulseq.make_trapezoid(channel, area=(-1) ** i * 500.0, duration=1e-3, system=system))
    _, theirs, f, _ = sequence.calculate_gradient_spectrum(plot=False)
    waves = [g(1e-5 * (np.arange(10_000) + 0.5)) for g in sequence.get_gradients()[:2]]
    gradient = torch.from_numpy(np.stack(waves, axis=-1) / system.gamma)
    frequencies, found = acoustics.sequence_spectrum(gradient, RASTER)
    worst = acoustics.combined(found).amax(dim=0)[: len(f)]
    np.testing.assert_allclose(frequencies[: len(f)], f)
    hann = scipy.signal.get_window("hann", 5000)
    unit = system.gamma * hann.sum() / 2 / math.sqrt(1e5 * (hann**2).sum())  # their density of Hz/m
    np.testing.assert_allclose(worst * unit, theirs, rtol=1e-8, atol=1e-8 * theirs.max())


def test_a_sequence_of_any_length_is_seen_to_its_end():
    for n in (1, 700, 5000, 5001, 12_345):
        gradient = sine(800.0, n)
        frequencies, found = acoustics.sequence_spectrum(gradient, RASTER)
        assert found.shape == (1 + max(0, math.ceil((n - 5000) / 2500)), len(frequencies), 2)
    assert float(found[0, :, 0].max()) == pytest.approx(0.02, rel=1e-3)
    assert float(frequencies[int(found[0, :, 0].argmax())]) == pytest.approx(800, abs=1e-6)
    assert (found[..., 1] == 0).all()
    late = torch.zeros(12_345, 2, dtype=torch.float64)
    late[-1000:] = sine(800.0, 1000)
    assert float(acoustics.sequence_spectrum(late, RASTER)[1][-1].max()) > 1e-3


def test_a_turned_sequence_is_as_loud():
    gradient = noise(3000, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    found, turned = (acoustics.combined(acoustics.sequence_spectrum(g, RASTER)[1]) for g in (gradient, gradient @ turn))
    torch.testing.assert_close(turned, found, rtol=1e-9, atol=1e-15)


# --- bands ---


def test_the_largest_amplitude_inside_each_band():
    frequencies = torch.tensor([500.0, 600.0, 700.0, 800.0])
    amplitude = torch.tensor([[1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]])
    found = acoustics.in_bands(frequencies, amplitude, [Band(600, 200), Band(800, 0)])
    assert found.tolist() == [[3, 4], [8, 5]]
    with pytest.raises(ConfigError, match="no point of the spectrum lies in the acoustic band from 640 to 660 Hz"):
        acoustics.in_bands(frequencies, amplitude, [Band(650, 20)])


def test_the_frequencies_of_a_band_reach_its_edges():
    assert Band(600, 100).frequencies(30.0).tolist() == [550, 575, 600, 625, 650]
    assert Band(600, 0).frequencies(30.0).tolist() == [600]


@pytest.mark.parametrize("wrong", [(0, 0), (50, 100), (-600, 10), (600, -10), (30e3, 10), (math.nan, 10)])
def test_a_band_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="acoustic band of"):
        Band(*wrong)


@pytest.mark.parametrize("name", ["aflGCAcousticResonance", "asGPAParameters[0].sGCParameters.aflAcousticResonance"])
def test_bands_are_read_as_pypulseq_reads_them(tmp_path, name):
    path = tmp_path / "some.asc"
    pairs = [(590.0, 100.0), (1140.0, 220.0), (0.0, 0.0)]
    path.write_text(resonances(name, pairs))
    theirs = asc_to_acoustic_resonances(readasc(path)[0])
    bands = acoustics.read_bands(path)
    assert [{"frequency": b.frequency, "bandwidth": b.bandwidth} for b in bands] == theirs
    assert len(bands) == 2
    path.write_text("a = 1\n")
    with pytest.raises(InputError, match="names no acoustic resonance"):
        acoustics.read_bands(path)


def test_the_slopes_are_those_of_differences():
    shots = noise(2, 12, 2).requires_grad_()
    frequencies = torch.tensor([700.0, 3000.0])

    def train(g):
        return acoustics.train_spectrum(g, RASTER, 2e-4, frequencies)

    def windows(g):
        return acoustics.sequence_spectrum(g.flatten(0, 1), RASTER, 8 * RASTER)[1][:, 1:5]

    for spectrum in (train, windows):
        assert torch.autograd.gradcheck(spectrum, (shots,), eps=1e-7, atol=1e-6)


# --- the constraint ---


def test_the_constraint_is_the_spectrum_of_each_shot_inside_the_bands(tmp_path):
    acquisition, scanner = Acquisition((0.22, 0.22), (64, 64), 3, 1000, 4e-6), Scanner()
    trajectory = spiral(acquisition, scanner, turns=4.0)
    bands = [(590.0, 100.0), (1140.0, 220.0)]
    limit = Acoustics(acquisition, scanner, bands=bands, limit=1e-3, repetition_time=10e-3)
    # an FFT with so many zeros that its points lie closer than the constraint's
    gradient = trajectory.gradient.numpy()
    lines = np.abs(np.fft.rfft(gradient, 2**17, axis=1)) * 2 * RASTER / 10e-3
    frequencies, both = np.fft.rfftfreq(2**17, RASTER), np.linalg.norm(lines, axis=-1)
    inside = np.any([np.abs(frequencies - f) <= b / 2 for f, b in bands], axis=0)
    expected = both[:, inside].max(axis=1)
    found = limit.measure(trajectory)
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=2e-2)
    finding = limit.check(trajectory)
    assert finding.ok == (expected.max() <= 1e-3)
    path = tmp_path / "some.asc"
    path.write_text(resonances("aflGCAcousticResonance", bands))
    same = Acoustics(acquisition, scanner, bands=str(path), limit=1e-3, repetition_time=10e-3)
    assert torch.equal(same.measure(trajectory), found)


def test_options_that_make_no_limit_are_refused():
    acquisition, scanner = Acquisition(), Scanner()
    one = [(600.0, 50.0)]
    for bands, limit, tr, words in (
        ([], 1e-3, 0.01, "bands is empty"),
        ([(1e6, 1.0)], 1.0, 0.01, "Hz"),
        *((one, limit, 0.01, "band_limit is") for limit in (0.0, 1.0, 1e9, math.inf, math.nan)),
        *((one, 1e-3, tr, "tr is") for tr in (0.0, 1e9, math.inf, math.nan)),
    ):
        with pytest.raises(ConfigError, match=words):
            Acoustics(acquisition, scanner, bands=bands, limit=limit, repetition_time=tr)
