"""The raw data of a virtual scan, as a scanner stores them: ADC event after ADC event."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.voxel_signal import receiver_noise
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.trajectories.formats.mrd import Readout


def readouts(
    whole: SeqFile,
    played: SeqFile,
    slices: Sequence[NDArray[np.integer]],
    signals: Sequence[Tensor],
    level: float,
    acquisition: Acquisition,
    seed: int,
) -> list[Readout]:
    """Return every ADC event of a file in the order in which it is played, also those of noise alone.

    Parameters
    ----------
    whole, played
        The file, and what of it samples the object.
    slices
        Events of `played` of each slice (shot, repetition).
    signals
        Of each slice's events (coil, shot times repetition, sample).
    level, acquisition, seed
        Of the noise: see `trajdesign.encoding.voxel_signal.receiver_noise`.
    """
    found: dict[int, Readout] = {}
    for number, (events, signal) in enumerate(zip(slices, signals, strict=True)):
        for count, ((shot, average), index) in enumerate(np.ndenumerate(events)):
            k = played.k[int(index)][:, :2]
            found[played.adcs[index].index] = Readout(signal[:, count].numpy(), k, shot, number, average)
    for count, adc in enumerate(whole.adcs):
        if adc.index not in found:
            noise = receiver_noise((len(signals[0]), adc.count), level, acquisition, seed + count)
            found[adc.index] = Readout(noise.numpy(), np.zeros((adc.count, 2)), is_noise=True)
    return [found[adc.index] for adc in whole.adcs]
