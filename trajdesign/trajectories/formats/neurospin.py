"""Gradients (``.bin``) for NeuroSpin's arbitrary-gradient sequence on Siemens scanners, as mri-nufft reads them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajdesign.errors import ConfigError, LimitError
from trajdesign.physics import limits
from trajdesign.pulseq.writer import bridges
from trajdesign.tolerances import RASTER_ROUNDING, WRITER_ROUNDING
from trajdesign.trajectory import Trajectory

SUFFIX = ".bin"

#: What a scanner plays, so that k as read back from it is written beside it.
IS_PLAYED = True

_VERSION = 5.1
_RECONSTRUCTION = 1.1
_RESERVED = 7
# Raster that the sequence plays on, s.
_RASTER = 10e-6


def neurospin(trajectory: Trajectory, path: Path, *, bridge_slew: float = 0.7) -> dict[str, Any]:
    """Write the whole shots, prephaser and rewinder included, in version 5.1 of the format.

    The file is a stream of little-endian float32: version, axes, field of view (m), matrix, oversampling of the ADC on
    the gradient raster, gamma (Hz/T), shots, samples a shot, place of the echo in the readout (0 to 1), largest
    gradient (mT/m), two tags, samples of the prephaser and of the rewinder, seven zeros, k of each shot's start and end
    (1/m), and the gradients in parts of the largest. The receiver's timing is the sequence's own.

    Parameters
    ----------
    trajectory
        2D, on a raster of 10 us.
    path
        The file.
    bridge_slew
        Part of the scanner's slew rate that prephaser and rewinder may use.

    Returns
    -------
    dict
        ``n_prephaser``, ``n_readout`` and ``n_rewinder``, the samples of each part.

    Raises
    ------
    ConfigError
        If the raster is another, or the trajectory not 2D.
    LimitError
        If no prephaser or rewinder within the limits exists.
    """
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    if not math.isclose(scanner.gradient_raster, _RASTER):
        raise ConfigError(f"NeuroSpin's sequence plays a sample every 1e-05 s, not {scanner.gradient_raster:g} s.")
    shots = bridges.design(trajectory, bridge_slew=bridge_slew)
    gradient = shots.gradient[..., : acquisition.n_dims]
    largest = np.abs(gradient).max() * 1e3
    ends = np.zeros((2, acquisition.n_shots, acquisition.n_dims))
    centre = int(trajectory.k.detach().square().sum(dim=(0, 2)).argmin())
    header = [
        _VERSION,
        acquisition.n_dims,
        *acquisition.fov,
        *acquisition.matrix,
        math.ceil(scanner.gradient_raster / acquisition.dwell - RASTER_ROUNDING),
        scanner.gamma,
        *gradient.shape[:2],
        centre / (trajectory.k.shape[1] - 1),
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


def read_back(path: Path, trajectory: Trajectory) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the file, and integrate its gradients.

    Returns
    -------
    k
        ``{"neurospin": k at the ADC samples (shot, sample, dim), 1/m}``.
    facts
        The largest gradient (T/m) and slew rate (T/m/s) of the whole shots, as vectors.

    Raises
    ------
    LimitError
        If the file does not hold the shots of the trajectory, or breaks a limit.
    """
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    n_dims, n_shots = acquisition.n_dims, acquisition.n_shots
    values = np.fromfile(path, dtype="<f4").astype(float)
    start = 2 + 2 * n_dims
    n_prephaser, n_rewinder = (int(n) for n in values[start + 8 : start + 10])
    cells = values[start + 10 + _RESERVED + 2 * n_shots * n_dims :] * values[start + 5] * 1e-3
    try:
        gradient = cells.reshape(n_shots, -1, n_dims)
    except ValueError:
        raise LimitError(f"the written file holds {cells.size} gradient samples, not {n_shots} equal shots.") from None
    at_rest = np.pad(gradient, ((0, 0), (1, 1), (0, 0)))
    limits.require_whole(gradient, scanner, WRITER_ROUNDING)
    slew = np.diff(at_rest, axis=1) / scanner.gradient_raster
    facts = {
        "max_gradient": float(np.linalg.norm(gradient, axis=-1).max()),
        "max_slew": float(np.linalg.norm(slew, axis=-1).max()),
    }
    k = np.cumsum(at_rest[:, :-1], axis=1) * values[start + 1] * scanner.gradient_raster
    readout = k[:, n_prephaser : k.shape[1] - n_rewinder]
    if readout.shape != trajectory.k.shape:
        raise LimitError(f"the written file has a readout of the shape {readout.shape}, not {trajectory.k.shape}.")
    return {"neurospin": trajectory.with_k(torch.from_numpy(readout)).k_adc.numpy()}, facts
