"""Unrolled multi-coil reconstruction: fits to the data and learned corrections in turn."""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.correction import Correction
from trajdesign.reconstruction.sense import conjugate_gradients, with_maps

_FIRST_REGULARIZATION = 0.05


class Unrolled(Reconstructor):
    """Unrolled model-based network (Aggarwal et al., IEEE TMI 2019, doi:10.1109/TMI.2018.2865356).

    Each iteration solves (E^H W E + r) x = E^H W y + r z by conjugate gradients from z, the image of the iteration
    before (at first zero), E being the coil maps and the NUFFT, and adds a U-Net's correction to x. Each has its own
    U-Net and learned r. Before training this is regularized SENSE, refined as often as there are iterations. The maps
    are those of ``training.coil_maps``, else estimated from the measurement.

    Parameters
    ----------
    iterations
        Number of fits, each followed by a correction.
    steps
        Steps of conjugate gradients in each iteration.
    channels
        Features of the U-Net's first level; each level below has twice as many.
    levels
        Number of times the U-Net halves the image.
    neighbours
        Slices of a volume, or frames of a film, on either side of each that its correction sees as well.
    checkpoint
        Compute an iteration again on the way back: this takes the memory of one iteration, not of all, and about a
        third more time.

    Raises
    ------
    ConfigError
        If an option is out of range, `channels` no multiple of four, or `neighbours` not 0 where images are single
        slices.
    """

    def __init__(
        self,
        *,
        iterations: int = 3,
        steps: int = 4,
        channels: int = 8,
        levels: int = 2,
        neighbours: int = 0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if not (1 <= iterations <= 100 and 1 <= steps <= 1000):
            raise ConfigError(
                f"reconstructor.iterations is {iterations}, steps {steps}; they are 1 to 100, and 1 to 1000."
            )
        # as children of their own, each can be compiled
        for i in range(iterations):
            self.add_module(f"correction{i}", Correction(2, channels, levels, neighbours))
        self.regularization = nn.Parameter(torch.full((iterations,), math.log(_FIRST_REGULARIZATION)))
        self.steps, self.checkpoint = steps, checkpoint

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        sense, maps = with_maps(images, encoding)
        combined = (maps.conj() * images).sum(dim=1, keepdim=True)
        x = torch.zeros_like(combined)

        def iterate(x: Tensor, correction: nn.Module, weight: Tensor) -> Tensor:
            misfit = combined - sense.normal(x)
            x = x + conjugate_gradients(lambda v: sense.normal(v) + weight * v, misfit, self.steps)
            parts = torch.view_as_real(x[:, 0]).movedim(-1, 1)
            change = correction(parts).to(parts.dtype).movedim(1, -1).contiguous()
            return x + torch.view_as_complex(change)[:, None]

        for correction, weight in zip(self.children(), self.regularization.exp(), strict=True):
            arguments = (x, correction, weight)
            x = checkpoint(iterate, *arguments, use_reentrant=False) if self.checkpoint else iterate(*arguments)
        return root_sum_of_squares(maps * x)
