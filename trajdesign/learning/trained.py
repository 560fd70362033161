"""A finished run as what it is for: a trajectory, and the network that reconstructs what was sampled on it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trajdesign.config import plugins
from trajdesign.config.models import Config
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.evaluation import draw_seeds, encoding_of, from_adjoint, static_field
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics.field import StaticField
from trajdesign.physics.perturbation import Perturbations, PerturbedEncoding
from trajdesign.physics.response import Response
from trajdesign.trajectory import Trajectory


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run has learned.

    `trajectory` is what the scanner is told to play in a `stage`, ``fixed`` or ``learned``; `acting` is what the
    gradient system makes of that, and `encoding` the operator on it. The `network` is in evaluation mode. `field` holds
    the static fields that it was trained under, if any, and `perturbations` what is to go otherwise than asked where it
    is tested.
    """

    config: Config
    stage: str
    trajectory: Trajectory
    acting: Trajectory
    network: Reconstructor
    encoding: Encoding
    field: StaticField | None = None
    perturbations: Perturbations | None = None

    @classmethod
    def load(cls, run: Path | str, stage: str | None = None) -> "TrainedRun":
        """Read a run folder; `stage` is by default what was trained last.

        Raises
        ------
        InputError
            If the run is not finished, or a file of it is missing, damaged or not its own.
        ConfigError
            If it has no such stage.
        """
        folder = RunFolder(run)
        config, stages = folder.config(), list(folder.results().stages)
        if stage not in (None, *stages):
            raise ConfigError(f"stage is {stage!r}; {folder.path} has {', '.join(stages)}.")
        network = plugins.build("reconstructor", config.reconstructor)
        trajectory = folder.load_stage(stage or stages[-1], network)
        acting = Response(config.response)(trajectory)
        field = static_field(config)
        encoding = encoding_of(config, acting, field)
        return cls(config, stage or stages[-1], trajectory, acting, network.eval(), encoding, field)

    def under(self, config: Config) -> "TrainedRun":
        """Return it with the data, noise, coil maps, fields and perturbations of another config, as it was learned."""
        field = static_field(config)
        perturbations = Perturbations(config.perturbation) if config.perturbation else None
        encoding = encoding_of(config, self.acting, field)
        return replace(self, config=config, encoding=encoding, field=field, perturbations=perturbations)

    def sampled_by(self, seed: int) -> PerturbedEncoding | None:
        """Return what truly samples in a scan, where that goes otherwise than asked; None where it does not."""
        if self.perturbations is None:
            return None
        return self.perturbations.encoding(self.trajectory, Response(self.config.response), seed, self.encoding)

    def promised(self, coil_images: Tensor) -> Tensor:
        """Return the image (1, 1, y, x) of what training would sample of an object (coil, y, x)."""
        return self._image(self.encoding.normal(coil_images[None]), coil_images)

    def reconstruct(self, kspace: Tensor, coil_images: Tensor) -> Tensor:
        """Return the image (1, 1, y, x) of k-space (coil, shot, sample).

        `coil_images` (coil, y, x) tell only what a scan before the actual one would measure: the coil maps.
        """
        return self._image(self.encoding.compensated(kspace[None].to(coil_images.dtype)), coil_images)

    def _image(self, images: Tensor, coil_images: Tensor) -> Tensor:
        seeds = draw_seeds(1, torch.Generator().manual_seed(self.config.seed))
        return from_adjoint(images, coil_images[None], self.encoding, self.network, self.config.training, seeds).float()
