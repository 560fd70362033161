"""The static field of each object that is sampled in training: what of it an encoding takes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.static_field import Segments, segments
from trajdesign.errors import ConfigError
from trajdesign.interfaces import FieldModel

# Fields that are drawn to see how often which frequency occurs, and the bins.
_N_DRAWN, _N_BINS = 32, 201
# What terms leave where their number is not given, as a part of a voxel's signal.
_TOLERANCE = 1e-3
#: The largest field strength, T.
STRONGEST = 25.0


class StaticField:
    """The fields of a config table ``[field]``: for each seed one, in terms that an `Encoding` takes.

    Parameters
    ----------
    table
        ``{"kind": ...}`` and options.
    acquisition
        Whose pixels and samples they are for.
    n_terms
        Terms in time; 0 takes as many as leave no more than 0.1 percent of a voxel's signal.

    Attributes
    ----------
    segments
        `trajdesign.encoding.static_field.Segments` for all of them.

    Raises
    ------
    ConfigError
        If the acquisition is 3D, or an option does not fit.
    """

    def __init__(self, table: plugins.Table, acquisition: Acquisition, n_terms: int = 0) -> None:
        if acquisition.n_dims != 2:
            raise ConfigError(
                f"the table [field] is of slices and films; the matrix {acquisition.matrix} has three axes."
            )
        self.model: FieldModel = plugins.build("field", table, acquisition)
        self.is_film = acquisition.n_frames > 1
        times = self.model.start + torch.arange(acquisition.n_samples, dtype=torch.float64) * acquisition.dwell
        drawn = torch.stack([self.model.draw(seed)[0] for seed in range(_N_DRAWN)])
        low, high = self.model.frequencies
        often = torch.histc(drawn, _N_BINS, low, high) if high > low else None
        size: dict[str, int | float] = {"n_terms": n_terms} if n_terms else {"tolerance": _TOLERANCE}
        self.segments: Segments = segments(times, (low, high), self.model.rates, histogram=often, **size)  # type: ignore[arg-type]

    def maps(self, seeds: Sequence[int] | Tensor) -> Tensor:
        """Return the maps (batch, term, y, x), of films (batch, term, 1, y, x), of the fields of these seeds.

        See `Segments.maps`; all frames of a film are in one field.
        """
        fields = [self.model.draw(seed) for seed in map(int, seeds)]
        rates = torch.stack([torch.as_tensor(rate, dtype=torch.float64).expand(f.shape) for f, rate in fields])
        maps = self.segments.maps(torch.stack([f for f, _ in fields]), rates)
        return maps[:, :, None] if self.is_film else maps


def in_hz(value: float, tesla: float | None, gamma: float) -> float:
    """Return an off-resonance in Hz, of Hz, or of ppm at a field strength, T; gamma in Hz/T."""
    if tesla is None:
        return value
    if not 0 < tesla <= STRONGEST:
        raise ConfigError(f"field.tesla is {tesla:g}; magnets have up to {STRONGEST:g} T.")
    return value * 1e-6 * gamma * tesla
