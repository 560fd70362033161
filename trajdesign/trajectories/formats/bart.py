"""BART's ``.cfl`` and ``.hdr``: k at the ADC samples, for ``bart nufft`` and ``bart pics -t``."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError, LimitError
from trajdesign.files import untrusted
from trajdesign.files.arrays import read_cfl
from trajdesign.interfaces import Format, Samples
from trajdesign.trajectories.convert import to_bart
from trajdesign.trajectory import Trajectory

_N_AXES = 3


class Bart(Format):
    """BART's pair of files: k in cycles per field of view, of the dimensions (3, sample, shot); in 2D k_z is 0."""

    ending = ".cfl"
    companion = ".hdr"
    reads = (".cfl",)

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write the pair of files, and return the ``dimensions`` of the array."""
        array = to_bart(trajectory)
        path.write_bytes(array.astype("<c8").tobytes(order="F"))
        dimensions = list(array.shape)
        text = f"# Dimensions\n{' '.join(map(str, dimensions))}\n"
        path.with_suffix(self.companion).write_text(text, encoding="ascii", newline="\n")
        return {"dimensions": dimensions}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the pair of files without `read_cfl`, and hold the one against the other."""
        _, dimensions = path.with_suffix(self.companion).read_text(encoding="ascii").splitlines()
        shape = tuple(map(int, dimensions.split()))[::-1]
        values = np.fromfile(path, dtype="<c8")
        if values.size != np.prod(shape) or shape[-1] != _N_AXES:
            raise LimitError(f"the written header says {dimensions}, but there are {values.size} numbers.")
        k = values.real.astype(float).reshape(shape)[..., : trajectory.acquisition.n_dims]
        return {"bart": k / np.array(trajectory.acquisition.fov)}, {}

    def read(self, path: Path) -> Samples:
        """Read a trajectory of BART, of the dimensions (3, sample, shot, ...); frames follow shots."""
        array = read_cfl(path, untrusted.MOST_BYTES)
        if array.ndim < 3 or array.shape[0] != _N_AXES:
            raise InputError(f"{path} has the dimensions {array.shape}; a trajectory of BART has (3, sample, shot).")
        shots = array.reshape(_N_AXES, array.shape[1], -1, order="F").T
        if shots.imag.any():
            shot, sample, axis = np.argwhere(shots.imag)[0]
            raise InputError(
                f"{path}: k is complex, first at shot {shot}, sample {sample}, axis {axis}; that of a trajectory is "
                "real. Is it k-space data?"
            )
        with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
            k = shots.real.astype(np.float64)
        return Samples(k if k[..., 2].any() else k[..., :2], "1/fov")
