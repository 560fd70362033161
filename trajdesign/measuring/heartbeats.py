"""When the heart beats during a scan: the times of R waves, and the cardiac phase of any other time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import ConfigError, InputError
from trajdesign.files.untrusted import read_text
from trajdesign.pulseq.reader.sequence import SeqFile

#: What the time stamps of raw data count, s. ISMRMRD leaves the unit to the vendor; Siemens counts ticks of 2.5 ms.
TICK = 2.5e-3
# The last R wave, as two time stamps tell it, is another one if it is so much later, ticks: rounding is less.
_ANOTHER = 4


@dataclass(frozen=True, eq=False)
class Heartbeats:
    """The beats of a heart.

    Parameters
    ----------
    times
        Of the R waves (beat + 1,), s, from the start of the Pulseq file.
    source
        What tells them, for sentences.

    Raises
    ------
    InputError
        If they are fewer than two, not finite, or do not increase.
    """

    times: NDArray[np.float64]
    source: str

    def __post_init__(self) -> None:
        if len(self.times) < 2:
            raise InputError(f"{self.source}: {len(self.times)} R wave(s); a heartbeat lies between two.")
        if not (np.isfinite(self.times).all() and (np.diff(self.times) > 0).all()):
            raise InputError(f"{self.source}: the times of R waves, s, are finite, each later than the one before.")

    @classmethod
    def read(cls, path: Path | str) -> "Heartbeats":
        """Return those of a text file: the time of each R wave, s, one a line."""
        try:
            times = [float(line) for line in read_text(path).splitlines() if line.strip()]
        except ValueError:
            raise InputError(f"{path} is no file of R waves: the time of each, s, one number a line.") from None
        return cls(np.array(times), str(path))

    @classmethod
    def of_stamps(cls, stamps: NDArray[np.int64], times: NDArray[np.float64], source: str) -> "Heartbeats":
        """Return those that time stamps tell, whole ticks since the last R wave, of events at times, s (event,).

        A beat begins where the stamp falls back.
        """
        before = times - (stamps + 0.5) * TICK
        first = np.flatnonzero(np.diff(before) > _ANOTHER * TICK) + 1
        return cls(np.array([np.median(one) for one in np.split(before, first)]), source)

    @property
    def lengths(self) -> NDArray[np.float64]:
        """From R wave to R wave (beat,), s."""
        return np.diff(self.times)

    def phases(self, times: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the cardiac phase at times, s: from 0 to 1 within a beat.

        Before the first R wave it is negative, after the last one 1 or more: there it counts on, in beats as long as
        the nearest one.
        """
        beat = self._nearest(times)
        found: NDArray[np.float64] = (times - self.times[beat]) / self.lengths[beat]
        return found

    def frames(self, times: NDArray[np.floating], n_frames: int) -> NDArray[np.int64]:
        """Return the frame of a film that is in progress at times, s, also outside the beats."""
        return np.minimum(np.floor(self.phases(times) % 1 * n_frames), n_frames - 1).astype(np.int64)

    def stamps(self, times: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the whole ticks since the last R wave at times, s, also outside the beats."""
        since = self.phases(times) % 1 * self.lengths[self._nearest(times)]
        return np.floor(since / TICK).astype(np.int64)

    def _nearest(self, times: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the number of the beat at times, or of the nearest one."""
        return np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 2)


def require_free(file: SeqFile, n_frames: int, path: Path) -> None:
    """Refuse a Pulseq file whose heartbeats mean nothing.

    Raises
    ------
    ConfigError
        If it is of no film, or waits for triggers: how long it has waited, no file tells.
    """
    if n_frames == 1:
        raise ConfigError(f"beats: {path} plays no film; heartbeats sort the shots of a film alone.")
    if file.waits:
        raise ConfigError(
            f"beats: {path} waits for triggers, so its frames are those of the heart already, and its times unknown; "
            "export it without sequence.rr."
        )
