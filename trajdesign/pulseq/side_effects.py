"""What a whole Pulseq file does to nerves, and to the resonances of the coil. Estimates, not proofs of safety."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trajdesign.physics.nerves import NORMAL_MODE, NerveModel, stimulation
from trajdesign.physics.resonances import WINDOW, Band, Exposure, combined, in_bands, sequence_spectrum
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.scanner import Finding, Scanner
from trajdesign.units import plausible

#: A file is taken in parts of so much, s; nerves have forgotten what lies longer back than the overlap.
_PART, _OVERLAP = 5.0, 0.2


def expose(
    file: SeqFile,
    scanner: Scanner,
    nerves: NerveModel,
    *,
    nerve_limit: float = NORMAL_MODE,
    is_own_coil: bool = True,
    bands: Sequence[Band] = (),
    band_limit: float = math.inf,
) -> Exposure:
    """Predict nerve stimulation and the drive of acoustic resonances over a whole file.

    Parameters
    ----------
    file, scanner
        What is played, and whose raster and gamma count.
    nerves, nerve_limit
        Model, and the part of its limit that is allowed.
    is_own_coil
        Whether the model is of this scanner's coil; if not, what is above the limit is a warning.
    bands, band_limit
        Where the coil rings, and the amplitude allowed there, T/m.

    Raises
    ------
    ConfigError
        If a limit is implausible in its unit.
    """
    plausible("nerve_limit", nerve_limit)
    if band_limit != math.inf:
        plausible("band_limit", band_limit)
    raster = scanner.gradient_raster
    worst, spectrum = (-1.0, 0), torch.zeros(0)
    for start, gradient, lead in _parts(file, scanner):
        response = stimulation(nerves, gradient, raster)[lead:]  # also where the file starts and ends within a cell
        top = int(response.argmax())
        worst = max(worst, (float(response[top]), start + lead + top))
        frequencies, windows = sequence_spectrum(gradient[1:-1], raster)
        lines = combined(windows).amax(dim=0)
        spectrum = lines if not len(spectrum) else torch.maximum(spectrum, lines)
    when, value = (worst[1] + 0.5) * raster, round(worst[0], 12)
    where = f"block {file.block_at(when)}, {when * 1e3:.3f} ms"
    is_kept = value <= nerve_limit
    check = Finding("nerve stimulation", value, nerve_limit, "of limit", where, is_kept, is_advice=not is_own_coil)
    shown = round(WINDOW / 2 / raster)
    first = max(0, worst[1] - shown)
    before = max(0, first - round(_OVERLAP / raster)) - 1
    near = torch.from_numpy(file.sampled(raster, scanner.gamma, before, worst[1] + shown).T)
    times, response = (np.arange(before, before + len(near)) + 0.5) * raster, stimulation(nerves, near, raster)
    cut = slice(first - before, None)
    return Exposure(
        times[cut],
        near[cut].numpy(),
        response[cut].numpy(),
        frequencies.numpy(),
        spectrum.numpy(),
        [check, *_resonances(frequencies, spectrum, bands, band_limit)],
    )


def _parts(file: SeqFile, scanner: Scanner) -> Iterator[tuple[int, Tensor, int]]:
    """Yield the first cell of each part, its gradient (time, axis), T/m, and how many cells lead in to it.

    There is one cell more on both sides: before and after a file the gradient is 0.
    """
    raster = scanner.gradient_raster
    n, size, overlap = (round(t / raster) for t in (file.duration, _PART, _OVERLAP))
    for start in range(0, max(n, 1), size):
        lead = min(start, overlap) + 1
        cells = file.sampled(raster, scanner.gamma, start - lead, max(min(start + size, n), start + 2) + 1)
        yield start - lead, torch.from_numpy(cells.T), lead


def _resonances(frequencies: Tensor, spectrum: Tensor, bands: Sequence[Band], limit: float) -> list[Finding]:
    """Return the drive of each band, or without any the strongest line."""
    if not bands:
        top = int(spectrum.argmax())
        where = f"{float(frequencies[top]):.0f} Hz"
        return [Finding("strongest gradient line", float(spectrum[top]), None, "T/m", where, ok=True)]
    driven = in_bands(frequencies, spectrum, bands)
    allowed = None if math.isinf(limit) else limit
    return [
        Finding(
            "acoustic resonance", float(value), allowed, "T/m", f"{band.low:.0f} to {band.high:.0f} Hz", value <= limit
        )
        for band, value in zip(bands, driven.tolist(), strict=True)
    ]
