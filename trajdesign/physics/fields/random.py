"""Fields as they may be: smooth, with a hot spot as over the sinuses, and another for each image."""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import slice_shape
from trajdesign.errors import ConfigError
from trajdesign.interfaces import FieldModel
from trajdesign.physics.field import in_hz
from trajdesign.units import GAMMA

# Half-waves over the field of view of the smooth part, and width of a hot spot, as a part of the field of view.
_MOST_WAVES, _WIDTHS = 2, (0.06, 0.16)


class Random(FieldModel):
    """Smooth off-resonance, as a shim leaves it, and a hot spot near air; of each image another.

    The smooth part is a sum of cosines of up to two half-waves in each direction without a mean, the hot spot a
    Gaussian anywhere in the inner two thirds of the field of view. Both have a random part of their amplitude.

    Parameters
    ----------
    amplitude
        The largest off-resonance of the smooth part, Hz, or ppm if `tesla` is given.
    hot_spot
        The same of the hot spot, of either sign.
    tesla
        Field strength, T, that makes Hz of ppm; hydrogen.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        *,
        amplitude: float = 60.0,
        hot_spot: float = 60.0,
        tesla: float | None = None,
        t2_star: float | None = None,
        start: float = 0.0,
    ) -> None:
        if amplitude < 0 or hot_spot < 0:
            raise ConfigError(f"field.amplitude is {amplitude:g}, hot_spot {hot_spot:g}; neither is negative.")
        super().__init__(t2_star=t2_star, start=start)
        self.shape = slice_shape(acquisition)
        self.amplitude, self.hot_spot = (in_hz(value, tesla, GAMMA["1H"]) for value in (amplitude, hot_spot))
        most = self.amplitude + self.hot_spot
        self.frequencies = (-most, most)

    def draw(self, seed: int) -> tuple[Tensor, Tensor | float]:
        """See `FieldModel.draw`."""
        random = np.random.default_rng(seed)
        axes = [(np.arange(n) - n // 2) / n for n in self.shape]
        y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        smooth = np.zeros(self.shape)
        for i, j in itertools.product(range(_MOST_WAVES + 1), repeat=2):
            if 0 < i + j <= _MOST_WAVES:
                wave = np.cos(math.pi * i * (y + 0.5)) * np.cos(math.pi * j * (x + 0.5))
                smooth += random.standard_normal() * wave
        smooth -= smooth.mean()
        smooth *= self.amplitude * random.uniform() / max(np.abs(smooth).max(), 1e-300)
        radius, angle, width = math.sqrt(random.uniform()) / 3, random.uniform(0, 2 * math.pi), random.uniform(*_WIDTHS)
        away = (y - radius * math.sin(angle)) ** 2 + (x - radius * math.cos(angle)) ** 2
        spot = self.hot_spot * random.uniform(-1, 1) * np.exp(-away / (2 * width**2))
        return torch.from_numpy(smooth + spot), self.rate
