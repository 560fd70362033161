"""Fields that were measured."""

import numpy as np
import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import fourier_resize, slice_shape
from trajdesign.errors import ConfigError, InputError
from trajdesign.files.arrays import read_npy
from trajdesign.interfaces import FieldModel

# Beyond any shim of a head, Hz: in rad/s, or of another field strength.
_LARGEST = 5000.0


class Maps(FieldModel):
    """Measured off-resonance: of each image one of the maps, at random.

    Parameters
    ----------
    files
        ``.npy`` files of off-resonance (y, x) or (map, y, x), Hz, positive where the field is higher; they cover the
        field of view, and are brought onto the matrix as images are.
    scale
        Factor of all maps: 3 / 7 makes maps of 3 T of those of 7 T, 0.15915 Hz of rad/s.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        *,
        files: list[str],
        scale: float = 1.0,
        t2_star: float | None = None,
        start: float = 0.0,
    ) -> None:
        if not files:
            raise ConfigError("field.files is empty; maps need one file at least.")
        super().__init__(t2_star=t2_star, start=start)
        self.maps = torch.cat([_read(file, scale, acquisition) for file in files])
        low, high = (float(end) for end in torch.aminmax(self.maps))
        self.frequencies = (low, high)

    def draw(self, seed: int) -> tuple[Tensor, Tensor | float]:
        """See `FieldModel.draw`."""
        return self.maps[np.random.default_rng(seed).integers(len(self.maps))], self.rate


def _read(file: str, scale: float, acquisition: Acquisition) -> Tensor:
    """Return the maps (map, y, x) of a file, Hz."""
    values = read_npy(file)
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(f"{file} holds {values.dtype} of shape {values.shape}; maps are finite real numbers (y, x).")
    values = np.atleast_3d(values.astype(np.float64).T).T * scale
    largest = float(np.abs(values).max())
    if not largest <= _LARGEST:
        raise InputError(f"{file} reaches {largest:.4g} Hz; is it in rad/s, or of another field strength? See scale.")
    return torch.from_numpy(np.ascontiguousarray(fourier_resize(values, slice_shape(acquisition))))
