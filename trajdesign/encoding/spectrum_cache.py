"""Spectra of images that come again in every epoch, kept so that convolutions need half of the FFTs."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajdesign.encoding.halves import fft_shape
from trajdesign.encoding.toeplitz import spectrum


@dataclass
class _Seen:
    """An image that a `SpectrumCache` has met: its checksum, and the bytes of its spectrum, 0 once it has changed."""

    checksum: str
    n_bytes: int
    spectrum: Tensor | None = None  # computed when the image comes again


class SpectrumCache:
    """The `trajdesign.encoding.toeplitz.spectrum` of images that come again, up to `n_bytes` in all.

    A checksum tells whether a single pixel has changed, as by augmentation; the spectrum of such an image is not kept.
    """

    def __init__(self, n_bytes: int) -> None:
        self._room = n_bytes
        self._seen: dict[int, _Seen] = {}

    def of(self, numbers: Sequence[int], images: Tensor, device: torch.device | None = None) -> list[Tensor]:
        """Return the spectrum of each slice of images (batch, coil, y, x) by its number; none if one is not kept.

        They are on the device, by default that of the images.
        """
        found = [self._one(number, slice_, device) for number, slice_ in zip(numbers, images, strict=False)]
        known = [one for one in found if one is not None]
        return known if len(known) == len(images) else []

    def state(self) -> dict[int, tuple[str, int]]:
        """Return the checksum of each image by its number, and the bytes that are kept of it; these change rounding."""
        return {number: (seen.checksum, seen.n_bytes) for number, seen in self._seen.items()}

    def load_state(self, state: dict[int, tuple[str, int]]) -> None:
        """Reserve room for the spectra of the same images, for when they come again."""
        self._seen = {number: _Seen(*kept) for number, kept in state.items()}
        self._room -= sum(seen.n_bytes for seen in self._seen.values())

    def _one(self, number: int, coil_images: Tensor, device: torch.device | None) -> Tensor | None:
        seen = self._seen.get(number)
        if seen is not None and not seen.n_bytes:
            return None
        if seen is None:
            doubled = math.prod(2 * n for n in fft_shape(tuple(coil_images.shape[1:])))
            n_bytes = coil_images.element_size() * len(coil_images) * doubled
            if n_bytes > self._room:
                return None
            self._room -= n_bytes
            seen = self._seen[number] = _Seen(_checksum(coil_images), n_bytes)
        elif _checksum(coil_images) != seen.checksum:
            self._room += seen.n_bytes
            seen.n_bytes, seen.spectrum = 0, None
            return None
        if seen.spectrum is None:
            seen.spectrum = spectrum(coil_images if device is None else coil_images.to(device))
        return seen.spectrum


def _checksum(images: Tensor) -> str:
    """Return the SHA-256 of the sums of all bits along the rows and the columns: a tenth of the time of that of all."""
    bits = images.detach().resolve_conj().contiguous().view(torch.int64)
    return hashlib.sha256(b"".join(bits.sum(axis).cpu().numpy().tobytes() for axis in (-1, -2))).hexdigest()
