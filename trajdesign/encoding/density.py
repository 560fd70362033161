"""Density compensation for any pattern."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.encoding.nufft import Kernel, kernel, positions, require_finite, transforms

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
    require_finite(omega)
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
    density = _Density.apply(omega, weights, window, kernel(omega.device))
    return weights / density.clamp_min(1e-6 * float(density.detach().max()))


class _Density(torch.autograd.Function):
    """C w: weights (point,) convolved with the transform of an even window, at points omega (point, dim).

    C is real and symmetric, so that one transform carries its sums over the weights and over the gradient.
    """

    @staticmethod
    def forward(ctx: Any, omega: Tensor, weights: Tensor, window: Tensor, engine: Kernel) -> Tensor:
        ctx.save_for_backward(omega, weights, window)
        ctx.engine, shape = engine, tuple(window.shape)
        blurred = engine(1, torch.complex(weights, torch.zeros_like(weights))[None], omega, shape)
        return engine(2, blurred.mul_(window), omega, shape)[0].real.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        omega, weights, window = ctx.saved_tensors
        shape = tuple(window.shape)
        # of one size, lest the rounding of the larger one drown the other
        ratio = weights.norm() / grad.norm().clamp_min(1e-30)
        both = ctx.engine(1, torch.complex(weights, grad * ratio)[None], omega, shape).mul_(window)
        ramps = (-1j * positions(shape, axis, both) * both for axis in range(omega.shape[-1]))
        slopes = torch.stack([found[0] for found in transforms(ctx.engine, ramps, omega, shape)], dim=-1)
        return grad[:, None] * slopes.real + (weights / ratio)[:, None] * slopes.imag, None, None, None
