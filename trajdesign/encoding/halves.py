"""Spectra on a grid twice as fine, which linear convolutions need, as plain FFTs of the size of the images.

The even and the odd frequencies of an axis are two FFTs of its length, the *halves*, so that the images are never
padded to the doubled grid; n axes have 2^n choices of them.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import scipy.fft
import torch
from torch import Tensor

#: Pixels that go through the FFTs at once: on a processor what fits into its cache, on a GPU what keeps it busy.
PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**23}

T = TypeVar("T")
P = TypeVar("P")
#: Which of the images, and the halves of their spectrum where it is known.
Part = tuple[slice, list[Tensor] | None]


def fft_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes, at least those of the images, at which FFTs are fast."""
    return tuple(scipy.fft.next_fast_len(n) for n in shape)


def parts(images: Tensor, spectra: Sequence[Tensor] = ()) -> list[Part]:
    """Return in which parts images (batch, ...) are taken, with their spectra, of consecutive images, where known."""
    at_once = n_at_once(images.device, math.prod(images.shape[1:]))
    found: list[Part] = []
    first = 0
    known: Sequence[Tensor | None] = spectra or [None]
    for spectrum in known:
        last = len(images) if spectrum is None else first + spectrum.shape[1]
        for start in range(first, last, at_once):
            stop = min(start + at_once, last)
            halves = None if spectrum is None else list(spectrum[:, start - first : stop - first])
            found.append((slice(start, stop), halves))
        first = last
    return found


def n_at_once(device: torch.device, n_pixels: int) -> int:
    """Return how many images of so many pixels go through the FFTs at once."""
    return max(1, PIXELS_AT_ONCE.get(device.type, 2**23) // n_pixels)


def share(work: Callable[[list[P]], T], parts: list[P], device: torch.device) -> list[T]:
    """Call `work` on some of the parts; on a CPU several threads share them.

    That is faster than to share every operation, and each thread's images stay in its cache.
    """
    n_threads = min(len(parts), torch.get_num_threads() if device.type == "cpu" else 1)
    if n_threads == 1:
        return [work(parts)]
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad
    return list(_threads(n_threads).map(mode()(work), [parts[i::n_threads] for i in range(n_threads)]))


@lru_cache(maxsize=4)
def _threads(n: int) -> ThreadPoolExecutor:
    """Return threads in each of which torch uses no other ones."""
    before = torch.get_num_threads()
    ready = threading.Barrier(n + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # settles it for this thread: otherwise its first operation would ask again
        ready.wait()

    pool = ThreadPoolExecutor(n, "halves", begin)
    for _ in range(n):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)
    return pool


def spread(images: Tensor, grid: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield the halves of the spectrum of images (batch, ...) on a grid twice as fine as `grid`, in order.

    Each is one FFT of all axes. Halving axis by axis would need fewer, but an FFT along an axis that is not the last
    takes more time than that saves.
    """
    padding = [side for n, size in zip(grid[::-1], images.shape[:0:-1], strict=True) for side in (0, n - size)]
    if any(padding):
        images = torch.nn.functional.pad(images, padding)
    return (torch.fft.fftn(moved, dim=_axes(moved)) for moved in _moved(images, 1))


def collect(halves: Iterable[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Undo `spread`, but for a factor: return images (batch, ...) from all halves."""
    whole = _joined((torch.fft.ifftn(half, dim=_axes(half)) for half in halves), 1, len(shape))
    return whole[tuple(slice(n) for n in shape)]


def _axes(images: Tensor) -> tuple[int, ...]:
    return tuple(range(1, images.ndim))


def _moved(images: Tensor, axis: int) -> Iterator[Tensor]:
    """Yield images whose FFTs are the halves, of the axes from `axis` on."""
    if axis == images.ndim:
        yield images
        return
    yield from _moved(images, axis + 1)
    yield from _moved(images * _modulation(images, axis), axis + 1)


def _joined(moved: Iterator[Tensor], axis: int, n_axes: int) -> Tensor:
    """Undo `_moved`, but for a factor; the images are overwritten."""
    if axis == n_axes:
        return next(moved)
    even, odd = (_joined(moved, axis + 1, n_axes) for _ in range(2))
    return even.addcmul_(odd, _modulation(odd, axis, sign=1))


def _modulation(images: Tensor, axis: int, *, sign: int = -1) -> Tensor:
    """exp(-i pi j / n) along an axis of n pixels: it moves the odd frequencies of 2 n to the n even ones."""
    factor = _factor(images.shape[axis], sign, images.dtype, images.device)
    return factor.view(-1, *[1] * (images.ndim - 1 - axis))


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)  # no gradient would pass what is made inside of it
def _factor(n: int, sign: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64) * (sign * math.pi / n)
    return torch.polar(torch.ones_like(angle), angle).to(device, dtype)


def places(n_dims: int) -> Iterator[tuple[tuple[slice, ...], float]]:
    """Yield where the frequencies of each choice of halves lie in a doubled spectrum, and their scale.

    The sign moves the origin of the kernel from the centre of the grid to its corner.
    """
    for odd in itertools.product((0, 1), repeat=n_dims):
        yield tuple(slice(first, None, 2) for first in odd), (-1) ** sum(odd) / 2**n_dims


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # as of `_factor`
def inside(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where a distance of the doubled grid occurs between two pixels, else 0."""
    mask = torch.ones((), dtype=dtype, device=device)
    for n, length in zip(shape, fft_shape(shape), strict=True):
        distance = torch.arange(2 * length, device=device) - length
        mask = mask[..., None] * (distance.abs() < n)
    return mask
