"""The raw data of a virtual scan, as a scanner stores them: ADC event after ADC event."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.voxel_signal import receiver_noise
from trajdesign.errors import ConfigError
from trajdesign.measuring.reception import Reception
from trajdesign.physics.response import Response
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.pulseq.response import k_of_file
from trajdesign.trajectories.formats.mrd import Readout


@dataclass(frozen=True)
class ReceiverNoise:
    """The noise of the coils.

    Coils i and j have the covariance ``correlation ** |i - j|`` of the variance of each, as neighbours in a row do.

    Parameters
    ----------
    level
        Standard deviation of a pixel's noise in a fully sampled image of one coil, at the dwell time of the imaging.
    acquisition
        Of the imaging.
    correlation
        From 0, where each coil has noise of its own, to below 1.
    """

    level: float
    acquisition: Acquisition
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.correlation < 1:
            raise ConfigError(f"noise_correlation is {self.correlation:g}; it is at least 0 and below 1.")

    def of(self, shape: Sequence[int], seed: int, dwell: float | None = None) -> Tensor:
        """Return noise (coil, ...), complex128; its variance falls with the dwell time, s."""
        white = receiver_noise(tuple(shape), self.level, self.acquisition, seed)
        if dwell is not None and not math.isclose(dwell, self.acquisition.dwell, rel_tol=1e-6):
            white = white * math.sqrt(self.acquisition.dwell / dwell)
        if not self.correlation:
            return white
        coil = torch.arange(shape[0], dtype=torch.float64)
        root = torch.linalg.cholesky(self.correlation ** (coil[:, None] - coil).abs())
        return torch.tensordot(root.to(white.dtype), white, dims=1)


def calibration(
    whole: SeqFile, physics: Reception, coil_images: Tensor, acquisition: Acquisition, response: Response
) -> dict[int, Readout]:
    """Return what the ADC events for coil maps alone sample of an object, without noise, by the index of their block.

    Parameters
    ----------
    whole
        The file.
    physics
        Of the object, in `Reception.sampled`.
    coil_images, acquisition
        The object as the coils see it (coil, y, x), and its field of view and matrix. Of a film (coil, frame, y, x) it
        is the mean of all frames.
    response
        Of the gradient system.
    """
    told = whole.only(whole.is_calibration & (whole.label("NOISE") == 0) & (coherence.excited(whole) >= 0))
    if not told.adcs:
        return {}
    physics = replace(physics, played=replace(told, k=k_of_file(told, response)))
    if acquisition.n_frames > 1:
        coil_images, acquisition = coil_images.mean(dim=1), acquisition.frame
    counts = np.array([adc.count for adc in told.adcs])
    lines, slices, partitions = (told.label(name) for name in ("LIN", "SLC", "PAR"))
    found = dict[int, Readout]()
    for count in np.unique(counts):
        events = np.flatnonzero(counts == count)
        signal = physics.sampled(coil_images, events[:, None], acquisition)[0][:, :, 0].to(torch.complex64)
        for place, i in enumerate(events.tolist()):
            counters = int(lines[i]), int(slices[i])
            k = physics.played.k[i][:, : acquisition.n_dims]
            found[told.adcs[i].index] = Readout(
                signal[:, place].numpy(), k, *counters, is_calibration=True, partition=int(partitions[i])
            )
    return found


def readouts(
    whole: SeqFile,
    played: SeqFile,
    acquisition: Acquisition,
    slices: Sequence[NDArray[np.integer]],
    signals: Sequence[Tensor],
    calibration: dict[int, Readout],
    noise: ReceiverNoise,
    seed: int,
    *,
    is_stack: bool = False,
) -> list[Readout]:
    """Return every ADC event of a file in the order in which it is played, also those of noise alone.

    Parameters
    ----------
    whole, played
        The file, and what of it samples the object for an image.
    acquisition
        Of the object, for its axes and frames.
    slices
        Events of `played` of each slice (shot, repetition), or where `is_stack` of each partition.
    signals
        Of each slice's events (coil, shot times repetition, sample), with noise.
    calibration
        What `calibration` returns.
    noise, seed
        Of the other events.
    """
    found: dict[int, Readout] = {}
    n_dims, n_of_frame = acquisition.n_dims, acquisition.shots_a_frame
    for number, (events, signal) in enumerate(zip(slices, signals, strict=True)):
        for count, ((shot, average), index) in enumerate(np.ndenumerate(events)):
            k, (frame, line) = played.k[int(index)][:, :n_dims], divmod(shot, n_of_frame)
            one = Readout(signal[:, count].numpy(), k, line, number, average, frame=frame)
            found[played.adcs[index].index] = replace(one, number=0, partition=number) if is_stack else one
    for count, adc in enumerate(whole.adcs):
        if adc.index not in found:
            noisy = noise.of((len(signals[0]), adc.count), seed + count, adc.dwell).numpy()
            silent = Readout(np.zeros_like(noisy), np.zeros((adc.count, n_dims)), is_noise=True)
            one = calibration.get(adc.index, silent)
            found[adc.index] = replace(one, signal=one.signal + noisy, dwell=adc.dwell)
    return [found[adc.index] for adc in whole.adcs]
