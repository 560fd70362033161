"""What plug-ins implement: three abstract classes and five call signatures. Read this file first.

A plug-in is one file in the folder of its kind; its name in the config is the file's name. Its options are the
keyword-only parameters of its constructor or function, with their annotations and defaults.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.tolerances import ROUNDING
from trajdesign.trajectory import Trajectory, point_times

#: Of a penalty; beyond it nothing else is learned.
_MOST_WEIGHT = 1e6


class Init(Protocol):
    """Function in ``inits/``: a classical pattern, feasible for the scanner, or a `LimitError` that says why not."""

    def __call__(self, acquisition: Acquisition, scanner: Scanner, **options: Any) -> Trajectory:
        """Return the pattern."""
        ...


class Exporter(Protocol):
    """Function in ``exporters/``: writes `trajectory` to `path` and returns facts about the file for the report.

    It is called by `trajdesign.exporting.proof.export` alone, after every limit has been checked, with a temporary
    path. Its module also has ``SUFFIX``, the ending of the file's name, and ``read_back(path, trajectory)``, which
    returns k as each reader of the format finds it in the file, and more facts: an export is proven from the written
    file.
    """

    def __call__(self, trajectory: Trajectory, path: Path, **options: Any) -> dict[str, Any]:
        """Write the file."""
        ...


class Response(Protocol):
    """Function in ``responses/``: what acts on the spins when `gradient` is played, linear and differentiable."""

    def __call__(self, gradient: Tensor, raster: float, **options: Any) -> Tensor:
        """Return the actual gradient (..., sample, axis), T/m, of samples `raster` apart (s)."""
        ...


class DataSource(Protocol):
    """Function in ``datasets/``: images for one split.

    Each item is the complex coil images (coil, y, x) of one slice, complex64, scaled so that the largest root sum of
    squares of its volume is one: that is the data range of the metrics, as in fastMRI. A volume is all slices of one
    contrast in one file; an image that stands alone is its own. If the dataset has an attribute ``origin``, like
    ``"2 people"`` or ``"5 files"``, `trajdesign.optimize` says of whom the images are.
    """

    def __call__(
        self, acquisition: Acquisition, split: Literal["train", "val", "test"], **options: Any
    ) -> Dataset[Tensor]:
        """Return the images of the split."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever watches it. `psnr` is the last validation's, not a number before the first."""

    stage: str
    step: int
    n_steps: int
    loss: float
    psnr: float
    is_validation: bool = False
    """Whether `psnr` is of this step."""

    @property
    def facts(self) -> str:
        """The loss, and the last validation if there was one."""
        return f"loss {self.loss:.4f}" + ("" if math.isnan(self.psnr) else f"  val {self.psnr:.2f} dB")

    def __str__(self) -> str:
        return f"{self.stage} {self.step}/{self.n_steps} {self.facts}"


class Logger(Protocol):
    """Function in ``loggers/``: a context of the length of a run, which yields what is called after every step."""

    def __call__(self, run: Path, **options: Any) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return the context for a run folder, which may not exist before the first step."""
        ...


class Parameterization(nn.Module, ABC):
    """A learnable trajectory, made from an initial one that it reproduces before the first step.

    Calling it returns the Trajectory. Learnable tensors are scaled so that a learning rate near 0.01 suits them.
    They live on the device of the initial trajectory, and `to` moves both.
    """

    def __init__(self, initial: Trajectory) -> None:
        super().__init__()
        self.initial = initial

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Parameterization":
        """Move the initial trajectory along, to whatever device the rest goes."""
        super()._apply(fn, recurse)
        self.initial = self.initial.with_k(fn(self.initial.k))
        return self

    @abstractmethod
    def forward(self) -> Trajectory:
        """Return the trajectory of the present parameters, differentiable in them."""

    def refine(self, progress: float) -> None:
        """Change the resolution of what is learned, in place and on the same curve; nothing by default.

        Called before every step with the part of the run that is done. The parameters stay the same tensors, of the
        same shapes, because an optimizer holds them.
        """


@dataclass(frozen=True)
class Finding:
    """The worst place of a trajectory against one limit."""

    name: str
    value: float
    limit: float
    unit: str
    shot: int
    time: float
    """After the first gradient sample, s; within the readout."""
    n_violations: int
    """At how many times of all shots the limit is broken."""
    rounding: float = ROUNDING
    """Part of the limit that rounding alone may add."""

    @property
    def ok(self) -> bool:
        """Whether the limit is kept; false for a value that is not a number."""
        return self.value / self.limit - 1 <= self.rounding

    @property
    def margin(self) -> float:
        """The part of the limit that is left, negative where it is broken."""
        return 1 - self.value / self.limit


class Constraint(ABC):
    """A limit on a trajectory. The base derives from `measure` both the training penalty and the hard check.

    Its options are in the config's table ``[limits.options.NAME]``. One with an option that has no default needs what
    only a site knows; it holds where it is asked for, and is not part of the hardware's limits.

    Parameters
    ----------
    weight
        Of its penalty in training; by default the weight of all.
    """

    #: The limit is on the norm of this derivative of k over the raster, so that `Projection` can enforce it;
    #: None for limits of another form, which are penalised and checked but not projected onto.
    derivative: ClassVar[int | None] = None
    #: Part of the limit that the digits of a file may add to a waveform exactly at it; `limits.check` allows it.
    rounding: ClassVar[float] = ROUNDING
    #: Whether the scanner itself would refuse, or be harmed by, a waveform beyond the limit.
    guards_hardware: ClassVar[bool] = False
    unit: ClassVar[str]

    def __init__(self, acquisition: Acquisition, scanner: Scanner, *, weight: float | None = None) -> None:
        if weight is not None and not 0 <= weight <= _MOST_WEIGHT:
            raise ConfigError(
                f"the weight of the limit {self.name!r} is {weight:g}; it must not be negative, nor above "
                f"{_MOST_WEIGHT:g}."
            )
        self.acquisition = acquisition
        self.scanner = scanner
        self.weight = weight

    @property
    @abstractmethod
    def limit(self) -> float:
        """The largest allowed value, in `unit`."""

    @abstractmethod
    def measure(self, trajectory: Trajectory) -> Tensor:
        """Return the values that the limit bounds (shot, time), in `unit`, differentiable."""

    @property
    def name(self) -> str:
        """The plug-in's name."""
        return type(self).__module__.rpartition(".")[2]

    def penalty(self, trajectory: Trajectory) -> Tensor:
        """Soft shrinkage: the mean excess over the limit, in parts of the limit; 0 exactly when the check passes.

        From Peng et al., CVPR 2022, eq. 15, doi:10.48550/arXiv.2204.02480.
        """
        excess = self.measure(trajectory) / self.limit - 1
        return torch.nn.functional.threshold(excess, ROUNDING, 0.0).mean()

    def check(self, trajectory: Trajectory) -> Finding:
        """Return the worst value, and where it is."""
        values = self.measure(trajectory).detach().double()
        broken = torch.nonzero(~torch.isfinite(values))
        shot, index = broken[0].tolist() if len(broken) else divmod(int(values.argmax()), values.shape[1])
        times = point_times(trajectory.acquisition, trajectory.scanner)
        # a measure over n points has the times of the n points that are centred in the shot
        lost = (len(times) - values.shape[1]) / 2
        time = times[0] + (index + lost) * trajectory.scanner.gradient_raster
        # the outermost control points lie half a raster outside of what is played
        time = min(max(float(time), 0.0), trajectory.acquisition.readout)
        worst = float(values[shot, index])
        value = worst if math.isfinite(worst) else math.nan
        n_violations = int((~(values / self.limit - 1 <= ROUNDING)).sum())
        return Finding(self.name, value, self.limit, self.unit, shot, time, n_violations)

    def norm(self, vectors: Tensor) -> Tensor:
        """Return the scanner's norm over the last axis: the vector norm, or the largest axis."""
        if self.scanner.limit_norm == "vector":
            return torch.linalg.vector_norm(vectors, dim=-1)
        return vectors.abs().amax(dim=-1)


class Reconstructor(nn.Module, ABC):
    """From what was measured to the magnitude image.

    It is given the adjoint images A^H W y of the k-space y, which with the encoding's normal operator A^H W A say all
    about a weighted least-squares fit to y that there is to know: its gradient at x is A^H W A x - A^H W y. Where the
    coils' sensitivities have been measured, they are the encoding's `coil_maps`; the images are still those of each
    coil.
    """

    @abstractmethod
    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """Return the image (batch, 1, y, x), real, from the adjoint images (batch, coil, y, x), complex."""
