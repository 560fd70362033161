"""Point spread function of a sampling pattern: what a point of the object looks like, and how wide it is.

It is ``PSF(r) = sum_j w_j exp(2i pi k_j . r)`` over the ADC samples k_j with their density weights w_j, which
sum to one, so that it is one at r = 0. Distances called radial are counted in voxels, so that they follow the
ellipse where the voxel is not square.
"""

import html
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates, maximum_filter
from torch import Tensor

from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.nufft import Backend, nufft_adjoint
from trajdesign.encoding.operator import angular
from trajdesign.errors import ConfigError, InputError
from trajdesign.runtime import memory
from trajdesign.trajectory import Trajectory

#: Grid steps a voxel in the wide image, whose field is twice the FOV, up to a matrix, and of what is measured in it.
_FINE_STEPS, _LARGEST_FINE, _STEPS = 4, 256, 2
#: Grid steps a voxel of the profiles, and pixels of the plane that each is a line of.
_PROFILE_STEPS, _THIN = 16, 8
#: Width of the detailed image around the peak, in grid steps, and its half width in voxels to begin with.
_DETAIL, _HALF_WIDTH = 512, 8
#: Side lobes of the wide image that are looked at closely to find the true maximum.
_CANDIDATES = 12
#: Grid steps a voxel of that closer look, one voxel wide.
_CLOSE = 32


@dataclass(frozen=True)
class PsfReport:
    """A point spread function in numbers and images; lengths in m, ratios in dB.

    Parameters
    ----------
    name
        Name of the trajectory.
    voxel
        Voxel size along x and y, m.
    fwhm_x, fwhm_y
        Full width of the magnitude at half of its peak, along x and y through the peak, m; infinite if it
        does not fall to half within the field of view.
    fwhm_radial
        The same of the mean magnitude over all directions, m (voxels times the geometric mean voxel size).
    main_lobe
        Radius of the main lobe, voxels. The main lobe is the ellipse around the peak up to the first minimum
        of the mean magnitude over all directions.
    peak_side_lobe
        Largest magnitude outside the main lobe, over the peak, dB, for offsets within half the FOV.
    integrated_side_lobe
        Energy outside the main lobe, over the energy inside it, dB, for offsets within half the FOV.
    image
        Magnitude (y, x) over twice the FOV; r = 0 is the pixel ``n // 2``.
    image_step
        Distance of its pixels along x and y, m.
    detail
        Magnitude (y, x) around the peak; r = 0 is the pixel ``n // 2``.
    detail_step
        Distance of its pixels along x and y, m.
    profiles
        Magnitude along x and y through the peak, over twice the FOV; r = 0 is the value ``n // 2``.
    profile_step
        Distance of their values along x and y, m.
    radius, radial
        Mean magnitude over all directions (radius,), against the radius in voxels.
    """

    name: str
    voxel: tuple[float, ...]
    fwhm_x: float
    fwhm_y: float
    fwhm_radial: float
    main_lobe: float
    peak_side_lobe: float
    integrated_side_lobe: float
    image: np.ndarray
    image_step: tuple[float, ...]
    detail: np.ndarray
    detail_step: tuple[float, ...]
    profiles: tuple[np.ndarray, ...]
    profile_step: tuple[float, ...]
    radius: np.ndarray
    radial: np.ndarray

    def __repr__(self) -> str:
        return f"PsfReport({self.name!r}: {', '.join(f'{name} {value}' for name, value in self.rows())})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self.rows())
        return f"<table><caption>Point spread function of {html.escape(self.name)}</caption>{rows}</table>"

    def over_directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distances from the peak up to half the FOV (ring,), m, and the mean and largest magnitude there.

        The rings are as wide as a pixel of the detailed image as far as that reaches, then as one of the wide image.
        """
        reach = min(n * step / 4 for n, step in zip(self.image.shape, self.image_step[::-1], strict=True))
        near, far = _rings(self.detail, self.detail_step), _rings(self.image, self.image_step)
        within, beyond = near[0] < reach, (far[0] > near[0][-1]) & (far[0] < reach)
        distance, mean, largest = (np.concatenate([n[within], f[beyond]]) for n, f in zip(near, far, strict=True))
        return distance, mean, largest

    def rows(self) -> list[tuple[str, str]]:
        """Return what is measured as text, under names that carry the units."""
        return [
            ("voxel x, y (mm)", f"{1e3 * self.voxel[0]:.3f}, {1e3 * self.voxel[1]:.3f}"),
            ("FWHM x (mm)", f"{1e3 * self.fwhm_x:.3f}"),
            ("FWHM y (mm)", f"{1e3 * self.fwhm_y:.3f}"),
            ("FWHM radial mean (mm)", f"{1e3 * self.fwhm_radial:.3f}"),
            ("peak side lobe (dB)", f"{self.peak_side_lobe:.2f}"),
            ("integrated side lobes (dB)", f"{self.integrated_side_lobe:.2f}"),
        ]

    def to_dict(self) -> dict[str, str | float | None]:
        """Return the numbers under keys that carry their units; None where a value is not finite."""
        numbers = {
            "voxel_x_m": self.voxel[0],
            "voxel_y_m": self.voxel[1],
            "fwhm_x_m": self.fwhm_x,
            "fwhm_y_m": self.fwhm_y,
            "fwhm_radial_m": self.fwhm_radial,
            "main_lobe_voxels": self.main_lobe,
            "peak_side_lobe_db": self.peak_side_lobe,
            "integrated_side_lobe_db": self.integrated_side_lobe,
        }
        return {"name": self.name, **{k: v if math.isfinite(v) else None for k, v in numbers.items()}}


def psf(trajectory: Trajectory, weights: Tensor | None = None, *, backend: Backend = "auto") -> PsfReport:
    """Compute and measure the point spread function of a 2D trajectory.

    Parameters
    ----------
    trajectory
        Its k at the ADC samples is used.
    weights
        Density compensation (shot, sample), real; by default that of
        `trajdesign.encoding.density.density_compensation`. Its sum does not matter.
    backend
        See `trajdesign.encoding.nufft.nufft`.

    Raises
    ------
    ConfigError
        If the trajectory is not 2D.
    InputError
        If the weights have another shape, are not finite or do not have a positive sum.
    ResourceError
        If it does not fit into memory.
    """
    acquisition = trajectory.acquisition
    if acquisition.n_dims != 2:
        raise ConfigError(f"psf shows 2D trajectories; {trajectory.name} has {acquisition.n_dims} axes.")
    n_steps = _FINE_STEPS if max(acquisition.matrix) <= _LARGEST_FINE else _STEPS
    pixels = math.prod(2 * n_steps * n for n in acquisition.matrix)
    memory.require(
        3 * 16 * pixels, f"the point spread function of the matrix {acquisition.matrix}", "take a smaller one"
    )
    omega = angular(trajectory).detach().double().cpu()
    kernel = _Kernel(omega.flatten(0, 1), _flat_weights(omega, weights, acquisition.image_shape, backend), backend)
    image = kernel.grid(tuple(2 * n_steps * n for n in acquisition.image_shape), 1 / n_steps)
    detail, half_width, radius, radial = _detail(kernel, max(acquisition.matrix) / 2)
    main_lobe = _first_minimum(radius, radial)
    step = 2 * half_width / _DETAIL
    centre = _DETAIL // 2
    steps = np.arange(centre) * step
    voxel = acquisition.voxel
    # offsets from -FOV / 2; those at +FOV / 2 have the same magnitude, by symmetry
    field = image[tuple(slice(n // 4, n // 4 + n // 2, n_steps // _STEPS) for n in image.shape)]
    return PsfReport(
        name=trajectory.name,
        voxel=voxel,
        fwhm_x=voxel[0] * _full_width(steps, detail[centre, centre:]),
        fwhm_y=voxel[1] * _full_width(steps, detail[centre:, centre]),
        fwhm_radial=math.sqrt(voxel[0] * voxel[1]) * _full_width(radius, radial),
        main_lobe=main_lobe,
        peak_side_lobe=_decibel(_peak_outside(kernel, field, detail, step, main_lobe), 20),
        integrated_side_lobe=_decibel(_energy_ratio(field, detail, step, main_lobe), 10),
        image=image,
        image_step=tuple(v / n_steps for v in voxel),
        detail=detail,
        detail_step=tuple(v * step for v in voxel),
        profiles=tuple(kernel.line(axis, 2 * n * _PROFILE_STEPS) for axis, n in enumerate(acquisition.matrix)),
        profile_step=tuple(v / _PROFILE_STEPS for v in voxel),
        radius=radius,
        radial=radial,
    )


class _Kernel:
    """The point spread function of weighted samples omega (point, 2), rad/voxel; lengths are in voxels."""

    def __init__(self, omega: Tensor, weights: Tensor, backend: Backend) -> None:
        self.omega = omega
        self.weights = weights
        self.backend = backend

    def grid(self, shape: tuple[int, ...], step: float, centre: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Return the magnitude (y, x) on a grid of the given step around `centre` (x, y)."""
        phase = self.omega @ torch.tensor(centre, dtype=torch.float64)
        values = torch.polar(self.weights, phase)
        return nufft_adjoint(values[None], self.omega * step, shape, self.backend)[0].abs().numpy()

    def line(self, axis: int, n: int) -> np.ndarray:
        """Return n magnitudes along x or y through the peak, which is value ``n // 2``."""
        values, omega = self.weights[None].to(torch.complex128), self.omega[:, axis : axis + 1] / _PROFILE_STEPS
        # as a plane whose other axis has no extent: not every backend has one axis alone
        flat = torch.cat([omega, torch.zeros_like(omega)], dim=-1)
        return nufft_adjoint(values, flat, (_THIN, n), self.backend)[0, _THIN // 2].abs().numpy()


def _rings(image: np.ndarray, step: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances (ring,) from the middle to the nearest edge, in units of `step`, the mean and the largest."""
    y, x = (_offsets(n, s) for n, s in zip(image.shape, step[::-1], strict=True))
    width = max(step)
    ring = np.rint(np.hypot(y[:, None], x) / width).astype(int).ravel()
    n_rings = int(min(x[-1], y[-1]) / width)
    kept = ring < n_rings
    flat = image.ravel()[kept]
    largest = np.zeros(n_rings)
    np.maximum.at(largest, ring[kept], flat)
    return np.arange(n_rings) * width, np.bincount(ring[kept], flat) / np.bincount(ring[kept]), largest


def _flat_weights(omega: Tensor, weights: Tensor | None, shape: tuple[int, ...], backend: Backend) -> Tensor:
    if weights is None:
        flat = density_compensation(omega.flatten(0, 1), shape, backend=backend)
    else:
        if weights.shape != omega.shape[:2]:
            raise InputError(
                f"weights have the shape {tuple(weights.shape)}; the trajectory needs "
                f"(shot, sample) = {tuple(omega.shape[:2])}."
            )
        flat = weights.detach().double().cpu().flatten()
    if not bool(torch.isfinite(flat).all()) or float(flat.sum()) <= 0:
        raise InputError("density weights must be finite and have a positive sum.")
    return flat / flat.sum()


def _detail(kernel: _Kernel, edge: float) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Return the detailed image, its half width and the radial mean, wide enough for the main lobe if any is.

    `edge` is half the FOV, in voxels.
    """
    half_width = min(float(_HALF_WIDTH), edge)
    while True:
        step = 2 * half_width / _DETAIL
        detail = kernel.grid((_DETAIL, _DETAIL), step)
        radius = np.arange(_DETAIL // 2 - 2) * step
        radial = _radial_mean(detail)
        centre = _DETAIL // 2
        lowest = max(detail[centre, centre:].min(), detail[centre:, centre].min(), radial.min())
        if half_width >= edge or (lowest < 0.5 and _first_minimum(radius, radial) < math.inf):
            return detail, half_width, radius, radial
        half_width = min(4 * half_width, edge)


def _radial_mean(detail: np.ndarray) -> np.ndarray:
    """Return the mean magnitude (radius,) over half a turn, which by symmetry stands for the whole one."""
    centre = _DETAIL // 2
    angle = np.pi * np.arange(180) / 180
    radius = np.arange(centre - 2)[:, None]
    where = np.stack([centre + radius * np.sin(angle), centre + radius * np.cos(angle)])
    return map_coordinates(detail, where, order=3).mean(axis=1)


def _first_minimum(radius: np.ndarray, radial: np.ndarray) -> float:
    """Return the radius of the first local minimum below half of the peak, infinite if there is none."""
    inner = radial[1:-1]
    minima = np.flatnonzero((inner < radial[:-2]) & (inner <= radial[2:]) & (inner < 0.5 * radial[0]))
    return float(radius[minima[0] + 1]) if len(minima) else math.inf


def _full_width(distance: np.ndarray, profile: np.ndarray) -> float:
    """Return twice the distance at which the profile first falls to half of its first value."""
    below = np.flatnonzero(profile < 0.5 * profile[0])
    if not len(below):
        return math.inf
    i = int(below[0])
    part = (profile[i - 1] - 0.5 * profile[0]) / (profile[i - 1] - profile[i])
    return 2 * float(distance[i - 1] + part * (distance[i] - distance[i - 1]))


def _peak_outside(kernel: _Kernel, field: np.ndarray, detail: np.ndarray, step: float, main_lobe: float) -> float:
    """Return the largest magnitude outside the main lobe, over an image of one FOV and the detailed one."""
    widths = [n / _STEPS / 2 for n in field.shape]
    within = [np.abs(_offsets(_DETAIL, step)) <= width for width in widths]
    near = within[0][:, None] & within[1] & (_distance(detail.shape, step) > main_lobe)
    peak = float(np.max(detail, initial=0.0, where=near))
    outside = np.where(_distance(field.shape, 1 / _STEPS) > main_lobe, field, 0.0)
    tops = np.where(maximum_filter(outside, size=3) == outside, outside, 0.0)
    for flat in np.argsort(-tops, axis=None)[:_CANDIDATES]:
        row, column = np.unravel_index(flat, tops.shape)
        centre = (column / _STEPS - widths[1], row / _STEPS - widths[0])
        close = kernel.grid((_CLOSE + 1, _CLOSE + 1), 1 / _CLOSE, centre)
        allowed = _distance(close.shape, 1 / _CLOSE, centre) > main_lobe
        peak = max(peak, float(np.max(close, initial=0.0, where=allowed)))
    return peak


def _energy_ratio(field: np.ndarray, detail: np.ndarray, step: float, main_lobe: float) -> float:
    """Return the energy outside the main lobe over the energy inside it, over an image of one FOV."""
    if not math.isfinite(main_lobe):
        return 0.0
    inside = float(np.square(detail[_distance(detail.shape, step) <= main_lobe]).sum()) * step**2
    total = float(np.square(field).sum()) / _STEPS**2
    return max(total - inside, 0.0) / inside


def _offsets(n: int, step: float) -> np.ndarray:
    return (np.arange(n) - n // 2) * step


def _distance(shape: tuple[int, ...], step: float, centre: tuple[float, ...] = (0.0, 0.0)) -> np.ndarray:
    """Return the distance (y, x) of grid points from r = 0, voxels, on a grid around `centre` (x, y)."""
    y, x = (_offsets(n, step) for n in shape)
    return np.hypot(y[:, None] + centre[1], x + centre[0])


def _decibel(ratio: float, factor: float) -> float:
    return factor * math.log10(ratio) if ratio > 0 else -math.inf
