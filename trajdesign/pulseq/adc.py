"""How interpreters take ADC events that are too long for one piece."""

import math

import numpy as np

from trajdesign.errors import ConfigError

#: The common interpreters take an ADC event in at most so many equal pieces, of at most so many samples each, a
#: multiple of so many.
MOST_PIECES, LONGEST, DIVISOR = 128, 8192, 4


def segment(n_samples: int, dwell: float, raster: float) -> int:
    """Return the length of the pieces in which interpreters take an ADC event: all of it, or the longest that fits.

    Pieces are equal, a multiple of 4 samples, and end on the gradient raster (``calcAdcSeg`` of Pulseq's toolbox).

    `dwell` and the gradient `raster` are in s.

    Raises
    ------
    ConfigError
        If the event is too long for one piece and cannot be split; the sentence names the nearest lengths that can.
    """
    cell, sample = round(raster * 1e9), round(dwell * 1e9)
    step = math.lcm(DIVISOR, cell // math.gcd(cell, sample))
    multiples = np.arange(step, LONGEST + 1, step)[::-1]

    def longest(n: int) -> int:
        """Return the longest piece of `n` samples, 0 if there is none."""
        fits = multiples[(n % multiples == 0) & (n <= MOST_PIECES * multiples)]
        return n if n <= LONGEST else int(fits[0]) if len(fits) else 0

    if longest(n_samples):
        return longest(n_samples)
    last = n_samples - n_samples % step
    shorter = next((n for n in range(last, LONGEST, -step) if longest(n)), LONGEST)
    longer = next((n for n in range(last + step, MOST_PIECES * LONGEST + 1, step) if longest(n)), shorter)
    raise ConfigError(
        f"an event of {n_samples} ADC samples of {dwell * 1e6:g} us is too long for one piece, {LONGEST} samples, "
        f"and interpreters cannot split it into equal ones of a multiple of {step} samples, which end on the gradient "
        f"raster of {raster * 1e6:g} us. The nearest lengths that can be are {shorter} and {longer}: "
        "set acquisition.n_samples."
    )
