"""From the gradients that are played to those that act: the response of the gradient system."""

from collections.abc import Mapping
from typing import Any

import torch

from trajdesign import plugins
from trajdesign.trajectory import Trajectory


def actual(trajectory: Trajectory, response: Mapping[str, Any]) -> Trajectory:
    """Return the curve that the gradient system makes of a trajectory, differentiable.

    What came before the readout is taken to have died out, so the first control point stays where it is.

    Parameters
    ----------
    trajectory
        What is played.
    response
        Table of a response, ``{"kind": ...}``; with an empty one the trajectory is what acts.
    """
    if not response:
        return trajectory
    scanner = trajectory.scanner
    gradient = plugins.build("response", dict(response), trajectory.gradient, scanner.gradient_raster)
    steps = gradient.cumsum(dim=1) * (scanner.gamma * scanner.gradient_raster)
    return trajectory.with_k(torch.cat([trajectory.k[:, :1], trajectory.k[:, :1] + steps], dim=1))
