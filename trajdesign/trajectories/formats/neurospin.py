"""Gradients (``.bin``) for NeuroSpin's arbitrary-gradient sequence on Siemens scanners, as mri-nufft reads them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.files import untrusted
from trajdesign.interfaces import Format, Samples
from trajdesign.physics import limits
from trajdesign.scanner import told_nucleus
from trajdesign.trajectory import Trajectory
from trajdesign.units import RASTER_ROUNDING, WRITER_ROUNDING

_VERSION, _VERSIONS = 5.1, (4.1, 4.2, 5.0, 5.1)
_RECONSTRUCTION = 1.1
_RESERVED = 7
# The sequence plays on this raster, s; its files do not tell it.
_RASTER = 10e-6
# Dwell times on these scanners are multiples of this time, s; the file tells the least oversampling alone.
_DWELL_RASTER = 100e-9


class Neurospin(Format):
    """Gradients for NeuroSpin's sequence: whole shots, prephaser and rewinder included, in version 5.1 of the format.

    The file is a stream of little-endian float32: version, axes, field of view (m), matrix, oversampling of the ADC on
    the gradient raster, gamma (Hz/T), shots, samples a shot, place of the echo in the readout (0 to 1), largest
    gradient (mT/m), two tags, samples of the prephaser and of the rewinder, seven zeros, k of each shot's start and end
    (1/m), and the gradients in parts of the largest. The receiver's timing is the sequence's own.

    Parameters
    ----------
    bridge_slew
        Part of the scanner's slew rate that prephaser and rewinder may use.
    """

    ending = ".bin"
    is_played = True
    reads = (".bin",)

    def __init__(self, *, bridge_slew: float = 0.7) -> None:
        self.bridge_slew = bridge_slew

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write whole shots, and return the samples of each part: ``n_prephaser``, ``n_readout``, ``n_rewinder``.

        Raises
        ------
        ConfigError
            If the raster is not 10 us, or the trajectory not 2D.
        LimitError
            If no prephaser or rewinder within the limits exists.
        """
        from trajdesign.pulseq.writer import bridges  # with its solver; reading needs neither

        acquisition, scanner = trajectory.acquisition, trajectory.scanner
        if not math.isclose(scanner.gradient_raster, _RASTER):
            raise ConfigError(f"NeuroSpin's sequence plays a sample every 1e-05 s, not {scanner.gradient_raster:g} s.")
        shots = bridges.design(trajectory, bridge_slew=self.bridge_slew)
        gradient = shots.gradient[..., : acquisition.n_dims]
        largest = np.abs(gradient).max() * 1e3
        ends = np.zeros((2, acquisition.n_shots, acquisition.n_dims))
        centre = int(trajectory.points.detach().square().sum(dim=(0, 2)).argmin())
        header = [
            _VERSION,
            acquisition.n_dims,
            *acquisition.fov,
            *acquisition.matrix,
            math.ceil(scanner.gradient_raster / acquisition.dwell - RASTER_ROUNDING),
            scanner.gamma,
            *gradient.shape[:2],
            centre / (trajectory.points.shape[1] - 1),
            largest,
            _RECONSTRUCTION,
            0.0,  # time of writing: the same trajectory makes the same file
            shots.n_prephaser,
            shots.n_rewinder,
            *[0.0] * _RESERVED,
        ]
        content = np.concatenate([header, ends.ravel(), (gradient * 1e3 / largest).ravel()])
        path.write_bytes(content.astype("<f4").tobytes())  # numpy's tofile does not say that a disk is full
        return {"n_prephaser": shots.n_prephaser, "n_readout": shots.n_readout, "n_rewinder": shots.n_rewinder}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the file as any of the format, and hold the whole shots against the limits."""
        try:
            found = self.read(path)
        except InputError as error:
            raise LimitError(f"the written file does not read back: {error}") from None
        limits.require_whole(found.gradient, trajectory.scanner, WRITER_ROUNDING)  # type: ignore[arg-type]
        at_rest = np.pad(found.gradient, ((0, 0), (1, 1), (0, 0)))  # type: ignore[arg-type]
        slew = np.diff(at_rest, axis=1) / trajectory.scanner.gradient_raster
        facts = {
            "max_gradient": float(np.linalg.norm(at_rest, axis=-1).max()),
            "max_slew": float(np.linalg.norm(slew, axis=-1).max()),
        }
        if found.k.shape != trajectory.points.shape:
            raise LimitError(
                f"the written file has a readout of the shape {found.k.shape}, not {trajectory.points.shape}."
            )
        return {"neurospin": trajectory.with_points(torch.from_numpy(found.k)).k_adc.numpy()}, facts

    def read(self, path: Path) -> Samples:
        """Integrate the gradients of a file; k are control points of the readout alone."""
        content = untrusted.read_bytes(path)
        try:
            with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
                return _read(np.frombuffer(content, dtype="<f4").astype(np.float64), path)
        except ConfigError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, IndexError, OverflowError) as error:
            name = type(error).__name__
            raise InputError(f"{path} is not NeuroSpin's file of gradients, or damaged ({name}).") from None


def _read(values: NDArray[np.float64], path: Path) -> Samples:
    """Return what the numbers of a file say."""
    version, n_dims = round(float(values[0]), 1), _count(values[1])
    if version not in _VERSIONS or n_dims not in (2, 3):
        raise InputError(f"{path} is of version {version} with {n_dims} axes; {_VERSIONS} are known.")
    fov, matrix, head = np.split(values[2:], [n_dims, 2 * n_dims])
    oversampling, gamma, n_shots, n_cells, largest = head[0], head[1], _count(head[2]), _count(head[3]), head[5]
    before, after = map(_count, head[8:10]) if version > 5.05 else (0, 0)
    if min(n_shots, n_cells) < 1 or not 0 <= before <= n_cells - after <= n_cells or not oversampling > 0:
        raise InputError(f"{path} is damaged: {n_shots} shots of {n_cells} steps, {oversampling:g} samples each.")
    if largest < 0:
        raise InputError(f"{path} is damaged: its largest gradient is {largest * 1e-3:g} T/m.")
    body = head[10 + _RESERVED :]
    start = body[: n_shots * n_dims].reshape(n_shots, 1, n_dims)
    n_ends = (2 if version > 4.5 else 1) * n_shots * n_dims
    cells = body[n_ends : n_ends + n_shots * n_cells * n_dims].reshape(n_shots, n_cells, n_dims)
    gradient = cells * largest * 1e-3  # from mT/m
    k = start + np.cumsum(np.pad(gradient, ((0, 0), (1, 0), (0, 0))), 1) * gamma * _RASTER
    return Samples(
        k[:, before : k.shape[1] - after],
        "1/m",
        dwell=float(np.floor(_RASTER / oversampling / _DWELL_RASTER + RASTER_ROUNDING) * _DWELL_RASTER),
        fov=tuple(float(extent) for extent in fov),
        matrix=tuple(map(_count, matrix)),
        raster=_RASTER,
        nucleus=told_nucleus(None, float(gamma)),
        gradient=gradient,
        before=before,
    )


def _count(value: float) -> int:
    """Return the whole number that a float is."""
    if not float(value).is_integer():
        raise ValueError
    return int(value)
