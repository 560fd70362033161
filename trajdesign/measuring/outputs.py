"""The files that a reconstruction leaves: arrays, NIfTI, a picture and numbers."""

import io
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement, Slice
from trajdesign.exporting import reception
from trajdesign.files.atomic import atomic_path
from trajdesign.learning.run_folder import to_json
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.solving import LABELS
from trajdesign.reporting import plots
from trajdesign.reporting.measured import overview

_NO_THICKNESS = 5e-3
_TO_MM = 1e3
# From the directions of DICOM and of scanners, to the left and to the back, to NIfTI's, to the right and to the front.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def reserved(out: Path, files: ExitStack, *, with_network: bool, overwrite: bool) -> dict[str, Path]:
    """Return temporary paths of all files by their names, which appear together when `files` is closed."""
    names = [f"{name}.nii" for name in LABELS if with_network or name != "network"]
    names += ["image.npz", "reconstruction.png", "reconstruct.json"]
    return {name: files.enter_context(atomic_path(out / name, overwrite=overwrite)) for name in names}


def write(
    to: Mapping[str, Path],
    images: Mapping[str, NDArray[np.float32]],
    facts: Mapping[str, Any],
    found: Assigned,
    measured: Measurement,
) -> None:
    """Write what `reserved` has names for."""
    content = io.BytesIO()  # into a file numpy writes in a way that does not say that a disk is full
    geometry = affine(found, measured)
    np.savez(content, fov_m=np.array(found.acquisition.fov), affine_mm=geometry, **images)  # type: ignore[arg-type]
    to["image.npz"].write_bytes(content.getbuffer())
    for name, image in images.items():
        nifti = nibabel.Nifti1Image(image.transpose(3, 2, 1, 0).squeeze(-1) if len(image) == 1 else image.T, geometry)
        nifti.header.set_xyzt_units("mm", "sec")
        to[f"{name}.nii"].write_bytes(nifti.to_bytes())
    plots.save(overview(images, facts, LABELS), to["reconstruction.png"])
    to["reconstruct.json"].write_text(to_json(facts) + "\n", encoding="utf-8", newline="\n")


def affine(found: Assigned, measured: Measurement) -> NDArray[np.float64]:
    """Return the matrix (4, 4) from pixel (x, y, slice) to mm, to the right, to the front, to the head.

    The axes are those of the gradients, seen in `Assigned.view`; where the raw file tells how the slices lie, they are
    turned and shifted with them. The pixel in the middle, n // 2, lies in the middle of the view.
    """
    acquisition = found.acquisition
    positions = found.played.numbers("SlicePositions") if found.played is not None else ()
    thickness = reception.thickness(found.played, measured.path) if found.played is not None else _NO_THICKNESS
    apart = positions[1] - positions[0] if len(positions) > 1 else thickness
    first = positions[0] if positions else -apart * (found.kspace.shape[1] - 1) / 2
    if found.thickness is not None:
        apart, first = found.thickness, -(found.kspace.shape[1] // 2) * found.thickness
    of = measured.protocol.slices[0] if measured.protocol.slices else None
    directions = _LPS_TO_RAS @ _columns(of)
    steps = np.array([*acquisition.voxel, apart])
    corner = np.array([*(-(n // 2) * step for n, step in zip(acquisition.matrix, steps, strict=False)), first])
    centre = np.zeros(3) if of is None else _LPS_TO_RAS @ np.array(of.position)
    corner[:2] += found.view.centre
    directions[:, :2] = directions[:, :2] @ found.view.matrix.T
    matrix = np.eye(4)
    matrix[:3, :3] = directions * steps * _TO_MM
    matrix[:3, 3] = (directions @ corner + centre) * _TO_MM
    return matrix


def _columns(of: Slice | None) -> NDArray[np.float64]:
    """Return the directions of x, y and the slice as columns; without a slice those of the scanner."""
    return np.eye(3) if of is None else np.array([of.read, of.phase, of.normal]).T
