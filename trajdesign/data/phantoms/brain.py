"""An axial slice of a random brain."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import fit_matrix, slice_shape
from trajdesign.data.phantoms.shapes import HEAD_CONTRASTS, Field, blend, capsule, noise, smooth


def brain(acquisition: Acquisition, generator: np.random.Generator) -> Field:
    """Return the magnitude (y, x), float32, of one axial brain slice, anterior up.

    It is drawn on twice the matrix and cut to the band of spatial frequencies that the matrix holds, as a scanner
    would do.
    """
    head = _place_head(acquisition, generator)
    cortex = _fold_cortex(head, generator)
    image = _paint(head, cortex, generator)
    return np.maximum(fit_matrix(image, head.pixel, acquisition), 0).astype(np.float32)


@dataclass(frozen=True)
class _Head:
    """Where each pixel lies; lengths in mm of a head of usual size, whatever the field of view."""

    x: Field
    y: Field
    """Towards the back of the head. Both axes bend a little, as no head is drawn with a ruler."""
    depth: Field
    """Below the inner table of the skull; negative in skull and scalp."""
    skull: float
    scalp: float
    """Thicknesses."""
    high: bool
    """Whether the slice lies above the ventricles."""
    pixel: tuple[float, float]
    """Along y and x."""


def _place_head(acquisition: Acquisition, generator: np.random.Generator) -> _Head:
    uniform = generator.uniform
    ny, nx = (2 * n for n in slice_shape(acquisition))
    half_length, half_width = uniform(88, 98), uniform(68, 76)
    wide = acquisition.fov[0] / acquisition.fov[1]
    half_fov = max(half_length, half_width / wide) / uniform(0.76, 0.85)
    pixel = (2 * half_fov / ny, 2 * half_fov * wide / nx)
    y0 = (pixel[0] * (np.arange(ny) - ny // 2 + uniform(-3, 3)))[:, None]
    x0 = (pixel[1] * (np.arange(nx) - nx // 2 + uniform(-3, 3)))[None, :]
    turn = uniform(-0.1, 0.1)
    x = (x0 * np.cos(turn) - y0 * np.sin(turn)).astype(np.float32) + smooth((ny, nx), 1.5, generator)
    y = (x0 * np.sin(turn) + y0 * np.cos(turn)).astype(np.float32) + smooth((ny, nx), 1.5, generator)
    v = y / half_length
    u = x / half_width / (1 + uniform(0.04, 0.1) * v)  # the wide end is the back
    scalp, skull = uniform(4, 7), uniform(6, 9)
    depth = (1 - np.sqrt(u * u + v * v)) * ((half_width + half_length) / 2) - (scalp + skull)
    bend = noise((ny, nx), pixel, lambda f: f * np.exp(-((f * 35) ** 2)), generator) * 1.3
    return _Head(x + bend.real, y + bend.imag, depth, skull, scalp, bool(uniform() < 0.3), pixel)


def _fold_cortex(head: _Head, generator: np.random.Generator) -> Field:
    """Return the distance below the surface of the cortex, mm; negative in the CSF around it and in sulci."""
    uniform = generator.uniform
    side = np.abs(head.x)
    gap = smooth(head.x.shape, 0.8, generator) + uniform(0.8, 2.0)
    surface = head.depth - np.maximum(gap, 0.3)
    fissure = side - uniform(0.2, 1.0)
    if not head.high:
        # the corpus callosum and what lies between joins the hemispheres
        fissure += np.maximum(np.minimum(head.y + 33, 46 - head.y), 0)
    surface = np.minimum(surface, fissure)
    if not head.high:
        width = uniform(0.6, 1.6)
        surface = np.minimum(surface, capsule((side, head.y), (75, -16), (44, -4), 0.5 * width, width))
        surface = np.minimum(surface, capsule((side, head.y), (39, -24), (45, 14), width, 0.3 * width))
    reach = (20 if head.high else 15) + smooth(head.x.shape, 4.0, generator)
    folds = _distance_to_folds(head, generator) - uniform(0.1, 0.6)
    return np.minimum(surface, folds + np.maximum(surface - reach, 0))


def _distance_to_folds(head: _Head, generator: np.random.Generator) -> Field:
    """Return the distance to the zero lines of a noise, in mm, which are the sulci, one every 11 mm or so.

    Near the skull the noise is drawn out along the depth, so that the lines run into the brain. Near a line the
    noise over its slope is the distance: every sulcus is equally wide.
    """
    n = 256
    per_mm = n / 400  # the circumference of a brain is the period
    waves = noise((n, n), (1, 1), lambda f: np.exp(-(((f - 0.07) / 0.02) ** 2)), generator)
    around = np.arctan2(head.x, head.y) * (n / (2 * np.pi))
    along = head.depth * per_mm * generator.uniform(0.35, 0.6)
    outer, inner = (
        scipy.ndimage.map_coordinates(part, at, order=1, mode="grid-wrap")
        for part, at in ((waves.real, (along, around)), (waves.imag, (head.y * per_mm, head.x * per_mm)))
    )
    share = np.clip((head.depth - 8) / 25, 0, 1)  # towards the centre the angle runs together
    folds = outer + share * (inner - outer)
    rise, run = np.gradient(folds, *head.pixel)
    return np.abs(folds) / np.sqrt(rise**2 + run**2 + 1e-3)


def _paint(head: _Head, cortex: Field, generator: np.random.Generator) -> Field:
    """Fill the anatomy with a contrast, texture and shading."""
    contrast = HEAD_CONTRASTS[generator.integers(len(HEAD_CONTRASTS))]
    scalp, bone, marrow, csf, gray, white, nuclei, vessel = (
        value * generator.uniform(0.93, 1.07) for value in contrast
    )
    texture = noise(head.x.shape, (1, 1), lambda f: 1 / (f + 0.01), generator)
    edge = max(head.pixel)

    image = np.full_like(cortex, csf)
    blend(image, gray, cortex, edge)
    ribbon = generator.uniform(2.8, 3.8) + 0.5 * texture.real
    blend(image, white * (1 + 0.03 * texture.imag), cortex - ribbon, edge + 1)
    if not head.high:
        for distance in _nuclei(head, generator):
            blend(image, 0.85 * nuclei + 0.15 * image, distance, edge + 1)
        blend(image, csf, _ventricles(head, generator), edge)
    _add_vessels(image, np.flatnonzero((cortex < 0.2) & (head.depth > 0)), vessel, head.pixel, generator)
    sinus = np.where(head.y > 0, 3.5, 1.8) - np.hypot(head.x, head.depth + 1)
    blend(image, vessel, sinus.astype(np.float32), edge)
    outside = -head.depth
    blend(image, bone, outside, edge)
    diploe = head.skull / 2 - 1.8 + 0.6 * texture.real - np.abs(outside - head.skull / 2)
    blend(image, marrow, diploe, edge)
    blend(image, scalp * (0.85 + 0.1 * texture.imag), outside - head.skull, edge)
    blend(image, 0.0, outside - (head.skull + head.scalp), edge)
    return image * (1 + smooth(head.x.shape, 0.1, generator)) * (1 + 0.02 * texture.real)


def _nuclei(head: _Head, generator: np.random.Generator) -> list[Field]:
    """Signed depth inside thalamus, caudate head and putamen of both sides, mm."""
    side = np.abs(head.x)
    thalamus, caudate, putamen = (generator.uniform(0.85, 1.15) for _ in range(3))
    return [
        -capsule((side, head.y), (8, 2), (13, 14), 5.5 * thalamus, 7 * thalamus),
        -capsule((side, head.y), (13, -22), (15, -10), 4.5 * caudate, 2.5 * caudate),
        -capsule((side, head.y), (24, -16), (30, 8), 5 * putamen, 2.5 * putamen),
    ]


def _ventricles(head: _Head, generator: np.random.Generator) -> Field:
    """Signed depth inside the lateral and third ventricles, mm."""
    side = np.abs(head.x + generator.uniform(-1, 1))
    size = generator.uniform(0.6, 1.5)
    horn = capsule((side, head.y), (2.5 + size, -10), (11, -28), 2.0 * size, 3.0 * size)
    atrium = capsule((side, head.y), (15, 26), (25, 41), 2.0 * size, 4.5 * size)
    third = capsule((side, head.y), (0, -3), (0, 17), 0.8 * size, 1.5 * size)
    return -np.minimum(np.minimum(horn, atrium), third)


def _add_vessels(
    image: Field, allowed: NDArray[np.intp], signal: float, pixel: tuple[float, float], generator: np.random.Generator
) -> None:
    """Draw cross-sections of small vessels into `image`, centred on some of the `allowed` pixels."""
    for flat in generator.choice(allowed, size=min(len(allowed), 40), replace=False):
        y, x = divmod(int(flat), image.shape[1])
        radius = generator.uniform(0.5, 1.1)
        reach = [int(2 * radius / size) + 1 for size in pixel]
        box = (slice(max(y - reach[0], 0), y + reach[0] + 1), slice(max(x - reach[1], 0), x + reach[1] + 1))
        patch = image[box]
        rows, columns = np.arange(image.shape[0])[box[0], None], np.arange(image.shape[1])[None, box[1]]
        square = ((rows - y) * pixel[0]) ** 2 + ((columns - x) * pixel[1]) ** 2
        patch += ((signal - patch) * np.exp(-square / radius**2)).astype(np.float32)
