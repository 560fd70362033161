"""A gradient system that is not the one that was measured."""

from dataclasses import replace

import numpy as np

from trajdesign.physics.perturbation import Scan, happens
from trajdesign.physics.response import Response


def girf(scan: Scan, random: np.random.Generator, *, path: str, probability: float = 1.0) -> Scan:
    """Return a scan under another response of the gradient system than the one that is believed (``[response]``).

    Parameters
    ----------
    path
        File of that response, as of the response ``girf``.
    probability
        In which part of all scans it acts; in the others it is what is believed.
    """
    other = Response({"kind": "girf", "path": path})
    return replace(scan, response=other) if happens(random, probability, "girf") else scan
