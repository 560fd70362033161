"""Where the pixels of images lie in the patient."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement, Protocol
from trajdesign.measuring import reception
from trajdesign.measuring.assignment import Assigned

_TO_MM = 1e3
# Of slices that nothing tells the thickness of, mm.
_NO_THICKNESS = 5.0
# From the directions of DICOM and of scanners, to the left and to the back, to NIfTI's, to the right and to the front.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Of slices that lie alike, the most that their directions differ.
_SAME = 1e-3


@dataclass(frozen=True)
class ImageGeometry:
    """Where the pixels (x, y, slice) of images lie.

    Parameters
    ----------
    corner
        Pixel (0, 0, 0), mm, to the left, to the back, to the head.
    directions
        Of x, y and the slices as columns, of length 1.
    steps
        From pixel to pixel along them, mm.
    thickness
        Of a slice, mm; None where no Pulseq file tells it.
    matrix
        Pixels along x and y.
    is_volume
        Whether slices are of one volume that was encoded along all axes.
    """

    corner: NDArray[np.float64]
    directions: NDArray[np.float64]
    steps: NDArray[np.float64]
    thickness: float | None
    matrix: tuple[int, ...]
    is_volume: bool = False

    def at(self, *pixel: float) -> NDArray[np.float64]:
        """Return where a pixel (x, y, slice) lies, mm, to the left, to the back, to the head."""
        return self.corner + self.directions @ (self.steps * pixel)

    @property
    def middle(self) -> tuple[int, ...]:
        """The pixel (x, y) in the middle of the field of view."""
        return tuple(n // 2 for n in self.matrix)

    @property
    def extent(self) -> tuple[float, ...]:
        """Field of view along x and y, and the thickness of a slice, mm."""
        sizes = [n * float(step) for n, step in zip(self.matrix, self.steps, strict=False)]
        return *sizes, self.thickness or _NO_THICKNESS

    @property
    def affine(self) -> NDArray[np.float64]:
        """The matrix (4, 4) from a pixel to mm, to the right, to the front, to the head."""
        matrix = np.eye(4)
        matrix[:3, :3] = _LPS_TO_RAS @ self.directions * self.steps
        matrix[:3, 3] = _LPS_TO_RAS @ self.corner
        return matrix


@dataclass(frozen=True)
class PlacedImages:
    """Images, and what their files tell beside them.

    Parameters
    ----------
    images
        (frame, slice, y, x) by the name of the reconstruction.
    geometry
        Where they lie.
    protocol
        What the raw file told.
    n_coils
        That received.
    """

    images: Mapping[str, NDArray[np.float32]]
    geometry: ImageGeometry
    protocol: Protocol
    n_coils: int


def of_images(found: Assigned, measured: Measurement) -> ImageGeometry:
    """Return where the images of a measurement lie.

    The axes are those of the gradients, seen in `Assigned.view`; where the raw file tells how the slices lie, they are
    turned and shifted with them: its slice is the middle of the gradients. Of several slices it is their mean. The
    pixel in the middle, n // 2, lies in the middle of the view.
    """
    acquisition, slices = found.acquisition, measured.protocol.slices
    played, n_slices = found.played, found.kspace.shape[1]
    thickness = None if played is None else float(reception.thickness(played, measured.path)) * _TO_MM
    positions = _TO_MM * np.array(() if played is None else played.numbers("SlicePositions"))
    apart = positions[1] - positions[0] if len(positions) > 1 else thickness or _NO_THICKNESS
    first = positions[0] if len(positions) else -apart * (n_slices - 1) / 2
    if found.stack is not None:
        thickness = apart = _TO_MM * found.stack.thickness
        first = -(n_slices // 2) * apart
    elif found.is_volume:
        thickness = apart = _TO_MM * acquisition.voxel[2]
        first = -(acquisition.matrix[2] // 2) * apart
    if len(slices) > 1:
        first -= positions.mean() if len(positions) else 0.0  # which the raw file tells of each
    of = np.eye(3) if not slices else np.array([slices[0].read, slices[0].phase, slices[0].normal]).T
    centre = np.zeros(3) if not slices else _TO_MM * np.mean([one.position for one in slices], axis=0)
    turned = np.eye(3)
    turned[:2, :2] = found.view.matrix.T
    directions = of @ turned
    matrix = acquisition.matrix[:2]
    steps = np.array([*(_TO_MM * size for size in acquisition.voxel[:2]), apart])
    to_corner = [*(-(n // 2) * step for n, step in zip(matrix, steps, strict=False)), first]
    corner = centre + of @ (_TO_MM * np.array([*found.view.shift, 0.0])) + directions @ to_corner
    return ImageGeometry(corner, directions, steps, thickness, matrix, found.is_volume)


def unknown(found: Assigned, measured: Measurement) -> str | None:
    """Return why nobody can tell where the images lie in the patient; None if the files tell."""
    slices = measured.protocol.slices
    if not slices:
        return f"{measured.path.name} does not tell how the slices lie in the patient"
    if found.played is None:
        return "no Pulseq file tells where the slices are played, and how thick they are"
    ways = np.array([[one.read, one.phase, one.normal] for one in slices])
    if np.abs(ways - ways[0]).max() > _SAME:
        return f"the {len(slices)} slices of {measured.path.name} do not lie in one direction"
    return None
