"""Bridges: the shortest smooth gradients that take a shot from k = 0 to its readout, and back.

A trajectory is a quadratic B-spline on the gradient raster, and the readout is played verbatim. In the same
model the whole shot is one longer spline whose control points start and end at 0. A prephaser of n cells
therefore has to meet one linear condition, that its samples sum to ``k[0] / (gamma * raster)``, and the half
cells at its ends and at the junction with the readout are exact by construction. A rewinder is a prephaser
in reversed time. Since the readout is fixed, the whole shot is one convex problem that falls into these two.

Each bridge is a second-order cone programme (minimal second difference under the norms of gradient and slew
rate), solved with Clarabel, doi:10.48550/arXiv.2405.12762. The slice-axis gradient is one shape shared by
all shots; it is chosen first and takes its part of every cone, so the limits hold for the vector of all
three axes. The third axis of a 3D trajectory is one of the bridge's own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import clarabel
import numpy as np
from scipy import sparse

from trajdesign.errors import ConfigError, LimitError
from trajdesign.physics import limits
from trajdesign.scanner import LimitNorm, Scanner
from trajdesign.trajectory import Trajectory, not_finite
from trajdesign.units import BRIDGE_MARGIN, RASTER_ROUNDING

#: What a solution may be beyond the limits of a bridge: a tenth of what a bridge leaves.
_TOLERANCE = 1 + 0.1 * BRIDGE_MARGIN

#: Largest difference between shots that are turned copies, in parts of the largest gradient or sum of gradients.
_TURNED = 1e-9

#: Zero samples at the outer end of a bridge. Pulseq 1.4.1 stores no edge values, and readers extrapolate them
#: from the two outermost samples.
N_ZEROS = 2

#: Longest bridge that is tried, cells.
_LONGEST = 16384


@dataclass(frozen=True)
class ShotWaveforms:
    """The gradients of whole shots: prephaser, readout, rewinder, on raster centres."""

    gradient: np.ndarray
    """Samples at the raster centres (shot, cell, 3), T/m. They start and end with `N_ZEROS` zeros."""
    n_prephaser: int
    n_readout: int
    n_rewinder: int
    """Cells of each part; the readout is `Trajectory.gradient`, verbatim."""
    adc_start: float
    """Start of the ADC event after the start of the waveform, s; half a dwell time before its first sample."""
    raster: float
    """Duration of a cell, s."""

    @property
    def duration(self) -> float:
        """Duration of a shot's waveform, s."""
        return self.gradient.shape[1] * self.raster


@dataclass(frozen=True)
class BridgeLimits:
    """What a bridge may use of the scanner."""

    gradient: float
    """T/m."""
    step: float
    """Largest change from one sample to the next, T/m."""
    norm: LimitNorm


def design(
    trajectory: Trajectory,
    *,
    gz_prephaser: float = 0.0,
    gz_rewinder: float = 0.0,
    bridge_slew: float = 0.7,
) -> ShotWaveforms:
    """Add the shortest common prephaser and rewinder to every shot of a trajectory.

    Its moments are 0 at the start and at the end of each shot, but for those that are asked for beside.

    It raises a `ConfigError` if `bridge_slew` is not in (0, 1], and a `LimitError` if the readout breaks a limit, or no
    bridge can join it to zero.

    Parameters
    ----------
    trajectory
        Its gradient is the readout.
    gz_prephaser, gz_rewinder
        Moments along z beside the prephaser (a slice rephaser) and the rewinder (a spoiler), 1/m.
    bridge_slew
        Part of the scanner's slew rate that the bridges may use; less of it means less nerve stimulation.
    """
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    if not 0 < bridge_slew <= 1:
        raise ConfigError(f"bridge_slew is {bridge_slew:g}; it is a part, above 0 and at most 1.")
    raster = scanner.gradient_raster
    moment = scanner.gamma * raster  # of a sample of 1 T/m, in 1/m
    readout = trajectory.gradient.detach().cpu().double().numpy()
    k = trajectory.points.detach().cpu().double().numpy()
    if wrong := not_finite(k):
        raise LimitError(f"{trajectory.name} {wrong}.")
    step = bridge_slew * scanner.max_slew * raster
    allowed = BridgeLimits((1 - BRIDGE_MARGIN) * scanner.max_gradient, (1 - BRIDGE_MARGIN) * step, scanner.limit_norm)
    # the ADC event's start after the end of the prephaser, and its end after the end of the readout
    lead = raster / 2 + acquisition.adc_delay(raster, scanner.rf_raster) - acquisition.dwell / 2
    tail = lead + acquisition.n_samples * acquisition.dwell - readout.shape[1] * raster
    prephaser = bridge(
        readout[:, 1::-1],
        *_totals(k[:, 0] / moment, gz_prephaser / moment),
        allowed,
        at_least=_cells(scanner.adc_dead_time - lead, raster),
    )[:, ::-1]
    n_prephaser = prephaser.shape[1]
    stride = _block_cells(scanner)
    at_least = max(_cells(scanner.adc_dead_time + tail, raster), 2 * N_ZEROS)
    at_least += -(n_prephaser + readout.shape[1] + at_least) % stride
    totals = _totals(-k[:, -1] / moment, gz_rewinder / moment)
    rewinder = bridge(readout[:, -2:], *totals, allowed, at_least=at_least, stride=stride)
    middle = np.pad(readout, ((0, 0), (0, 0), (0, 3 - acquisition.n_dims)))
    whole = np.concatenate([prephaser, middle, rewinder], axis=1)
    limits.require_whole(whole, scanner)
    lengths = (n_prephaser, readout.shape[1], rewinder.shape[1])
    return ShotWaveforms(whole, *lengths, adc_start=n_prephaser * raster + lead, raster=raster)


def bridge(
    edge: np.ndarray,
    total: np.ndarray,
    gz_total: float,
    allowed: BridgeLimits,
    *,
    at_least: int = 0,
    stride: int = 1,
) -> np.ndarray:
    """Return the shortest bridges (shot, cell, 3), T/m, of one common length, from given gradients down to zero.

    In the vector norm shots that are copies of each other, turned about z, have bridges that are.

    It raises a `LimitError` if no bridge of `_LONGEST` cells is feasible.

    Parameters
    ----------
    edge
        The two samples before the bridge (shot, 2, dim), T/m.
    total, gz_total
        What the samples of each bridge sum to (shot, dim), T/m, and those of a slice axis beside two others.
    allowed
        Largest gradient and change between samples, the slice axis included.
    at_least, stride
        Smallest number of cells, the last `N_ZEROS` of which are 0; that plus a multiple of `stride` is tried.
    """
    first = max(at_least, *(_fewest(e, t, gz_total, allowed) for e, t in zip(edge, total, strict=True)))
    first += (at_least - first) % stride

    def solve(shot: int, index: int) -> np.ndarray | None:
        n = first + index * stride
        if n > _LONGEST:
            raise LimitError(_no_bridge(shot, edge[shot], allowed))
        return _solve(n, edge[shot], total[shot], gz_total, allowed)

    def fits(shot: int, index: int) -> bool:
        return solve(shot, index) is not None

    # the shot with the most to do sets the length in most sets, so the others need one solution each
    order = np.argsort(-np.linalg.norm(total, axis=1)).tolist()
    straight, angles = _straightened(np.concatenate([edge, total[:, None]], axis=1))
    same = _TURNED * np.abs(straight).max()
    index = 0
    bridges: dict[int, np.ndarray] = {}
    while missing := [shot for shot in order if shot not in bridges]:
        shot, known = missing[0], list(bridges)
        twins = np.flatnonzero(np.abs(straight[known] - straight[shot]).max(axis=(1, 2)) <= same)
        if len(twins) and allowed.norm == "vector":
            twin = known[twins[0]]
            bridges[shot] = _turned(bridges[twin], angles[shot] - angles[twin])
            continue
        found = solve(shot, index)
        if found is None:
            index = _shortest(partial(fits, shot), index, max(1, 4 // stride))
            bridges = {}  # those are too short
        else:
            bridges[shot] = found
    return np.stack([bridges[shot] for shot in range(len(edge))])


def _straightened(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (shot, vector, dim), those of a shot so turned about z that its longest in the plane is along x.

    With them come the angles by which they were turned back (shot,), rad.
    """
    plane = vectors[..., 0] + 1j * vectors[..., 1]
    longest = np.abs(plane).argmax(axis=1)
    angles = np.angle(plane[np.arange(len(plane)), longest])
    return np.stack([_turned(of_shot, -angle) for of_shot, angle in zip(vectors, angles, strict=True)]), angles


def _turned(vectors: np.ndarray, angle: float) -> np.ndarray:
    """Return vectors (vector, dim) turned about z."""
    plane = (vectors[:, 0] + 1j * vectors[:, 1]) * np.exp(1j * angle)
    return np.column_stack([plane.real, plane.imag, vectors[:, 2:]])


def _fewest(edge: np.ndarray, total: np.ndarray, gz_total: float, allowed: BridgeLimits) -> int:
    """Return a number of cells below which there is no bridge, as seen along some directions of k-space."""
    n_dims = edge.shape[1]
    directions = np.eye(n_dims)
    if allowed.norm == "vector":
        angles = np.pi * np.arange(16) / 16
        plane = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)[:, :n_dims]
        directions = np.vstack([directions, plane, total / max(float(np.linalg.norm(total)), 1e-300)])
    starts, sums = (directions @ edge[-1])[:, None], directions @ total

    def possible(free: int) -> bool:
        if free >= _LONGEST:
            return True
        room = _room(_slice_shape(free + N_ZEROS, gz_total), allowed)
        if room is None:
            return False
        steps, sizes = np.split(_TOLERANCE * allowed.step * room, [free + 1])
        rise, fall = np.cumsum(steps)[:-1], np.minimum(sizes, np.cumsum(steps[::-1])[-2::-1])
        up, down = np.minimum(starts + rise, fall), np.maximum(starts - rise, -fall)
        reached = (down.sum(1) <= sums) & (sums <= up.sum(1))
        return bool((reached & (np.abs(starts[:, 0]) <= steps.sum())).all())

    return N_ZEROS + (N_ZEROS if possible(N_ZEROS) else _shortest(possible, N_ZEROS, 16))


def _totals(moments: np.ndarray, gz: float) -> tuple[np.ndarray, float]:
    """Return what the bridges sum to (shot, dim), and the slice axis beside them, which is their own in 3D."""
    return (moments, gz) if moments.shape[1] == 2 else (moments + np.array([0.0, 0.0, gz]), 0.0)


def _shortest(feasible: Callable[[int], bool], low: int, jump: int) -> int:
    """Return the smallest number that is feasible, above one that is not; what is larger than it is feasible too."""
    high = low + jump
    while not feasible(high):
        low, jump = high, 2 * jump
        high += jump
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if feasible(middle) else (middle, high)
    return high


def _no_bridge(shot: int, edge: np.ndarray, allowed: BridgeLimits) -> str:
    return (
        f"no bridge joins shot {shot} to zero within {_LONGEST} cells: the readout has "
        f"{np.linalg.norm(edge[-1]):.4g} T/m where it meets the bridge, which may use "
        f"{allowed.gradient:.4g} T/m and {allowed.step:.4g} T/m a cell; "
        "lower the trajectory's gradient there or raise bridge_slew."
    )


def _cells(duration: float, raster: float) -> int:
    return max(0, math.ceil(duration / raster - RASTER_ROUNDING))


def _block_cells(scanner: Scanner) -> int:
    """Cells after which a gradient and a block raster meet."""
    gradient, block = (round(t * 1e9) for t in (scanner.gradient_raster, scanner.block_raster))
    return math.lcm(gradient, block) // gradient


@lru_cache(maxsize=64)
def _matrices(n: int, n_dims: int, norm: LimitNorm) -> tuple[Any, ...]:
    """Return the sparse matrices of the programme for `n` cells, all but the last `N_ZEROS` of them free.

    The first two are the cost of the second differences of [edge (2), free, zeros]: of the free samples, and of these
    by the edge. The third has the sum of the free samples, as large as a sample, and the rows of the cones, the steps
    before the samples; the last has the rows of the cones for the edge.
    """
    free = n - N_ZEROS
    first = _differences(n + 2)
    second = _differences(n + 1) @ first
    # the first interval lies in the readout, the last ones between zeros
    steps = first[1 : free + 2]
    bounded = sparse.vstack([steps[:, 2 : free + 2], sparse.eye_array(free)], format="csr")
    bounded_edge = sparse.vstack([steps[:, :2], sparse.csr_array((free, 2))], format="csr")
    axes = np.eye(n_dims)
    # one cone (limit, axes...), its first row constant; or both signs of every axis against the limit
    spread = np.vstack([np.zeros(n_dims), axes]) if norm == "vector" else np.vstack([axes, -axes])
    rough, rough_edge = sparse.kron(second[:, 2 : free + 2], axes), sparse.kron(second[:, :2], axes)
    sums = sparse.kron(sparse.csr_array(np.full((1, free), 1 / free)), axes)
    return (
        sparse.csc_matrix(sparse.triu(rough.T @ rough)),
        sparse.csr_matrix(rough.T @ rough_edge),
        sparse.csc_matrix(sparse.vstack([sums, sparse.kron(bounded, spread)])),
        sparse.csr_matrix(sparse.kron(bounded_edge, spread)),
    )


def _differences(n: int) -> Any:
    """Return the matrix of the n - 1 differences of n samples."""
    return (sparse.eye_array(n - 1, n, k=1) - sparse.eye_array(n - 1, n)).tocsr()


def _slice_shape(n: int, total: float) -> np.ndarray:
    """Raised-cosine samples (cell,) that sum to `total`, with zero value and slope at both ends."""
    free = n - N_ZEROS
    shape = np.sin(np.pi * np.arange(1, free + 1) / (free + 1)) ** 2
    return np.concatenate([total * shape / shape.sum(), np.zeros(N_ZEROS)])


def _solve(n: int, edge: np.ndarray, total: np.ndarray, gz_total: float, allowed: BridgeLimits) -> np.ndarray | None:
    """Return the smoothest bridge of `n` cells (cell, 3), or None if there is none."""
    n_dims, free = edge.shape[1], n - N_ZEROS
    gz = _slice_shape(n, gz_total)
    room = _room(gz, allowed)
    if room is None:
        return None
    # everything in units of the largest step, so that the numbers are near one
    quadratic, linear, matrix, cone_edge = _matrices(n, n_dims, allowed.norm)
    edge_units = edge.ravel() / allowed.step
    if allowed.norm == "vector":
        right = np.kron(room, np.eye(1, n_dims + 1)[0])
        cones = [clarabel.SecondOrderConeT(n_dims + 1)] * len(room)
    else:
        right = np.repeat(room, 2 * n_dims)
        cones = [clarabel.NonnegativeConeT(len(right))]
    offsets = np.concatenate([total / free / allowed.step, right - cone_edge @ edge_units])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        quadratic,
        linear @ edge_units,
        matrix,
        offsets,
        [clarabel.ZeroConeT(n_dims), *cones],
        settings,
    )
    solution = solver.solve()
    # long bridges may stop short of the smoothest one; whether one keeps the limits is seen below, whatever the status
    plane = np.reshape(solution.x, (free, n_dims)) * allowed.step
    plane += (total - plane.sum(axis=0)) / free  # the solver's last digits
    samples = np.concatenate([plane, np.zeros((N_ZEROS, n_dims))])
    return np.column_stack([samples, gz])[:, :3] if _kept(samples, edge, gz, allowed) else None


def _room(gz: np.ndarray, allowed: BridgeLimits) -> np.ndarray | None:
    """Return what the slice axis leaves of each limit, in steps, interval by interval, then cell by cell."""
    free = len(gz) - N_ZEROS
    used = np.concatenate([np.diff(gz, prepend=0.0)[: free + 1], gz[:free]]) / allowed.step
    limit = np.concatenate([np.ones(free + 1), np.full(free, allowed.gradient / allowed.step)])
    if np.any(np.abs(used) > limit):
        return None
    return np.sqrt(limit**2 - used**2) if allowed.norm == "vector" else limit


def _kept(samples: np.ndarray, edge: np.ndarray, gz: np.ndarray, allowed: BridgeLimits) -> bool:
    """Whether a solution keeps the limits to the tolerance; a solver's status alone is no proof."""
    joined = np.column_stack([np.vstack([edge[-1:], samples]), np.concatenate([[0.0], gz])])
    parts = ((joined[1:], allowed.gradient), (np.diff(joined, axis=0), allowed.step))
    if allowed.norm == "vector":
        return all(np.linalg.norm(v, axis=1).max() <= limit * _TOLERANCE for v, limit in parts)
    return all(np.abs(v).max() <= limit * _TOLERANCE for v, limit in parts)
