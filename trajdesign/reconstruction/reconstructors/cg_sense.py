"""SENSE for any trajectory, by conjugate gradients."""

from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.sense import conjugate_gradients, with_maps


class CGSense(Reconstructor):
    """Regularized least squares with coil sensitivity maps (Pruessmann et al., MRM 2001, doi:10.1002/mrm.1241).

    It solves (E^H W E + regularization) x = E^H W y by conjugate gradients, E being the coil maps and the NUFFT, and
    returns the root sum of squares of the coil images of x. There is nothing to learn; the trajectory's gradient goes
    through every iteration. The maps are those of ``training.coil_maps``, else estimated from the measurement.

    Parameters
    ----------
    iterations
        Steps of conjugate gradients, from zero. Few regularize too.
    regularization
        Weight of the squared image; the data of a full sampling weigh about 1.

    Raises
    ------
    ConfigError
        If `iterations` is below one, or `regularization` negative.
    """

    def __init__(self, *, iterations: int = 10, regularization: float = 0.01) -> None:
        super().__init__()
        if iterations < 1 or regularization < 0:
            raise ConfigError(
                f"reconstructor.iterations is {iterations}, regularization {regularization}: iterations is 1 or more, "
                "regularization not negative."
            )
        self.iterations, self.regularization = iterations, regularization

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        sense, maps = with_maps(images, encoding)
        combined = (maps.conj() * images).sum(dim=1, keepdim=True)
        image = conjugate_gradients(lambda x: sense.normal(x) + self.regularization * x, combined, self.iterations)
        return root_sum_of_squares(maps * image)
