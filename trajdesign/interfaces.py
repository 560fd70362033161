"""What plug-ins implement. Read this file first; that of perturbations alone is in `trajdesign.physics.perturbation`.

A plug-in is one file in the folder of its kind, and its name in the config is the name of the file. Its options are the
keyword-only parameters of its constructor or function, with their annotations and defaults; ``*args, **options`` stands
for them here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.scanner import Finding, Nucleus, Scanner
from trajdesign.trajectory import Trajectory, point_times
from trajdesign.units import ROUNDING

#: Of a penalty; beyond it nothing else is learned.
_MOST_WEIGHT = 1e6
#: Shortest T2*, s.
SHORTEST_T2_STAR = 1e-5


class Init(Protocol):
    """Function in ``trajectories/inits/``: a pattern that the scanner can play.

    It returns control points (shot, point, dim), 1/m. It raises a `ConfigError` if an option is out of range or the
    acquisition has other axes than the pattern, and a `LimitError` if the scanner cannot play it in the readout.
    """

    def __call__(self, acquisition: Acquisition, scanner: Scanner, /, *args: Any, **options: Any) -> Trajectory:
        """Return the pattern."""
        ...


class ResponseModel(Protocol):
    """Function in ``physics/responses/``: what acts when a gradient is played, differentiable."""

    def __call__(
        self, gradient: Tensor, raster: float, /, *args: Any, **options: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the actual gradient (..., sample, axis), T/m, of samples `raster` apart (s).

        A model that knows the field (..., sample), T, which arises at the isocentre too, returns both. The field turns
        the phase of all samples alike: training, which reckons with it exactly, does not see it. One that depends on
        the place has the option ``position``, the middle of the image (3,), m; a file's slices are asked for theirs.
        """
        ...


class FieldModel(ABC):
    """Static fields of objects, made from an `Acquisition`: of each image one, drawn when it is sampled.

    ``frequencies`` and ``rates`` are the lowest and highest off-resonance, Hz, and rate of decay R2*, 1/s, of all.

    Parameters
    ----------
    t2_star
        T2* of all voxels, s; without it nothing decays.
    start
        From the excitation, or a spin echo, to the first sample, s; negative before the echo.
    """

    frequencies: tuple[float, float]

    def __init__(self, *, t2_star: float | None = None, start: float = 0.0) -> None:
        if t2_star is not None and not (t2_star >= SHORTEST_T2_STAR and math.isfinite(t2_star)):
            raise ConfigError(f"field.t2_star is {t2_star:g} s; it is {SHORTEST_T2_STAR:g} s at least.")
        self.start = start
        self.rate = 0.0 if t2_star is None else 1 / t2_star
        self.rates = (self.rate, self.rate)

    @abstractmethod
    def draw(self, seed: int) -> tuple[Tensor, Tensor | float]:
        """Return off-resonance (y, x), Hz, positive where the field is higher, and R2*, 1/s, a map or a number.

        Both are float64; the same seed gives the same.
        """


class DataSource(Protocol):
    """Function in ``data/sources/``: images for one split.

    Each item is the complex coil images of one slice (coil, y, x), or, as the acquisition is, of one volume
    (coil, z, y, x) or one film (coil, frame, y, x), complex64, scaled so that the largest root sum of squares of its
    volume is one: that is the data range of the metrics, as in fastMRI. A volume is all slices of one contrast in one
    file, and all frames; an image that stands alone is its own. If the dataset has an attribute ``origin``, like
    ``"2 people"`` or ``"5 files"``, `trajdesign.optimize` says of whom the images are. An attribute ``people`` has
    the number of the person of each image, so that intervals of gains are over people; None where it is not known.
    """

    def __call__(
        self, acquisition: Acquisition, split: Literal["train", "val", "test"], /, *args: Any, **options: Any
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
    """Function in ``learning/loggers/``: a context around a run, which yields what is called after every step."""

    def __call__(self, run: Path, /, *args: Any, **options: Any) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return the context for a run folder, which may not exist before the first step."""
        ...


class Parameterization(nn.Module, ABC):
    """A learnable trajectory, made from an initial one that it reproduces before the first step.

    Calling it returns the Trajectory. Learnable tensors are scaled so that a learning rate near 0.01 suits them.
    They live on the device of the initial trajectory, and `to` moves both.
    """

    #: Whether k along z, of a 3D acquisition, stays that of the initial trajectory.
    in_plane: ClassVar[bool] = False

    def __init__(self, initial: Trajectory) -> None:
        super().__init__()
        self.initial = initial

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Parameterization":
        """Move the initial trajectory along, to whatever device the rest goes."""
        super()._apply(fn, recurse)
        self.initial = self.initial.with_points(fn(self.initial.points))
        return self

    @abstractmethod
    def forward(self) -> Trajectory:
        """Return the trajectory of the present parameters, differentiable in them."""

    def choose(self, images: Dataset[Tensor], noise: float) -> None:
        """Choose, in place, what no gradient finds, by the training images; nothing by default.

        It is called once before the first step of a training, on the first rank alone. What is chosen must be in
        buffers: on other ranks, and where a run goes on, these are loaded instead. Steps project only what has
        parameters; where there are none, what is chosen must keep the limits by itself.

        `images` are the coil images (coil, y, x) of each slice, as a `DataSource` makes them; random numbers are those
        of the seed. `noise` is ``training.noise``.
        """

    @property
    def waveforms(self) -> Trajectory:
        """The initial trajectory of what `onto_limits` moves: by default every shot."""
        return self.initial

    def onto_limits(self, trajectory: Trajectory, project: Callable[[Trajectory], Trajectory]) -> Trajectory:
        """Return what `forward` returned moved onto the limits; the gradient passes as if it had not been moved.

        `project` does so to trajectories like `waveforms`.
        """
        return project(trajectory)

    def refine(self, progress: float) -> None:
        """Change the resolution of what is learned, in place and on the same curve; nothing by default.

        Called before every step with the part of the run that is done. The parameters stay the same tensors, of the
        same shapes, because an optimizer holds them.
        """


class Constraint(ABC):
    """A limit on a trajectory. The base derives from `measure` both the training penalty and the hard check.

    Its options are in the config's table ``[limits.options.NAME]``. One with an option that has no default needs what
    only a site knows; it holds where it is asked for, and is not part of the hardware's limits.

    Parameters
    ----------
    weight
        Weight of its penalty in training; by default the weight of all.
    """

    #: The limit is on the norm of this derivative of k over the raster, so that `Projection` can enforce it;
    #: None for limits of another form: equalities (`vanishing`), and what is penalised and checked but not projected.
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

    @classmethod
    def is_enforced(cls) -> bool:
        """Whether `Projection` keeps the limit."""
        return cls.derivative is not None or cls.vanishing is not Constraint.vanishing

    def vanishing(self, like: Trajectory) -> Tensor | None:
        """Return what `Projection` makes zero, if the limit is an equality: sums of a shot's control points.

        Their weights (sum, point) are the same for all shots and axes, of trajectories that start from `like`.
        """
        return None

    def from_start(self, start: Trajectory) -> "Constraint":
        """Return the limit on what is learned from a trajectory: itself, unless an option is taken from there.

        An equality need not hold there yet. It raises a `ConfigError` if the projection cannot mend it.
        """
        return self

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

    def check(self, trajectory: Trajectory, rounding: float = ROUNDING) -> Finding:
        """Return the worst value, which may pass the limit by a part, `rounding`, and where it is."""
        values = self.measure(trajectory).detach().double().cpu().numpy()
        times = point_times(trajectory.acquisition, trajectory.scanner)
        # a measure over n points has the times of the n points that are centred in the shot
        lost = (len(times) - values.shape[1]) / 2
        times = times[0] + (np.arange(values.shape[1]) + lost) * trajectory.scanner.gradient_raster
        # the outermost control points lie half a raster outside of what is played
        times = times.clip(0.0, trajectory.acquisition.readout)
        return Finding.worst(self.name, values, self.limit, self.unit, times, rounding)

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
        """Return the image (batch, 1, y, x), real, from the adjoint images (batch, coil, y, x), complex.

        Of volumes both have the axis z before y, of films the axis of frames.
        """


@dataclass(frozen=True)
class Samples:
    """K of a file that another program wrote, and what else the file says.

    Parameters
    ----------
    k
        (shot, sample, dim), x first, in `unit`.
    unit
        See `trajdesign.trajectories.loading.Given`; None where the file does not tell.
    dwell
        Time between samples, s.
    fov, matrix
        Field of view (m) and pixels along each axis.
    raster
        The gradient raster, s, where `k` are control points on it and not samples.
    nucleus
        Of the `Scanner`, where the file tells.
    gradient
        Of whole shots (shot, cell, dim), T/m, where the file has more of them than the readout.
    before
        Cells of `gradient` before the readout.
    """

    k: NDArray[np.float64]
    unit: str | None = None
    dwell: float | None = None
    fov: tuple[float, ...] | None = None
    matrix: tuple[int, ...] | None = None
    raster: float | None = None
    nucleus: Nucleus = field(default_factory=Nucleus)
    gradient: NDArray[np.float64] | None = None
    before: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the file says itself what its k is, and when it was sampled."""
        return self.unit is not None and self.dwell is not None


class Format(ABC):
    """A type of file: a trajectory is written to it and proven from it, and files of other programs are read.

    `trajdesign.exporting.proof.export` alone writes, after every limit has been checked, to a temporary path.
    `trajdesign.trajectories.foreign_files.read` reads every file that ends as one of `reads`. The options of a format
    are those of writing.
    """

    #: Ending of the name of a file that is written.
    ending: ClassVar[str]
    #: Ending of a second file of the same stem, which is written too.
    companion: ClassVar[str | None] = None
    #: Whether a scanner plays the file: then the k that was read back from it is written beside it.
    is_played: ClassVar[bool] = False
    #: Endings of the files of other programs that `read` reads.
    reads: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write `trajectory` to `path`, and return facts about the file for the report."""

    @abstractmethod
    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read what `write` made of `trajectory`, by other code than wrote it.

        Returns
        -------
        k
            By reader, k at the ADC samples (shot, sample, dim), 1/m.
        facts
            More facts for the report, as the largest gradient (T/m) and slew rate (T/m/s).

        Raises
        ------
        LimitError
            If the file does not hold the trajectory, or breaks a limit.
        """

    def actual(self, path: Path, trajectory: Trajectory, response: Mapping[str, Any]) -> dict[str, NDArray]:
        """Return what the gradient system's response makes of the whole file; nothing if that is not known.

        Returns
        -------
        dict
            ``k_actual`` (shot, sample, dim), 1/m, and where the response tells the field at the isocentre
            ``phase_actual`` (shot, sample), rad: the signal has the factor exp(-i phase). ``of_first_slice`` is true
            if other slices of the file have others.
        """
        return {}

    def read(self, path: Path) -> Samples | Trajectory:
        """Read a file of any program; a `Trajectory` is what trajdesign wrote itself.

        Raises
        ------
        InputError
            If the file is missing, damaged, or of another kind.
        """
        raise InputError(f"{path}: files {self.ending} are written, and not read.")
