"""Gradient impulse response function: what a site has measured of its gradient system."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trajdesign.errors import InputError
from trajdesign.files.arrays import read_npz
from trajdesign.files.untrusted import ending, read_text

# Of a response, and of a field, m; resonances of real gradient systems stay below 2, their fields below 10 mm.
_LARGEST, _LARGEST_FIELD = 10.0, 1.0


@dataclass(frozen=True)
class _Measured:
    """What a file holds: frequencies (n,), Hz; the response ([axis that acts,] axis, n), and of the field (axis, n)."""

    frequency: np.ndarray
    response: np.ndarray
    b0: np.ndarray | None = None


def girf(gradient: Tensor, raster: float, *, path: str) -> Tensor | tuple[Tensor, Tensor]:
    """Return the gradient after a measured linear response (Vannesjo et al., MRM 2013, doi:10.1002/mrm.24263).

    With the field at the isocentre where it was measured too. What follows the last sample is taken to come down to 0
    in a straight line, and the first sample to have lasted.

    Parameters
    ----------
    path
        ``.npz`` with ``frequency_hz`` (n,), rising from 0, and ``response`` (axis, n), complex, 1 where the gradient
        system is perfect, or with cross terms (axis that acts, axis that plays, n); and ``b0`` (axis that plays, n),
        complex, T of field at the isocentre for each T/m, so m, or none. Or ``.csv`` with the columns frequency, real
        and imaginary part of each axis. The response is interpolated in between, and constant beyond.
    """
    try:
        changed = Path(path).stat().st_mtime_ns
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:  # no name of a file: too long, or with a NUL
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    measured = _read(str(Path(path).absolute()), changed)
    n, n_axes = gradient.shape[-2:]
    if len(measured.response) < n_axes:
        raise InputError(f"{path} has {len(measured.response)} axes; the gradient has {n_axes}.")
    first = gradient[..., :1, :]
    ramp = torch.linspace(1, 0, n, dtype=gradient.dtype, device=gradient.device)[:, None]
    departure = gradient - first
    spectrum = torch.fft.rfft(torch.cat([departure, ramp * departure[..., -1:, :]], dim=-2), dim=-2)
    at = np.fft.rfftfreq(2 * n, raster)

    def answered(response: np.ndarray) -> Tensor:
        """Return what a response ([out,] axis, n) makes of the gradient (..., sample, axis or out)."""
        factors = torch.from_numpy(_interpolated(at, measured.frequency, response)).to(gradient.device)
        static = torch.from_numpy(response[..., 0].real.copy()).to(gradient)
        if response.ndim == 2:
            lasting, acting = first * static, factors.T * spectrum
        else:
            lasting, acting = first @ static.T, torch.einsum("oaf,...fa->...fo", factors, spectrum)
        return lasting + torch.fft.irfft(acting, 2 * n, dim=-2)[..., :n, :].to(gradient.dtype)

    axes = (slice(n_axes),) * (measured.response.ndim - 1)
    actual = answered(measured.response[axes])
    return actual if measured.b0 is None else (actual, answered(measured.b0[None, :n_axes])[..., 0])


def _interpolated(at: np.ndarray, frequency: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return a response (..., n) at other frequencies, (..., frequency)."""
    rows = [np.interp(at, frequency, row) for row in response.reshape(-1, response.shape[-1])]
    return np.stack(rows).reshape(*response.shape[:-1], len(at))


@lru_cache(maxsize=4)
def _read(path: str, changed: int) -> _Measured:
    """Return what a file holds, read once for each time that it `changed`."""
    b0 = None
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
        for key, kinds in (("frequency_hz", "fiu"), ("response", "fiuc"), ("b0", "fiuc")):
            if key in arrays and arrays[key].dtype.kind not in kinds:
                raise InputError(
                    f"{path}: {key} is {arrays[key].dtype}; frequencies are real numbers, responses numbers."
                )
        with np.errstate(over="ignore"):  # of more digits than double precision, to infinity
            frequency = arrays["frequency_hz"].astype(np.float64)
            response = np.atleast_2d(arrays["response"]).astype(np.complex128)
            b0 = np.atleast_2d(arrays["b0"]).astype(np.complex128) if "b0" in arrays else None
    fits = frequency.ndim == 1 and len(frequency) > 1 and response.ndim in (2, 3) and len(response) > 0
    fits = fits and response.shape[-1] == len(frequency)
    rises = fits and frequency[0] == 0 and np.isfinite(frequency).all() and (np.diff(frequency) > 0).all()
    if not rises or not np.isfinite(response).all():
        raise InputError(f"{path}: the frequencies must rise from 0, and each axis have a finite response to each.")
    if response.ndim == 3 and response.shape[0] != response.shape[1]:
        raise InputError(f"{path}: {response.shape[0]} axes act and {response.shape[1]} play; they must be the same.")
    largest = float(np.abs(response).max())
    if largest > _LARGEST:
        raise InputError(f"{path}: the response reaches {largest:g}; a perfect gradient system has 1. In percent?")
    if b0 is not None:
        if b0.shape != (len(response), len(frequency)) or not np.isfinite(b0).all():
            raise InputError(f"{path}: b0 has the shape {b0.shape}; it must be finite, of each axis and frequency.")
        largest = float(np.abs(b0).max())
        if largest > _LARGEST_FIELD:
            raise InputError(
                f"{path}: b0 reaches {largest:g} m, the field of a gradient so far from the isocentre; real ones reach "
                "millimetres. In another unit than T for each T/m?"
            )
    return _Measured(frequency, response, b0)
