"""A^H W A without a single NUFFT a coil: the normal operator of a trajectory is a convolution.

For samples at angles omega with weights w, and images on a grid,

    (A^H W A x)[m] = sum_n p[m - n] x[n],    p[d] = sum_j w[j] exp(i omega[j] . d),

so that one type-1 NUFFT of the weights, whatever the number of coils and images, gives the kernel p, and FFTs do the
rest (Wajer and Pruessmann, ISMRM 2001; Fessler et al., IEEE TSP 2005, doi:10.1109/TSP.2005.853152). Going back, one
type-2 NUFFT gives the exact gradient for the trajectory, as d p[d] / d omega[j] = i d w[j] exp(i omega[j] . d).

Three things make it light. For real weights p is Hermitian, so its transform, the transfer function, is real. A linear
convolution needs a doubled grid, but the even and the odd frequencies of an axis are two plain FFTs of its length, the
*halves*, so that the images are never padded to it. And the `spectrum` of an image that comes again can be kept.
"""

import collections
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.encoding.halves import Part, collect, fft_shape, inside, parts, places, share, spread
from trajdesign.encoding.nufft import Kernel, kernel, positions, require_finite, transforms


def transfer_function(omega: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the transfer function of the normal operator of a trajectory, differentiable in omega and weights.

    Parameters
    ----------
    omega, weights
        Points (point, dim), rad/pixel, and their density compensation (point,), real.
    shape
        Image shape ([z,] y, x).

    Returns
    -------
    Tensor
        (half, [z,] y, x), real: for each of the 2^dim choices of halves the frequencies of an FFT of `fft_shape`.

    Raises
    ------
    DivergedError
        If a point is not finite.
    """
    require_finite(omega)
    return _Transfer.apply(omega, weights, tuple(shape), kernel(omega.device))


def convolve(images: Tensor, transfer: Tensor, spectra: Sequence[Tensor] = ()) -> Tensor:
    """Return A^H W A of complex images (batch, [z,] y, x), differentiable in images and `transfer_function`.

    `spectra` is the `spectrum` of consecutive images, of all or none of them; that saves half of the FFTs.
    """
    if torch.compiler.is_exporting():
        return _in_few_operations(images, transfer)
    return _Convolution.apply(images[None], transfer[None], *spectra).squeeze(0)  # a selection's way back is a copy


def convolve_groups(images: Tensor, transfer: Tensor) -> Tensor:
    """Do as `convolve`, images (group, batch, ...) by a transfer function of each group (group, half, ...)."""
    return _Convolution.apply(images, transfer)


def _in_few_operations(images: Tensor, transfer: Tensor) -> Tensor:
    """Do as `convolve`, by padded FFTs: for exported programs, which know neither threads nor SciPy."""
    axes = tuple(range(1, images.ndim))
    whole = transfer.new_empty([2 * n for n in transfer.shape[1:]])
    for (every, _), half in zip(places(len(axes)), transfer, strict=True):
        whole[every] = half * 2 ** len(axes)
    padded = torch.fft.fftn(images, s=tuple(whole.shape), dim=axes)
    whole = torch.fft.ifftn(padded * whole, dim=axes)
    return whole[(slice(None), *(slice(n) for n in images.shape[1:]))]


@torch.no_grad()
def spectrum(images: Tensor) -> Tensor:
    """Return the halves (half, batch, [z,] y, x) that `convolve` can use of images (batch, [z,] y, x) again."""
    return torch.stack(list(spread(images, fft_shape(tuple(images.shape[1:])))))


class _Transfer(torch.autograd.Function):
    """The halves of the FFT of p, which is a type-1 NUFFT of the weights on a doubled grid."""

    @staticmethod
    def forward(ctx: Any, omega: Tensor, weights: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(omega, weights)
        ctx.shape, ctx.engine = shape, engine
        doubled = tuple(2 * n for n in fft_shape(shape))
        values = torch.complex(weights, torch.zeros_like(weights))
        psf = engine(1, values[None], omega, doubled)[0].mul_(inside(shape, weights.dtype, weights.device))
        whole = torch.fft.fftn(psf).real
        return torch.stack([whole[every] * scale for every, scale in places(len(doubled))])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        omega, weights = ctx.saved_tensors
        doubled = tuple(2 * n for n in grad.shape[1:])
        whole = grad.new_empty(doubled)
        for (every, scale), half in zip(places(len(doubled)), grad, strict=True):
            whole[every] = half * scale
        psf = torch.fft.ifftn(whole, norm="forward").mul_(inside(ctx.shape, weights.dtype, weights.device))
        del whole
        # Hermitian, so that each of the sums below is real, and one transform carries two of them
        wants_omega, wants_weights, *_ = ctx.needs_input_grad
        n_axes = omega.shape[-1] if wants_omega else 0
        factors = [-1j * positions(doubled, axis, psf) for axis in range(n_axes)]
        factors += [torch.ones((), dtype=psf.dtype, device=psf.device)] if wants_weights else []
        pairs = (sum(1j * b for b in factors[i + 1 : i + 2]) + factors[i] for i in range(0, len(factors), 2))
        images = (psf[None] * pair for pair in pairs)
        parts = [torch.view_as_real(found[0]) for found in transforms(ctx.engine, images, omega, doubled)]
        sums = torch.cat(parts, dim=1)
        by_omega = weights[:, None] * sums[:, :n_axes] if wants_omega else None
        by_weights = sums[:, n_axes].contiguous() if wants_weights else None
        return by_omega, by_weights, None, None


class _Convolution(torch.autograd.Function):
    """Image -> halves of its spectrum -> times the transfer function -> image; keeps nothing but its inputs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, transfer: Tensor, *spectra: Tensor) -> Tensor:
        ctx.save_for_backward(images, transfer, *spectra)
        result, grid, factors = torch.empty_like(images), tuple(transfer.shape[2:]), _of_both_parts(transfer)

        def work(own: list[tuple[int, Part]]) -> None:
            for group, (part, spectrum) in own:
                halves = spectrum or spread(images[group, part], grid)
                result[group, part] = collect(_filtered(halves, factors[group]), images[group, part].shape)

        share(work, _parts(images, spectra), images.device)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, transfer, *spectra = ctx.saved_tensors
        wants_images, wants_transfer, *_ = ctx.needs_input_grad
        by_images = torch.empty_like(images) if wants_images else None
        grid, factors = tuple(transfer.shape[2:]), _of_both_parts(transfer) if wants_images else None

        def work(own: list[tuple[int, Part]]) -> Tensor | None:
            # of the real and imaginary parts, which are added up last
            products = transfer.new_zeros((*transfer.shape, 2)) if wants_transfer else None
            for group, (part, spectrum) in own:
                halves = spread(grad[group, part], grid)
                if products is not None:
                    others = spectrum or spread(images[group, part], grid)
                    halves = _correlate(halves, others, products[group])
                if by_images is not None and factors is not None:
                    by_images[group, part] = collect(_filtered(halves, factors[group]), images[group, part].shape)
                else:
                    collections.deque(halves, maxlen=0)
            return products

        products = [found for found in share(work, _parts(images, spectra), images.device) if found is not None]
        by_transfer = None
        if products:
            total, *others = products
            for product in others:
                total += product
            by_transfer = total.sum(-1).div_(math.prod(grid))
        return by_images, by_transfer, *(None for _ in spectra)


def _parts(images: Tensor, spectra: Sequence[Tensor]) -> list[tuple[int, Part]]:
    """Return the group and the `parts` in which images (group, batch, ...) are taken."""
    return [(number, part) for number, group in enumerate(images) for part in parts(group, spectra)]


def _of_both_parts(transfer: Tensor) -> Tensor:
    """Return real numbers (..., 2) twice, for real and imaginary parts: complex numbers times real ones take longer."""
    return transfer[..., None].expand(*transfer.shape, 2).contiguous()


def _filtered(halves: Iterable[Tensor], factors: Tensor) -> Iterator[Tensor]:
    """Yield the halves of a spectrum times those of a transfer function `_of_both_parts`."""
    return (torch.view_as_complex(torch.view_as_real(half) * f) for half, f in zip(halves, factors, strict=True))


def _correlate(halves: Iterator[Tensor], others: Iterable[Tensor], products: Tensor) -> Iterator[Tensor]:
    """Add to `products` (half, ..., 2) those of the parts of two spectra, summed over the batch; yield the first."""
    for half, other, product in zip(halves, others, products, strict=True):
        for one, another in zip(torch.view_as_real(half), torch.view_as_real(other), strict=True):
            product.addcmul_(one, another)
        yield half
