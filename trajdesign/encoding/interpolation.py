"""Interpolation between Chebyshev nodes, exact to rounding for what turns by a bounded phase."""

import math

import torch
from torch import Tensor

from trajdesign.errors import ConfigError

#: The error that interpolation may leave, as a part of a voxel's signal.
_TOLERANCE = 1e-10
#: The most nodes: each is a NUFFT of the virtual scan, and holds a weight of each voxel.
_MOST_NODES = 1000


def chebyshev_nodes(phase: float) -> Tensor:
    """Return as many Chebyshev nodes in (-1, 1) as exp(i phase x) needs."""
    n, remainder = 1, math.log(math.sqrt(2) * max(phase, 1e-300))
    while remainder > math.log(_TOLERANCE):
        n += 1
        remainder += math.log(phase / (2 * n))
        if n > _MOST_NODES:
            raise ConfigError(
                f"off_resonance turns voxels apart by {2 * phase / math.pi:.4g} cycles during the readout, more than "
                "can be computed; give a map of a smaller range, Hz."
            )
    return torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def lagrange(nodes: Tensor, x: Tensor) -> Tensor:
    """Return the polynomials (node, ...) at x that are 1 at one Chebyshev node and 0 at the others."""
    order = torch.arange(1, len(nodes), dtype=torch.float64)
    angle, at = nodes.acos(), x.clamp(-1, 1).acos()
    waves = torch.cos(order[:, None] * angle), torch.cos(order.view(-1, *[1] * x.ndim) * at)
    return (1 + 2 * torch.tensordot(waves[0].T, waves[1], dims=1)) / len(nodes)
