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


def polynomials(n: int, x: Tensor) -> Tensor:
    """Return the first n Chebyshev polynomials (n, ...) at x in [-1, 1]."""
    x = x.clamp(-1, 1)
    found = torch.ones((n, *x.shape), dtype=x.dtype, device=x.device)
    found[1:2] = x
    doubled = 2 * x
    for order in range(2, n):
        torch.mul(doubled, found[order - 1], out=found[order]).sub_(found[order - 2])
    return found


def series(nodes: Tensor) -> Tensor:
    """Return the matrix (n, node) that makes the coefficients of Chebyshev polynomials of values at Chebyshev nodes."""
    matrix = polynomials(len(nodes), nodes) * (2 / len(nodes))
    matrix[0] /= 2
    return matrix


def lagrange(nodes: Tensor, x: Tensor) -> Tensor:
    """Return the polynomials (node, ...) at x that are 1 at one Chebyshev node and 0 at the others."""
    return torch.tensordot(series(nodes).T, polynomials(len(nodes), x), dims=1)
