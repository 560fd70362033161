"""Gradients that act later than anybody knows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trajdesign.physics.perturbation import Scan, drawn
from trajdesign.physics.response import Response

# More than any gradient system has, s.
_LONGEST = 1e-4


def delay(scan: Scan, random: np.random.Generator, *, delays: Sequence[float] = (0.0,), spread: float = 5e-6) -> Scan:
    """Return a scan whose gradients act later than asked, each axis by another time.

    Parameters
    ----------
    delays
        Of x, y and z, s, negative where an axis is early, in every scan; one number serves all.
    spread
        By how much the delay of each axis may differ from that, s, on either side: uniform, another in each scan.
    """
    late = drawn(random, delays, spread, _LONGEST, "delay")
    return replace(scan, played=Response({"kind": "delay", "delays": late})(scan.played))
