"""Raw data in HDF5: every acquisition of an ISMRMRD (MRD) file, and fastMRI's arrays."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.data import ismrmrd_header
from trajdesign.data.hdf5 import chunks, reader, sandbox
from trajdesign.data.measured.measurement import Measurement, Protocol, flagged, joined, slices, stacked
from trajdesign.data.measured.shapes import of_array
from trajdesign.errors import InputError

# Bits of the flags, from 0; the format numbers them from 1.
_FLAGS = {
    18: "noise",
    19: "calibration",
    20: "calibration and image",
    21: "reversed",
    22: "navigator",
    23: "phase correction",
    26: "dummy",
    28: "surface coil correction",
    29: "phase stabilisation",
    30: "phase stabilisation",
}
_COUNTERS = {"kspace_encode_step_2": "partition"}
_COUNTERS |= {name: name for name in ("slice", "repetition", "contrast", "phase", "set")}
# Of high performance, of real time.
_FEEDBACK = (25, 27)

_NEEDED = {"flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "trajectory_dimensions"}
_NEEDED |= {"sample_time_us", "position", "read_dir", "phase_dir", "slice_dir"}


def read(path: Path) -> Measurement:
    """Read raw data in the layout of ISMRMRD, of any version of its libraries, or of fastMRI.

    Raises
    ------
    InputError
        If they are in neither, or the file is damaged.
    """
    sandbox.require_sound([path], "kspace")
    with reader.opened(path) as file:
        if reader.is_mrd(file) and reader.has(file["dataset"], "data"):
            dataset = reader.group(file, "dataset")
            text = reader.text(dataset, "xml")
            rows = reader.table(reader.member(dataset, "data"))
        elif reader.is_own(file, "kspace"):
            data = reader.member(file, "kspace")
            if data.dtype.kind != "c" or len(data.shape) != 4 or min(data.shape) < 1:
                raise InputError(
                    f"{path}: 'kspace' is {data.dtype} of shape {data.shape}; fastMRI's is complex: (slice, coil, "
                    "readout, line)."
                )
            if reader.has(file, "mask"):
                raise InputError(f"{path} has a mask: lines of its 'kspace' were not measured, and hold zeros.")
            reader.require_slices(data)
            text = reader.text(file, "ismrmrd_header")
            found = of_array(path, chunks.read(data)[None].swapaxes(-1, -2), "fastmri")
            return replace(found, protocol=_protocol(ismrmrd_header.parse(text, path))) if text else found
        else:
            raise InputError(
                f"{path} holds no raw data: neither the group 'dataset' of ISMRMRD with 'xml' and 'data' nor the array "
                "'kspace' of fastMRI."
            )
    return _mrd(path, ismrmrd_header.parse(text, path), rows)


def _mrd(path: Path, header: ismrmrd_header.Header, rows: NDArray) -> Measurement:
    """Return the acquisitions of a table, in its order."""
    names = set(rows.dtype.names or ())
    if not {"head", "data", "traj"} <= names or not set(rows.dtype["head"].names or ()) >= _NEEDED:
        raise InputError(f"{path}: 'data' holds no acquisitions of ISMRMRD.")
    feedback = sum(np.uint64(1) << np.uint64(bit) for bit in _FEEDBACK)
    rows = rows[rows["head"]["flags"] & feedback == 0]
    heads = rows["head"]
    n_coils, n_samples, n_dims = (
        heads[name].astype(np.int64) for name in ("active_channels", "number_of_samples", "trajectory_dimensions")
    )
    discard = np.stack([heads["discard_pre"], heads["discard_post"]], axis=1).astype(np.int64)
    wrong = (rows["data"]["n"] != 2 * n_coils * n_samples) | (rows["traj"]["n"] != n_dims * n_samples)
    wrong |= (n_coils < 1) | (n_samples < 1) | (discard.sum(axis=1) > n_samples)
    if wrong.any() or not len(rows):
        which = (
            f"acquisition {np.argmax(wrong)} does not have the samples that it announces"
            if len(rows)
            else "it is empty"
        )
        raise InputError(f"{path} holds no raw data, or is damaged: {which}.")
    events = [
        found.view(np.complex64).reshape(coils, -1)
        for found, coils in zip(reader.sequences(path, rows["data"]), n_coils, strict=True)
    ]
    trajectory = None
    if n_dims.any():
        sequences = reader.sequences(path, rows["traj"])
        trajectory = stacked([k.reshape(n, -1) for k, n in zip(sequences, n_samples, strict=True)])
    flags = flagged(heads["flags"], _FLAGS)
    is_noise = flags.get("noise", np.zeros(len(rows), bool))
    directions = (heads[name].astype(float) for name in ("position", "read_dir", "phase_dir", "slice_dir"))
    return Measurement(
        path=path,
        kind="ismrmrd",
        events=stacked(events),
        flags=flags,
        counters=_counters(heads),
        stamps=_stamps(heads),
        discard=discard,
        dwell=_dwell(heads[~is_noise]),
        noise=joined([events[i] for i in np.flatnonzero(is_noise)]),
        noise_dwell=_dwell(heads[is_noise]),
        oversampling=header.oversampling,
        trajectory=trajectory,
        trajectory_unit=header.trajectory_unit,
        protocol=replace(_protocol(header), slices=slices(*directions)),
    )


def _protocol(header: ismrmrd_header.Header) -> Protocol:
    return Protocol(
        system=header.system,
        name=header.protocol,
        field_strength=header.field_strength,
        fov=header.extent,
        encoded_matrix=tuple(map(int, header.encoded_matrix)) if _are_positive(header.encoded_matrix) else (),
        encoded_fov=tuple(1e-3 * x for x in header.encoded_fov) if _are_positive(header.encoded_fov) else (),
        patient_position=header.patient_position,
    )


def _are_positive(sizes: tuple[float, ...]) -> bool:
    return all(0 < size < math.inf for size in sizes)


def _counters(heads: NDArray) -> dict[str, NDArray[np.int64]]:
    fields = heads.dtype["idx"].names or () if "idx" in (heads.dtype.names or ()) else ()
    return {name: heads["idx"][of].astype(np.int64) for of, name in _COUNTERS.items() if of in fields}


def _stamps(heads: NDArray) -> NDArray[np.int64] | None:
    """Return the first time stamp of the physiology; None without."""
    found = heads["physiology_time_stamp"] if "physiology_time_stamp" in (heads.dtype.names or ()) else None
    return None if found is None or found.ndim != 2 or found.dtype.kind != "u" else found[:, 0].astype(np.int64)


def _dwell(heads: NDArray) -> float | None:
    """Return the dwell time of acquisitions, s; None where they do not tell one."""
    found = np.unique(heads["sample_time_us"])
    return float(found[0]) * 1e-6 if len(found) == 1 and 0 < found[0] < math.inf else None
