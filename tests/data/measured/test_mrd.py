"""Raw data in HDF5, against what the library of ISMRMRD reads, and against the numbers that were written."""

import contextlib

import h5py
import ismrmrd
import numpy as np
import pytest
from attacks import mrds
from attacks.commands import require_one_line
from attacks.mutants import mutants, taken
from real_data import real
from twix_files import samples

from trajdesign.data.measured.reading import read
from trajdesign.errors import InputError


def acquisition(data, k=None, flags=(), dwell_us=2.5, **fields):
    """Return an acquisition of samples (coil, sample) with k (sample, dim)."""
    made = ismrmrd.Acquisition()
    made.resize(data.shape[1], data.shape[0], 0 if k is None else k.shape[1])
    made.data[:] = data
    if k is not None:
        made.traj[:] = k
    for flag in flags:
        made.set_flag(flag)
    made.sample_time_us = dwell_us
    made.idx.kspace_encode_step_1 = 7  # of no use: every acquisition claims the same line
    for name, value in fields.items():
        if name in ("position", "read_dir", "phase_dir", "slice_dir"):
            getattr(made, name)[:] = value
        else:
            setattr(made, name, value)
    return made


# As older versions wrote it, without the limits of the encoding.
OLD = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><measurementInformation>
<protocolName>spiral</protocolName><patientPosition>HFP</patientPosition></measurementInformation>
<acquisitionSystemInformation><systemVendor>GE</systemVendor><systemModel>Premier</systemModel>
<systemFieldStrength_T>2.9</systemFieldStrength_T></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>96</x><y>48</y><z>1</z></matrixSize><fieldOfView_mm><x>440</x><y>200</y><z>5</z>
</fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>48</x><y>48</y><z>1</z></matrixSize><fieldOfView_mm><x>220</x>
<y>200</y><z>5</z></fieldOfView_mm></reconSpace><trajectory>spiral</trajectory><trajectoryDescription>
<identifier>ours</identifier><userParameterString><name>trajectory_units</name><value>1/FOV</value></userParameterString>
</trajectoryDescription></encoding></ismrmrdHeader>"""


def write(path, acquisitions, header=OLD):
    path.unlink(missing_ok=True)
    with contextlib.closing(ismrmrd.Dataset(str(path))) as file:
        file.write_xml_header(header.encode())
        for made in acquisitions:
            file.append_acquisition(made)
    return path


def theirs(path):
    with contextlib.closing(ismrmrd.Dataset(str(path), create_if_needed=False)) as file:
        return [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]


def test_every_acquisition_is_there_in_the_order_of_the_file(tmp_path):
    wanted = samples(5)
    k = np.random.default_rng(1).standard_normal((5, 7, 2)).astype(np.float32)
    flags = [(), (ismrmrd.ACQ_IS_NAVIGATION_DATA,), (ismrmrd.ACQ_IS_DUMMYSCAN_DATA,), (ismrmrd.ACQ_IS_REVERSE,), ()]
    made = [acquisition(*parts) for parts in zip(wanted, k, flags, strict=True)]
    made[4] = acquisition(wanted[4], k[4], (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,), discard_pre=2, discard_post=1)
    made.insert(2, acquisition(samples(1)[0], k[0], (ismrmrd.ACQ_IS_RTFEEDBACK_DATA,)))
    found = read(write(tmp_path / "a.h5", made))
    np.testing.assert_array_equal(found.events, wanted)
    np.testing.assert_array_equal(found.trajectory, k)
    assert (found.events.dtype, found.kind, found.layout, found.noise) == (np.complex64, "ismrmrd", None, None)
    assert {name: np.flatnonzero(flag).tolist() for name, flag in found.flags.items()} == {
        "navigator": [1],
        "dummy": [2],
        "reversed": [3],
        "calibration": [4],
    }
    assert found.discard.tolist() == [[0, 0]] * 4 + [[2, 1]]
    assert found.dwell == pytest.approx(2.5e-6)


def test_noise_is_kept_among_the_events_and_beside_them(tmp_path):
    noise, image = samples(2, 3, 16, seed=1), samples(3)
    made = [acquisition(event, None, (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,), 8.0) for event in noise]
    found = read(write(tmp_path / "a.mrd", [*made, *map(acquisition, image)]))
    assert found.sizes == [(3, 16)] * 2 + [(3, 7)] * 3
    np.testing.assert_array_equal(found.noise, np.concatenate(noise, axis=1))
    assert (found.noise_dwell, found.dwell) == (pytest.approx(8e-6), pytest.approx(2.5e-6))
    rest = found.select(~found.flags["noise"])
    np.testing.assert_array_equal(rest.events, image)
    assert rest.flags == {}
    assert found.trajectory is None


def test_a_header_that_the_newest_library_refuses_is_told(tmp_path):
    place = {"position": (10, -20, 30), "read_dir": (0, 1, 0), "phase_dir": (1, 0, 0), "slice_dir": (0, 0, 1)}
    path = write(tmp_path / "a.h5", [acquisition(samples(1)[0], **place), acquisition(samples(1)[0])])
    with pytest.raises(TypeError, match="encodingLimits"):
        ismrmrd.xsd.CreateFromDocument(OLD.encode())
    found = read(path)
    protocol = found.protocol
    assert (protocol.system, protocol.name, protocol.patient_position) == ("GE Premier", "spiral", "HFP")
    assert (protocol.field_strength, protocol.fov, found.oversampling) == (2.9, (0.22, 0.2, 0.005), 2.0)
    assert found.trajectory_unit == "1/FOV"
    (only,) = protocol.slices  # the second acquisition has no directions
    np.testing.assert_allclose(only.position, (0.01, -0.02, 0.03))
    assert (only.read, only.phase, only.normal) == ((0, 1, 0), (1, 0, 0), (0, 0, 1))


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (2.5, 5.0), (np.nan, np.nan), (-1.0, -1.0)])
def test_a_dwell_time_that_the_file_does_not_tell_is_none(tmp_path, first, second):
    made = [acquisition(samples(1)[0], dwell_us=dwell) for dwell in (first, second)]
    assert read(write(tmp_path / "a.h5", made)).dwell is None


def test_acquisitions_that_lie_are_refused(tmp_path):
    for fields, sentence in (
        ({"number_of_samples": 15}, "acquisition 0 does not have the samples"),
        ({"active_channels": 0}, "acquisition 0 does not have the samples"),
        ({"trajectory_dimensions": 2}, "acquisition 0 does not have the samples"),
        ({"discard_pre": np.arange(16) + 2}, "acquisition 15 does not have the samples"),
        ({"flags": 1 << 27}, "it is empty"),
    ):
        mrds.write(tmp_path / "a.h5", mrds.acquisitions(**fields))
        with pytest.raises(InputError, match=sentence) as caught:
            read(tmp_path / "a.h5")
        require_one_line(caught.value)
    mrds.lying(tmp_path / "a.h5", n=2**31)
    with pytest.raises(InputError, match="acquisition 3 does not have the samples"):
        read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(InputError, match="neither the group 'dataset' of ISMRMRD"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("n", [6, pytest.param(300, marks=pytest.mark.nightly)])  # each starts another process
def test_mutants_are_read_or_refused_in_one_line(tmp_path, n):
    whole = write(tmp_path / "a.h5", map(acquisition, samples(4))).read_bytes()
    for found in taken(tmp_path / "a.h5", mutants(whole, n), read):
        assert all(np.isfinite(event).all() for event in found.events)


def test_the_array_of_fastmri_has_its_readout_before_its_lines(tmp_path):
    kspace = samples(2 * 3, 4, 5).reshape(2, 3, 4, 5)  # slice, coil, readout, line
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
    found = read(path)
    assert (found.kind, found.layout, found.events.shape) == ("fastmri", (1, 2, 5), (10, 3, 4))
    for s, line in ((0, 0), (0, 4), (1, 2)):
        np.testing.assert_array_equal(found.events[5 * s + line], kspace[s, :, :, line])
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(5)
    with pytest.raises(InputError, match="lines of its 'kspace' were not measured"):
        read(path)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.real
    with pytest.raises(InputError, match="'kspace' is float32 of shape"):
        read(path)


@pytest.mark.parametrize("name", ["clean", "Susc70Mhz"])
def test_real_spirals_are_what_the_library_reads(name):
    path = real(f"jemris/jemris_signals_{name}_slc90.h5")
    found, right = read(path), theirs(path)
    assert found.sizes == [(1, 1)] + [(1, 4940)] * 15
    for event, k, made in zip(found.events, found.trajectory, right, strict=True):
        np.testing.assert_array_equal(event, made.data)
        np.testing.assert_array_equal(k, made.traj)
    assert {key: np.flatnonzero(flag).tolist() for key, flag in found.flags.items()} == {"surface coil correction": [0]}
    # the file says 0 us, and 0 T
    assert (found.dwell, found.protocol.field_strength, found.protocol.slices) == (None, None, ())
    assert (found.protocol.system, found.protocol.fov) == ("JEMRIS v2.8.4", (0.22, 0.22, 0.001))


def test_real_cartesian_kspace_becomes_its_lines():
    path = real("brain_8ch/brain_8ch_noise.h5")
    with h5py.File(path) as file:
        kspace = file["kspace"][0]  # coil, readout, line
    found = read(path)
    assert (found.layout, found.events.shape) == ((1, 1, 180), (180, 8, 230))
    np.testing.assert_array_equal(found.events, kspace.transpose(2, 0, 1))
    assert found.protocol.fov == pytest.approx((0.23, 0.18, 0.005))
