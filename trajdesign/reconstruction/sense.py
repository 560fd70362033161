"""Coil sensitivity maps estimated from the measurement itself, and the method of conjugate gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.reconstruction import axes
from trajdesign.reconstruction.coils import low_pass, normalised

#: Standard deviations in k-space, 1 / field of view: of the images that give the first maps, where undersampled spirals
#: and radial spokes are nearly complete too, and of those that show where the object is.
_FIRST_WIDTH, _SIGNAL_WIDTH = 2.2, 5.0
#: The prior on maps in k-space is (1 + a k^2)^-4: a, its weight, and that of the image while the maps are sought.
_SMOOTHNESS, _MAP_WEIGHT, _IMAGE_WEIGHT = 0.02, 0.003, 0.02
_STEPS = 3
#: Added to denominators; images have values near one.
_TINY = 1e-15


def with_maps(images: Tensor, encoding: Encoding) -> tuple[Encoding, Tensor]:
    """Return the encoding with its own coil maps, or else with those estimated from adjoint images, and the maps.

    Images are (batch, coil, [z or frame,] y, x), complex, and so are the maps; those of a film are of all its frames,
    (batch, coil, 1, y, x). The maps have no gradient.
    """
    if encoding.coil_maps is not None:
        return encoding.with_maps(encoding.coil_maps), encoding.coil_maps
    with torch.no_grad():
        first = normalised(low_pass(axes.still(images, encoding), _FIRST_WIDTH))
    sense = encoding.with_maps(first)  # with its gradient, before anything is computed without
    maps = _improved(first, images, encoding, sense)
    return sense.with_maps(maps), maps


def conjugate_gradients(normal: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Solve normal(x) = right for x (batch, ...), complex, from zero, each of the batch by itself.

    Hestenes and Stiefel, J. Res. NBS 1952, doi:10.6028/jres.049.044. `normal` is Hermitian and positive.
    """
    x = torch.zeros_like(right)
    residual = direction = right
    power = _inner(right, right)
    for _ in range(iterations):
        image = normal(direction)
        step = power / (_inner(direction, image) + _TINY)
        x, residual = x + step * direction, residual - step * image
        power, old = _inner(residual, residual), power
        direction = residual + power / (old + _TINY) * direction
    return x


@torch.no_grad()
def _improved(maps: Tensor, images: Tensor, encoding: Encoding, sense: Encoding) -> Tensor:
    """Return maps that explain the measurement better than the given ones, those of `sense`.

    The image is fitted with the given maps, then smooth changes of the maps with that image: one round of joint
    estimation (Ying and Sheng, MRM 2007, doi:10.1002/mrm.21245), with the prior of Uecker et al. (MRM 2008,
    doi:10.1002/mrm.21691). To the maps of a film every frame has its say.
    """
    prior = _prior(maps)
    combined = (maps.conj() * images).sum(dim=1, keepdim=True)
    image = conjugate_gradients(lambda x: sense.normal(x) + _IMAGE_WEIGHT * x, combined, _STEPS)
    size = image.abs().amax(axes.of_image(image), keepdim=True).clamp_min(_TINY)
    image = image / size
    misfit = images / size - encoding.normal(maps * image)

    def to_maps(coil_images: Tensor) -> Tensor:
        return prior(axes.still(image.conj() * coil_images, encoding))

    def normal(change: Tensor) -> Tensor:
        return to_maps(encoding.normal(image * prior(change))) + _MAP_WEIGHT * change

    maps = maps + prior(conjugate_gradients(normal, to_maps(misfit), _STEPS))
    shown = low_pass(axes.still(images, encoding), _SIGNAL_WIDTH)
    return normalised(maps, torch.linalg.vector_norm(shown, dim=1, keepdim=True))


def _prior(maps: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a filter that makes smooth maps, as the given ones, of white noise: the root of their covariance."""
    space = axes.of_space(maps)
    k = [torch.fft.fftfreq(n, 1 / n, device=maps.device, dtype=maps.real.dtype) for n in maps.shape[2:]]
    squares = torch.meshgrid([along.square() for along in k], indexing="ij")
    window = (1 + _SMOOTHNESS * sum(squares[1:], start=squares[0])) ** -4
    return lambda noise: torch.fft.ifftn(torch.fft.fftn(noise, dim=space) * window, dim=space)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum(axes.of_image(a), keepdim=True)
