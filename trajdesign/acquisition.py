"""Acquisition: what is to be encoded, and when the receiver samples."""

import math
from dataclasses import dataclass, replace

from trajdesign.errors import ConfigError
from trajdesign.units import RASTER_ROUNDING, plausible

# More than any scanner has; what fits into memory is asked where it is needed.
_MOST_PIXELS, _MOST = 4096, 2**20
# Numbers of something, beside the matrix.
_COUNTS = ("n_shots", "n_samples", "n_frames")


@dataclass(frozen=True)
class Acquisition:
    """Field of view, matrix, shots and receiver timing, all in SI.

    Axes are ordered (x, y[, z]); an image of this acquisition has the array shape (y, x) or (z, y, x), or (frame, y, x)
    where it is a film.

    Parameters
    ----------
    fov
        Field of view along each axis, m.
    matrix
        Pixels along each axis.
    n_shots
        Number of shots, of all frames.
    n_samples
        ADC samples a shot.
    dwell
        Time between ADC samples, s.
    n_frames
        Frames of a film of slices: the first ``n_shots / n_frames`` shots encode the first, and so on.

    Raises
    ------
    ConfigError
        If the numbers of axes differ, a count is not positive or more than any scan has, the shots cannot be shared
        evenly by the frames, or a number is implausible in its unit.
    """

    fov: tuple[float, ...] = (0.22, 0.22)
    matrix: tuple[int, ...] = (128, 128)
    n_shots: int = 8
    n_samples: int = 1000
    dwell: float = 4e-6
    n_frames: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "fov", tuple(float(x) for x in self.fov))
        for name, counts in (("matrix", self.matrix), *((name, (getattr(self, name),)) for name in _COUNTS)):
            if any(count % 1 != 0 for count in counts):
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts, in whole numbers.")
        object.__setattr__(self, "matrix", tuple(int(n) for n in self.matrix))
        if len(self.fov) != len(self.matrix) or len(self.fov) not in (2, 3):
            raise ConfigError(f"fov {self.fov} and matrix {self.matrix} must both have 2 or 3 axes.")
        for extent in self.fov:
            plausible("fov", extent)
        plausible("dwell", self.dwell)
        if min(self.matrix) < 4 or self.n_shots < 1 or self.n_samples < 4:
            raise ConfigError(
                f"matrix {self.matrix}, n_shots {self.n_shots}, n_samples {self.n_samples}: "
                "an axis needs at least 4 pixels, a scan one shot, a shot 4 samples."
            )
        if max(self.matrix) > _MOST_PIXELS or max(self.n_shots, self.n_samples) > _MOST:
            raise ConfigError(
                f"matrix {self.matrix}, n_shots {self.n_shots}, n_samples {self.n_samples}: "
                f"an axis has at most {_MOST_PIXELS} pixels, a scan {_MOST} shots, a shot {_MOST} samples."
            )
        if self.n_frames < 1 or self.n_shots % self.n_frames or (self.n_frames > 1 and len(self.matrix) != 2):
            raise ConfigError(
                f"n_frames {self.n_frames}, n_shots {self.n_shots}, matrix {self.matrix}: a film has frames of 2 axes, "
                "each with as many shots."
            )

    @property
    def n_dims(self) -> int:
        """Number of encoded axes."""
        return len(self.fov)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Array shape of an image: (y, x), (z, y, x) or (frame, y, x)."""
        frames = (self.n_frames,) if self.n_frames > 1 else ()
        return (*frames, *self.matrix[::-1])

    @property
    def shots_a_frame(self) -> int:
        """Shots of each frame; all, if there is one."""
        return self.n_shots // self.n_frames

    @property
    def frame(self) -> "Acquisition":
        """Of a film the acquisition of one frame, else this one."""
        return replace(self, n_shots=self.shots_a_frame, n_frames=1) if self.n_frames > 1 else self

    @property
    def n_planes(self) -> int:
        """Number of planes of k-space, if each has shots of its own: frames of a film, partitions of a stack."""
        return self.matrix[2] if self.n_dims == 3 else self.n_frames

    @property
    def plane(self) -> "Acquisition":
        """What one plane encodes; raises `ConfigError` if the planes cannot share the shots evenly."""
        if self.n_shots % self.n_planes:
            raise ConfigError(f"{self.n_shots} shots cannot be shared evenly by {self.n_planes} planes; set n_shots.")
        n_shots = self.n_shots // self.n_planes
        return replace(self, fov=self.fov[:2], matrix=self.matrix[:2], n_shots=n_shots, n_frames=1)

    @property
    def voxel(self) -> tuple[float, ...]:
        """Voxel size along each axis, m."""
        return tuple(extent / n for extent, n in zip(self.fov, self.matrix, strict=True))

    @property
    def k_max(self) -> tuple[float, ...]:
        """Edge of k-space along each axis, 1/m: half the matrix over the field of view."""
        return tuple(n / (2 * extent) for extent, n in zip(self.fov, self.matrix, strict=True))

    @property
    def readout(self) -> float:
        """Duration of the readout, s."""
        return self.n_samples * self.dwell

    def adc_delay(self, gradient_raster: float, rf_raster: float) -> float:
        """Time from the first gradient sample (a raster centre) to the first ADC sample, s.

        It is the shortest wait that puts the start of the ADC event, half a dwell time before its first
        sample, onto the RF raster, as Pulseq interpreters ask. Zero for the common 4 us dwell at 10 us.
        """
        start = (gradient_raster - self.dwell) / 2
        return (math.ceil(start / rf_raster - RASTER_ROUNDING) * rf_raster) - start
