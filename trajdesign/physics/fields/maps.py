"""Fields that were measured."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import fourier_resize, slice_shape
from trajdesign.errors import ConfigError, InputError
from trajdesign.files.arrays import read_npy
from trajdesign.interfaces import SHORTEST_T2_STAR, FieldModel

# Beyond any shim of a head, Hz: in rad/s, or of another field strength.
_LARGEST = 5000.0
# Beyond the T2* of any tissue or fluid, s.
_LONGEST = 5.0


class Maps(FieldModel):
    """Measured off-resonance: of each image one of the maps, at random.

    Parameters
    ----------
    files
        ``.npy`` files of off-resonance (y, x) or (map, y, x), Hz, positive where the field is higher; they cover the
        field of view, and are brought onto the matrix as images are.
    scale
        Factor of all maps: 3 / 7 makes maps of 3 T of those of 7 T, 0.15915 Hz of rad/s.
    t2_star
        T2* of all voxels, s, or ``.npy`` files of it, each of as many maps as that of `files` in its place, 0 where
        nothing decays; without it nothing does.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        *,
        files: list[str],
        scale: float = 1.0,
        t2_star: float | list[str] | None = None,
        start: float = 0.0,
    ) -> None:
        if not files:
            raise ConfigError("field.files is empty; maps need one file at least.")
        super().__init__(t2_star=None if isinstance(t2_star, list) else t2_star, start=start)
        self.maps = torch.cat([_off_resonance(file, scale, acquisition) for file in files])
        low, high = (float(end) for end in torch.aminmax(self.maps))
        self.frequencies = (low, high)
        self.decay = None
        if isinstance(t2_star, list):
            self.decay = _decay(t2_star, files, acquisition)
            slowest, fastest = (float(end) for end in torch.aminmax(self.decay))
            self.rates = (slowest, fastest)

    def draw(self, seed: int) -> tuple[Tensor, Tensor | float]:
        """See `FieldModel.draw`."""
        number = np.random.default_rng(seed).integers(len(self.maps))
        return self.maps[number], self.rate if self.decay is None else self.decay[number]


def _off_resonance(file: str, scale: float, acquisition: Acquisition) -> Tensor:
    """Return the maps (map, y, x) of a file, Hz."""
    values = _read(file) * scale
    largest = float(np.abs(values).max())
    if not largest <= _LARGEST:
        raise InputError(f"{file} reaches {largest:.4g} Hz; is it in rad/s, or of another field strength? See scale.")
    return torch.from_numpy(np.ascontiguousarray(fourier_resize(values, slice_shape(acquisition))))


def _decay(files: list[str], beside: list[str], acquisition: Acquisition) -> Tensor:
    """Return the rates of decay (map, y, x), 1/s, of files of T2*, which stand beside those of off-resonance."""
    if len(files) != len(beside):
        raise ConfigError(f"field.t2_star names {len(files)} files, field.files {len(beside)}; give one for each.")
    rates = []
    for file, other in zip(files, beside, strict=True):
        values = _read(file)
        if len(values) != (wanted := len(_read(other))):
            raise InputError(f"{file} holds {len(values)} maps of T2*, {other} {wanted} of off-resonance.")
        decays = values > 0
        if values.min() < 0 or not decays.any() or values[decays].min() < SHORTEST_T2_STAR:
            raise InputError(
                f"{file} reaches {values.min():.4g} s; T2* is {SHORTEST_T2_STAR:g} s at least, or 0: no decay."
            )
        if (middle := float(np.median(values[decays]))) > _LONGEST:
            raise InputError(f"{file} holds T2* of about {middle:.4g} s; is it in ms?")
        rate = np.divide(1.0, values, out=np.zeros_like(values), where=decays)
        # band-limited as images are; what overshoots at edges is no rate
        rates.append(fourier_resize(rate, slice_shape(acquisition)).clip(rate.min(), rate.max()))
    return torch.from_numpy(np.concatenate(rates))


def _read(file: str) -> NDArray[np.float64]:
    """Return the maps (map, y, x) of a file."""
    values = read_npy(file)
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(f"{file} holds {values.dtype} of shape {values.shape}; maps are finite real numbers (y, x).")
    return np.atleast_3d(values.astype(np.float64).T).T
