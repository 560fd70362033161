"""Unrolled multi-coil reconstruction: steps to the data and learned corrections in turn."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trajdesign.encoding import Encoding
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstructors._correction import Correction
from trajdesign.reconstructors.adjoint import root_sum_of_squares

# Part of k-space, along each axis, that coil maps are estimated from.
_CALIBRATION = 0.15


class Unrolled(Reconstructor):
    """Unrolled gradient descent (Hammernik et al., MRM 2018, doi:10.1002/mrm.26977; one U-Net for all iterations).

    Each iteration takes a step along the gradient of the density-weighted misfit, A^H W A x - A^H W y, of a learned
    length, and then adds the U-Net's correction. The coil maps are estimated from the measurement itself: the adjoint
    images at low resolution, divided by their root sum of squares.

    Parameters
    ----------
    iterations
        How often both are done.
    channels, levels
        See `trajdesign.reconstructors.unet.UNet`.
    checkpoint
        Keep only the image between iterations and compute the rest again on the way back: the memory of one
        iteration instead of all of them, for about a third more time.

    Raises
    ------
    ConfigError
        If `iterations` is below one, `channels` no multiple of four, or `levels` negative.
    """

    def __init__(self, *, iterations: int = 4, channels: int = 8, levels: int = 2, checkpoint: bool = True) -> None:
        super().__init__()
        if iterations < 1:
            raise ConfigError(f"reconstructor.iterations is {iterations}; it must be 1 or more.")
        self.correction = Correction(2, channels, levels)
        self.step = nn.Parameter(torch.ones(iterations))
        self.checkpoint = checkpoint

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        maps = coil_maps(images)
        of_coils = encoding.with_maps(maps)
        adjoint = (images * maps.conj()).sum(dim=1, keepdim=True)
        x = adjoint

        def iterate(x: Tensor, step: Tensor) -> Tensor:
            x = x - step * (of_coils.normal(x) - adjoint)
            parts = torch.view_as_real(x[:, 0]).movedim(-1, 1)
            correction = self.correction(parts).float().movedim(1, -1).contiguous()
            return x + torch.view_as_complex(correction)[:, None]

        for step in self.step:
            x = checkpoint(iterate, x, step, use_reentrant=False) if self.checkpoint else iterate(x, step)
        return root_sum_of_squares(x)


@torch.no_grad()
def coil_maps(images: Tensor) -> Tensor:
    """Estimate coil sensitivity maps (batch, coil, y, x) from coil images: their low frequencies, normalised.

    Constants to the gradient.     McKenzie et al., MRM 2002, doi:10.1002/mrm.10087.
    """
    window = torch.ones((), device=images.device, dtype=images.real.dtype)
    for n in images.shape[-2:]:
        frequency = torch.fft.fftfreq(n, device=images.device, dtype=window.dtype)
        window = window[..., None] * torch.exp(-0.5 * (frequency / (0.5 * _CALIBRATION)).square())
    smooth = torch.fft.ifft2(torch.fft.fft2(images) * window)
    return smooth / root_sum_of_squares(smooth)
