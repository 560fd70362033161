"""Coil sensitivity maps from a calibration scan, and the combination of coil images.

Images are (batch, coil, y, x) of slices or (batch, coil, z, y, x) of volumes, and so are calibration scans and maps. Of
a film it is what stands still in it that tells the maps, as a volume of one slice: see
`trajdesign.reconstruction.axes.still`. Its maps are (batch, coil, 1, y, x), those of every frame.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.data.grid import margins
from trajdesign.errors import ConfigError, missing
from trajdesign.reconstruction import axes

#: Maps of a measurement fade out below this part of the largest signal, where there may be aliasing; those of a
#: calibration, which has none, where coils as uneven as those of a head still show its rim.
_FAINT, _FAINT_CALIBRATED = 0.1, 0.02
#: The lines of a calibration scan, and in parts of them the standard deviation of the window that keeps their edge from
#: ringing.
_CALIBRATION_LINES, _CALIBRATION_WIDTH = 24, 1 / 3
#: The kernels of ESPIRiT, 6 pixels wide, move about in a smaller volume too little to tell anything.
_LEAST_OF_ESPIRIT = 12
#: A black image is divided by this much.
_TINY = 1e-12


@torch.no_grad()
def calibration_scan(coil_images: Tensor, noise: float, seeds: list[int]) -> Tensor:
    """Return the centre of k-space as a short, fully sampled prescan would measure it.

    Parameters
    ----------
    coil_images
        (batch, coil, [z,] y, x), complex.
    noise
        Standard deviation of the complex noise of a pixel in a fully sampled image of one coil.
    seeds
        The seed of each image's noise (batch,).

    Returns
    -------
    kspace
        (batch, coil, [24,] 24, 24), or less where the image has less; orthonormal, its centre at n // 2.
    """
    space = axes.of_space(coil_images)
    kspace = torch.fft.fftn(torch.fft.ifftshift(coil_images, dim=space), dim=space, norm="ortho")
    centre = _fit(torch.fft.fftshift(kspace, dim=space), [min(n, _CALIBRATION_LINES) for n in coil_images.shape[2:]])
    if noise:
        parts = torch.empty((*centre.shape, 2), device=centre.device, dtype=centre.real.dtype)
        generator = torch.Generator(centre.device)
        for values, seed in zip(parts, seeds, strict=True):
            values.normal_(0, noise / math.sqrt(2), generator=generator.manual_seed(seed))
        centre = centre + torch.view_as_complex(parts)
    return centre


@torch.no_grad()
def smooth_maps(calibration: Tensor, shape: Sequence[int]) -> Tensor:
    """Return coil sensitivity maps (batch, coil, [z,] y, x) of a shape ([z,] y, x) from a `calibration_scan`.

    They are each coil's image over the root sum of squares of all (McKenzie et al., MRM 2002, doi:10.1002/mrm.10087),
    faded out where there is no signal: see `normalised`.
    """
    space = axes.of_space(calibration)
    images = torch.fft.ifftn(torch.fft.ifftshift(_fit(calibration, shape), dim=space), dim=space)
    images = low_pass(torch.fft.fftshift(images, dim=space), _CALIBRATION_WIDTH * calibration.shape[-1])
    return normalised(images, faint=_FAINT_CALIBRATED)


@torch.no_grad()
def espirit_maps(calibration: Tensor, shape: Sequence[int]) -> Tensor:
    """Return coil maps (batch, coil, [z,] y, x) of a shape ([z,] y, x) from a `calibration_scan`, by ESPIRiT.

    This is sigpy's ESPIRiT (Uecker et al., MRM 2014, doi:10.1002/mrm.24751); it takes tenths of a second a slice or
    more, and seconds to minutes a volume. The maps are zero where no set of coils agrees with the calibration.

    Raises
    ------
    ConfigError
        If a volume has less than 12 pixels along an axis.
    ResourceError
        If sigpy is not installed.
    """
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        raise missing("ESPIRiT", "sigpy", "espirit") from None
    wide = [n for n in shape if n > 1]  # a volume of one slice is a slice
    width = min(n for n in calibration.shape[2:] if n > 1)
    if len(wide) > 2 and width < _LEAST_OF_ESPIRIT:
        raise ConfigError(
            f"ESPIRiT needs {_LEAST_OF_ESPIRIT} pixels along every axis of a volume, and this calibration has "
            f"{tuple(calibration.shape[2:])}; take maps of a prescan without it."
        )
    whole = _fit(calibration, shape).cpu().numpy().reshape(*calibration.shape[:2], *wide)
    maps = [EspiritCalib(kspace, calib_width=width, show_pbar=False).run() for kspace in whole]
    return torch.from_numpy(np.stack(maps)).to(calibration).view(*calibration.shape[:2], *shape)


def normalised(coil_images: Tensor, signal: Tensor | None = None, faint: float = _FAINT) -> Tensor:
    r"""Return coil images divided by their root sum of squares, faded out where the signal is faint.

    The root sum of squares of the result is :math:`s / \sqrt{s^2 + f^2}`, with s the signal as a part of its largest
    value in the image, and f what counts as `faint`. Without that, maps could explain noise and aliasing in the
    background.

    Parameters
    ----------
    coil_images
        (batch, coil, [z,] y, x), complex, smooth.
    signal
        (batch, 1, [z,] y, x), real; by default the root sum of squares of the images.
    """
    size = torch.linalg.vector_norm(coil_images, dim=1, keepdim=True)
    signal = size if signal is None else signal
    part = signal / signal.amax(axes.of_image(signal), keepdim=True).clamp_min(_TINY)
    return coil_images / size.clamp_min(_TINY) * (part / (part.square() + faint**2).sqrt())


def low_pass(images: Tensor, width: float) -> Tensor:
    """Return images (batch, coil, [z,] y, x) times a Gaussian in k-space, `width` (standard deviation) in 1 / FOV."""
    for axis in axes.of_space(images):
        n = images.shape[axis]
        k = torch.fft.fftfreq(n, 1 / n, device=images.device, dtype=images.real.dtype)
        window = torch.exp(-0.5 * (k / width).square())
        spectrum = torch.fft.fft(images, dim=axis) * window.view(-1, *[1] * (images.ndim - 1 - axis))
        images = torch.fft.ifft(spectrum, dim=axis)
    return images


def _fit(kspace: Tensor, shape: Sequence[int]) -> Tensor:
    """Crop or pad with zeros the axes of space; n // 2 stays the centre."""
    last_first = margins(kspace.shape[2:], shape)[::-1]
    return torch.nn.functional.pad(kspace, [n for both in last_first for n in both])


def root_sum_of_squares(coil_images: Tensor) -> Tensor:
    """Combine coil images (batch, coil, [z or frame,] y, x), complex, to magnitudes (batch, 1, [z or frame,] y, x)."""
    if torch.compiler.is_exporting():  # for any number of coils
        return (torch.view_as_real(coil_images).square().sum((1, -1)) + _TINY).sqrt()[:, None]
    return _RootSumOfSquares.apply(coil_images)


class _RootSumOfSquares(torch.autograd.Function):
    """Passes over the images once in each direction."""

    @staticmethod
    def forward(ctx: Any, coil_images: Tensor) -> Tensor:
        parts = torch.view_as_real(coil_images.resolve_conj())
        power = torch.zeros_like(parts[:, :1])
        for part in parts.split(1, dim=1):
            power.addcmul_(part, part)
        magnitude = (power[..., 0] + power[..., 1]).add_(_TINY).sqrt_()
        ctx.save_for_backward(coil_images, magnitude)
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        coil_images, magnitude = ctx.saved_tensors
        return coil_images * (grad / magnitude)
