"""A random head in 3D."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import fit_matrix
from trajdesign.data.phantoms.shapes import HEAD_CONTRASTS, Field, blend, capsule, length, noise, smooth

# It is drawn on so many times the matrix, with voxels at most so many times as long as wide, and cut to the band that
# the matrix holds, as a scanner would do; edges are as soft as a drawn voxel.
_FINER, _LONGEST_VOXEL = 1.5, 2.0

# Nothing of a head is beyond so many times its half length, width or height.
_REACH = 1.2

# A slab fades over this part of it at either end, as the profile of a pulse does.
_FADES = 0.1

# Side of the grid of the folds, and its voxels, mm: the period is wider than a brain, the folds some voxels wide.
_FOLD_GRID, _FOLD_VOXEL = 64, 3.0


def head(acquisition: Acquisition, generator: np.random.Generator) -> Field:
    """Return the magnitude (z, y, x), float32, of one head: superior last, anterior up, as in axial slices.

    The head is scaled to the field of view along x and y, and keeps its proportions: where that along z is shorter, a
    slab of the head is shown whose ends fade.
    """
    place = _place(acquisition, generator)
    image = np.zeros(place.shape, dtype=np.float32)
    image[place.box] = _paint(place, _fold_cortex(place, generator), generator)
    depth = np.linspace(0, 1, len(image))
    fading = np.sin(np.pi / 2 * np.clip(np.minimum(depth, 1 - depth) / _FADES, 0, 1)) ** 2
    image *= fading[:, None, None].astype(np.float32)
    return np.maximum(fit_matrix(image, place.voxel, acquisition), 0).astype(np.float32)


@dataclass(frozen=True)
class _Head:
    """Where each voxel lies (z, y, x); lengths in mm of a head of usual size, whatever the field of view."""

    z: Field
    """Towards the crown, 0 between the ventricles."""
    y: Field
    """Towards the back."""
    x: Field
    radius: Field
    """1 on the skin, 0 in the middle."""
    depth: Field
    """Below the inner table of the skull; negative in skull and scalp."""
    floor: Field
    """Above the base of the skull."""
    skull: float
    scalp: float
    """Thicknesses."""
    voxel: tuple[float, float, float]
    shape: tuple[int, int, int]
    """Of all that is drawn."""
    box: tuple[slice, ...]
    """The part of it that is here: nothing of the head is outside."""

    def within(self, lowest: Sequence[float], highest: Sequence[float]) -> "_Head":
        """Return the smallest box, of this part, that holds all voxels between two corners (z, y, x), mm."""
        axes = (self.z, self.y, self.x)
        inside = functools.reduce(
            np.logical_and, ((a > low) & (a < high) for a, low, high in zip(axes, lowest, highest, strict=True))
        )
        found = (np.flatnonzero(inside.any(others)) for others in ((1, 2), (0, 2), (0, 1)))
        box = tuple(slice(at[0], at[-1] + 1) if len(at) else slice(0) for at in found)
        parts = {name: getattr(self, name)[box] for name in ("z", "y", "x", "radius", "depth", "floor")}
        return replace(self, box=box, **parts)

    @property
    def side(self) -> Field:
        """Distance from the middle plane: what is drawn by it is drawn on both sides."""
        return np.abs(self.x)

    @property
    def tentorium(self) -> Field:
        """Above, or in front of, what parts the cerebrum from the cerebellum."""
        return np.maximum(self.z + 18 - 0.2 * (self.y - 30), 6 - self.y)

    @property
    def edge(self) -> float:
        """How soft edges are."""
        return max(self.voxel)


def _place(acquisition: Acquisition, generator: np.random.Generator) -> _Head:
    uniform = generator.uniform
    half = [uniform(82, 92), uniform(88, 98), uniform(68, 76)]  # z, y, x
    fov = np.array(acquisition.fov[::-1])
    fov *= 2 * (np.array(half) / fov)[1:].max() / uniform(0.76, 0.85)
    fine = fov / acquisition.matrix[::-1] / _FINER
    fine = np.minimum(fine, _LONGEST_VOXEL * fine.min())
    shape = [2 * round(extent / size / 2) for extent, size in zip(fov, fine, strict=True)]
    voxel = [float(size) for size in fov / shape]
    axes, box = [], []
    for n, size, most in zip(shape, voxel, half, strict=True):
        at = (np.arange(n) - n // 2) * size + uniform(-3, 3)
        kept = np.flatnonzero(np.abs(at) < _REACH * most)
        box.append(slice(int(kept[0]), int(kept[-1]) + 1))
        axes.append(at[box[-1]].astype(np.float32))
    z, y, x = _bend(np.ix_(*axes), generator)
    w, v = z / half[0], y / half[1]
    u = x / (half[2] * (1 + uniform(0.04, 0.1) * v) * (1 - uniform(0.05, 0.12) * w * w))  # the back is wide
    radius = length((w, v, u))
    scalp, skull = uniform(4, 7), uniform(6, 9)
    depth = (1 - radius) * (sum(half) / 3) - (scalp + skull)
    floor = z + smooth(z.shape, 2.5, generator) + uniform(30, 36) + uniform(26, 32) / (1 + np.exp((5 - y) / 6))
    return _Head(*(z, y, x, radius, depth, floor), skull, scalp, (voxel[0], voxel[1], voxel[2]), (*shape,), tuple(box))


def _bend(axes: Sequence[Field], generator: np.random.Generator) -> Sequence[Field]:
    """Return positions (z, y, x), mm, turned a little about every axis, and bent, as no head is drawn with a ruler."""
    shape = [axis.size for axis in axes]
    turned = [axis + smooth(shape, 1.2, generator) for axis in axes]
    for first, last in ((0, 1), (0, 2), (1, 2)):
        turn = generator.uniform(-0.06, 0.06)
        turned[first] += turn * axes[last]
        turned[last] -= turn * axes[first]
    return turned


def _fold_cortex(head: _Head, generator: np.random.Generator) -> Field:
    """Return the distance below the surface of the cerebral cortex, mm; negative in the CSF around it and in sulci."""
    uniform = generator.uniform
    gap = np.maximum(smooth(head.x.shape, 0.8, generator) + uniform(0.8, 2.0), 0.3)
    surface = np.minimum(head.depth, head.floor) - gap
    surface = np.minimum(surface, head.tentorium)
    # the corpus callosum and what lies between joins the hemispheres
    joined = 1 - np.hypot((head.y - 6) / uniform(36, 42), (head.z - 2) / uniform(20, 25))
    fissure = head.side - uniform(0.2, 1.0) + 30 * np.maximum(joined, 0)
    surface = np.minimum(surface, fissure)
    width = uniform(0.6, 1.6)
    beyond = np.maximum(np.abs(head.z + 2 - 0.2 * head.y) - 8, 0)  # the insula is so high
    for start, end, radii in (
        ((75, -16), (44, -4), (0.5 * width, width)),
        ((39, -24), (45, 14), (width, 0.3 * width)),
    ):
        surface = np.minimum(surface, capsule((head.side, head.y), start, end, *radii) + beyond)
    reach = 16 + smooth(head.x.shape, 4.0, generator)
    folds = _distance_to_folds(head, generator) - uniform(0.1, 0.6)
    return np.minimum(surface, folds + np.maximum(surface - reach, 0))


def _distance_to_folds(head: _Head, generator: np.random.Generator) -> Field:
    """Return the distance to the zero surfaces of a noise, in mm, which are the sulci, one every 11 mm or so.

    Near the skull the noise is drawn out along the depth, so that the surfaces run into the brain. Near a surface the
    noise over its slope is the distance: every sulcus is equally wide.
    """
    waves = noise(
        [_FOLD_GRID] * 3, [_FOLD_VOXEL] * 3, lambda f: np.exp(-(((f - 0.045) / 0.012) ** 2)), generator
    ).real.astype(np.float32)
    drawn_out = generator.uniform(0.5, 0.7)
    stretch = ((1 - drawn_out) + drawn_out / np.maximum(head.radius, 0.45)) / _FOLD_VOXEL
    at = [axis * stretch for axis in (head.z, head.y, head.x)]
    folds = scipy.ndimage.map_coordinates(waves, at, order=1, mode="grid-wrap")
    square = sum(np.square(slope) for slope in np.gradient(folds, *head.voxel))
    return np.abs(folds) / np.sqrt(square + np.float32(1e-3))


def _paint(head: _Head, cortex: Field, generator: np.random.Generator) -> Field:
    """Fill the anatomy with a contrast, texture and shading."""
    uniform = generator.uniform
    contrast = HEAD_CONTRASTS[generator.integers(len(HEAD_CONTRASTS))]
    scalp, bone, marrow, csf, gray, white, nuclei, vessel = (value * uniform(0.93, 1.07) for value in contrast)
    texture = noise(head.x.shape, (1, 1, 1), lambda f: 1 / (f + 0.01), generator)
    edge = head.edge

    image = np.full_like(cortex, csf)
    hind = head.within((-90, -20, -80), (25, 100, 80))
    _add_hindbrain(image[hind.box], hind, (gray, white), generator)
    blend(image, gray, cortex, edge + 1)
    ribbon = uniform(2.8, 3.8) + 0.5 * texture.real
    blend(image, white * (1 + 0.03 * texture.imag), cortex - ribbon, edge + 1)
    deep = head.within((-55, -50, -45), (40, 65, 45))
    part = image[deep.box]
    for distance in _nuclei(deep, generator):
        blend(part, 0.85 * nuclei + 0.15 * part, distance, edge + 1)
    blend(part, csf, _ventricles(deep, generator), edge)
    _add_vessels(image, head, cortex, vessel, generator)
    sinus = np.where(head.y > 0, 3.5, 1.8) - np.hypot(head.x, head.depth + 1) - 4 * np.maximum(-head.z, 0)
    blend(image, vessel, sinus.astype(np.float32), edge)
    flesh = (0.45 * scalp + 0.1 * nuclei) * (1 + 0.15 * texture.imag)
    blend(image, bone, -head.floor, edge)
    blend(image, flesh, -head.floor - uniform(3, 5), edge + 2)
    outside = -head.depth
    above = head.floor + 8  # the vault ends a little below the base
    blend(image, bone, np.minimum(outside, above), edge)
    diploe = head.skull / 2 - 1.8 + 0.6 * texture.real - np.abs(outside - head.skull / 2)
    blend(image, marrow, np.minimum(diploe, above), edge)
    blend(image, scalp * (0.85 + 0.1 * texture.imag), outside - head.skull, edge)
    blend(image, 0.0, outside - (head.skull + head.scalp), edge)
    return image * (1 + smooth(head.x.shape, 0.08, generator)) * (1 + 0.02 * texture.real)


def _add_hindbrain(image: Field, head: _Head, signals: tuple[float, float], generator: np.random.Generator) -> None:
    """Draw cerebellum, with its thin leaves, and brain stem into `image`."""
    gray, white = signals
    uniform = generator.uniform
    cerebellum = np.minimum(np.minimum(head.depth, head.floor), -head.tentorium) - uniform(1.5, 3)
    around = np.hypot(head.y - 24, head.z + 42) + smooth(head.x.shape, 1.5, generator)
    leaves = np.cos(2 * np.pi / uniform(4.5, 6) * around)
    rind = np.clip((uniform(12, 16) - cerebellum) / 5, 0, 1)
    blend(image, gray + (white - gray) * (1 - rind * (0.75 + 0.25 * leaves)), cerebellum, head.edge)
    stem = -capsule((head.x, head.y, head.z), (0, 4, -8), (0, 22, -75), uniform(11, 13), uniform(6, 7))
    pons = -capsule((head.x, head.y, head.z), (-7, 8, -30), (7, 8, -30), 11, 11)
    blend(image, 0.85 * white + 0.15 * gray, np.maximum(stem, pons), head.edge)


def _nuclei(head: _Head, generator: np.random.Generator) -> list[Field]:
    """Signed depth inside thalamus, caudate and putamen of both sides, mm."""
    at = (head.side, head.y, head.z)
    thalamus, caudate, putamen = (generator.uniform(0.85, 1.15) for _ in range(3))
    return [
        -capsule(at, (8, 0, 0), (13, 15, 3), 6 * thalamus, 7.5 * thalamus),
        -capsule(at, (13, -22, 2), (17, 0, 16), 5 * caudate, 3 * caudate),
        -capsule(at, (24, -15, -1), (29, 8, 4), 6 * putamen, 4 * putamen),
    ]


def _ventricles(head: _Head, generator: np.random.Generator) -> Field:
    """Signed depth inside the lateral, third and fourth ventricles, mm."""
    uniform = generator.uniform
    side, size = np.abs(head.x + uniform(-1, 1)), uniform(0.6, 1.5)
    at = (side, head.y, head.z)
    parts = (
        capsule(at, (2.5 + size, -8, 10), (10, -30, 2), 2.5 * size, 3.5 * size),  # frontal horn
        capsule(at, (3 + size, -8, 13), (13, 24, 15), 2.5 * size, 3.0 * size),  # body
        capsule(at, (15, 26, 12), (25, 42, 4), 3.0 * size, 4.5 * size),  # atrium
        capsule(at, (25, 38, 0), (31, 4, -16), 2.0 * size, 1.2 * size),  # temporal horn
        capsule(at, (0, -3, -4), (0, 17, 3), 1.0 * size, 1.8 * size),  # third
        capsule(at, (0, 22, -30), (0, 26, -42), 3.0 * size, 1.5 * size),  # fourth
    )
    return -functools.reduce(np.minimum, parts)


def _add_vessels(image: Field, head: _Head, cortex: Field, signal: float, generator: np.random.Generator) -> None:
    """Draw winding tubes that run along the surface of the brain, and the arteries at its base, into `image`."""
    uniform = generator.uniform
    starts = np.flatnonzero((np.abs(cortex) < head.edge) & (head.depth > 0) & (head.floor > 2))
    paths: list[tuple[NDArray[np.float64], float]] = []
    for side in (-1, 1):
        base = np.array([[-60, 0, 9], [-35, -6, 10], [-22, -10, 9], [-18, -10, 20], [-10, -10, 36], [6, -2, 44]])
        paths.append((base * (1, 1, side) + uniform(-2, 2, base.shape), uniform(1.2, 1.9)))
    paths.append((np.array([[-60, 2, 0], [-28, -5, 0], [-5, -34, 0], [22, -36, 0], [30, 0, 0]]), uniform(0.9, 1.3)))
    middle = np.array(
        [float(axis.flat[len(axis.flat) // 2 + axis.shape[-1] // 2]) for axis in (head.z, head.y, head.x)]
    )
    for flat in generator.choice(starts, size=min(len(starts), 24), replace=False):
        point = np.array([float(axis.flat[flat]) for axis in (head.z, head.y, head.x)])
        away, step = point - middle, generator.normal(size=3)
        steps = [point]
        for _ in range(6):
            step += 0.6 * generator.normal(size=3)
            step -= away * (step @ away) / max(away @ away, 1.0)  # along the surface
            step *= 5 / np.linalg.norm(step)
            steps.append(steps[-1] + step)
        paths.append((np.array(steps), uniform(0.5, 1.1)))
    weight = np.zeros_like(image)
    for points, radius in paths:
        _add_tube(weight, head, points, radius)
    image += (signal - image) * weight


def _add_tube(weight: Field, head: _Head, points: NDArray[np.float64], radius: float) -> None:
    """Raise `weight` to 1 in the middle of a tube through points (point, axis); thin ones fill parts of voxels."""
    soft = max(radius, 0.6 * head.edge)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    dense = np.arange(0, at[-1], 0.7 * soft)
    origin = np.array([axis[0, 0, 0] for axis in (head.z, head.y, head.x)])
    for place in np.stack([np.interp(dense, at, points[:, axis]) for axis in range(3)], axis=1):
        middle = (place - origin) / head.voxel
        reach = 2 * soft / np.array(head.voxel)
        box = tuple(slice(max(int(m - r), 0), max(int(m + r) + 2, 0)) for m, r in zip(middle, reach, strict=True))
        patch = weight[box]
        if patch.size:
            z, y, x = (axis[box] - p for axis, p in zip((head.z, head.y, head.x), place, strict=True))
            np.maximum(patch, (radius / soft) ** 2 * np.exp(-(z * z + y * y + x * x) / soft**2), out=patch)
