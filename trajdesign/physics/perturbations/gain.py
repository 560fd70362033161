"""Gradients that are stronger or weaker than anybody knows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trajdesign.physics.perturbation import Scan, drawn

# Beyond it a gradient system is broken, as a part.
_LARGEST = 0.5


def gain(scan: Scan, random: np.random.Generator, *, gains: Sequence[float] = (0.0,), spread: float = 0.02) -> Scan:
    """Return a scan whose gradients are stronger than asked, each axis by another part.

    So is the gradient that leads to the first sample: all of k is scaled, about the centre of k-space.

    Parameters
    ----------
    gains
        Of x, y and z, as a part of the gradient, negative where an axis is weaker, in every scan; one number serves
        all.
    spread
        By how much the gain of each axis may differ from that, on either side: uniform, another in each scan.
    """
    points = scan.played.points
    factors = 1 + points.new_tensor(drawn(random, gains, spread, _LARGEST, "gain")[: points.shape[-1]])
    return replace(scan, played=scan.played.with_points(points * factors))
