"""Acoustic resonances of the gradient coil."""

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Constraint
from trajdesign.physics.resonances import Band, combined, read_bands, train_spectrum
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory
from trajdesign.units import plausible

# Points of the spectrum for each 1 / readout, the width of its features.
_OVERSAMPLING = 4


class Acoustics(Constraint):
    """Amplitude of the readouts' gradients inside the acoustic resonance bands of the coil.

    See `trajdesign.physics.resonances`. It is measured of each shot as if that were repeated for ever, which no train
    of the shots, in whatever order, exceeds. The readout alone is known here: what leads to it and away from it adds to
    its spectrum.

    Parameters
    ----------
    bands
        Pairs of centre and width, Hz, or the path of a site's ``.asc`` file.
    limit
        Largest amplitude inside the bands, T/m.
    repetition_time
        From shot to shot, s.
    """

    unit = "T/m"

    def __init__(
        self,
        acquisition: Acquisition,
        scanner: Scanner,
        *,
        bands: list[tuple[float, float]] | str,
        limit: float,
        repetition_time: float,
        weight: float | None = None,
    ) -> None:
        super().__init__(acquisition, scanner, weight=weight)
        chosen = read_bands(bands) if isinstance(bands, str) else [Band(*pair) for pair in bands]
        if not chosen:
            raise ConfigError("acoustics: bands is empty; it needs pairs of centre and width in Hz.")
        step = 1 / (_OVERSAMPLING * acquisition.readout)
        self.frequencies = torch.cat([band.frequencies(step) for band in chosen])
        self.repetition_time = plausible("tr", repetition_time)
        self._limit = plausible("band_limit", limit)

    @property
    def limit(self) -> float:
        """The largest amplitude allowed."""
        return self._limit

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Largest amplitude inside the bands of each shot as a whole (shot, 1)."""
        alone = trajectory.gradient[:, None]
        raster = trajectory.scanner.gradient_raster
        lines = combined(train_spectrum(alone, raster, self.repetition_time, self.frequencies))
        return lines.amax(dim=-1, keepdim=True)
