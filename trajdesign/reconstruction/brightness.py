"""How bright images are, so that a network sees those of a scanner as bright as those in its training."""

import torch
from torch import Tensor

from trajdesign.reconstruction import axes
from trajdesign.reconstruction.coils import root_sum_of_squares

# The smallest brightness, a power of two; what is darker is black.
_BLACK = 2.0**-100


def brightness(images: Tensor) -> Tensor:
    """Return by what coil images are to be divided to be as bright as in training, real; (batch, 1, 1, 1) of slices.

    It is the least power of two that the root sum of squares nowhere exceeds, so that the brightest pixel is between
    0.5 and 1. That of the adjoint images in training is there too: their objects are at most 1 bright, and what is not
    sampled takes up to half of it away. By a power of two nothing is rounded. It is right for numbers of any size, also
    those whose squares single precision does not hold.

    Parameters
    ----------
    images
        (batch, coil, [z or frame,] y, x), complex.
    """
    of_image = axes.of_image(images)
    size = _power_of_two(torch.view_as_real(images).abs().amax(-1).amax(of_image, keepdim=True).clamp_min(_BLACK))
    return size * _power_of_two(root_sum_of_squares(images / size).amax(of_image, keepdim=True).clamp_min(_BLACK))


def _power_of_two(values: Tensor) -> Tensor:
    """Return the least powers of two that are not less than positive values."""
    return torch.exp2(torch.log2(values).ceil())
