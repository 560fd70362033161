"""Coil images of a calibration: the centre of k-space by exact sums, wherever its samples lie."""

from pathlib import Path

import numpy as np
import pypulseq as pp
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.data import receiver
from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import assignment, calibration
from trajdesign.measuring.calibration import Calibration
from trajdesign.measuring.geometry import View
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.reconstruction import coils

N, N_COILS, FOV = 32, 4, 0.2
ACQUISITION = Acquisition((FOV, FOV), (N, N), N, 2 * N, 10e-6)
SEQ, PERFECT, AT_ONCE = Path("x.seq"), Response({}), (0.0, 0.0)


def seen(seed):
    """Return what coils see of an ellipse with texture (coil, y, x), complex128."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:N, :N] - N // 2
    magnitude = ((x / 11) ** 2 + (y / 13) ** 2 < 1) * generator.uniform(0.5, 1, (N, N))
    return receiver.receive(magnitude.astype(np.float32), N_COILS, generator).to(torch.complex128).numpy()


def sampled(images, k):
    """Return the Fourier sums (coil, ...) of images (coil, y, x) at k (..., 2), 1/m."""
    position = (np.arange(N) - N // 2) * FOV / N
    along = [np.exp(-2j * np.pi * k[..., axis, None] * position) for axis in (0, 1)]
    return np.einsum("cyx,...y,...x->c...", images, along[1], along[0], optimize=True).astype(np.complex64)


def lines(n_lines, oversampling=1, offset=0.0):
    """Return k (line, sample, 2) of lines along x, 1/m."""
    kx = (np.arange(n_lines * oversampling) - n_lines * oversampling // 2) / oversampling + offset
    ky = np.arange(n_lines) - n_lines // 2
    return np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1) / FOV


def scan_of(images, k):
    kspace = np.stack([sampled(one, k) for one in images])
    return Calibration(torch.from_numpy(kspace), torch.from_numpy(np.stack([k] * len(images))), Path("cal"))


def maps(images):
    return coils.smooth_maps(coils.calibration_scan(images, 0.0, []), (N, N))


def difference(found, wanted):
    return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("n_lines", [24, 30])
def test_lines_on_the_grid_are_the_centre_of_kspace(n_lines):
    images = np.stack([seen(0), seen(1)])
    found = scan_of(images, lines(n_lines)).coil_images(ACQUISITION)
    assert found.shape == (2, N_COILS, 24, 24)
    # what training takes for a prescan of the object itself
    assert difference(maps(found), maps(torch.from_numpy(images))) < 3e-6


def test_fewer_lines_are_taken_as_they_are():
    images = seen(0)
    scan = scan_of([images], lines(16))
    assert scan.n_lines(ACQUISITION) == 16
    found = torch.fft.fft2(torch.fft.ifftshift(scan.coil_images(ACQUISITION), dim=(-2, -1)), norm="ortho")
    wanted = torch.from_numpy(sampled(images, lines(16)))[None]
    found = torch.fft.fftshift(found, dim=(-2, -1))
    scale = (found.conj() * wanted).sum() / found.abs().square().sum()
    assert difference(found * scale, wanted) < 1e-5


@pytest.mark.parametrize("rotation", [30, 90, 180])
def test_a_turned_view_does_not_refuse_the_fewest_lines(rotation):
    view = View(rotation=rotation)
    assert scan_of([seen(0)], lines(8)).seen(view).n_lines(ACQUISITION) == 8
    assert scan_of([seen(0)], lines(6)).seen(view).n_lines(ACQUISITION) <= 6
    scan = scan_of([seen(0)], lines(24)).seen(view)
    assert scan.coil_images(ACQUISITION).shape[-1] == scan.n_lines(ACQUISITION) < 24  # without the corners


def star():
    angle = np.arange(60) * np.pi / 60
    radius = (np.arange(80) - 40) * 0.5 / FOV
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]


@pytest.mark.parametrize(
    ("k", "most"),
    [(lines(24, 2), 2e-3), (lines(24, 8), 2e-3), (lines(30, 2, offset=0.25), 2e-3), (star(), 1e-2)],
)
def test_samples_anywhere_give_nearly_the_same(k, most):
    found = scan_of([seen(0)], k).coil_images(ACQUISITION)
    assert found.shape == (1, N_COILS, 24, 24)
    assert difference(maps(found), maps(torch.from_numpy(seen(0))[None].to(torch.complex64))) < most


def test_noise_of_oversampled_lines_is_averaged():
    generator = np.random.default_rng(0)
    k = lines(24, 8)
    parts = generator.standard_normal((2, 1, 64, *k.shape[:2])) / np.sqrt(2)
    noise = torch.from_numpy((parts[0] + 1j * parts[1]).astype(np.complex64))
    signal = torch.from_numpy(sampled(np.ones((1, N, N)), k))[None].expand(noise.shape) * 1e-9
    found = Calibration(noise + signal, torch.from_numpy(k)[None], Path("cal")).coil_images(ACQUISITION)
    of_grid = Calibration(noise[..., ::8], torch.from_numpy(lines(24))[None], Path("cal")).coil_images(ACQUISITION)
    # both are of any brightness: of samples of one size
    inner = [torch.fft.fftshift(torch.fft.fft2(one), dim=(-2, -1))[..., 8:16] for one in (found, of_grid)]
    sizes = [float(one.abs().square().mean()) for one in inner]
    assert sizes[0] / sizes[1] == pytest.approx(1 / 8, rel=0.15)


def test_samples_that_miss_lines_are_refused():
    k = np.delete(lines(24), 10, axis=0)  # the line at -2
    with pytest.raises(InputError, match=r"the calibration of cal has 2 complete lines .* need 8"):
        scan_of([seen(0)], k).coil_images(ACQUISITION)


def written(path, slices=(0, 1), calibrated=(0, 1), n_calibration=16, fov=FOV, positions=(-0.005, 0.005)):
    """Return a file of lines, of which the first are for coil maps, and k of each ADC event."""
    system = pp.Opts(adc_dead_time=10e-6, rf_dead_time=100e-6, rf_ringdown_time=20e-6, max_grad=40, grad_unit="mT/m")
    sequence = pp.Sequence(system)
    pulse = pp.make_block_pulse(0.2, duration=1e-3, delay=100e-6, system=system, use="excitation")
    kinds = [(1, n_calibration, n, line) for line in range(n_calibration) for n in calibrated]
    kinds += [(0, N, n, line) for line in range(N) for n in slices]
    for is_calibration, n_lines, number, line in kinds:
        x = pp.make_trapezoid("x", flat_area=n_lines / fov, flat_time=2 * n_lines * 10e-6, system=system)
        adc = pp.make_adc(2 * n_lines, dwell=10e-6, delay=x.rise_time, system=system)
        before = pp.make_trapezoid("x", area=-x.area / 2 - 0.25 / fov, duration=1e-3, system=system)
        y = pp.make_trapezoid("y", area=(line - n_lines // 2) / fov, duration=1e-3, system=system)
        labels = {"REF": is_calibration, "LIN": line, "SLC": number}
        sequence.add_block(pulse)
        sequence.add_block(before, y)
        sequence.add_block(x, adc, *(pp.make_label(name, "SET", value) for name, value in labels.items()))
    sequence.set_definition("FOV", [fov, fov, 0.005])
    sequence.set_definition("SlicePositions", list(positions))
    sequence.write(str(path))
    return player.read(path)


def raw_of(file, path="raw.h5"):
    events = [sampled(seen(number), k[:, :2]) for number, k in zip(file.labels["SLC"], file.k, strict=True)]
    return Measurement(Path(path), "ismrmrd", events, np.zeros((len(events), 2), np.int64))


def test_labelled_events_of_the_same_file_are_the_calibration(tmp_path):
    file = written(tmp_path / "x.seq", calibrated=(1, 0))
    found = assignment.by_sequence(raw_of(file), file, SEQ, ACQUISITION)
    assert found.kspace.shape == (1, 2, N_COILS, N, 2 * N)  # which they are no part of
    scan = calibration.of_measurement(found, Path("raw.h5"), PERFECT, AT_ONCE)
    assert scan.kspace.shape == (2, N_COILS, 16, 32)
    assert scan.k[0].numpy() == pytest.approx(lines(16, 2), abs=1e-3 / FOV)
    images = scan.coil_images(ACQUISITION)
    for number in (0, 1):
        wanted = scan_of([seen(number)], lines(16)).coil_images(ACQUISITION)
        assert difference(maps(images[number : number + 1]), maps(wanted)) < 3e-3
    late = calibration.of_measurement(found, Path("raw.h5"), PERFECT, (5e-6, 0.0))
    assert (scan.k - late.k)[0, 0].numpy() == pytest.approx(np.array([[0.25 / FOV, 0]] * 32), abs=1e-6 / FOV)


def test_a_slice_without_calibration_is_refused(tmp_path):
    file = written(tmp_path / "x.seq", calibrated=(1,))
    found = assignment.by_sequence(raw_of(file), file, SEQ, ACQUISITION)
    with pytest.raises(InputError, match=r"slices \[1\], the measurement \[0, 1\]: \[0\] are missing"):
        calibration.of_measurement(found, Path("raw.h5"), PERFECT, AT_ONCE)
    assert calibration.wanted(raw_of(file), found, "self", None, None, PERFECT, AT_ONCE, View()) is None


def test_a_file_of_its_own_is_the_calibration(tmp_path, monkeypatch):
    file = written(tmp_path / "x.seq", calibrated=())
    found = assignment.by_sequence(raw_of(file), file, SEQ, ACQUISITION)
    assert calibration.wanted(raw_of(file), found, None, None, None, PERFECT, AT_ONCE, View()) is None
    own = written(tmp_path / "cal.seq", slices=())
    monkeypatch.setattr(calibration.reading, "read", lambda path: raw_of(own))
    scan = calibration.of_file(Path("cal.h5"), tmp_path / "cal.seq", found, PERFECT, AT_ONCE)
    wanted = scan_of([seen(0), seen(1)], lines(16, 2)).coil_images(ACQUISITION)
    assert difference(maps(scan.coil_images(ACQUISITION)), maps(wanted)) < 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calibrated": (0,)}, "calibrates 1 slice.*, and 2 were measured"),
        ({"fov": 0.22}, r"the field of view \[0.22, 0.22\] m, the measurement \[0.2, 0.2\] m"),
        ({"positions": (-0.006, 0.006)}, r"slices at \[-0.006, 0.006\] m, the measurement at \[-0.005, 0.005\] m"),
    ],
)
def test_a_calibration_of_something_else_is_refused(tmp_path, monkeypatch, options, words):
    file = written(tmp_path / "x.seq", calibrated=())
    found = assignment.by_sequence(raw_of(file), file, SEQ, ACQUISITION)
    own = written(tmp_path / "cal.seq", slices=(), **options)
    monkeypatch.setattr(calibration.reading, "read", lambda path: raw_of(own))
    with pytest.raises(InputError, match=words):
        calibration.of_file(Path("cal.h5"), tmp_path / "cal.seq", found, PERFECT, AT_ONCE)


def test_an_array_is_a_calibration_of_lines(tmp_path):
    file = written(tmp_path / "x.seq", calibrated=())
    found = assignment.by_sequence(raw_of(file), file, SEQ, ACQUISITION)
    kspace = np.stack([sampled(seen(number), lines(24)) for number in (0, 1)])
    np.save(tmp_path / "cal.npy", kspace)
    scan = calibration.of_file(tmp_path / "cal.npy", None, found, PERFECT, AT_ONCE)
    wanted = torch.from_numpy(np.stack([seen(0), seen(1)]))
    assert difference(maps(scan.coil_images(ACQUISITION)), maps(wanted)) < 3e-6
    np.save(tmp_path / "one.npy", kspace[0])
    with pytest.raises(InputError, match=r"1 repetition\(s\) of 1 slice\(s\), the measurement 2 slice\(s\)"):
        calibration.of_file(tmp_path / "one.npy", None, found, PERFECT, AT_ONCE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coil_maps": "sens"}, "coil_maps is 'sens'; it is one of self, prescan, espirit"),
        ({"coil_maps": "self", "path": "a.npy"}, "leave it or the calibration out"),
        ({"coil_maps": "espirit"}, "are made of a calibration; the measurement has none"),
        ({"seq": "a.seq"}, "give the calibration too"),
    ],
)
def test_options_that_contradict_are_refused(options, words):
    found = assignment.Assigned(torch.zeros(1, 1, 1, 1, 1), ACQUISITION)
    chosen = {"coil_maps": None, "path": None, "seq": None, **options}
    measured = Measurement(Path("raw.h5"), "ismrmrd", [], np.zeros((0, 2), np.int64))
    with pytest.raises(ConfigError, match=words):
        calibration.wanted(measured, found, **chosen, response=PERFECT, delay=AT_ONCE, view=View())
