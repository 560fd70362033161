"""Raw data as the ismrmrd library and BART write them."""

import shutil
import subprocess
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from trajdesign import Acquisition
from trajdesign.config import plugins
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.errors import ConfigError, InputError

ACQUISITION = Acquisition(fov=(0.22, 0.22), matrix=(48, 48), n_samples=600)


def fourier(n):
    """Matrix of the centred orthonormal discrete Fourier transform."""
    at = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(at, at) / n) / np.sqrt(n)


def objects(n_slices, n_coils, shape=(48, 48)):
    parts = np.random.default_rng(0).normal(size=(2, n_slices, n_coils, *shape))
    return parts[0] + 1j * parts[1]


def header(*, trajectory="cartesian", patient="", centre=24, oversampling=2):
    xsd = ismrmrd.xsd
    encoded, recon = (
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=n, y=48, z=1), fieldOfView_mm=xsd.fieldOfViewMm(x=extent, y=220, z=5)
        )
        for n, extent in ((48 * oversampling, 220 * oversampling), (48, 220))
    )
    limits = xsd.encodingLimitsType(kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=47, center=centre))
    encoding = xsd.encodingType(
        encodedSpace=encoded, reconSpace=recon, encodingLimits=limits, trajectory=xsd.trajectoryType(trajectory)
    )
    subject = xsd.subjectInformationType(patientID=patient) if patient else None
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63000000)
    return xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding], subjectInformation=subject)


def write(path, image, *, lines=range(48), noise=True, averages=1, change=lambda readout: None, first=0, **facts):
    """Write the k-space of an image (slice, coil, x, y), the slices from the last to the first in time."""
    n_readout = image.shape[-2]
    kspace = fourier(n_readout) @ image @ fourier(48).T
    path.unlink(missing_ok=True)
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(header(oversampling=n_readout // 48, **facts).toXML("utf-8"))
        order = [(a, line, s) for a in range(averages) for line in lines for s in reversed(range(len(image)))]
        for average, line, number in ([(0, 0, -1)] if noise else []) + order:
            readout = ismrmrd.Acquisition()
            readout.resize(n_readout - first, image.shape[1])
            readout.center_sample = n_readout // 2 - first
            readout.idx.kspace_encode_step_1, readout.idx.slice, readout.idx.average = line, max(number, 0), average
            readout.position[2], readout.slice_dir[2] = 5.0 * number, 1.0
            if number < 0:
                readout.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
                readout.data[:] = 1e3
            else:
                readout.data[:] = kspace[number, :, first:, line] * (1 + 0.5 * (-1) ** average * (averages > 1))
            change(readout)
            file.append_acquisition(readout)
    return str(path)


def expected(image):
    return image / np.sqrt((np.abs(image) ** 2).sum(1)).max()


@pytest.mark.parametrize("averages", [1, 2])
def test_lines_in_any_order_become_the_image(tmp_path, averages):
    image = objects(3, 4, (96, 48))
    table = {"kind": "fastmri", "test": [write(tmp_path / "a.h5", image, averages=averages)]}
    dataset = plugins.build("data", table, ACQUISITION, "test")
    wanted = expected(image[:, :, 24:72])  # without the oversampling of the readout
    assert len(dataset) == 3
    for n in range(3):
        np.testing.assert_allclose(dataset[n].numpy(), wanted[n], atol=1e-5)


@pytest.mark.parametrize(("lines", "first"), [(range(4, 47), 4), (range(12, 36), 0)])
def test_what_both_sides_of_k_space_lack_is_filled_with_zeros(tmp_path, lines, first):
    image = objects(1, 2)
    file = write(tmp_path / "a.h5", image, lines=lines, first=first)
    kspace = fourier(48) @ image @ fourier(48).T
    kspace[:, :, :first], kspace[..., : lines[0]], kspace[..., lines[-1] + 1 :] = 0, 0, 0
    wanted = expected(fourier(48).conj().T @ kspace @ fourier(48).conj())
    np.testing.assert_allclose(fastmri(ACQUISITION, "test", test=[file])[0].numpy(), wanted[0], atol=1e-5)


def test_slices_are_in_the_order_of_their_positions(tmp_path):
    image = objects(3, 1)

    def turn(readout):
        readout.position[2] *= -1

    dataset = fastmri(ACQUISITION, "test", test=[write(tmp_path / "a.h5", image, change=turn)])
    np.testing.assert_allclose(dataset[0].numpy(), expected(image)[2], atol=1e-5)


def test_a_patient_of_two_headers_is_not_split(tmp_path):
    files = [write(tmp_path / f"{n}.h5", objects(1, 1), patient="me") for n in range(2)]
    with pytest.raises(ConfigError, match=r"patient 'me' is in data\.test"):
        fastmri(ACQUISITION, "test", train=files[:1], test=files[1:])


OLD = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><measurementInformation>
<protocolName>old</protocolName></measurementInformation><encoding><encodedSpace><matrixSize><x>48</x><y>48</y>
</matrixSize><fieldOfView_mm><x>220</x><y>220</y></fieldOfView_mm></encodedSpace>{}</encoding></ismrmrdHeader>"""


@pytest.mark.parametrize("said", ["", "<trajectory>Cartesian</trajectory>", "<trajectory/>"])
def test_headers_of_older_versions_need_not_have_what_the_newest_schema_asks_for(tmp_path, said):
    image = objects(2, 2)
    file = write(tmp_path / "a.h5", image)
    with h5py.File(file, "a") as opened:
        opened["dataset/xml"][0] = OLD.format(said)
    np.testing.assert_allclose(fastmri(ACQUISITION, "test", test=[file])[1].numpy(), expected(image)[1], atol=1e-5)


def test_a_trajectory_that_no_header_calls_cartesian_is_refused(tmp_path):
    def add(readout):
        values = readout.data.copy()
        readout.resize(48, 1, 2)
        readout.data[:] = values

    file = write(tmp_path / "a.h5", objects(1, 1), change=add)
    assert len(fastmri(ACQUISITION, "test", test=[file])) == 1
    with h5py.File(file, "a") as opened:
        opened["dataset/xml"][0] = OLD.format("")
    with pytest.raises(InputError, match="its header does not say that it is Cartesian"):
        fastmri(ACQUISITION, "test", test=[file])


def raised(counter):
    def change(readout):
        setattr(readout.idx, counter, readout.idx.kspace_encode_step_1 % 2)

    return change


@pytest.mark.parametrize(
    ("sentence", "settings"),
    [
        (
            "line 1 along y of slice 0 was not measured, or is zero, one of 23 between lines that were; training",
            {"lines": range(0, 48, 2)},
        ),
        ("2 of the counter contrast; keep one", {"change": raised("contrast")}),
        ("2 of the counter kspace_encode_step_2", {"change": raised("kspace_encode_step_2")}),
        ("no Cartesian k-space", {"trajectory": "radial"}),
        ("read backwards", {"change": lambda readout: readout.set_flag(ismrmrd.ACQ_IS_REVERSE)}),
        ("lie outside its matrix", {"centre": 40}),
        # partial Fourier of 7/8, 6/8 and 5/8, on either side, and a partial echo
        (r"slice 0 along y has 18 of 48 positions before the centre .* partial Fourier", {"lines": range(6, 48)}),
        (r"has 24 of 48 positions before the centre of k-space and 12 from there on", {"lines": range(36)}),
        (r"has 6 of 48 positions before", {"lines": range(18, 48)}),
        (r"a readout has 18 of 48 positions before", {"first": 6}),
        ("no line of k-space", {"lines": ()}),
    ],
)
def test_what_is_not_one_fully_sampled_image_is_refused(tmp_path, sentence, settings):
    file = write(tmp_path / "a.h5", objects(1, 1), **settings)
    with pytest.raises(InputError, match=sentence) as caught:
        fastmri(ACQUISITION, "test", test=[file])
    assert "\n" not in str(caught.value)


def test_damaged_files_give_an_image_or_a_sentence(tmp_path):
    content = Path(write(tmp_path / "whole.h5", objects(1, 1))).read_bytes()
    rng = np.random.default_rng(0)
    sentences = 0
    for trial in range(6):
        damaged = bytearray(content[: len(content) - trial * len(content) // 8])
        for place in rng.integers(len(damaged), size=20):
            damaged[place] = rng.integers(256)
        (tmp_path / "a.h5").write_bytes(damaged)
        try:
            image = fastmri(ACQUISITION, "test", test=[str(tmp_path / "a.h5")])[0]
        except InputError as caught:
            sentences += str(caught).count("\n") == 0
        else:
            sentences += bool(image.isfinite().all())
    assert sentences == 6


def bart(folder, *words):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    subprocess.run(["bart", *words], cwd=folder, check=True)


def test_kspace_of_bart_becomes_the_image_of_bart(tmp_path):
    bart(tmp_path, "phantom", "-k", "-x", "48", "-s", "3", "kspace")
    bart(tmp_path, "fft", "-i", "-u", "3", "kspace", "image")
    image = np.fromfile(tmp_path / "image.cfl", dtype="<c8").reshape(3, 48, 48)  # coil, y, x
    found = fastmri(ACQUISITION, "test", test=[str(tmp_path / "kspace.cfl")])
    assert len(found) == 1
    np.testing.assert_allclose(found[0].numpy(), expected(image[None])[0], atol=1e-5)
    bart(tmp_path, "join", "13", "kspace", "kspace", "two")
    assert len(fastmri(ACQUISITION, "test", test=[str(tmp_path / "two.cfl")])) == 2
    bart(tmp_path, "join", "2", "kspace", "kspace", "volume")
    with pytest.raises(InputError, match="transform a third axis"):
        fastmri(ACQUISITION, "test", test=[str(tmp_path / "volume.cfl")])
