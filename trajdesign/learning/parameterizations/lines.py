"""Straight lines, on the rows of the matrix that serve the training images best."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.errors import ConfigError
from trajdesign.interfaces import Parameterization
from trajdesign.learning.line_choice import LineChoice
from trajdesign.trajectory import Trajectory

#: Largest distance from a straight line, 1/FOV.
_STRAIGHT = 1e-6
#: Of images, columns of one, and exchanges.
_MOST = 4096


class Lines(Parameterization):
    """Straight lines in k_x at a fixed readout, of which the rows are learned: as many rows of the matrix as shots.

    They are chosen once, before the first step, by the error of CG-SENSE on some training images: the row that lowers
    it most is added, one after the other (after Sanchez et al., ICASSP 2020, doi:10.1109/ICASSP40776.2020.9053345), and
    then rows are exchanged while that lowers it further: see `trajdesign.learning.line_choice.LineChoice`. The coil
    maps of that are of a prescan, whatever ``training.coil_maps``. All steps of the training are the network's. Each
    shot keeps the gradients of the start, so that its limits hold, and the rows rise from shot to shot.

    Parameters
    ----------
    initial
        Straight lines along x, as ``init.kind = "cartesian"``.
    n_images
        Training images to choose by, evenly among all.
    n_columns
        Columns of each of these images, evenly among those with signal. Time and memory go with their number.
    n_exchanges
        The most exchanges.

    Raises
    ------
    ConfigError
        If the start is none of straight lines, there are more shots than rows, or an option is out of range.
    """

    ky: Tensor

    def __init__(self, initial: Trajectory, *, n_images: int = 16, n_columns: int = 16, n_exchanges: int = 20) -> None:
        super().__init__(initial)
        acquisition, k = initial.acquisition, initial.points
        least = {"n_images": 1, "n_columns": 1, "n_exchanges": 0}
        given = {"n_images": n_images, "n_columns": n_columns, "n_exchanges": n_exchanges}
        for option, value in given.items():
            if not least[option] <= value <= _MOST:
                raise ConfigError(f"parameterization.{option} is {value}; it lies between {least[option]} and {_MOST}.")
        bent = [(k[..., 0] - k[:1, :, 0]).abs().max(), (k[..., 1] - k[:, :1, 1]).abs().max()]
        if acquisition.n_dims != 2 or float(max(bent)) * max(acquisition.fov) > _STRAIGHT:
            raise ConfigError(
                "parameterization.kind is 'lines', which starts from straight lines along x; take init.kind = "
                "'cartesian' without a wave."
            )
        if acquisition.n_frames > 1:
            raise ConfigError(
                f"parameterization.kind is 'lines', which chooses rows of one image; this is a film of "
                f"{acquisition.n_frames} frames."
            )
        if acquisition.n_shots > acquisition.matrix[1]:
            raise ConfigError(
                f"parameterization.kind is 'lines': {acquisition.n_shots} shots are more than the "
                f"{acquisition.matrix[1]} rows of the matrix; take fewer acquisition.n_shots."
            )
        self.n_images, self.n_columns, self.n_exchanges = n_images, n_columns, n_exchanges
        self.register_buffer("ky", k[:, 0, 1].clone())

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        k = self.initial.points.clone()
        k[..., 1] = self.ky[:, None]
        return self.initial.with_points(k)

    def choose(self, images: Dataset[Tensor], noise: float) -> None:
        """See `Parameterization.choose`."""
        acquisition = self.initial.acquisition
        n_all: int = len(images)  # type: ignore[arg-type]
        numbers = torch.linspace(0, n_all - 1, min(self.n_images, n_all)).round().long().tolist()
        # a line is sampled more often than its pixels need: its noise is the mean over so many samples
        of_line = noise * (acquisition.matrix[0] / acquisition.n_samples) ** 0.5
        choice = LineChoice(torch.stack([images[n] for n in numbers]), n_columns=self.n_columns, noise=of_line)
        rows = torch.tensor(choice.choose(acquisition.n_shots, self.n_exchanges)) - acquisition.matrix[1] // 2
        self.ky.copy_(rows.to(self.ky) / acquisition.fov[1])
