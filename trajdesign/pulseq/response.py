"""What a whole Pulseq file encodes under the response of the gradient system: k, and the phase of its samples."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.physics.response import Response
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader.sequence import SeqFile


def k_of_file(played: SeqFile, response: Response) -> Sequence[np.ndarray]:
    """Return k at the samples of each ADC event (sample, 3), 1/m, with the response to everything that a file plays.

    The gradient system is at rest before the file.
    """
    if response.is_perfect:
        return played.k
    found = list(played.k)
    for events, centres, missing, _ in _answers(played, response):
        departures = played.k_of([(centres, missing[:, axis]) for axis in range(3)])
        for event in events:
            found[event] = found[event] + departures[event]
    return tuple(found)


def phase_of_file(played: SeqFile, response: Response) -> Sequence[np.ndarray] | None:
    """Return by how much the field at the middle of the image turns the spins at the samples of each ADC event, rad.

    Each is (sample,). It counts from the last excitation, and a refocusing pulse reverses it, as it does k; the signal
    has the factor exp(-i phase). None where the response tells no field. The gradient system is at rest before the
    file.
    """
    if response.is_perfect:
        return None
    found: dict[int, np.ndarray] = {}
    for events, centres, _, field in _answers(played, response):
        if field is None:
            return None
        turns = played.k_of([(centres, field)] * 3)
        found |= {event: 2 * math.pi * turns[event][:, 0] for event in events}
    return tuple(found[event] for event in range(len(played.adcs)))


def left_out_of_file(played: SeqFile, response: Response, fov: Sequence[float]) -> float:
    """Return the `Response.left_out`, rad, of all that a file samples, in a field of view, m."""

    def phase(response: Response) -> torch.Tensor | None:
        found = phase_of_file(played, response)
        return None if found is None else torch.from_numpy(np.concatenate(found))

    return response.left_out(fov, phase)


def _answers(
    played: SeqFile, response: Response
) -> Iterator[tuple[list[int], NDArray[np.floating], NDArray[np.floating], NDArray[np.floating] | None]]:
    """Yield, for each place at which ADC events sample, these, and how the response departs from what is played there.

    Yields
    ------
    events
        Their numbers.
    times
        Centres of the raster cells (cell,), s.
    missing, field
        What acts less what is played (cell, 3), Hz/m, and the field (cell,), Hz, or None.
    """
    raster, gamma = played.rasters["GradientRasterTime"], played.scanner("the Pulseq file").gamma
    told = torch.from_numpy(played.sampled(raster, gamma)).T.contiguous()
    centres = (np.arange(len(told)) + 0.5) * raster
    places = coherence.places(played) if response.is_local else np.zeros((len(played.adcs), 3))
    for place in np.unique(places, axis=0):
        gradient, field = response.at(place.tolist()).acting(told, raster)
        events = np.flatnonzero((places == place).all(axis=1)).tolist()
        yield events, centres, gamma * (gradient - told).numpy(), None if field is None else gamma * field.numpy()
