"""ISMRMRD raw data (MRD) ``.h5``: a header, and one acquisition a shot with its k; the export has no signal yet."""

import contextlib
import io
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.interfaces import Format
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory
from trajdesign.units import GAMMA

if TYPE_CHECKING:
    import ismrmrd

_UNITS = "1/FOV"


class Mrd(Format):
    """ISMRMRD raw data (MRD) without signal yet: a header, and one acquisition a shot with its k.

    It is for Gadgetron, mrpro and others (Inati et al., MRM 2017, doi:10.1002/mrm.26089). ``traj`` of each acquisition
    is in cycles per field of view, as the user parameter ``trajectory_units`` of the header's trajectory description
    says; the data are zeros of one channel. The header's user parameters ``nucleus`` and ``gamma_hz_per_t`` say whose
    signal it is; its resonance frequency is that of 1H, as the format has it.

    Parameters
    ----------
    field_strength
        Of the magnet, T; the header asks for the resonance frequency of 1H.
    slice_thickness
        Of a 2D trajectory's slice, m.
    """

    ending = ".h5"

    def __init__(self, *, field_strength: float = 3.0, slice_thickness: float = 5e-3) -> None:
        self.field_strength, self.slice_thickness = field_strength, slice_thickness

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write header and trajectory, and return ``n_acquisitions``; options that are not positive are refused."""
        acquisition = trajectory.acquisition
        no_signal = np.zeros((1, acquisition.n_samples), dtype=np.complex64)
        k = trajectory.k_adc.detach().cpu().double().numpy()
        n_of_frame = acquisition.shots_a_frame
        readouts = [
            Readout(no_signal, of_shot, shot % n_of_frame, frame=shot // n_of_frame) for shot, of_shot in enumerate(k)
        ]
        options = {"field_strength": self.field_strength, "slice_thickness": self.slice_thickness}
        write(path, readouts, acquisition, trajectory.scanner, **options)
        return {"n_acquisitions": acquisition.n_shots}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the file, and hold its header against the trajectory."""
        ismrmrd = _library()
        with contextlib.closing(ismrmrd.Dataset(io.BytesIO(path.read_bytes()), create_if_needed=False)) as file:
            # not by the library's classes, which in each version lack another element
            header = ElementTree.fromstring(file.read_xml_header())
            cycles = np.stack([file.read_acquisition(i).traj for i in range(file.number_of_acquisitions())])
        acquisition = trajectory.acquisition
        extent = header.find("{*}encoding/{*}encodedSpace/{*}fieldOfView_mm")
        sizes = [] if extent is None else [float(extent.findtext(f"{{*}}{axis}", "nan")) for axis in "xyz"]
        fov = np.array(sizes[: acquisition.n_dims]) * 1e-3
        if fov.shape != (acquisition.n_dims,) or not np.allclose(fov, acquisition.fov):
            raise LimitError(f"the written header has the field of view {fov} m, not {acquisition.fov}.")
        scanner, of = trajectory.scanner, "{*}userParameters/{*}userParameter"
        told = header.findtext(f"{of}String/{{*}}value"), float(header.findtext(f"{of}Double/{{*}}value", "nan"))
        if told != (scanner.nucleus, scanner.gamma):
            raise LimitError(
                f"the written header says {told} of the nucleus, not {scanner.nucleus} and {scanner.gamma!r}."
            )
        return {"mrd": cycles.astype(float) / fov}, {}


@dataclass(frozen=True)
class Readout:
    """What one ADC event sampled: `signal` (coil, sample), complex, at `k` (sample, dim), 1/m.

    `shot`, of its `frame`, `number` of the slice, `partition` and `average` are counters; noise has none. `dwell` is
    the time per sample, s, if it is not that of the acquisition. `stamp` counts ticks since the last R wave.
    """

    signal: np.ndarray
    k: np.ndarray
    shot: int = 0
    number: int = 0
    average: int = 0
    is_noise: bool = False
    is_calibration: bool = False
    dwell: float | None = None
    frame: int = 0
    partition: int = 0
    stamp: int = 0


def write(
    path: Path,
    readouts: Sequence[Readout],
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    field_strength: float = 3.0,
    slice_thickness: float = 5e-3,
) -> None:
    """Write raw data with the k of every sample.

    Parameters
    ----------
    path
        The file.
    readouts
        In the order in which they were played.
    acquisition
        Field of view, matrix and timing for the header.
    scanner
        Nucleus and gamma for the header.
    field_strength, slice_thickness
        As for `Mrd`, positive.
    """
    if not (field_strength > 0 and slice_thickness > 0):
        raise ConfigError(f"field_strength {field_strength:g}, slice_thickness {slice_thickness:g}: both are positive.")
    ismrmrd = _library()
    of_slices: dict[int, list[int]] = {}
    for count, one in enumerate(readouts):
        if not (one.is_noise or one.is_calibration):
            of_slices.setdefault(one.number, []).append(count)
    flags = {
        ismrmrd.ACQ_FIRST_IN_SLICE: {counts[0] for counts in of_slices.values()},
        ismrmrd.ACQ_LAST_IN_SLICE: {counts[-1] for counts in of_slices.values()},
        ismrmrd.ACQ_IS_NOISE_MEASUREMENT: {count for count, one in enumerate(readouts) if one.is_noise},
        ismrmrd.ACQ_IS_PARALLEL_CALIBRATION: {count for count, one in enumerate(readouts) if one.is_calibration},
    }
    content = io.BytesIO()  # HDF5 ends the process where a disk is full
    with contextlib.closing(ismrmrd.Dataset(content)) as file:
        frequency, n_coils = round(GAMMA["1H"] * field_strength), len(readouts[0].signal)
        sizes = len(of_slices), 1 + max(one.partition for one in readouts), n_coils
        header = _header(acquisition, scanner, sizes, frequency, slice_thickness)
        file.write_xml_header(header.toXML("utf-8"))
        for count, one in enumerate(readouts):
            cycles = one.k * np.array(acquisition.fov)
            readout = ismrmrd.Acquisition()
            readout.resize(one.signal.shape[1], n_coils, acquisition.n_dims)
            readout.traj[:] = cycles
            readout.data[:] = one.signal
            readout.sample_time_us = (one.dwell or acquisition.dwell) * 1e6
            readout.center_sample = int(np.square(cycles).sum(axis=1).argmin())
            readout.idx.kspace_encode_step_1, readout.idx.slice = one.shot, one.number
            readout.idx.average, readout.idx.phase, readout.scan_counter = one.average, one.frame, count
            readout.idx.kspace_encode_step_2, readout.physiology_time_stamp[0] = one.partition, one.stamp
            for flag, counts in flags.items():
                if count in counts:
                    readout.set_flag(flag)
            file.append_acquisition(readout)
    path.write_bytes(content.getbuffer())


def _header(
    acquisition: Acquisition, scanner: Scanner, counts: tuple[int, ...], frequency: int, slice_thickness: float
) -> "ismrmrd.xsd.ismrmrdHeader":
    """Return the header of one encoding; `counts` are of slices, partitions, coils, `frequency` is that of 1H, Hz."""
    n_slices, n_partitions, n_coils = counts
    xsd = _library().xsd
    matrix = [*acquisition.matrix, 1][:3]
    extent = [1e3 * x for x in (*acquisition.fov, slice_thickness)][:3]
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**dict(zip("xyz", matrix, strict=True))),
        fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", extent, strict=True))),
    )
    n_frames = acquisition.n_frames
    shots = xsd.limitType(minimum=0, maximum=acquisition.shots_a_frame - 1, center=0)
    slices, partitions, frames = (
        xsd.limitType(minimum=0, maximum=n - 1, center=0) if n > 1 else None for n in (n_slices, n_partitions, n_frames)
    )
    description = xsd.trajectoryDescriptionType(
        identifier="trajdesign",
        userParameterDouble=[xsd.userParameterDoubleType(name="dwell_time_s", value=acquisition.dwell)],
        userParameterString=[xsd.userParameterStringType(name="trajectory_units", value=_UNITS)],
    )
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=shots, kspace_encoding_step_2=partitions, slice=slices, phase=frames
        ),
        trajectory=xsd.trajectoryType.OTHER,
        trajectoryDescription=description,
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=frequency)
    system = xsd.acquisitionSystemInformationType(receiverChannels=n_coils)
    of = xsd.userParametersType(
        userParameterDouble=[xsd.userParameterDoubleType(name="gamma_hz_per_t", value=scanner.gamma)],
        userParameterString=[xsd.userParameterStringType(name="nucleus", value=scanner.nucleus)],
    )
    return xsd.ismrmrdHeader(
        experimentalConditions=conditions,
        acquisitionSystemInformation=system,
        encoding=[encoding],
        userParameters=of,
    )


def _library() -> Any:
    with warnings.catch_warnings():  # the import turns every warning on for good
        import ismrmrd
    return ismrmrd
