"""Scans that go otherwise than asked: what was sampled in truth, of which the reconstruction knows nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.physics.response import Response
from trajdesign.trajectory import Trajectory


@dataclass(frozen=True)
class Scan:
    """One scan in truth: what a perturbation changes.

    Parameters
    ----------
    played
        What the amplifiers play.
    response
        What the gradient system makes of that.
    factor
        Of each sample (shot, sample), complex128.
    """

    played: Trajectory
    response: Response
    factor: Tensor

    @property
    def acting(self) -> Trajectory:
        """The curve on which k-space is sampled."""
        return self.response(self.played)

    def encoding(self, believed: Encoding) -> "PerturbedEncoding":
        """Return the encoding that truly samples, beside the one that is `believed`."""
        return PerturbedEncoding(self, believed)


class PerturbedEncoding(Encoding):
    """The encoding of a scan that goes otherwise than asked."""

    def __init__(self, scan: Scan, believed: Encoding) -> None:
        # The weights are those of who reconstructs, and the trajectory is another in each step: no transfer function.
        device, dtype = believed.omega.device, believed.omega.dtype
        weights, terms = believed.weights, believed.segments
        super().__init__(
            scan.acting,
            weights=weights,
            device=device,
            dtype=dtype,
            normal="chain",
            segments=terms,
            in_plane=believed.in_plane,
        )
        self.factor = scan.factor.to(device, dtype.to_complex())

    def forward(self, image: Tensor) -> Tensor:
        """See `Encoding.forward`."""
        return self.factor * super().forward(image)

    def coil_images(self, kspace: Tensor) -> Tensor:
        """See `Encoding.coil_images`."""
        return super().coil_images(self.factor.conj() * kspace)


class Perturbation(Protocol):
    """Function in ``physics/perturbations/``: one way in which a scan goes otherwise than asked, differentiable."""

    def __call__(self, scan: Scan, random: np.random.Generator, /, *args: Any, **options: Any) -> Scan:
        """Return the scan as it goes; how it goes is drawn from `random`.

        It always draws the same count of numbers, so that those after it do not depend on what it drew.
        """
        ...


class Perturbations:
    """All perturbations of a config table ``[perturbation]``, one after the other.

    Parameters
    ----------
    tables
        Options of each perturbation by its name.
    """

    def __init__(self, tables: Mapping[str, plugins.Table]) -> None:
        self._all = [plugins.bind("perturbation", {**options, "kind": name}, 2) for name, options in tables.items()]

    def draw(self, trajectory: Trajectory, response: Response, seed: int) -> Scan:
        """Return the scan of a trajectory as it goes; the same seed gives the same."""
        acquisition = trajectory.acquisition
        factor = torch.ones(acquisition.n_shots, acquisition.n_samples, dtype=torch.complex128)
        scan = Scan(trajectory, response, factor)
        random = np.random.default_rng(seed)
        for perturbation in self._all:
            scan = perturbation(scan, random)
        return scan

    def encoding(self, trajectory: Trajectory, response: Response, seed: int, believed: Encoding) -> PerturbedEncoding:
        """Return the encoding that truly samples in the scan that `draw` returns."""
        return self.draw(trajectory, response, seed).encoding(believed)


def drawn(random: np.random.Generator, values: Sequence[float], spread: float, most: float, name: str) -> list[float]:
    """Return one value for each of x, y and z: the given one and, uniformly, up to `spread` on either side of it.

    It raises a `ConfigError` if there are not one or three `values`, or one with its spread may be larger than `most`.
    """
    if len(values) not in (1, 3):  # three also where two axes are learned: a scanner has three
        raise ConfigError(f"perturbation.{name}: {len(values)} values; give one for all axes, or those of x, y and z.")
    if spread < 0 or not max(map(abs, values)) + spread <= most:
        raise ConfigError(f"perturbation.{name}: {values} with a spread of {spread:g}; each is within +-{most:g}.")
    return [float(value) for value in np.array(values) + spread * random.uniform(-1, 1, 3)]


def happens(random: np.random.Generator, probability: float, name: str) -> bool:
    """Return whether something happens that does with this `probability`.

    It raises a `ConfigError` if that is none.
    """
    if not 0 <= probability <= 1:
        raise ConfigError(f"perturbation.{name}.probability is {probability:g}; it is from 0 to 1.")
    return bool(random.uniform() < probability)
