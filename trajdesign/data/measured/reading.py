"""Raw data of any kind from a file."""

from pathlib import Path

import numpy as np

from trajdesign.data.hdf5 import reader
from trajdesign.data.measured import mrd, shapes, twix
from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import InputError
from trajdesign.files import untrusted

_READERS = {
    ".dat": twix.read,
    **dict.fromkeys(reader.ENDINGS, mrd.read),
    ".npy": shapes.read_numpy,
    ".npz": shapes.read_numpy,
    ".cfl": shapes.read_bart,
}


def read(path: Path | str) -> Measurement:
    """Read what a scanner measured.

    Parameters
    ----------
    path
        Siemens ``.dat``, ISMRMRD ``.h5`` or ``.mrd``, ``.npy`` or ``.npz`` (coil, shot, sample), or BART ``.cfl``.

    Raises
    ------
    InputError
        If the file is of another kind, cut off or damaged, or holds a sample that is not finite.
    ResourceError
        If a package of an extra is missing, or another process to look at HDF5 files in.
    """
    path = Path(path)
    found = _READERS.get(untrusted.ending(path))
    if found is None:
        raise InputError(
            f"{path} is no raw data by its name; known are {', '.join(_READERS)}. Convert those of GE and Philips to "
            "ISMRMRD (ge_to_ismrmrd, philips_to_ismrmrd)."
        )
    measurement = found(path)
    for number, event in enumerate(measurement.events):
        if not np.isfinite(event).all():
            coil, sample = np.argwhere(~np.isfinite(event))[0]
            raise InputError(f"{path}: sample {sample} of coil {coil} in event {number} is not finite; it is damaged.")
    return measurement
