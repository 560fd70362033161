"""What all phantoms are drawn with: signed distances, blended soft edges, smooth and band-limited random fields."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Field = NDArray[np.floating]

#: Each contrast has a relative signal of scalp, bone, marrow, CSF, cortex, white matter, basal ganglia and vessels.
HEAD_CONTRASTS = (
    (0.95, 0.05, 0.45, 0.14, 0.38, 0.60, 0.44, 0.85),  # T1
    (0.50, 0.04, 0.30, 0.95, 0.50, 0.34, 0.40, 0.06),  # T2
    (0.60, 0.04, 0.25, 0.10, 0.62, 0.50, 0.58, 0.12),  # FLAIR
)


def blend(image: Field, signal: float | Field, distance: Field, softness: float) -> None:
    """Paint `signal` into `image` where `distance` is positive, with an edge as wide as `softness`."""
    image += (signal - image) * np.clip(distance / softness + 0.5, 0, 1)


def capsule(
    point: Sequence[Field], start: Sequence[float], end: Sequence[float], r_start: float, r_end: float
) -> Field:
    """Distance of points, an array for each axis, from a rod with round ends, of changing radius; negative inside."""
    along = [last - first for first, last in zip(start, end, strict=True)]
    dots = [(x - first) * step for x, first, step in zip(point, start, along, strict=True)]
    t = np.clip(sum(dots[1:], dots[0]) / sum(step**2 for step in along), 0, 1)
    parts = [x - first - t * step for x, first, step in zip(point, start, along, strict=True)]
    return length(parts) - r_start - t * (r_end - r_start)


def length(parts: Sequence[Field]) -> Field:
    """Return the root sum of squares of arrays."""
    if len(parts) == 2:
        return np.hypot(*parts)
    first, *others = (part * part for part in parts)
    return np.sqrt(sum(others, first))


def noise(
    shape: Sequence[int], pixel: Sequence[float], amplitude: Callable[[Field], Field], generator: np.random.Generator
) -> NDArray[np.complex64]:
    """Return two periodic random fields of unit variance and zero mean, as real and imaginary part.

    `amplitude` is their spectrum over the spatial frequency, in cycles per unit of `pixel`.
    """
    axes = np.ix_(*(np.fft.fftfreq(n, size) for n, size in zip(shape, pixel, strict=True)))
    weight = amplitude(functools.reduce(np.hypot, axes).astype(np.float32))
    weight.flat[0] = 0
    weight *= np.sqrt(weight.size / np.square(weight).sum())
    white = generator.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return scipy.fft.fftn(white * weight, norm="ortho")


def smooth(shape: Sequence[int], strength: float, generator: np.random.Generator) -> Field:
    """Return a smooth random field, a few cosines along each axis, of standard deviation near `strength`."""
    order = np.arange(6)
    waves = [np.cos(np.pi * order[:, None] * (np.arange(n) + 0.5) / n) for n in shape]
    degrees = functools.reduce(np.add.outer, [order] * len(shape))
    found = generator.normal(0, strength, degrees.shape) / (1 + degrees)
    found.flat[0] = 0
    for wave in waves:
        found = np.tensordot(found, wave, (0, 0))  # the next axis comes first
    return found.astype(np.float32)
