"""Concomitant fields: what a gradient makes in the magnet beside what it is meant to, away from the isocentre."""

from typing import Any

import torch
from torch import Tensor

from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.physics.field import STRONGEST

# Farther than a bore is wide, m.
_FARTHEST = 1.0


def concomitant(
    gradient: Tensor,
    raster: float,
    *,
    tesla: float,
    position: list[float] = [0.0, 0.0, 0.0],  # noqa: B006
    axes: list[float] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],  # noqa: B006
    system: dict[str, Any] = {},  # noqa: B006
) -> tuple[Tensor, Tensor]:
    r"""Return the gradient and the field at the middle of the image, with the concomitant field of the gradient.

    .. math:: B_c = \frac{(G_x z - G_z x / 2)^2 + (G_y z - G_z y / 2)^2}{2 B_0}

    of a symmetric gradient coil in the magnet's axes, z along its field (Bernstein et al., MRM 1998,
    doi:10.1002/mrm.1910390218). Exact at the samples, and to first order in the distance from `position`: its value is
    the field, its slope is added to the gradient. What is left is of second order and the same whatever the position.

    Parameters
    ----------
    tesla
        Field strength, T.
    position
        Middle of the image from the isocentre along x, y and z of the sequence, m; the slices of a file lie about it.
    axes
        Directions of the sequence's x and y in the magnet, three numbers each: 1, 0, 0, 0, 1, 0 is axial, 1, 0, 0, 0,
        0, 1 coronal, 0, 1, 0, 0, 0, 1 sagittal.
    system
        Table of another response, whose gradient makes the field; without one what is played does.
    """
    if not 0 < tesla <= STRONGEST:
        raise ConfigError(f"concomitant: tesla is {tesla:g}; magnets have up to {STRONGEST:g} T.")
    if len(position) != 3 or not all(abs(part) <= _FARTHEST for part in position):
        raise ConfigError(f"concomitant: position is {position} m; it is three numbers within +-{_FARTHEST:g}.")
    directions = _directions(axes)
    x, y, z = (torch.tensor(position, dtype=torch.float64) @ directions).tolist()
    magnet, field = directions.to(gradient), gradient.new_zeros(())
    if system:
        found = plugins.bind("response", system, 2)(gradient, raster)
        gradient, field = found if isinstance(found, tuple) else (found, field)
    n_axes = gradient.shape[-1]
    gx, gy, gz = (gradient @ magnet[:n_axes]).unbind(-1)
    along_x, along_y = gx * z - gz * x / 2, gy * z - gz * y / 2
    slope = torch.stack([-gz * along_x / 2, -gz * along_y / 2, gx * along_x + gy * along_y], dim=-1) / tesla
    return gradient + (slope @ magnet.T)[..., :n_axes], field + (along_x**2 + along_y**2) / (2 * tesla)


def _directions(axes: list[float]) -> Tensor:
    """Return the directions of x, y and z of the sequence (axis, 3) in the magnet."""
    if len(axes) != 6:
        raise ConfigError(f"concomitant: axes has {len(axes)} numbers; it is two directions of three.")
    x, y = torch.tensor(axes, dtype=torch.float64).view(2, 3)
    if not torch.allclose(torch.stack([x @ x, y @ y, x @ y]), x.new_tensor([1.0, 1.0, 0.0]), atol=1e-3):
        raise ConfigError(f"concomitant: axes is {axes}; its directions have the length 1 and a right angle.")
    x = x / x.norm()
    y = y - (x @ y) * x
    y = y / y.norm()
    return torch.stack([x, y, torch.linalg.cross(x, y)])
