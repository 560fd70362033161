r"""A^H W A of objects in a static field: convolutions of a few terms, which mix.

Where the factor of a field is :math:`\sum_l b_l(t) c_l(r)` (`trajdesign.encoding.static_field`), who knows it gets

.. math:: A^H W A x = \sum_l \bar c_l \sum_m p_{lm} * (c_m x)

with the kernels p (`trajdesign.encoding.toeplitz`) of the weights :math:`w \bar b_l b_m`, and who does not
:math:`\sum_m p_m * (c_m x)` with those of :math:`w b_m`.

The b are real but for a factor that all share, so the products :math:`\bar b_l b_m` are real, and the same in either
order: n terms have n (n + 1) / 2 kernels, whose transfer functions are real, and one NUFFT makes two of them.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.encoding.halves import collect, fft_shape, inside, n_at_once, places, share, spread
from trajdesign.encoding.nufft import Kernel, kernel, nufft_adjoint, positions, require_finite

#: For each term that comes out the transfer functions of the terms that go in, by their numbers.
_Rows = Sequence[Sequence[int]]
#: Which image, and which of its coils.
_Coils = tuple[int, slice]


def mixing_function(omega: Tensor, weights: Tensor, basis: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what `mix` needs where the field is known, differentiable in omega and weights.

    Parameters
    ----------
    omega, weights
        Points (point, dim), rad/pixel, and their density compensation (point,), real.
    basis
        b of each point (term, point), complex; real but for a factor of each point.
    shape
        Image shape ([z,] y, x).

    Returns
    -------
    Tensor
        (pair, half, [z,] y, x, 2), real: the transfer functions of the pairs l <= m of terms. Each number is there
        twice: for the real and for the imaginary part of what it multiplies.
    """
    require_finite(omega)
    pairs = itertools.combinations_with_replacement(basis, 2)
    products = torch.stack([(one.conj() * other).real for one, other in pairs])
    return _Transfers.apply(omega, products * weights, tuple(shape), kernel(omega.device))


def blurring_function(omega: Tensor, weights: Tensor, basis: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what `mix` needs where the field is not known: (term, half, [z,] y, x), complex. See `mixing_function`."""
    doubled = tuple(2 * n for n in fft_shape(shape))
    psf = nufft_adjoint(basis * weights, omega, doubled) * inside(shape, omega.dtype, omega.device)
    whole = torch.fft.fftn(psf, dim=tuple(range(1, psf.ndim)))
    return torch.stack([whole[(slice(None), *every)] * scale for every, scale in places(len(doubled))], dim=1)


def mix(images: Tensor, transfer: Tensor, maps: Tensor) -> Tensor:
    """Return the density-weighted adjoint (batch, coil, [z,] y, x) of what is measured of complex images in a field.

    Parameters
    ----------
    images
        (batch, coil, [z,] y, x), complex.
    transfer
        The `mixing_function` where the field is known, else the `blurring_function`.
    maps
        c (batch or 1, term, [z,] y, x), complex.

    It is differentiable in images and `transfer`.
    """
    return _Mixing.apply(images, transfer, maps)


class _Transfers(torch.autograd.Function):
    """As `trajdesign.encoding.toeplitz.transfer_function` of several weights (n, point), two by each transform."""

    @staticmethod
    def forward(ctx: Any, omega: Tensor, weights: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(omega, weights)
        ctx.shape, ctx.engine = shape, engine
        grid, n = fft_shape(shape), len(weights)
        doubled = tuple(2 * size for size in grid)
        packed = _packed(weights)
        psf = engine(1, packed, omega, doubled).mul_(inside(shape, weights.dtype, weights.device))
        whole = torch.view_as_real(torch.fft.fftn(psf, dim=tuple(range(1, psf.ndim))))
        result = weights.new_empty((n, 2 ** len(grid), *grid, 2))
        for half, (every, scale) in enumerate(places(len(grid))):
            for part in range(2):
                of_part = result[part::2, half]
                of_part[:] = whole[(slice(len(of_part)), *every, slice(part, part + 1))] * scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        omega, weights = ctx.saved_tensors
        n_dims, n = omega.shape[-1], len(weights)
        doubled = tuple(2 * size for size in grad.shape[2:-1])
        packed = _packed(grad.sum(-1))
        whole = packed.new_empty((len(packed), *doubled))
        for half, (every, scale) in enumerate(places(n_dims)):
            whole[(slice(None), *every)] = packed[:, half] * scale
        psf = torch.fft.ifftn(whole, dim=tuple(range(1, whole.ndim)), norm="forward")
        psf.mul_(inside(ctx.shape, weights.dtype, weights.device))

        def sums(image: Tensor) -> Tensor:
            # of Hermitian images, so that each is real
            both = torch.view_as_real(ctx.engine(2, image, omega, doubled))
            return both.transpose(1, 2).flatten(0, 1)[:n]

        wants_omega, wants_weights, *_ = ctx.needs_input_grad
        by_omega = by_weights = None
        if wants_omega:
            moments = (sums(-1j * positions(doubled, axis, psf) * psf) for axis in range(n_dims))
            by_omega = torch.stack([(weights * moment).sum(0) for moment in moments], dim=-1)
        if wants_weights:
            by_weights = sums(psf)
        return by_omega, by_weights, None, None


class _Mixing(torch.autograd.Function):
    """Image -> spectra of its terms -> mixed -> image.

    Where images are constants on a CPU, as what is measured in training is, the spectra are kept for the way back.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, transfer: Tensor, maps: Tensor) -> Tensor:
        ctx.save_for_backward(images, transfer, maps)
        result, rows = torch.empty_like(images), _rows(transfer, maps)
        back = maps.conj().resolve_conj() if not transfer.is_complex() else None
        wants_images, wants_transfer, _ = ctx.needs_input_grad
        ctx.kept = {} if wants_transfer and not wants_images and images.device.type == "cpu" else None

        def work(own: list[_Coils]) -> None:
            for coils in own:
                terms: Iterable[Tensor] = _spread(images[coils], _of(maps, coils), transfer)
                if ctx.kept is not None:
                    terms = ctx.kept[coils[0], coils[1].start] = list(terms)
                result[coils] = _collect(_mixed(terms, transfer, rows), _of(back, coils), images[coils].shape)

        share(work, _coils_at_once(images, maps), images.device)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, transfer, maps = ctx.saved_tensors
        wants_images, wants_transfer, _ = ctx.needs_input_grad
        by_images, rows = torch.empty_like(images) if wants_images else None, _rows(transfer, maps)
        out_of = maps if not transfer.is_complex() else None
        back, adjoint = maps.conj().resolve_conj(), transfer.conj().resolve_conj() if wants_images else transfer
        columns, kept = list(zip(*rows, strict=True)), ctx.kept or {}

        def work(own: list[_Coils]) -> Tensor | None:
            products = torch.zeros_like(transfer) if wants_transfer else None
            for coils in own:
                halves = _spread(grad[coils], _of(out_of, coils), transfer)
                if products is not None:
                    terms = kept.pop((coils[0], coils[1].start), None)
                    if terms is None:
                        terms = _spread(images[coils], _of(maps, coils), transfer)
                    halves = _correlate(halves, terms, products, rows)
                if by_images is not None:
                    mixed = _mixed(halves, adjoint, columns)
                    by_images[coils] = _collect(mixed, _of(back, coils), images[coils].shape)
                else:
                    collections.deque(halves, maxlen=0)
            return products

        products = [found for found in share(work, _coils_at_once(images, maps), images.device) if found is not None]
        by_transfer = sum(products[1:], products[0]) / math.prod(_grid(transfer)) if products else None
        return by_images, by_transfer, None


def _packed(values: Tensor) -> Tensor:
    """Return complex numbers of real ones (n, ...): those of even n are real parts, those of odd n imaginary parts."""
    even, odd = values[0::2], values[1::2]
    return torch.complex(even, torch.cat([odd, torch.zeros_like(even[: len(even) - len(odd)])]))


def _rows(transfer: Tensor, maps: Tensor) -> _Rows:
    """Return which transfer functions make each term that comes out: one for each pair, or of a single one."""
    n = maps.shape[1]
    if transfer.is_complex():
        return [range(n)]
    number = {pair: i for i, pair in enumerate(itertools.combinations_with_replacement(range(n), 2))}
    return [[number[min(one, other), max(one, other)] for other in range(n)] for one in range(n)]


def _grid(transfer: Tensor) -> tuple[int, ...]:
    return tuple(transfer.shape[2:] if transfer.is_complex() else transfer.shape[2:-1])


def _coils_at_once(images: Tensor, maps: Tensor) -> list[_Coils]:
    """Return which coils of which images are taken at once."""
    n_images, n_coils = images.shape[:2]
    at_once = n_at_once(images.device, math.prod(maps.shape[1:]))
    return [(i, slice(start, start + at_once)) for i in range(n_images) for start in range(0, n_coils, at_once)]


def _of(maps: Tensor | None, coils: _Coils) -> Tensor | None:
    """Return the maps (term, ...) of an image."""
    return None if maps is None else maps[coils[0] if len(maps) > 1 else 0]


def _spread(images: Tensor, maps: Tensor | None, transfer: Tensor) -> Iterator[Tensor]:
    """Yield the halves (coil, term, ...) of images (coil, ...) times maps (term, ...); without maps of one term."""
    terms = images[:, None] if maps is None else images[:, None] * maps
    halves = spread(terms.flatten(0, 1), _grid(transfer))
    return (half.unflatten(0, terms.shape[:2]) for half in halves)


def _collect(halves: Iterator[Tensor], maps: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Return images (coil, ...) of halves (coil, term, ...): the sum of the terms times maps (term, ...)."""
    n_terms = 1 if maps is None else len(maps)
    flat = collect((half.flatten(0, 1) for half in halves), (shape[0] * n_terms, *shape[1:]))
    terms = flat.unflatten(0, (shape[0], n_terms)).unbind(1)
    if maps is None:
        return terms[0]
    total = terms[0] * maps[0]
    for term, of_term in zip(terms[1:], maps[1:], strict=True):
        total.addcmul_(term, of_term)
    return total


def _mixed(halves: Iterable[Tensor], transfer: Tensor, rows: _Rows) -> Iterator[Tensor]:
    """Yield sums (coil, out, ...) over the terms of half spectra (coil, in, ...) times their transfer functions."""
    for half, functions in zip(halves, transfer.unbind(1), strict=True):
        result = half.new_empty((len(half), len(rows), *half.shape[2:]))
        given, found = (values if transfer.is_complex() else torch.view_as_real(values) for values in (half, result))
        for out, row in enumerate(rows):
            total = torch.mul(given[:, 0], functions[row[0]], out=found[:, out])
            for one, number in zip(given.unbind(1)[1:], row[1:], strict=True):
                total.addcmul_(one, functions[number])
        yield result


def _correlate(halves: Iterator[Tensor], others: Iterable[Tensor], products: Tensor, rows: _Rows) -> Iterator[Tensor]:
    """Add to `products`, as transfer functions, those of two spectra, summed over the coils; yield the first."""
    for half, other, product in zip(halves, others, products.unbind(1), strict=True):
        if products.is_complex():
            outs, ins = half, other.conj().resolve_conj()
        else:
            outs, ins = torch.view_as_real(half), torch.view_as_real(other)
        for of_outs, of_ins in zip(outs, ins, strict=True):
            for out, row in zip(of_outs, rows, strict=True):
                for one, number in zip(of_ins, row, strict=True):
                    product[number].addcmul_(out, one)
        yield half
