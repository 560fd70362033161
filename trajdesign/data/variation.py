"""Other heads out of few: training images turned, scaled, shifted, mirrored, and of another contrast."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, grid_sample

from trajdesign.data.grid import fourier_resize

# The most that a strength of 1 changes: rad, the logarithm of the size, parts of the field of view, and the logarithms
# of the power of the values and of their brightness.
_TURN, _SIZE, _SHIFT, _CONTRAST, _BRIGHTNESS = 0.26, 0.1, 0.03, 0.35, 0.2


def varied(
    magnitude: NDArray[np.float32], fov: Sequence[float], strength: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return a magnitude image (..., y, x) as of another object, position and contrast, all slices or frames alike.

    At a `strength` of 1 it is turned by up to 15 degrees, made larger or smaller by up to 10 percent, shifted by up to
    3 percent of the field of view along each axis, its values raised to a power of 0.7 to 1.4 and multiplied by 0.8 to
    1.2. Whatever the strength, every second one is mirrored along x. What leaves the field of view is lost.

    It is taken by cubic convolution from the pixels of an image twice as fine. `fov` is the field of view along x and
    y, in any unit.
    """
    turn, size, x, y, contrast, brightness = strength * generator.uniform(-1, 1, 6)
    scale, mirror, aspect = np.exp(-_SIZE * size), generator.choice([-1.0, 1.0]), fov[1] / fov[0]
    cosine, sine = scale * np.cos(_TURN * turn), scale * np.sin(_TURN * turn)
    *_, n_y, n_x = magnitude.shape
    # from where in the old image each pixel comes, in halves of the field of view; a fine pixel is half as wide, so
    # that the first of two lies a quarter of a pixel before the middle of the pixel that they are made of
    affine = [
        [mirror * cosine, -mirror * sine * aspect, 2 * _SHIFT * x - 0.5 / n_x],
        [sine / aspect, cosine, 2 * _SHIFT * y - 0.5 / n_y],
    ]
    places = affine_grid(torch.tensor([affine], dtype=torch.float32), [1, 1, n_y, n_x], align_corners=False)
    fine = torch.from_numpy(fourier_resize(magnitude.reshape(1, -1, n_y, n_x), (2 * n_y, 2 * n_x)).astype(np.float32))
    image = grid_sample(fine, places, mode="bicubic", align_corners=False).clamp_min(0)
    image = image ** float(np.exp(_CONTRAST * contrast)) * float(np.exp(_BRIGHTNESS * brightness))
    return image.reshape(magnitude.shape).numpy()
