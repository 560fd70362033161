"""Trajectory: control points on the gradient raster, and the exact k at the ADC samples.

A gradient amplifier plays the straight lines between the samples at the raster centres. The k-space curve is
therefore a uniform quadratic B-spline. Its control points ``points[p]`` sit on the raster edges, and from them follow

* the gradient samples, ``g[j] = (points[j + 1] - points[j]) / (gamma * raster)``, and the slew rates, which are
  their differences: both are exactly what the scanner plays, not approximations;
* k at any time: a weighted mean of three neighbouring control points, so a curve whose control points stay
  inside k_max stays inside k_max.

The time axis starts at the first gradient sample; the first ADC sample follows `Acquisition.adc_delay` later.
"""

import html
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.files.atomic import atomic_path
from trajdesign.scanner import Scanner
from trajdesign.units import RASTER_ROUNDING

#: What `Trajectory.save` writes under ``format``.
FORMAT = "trajdesign/1"
#: Scanner timings that a file may leave at their defaults.
TIMINGS = ("adc_raster", "rf_raster", "block_raster", "adc_dead_time", "rf_dead_time", "rf_ringdown_time")
#: Largest distance between k in a file and k of the trajectory that it plays, in 1/FOV.
MAX_K_ERROR_FOV = 1e-3

#: Width of the picture of a trajectory, and about how many points of a shot it has.
_PIXELS, _MOST_POINTS = 320, 400


@dataclass(frozen=True)
class Trajectory:
    """The k-space path of every shot on the gradient raster.

    It raises an `InputError` if the shape of `points` does not fit the acquisition on this raster or they are not real.

    Parameters
    ----------
    points
        Control points (shot, point, dim), 1/m, float64. Axes are ordered (x, y[, z]).
    acquisition
        Field of view, matrix, shots and receiver timing.
    scanner
        Limits and rasters.
    name
        Shown in figures and files.
    """

    points: Tensor
    acquisition: Acquisition
    scanner: Scanner
    name: str = "trajectory"

    def __post_init__(self) -> None:
        wanted = (
            self.acquisition.n_shots,
            n_points(self.acquisition, self.scanner),
            self.acquisition.n_dims,
        )
        if tuple(self.points.shape) != wanted:
            raise InputError(
                f"k has the shape {tuple(self.points.shape)}; this acquisition needs (shot, point, dim) = {wanted}."
            )
        if not self.points.is_floating_point():
            raise InputError(f"k is of {self.points.dtype}; it must be real, of floating point, in 1/m.")

    def __repr__(self) -> str:
        return f"Trajectory({self.name!r}: {self._facts()})"

    def _facts(self) -> str:
        acquisition = self.acquisition
        matrix = " x ".join(map(str, acquisition.matrix))
        fov = " x ".join(f"{1e3 * extent:g}" for extent in acquisition.fov)
        frames = f" in {acquisition.n_frames} frames" if acquisition.n_frames > 1 else ""
        return (
            f"{acquisition.n_shots} shots{frames} of {acquisition.n_samples} samples, "
            f"{1e3 * acquisition.readout:g} ms, matrix {matrix}, FOV {fov} mm, {self.scanner.nucleus}"
        )

    def _repr_html_(self) -> str:
        """Show k-space in a notebook: every shot in every plane, and the box of k_max."""
        planes = [_svg(self, plane) for plane in ((0, 1), (0, 2), (1, 2)) if max(plane) < self.acquisition.n_dims]
        return f"<figure>{''.join(planes)}<figcaption>{html.escape(self.name)}: {self._facts()}</figcaption></figure>"

    @property
    def gradient(self) -> Tensor:
        """Gradient samples at the raster centres (shot, sample, dim), T/m."""
        return self.points.diff(dim=1) / (self.scanner.gamma * self.scanner.gradient_raster)

    @property
    def slew(self) -> Tensor:
        """Slew rates between neighbouring gradient samples (shot, interval, dim), T/m/s."""
        return self.gradient.diff(dim=1) / self.scanner.gradient_raster

    @property
    def k_adc(self) -> Tensor:
        """K at the ADC samples (shot, sample, dim), 1/m: the exact integral of the played gradient."""
        index, weights = sampling_weights(self.acquisition, self.scanner)
        weights = weights.to(self.points)
        return sum((self.points[:, index + i] * weights[i, :, None] for i in range(3)), start=torch.zeros(()))

    @property
    def adc_times(self) -> Tensor:
        """Times of the ADC samples after the first gradient sample (sample,), s."""
        return torch.from_numpy(_adc_times(self.acquisition, self.scanner))

    def frame(self, number: int) -> "Trajectory":
        """Return the shots of one frame."""
        one = self.acquisition.plane
        return replace(self, points=self.points[number * one.n_shots :][: one.n_shots], acquisition=one)

    def with_points(self, points: Tensor, name: str | None = None) -> "Trajectory":
        """Return the same acquisition and scanner on other control points (shot, point, dim), 1/m."""
        return replace(self, points=points, name=self.name if name is None else name)

    def save(self, path: Path | str) -> None:
        """Write the ``.npz`` file that `trajdesign.trajectories.loading.load` reads; its keys carry their units."""
        frames: dict[str, Any] = {"n_frames": self.acquisition.n_frames} if self.acquisition.n_frames > 1 else {}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                format=np.array(FORMAT),
                k=self.points.detach().cpu().double().numpy(),
                k_adc=self.k_adc.detach().cpu().double().numpy(),
                raster_s=self.scanner.gradient_raster,
                dwell_s=self.acquisition.dwell,
                fov_m=np.array(self.acquisition.fov),
                matrix=np.array(self.acquisition.matrix),
                **frames,
                gamma_hz_per_t=self.scanner.gamma,
                nucleus=np.array(self.scanner.nucleus),
                max_gradient_t_per_m=self.scanner.max_gradient,
                max_slew_t_per_m_s=self.scanner.max_slew,
                limit_norm=np.array(self.scanner.limit_norm),
                label_segments=self.scanner.label_segments,
                name=np.array(self.name),
                **{f"{timing}_s": getattr(self.scanner, timing) for timing in TIMINGS},
            )


def not_finite(k: ArrayLike, point: str = "point") -> str:
    """Return the words on the first value of k (shot, `point`, dim) that is not finite; empty if all are."""
    broken = np.argwhere(~np.isfinite(np.asarray(k)))
    if not len(broken):
        return ""
    shot, index, axis = broken[0]
    return f"is not finite at shot {shot}, {point} {index}, axis {'xyz'[axis]}"


def _svg(trajectory: Trajectory, plane: tuple[int, int]) -> str:
    """Return the shots in a plane of k-space as an SVG picture, the first axis to the right, the second up."""
    k = trajectory.k_adc.detach().double().cpu()[..., list(plane)].numpy()
    k = k[:, :: max(1, k.shape[1] // _MOST_POINTS)]
    (width, height), size = (trajectory.acquisition.k_max[axis] for axis in plane), _PIXELS
    scale = size / 2 / 1.06 / max(width, height, float(np.nanmax(np.abs(k), initial=0.0)))
    at = size / 2 + scale * k * [1, -1]
    shots = "".join(
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in shot[np.isfinite(shot).all(axis=1)])}" '
        f'stroke="hsl({260 - 200 * i / max(1, len(at) - 1):.0f} 70% 45%)"/>'
        for i, shot in enumerate(at)
    )
    x, y = (size / 2 - scale * edge for edge in (width, height))
    names = " ".join(f"k{'xyz'[axis]}" for axis in plane)
    return (
        f'<svg width="{size}" height="{size}" viewBox="0 0 {size} {size}" role="img" aria-label="{names}" '
        f'fill="none" style="background: white"><title>{names}, box: k_max</title>{shots}'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{size - 2 * x:.1f}" height="{size - 2 * y:.1f}" '
        'stroke="#555" stroke-dasharray="5 4"/></svg>'
    )


def _adc_times(acquisition: Acquisition, scanner: Scanner) -> np.ndarray:
    delay = acquisition.adc_delay(scanner.gradient_raster, scanner.rf_raster)
    return delay + np.arange(acquisition.n_samples) * acquisition.dwell


def n_points(acquisition: Acquisition, scanner: Scanner) -> int:
    """Control points a shot needs so that the gradient is defined at every ADC sample."""
    last = _adc_times(acquisition, scanner)[-1] / scanner.gradient_raster
    return math.ceil(last - RASTER_ROUNDING) + 2


def point_times(acquisition: Acquisition, scanner: Scanner) -> np.ndarray:
    """Return the times of the control points after the first gradient sample (point,), s.

    The first lies half a raster early.
    """
    return (np.arange(n_points(acquisition, scanner)) - 0.5) * scanner.gradient_raster


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)  # no gradient would pass what is made inside of it
def sampling_weights(acquisition: Acquisition, scanner: Scanner) -> tuple[Tensor, Tensor]:
    """Return the `spline_weights` of the ADC samples."""
    return spline_weights(_adc_times(acquisition, scanner), acquisition, scanner)


def spline_weights(times: np.ndarray, acquisition: Acquisition, scanner: Scanner) -> tuple[Tensor, Tensor]:
    """Quadratic B-spline weights that take control points to k at any times of the readout.

    Parameters
    ----------
    times
        After the first gradient sample (sample,), s.

    Returns
    -------
    index
        First of the three control points of each sample (sample,), integers.
    weights
        Their weights (3, sample), float64, non-negative, each column summing to one.
    """
    u = times / scanner.gradient_raster
    index = np.clip(np.floor(u + 1e-9), 0, n_points(acquisition, scanner) - 3).astype(np.int64)
    f = np.clip(u - index, 0.0, 1.0)
    weights = np.stack([(1 - f) ** 2 / 2, 0.5 + f - f**2, f**2 / 2])
    return torch.from_numpy(index), torch.from_numpy(weights)


def integral_weights(time: float, acquisition: Acquisition, scanner: Scanner) -> Tensor:
    """Return the weights (point,) that take control points to the integral of k from the first gradient sample on.

    It is up to a `time` after that, s, and exact; the weights are in s.
    """
    raster = scanner.gradient_raster
    weights = torch.zeros(n_points(acquisition, scanner), dtype=torch.float64)
    cell = min(int(time / raster + RASTER_ROUNDING), len(weights) - 3)
    for index, f in [*((i, 1.0) for i in range(cell)), (cell, time / raster - cell)]:
        parts = [(1 - (1 - f) ** 3) / 6, f / 2 + f**2 / 2 - f**3 / 3, f**3 / 6]
        weights[index : index + 3] += raster * torch.tensor(parts, dtype=torch.float64)
    return weights
