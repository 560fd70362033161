"""Images of samples that are in their places: by the network of a run, by CG-SENSE, and by the adjoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import Segments
from trajdesign.learning.evaluation import draw_seeds, from_adjoint
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring.consistency import Residual
from trajdesign.reconstruction import coils
from trajdesign.reconstruction.brightness import brightness
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.sense import conjugate_gradients, with_maps
from trajdesign.trajectory import Trajectory

#: Of CG-SENSE, in the units of the reconstructor ``cg_sense``: more iterations, for a residual that has settled.
ITERATIONS, REGULARIZATION = 20, 0.01

#: How coil maps are made: of the measurement itself, or of a calibration.
KINDS = ("self", "prescan", "espirit")


@dataclass(frozen=True)
class Points:
    """Samples anywhere in k-space, which an `Encoding` takes as it takes a trajectory.

    Parameters
    ----------
    acquisition
        Field of view and matrix.
    k
        (shot, sample, dim), 1/m, float64.
    """

    acquisition: Acquisition
    k: Tensor

    @property
    def k_adc(self) -> Tensor:
        """The samples themselves."""
        return self.k


def encoding_at(
    k: Tensor, acquisition: Acquisition, dtype: torch.dtype = torch.float32, segments: Segments | None = None
) -> Encoding:
    """Return the encoding of an acquisition at k (shot, sample, dim), 1/m, of any number of samples."""
    return Encoding(cast(Trajectory, Points(acquisition, k)), dtype=dtype, segments=segments)


@dataclass(frozen=True)
class Solver:
    """From the k-space of a slice to its images.

    Parameters
    ----------
    encoding
        Where it was sampled.
    trained
        The run whose network reconstructs, if any.
    calibration
        Coil images (1, coil, [z or 1,] y, x) of a calibration scan, of which coil maps are made; they may have fewer
        pixels. Of a film they are those of a volume of one slice.
    coil_maps
        How those of CG-SENSE are made, as in ``training.coil_maps``; all but ``self`` need a calibration.
    is_gated
        Whether heartbeats have sorted the shots.
    """

    encoding: Encoding
    trained: TrainedRun | None
    calibration: Tensor | None = None
    coil_maps: str = "self"
    is_gated: bool = False

    @cached_property
    def sense(self) -> Encoding:
        """The encoding with the coil maps of the calibration, if there are any."""
        if self.calibration is None or self.coil_maps == "self":
            return self.encoding
        estimate = coils.espirit_maps if self.coil_maps == "espirit" else coils.smooth_maps
        centre = coils.calibration_scan(self.calibration, 0.0, [])
        acquisition = self.encoding.acquisition
        still = (1, *acquisition.frame.image_shape) if acquisition.n_frames > 1 else acquisition.image_shape
        return self.encoding.with_maps(estimate(centre, still))

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Return the density-compensated coil images (1, coil, y, x) of k-space (coil, shot, sample)."""
        return self.encoding.compensated(kspace[None])

    def solved(self, images: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Return the image (y, x) by each reconstruction, and its coil images (1, coil, y, x), of adjoint images."""
        sense, maps = with_maps(images, self.sense)
        combined = (maps.conj() * images).sum(dim=1, keepdim=True)
        x = conjugate_gradients(lambda v: sense.normal(v) + REGULARIZATION * v, combined, ITERATIONS)
        of_sense, of_adjoint = maps * x, root_sum_of_squares(images)
        size = root_sum_of_squares(of_sense)
        found = {"cg_sense": (size[0, 0], of_sense), "adjoint": (of_adjoint[0, 0], images)}
        if self.trained is None:
            return found
        image = self._network(images, of_sense if self.calibration is None else self.calibration, self.trained)
        return {"network": (image[0, 0], image * (of_sense / size)), **found}

    def _network(self, images: Tensor, coil_images: Tensor, trained: TrainedRun) -> Tensor:
        """Return the network's image (1, 1, y, x); coil maps that training had from a prescan are of `coil_images`."""
        quiet = trained.config.training.model_copy(update={"noise": 0.0})
        seeds = draw_seeds(1, torch.Generator().manual_seed(trained.config.seed))
        return from_adjoint(images, coil_images, self.encoding, trained.network, quiet, seeds).float()


def residuals(
    solver: Solver, kspace: Tensor, found: Mapping[str, tuple[Tensor, Tensor]], sums: dict[str, Residual]
) -> None:
    """Add to the residual of each reconstruction what it leaves of k-space (coil, shot, sample)."""
    for name, (_, coil_images) in found.items():
        total = sums.setdefault(name, Residual(is_gated=solver.is_gated))
        total.add(solver.encoding, coil_images, kspace, scaled=name == "adjoint")


def promises(solver: Solver, found: Mapping[str, tuple[Tensor, Tensor]], sums: dict[str, Residual]) -> None:
    """Add to the residual of each reconstruction what it leaves of data that its own image gives, without noise."""
    for name in [one for one in found if one != "adjoint"]:
        kspace = solver.encoding.forward(found[name][1])[0]
        images = solver.adjoint(kspace)
        scale = brightness(images)
        again = solver.solved(images / scale)[name][1] * scale
        sums.setdefault(name, Residual()).add(solver.encoding, again, kspace)
