"""A^H W A without a single NUFFT a coil: the normal operator of a trajectory is a convolution.

For samples at angles omega with weights w, and images on a grid,

    (A^H W A x)[m] = sum_n p[m - n] x[n],    p[d] = sum_j w[j] exp(i omega[j] . d),

so that one type-1 NUFFT of the weights, whatever the number of coils and images, gives the kernel p, and FFTs do the
rest (Wajer and Pruessmann, ISMRM 2001; Fessler et al., IEEE TSP 2005, doi:10.1109/TSP.2005.853152). Going back, one
type-2 NUFFT gives the exact gradient for the trajectory, as d p[d] / d omega[j] = i d w[j] exp(i omega[j] . d).

Two things make it light. For real weights p is Hermitian, so its transform, the transfer function, is real. And a
linear convolution needs a doubled grid, whose FFT falls into one plain FFT for each combination of even and odd
frequencies, the *phases*: the images are never padded to it.
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import scipy.fft
import torch
from torch import Tensor

from trajdesign.nufft import Backend, Kernel, kernel, positions, require_finite

#: Pixels that go through the FFTs at once. More does not fit into a processor's cache; a GPU takes any number.
_PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**26}


def transfer_function(omega: Tensor, weights: Tensor, shape: tuple[int, ...], backend: Backend = "auto") -> Tensor:
    """Transfer function of the normal operator of a trajectory, differentiable in omega and weights.

    Parameters
    ----------
    omega
        Points (point, dim), rad/pixel, real.
    weights
        Density compensation (point,), real.
    shape
        Image shape ([z,] y, x).
    backend
        See `trajdesign.nufft.nufft`.

    Returns
    -------
    Tensor
        (phase, [z,] y, x), real: at each of the 2^dim phases the frequencies of the plain FFT, of `fft_shape(shape)`.

    Raises
    ------
    DivergedError
        If a point is not finite.
    """
    require_finite(omega)
    return _Transfer.apply(omega, weights, tuple(shape), kernel(backend, omega.device))


def convolve(images: Tensor, transfer: Tensor) -> Tensor:
    """Apply a transfer function to images, differentiable in both.

    Parameters
    ----------
    images
        Complex images (batch, [z,] y, x).
    transfer
        From `transfer_function`, for this image shape.

    Returns
    -------
    Tensor
        A^H W A of each image, in its shape and type.
    """
    return _Convolution.apply(images, transfer)


def fft_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes, at least those of the images, at which FFTs are fast."""
    return tuple(scipy.fft.next_fast_len(n) for n in shape)


class _Transfer(torch.autograd.Function):
    """The phases of the FFT of p, which is a type-1 NUFFT of the weights on a doubled grid."""

    @staticmethod
    def forward(ctx: Any, omega: Tensor, weights: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(omega, weights)
        ctx.shape, ctx.engine = shape, engine
        doubled = tuple(2 * n for n in fft_shape(shape))
        values = torch.complex(weights, torch.zeros_like(weights))
        psf = engine.type1(values[None], omega, doubled)[0].mul_(_inside(shape, weights.dtype, weights.device))
        spectrum = torch.fft.fftn(psf).real
        return torch.stack([spectrum[every] * scale for every, scale in _phases_of(doubled)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        omega, weights = ctx.saved_tensors
        doubled = tuple(2 * n for n in grad.shape[1:])
        spectrum = grad.new_empty(doubled)
        for (every, scale), part in zip(_phases_of(doubled), grad, strict=True):
            spectrum[every] = part * scale
        psf = torch.fft.ifftn(spectrum, norm="forward").mul_(_inside(ctx.shape, weights.dtype, weights.device))
        # Hermitian, so that each of the sums below is real, and one transform carries two of them
        parts = []
        if ctx.needs_input_grad[0]:
            parts += [-1j * positions(doubled, axis, psf) * psf for axis in range(omega.shape[-1])]
        if ctx.needs_input_grad[1]:
            parts.append(psf)
        pairs = [sum(1j * b for b in parts[i + 1 : i + 2]) + parts[i] for i in range(0, len(parts), 2)]
        sums = torch.view_as_real(ctx.engine.type2(torch.stack(pairs), omega)).transpose(0, 1).flatten(1)
        by_omega = by_weights = None
        if ctx.needs_input_grad[0]:
            by_omega = weights[:, None] * sums[:, : omega.shape[-1]]
        if ctx.needs_input_grad[1]:
            by_weights = sums[:, len(parts) - 1].contiguous()
        return by_omega, by_weights, None, None


class _Convolution(torch.autograd.Function):
    """sum over the phases of conj(m) IFFT(transfer FFT(m x)), m the phase's modulation; keeps nothing but its input."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, transfer: Tensor) -> Tensor:
        ctx.save_for_backward(images, transfer)
        result = torch.empty_like(images)
        for part, out in zip(_parts(images), _parts(result), strict=True):
            _filter(part, transfer, out)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, transfer = ctx.saved_tensors
        by_images = torch.empty_like(images) if ctx.needs_input_grad[0] else None
        products = transfer.new_zeros((*transfer.shape, 2)) if ctx.needs_input_grad[1] else None
        grads = _parts(by_images) if by_images is not None else itertools.repeat(None)
        for part, grad_part, out in zip(_parts(images), _parts(grad), grads, strict=False):
            _filter(grad_part, transfer, out, part, products)
        by_transfer = None if products is None else products.sum(dim=-1) / math.prod(transfer.shape[1:])
        return by_images, by_transfer


def _filter(
    images: Tensor, transfer: Tensor, out: Tensor | None, other: Tensor | None = None, products: Tensor | None = None
) -> None:
    """Write the filtered images to `out`; add to `products` those of the real and imaginary parts of both's spectra."""
    grid = tuple(transfer.shape[1:])
    axes = tuple(range(1, images.ndim))
    inside = (slice(None), *(slice(n) for n in images.shape[1:]))
    for index, modulation in enumerate(_modulations(grid, images.dtype, images.device)):
        here = None if modulation is None else modulation[inside[1:]]
        spectrum = _modulated_fft(images, here, grid, axes)
        if products is not None and other is not None:
            pairs = torch.view_as_real(spectrum) * torch.view_as_real(_modulated_fft(other, here, grid, axes))
            products[index] += pairs.sum(dim=0)
        if out is not None:
            image = torch.fft.ifftn(spectrum.mul_(transfer[index]), dim=axes)[inside]
            if here is None:
                out.copy_(image)
            else:
                out.addcmul_(image, here.conj())


def _modulated_fft(images: Tensor, modulation: Tensor | None, grid: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    return torch.fft.fftn(images if modulation is None else images * modulation, s=grid, dim=axes)


def _parts(images: Tensor) -> tuple[Tensor, ...]:
    """Return the images in views of so many as are worked on at once."""
    pixels = _PIXELS_AT_ONCE.get(images.device.type, 2**26)
    return images.split(max(1, pixels // math.prod(images.shape[1:])))


def _phases(n_dims: int) -> list[tuple[int, ...]]:
    return list(itertools.product((0, 1), repeat=n_dims))


def _phases_of(doubled: tuple[int, ...]) -> Iterator[tuple[tuple[slice, ...], float]]:
    """Yield where the frequencies of each phase lie in a doubled spectrum, and their scale.

    The sign moves the origin of the kernel from the centre of the grid to its corner.
    """
    for phase in _phases(len(doubled)):
        yield tuple(slice(odd, None, 2) for odd in phase), (-1) ** sum(phase) / 2 ** len(phase)


@lru_cache(maxsize=8)
def _modulations(grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor | None]:
    """Of each phase: exp(-i pi n / N) along its odd axes; None for the even phase, which has none."""
    found: list[Tensor | None] = [None]
    for phase in _phases(len(grid))[1:]:
        angle = torch.zeros((), dtype=torch.float64)
        for odd, n in zip(phase, grid, strict=True):
            angle = angle[..., None] - odd * math.pi / n * torch.arange(n, dtype=torch.float64)
        found.append(torch.polar(torch.ones_like(angle), angle).to(device, dtype))
    return found


@lru_cache(maxsize=8)
def _inside(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where a distance of the doubled grid occurs between two pixels, else 0."""
    mask = torch.ones((), dtype=dtype, device=device)
    for n, length in zip(shape, fft_shape(shape), strict=True):
        distance = torch.arange(2 * length, device=device) - length
        mask = mask[..., None] * (distance.abs() < n)
    return mask
