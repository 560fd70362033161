"""Point spread function of a sampling pattern: what a point of the object looks like, and how wide it is.

It is ``PSF(r) = sum_j w_j exp(2i pi k_j . r)`` over the ADC samples k_j with density weights w_j, whose sum is one, so
that PSF(0) = 1. Radial distances are counted in voxels, so that they follow the ellipse where the voxel is not square.

Of a volume it is the plane z = 0 through the point, to which all samples add by their k_x and k_y, and the width along
z; of a film that of the first frame.
"""

import html
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates, maximum_filter
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.echo import EchoTimes
from trajdesign.encoding.nufft import nufft_adjoint
from trajdesign.encoding.operator import angular
from trajdesign.encoding.sampling import sampling_of
from trajdesign.errors import InputError
from trajdesign.runtime import memory
from trajdesign.trajectory import Trajectory

#: Grid steps a voxel of the wide image, whose field is twice the FOV: up to this matrix the first, beyond it the last.
_FINE_STEPS, _LARGEST_FINE, _STEPS = 4, 256, 2
#: Grid steps a voxel of the profiles, and pixels of the plane that each is a line of.
_PROFILE_STEPS, _THIN = 16, 8
#: Width of the detailed image around the peak, in grid steps, and its half width in voxels to begin with.
_DETAIL, _HALF_WIDTH = 512, 8
#: So many side lobes of the wide image are searched for the true maximum, one voxel wide with so many steps a voxel.
_CANDIDATES, _CLOSE = 12, 32


@dataclass(frozen=True)
class PsfReport:
    """A point spread function in numbers and images; lengths in m, ratios in dB; r = 0 is pixel ``n // 2``.

    Parameters
    ----------
    name
        Name of the trajectory.
    voxel
        Voxel size along x and y, and z of a volume, m.
    fwhm_x, fwhm_y, fwhm_radial
        Full width at half maximum along x and y through the peak, and of the mean over all directions (in voxels, times
        the geometric mean voxel size), m; infinite if the magnitude does not fall to half within the field of view.
    main_lobe
        Radius of the main lobe, voxels: the ellipse around the peak up to the first minimum of the mean over all
        directions.
    peak_side_lobe, integrated_side_lobe
        Largest magnitude outside the main lobe over the peak, and energy outside over the energy inside, dB, for
        offsets within half the FOV.
    image, image_step
        Magnitude (y, x) over twice the FOV, and the distance of its pixels along x and y, m.
    detail, detail_step
        Magnitude (y, x) around the peak, and the distance of its pixels along x and y, m.
    profiles, profile_step
        Magnitude along x and y through the peak, over twice the FOV, and the distance of the values, m.
    radius, radial
        Mean magnitude over all directions (radius,), against the radius in voxels.
    echo
        When each shot passes the centre of k-space, on which the contrast depends.
    fwhm_z
        Of a volume, the full width at half maximum along z, m.
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
    echo: EchoTimes
    fwhm_z: float | None = None

    def __repr__(self) -> str:
        return f"PsfReport({self.name!r}: {', '.join(f'{name} {value}' for name, value in self.rows())})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self.rows())
        return f"<table><caption>Point spread function of {html.escape(self.name)}</caption>{rows}</table>"

    def over_directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distances from the peak up to half the FOV (ring,), m, and the mean and largest magnitude there.

        A ring is as wide as a pixel: of the detailed image as far as that reaches, then of the wide one.
        """
        reach = min(n * step / 4 for n, step in zip(self.image.shape, self.image_step[::-1], strict=True))
        near, far = _rings(self.detail, self.detail_step), _rings(self.image, self.image_step)
        within, beyond = near[0] < reach, (far[0] > near[0][-1]) & (far[0] < reach)
        distance, mean, largest = (np.concatenate([n[within], f[beyond]]) for n, f in zip(near, far, strict=True))
        return distance, mean, largest

    def rows(self) -> list[tuple[str, str]]:
        """Return the measures as text: name with unit, value."""
        widths = {"FWHM x": self.fwhm_x, "FWHM y": self.fwhm_y, "FWHM radial mean": self.fwhm_radial}
        if self.fwhm_z is not None:
            widths["FWHM z"] = self.fwhm_z
        return [
            (f"voxel {', '.join('xyz'[: len(self.voxel)])} (mm)", ", ".join(f"{1e3 * v:.3f}" for v in self.voxel)),
            *((f"{name} (mm)", f"{1e3 * width:.3f}") for name, width in widths.items()),
            ("peak side lobe (dB)", f"{self.peak_side_lobe:.2f}"),
            ("integrated side lobes (dB)", f"{self.integrated_side_lobe:.2f}"),
            ("echo time (ms)", f"{1e3 * float(np.median(self.echo.times)):.4f}"),
            ("spread of the echo times (us)", f"{1e6 * self.echo.spread:.2f}"),
        ]

    def to_dict(self) -> dict[str, str | float | None]:
        """Return the numbers by names with units; None where a value is not finite."""
        numbers = {"voxel_x_m": self.voxel[0], "voxel_y_m": self.voxel[1]}
        numbers |= {f"fwhm_{name}_m": getattr(self, f"fwhm_{name}") for name in ("x", "y", "radial")}
        if self.fwhm_z is not None:
            numbers |= {"voxel_z_m": self.voxel[2], "fwhm_z_m": self.fwhm_z}
        numbers |= {"main_lobe_voxels": self.main_lobe, "peak_side_lobe_db": self.peak_side_lobe}
        numbers["integrated_side_lobe_db"] = self.integrated_side_lobe
        numbers |= self.echo.facts
        return {"name": self.name, **{k: v if math.isfinite(v) else None for k, v in numbers.items()}}


def psf(trajectory: Trajectory, weights: Tensor | None = None) -> PsfReport:
    """Compute and measure the point spread function of a trajectory.

    Parameters
    ----------
    trajectory
        Its k at the ADC samples is used.
    weights
        Density weights (shot, sample), real, of any sum; by default `trajdesign.encoding.density.density_compensation`.

    Raises
    ------
    InputError
        If the weights have another shape, are not finite or do not have a positive sum.
    ResourceError
        If it does not fit into memory.
    """
    if trajectory.acquisition.n_frames > 1:
        first = None if weights is None else weights[: len(weights) // trajectory.acquisition.n_frames]
        return psf(trajectory.frame(0), first)
    acquisition = trajectory.acquisition
    matrix = acquisition.matrix[:2]
    n_steps = _FINE_STEPS if max(matrix) <= _LARGEST_FINE else _STEPS
    pixels = math.prod(2 * n_steps * n for n in matrix)
    what = f"the point spread function of the matrix {acquisition.matrix}"
    memory.require(3 * 16 * pixels, what, "take a smaller one")
    omega = angular(trajectory).detach().double().cpu()
    points, shares = omega.flatten(0, 1), _unit_weights(omega, weights, acquisition)
    point = _Point(points[:, :2], shares)
    image = point.grid(tuple(2 * n_steps * n for n in matrix[::-1]), 1 / n_steps)
    detail, half_width, radius, radial = _detail(point, max(matrix) / 2)
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
        peak_side_lobe=_decibel(_peak_outside(point, field, detail, step, main_lobe), 20),
        integrated_side_lobe=_decibel(_energy_ratio(field, detail, step, main_lobe), 10),
        image=image,
        image_step=tuple(v / n_steps for v in voxel[:2]),
        detail=detail,
        detail_step=tuple(v * step for v in voxel[:2]),
        profiles=tuple(point.line(axis, 2 * n * _PROFILE_STEPS) for axis, n in enumerate(matrix)),
        profile_step=tuple(v / _PROFILE_STEPS for v in voxel[:2]),
        radius=radius,
        radial=radial,
        echo=EchoTimes.of(trajectory),
        fwhm_z=_width_z(_Point(points[:, 2:], shares), acquisition) if acquisition.n_dims == 3 else None,
    )


def _width_z(point: "_Point", acquisition: Acquisition) -> float:
    """Return the full width at half maximum along z, m, of a point whose only axis that is."""
    n = 2 * acquisition.matrix[2] * _PROFILE_STEPS
    profile = point.line(0, n)[n // 2 :]
    return acquisition.voxel[2] * _full_width(np.arange(len(profile)) / _PROFILE_STEPS, profile)


@dataclass(frozen=True)
class _Point:
    """The point spread function of weighted samples omega (point, 2), rad/voxel; lengths are in voxels."""

    omega: Tensor
    weights: Tensor

    def grid(self, shape: tuple[int, ...], step: float, centre: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Return the magnitude (y, x) on a grid around `centre` (x, y)."""
        phase = self.omega @ torch.tensor(centre, dtype=torch.float64)
        values = torch.polar(self.weights, phase)
        return nufft_adjoint(values[None], self.omega * step, shape)[0].abs().numpy()

    def line(self, axis: int, n: int) -> np.ndarray:
        """Return n magnitudes along x or y through the peak."""
        values, omega = self.weights[None].to(torch.complex128), self.omega[:, axis : axis + 1] / _PROFILE_STEPS
        # as a plane whose other axis has no extent: not every NUFFT has one axis alone
        flat = torch.cat([omega, torch.zeros_like(omega)], dim=-1)
        return nufft_adjoint(values, flat, (_THIN, n))[0, _THIN // 2].abs().numpy()


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


def _unit_weights(omega: Tensor, weights: Tensor | None, acquisition: Acquisition) -> Tensor:
    """Return weights (point,) whose sum is one."""
    if weights is None:
        # of volumes in the precision of training: six digits, and many times as fast
        flat = sampling_of(omega, acquisition).density(omega.float() if omega.shape[-1] == 3 else omega).flatten()
        flat = flat.double()
    elif weights.shape == omega.shape[:2]:
        flat = weights.detach().double().cpu().flatten()
    else:
        needed = f"(shot, sample) = {tuple(omega.shape[:2])}"
        raise InputError(f"weights have the shape {tuple(weights.shape)}; the trajectory needs {needed}.")
    if not bool(torch.isfinite(flat).all()) or float(flat.sum()) <= 0:
        raise InputError("density weights must be finite and have a positive sum.")
    return flat / flat.sum()


def _detail(point: _Point, edge: float) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Return the detailed image, its half width, and radius and mean: up to `edge` as wide as the main lobe needs."""
    half_width = min(float(_HALF_WIDTH), edge)
    while True:
        step = 2 * half_width / _DETAIL
        detail = point.grid((_DETAIL, _DETAIL), step)
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


def _peak_outside(point: _Point, field: np.ndarray, detail: np.ndarray, step: float, main_lobe: float) -> float:
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
        close = point.grid((_CLOSE + 1, _CLOSE + 1), 1 / _CLOSE, centre)
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
