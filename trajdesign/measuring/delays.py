"""How much later than told the gradients act: the delay of each axis with which the data agree best.

With a delay d of an axis, its k at the time t is what the sequence tells of t - d. Where coils or shots see the same
part of k-space, the right delay leaves the least of the data unexplained. Where nothing is seen twice, as in one
echo-planar image of one coil, any k explains the data, and the right one makes the sharpest image: the least sum of
magnitudes beside the root of their sum of squares, which k does not change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.measuring import noise, solving
from trajdesign.measuring.consistency import Residual
from trajdesign.measuring.geometry import centred
from trajdesign.reconstruction.brightness import brightness
from trajdesign.reconstruction.coils import root_sum_of_squares

#: Delays that are tried, s: of all axes together, and then of one after the other about the best.
COMMON, FINE = np.arange(-8, 9) * 1e-6, np.arange(-2, 3) * 0.5e-6
_ROUNDS = 2
# How far the residual, and as a part of itself the spread, change at least where they tell a delay.
_LEAST_RESIDUAL, _LEAST_SPREAD = 0.05, 0.02
# How far an axis changes either at least, as a part of itself, to have a delay of its own.
_LEAST_OF_AXIS = 2e-3
# Of the steps of a quick look, s; how much the squared residual must bend over them, as a part of what of it is more
# than noise; and by how much noise may let the delay be off, s.
_STEP, _BEND, _SURE = 2e-6, 0.1, 0.25e-6
#: A quick look is right to so much, s.
SUSPICIOUS = 1e-6


@dataclass(frozen=True)
class Delay:
    """The delay of each axis, s, and how it was found.

    Parameters
    ----------
    by
        ``consistency``, ``sharpness``, or ``nothing``: where both hardly change, as of parallel lines that all run in
        one direction, no delay is told, and none matters.
    tried, criterion
        The common delays that were tried first, s, and what is least at the best of them.
    """

    axes: tuple[float, ...]
    by: str
    tried: NDArray[np.floating]
    criterion: NDArray[np.floating]


def delayed(k: Tensor, dwell: float, delay: Sequence[float]) -> Tensor:
    """Return k (shot, sample, dim) with which gradients act that are late by a delay of each axis, s."""
    times = np.arange(k.shape[1]) * dwell
    parts = [CubicSpline(times, k[..., axis].numpy(), axis=1)(times - late) for axis, late in enumerate(delay)]
    return torch.from_numpy(np.stack(parts, axis=-1))


def found(
    kspace: Tensor, k: Tensor, acquisition: Acquisition, dwell: float, shift: Sequence[float] = (0.0, 0.0)
) -> Delay:
    """Return the delay with which k-space (coil, shot, sample) agrees best, of k (shot, sample, dim), 1/m, as told.

    `shift` is where the centre of the image lies, m; k-space does not have its phase yet.
    """
    axes = range(acquisition.n_dims)
    weights = solving.encoding_at(k, acquisition).weights
    looks = [_look(kspace, delayed(k, dwell, [late] * len(axes)), acquisition, weights, shift) for late in COMMON]
    unexplained, spread = (np.array(values) for values in zip(*looks, strict=True))
    which = 0 if np.ptp(unexplained) > _LEAST_RESIDUAL else 1
    criterion = (unexplained, spread)[which]
    if which == 1 and np.ptp(spread) < _LEAST_SPREAD * spread.min():
        return Delay((0.0,) * len(axes), "nothing", COMMON, criterion)
    best = [float(COMMON[criterion.argmin()])] * len(axes)
    for _ in range(_ROUNDS):
        for axis in axes:
            tried = best[axis] + FINE
            values = []
            for late in tried:
                of = [*best[:axis], late, *best[axis + 1 :]]
                values.append(_look(kspace, delayed(k, dwell, of), acquisition, weights, shift)[which])
            if np.ptp(values) > _LEAST_OF_AXIS * min(values):
                best[axis] = _lowest(tried, np.array(values))
    return Delay(tuple(best), ("consistency", "sharpness")[which], COMMON, criterion)


def suspected(
    kspace: Tensor, k: Tensor, acquisition: Acquisition, dwell: float, shift: Sequence[float] = (0.0, 0.0)
) -> float | None:
    """Return about the delay that all axes seem to have, s, from three looks; None where the data do not tell.

    They tell where the squared residual bends far more than what noise leaves of it, and than noise makes uncertain.
    As in `found`, k-space has the phase of a `shift` at k as told.
    """
    weights = solving.encoding_at(k, acquisition).weights
    kspace = centred(kspace, k, [-x for x in shift])
    before, now, after = (
        _look(kspace, delayed(k, dwell, [late] * acquisition.n_dims), acquisition, weights, shift)[0] ** 2
        for late in (-_STEP, 0.0, _STEP)
    )
    bend = before + after - 2 * now
    level = noise.estimated_variance(kspace) / float(kspace.abs().square().double().mean())
    if bend <= _BEND * max(0.0, now - level):
        return None
    # a parabola a d^2 through data with noise of the variance v in n complex samples is lowest to sqrt(v / (2 n a))
    off = _STEP * math.sqrt(level / (kspace.numel() * bend))
    return _STEP / 2 * (before - after) / bend if off < _SURE else None


def _look(
    kspace: Tensor, k: Tensor, acquisition: Acquisition, weights: Tensor, shift: Sequence[float]
) -> tuple[float, float]:
    """Return what CG-SENSE leaves unexplained at k, and how far the adjoint image about a shift spreads."""
    kspace = centred(kspace, k, shift)
    encoding = solving.encoding_at(k, acquisition)
    encoding.weights = weights
    solver = solving.Solver(encoding, None)
    images = solver.adjoint(kspace)
    scale = brightness(images)
    left = Residual()
    left.add(encoding, solver.solved(images / scale)["cg_sense"][1] * scale, kspace)
    magnitude = root_sum_of_squares(images / scale)
    return left.total, float(magnitude.sum() / torch.linalg.vector_norm(magnitude))


def _lowest(tried: NDArray[np.floating], values: NDArray[np.float64]) -> float:
    """Return where the parabola through the lowest value and its neighbours is lowest."""
    at = int(np.clip(values.argmin(), 1, len(values) - 2))
    before, now, after = values[at - 1 : at + 2]
    bend = before + after - 2 * now
    step = float(tried[1] - tried[0])
    moved = step / 2 * (before - after) / bend if bend > 0 else 0.0
    return float(tried[at] + np.clip(moved, -2 * step, 2 * step))
