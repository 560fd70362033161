"""Gradient impulse response function: what a site has measured of its gradient system."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trajdesign.errors import InputError
from trajdesign.files.arrays import read_npz
from trajdesign.files.untrusted import ending, read_text

_LARGEST = 10.0  # of a response; resonances of real gradient systems stay below 2


def girf(gradient: Tensor, raster: float, *, path: str) -> Tensor:
    """Return the gradient after a measured linear response (Vannesjo et al., MRM 2013, doi:10.1002/mrm.24263).

    What follows the last sample is taken to come down to 0 in a straight line, and the first sample to have lasted.

    Parameters
    ----------
    path
        ``.npz`` with ``frequency_hz`` (n,), rising from 0, and ``response`` (axis, n), complex, 1 where the gradient
        system is perfect; or ``.csv`` with the columns frequency, real and imaginary part of each axis. The response
        is interpolated in between, and constant beyond.
    """
    try:
        changed = Path(path).stat().st_mtime_ns
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:  # no name of a file: too long, or with a NUL
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    frequency, response = _read(str(Path(path).absolute()), changed)
    n, n_axes = gradient.shape[-2:]
    if len(response) < n_axes:
        raise InputError(f"{path} has {len(response)} axes; the gradient has {n_axes}.")
    first = gradient[..., :1, :]
    ramp = torch.linspace(1, 0, n, dtype=gradient.dtype, device=gradient.device)[:, None]
    departure = gradient - first
    padded = torch.cat([departure, ramp * departure[..., -1:, :]], dim=-2)
    at = np.fft.rfftfreq(2 * n, raster)
    factors = np.stack([np.interp(at, frequency, axis) for axis in response[:n_axes]], axis=-1)
    spectrum = torch.from_numpy(factors).to(gradient.device) * torch.fft.rfft(padded, dim=-2)
    static = torch.from_numpy(response[:n_axes, 0].real.copy()).to(gradient)
    return first * static + torch.fft.irfft(spectrum, 2 * n, dim=-2)[..., :n, :].to(gradient.dtype)


@lru_cache(maxsize=4)
def _read(path: str, changed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies (n,), Hz, and the response (axis, n), read once for each time that the file `changed`."""
    if ending(path) == ".csv":
        rows = [line for line in read_text(path).splitlines() if line.partition("#")[0].strip()]
        try:
            table = np.loadtxt(rows or ["0"], delimiter=",", comments="#", ndmin=2)  # of none numpy makes a warning
        except ValueError as error:
            raise InputError(f"{path} is no table of numbers: {error}.") from None
        frequency, response = table[:, 0], (table[:, 1::2] + 1j * table[:, 2::2]).T if table.shape[1] % 2 else table[:0]
    else:
        arrays = read_npz(path)
        if not {"frequency_hz", "response"} <= arrays.keys():
            raise InputError(f"{path} lacks frequency_hz or response.")
        for key, kinds in (("frequency_hz", "fiu"), ("response", "fiuc")):
            if arrays[key].dtype.kind not in kinds:
                raise InputError(
                    f"{path}: {key} is {arrays[key].dtype}; frequencies are real numbers, responses numbers."
                )
        with np.errstate(over="ignore"):  # of more digits than double precision, to infinity
            frequency = arrays["frequency_hz"].astype(np.float64)
            response = np.atleast_2d(arrays["response"]).astype(np.complex128)
    fits = frequency.ndim == 1 and len(frequency) > 1 and response.ndim == 2 and response.shape[1] == len(frequency)
    rises = fits and frequency[0] == 0 and np.isfinite(frequency).all() and (np.diff(frequency) > 0).all()
    if not rises or not np.isfinite(response).all():
        raise InputError(f"{path}: the frequencies must rise from 0, and each axis have a finite response to each.")
    largest = float(np.abs(response).max())
    if largest > _LARGEST:
        raise InputError(f"{path}: the response reaches {largest:g}; a perfect gradient system has 1. In percent?")
    return frequency, response
