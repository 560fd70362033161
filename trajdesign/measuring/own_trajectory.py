"""Where the samples of an ISMRMRD file with its own trajectory lie, and which shot, slice and repetition they are.

Such a file comes from whoever has put k into it: its counters of slices and repetitions are meant, other than those of
a scanner that played Pulseq.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.data.measured.measurement import Measurement
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import places, solving
from trajdesign.measuring.assignment import Assigned

_CORRECTIONS = ("phase correction", "phase stabilisation", "surface coil correction")
# What is no part of an image, of the flags of a `Measurement`.
_OTHER = ("noise", "calibration", "navigator", "dummy", *_CORRECTIONS)
# Counters of which an image has one value.
_ONE = ("partition", "contrast", "phase", "set")
# How files write each unit, without spaces.
_UNITS = {
    "1/FOV": ("1/fov", "cycles/fov"),
    "1/m": ("1/m", "cycles/m"),
    "rad/m": ("rad/m",),
    "1/pixel": ("1/pixel", "cycles/pixel"),
    "rad/pixel": ("rad", "rad/pixel", "radians", "radians/pixel"),
}
# How far k reaches of what the matrix holds: at least, where this tells the unit, and at most.
_LEAST, _MOST = 0.85, 1.05
# How far k of repetitions may differ, 1/FOV, and that along z, as the file has it: what single precision loses.
_SAME = 1e-3
# Where a file does not tell the time between samples, which then is of no use, s.
_ANY_DWELL = 1e-6


def by_own(
    measured: Measurement, matrix: Sequence[int] | None, fov: Sequence[float] | None
) -> tuple[Assigned, list[Encoding], str]:
    """Return samples in the places that the file's own trajectory tells, the encoding of each slice, and the unit of k.

    All acquisitions of one slice and repetition are the shots of an image, averages too; those that the file calls
    noise, calibration, navigators, corrections or dummies are left out.

    Parameters
    ----------
    measured
        From an ISMRMRD file.
    matrix, fov
        Pixels along x and y, and field of view, m; by default those that the header says are encoded.

    Raises
    ------
    InputError
        If acquisitions differ in samples, coils or what they encode, k is no 2D one, or its unit is not clear.
    ConfigError
        If the file holds no trajectory, or matrix or field of view make no sense.
    """
    path = measured.path
    if measured.trajectory is None:
        raise ConfigError(places.NEEDED)
    used = ~np.any([measured.flags.get(name, np.zeros(len(measured.events), bool)) for name in _OTHER], axis=0)
    events, k = _alike(measured, used)
    whole = _acquisition(measured, matrix, fov, events)
    unit, size = _unit(k, measured.trajectory_unit, whole, str(path))
    k = k / size
    counters = {name: values[used] for name, values in measured.counters.items()}
    for name in _ONE:
        if len(np.unique(counters.get(name, 0))) > 1:
            raise InputError(
                f"{path} has {len(np.unique(counters[name]))} values of the counter {name}; one image has one."
            )
    nothing = np.zeros(len(events), dtype=np.int64)
    repetition, number = counters.get("repetition", nothing), counters.get("slice", nothing)
    groups = [
        [np.flatnonzero((repetition == frame) & (number == one)) for one in np.unique(number)]
        for frame in np.unique(repetition)
    ]
    sizes = {len(group) for frame in groups for group in frame}
    if len(sizes) > 1:
        raise InputError(
            f"{path} has {min(sizes)} to {max(sizes)} acquisitions in its {len(groups)} repetition(s) of "
            f"{len(groups[0])} slice(s); they must be as many in each."
        )
    first = [k[group] for group in groups[0]]
    apart = max(np.abs((k[g] - of) * whole.fov).max() for frame in groups for g, of in zip(frame, first, strict=True))
    if apart > _SAME:
        raise InputError(
            f"{path} samples other k in each repetition: up to {apart:.3g}/FOV apart; give one repetition."
        )
    acquisition = replace(whole, n_shots=sizes.pop())
    kspace = np.stack([np.stack([events[group].swapaxes(0, 1) for group in frame]) for frame in groups])
    found = Assigned(
        kspace=torch.from_numpy(np.ascontiguousarray(kspace)),
        acquisition=acquisition,
        noise=measured.noise,
        noise_dwell=None if measured.dwell is None else measured.noise_dwell,
        is_timed=measured.dwell is not None,
    )
    return found, [solving.encoding_at(torch.from_numpy(place), acquisition) for place in first], unit


def _alike(measured: Measurement, used: NDArray[np.bool_]) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """Return the samples (event, coil, sample) and k (event, sample, 2), as the file has it, of what is used."""
    path = measured.path
    if not used.any():
        raise InputError(f"{path} holds no acquisition of an image: all {len(used)} are flagged as something else.")
    of = measured.select(used)
    parts = [
        slice(before, event.shape[1] - after) for event, (before, after) in zip(of.events, of.discard, strict=True)
    ]
    assert of.trajectory is not None
    events = [event[:, part] for event, part in zip(of.events, parts, strict=True)]
    k = [one[part] for one, part in zip(of.trajectory, parts, strict=True)]
    for name, counts in (
        ("samples", {event.shape[1] for event in events}),
        ("coils", {event.shape[0] for event in events}),
        ("dimensions of k", {one.shape[1] for one in k}),
    ):
        if len(counts) != 1:
            raise InputError(
                f"{path} has acquisitions of {min(counts)} to {max(counts)} {name}; one image needs one number."
            )
    places = np.stack(k).astype(float)
    if places.shape[2] not in (2, 3) or not np.isfinite(places).all():
        raise InputError(f"{path} holds k of {places.shape[2]} dimensions, or some that is not finite; images are 2D.")
    if places.shape[2] == 3 and np.abs(places[..., 2]).max() > _SAME:
        raise InputError(
            f"{path} holds k along a third axis (or weights there); volumes are not reconstructed from it."
        )
    return np.stack(events), places[..., :2]


def _acquisition(
    measured: Measurement,
    matrix: Sequence[int] | None,
    fov: Sequence[float] | None,
    events: NDArray[np.complex64],
) -> Acquisition:
    """Return the acquisition of all events as shots, with what the header or the options say is encoded."""
    pixels = tuple(matrix) if matrix is not None else measured.protocol.encoded_matrix
    extent = tuple(fov) if fov is not None else measured.protocol.encoded_fov
    for name, given in (("matrix", pixels), ("fov", extent)):
        if len(given) != 2:
            raise ConfigError(f"{measured.path} does not tell what it encodes; give {name} along x and y.")
    dwell = _ANY_DWELL if measured.dwell is None else measured.dwell
    try:
        return Acquisition(extent, pixels, len(events), events.shape[2], dwell)
    except ConfigError as error:
        if matrix is not None or fov is not None:
            raise
        raise InputError(f"{measured.path}: {error}") from None


def _unit(k: NDArray[np.float64], told: str, grid: Acquisition, path: str) -> tuple[str, NDArray[np.float64]]:
    """Return the unit of a file's k, and how many of it are 1/m along each axis."""
    fov, pixel = np.array(grid.fov), np.array(grid.voxel)
    sizes = {
        "1/FOV": fov,
        "1/m": np.ones(2),
        "rad/m": np.full(2, 2 * math.pi),
        "1/pixel": pixel,
        "rad/pixel": 2 * math.pi * pixel,
    }
    reach = {name: float((np.abs(k).max((0, 1)) / size / grid.k_max).max()) for name, size in sizes.items()}
    hint = f"with {grid.matrix[0]} x {grid.matrix[1]} pixels over {grid.fov[0]:g} x {grid.fov[1]:g} m"
    if told:
        name = next((name for name, names in _UNITS.items() if "".join(told.lower().split()) in names), None)
        if name is None:
            raise InputError(f"{path} says that k is in {told!r}; known are {', '.join(_UNITS)}.")
        if reach[name] > _MOST:
            raise InputError(
                f"{path} holds k up to {reach[name]:.3g} times what {hint} holds, in the unit {name} of its header; "
                "give matrix, or fov."
            )
        return name, sizes[name]
    fitting = [name for name, part in reach.items() if _LEAST <= part <= _MOST]
    if len(fitting) != 1:
        seen = ", ".join(f"{part:.3g} times in {name}" for name, part in reach.items())
        raise InputError(
            f"{path} does not say in which unit k is, and k does not tell it: {hint} it reaches {seen} what these "
            "hold; give the matrix or fov that it was sampled for."
        )
    return fitting[0], sizes[fitting[0]]
