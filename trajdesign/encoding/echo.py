"""When shots pass the centre of k-space: what an image shows is the contrast of that time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trajdesign.trajectory import Trajectory, spline_weights

#: A shot passes the centre where it comes within half a sample of a Cartesian grid, 1/FOV.
PASSING = 0.5

#: What counts as at the centre itself, 1/FOV: the digits of a file add less.
EXACT = 1e-6

_FINE = 20  # places a raster at which a passage is looked for
_SAMPLE_STEPS = 8  # between samples
_ROUNDING = 1e-12  # of 1/FOV
_STEPS = 60  # of Gauss and Newton: each halves what is left even where k leaves the centre from rest


@dataclass(frozen=True)
class EchoTimes:
    """When and how near the shots come to the centre.

    Parameters
    ----------
    times
        When each shot is nearest (shot,), s after its first sample.
    distances
        How far from the centre it is then (shot,), 1/FOV.
    """

    times: NDArray[np.float64]
    distances: NDArray[np.float64]

    @classmethod
    @np.errstate(invalid="ignore")  # of shots that are not finite
    def of_samples(cls, k: NDArray[np.floating], dwell: float, fov: tuple[float, ...]) -> "EchoTimes":
        """Return those of samples k (shot, sample, dim), 1/m, `dwell` apart, three or more.

        Between samples k is taken as the parabola through the nearest one and its two neighbours, and its distance from
        0 at the vertex that Gauss and Newton find on it. Of samples that are equally near, as of a shot that rests, the
        first counts.
        """
        k = np.nan_to_num(k, nan=np.inf) * np.array(fov)
        shots, nearest = np.arange(len(k)), np.square(k).sum(axis=-1).argmin(axis=1)
        middle = nearest.clip(1, k.shape[1] - 2)
        before, at, after = (k[shots, middle + i] for i in (-1, 0, 1))
        slope, bend = (after - before) / 2, (before - 2 * at + after) / 2
        place = (nearest - middle).astype(float)  # from the middle one, in samples
        best, distance = place, np.linalg.norm(k[shots, nearest], axis=-1)
        for _ in range(_SAMPLE_STEPS):
            curve = at + slope * place[:, None] + bend * place[:, None] ** 2
            speed = slope + 2 * bend * place[:, None]
            steepness = np.square(speed).sum(axis=-1)
            step = np.divide((curve * speed).sum(axis=-1), steepness, out=np.zeros_like(place), where=steepness > 0)
            place = (place - step).clip(-1.0, 1.0)
            found = np.linalg.norm(at + slope * place[:, None] + bend * place[:, None] ** 2, axis=-1)
            is_nearer = found < distance
            best, distance = np.where(is_nearer, place, best), np.where(is_nearer, found, distance)
        return cls((middle + best) * dwell, distance)

    @classmethod
    def of(cls, trajectory: Trajectory) -> "EchoTimes":
        """Return those of a trajectory's ADC samples."""
        k = trajectory.k_adc.detach().double().cpu().numpy()
        return cls.of_samples(k, trajectory.acquisition.dwell, trajectory.acquisition.fov)

    @property
    def spread(self) -> float:
        """From the earliest to the latest shot, s."""
        return float(np.ptp(self.times))

    @property
    def facts(self) -> dict[str, float]:
        """The median time and the spread, s, and the largest distance, 1/FOV, by names with units."""
        return {
            "echo_time_s": float(np.median(self.times)),
            "echo_time_spread_s": self.spread,
            "echo_k_fov": float(self.distances.max()),
        }

    def __str__(self) -> str:
        return (
            f"{np.median(self.times) * 1e3:.4g} ms after the first sample, spread over the shots "
            f"{self.spread * 1e3:.4g} ms, at most {self.distances.max():.3g}/FOV from the centre"
        )


@dataclass(frozen=True)
class Passage:
    """A time at which all shots are near the centre: s after the first gradient sample, and the farthest, 1/FOV."""

    time: float
    distance: float


def k_at(trajectory: Trajectory, times: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return k (shot, time, dim), 1/m, at times after the first gradient sample, s."""
    index, weights = spline_weights(times, trajectory.acquisition, trajectory.scanner)
    points = trajectory.points.detach().double().cpu()
    k: NDArray[np.float64] = sum(points[:, index + i] * weights[i, :, None] for i in range(3)).numpy()  # type: ignore[union-attr]
    return k


def passages(trajectory: Trajectory) -> list[Passage]:
    """Return the times at which all shots together pass the centre, the nearest of them first.

    One is a stretch of the sampled readout in which every shot is within `PASSING` of the centre; if there is none, the
    one time is returned at which the farthest shot is nearest.
    """
    raster, last = trajectory.scanner.gradient_raster, float(trajectory.adc_times[-1])
    times = np.append(np.arange(0.0, last, raster / _FINE), last)
    farthest = _farthest(trajectory, times)
    is_near = farthest <= PASSING
    if not is_near.any():
        best = int(farthest.argmin())
        return [Passage(float(times[best]), float(farthest[best]))]
    edges = np.flatnonzero(np.diff(is_near, prepend=False, append=False))
    found = []
    for start, end in edges.reshape(-1, 2).tolist():
        inside = np.pad(farthest[start:end], 1, constant_values=np.inf)
        lowest = np.flatnonzero((inside[1:-1] <= inside[:-2]) & (inside[1:-1] < inside[2:]))  # of each dip the last
        refined = [_refined(trajectory, float(times[start + i]), last) for i in lowest.tolist()]
        found.append(min(refined, key=lambda passage: passage.distance))
    return sorted(found, key=lambda passage: passage.distance)


def _farthest(trajectory: Trajectory, times: NDArray[np.floating]) -> NDArray[np.float64]:
    distance = np.linalg.norm(k_at(trajectory, times) * np.array(trajectory.acquisition.fov), axis=-1)
    largest: NDArray[np.float64] = np.nan_to_num(distance, nan=np.inf).max(axis=0)
    return largest


def _refined(trajectory: Trajectory, time: float, last: float) -> Passage:
    """Return the nearest passage to a time: the least squares of all shots' k, by Gauss and Newton."""
    gamma, raster = trajectory.scanner.gamma, trajectory.scanner.gradient_raster
    gradient = trajectory.gradient.detach().double().cpu().numpy()
    best = Passage(time, float(_farthest(trajectory, np.array([time]))[0]))
    for _ in range(_STEPS):
        cell = min(int(time / raster), gradient.shape[1] - 2)
        part = time / raster - cell
        speed = gamma * ((1 - part) * gradient[:, cell] + part * gradient[:, cell + 1])
        steepness = float(np.square(speed).sum())
        if steepness == 0.0 or best.distance < _ROUNDING:
            break
        time -= float((k_at(trajectory, np.array([time]))[:, 0] * speed).sum()) / steepness
        time = min(max(time, 0.0), last)
        distance = float(_farthest(trajectory, np.array([time]))[0])
        if distance < best.distance:
            best = Passage(time, distance)
    return best
