"""ISMRMRD files that hold their own k: of the library of ISMRMRD, against exact sums, and of another simulator."""

import contextlib
import json

import h5py
import ismrmrd
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.real_data import real
from trajdesign.cli.app import app
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring.reconstruct import reconstruct

N, FOV, N_SHOTS, N_SAMPLES, N_COILS = 16, 0.2, 20, 48, 2
HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>
<H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>
<matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize><fieldOfView_mm><x>{fov}</x><y>{fov}</y><z>5</z></fieldOfView_mm>
</encodedSpace><trajectory>radial</trajectory>{unit}</encoding></ismrmrdHeader>"""
UNIT = """<trajectoryDescription><identifier>x</identifier><userParameterString><name>trajectory_units</name>
<value>{}</value></userParameterString></trajectoryDescription>"""
#: What 1/FOV is in each unit.
UNITS = {"1/FOV": 1, "1/m": 1 / FOV, "rad/m": 2 * np.pi / FOV, "cycles/pixel": 1 / N, "rad": 2 * np.pi / N}


def cycles():
    """Return radial k (shot, sample, 2), 1/FOV."""
    angle = np.pi * (np.arange(N_SHOTS) + 0.2) / N_SHOTS
    radius = np.linspace(-N / 2, N / 2, N_SAMPLES)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]


def objects(seed=1):
    """Return coil images (coil, y, x) of smooth blobs: their k-space is nearly nothing beyond that of `cycles`."""
    y, x = np.indices((N, N))
    places = np.random.default_rng(seed).uniform(5, 11, (4, 2))
    image = sum(np.exp(-((x - at) ** 2 + (y - to) ** 2) / (2 * 1.5**2)) for at, to in places)
    return image * np.array([1.0, 0.6 + 0.3j])[:, None, None]


def sampled(images, k):
    """Return k-space (coil, shot, sample) by exact sums over pixels."""
    at = np.arange(N) - N // 2
    x, y = (np.exp(-2j * np.pi / N * k[..., axis, None] * at) for axis in (0, 1))
    return np.einsum("cyx,snx,sny->csn", images, x, y)


def acquisition(data, k, flag=None, **counters):
    """Return an acquisition of samples (coil, sample) at k (sample, dim)."""
    made = ismrmrd.Acquisition()
    made.resize(data.shape[1], data.shape[0], k.shape[1])
    made.data[:], made.traj[:] = data, k
    made.sample_time_us = 4.0
    if flag is not None:
        made.set_flag(flag)
    for name, value in counters.items():
        setattr(made.idx, name, value)
    return made


def shots(images=None, k=None, unit=1.0, **counters):
    """Return the acquisitions of coil images, whose k is written in a unit."""
    k = cycles() if k is None else k
    data = sampled(objects() if images is None else images, k)
    return [acquisition(data[:, i], k[i] * unit, **counters) for i in range(len(k))]


def written(path, acquisitions, unit="", fov=FOV, n=N):
    header = HEADER.format(n=n, fov=1e3 * fov, unit=UNIT.format(unit) if unit else "")
    with contextlib.closing(ismrmrd.Dataset(str(path))) as file:
        file.write_xml_header(header.encode())
        for made in acquisitions:
            file.append_acquisition(made)
    return path


def nrmse(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def magnitude(images):
    return np.sqrt((np.abs(images) ** 2).sum(0))


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("unit", UNITS)
def test_any_unit_gives_the_object(tmp_path, unit, is_told):
    raw = written(tmp_path / "x.h5", shots(unit=UNITS[unit]), unit if is_told else "")
    found = reconstruct(raw, out=tmp_path / "out")
    assert nrmse(found.images["cg_sense"][0, 0], magnitude(objects())) < 0.02
    assert found.facts.warnings == []
    assert found.facts.n_shots == N_SHOTS
    assert (tuple(found.facts.matrix), tuple(found.facts.fov)) == ((N, N), (FOV, FOV))


def test_slices_repetitions_and_averages_are_told_apart(tmp_path):
    of = [[objects(1), objects(2)], [objects(3), objects(4)]]
    rows = [
        made
        for repetition in (0, 1)
        for average in (0, 1)
        for number in (0, 1)
        for made in shots(of[repetition][number], repetition=repetition, average=average, slice=number)
    ]
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((2, N_COILS, 99))
    noise = acquisition((samples[0] + 1j * samples[1]) * 1e-6, np.zeros((99, 2)), ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    dummy = acquisition(np.full((N_COILS, 3), 1e3), np.zeros((3, 2)), ismrmrd.ACQ_IS_DUMMYSCAN_DATA)
    found = reconstruct(written(tmp_path / "x.h5", [dummy, noise, *rows]), out=tmp_path / "out")
    assert found.images["cg_sense"].shape == (2, 2, N, N)
    assert (found.facts.n_shots, found.facts.n_noise_samples) == (2 * N_SHOTS, 99)
    scale = magnitude(objects(1)).sum() / found.images["cg_sense"][0, 0].sum()  # of coils after prewhitening
    for frame, repetition in zip(found.images["cg_sense"], of, strict=True):
        for image, wanted in zip(frame, repetition, strict=True):
            assert nrmse(image * scale, magnitude(wanted)) < 0.02


def test_samples_to_discard_and_a_third_axis_of_zeros_are_left_out(tmp_path):
    rows = shots(k=np.concatenate([cycles(), np.zeros((N_SHOTS, N_SAMPLES, 1))], axis=2))
    for made in rows:
        made.data[:, :2] = 1e3
        made.discard_pre = 2
    found = reconstruct(written(tmp_path / "x.h5", rows), out=tmp_path / "out")
    assert found.facts.n_samples == N_SAMPLES - 2
    assert nrmse(found.images["cg_sense"][0, 0], magnitude(objects())) < 0.05


def test_the_command_takes_matrix_and_field_of_view_where_the_header_has_others(tmp_path):
    raw = written(tmp_path / "x.h5", shots(unit=1 / FOV), n=100, fov=0.4)
    command = ["reconstruct", str(raw), "--json"]
    refused = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "a")])
    assert isinstance(refused.exception, InputError)
    assert "give the matrix or fov" in str(refused.exception)
    found = CliRunner().invoke(
        app, [*command, "--out", str(tmp_path / "b"), "--matrix", f"{N},{N}", "--fov", "0.2,0.2"]
    )
    told = json.loads(found.stdout)
    assert (told["matrix"], told["fov"]) == ([N, N], [FOV, FOV])
    image = np.load(tmp_path / "b" / "image.npz")["cg_sense"][0, 0]
    assert nrmse(image, magnitude(objects())) < 0.02
    for option, text in (("--matrix", "16.5,16"), ("--fov", "0.2")):
        refused = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "c"), option, text])
        assert isinstance(refused.exception, ConfigError)


def flagged(row, flag):
    row.set_flag(flag)
    return row


@pytest.mark.parametrize(
    ("rows", "unit", "words"),
    [
        ([*shots(), *shots(k=cycles()[:, 1:])], "", "47 to 48 samples"),
        ([*shots(), *shots(objects()[:1])], "", "1 to 2 coils"),
        ([*shots(slice=0), *shots(slice=1)[1:]], "", "19 to 20 acquisitions"),
        ([*shots(contrast=0), *shots(contrast=1)], "", "2 values of the counter contrast"),
        ([*shots(repetition=0), *shots(k=-cycles(), repetition=1)], "", "other k in each repetition"),
        (shots(k=np.concatenate([cycles(), np.ones((N_SHOTS, N_SAMPLES, 1))], axis=2)), "", "along a third axis"),
        ([flagged(row, ismrmrd.ACQ_IS_DUMMYSCAN_DATA) for row in shots()], "", "no acquisition of an image"),
        (shots(), "1/cm", "'1/cm'; known are 1/FOV"),
        (shots(), "1/pixel", "16 times what"),
        (shots(unit=3.0), "", "does not say in which unit k is"),
        (shots(k=cycles() * np.nan), "", "not finite"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, rows, unit, words):
    raw = written(tmp_path / "x.h5", rows, unit)
    with pytest.raises(InputError, match=words):
        reconstruct(raw, out=tmp_path / "out")


def test_a_header_that_makes_no_sense_is_the_files_fault_and_an_option_ones_own(tmp_path):
    raw = written(tmp_path / "x.h5", shots(), n=1)
    with pytest.raises(InputError, match="at least 4 pixels"):
        reconstruct(raw, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="at least 4 pixels"):
        reconstruct(raw, matrix=(2, 2), out=tmp_path / "out")
    for made in (rows := shots()):
        made.discard_pre = N_SAMPLES
    with pytest.raises(InputError, match="n_samples 0"):
        reconstruct(written(tmp_path / "y.h5", rows), out=tmp_path / "out")


@pytest.mark.parametrize(("name", "limit"), [("clean", 0.06), ("Susc70Mhz", 0.2)])
def test_spirals_of_another_simulator(tmp_path, name, limit):
    """JEMRIS solves the Bloch equations; its acquisition 0, a dummy, is flagged as of no image."""
    raw = real(f"jemris/jemris_signals_{name}_slc90.h5")
    with h5py.File(real("jemris/jemris_reco_clean_slc90.h5")) as file:
        wanted = file["images/image_1/data"][0, 0, 0]
    found = reconstruct(raw, out=tmp_path / "out")
    image = found.images["cg_sense"][0, 0]
    assert found.facts.n_shots == 15
    assert nrmse(image * (wanted * image).sum() / (image * image).sum(), wanted) < limit
    assert found.facts.k.endswith("(1/FOV)")
    with pytest.raises(InputError, match="does not tell the time between samples"):
        reconstruct(raw, out=tmp_path / "late", delay="auto")
