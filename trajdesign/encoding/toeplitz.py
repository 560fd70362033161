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
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import scipy.fft
import torch
from torch import Tensor

from trajdesign.encoding.nufft import Kernel, kernel, nufft_adjoint, positions, require_finite

#: Pixels that go through the FFTs at once: on a processor what fits into its cache, on a GPU what keeps it busy.
_PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**23}

T = TypeVar("T")
#: Which of the images, and the halves of their spectrum where it is known.
_Part = tuple[slice, list[Tensor] | None]


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
    return _Convolution.apply(images, transfer, *spectra)


def mixing_function(omega: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what `mix` needs for weights (out, in, point), complex: the transfer function of each pair.

    See `transfer_function`; differentiable in omega and weights. Returns (half, out, in, [z,] y, x), complex.
    """
    doubled = tuple(2 * n for n in fft_shape(shape))
    psf = nufft_adjoint(weights.flatten(0, 1), omega, doubled) * _inside(shape, omega.dtype, omega.device)
    whole = torch.fft.fftn(psf, dim=tuple(range(1, psf.ndim)))
    halves = [whole[(slice(None), *every)] * scale for every, scale in _halves(len(doubled))]
    return torch.stack(halves).unflatten(1, weights.shape[:2])


def mix(images: Tensor, transfer: Tensor) -> Tensor:
    """Return sums of convolutions (batch, out, [z,] y, x) of complex images (batch, in, [z,] y, x).

    Each image out is the sum of all images in, each after its `mixing_function`; differentiable in both.
    """
    return _Mixing.apply(images, transfer)


def _in_few_operations(images: Tensor, transfer: Tensor) -> Tensor:
    """Do as `convolve`, by padded FFTs: for exported programs, which know neither threads nor SciPy."""
    axes = tuple(range(1, images.ndim))
    whole = transfer.new_empty([2 * n for n in transfer.shape[1:]])
    for (every, _), half in zip(_halves(len(axes)), transfer, strict=True):
        whole[every] = half * 2 ** len(axes)
    padded = torch.fft.fftn(images, s=tuple(whole.shape), dim=axes)
    whole = torch.fft.ifftn(padded * whole, dim=axes)
    return whole[(slice(None), *(slice(n) for n in images.shape[1:]))]


@torch.no_grad()
def spectrum(images: Tensor) -> Tensor:
    """Return the halves (half, batch, [z,] y, x) that `convolve` can use of images (batch, [z,] y, x) again."""
    return torch.stack(list(_spread(images, fft_shape(tuple(images.shape[1:])))))


def fft_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes, at least those of the images, at which FFTs are fast."""
    return tuple(scipy.fft.next_fast_len(n) for n in shape)


class _Transfer(torch.autograd.Function):
    """The halves of the FFT of p, which is a type-1 NUFFT of the weights on a doubled grid."""

    @staticmethod
    def forward(ctx: Any, omega: Tensor, weights: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(omega, weights)
        ctx.shape, ctx.engine = shape, engine
        doubled = tuple(2 * n for n in fft_shape(shape))
        values = torch.complex(weights, torch.zeros_like(weights))
        psf = engine(1, values[None], omega, doubled)[0].mul_(_inside(shape, weights.dtype, weights.device))
        whole = torch.fft.fftn(psf).real
        return torch.stack([whole[every] * scale for every, scale in _halves(len(doubled))])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        omega, weights = ctx.saved_tensors
        doubled = tuple(2 * n for n in grad.shape[1:])
        whole = grad.new_empty(doubled)
        for (every, scale), half in zip(_halves(len(doubled)), grad, strict=True):
            whole[every] = half * scale
        psf = torch.fft.ifftn(whole, norm="forward").mul_(_inside(ctx.shape, weights.dtype, weights.device))
        # Hermitian, so that each of the sums below is real, and one transform carries two of them
        wants_omega, wants_weights, *_ = ctx.needs_input_grad
        parts = [-1j * positions(doubled, axis, psf) * psf for axis in range(omega.shape[-1])] if wants_omega else []
        parts += [psf] if wants_weights else []
        pairs = [sum(1j * b for b in parts[i + 1 : i + 2]) + parts[i] for i in range(0, len(parts), 2)]
        sums = torch.view_as_real(ctx.engine(2, torch.stack(pairs), omega, doubled)).transpose(0, 1).flatten(1)
        by_omega = weights[:, None] * sums[:, : omega.shape[-1]] if wants_omega else None
        by_weights = sums[:, len(parts) - 1].contiguous() if wants_weights else None
        return by_omega, by_weights, None, None


class _Convolution(torch.autograd.Function):
    """Image -> halves of its spectrum -> times the transfer function -> image; keeps nothing but its inputs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, transfer: Tensor, *spectra: Tensor) -> Tensor:
        ctx.save_for_backward(images, transfer, *spectra)
        result, grid = torch.empty_like(images), tuple(transfer.shape[1:])

        def work(parts: list[_Part]) -> None:
            for part, spectrum in parts:
                filtered = (half * t for half, t in zip(spectrum or _spread(images[part], grid), transfer, strict=True))
                result[part] = _collect(filtered, images[part].shape)

        _share(work, images, spectra)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, transfer, *spectra = ctx.saved_tensors
        wants_images, wants_transfer, *_ = ctx.needs_input_grad
        by_images = torch.empty_like(images) if wants_images else None
        grid = tuple(transfer.shape[1:])

        def work(parts: list[_Part]) -> Tensor | None:
            # of the real and imaginary parts, which are added up last
            products = transfer.new_zeros((*transfer.shape, 2)) if wants_transfer else None
            for part, spectrum in parts:
                halves = _spread(grad[part], grid)
                if products is not None:
                    halves = _correlate(halves, spectrum or _spread(images[part], grid), products)
                if by_images is not None:
                    filtered = (half.mul_(t) for half, t in zip(halves, transfer, strict=True))
                    by_images[part] = _collect(filtered, images[part].shape)
                else:
                    collections.deque(halves, maxlen=0)
            return products

        found = _share(work, images, spectra)
        products = [product for product in found if product is not None]
        by_transfer = torch.stack(products).sum(dim=(0, -1)) / math.prod(grid) if products else None
        return by_images, by_transfer, *(None for _ in spectra)


class _Mixing(torch.autograd.Function):
    """As `_Convolution`, of several images into several."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, transfer: Tensor) -> Tensor:
        ctx.save_for_backward(images, transfer)
        result, grid = (
            images.new_empty((len(images), *transfer.shape[1:2], *images.shape[2:])),
            tuple(transfer.shape[3:]),
        )

        def work(parts: list[_Part]) -> None:
            for part, _ in parts:
                _fill(
                    result[part],
                    (_mixed(t, half) for t, half in zip(transfer, _spread_of(images[part], grid), strict=True)),
                )

        _share(work, images, ())
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, transfer = ctx.saved_tensors
        wants_images, wants_transfer = ctx.needs_input_grad
        by_images = torch.empty_like(images) if wants_images else None
        grid = tuple(transfer.shape[3:])
        adjoint = transfer.conj().transpose(1, 2).resolve_conj() if wants_images else transfer

        def work(parts: list[_Part]) -> Tensor | None:
            products = torch.zeros_like(transfer) if wants_transfer else None
            for part, _ in parts:
                halves = _spread_of(grad[part], grid)
                if products is not None:
                    halves = _outer(halves, _spread_of(images[part], grid), products)
                if by_images is not None:
                    back = (_mixed(t, half) for t, half in zip(adjoint, halves, strict=True))
                    _fill(by_images[part], back)
                else:
                    collections.deque(halves, maxlen=0)
            return products

        products = [product for product in _share(work, images, ()) if product is not None]
        by_transfer = torch.stack(products).sum(dim=0) / math.prod(grid) if products else None
        return by_images, by_transfer


def _mixed(transfer: Tensor, half: Tensor) -> Tensor:
    """Return sums (batch, out, ...) over the images in of half a spectrum (batch, in, ...) times transfer functions."""
    result = half.new_empty((len(half), *transfer.shape[:1], *half.shape[2:]))
    for out, of_out in enumerate(transfer):
        whole = torch.mul(half[:, 0], of_out[0], out=result[:, out])
        for one, of_one in zip(half.unbind(1)[1:], of_out[1:], strict=True):
            whole.addcmul_(one, of_one)
    return result


def _outer(halves: Iterator[Tensor], others: Iterable[Tensor], products: Tensor) -> Iterator[Tensor]:
    """Add to `products` (half, out, in, ...) those of two spectra, summed over the batch; yield the first."""
    for half, other, product in zip(halves, others, products, strict=True):
        for image, conjugate in zip(half, other.conj().resolve_conj(), strict=True):
            for out, of_out in enumerate(product):
                of_out.addcmul_(image[out], conjugate)
        yield half


def _spread_of(images: Tensor, grid: tuple[int, ...]) -> Iterator[Tensor]:
    """Do `_spread` of several images each (batch, n, ...)."""
    return (half.unflatten(0, images.shape[:2]) for half in _spread(images.flatten(0, 1), grid))


def _fill(result: Tensor, halves: Iterator[Tensor]) -> None:
    """Write into `result` (batch, n, ...) what `_collect` makes of halves."""
    flat = result.flatten(0, 1)
    result[:] = _collect((half.flatten(0, 1) for half in halves), flat.shape).view(result.shape)


def _share(work: Callable[[list[_Part]], T], images: Tensor, spectra: Sequence[Tensor]) -> list[T]:
    """Call `work` on parts of the images, and of their spectra; on a CPU several threads share the parts.

    That is faster than to share every operation, and each thread's images stay in its cache.
    """
    at_once = max(1, _PIXELS_AT_ONCE.get(images.device.type, 2**23) // math.prod(images.shape[1:]))
    parts: list[_Part] = []
    first = 0
    known: Sequence[Tensor | None] = spectra or [None]
    for spectrum in known:
        last = len(images) if spectrum is None else first + spectrum.shape[1]
        for start in range(first, last, at_once):
            stop = min(start + at_once, last)
            halves = None if spectrum is None else list(spectrum[:, start - first : stop - first])
            parts.append((slice(start, stop), halves))
        first = last
    n_threads = min(len(parts), torch.get_num_threads() if images.device.type == "cpu" else 1)
    if n_threads == 1:
        return [work(parts)]
    return list(_threads(n_threads).map(torch.no_grad()(work), [parts[i::n_threads] for i in range(n_threads)]))


@lru_cache(maxsize=4)
def _threads(n: int) -> ThreadPoolExecutor:
    """Return threads in each of which torch uses no other ones."""
    before = torch.get_num_threads()
    ready = threading.Barrier(n + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # settles it for this thread: otherwise its first operation would ask again
        ready.wait()

    pool = ThreadPoolExecutor(n, "toeplitz", begin)
    for _ in range(n):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)
    return pool


def _correlate(halves: Iterator[Tensor], others: Iterable[Tensor], products: Tensor) -> Iterator[Tensor]:
    """Add to `products` (half, ..., 2) those of the parts of two spectra, summed over the batch; yield the first."""
    for half, other, product in zip(halves, others, products, strict=True):
        for one, another in zip(torch.view_as_real(half), torch.view_as_real(other), strict=True):
            product.addcmul_(one, another)
        yield half


def _spread(images: Tensor, grid: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield the halves of the spectrum of images (batch, ...) on a grid twice as fine as `grid`, in order."""
    padding = [side for n, size in zip(grid[::-1], images.shape[:0:-1], strict=True) for side in (0, n - size)]
    return _split(torch.nn.functional.pad(images, padding) if any(padding) else images.clone(), 1)


def _split(images: Tensor, axis: int) -> Iterator[Tensor]:
    """Do `_spread` from an axis of the images on, so that most FFTs are along the last; the images are overwritten."""
    if axis == images.ndim:
        yield images
        return
    odd = images * _modulation(images, axis)
    for half in (images, odd):
        yield from _split(_fft(half, axis), axis + 1)


def _collect(halves: Iterator[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Undo `_spread`, but for a factor: return images (batch, ...) from all halves, which are overwritten."""
    whole = _add(halves, 1, len(shape))
    return whole[tuple(slice(n) for n in shape)]


def _add(halves: Iterator[Tensor], axis: int, n_axes: int) -> Tensor:
    """Undo `_split`, but for a factor."""
    if axis == n_axes:
        return next(halves)
    even, odd = (_fft(_add(halves, axis + 1, n_axes), axis, inverse=True) for _ in range(2))
    return even.addcmul_(odd, _modulation(odd, axis).conj())


def _modulation(images: Tensor, axis: int) -> Tensor:
    """exp(-i pi j / n) along an axis of n pixels: it moves the odd frequencies of 2 n to the n even ones."""
    return _factor(images.shape[axis], images.dtype, images.device).view(-1, *[1] * (images.ndim - 1 - axis))


@lru_cache(maxsize=16)
def _factor(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * (-math.pi / n)
    return torch.polar(torch.ones_like(angle), angle).to(device, dtype)


def _fft(images: Tensor, axis: int, *, inverse: bool = False) -> Tensor:
    """FFT along one axis; the images may be overwritten."""
    if images.device.type == "cpu" and axis < images.ndim - 1:
        # in place, and faster than torch's across the rows of an image, but slower along them
        transform = scipy.fft.ifft if inverse else scipy.fft.fft
        return torch.from_numpy(transform(images.numpy(), None, axis, None, True))
    return torch.fft.ifft(images, dim=axis) if inverse else torch.fft.fft(images, dim=axis)


def _halves(n_dims: int) -> Iterator[tuple[tuple[slice, ...], float]]:
    """Yield where the frequencies of each choice of halves lie in a doubled spectrum, and their scale.

    The sign moves the origin of the kernel from the centre of the grid to its corner.
    """
    for odd in itertools.product((0, 1), repeat=n_dims):
        yield tuple(slice(first, None, 2) for first in odd), (-1) ** sum(odd) / 2**n_dims


@lru_cache(maxsize=8)
def _inside(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where a distance of the doubled grid occurs between two pixels, else 0."""
    mask = torch.ones((), dtype=dtype, device=device)
    for n, length in zip(shape, fft_shape(shape), strict=True):
        distance = torch.arange(2 * length, device=device) - length
        mask = mask[..., None] * (distance.abs() < n)
    return mask
