"""U-Net on the density-compensated adjoint image."""

from torch import Tensor, nn

from trajdesign.encoding.operator import Encoding
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.correction import Correction

#: Part of negative values that is left in training: an image that is black all over would learn no more.
_LEAK = 0.01


class UNet(Reconstructor):
    """U-Net (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28) that corrects the adjoint image.

    It predicts what to add to the root sum of squares of the coils, at first nothing. Negative values become zero, so
    the background can become empty.

    Parameters
    ----------
    channels
        Features of the first level; each next level has twice as many.
    levels
        Number of times the image is halved.
    neighbours
        Slices of a volume, or frames of a film, on either side of each that its correction sees as well.

    Raises
    ------
    ConfigError
        If `channels` is no multiple of four up to 1024, `levels` not 0 to 10, or `neighbours` not 0 to 16, or
        not 0 where images are single slices.
    """

    def __init__(self, *, channels: int = 8, levels: int = 3, neighbours: int = 0) -> None:
        super().__init__()
        self.correction = Correction(1, channels, levels, neighbours)

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        image = root_sum_of_squares(images)
        image = image + self.correction(image)
        return nn.functional.leaky_relu(image, _LEAK if self.training else 0.0)
