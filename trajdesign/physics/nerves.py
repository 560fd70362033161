"""Peripheral nerve stimulation: how near a gradient comes to what a patient feels, in parts of the limit.

A model says how the nerves respond to the slew rate of each axis; the axes are combined as root sum of squares. 1 is
the limit of the first-level controlled operating mode, 0.8 that of the normal mode. Models are fits to volunteers, and
a prediction is an estimate: the scanner's own supervision is what protects the patient.

The waveform's axes are taken as the scanner's: x, y and z. The nerve impulse response does not change when an oblique
plane turns them, the SAFE model does.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trajdesign.errors import ConfigError, InputError, nearest
from trajdesign.files import untrusted
from trajdesign.physics.siemens_asc import read_asc, value

#: The limits of the two operating modes of IEC 60601-2-33.
NORMAL_MODE, FIRST_LEVEL = 0.8, 1.0


@dataclass(frozen=True)
class ImpulseResponse:
    """The nerve impulse response of IEC 60601-2-33, AA.21: one hyperbolic response for all axes.

    A slew rate S has the effect ``coil_length / rheobase`` times the convolution of S with c / (c + t)^2, c the
    chronaxie: a constant S reaches the limit after the time t when S = rheobase / coil_length (1 + c / t). Each raster
    time enters as the exact integral of that kernel, so that the result does not depend on the raster. See den Boer et
    al., ISMRM 2000, and Schulte and Noeske, doi:10.1002/mrm.25352.
    """

    chronaxie: float
    """s."""
    rheobase: float
    """T/s."""
    coil_length: float
    """Effective length that makes dB/dt of a slew rate, m."""

    def filtered(self, slew: Tensor, raster: float) -> Tensor:
        """Return the response of each axis, signed, to slew rates (..., time, axis), T/m/s; see `stimulation`."""
        edges = raster * torch.arange(slew.shape[-2] + 1, dtype=slew.dtype, device=slew.device)
        kernel = -(self.chronaxie / (self.chronaxie + edges)).diff()
        return causal(slew, kernel) * (self.coil_length / self.rheobase)


@dataclass(frozen=True)
class SafeAxis:
    """Numbers of one axis of the SAFE model: three low passes, their shares, the limit and the coil's scale."""

    times: tuple[float, float, float]
    """s."""
    shares: tuple[float, float, float]
    """They sum to one."""
    limit: float
    """T/m/s."""
    scale: float


@dataclass(frozen=True)
class Safe:
    """The SAFE model: low passes of the slew rate and of its magnitude, for each axis.

    Hebrank and Gebhardt, ISMRM 2000, p. 2007. The low passes are the RC recursion
    ``y[n] = y[n - 1] + raster / (time + raster) (x[n] - y[n - 1])`` of Szczepankiewicz and Witzel's public
    implementation, which sites check Pulseq files with.
    """

    x: SafeAxis
    y: SafeAxis
    z: SafeAxis

    @classmethod
    def read(cls, path: Path | str) -> "Safe":
        """Return the model of a gradient system from its ``.asc`` file.

        It raises an `InputError` if the file cannot be read, lacks a key, or its numbers are no SAFE model.
        """
        values = read_asc(path)

        def number(key: str) -> float:
            return value(values, path, f"GradPatSup.Phys.PNS.{key}", key)

        axes = []
        for axis in "XYZ":
            times = [1e-3 * number(f"flGSWDTau{axis}[{i}]") for i in range(3)]
            shares = [number(f"flGSWDA{axis}[{i}]") for i in range(3)]
            limit = number(f"flGSWDStimulationLimit{axis}")
            scale = value(values, path, f"asGPAParameters[0].sGCParameters.flGScaleFactor{axis}")
            if min(*times, limit, scale) <= 0 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
                raise InputError(
                    f"{path}: axis {axis} has the time constants {times} s, limit {limit:g} T/m/s and scale {scale:g}, "
                    f"which must be positive, and the shares {shares}, none of them negative, which must sum to 1."
                )
            axes.append(SafeAxis(tuple(times), tuple(shares), limit, scale))  # type: ignore[arg-type]
        return cls(*axes)

    def filtered(self, slew: Tensor, raster: float) -> Tensor:
        """Return the response of each axis, not negative, to slew rates (..., time, axis), T/m/s; see `stimulation`."""
        axes = []
        for axis, signed in zip((self.x, self.y, self.z), slew.unbind(dim=-1), strict=False):
            one, two, three = (
                share * causal(part[..., None], _low_pass(time, raster, slew))[..., 0].abs()
                for time, share, part in zip(axis.times, axis.shares, (signed, signed.abs(), signed), strict=True)
            )
            axes.append((one + two + three) * (axis.scale / axis.limit))
        return torch.stack(axes, dim=-1)


#: The models of a patient's nerves in a gradient coil. Their `filtered` returns the response of every axis, in parts of
#: the limit, to slew rates that are constant over a raster time and follow rest.
NerveModel = ImpulseResponse | Safe


def stimulation(model: NerveModel, gradient: Tensor, raster: float) -> Tensor:
    """Return the response of the nerves over time, of all axes together, in parts of the limit; 1 is 100 percent.

    It starts from rest, and the step to the first sample is not part of it: the first response is zero.

    Parameters
    ----------
    model
        Nerves and coil.
    gradient
        Samples at the raster centres (..., time, axis), T/m, straight lines between them.
    raster
        s.

    Returns
    -------
    Tensor
        At the times of the samples (..., time), float64, differentiable; not a number from a sample on that is not
        finite.
    """
    slew = gradient.double().diff(dim=-2) / raster
    finite = slew.isfinite()
    axes = model.filtered(slew.where(finite, slew.new_zeros(())), raster)
    unknown = (~finite).any(dim=-1).cumsum(dim=-1) > 0
    response = torch.linalg.vector_norm(axes, dim=-1).masked_fill(unknown, torch.nan)
    return torch.nn.functional.pad(response, (1, 0))


def _low_pass(time: float, raster: float, like: Tensor) -> Tensor:
    """Return the impulse response of the RC recursion, as long as the slew rates (..., time, axis)."""
    step = raster / (time + raster)
    return step * (1 - step) ** torch.arange(like.shape[-2], dtype=like.dtype, device=like.device)


def causal(signal: Tensor, kernel: Tensor) -> Tensor:
    """Return the convolution of a signal (..., time, axis), zero before, with a kernel (time,), as long as the signal.

    By FFTs with enough zeros that nothing wraps around.
    """
    n = signal.shape[-2]
    size = 1 << (2 * n).bit_length()
    spectrum = torch.fft.rfft(signal, size, dim=-2) * torch.fft.rfft(kernel, size)[:, None]
    return torch.fft.irfft(spectrum, size, dim=-2)[..., :n, :]


#: Nerve impulse responses of GE's gradient coils, as the public pge2 toolbox for Pulseq lists them. For MAGNUS it has
#: 52.2 and 55.2 T/s; this is the one that warns earlier.
COILS = {
    "xrm": ImpulseResponse(334e-6, 23.4, 0.333),
    "xrmw": ImpulseResponse(360e-6, 20.0, 0.324),
    "whole": ImpulseResponse(370e-6, 23.7, 0.344),
    "zoom": ImpulseResponse(354e-6, 29.1, 0.309),
    "hrmbuhp": ImpulseResponse(359e-6, 26.5, 0.370),
    "hrmw": ImpulseResponse(642.4e-6, 17.9, 0.310),
    "magnus": ImpulseResponse(611e-6, 52.2, 0.324),
}


def nerve_model(name: str) -> NerveModel:
    """Return a model: a key of `COILS`, or SAFE from the path of a site's ``.asc`` file.

    It raises a `ConfigError` if the name is neither, and an `InputError` if the file cannot be read or holds no SAFE
    model.
    """
    if name in COILS:
        return COILS[name]
    if untrusted.ending(name) == ".asc":
        return Safe.read(name)
    raise ConfigError(f"unknown nerve model {name!r}, and no path to an .asc file{nearest(name, list(COILS))}")
