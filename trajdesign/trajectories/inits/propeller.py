"""PROPELLER: rotated strips of parallel lines."""

import math
from dataclasses import replace

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, require_2d, turned
from trajdesign.trajectories.zigzag import Zigzag, fill
from trajdesign.trajectory import Trajectory


def propeller(
    acquisition: Acquisition, scanner: Scanner, *, lines: int | None = None, spacing: float = 1.0
) -> Trajectory:
    """Return one blade a shot: an echo-planar strip of parallel lines across the centre of k-space.

    The next blade is rotated by ``pi / n_shots``; see Pipe, MRM 1999,
    doi:10.1002/(SICI)1522-2594(199911)42:5<963::AID-MRM17>3.0.CO;2-L. The corners of the blades lie on the circle of
    k_max. Where k_max differs between the axes, the pattern of the larger one is shrunk along the other. It is 2D.

    Parameters
    ----------
    lines
        Lines of one blade. By default as many as the readout has time for, and not more than make the blades
        meet at the edge of k-space; fewer are played slower, to fill the readout. Only of an odd number one runs
        through the centre itself.
    spacing
        From line to line, 1/FOV, 0.1 to 16: 1 fills the blade, more makes it wider and aliased.
    """
    require_2d("propeller", acquisition)
    if not 0.1 <= spacing <= 16:
        raise ConfigError(f"propeller: spacing is {spacing:g}; it lies between 0.1 and 16.")
    # blades are played in every direction, so only the limits of the vector hold for all of them
    bounds = replace(Bounds.of(acquisition, scanner), limit_norm="vector")
    radius, matrix = max(acquisition.k_max), max(acquisition.matrix)

    def blade(n_lines: int) -> Zigzag:
        rows = (np.arange(n_lines) - (n_lines - 1) / 2) * spacing * 2 * radius / matrix
        return Zigzag(math.sqrt(radius**2 - rows[0] ** 2), rows[None], bounds)

    meeting = math.pi / 2 * matrix / acquisition.n_shots
    most = max(1, min(math.ceil(meeting / spacing), math.ceil(matrix / spacing)))
    path = fill("propeller", blade, lines, most, acquisition, scanner)[0] @ np.array([1, 1j])
    return feasible(turned(path, math.pi, acquisition), acquisition, scanner, "propeller", "a blade")
