"""Image quality as fastMRI and scikit-image define it, and the test of a difference between results.

Images are real, (batch, 1, y, x), or (batch, 1, n, y, x) with the n slices of a volume or frames of a film, and a
metric returns one number for each of the batch, (batch,), differentiable. A data range is one number, or one for each
of the batch (batch,), by default the maximum of the reference. Images of different shapes raise `ConfigError`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.errors import ConfigError, InputError
from trajdesign.reconstruction import axes

#: SSIM (Wang et al., IEEE TIP 2004, doi:10.1109/TIP.2003.819861) with the window of fastMRI and scikit-image.
_WINDOW, _K1, _K2 = 7, 0.01, 0.03
#: An image whose pixels differ by less than this part of the data range has no signal.
LEAST_CONTRAST = 0.01
#: Fingerprints of one image differ by less: some hundred times the rounding, and less than another object makes.
_SAME = 1e-5


def has_signal(reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Return whether each image holds anything that a metric could compare (batch,).

    It does if its brightest and darkest pixels differ by at least 1 % of the data range. Else one grey value in all
    pixels would score more than 46 dB, and the PSNR of an empty image would lift any mean.
    """
    of_image = axes.of_image(reference)
    return reference.amax(of_image) - reference.amin(of_image) >= LEAST_CONTRAST * data_range


def psnr(image: Tensor, reference: Tensor, data_range: float | Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio of each image (batch,), dB; infinite for equal images."""
    _check(image, reference)
    error = (image - reference).square().mean(axes.of_image(image))
    return 10 * torch.log10(_peak(reference, data_range).square() / error)


def nrmse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the root of the squared error over the root of the squared reference, for each image (batch,)."""
    _check(image, reference)
    of_image = axes.of_image(image)
    error = torch.linalg.vector_norm(image - reference, dim=of_image)
    return error / torch.linalg.vector_norm(reference, dim=of_image)


def ssim(image: Tensor, reference: Tensor, data_range: float | Tensor | None = None) -> Tensor:
    """Return the mean structural similarity of each image (batch,) over the valid region.

    Uniform window of 7 x 7; K1 = 0.01, K2 = 0.03; sample covariance: as scikit-image by default, and fastMRI. A smaller
    image raises `ConfigError`. Of a volume or a film it is the mean over slices or frames, with the data range of the
    whole, as fastMRI has it.
    """
    _check(image, reference)
    if min(image.shape[-2:]) < _WINDOW:
        raise ConfigError(f"SSIM needs {_WINDOW} pixels a side; the image has {tuple(image.shape[-2:])}.")
    peak = _peak(reference, data_range).view(-1, *[1] * (image.ndim - 1))
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    x, xx, xy = _WindowMeans.apply(torch.cat([image, image * image, image * reference], dim=1)).split(1, dim=1)
    y, yy = _WindowMeans.apply(torch.cat([reference, reference * reference], dim=1)).split(1, dim=1)
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    var_x, var_y, cov = sample * (xx - x * x), sample * (yy - y * y), sample * (xy - x * y)
    luminance = (2 * x * y + c1) / (x * x + y * y + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean(axes.of_image(image))


def nrmse_of_motion(image: Tensor, reference: Tensor) -> Tensor:
    """Return the NRMSE of what changes from each frame of a film to the next, and from the last to the first (batch,).

    Frames that are all like their mean have 1, however sharp: PSNR and SSIM hardly see what a small heart does.
    """
    return nrmse(_changes(image), _changes(reference))


def image_loss(
    image: Tensor,
    reference: Tensor,
    ssim_weight: float,
    data_range: float | Tensor | None = None,
    motion_weight: float = 0.0,
) -> Tensor:
    """Return the training loss, a scalar over the batch: mean absolute error + `ssim_weight` (1 - SSIM).

    Of films with `motion_weight` so much of the mean absolute error of what changes from frame to frame is added.
    """
    _check(image, reference)
    loss = (image - reference).abs().mean()
    if ssim_weight:
        loss = loss + ssim_weight * (1 - ssim(image, reference, data_range)).mean()
    if motion_weight:
        loss = loss + motion_weight * _changes(image - reference).abs().mean()
    return loss


def _changes(film: Tensor) -> Tensor:
    """Return what changes from each frame to the next of a film (batch, 1, frame, y, x), whose beat starts again."""
    return film.roll(-1, 2) - film


def wilcoxon_p(learned: Sequence[float], fixed: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test (doi:10.2307/3001968), 1 where no pair differs.

    The results are the same metric of the same images in the same order, from two reconstructions.

    Raises
    ------
    InputError
        If the lengths differ, there are no pairs, or a difference is not a number.
    """
    if len(learned) != len(fixed) or not len(learned):
        raise InputError(f"{len(learned)} learned and {len(fixed)} fixed results cannot be paired.")
    a, b = np.asarray(learned, dtype=float), np.asarray(fixed, dtype=float)
    differences = np.where(a == b, 0.0, np.subtract(a, b, where=a != b, out=np.zeros_like(a)))
    if np.isnan(differences).any():
        raise InputError(f"the results of image {int(np.argmax(np.isnan(differences)))} are not numbers.")
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    return float(scipy.stats.wilcoxon(differences).pvalue)


def fingerprints(images: Tensor) -> Tensor:
    """Return a number (batch,) by which each complex image (batch, coil, ...) is known again: see `require_same`.

    It is a sum of all values with random signs, always the same, over the root of their number, to six decimals. Unlike
    a checksum it survives the rounding of another machine.
    """
    shape = (*images.shape[1:], 2)
    signs = 2 * torch.randint(2, shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8) - 1
    sums = [(torch.view_as_real(image.cpu().to(torch.complex128)) * signs).sum() for image in images]
    return (torch.stack(sums) / math.sqrt(signs.numel())).round(decimals=6)


def require_same(found: Sequence[float] | None, wanted: Sequence[float] | None) -> None:
    """Raise `InputError` if the fingerprints of two results show other images; old results have none."""
    if difference := _difference(found, wanted, "test"):
        raise InputError(
            f"the results are of other test images: {difference}; they cannot be paired. Were the files replaced in "
            "between?"
        )


def require_kept(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> None:
    """Raise `InputError` if the fingerprints of a split's images are not those that a run began with."""
    for split, prints in found.items():
        if difference := _difference(prints, wanted.get(split), split):
            raise InputError(
                f"the run began with other {split} images: {difference}. Were the files replaced in between? Put them "
                "back, or pass --force in place of --resume to start again."
            )


def _difference(found: Sequence[float] | None, wanted: Sequence[float] | None, split: str) -> str:
    """Return how fingerprints differ, nothing if they do not, or one is not known."""
    if found is None or wanted is None:
        return ""
    if len(found) != len(wanted):
        return f"{len(found)} and {len(wanted)} {split} images"
    apart = [n for n, (one, other) in enumerate(zip(found, wanted, strict=True)) if not abs(one - other) <= _SAME]
    return f"number {apart[0]} (from 0) differs" if apart else ""


class _WindowMeans(torch.autograd.Function):
    """Mean over every window (..., y - 6, x - 6): on a CPU ten times as fast as average pooling."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return _window_means(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _window_means(torch.nn.functional.pad(grad, [_WINDOW - 1] * 4))


def _window_means(images: Tensor) -> Tensor:
    return _window_sums(_window_sums(images, -2), -1).div_(_WINDOW**2)


def _window_sums(values: Tensor, axis: int) -> Tensor:
    """Return the sums of seven neighbours along an axis, as those of four, two, and one."""
    n = values.shape[axis] - _WINDOW + 1
    two = values.narrow(axis, 0, n + 5) + values.narrow(axis, 1, n + 5)
    four = two.narrow(axis, 0, n) + two.narrow(axis, 2, n)
    return four.add_(two.narrow(axis, 4, n)).add_(values.narrow(axis, 6, n))


def _peak(reference: Tensor, data_range: float | Tensor | None) -> Tensor:
    if data_range is None:
        return reference.amax(axes.of_image(reference))
    return torch.as_tensor(data_range, dtype=reference.dtype, device=reference.device).expand(len(reference))


def _check(image: Tensor, reference: Tensor) -> None:
    if image.shape != reference.shape or image.ndim not in (4, 5) or image.shape[1] != 1:
        raise ConfigError(
            f"image {tuple(image.shape)}, reference {tuple(reference.shape)}: both must be (batch, 1, y, x), or "
            "(batch, 1, n, y, x) of volumes and films."
        )
