"""Which part of space an image shows: its centre and its direction, by the phase of samples and by k, never by pixels.

Samples of an object rho are ``y(k) = sum_r rho(r) exp(-2 pi i k . r)``. So ``y(k) exp(+2 pi i k . s)`` are those of the
object moved by -s, which brings what lies at s to the centre of the image, and those of an object that is turned by R
are ``y(k)`` at ``R k``. Both are exact at any k; nothing is interpolated, and what the shift brings into the field of
view does not alias.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.measuring import solving

# More than any bore is wide, m.
_FARTHEST = 0.5


@dataclass(frozen=True)
class View:
    """Which part of space an image shows; of a volume, in the planes of its slices.

    Parameters
    ----------
    shift
        Where the centre of the image lies, along the gradients x and y, m.
    rotation
        How far the image is turned about it, from x towards y, degrees.

    Raises
    ------
    ConfigError
        If these are no numbers, or none of a scanner.
    """

    shift: tuple[float, ...] = (0.0, 0.0)
    rotation: float = 0.0

    def __post_init__(self) -> None:
        if len(self.shift) != 2 or not all(abs(x) <= _FARTHEST for x in self.shift):
            raise ConfigError(
                f"shift is {self.shift}: it is where the centre of the image lies along x and y, m, at most "
                f"{_FARTHEST:g} m each."
            )
        if not abs(self.rotation) <= 360:
            raise ConfigError(f"rotate is {self.rotation:g}: it is an angle of at most 360 degrees either way.")

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The rotation (2, 2); exact for right angles."""
        turns = self.rotation / 90
        angle = math.radians(self.rotation)
        cosine, sine = math.cos(angle), math.sin(angle)
        if turns == round(turns):
            cosine, sine = round(cosine), round(sine)
        return np.array([[cosine, -sine], [sine, cosine]], dtype=float)

    @property
    def centre(self) -> tuple[float, ...]:
        """`shift` along the axes of the image, m."""
        return tuple((self.matrix @ self.shift).tolist())

    def require_fits(self, acquisition: Acquisition) -> None:
        """Refuse, by a `ConfigError`, to turn a field of view onto which it does not fall again."""
        fov, matrix = acquisition.fov[:2], acquisition.matrix[:2]
        if self.rotation % 180 and (len(set(matrix)) > 1 or np.ptp(fov) > 1e-9):
            raise ConfigError(
                f"rotate is {self.rotation:g}: a field of view of {fov} m with {matrix} pixels is not square, and can "
                "be turned by 180 degrees alone."
            )

    def turned(self, k: Tensor) -> Tensor:
        """Return k (..., dim), 1/m, along the axes of the image."""
        return torch.cat([k[..., :2] @ torch.from_numpy(self.matrix).T, k[..., 2:]], dim=-1)


def centred(kspace: Tensor, k: Tensor, shift: Sequence[float]) -> Tensor:
    """Return k-space (..., shot, sample) with the phase that brings what lies at a shift, m, to the centre.

    `k` (shot, sample, dim), 1/m, is where the samples lie, after delays and the response of the gradient system.
    """
    if not any(shift):
        return kspace
    turns = k[..., : len(shift)].double() @ torch.tensor(shift, dtype=torch.float64)
    return kspace * torch.exp(2j * math.pi * turns).to(kspace.dtype)


def shown(kspace: Tensor, encodings: Sequence[Encoding], view: View) -> tuple[Tensor, list[Encoding]]:
    """Return k-space (frame, slice, coil, shot, sample) with the phase of a view, and encodings of the k that it turns.

    Of the encodings of the slices one that they share is turned once.
    """
    acquisition = encodings[0].acquisition
    view.require_fits(acquisition)
    places = {id(encoding): k_of(encoding) for encoding in encodings}
    of_slices = [centred(kspace[:, i], places[id(encoding)], view.shift) for i, encoding in enumerate(encodings)]
    if view.rotation % 360:
        turned = {number: solving.encoding_at(view.turned(k), acquisition) for number, k in places.items()}
        encodings = [turned[id(encoding)] for encoding in encodings]
    return torch.stack(of_slices, dim=1), list(encodings)


def k_of(encoding: Encoding) -> Tensor:
    """Return k (shot, sample, dim), 1/m, of an encoding."""
    return encoding.omega.double() / (2 * math.pi * torch.tensor(encoding.acquisition.voxel, dtype=torch.float64))
