"""Density compensation for any pattern."""

import torch
from torch import Tensor

from trajdesign.encoding.nufft import nufft, nufft_adjoint

#: How much of the last weights a step keeps; the rest is their geometric mean. See `density_compensation`.
_KEEP = 0.9


def density_compensation(
    omega: Tensor, shape: tuple[int, ...], *, n_iterations: int = 30, start: Tensor | None = None
) -> Tensor:
    """Return weights that make the sampling density uniform wherever there are samples.

    The fixed point w <- w / (C w) of Pipe and Menon (MRM 1999, doi:10.1002/(SICI)1522-2594(199901)41:1<179::
    AID-MRM25>3.0.CO;2-V), where C convolves with the transform of a triangle over the pixels of the doubled field of
    view: sinc^2(k FOV), one FOV wide, repeated every 2 k_max. That kernel is nowhere negative, so the weights stay
    positive for any pattern.

    The plain iteration never settles: it goes on sharpening single samples. So each step first draws the logarithm of
    the weights a tenth of the way to its mean. That has one fixed point, reached as fast as 0.9^n from anywhere, so
    that weights followed along a changing trajectory equal those computed afresh.

    The gradient to the samples is that of the last step. With constant weights a learned trajectory would chase a
    brightness that the next weights take away again. Changes of the density over more than 1/FOV, which the step levels
    at once, have their exact derivative at the fixed point.

    Parameters
    ----------
    omega, shape
        Sample positions (point, dim), rad/pixel; image shape ([z,] y, x).
    n_iterations, start
        Number of steps, from the weights (point,) of a similar trajectory; one step suffices from nearly the same one.

    Returns
    -------
    Tensor
        (point,), real, positive; on a full Cartesian grid of N points each is 1/N, so that the adjoint of the
        weighted samples has the scale of the image.
    """
    weights = torch.ones_like(omega[:, 0]) if start is None else start.to(omega)
    with torch.no_grad():
        window = torch.ones((), device=omega.device, dtype=omega.dtype)
        for n in shape:
            axis = 1 - (torch.arange(2 * n, device=omega.device, dtype=omega.dtype) - n).abs() / n
            window = window[..., None] * axis
        for _ in range(n_iterations - 1):
            weights = _step(weights, omega, window)
    return _step(weights.detach(), omega, window)


def _step(weights: Tensor, omega: Tensor, window: Tensor) -> Tensor:
    """One step of the fixed point, towards weights whose density, seen through the window's transform, is one."""
    logarithm = weights.log()
    weights = (_KEEP * logarithm + (1 - _KEEP) * logarithm.mean()).exp()
    complex_type = torch.complex64 if omega.dtype == torch.float32 else torch.complex128
    blurred = nufft_adjoint(weights[None].to(complex_type), omega, tuple(window.shape))
    density = nufft(blurred * window, omega)[0].real
    return weights / density.clamp_min(1e-6 * float(density.detach().max()))
