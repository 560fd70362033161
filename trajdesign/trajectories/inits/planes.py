"""One 2D pattern for every partition of a stack, or every frame of a film."""

import math
from typing import Any, Literal

import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import GOLDEN_PART, rotated
from trajdesign.trajectory import Trajectory


def planes(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    pattern: dict[str, Any] | None = None,
    turn: float | Literal["even", "golden"] = 0.0,
) -> Trajectory:
    """Return a stack (3D acquisition) or a film (``n_frames``) of a 2D pattern, each plane turned further.

    A stack has a partition for each pixel along z; its shots go from the lowest k_z to the highest. Each plane has
    ``n_shots`` over their number.

    Parameters
    ----------
    pattern
        Table of the 2D init, with its options, as ``{ kind = "spiral", density = 2.0 }``, by default a spiral.
    turn
        Degrees by which each plane is turned against the one before; 0 aligns all, 111.246 is the golden angle of
        spokes. Of the angle between neighbouring shots, ``"even"`` shares it evenly among the planes, and ``"golden"``
        takes the golden part.

    Raises
    ------
    ConfigError
        If the planes cannot share the shots evenly, or the pattern is none of 2 axes.
    """
    n_planes, flat = acquisition.n_planes, acquisition.plane
    one = plugins.build("init", pattern or {"kind": "spiral"}, flat, scanner).points
    parts = {"even": 1 / n_planes, "golden": GOLDEN_PART}
    step = 2 * math.pi / flat.n_shots * parts[turn] if isinstance(turn, str) else math.radians(turn)
    k = rotated(one, step * torch.arange(n_planes, dtype=torch.float64))
    if acquisition.n_dims == 3:
        height = (torch.arange(n_planes, dtype=torch.float64) - n_planes // 2) / acquisition.fov[2]
        k = torch.cat([k, height[:, None, None, None].expand(*k.shape[:3], 1)], dim=-1)
    return Trajectory(k.flatten(0, 1), acquisition, scanner, f"planes of {(pattern or {}).get('kind', 'spiral')}")
