"""Acoustic resonances: how strongly a gradient drives the frequencies at which a gradient coil rings.

A site knows bands that its coil must not be driven in, as a centre and a width (Siemens: in the ``.asc`` file) or as
forbidden echo spacings of EPI (GE: 1 / (2 echo spacing), each with an amplitude). A spectrum here is in T/m: a sine of
amplitude A, played all the time, has the value A at its frequency, whatever the raster and the window. So a limit
is an amplitude: GE's tables give one; elsewhere it is the value of a protocol that the site plays without concern.
The axes are combined as root sum of squares, which no turn of the imaging plane changes.

Gradients are summed at the raster centres; the straight lines between them are lower by (f raster)^2 pi^2 / 3, 0.1
percent at 2 kHz and 10 us.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.physics.siemens_asc import read_asc
from trajdesign.scanner import Finding
from trajdesign.units import ROUNDING

#: Window of a whole sequence, s, and points of its spectrum for each of the window's own: as Pulseq's toolboxes.
WINDOW, _OVERSAMPLING = 50e-3, 3


@dataclass(frozen=True)
class Band:
    """A band that a coil must not be driven in; a `ConfigError` refuses one that is not between 0 and 20 kHz."""

    frequency: float
    """Its centre, Hz."""
    bandwidth: float
    """Its whole width, Hz."""

    def __post_init__(self) -> None:
        if not (self.low > 0 and self.high <= 20e3 and self.bandwidth >= 0):
            raise ConfigError(
                f"the acoustic band of {self.frequency:g} Hz, {self.bandwidth:g} Hz wide, does not lie between 0 and "
                "20000 Hz; give its centre and its whole width in Hz."
            )

    @property
    def low(self) -> float:
        """Hz."""
        return self.frequency - self.bandwidth / 2

    @property
    def high(self) -> float:
        """Hz."""
        return self.frequency + self.bandwidth / 2

    def frequencies(self, step: float) -> Tensor:
        """Return frequencies from edge to edge, at most a step apart (frequency,), Hz, float64."""
        return torch.linspace(self.low, self.high, 1 + math.ceil(self.bandwidth / step), dtype=torch.float64)


@dataclass(frozen=True)
class Exposure:
    """What a whole file does to nerves, and to the resonances of the coil."""

    #: The gradient where nerves respond most: raster centres (time,), s, and values (time, 3), T/m.
    times: NDArray[np.floating]
    gradient: NDArray[np.floating]
    #: Response of the nerves there (time,), in parts of the limit.
    response: NDArray[np.floating]
    #: Amplitude of all axes together in the worst window (frequency,), T/m, at each of the frequencies, Hz.
    frequencies: NDArray[np.floating]
    spectrum: NDArray[np.floating]
    checks: list[Finding]


def read_bands(path: Path | str) -> list[Band]:
    """Return the bands of a gradient system from its ``.asc`` file.

    It raises an `InputError` if the file cannot be read or names no band.
    """
    values = read_asc(path)
    bands = []
    for name in ("aflGCAcousticResonance", "asGPAParameters[0].sGCParameters.aflAcousticResonance"):
        for key, frequency in values.items():
            if key.startswith(f"{name}Frequency[") and frequency:
                bands.append(Band(frequency, values.get(key.replace("Frequency[", "Bandwidth["), 0.0)))
        if bands:
            return bands
    raise InputError(f"{path} names no acoustic resonance (aflAcousticResonanceFrequency).")


def parse_bands(text: str) -> list[Band]:
    """Return bands from ``"centre:width,centre:width"``, Hz, or from the path of an ``.asc`` file.

    It raises a `ConfigError` if it is neither, and an `InputError` if the file cannot be read or names no band.
    """
    if untrusted.ending(text) == ".asc":
        return read_bands(text)
    try:
        return [Band(*map(float, pair.split(":", 1))) for pair in text.split(",")]
    except (TypeError, ValueError):
        raise ConfigError(f"{text!r} is no list of acoustic bands CENTRE:WIDTH,... in Hz, nor an .asc file.") from None


def train_spectrum(shots: Tensor, raster: float, repetition_time: float, frequencies: Tensor) -> Tensor:
    """Return the amplitude of a train of shots that is repeated for ever.

    Such a train has lines at the multiples of 1 / (n_shots repetition_time). At these frequencies this is their
    amplitude, and between them the curve that their amplitudes follow: the readouts may begin at other times, and
    none of them exceeds it.

    It raises a `ConfigError` if the repetition time is shorter than a shot.

    Parameters
    ----------
    shots
        Gradients at the raster centres (..., shot, time, axis), T/m; zero for the rest of the repetition time.
    raster, repetition_time, frequencies
        s, s, and (frequency,), Hz, positive.

    Returns
    -------
    Tensor
        The amplitude (..., frequency, axis), T/m, float64, differentiable.
    """
    n_shots, n = shots.shape[-3], shots.shape[-2]
    if repetition_time < n * raster * (1 - ROUNDING):
        raise ConfigError(f"the repetition time {repetition_time:g} s is shorter than a shot of {n * raster:g} s.")
    centres = raster * (torch.arange(n, dtype=torch.float64) + 0.5)
    begins = repetition_time * torch.arange(n_shots, dtype=torch.float64)
    wave, delay = (torch.exp(-2j * math.pi * frequencies.double()[:, None] * t) for t in (centres, begins))
    of_each = torch.einsum("ft,...sta->...fsa", wave, shots.to(wave))
    lines = (delay[..., None] * of_each).sum(dim=-2)
    return lines.abs() * (2 * raster / (n_shots * repetition_time))


def sequence_spectrum(gradient: Tensor, raster: float, window: float = WINDOW) -> tuple[Tensor, Tensor]:
    """Return the spectra of a whole sequence in overlapping windows.

    Hann windows, each half over the last, the mean of each taken off, as in Pulseq's ``calculate_gradient_spectrum``;
    zeros fill the last one. A sequence shorter than a window is one window.

    Parameters
    ----------
    gradient
        Samples at the raster centres (time, axis), T/m.
    raster, window
        s.

    Returns
    -------
    Tensor
        Frequencies (frequency,), Hz, and the amplitude (window, frequency, axis), T/m, float64, differentiable.
    """
    length = max(2, round(window / raster))
    hop = length // 2
    n_windows = 1 + max(0, math.ceil((len(gradient) - length) / hop))
    missing = length + (n_windows - 1) * hop - len(gradient)
    filled = torch.nn.functional.pad(gradient.double(), (0, 0, 0, missing))
    windows = filled.unfold(0, length, hop)  # (window, axis, time)
    hann = torch.hann_window(length, dtype=torch.float64, device=gradient.device)
    lines = torch.fft.rfft((windows - windows.mean(dim=-1, keepdim=True)) * hann, _OVERSAMPLING * length)
    return torch.fft.rfftfreq(_OVERSAMPLING * length, raster).double(), lines.mT.abs() * (2 / hann.sum())


def combined(amplitude: Tensor) -> Tensor:
    """Return the root sum of squares over the axes of a spectrum (..., frequency, axis)."""
    return torch.linalg.vector_norm(amplitude, dim=-1)


def in_bands(frequencies: Tensor, amplitude: Tensor, bands: Sequence[Band]) -> Tensor:
    """Return the largest amplitude inside each band (..., band) of a spectrum (..., frequency), in its unit.

    It raises a `ConfigError` if the spectrum has no point inside a band.
    """
    largest = []
    for band in bands:
        inside = (frequencies >= band.low) & (frequencies <= band.high)
        if not bool(inside.any()):
            raise ConfigError(
                f"no point of the spectrum lies in the acoustic band from {band.low:g} to {band.high:g} Hz; "
                "a wider band or a longer window has one."
            )
        largest.append(amplitude[..., inside].amax(dim=-1))
    return torch.stack(largest, dim=-1)
