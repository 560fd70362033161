"""Straight spokes through, or out of, the centre of k-space."""

import math
from typing import Literal

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import GOLDEN_RATIO, feasible, line, on_sphere
from trajdesign.trajectory import Trajectory


def radial(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    angle: Literal["uniform", "golden", "tiny-golden"] = "uniform",
    golden_index: int = 7,
    centre_out: bool = False,
) -> Trajectory:
    """Return spokes of constant gradient.

    Sample n of a full spoke lies at ``(n - n_samples / 2) / (n_samples / 2)`` of its end, and the end a few
    parts in `n_samples` inside k_max, because the control points around the ADC window must stay inside it
    too. Where k_max differs between the axes, the ends lie on the ellipse.

    Parameters
    ----------
    acquisition
        2D, or 3D: then the spokes cover the half sphere (the sphere, if centre-out).
    angle
        ``"uniform"``: 2D shot i at the angle ``pi * i / n_shots``, as Peng et al., CVPR 2022; 3D shots on the
        golden-angle spiral of even height. ``"golden"``: 111.246 degrees from shot to shot, so any run of
        shots is spread evenly (Winkelmann et al., doi:10.1109/TMI.2006.885337); the golden means in 3D.
        ``"tiny-golden"``: 2D shots turned by ``pi / ((1 + sqrt(5)) / 2 + golden_index - 1)`` each, spread nearly as
        evenly by smaller steps (Wundrak et al., doi:10.1002/mrm.25831).
    golden_index
        Which tiny golden angle, from 1, the golden angle itself; 7 is 23.628 degrees.
    centre_out
        Start at the centre. The angles then cover the full circle: they are twice those of full spokes.
    """
    if golden_index < 1:
        raise ConfigError(f"radial: golden_index is {golden_index}; it is at least 1.")
    if angle == "tiny-golden" and acquisition.n_dims != 2:
        raise ConfigError("radial: tiny golden angles are for 2D; take angle = 'golden' or 'uniform' in 3D.")
    n_shots = acquisition.n_shots
    if acquisition.n_dims == 2:
        index = 1 if angle == "golden" else golden_index
        step = math.pi / (n_shots if angle == "uniform" else GOLDEN_RATIO + index - 1)
        ends = _circle(n_shots, step, centre_out)
    else:
        ends = on_sphere(n_shots, whole=centre_out, golden=angle == "golden")
    ends = ends * np.array(acquisition.k_max)
    k = line(acquisition, scanner, centre_out=centre_out)[None, :, None] * ends[:, None, :]
    return feasible(k, acquisition, scanner, "radial", "a spoke")


def _circle(n_shots: int, step: float, centre_out: bool) -> np.ndarray:
    angles = (2 if centre_out else 1) * step * np.arange(n_shots)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
