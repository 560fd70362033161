"""How well images explain what was measured: ||A x - y|| / ||y||, which shows when k, a shot or a coil is wrong."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.reconstruction.measured import Unexplained
from trajdesign.trajectory import MAX_K_ERROR_FOV

# Parts in which a readout is shown over time.
_N_PARTS = 32


class Limit(NamedTuple):
    """So many times the residual that is promised, and so many times the power of the noise, a residual may have."""

    promised: float
    noise: float


#: Beyond the first a residual is too large; the level of noise is not known better than by such a part. Up to the
#: second it is as sound data leave it, and no delay is looked for in it.
TOO_LARGE, ORDINARY = Limit(3.5, 1.15), Limit(1.1, 1.0)
# A shot is another one's if so much of what it leaves unexplained is explained at the k of that one.
_EXCHANGED = 0.1
# A shot stands out if its residual is so many times that of most, beside noise.
_OF_MOST = 1.3
# Samples at the centre and at the edge of k-space, as parts of all; how much stronger the signal of a coil that sees an
# object is at the centre at least.
_CENTRE, _EDGE, _SEES = 0.05, 0.25, 2.0


@dataclass
class Residual:
    """Sums of |A x - y|^2 and |y|^2 over all slices and frames.

    Parameters
    ----------
    of_shots, over_time
        Of the misfit (shot,) and (part of the readout,).
    signal_of_shots, signal_over_time
        The same of the data.
    gained
        How much less the misfit of each shot is at the k of each other one (shot, shot).
    is_gated
        Whether heartbeats have sorted the shots: then one k in two frames is no exchange, as the object moved there.
    """

    of_shots: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    over_time: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    signal_of_shots: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    signal_over_time: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    gained: NDArray[np.float64] = field(default_factory=lambda: np.zeros((1, 1)))
    is_gated: bool = False

    def add(self, encoding: Encoding, coil_images: Tensor, kspace: Tensor, *, scaled: bool = False) -> None:
        """Add what coil images (1, coil, y, x) leave of k-space (coil, shot, sample).

        `scaled` images may first be multiplied by the best number: the adjoint is not as bright as its object.
        """
        explained = encoding.forward(coil_images)[0].to(torch.complex128)
        measured = kspace.to(torch.complex128)
        if scaled:
            power = float(explained.abs().square().sum())
            explained = explained * ((explained.conj() * measured).sum() / power if power else 0.0)
        misfit, power_of = (explained - measured).abs().square().sum(0), measured.abs().square().sum(0)
        self.of_shots = self.of_shots + misfit.sum(1).numpy()
        self.signal_of_shots = self.signal_of_shots + power_of.sum(1).numpy()
        ours, theirs = measured.transpose(0, 1).flatten(1), explained.transpose(0, 1).flatten(1)
        common = (ours @ theirs.mH).real.numpy()
        of_places = explained.abs().square().sum((0, 2)).numpy()
        gained = of_places[:, None] - of_places - 2 * (common.diagonal()[:, None] - common)
        if self.is_gated:
            gained[_at_one_k(encoding)] = 0.0
        self.gained = self.gained + gained
        self.over_time = self.over_time + _parts(misfit)
        self.signal_over_time = self.signal_over_time + _parts(power_of)

    @property
    def exchanged(self) -> list[int]:
        """The shots that the images explain better at the k of another one."""
        return [int(shot) for shot in np.flatnonzero(self.gained.max(axis=1) > _EXCHANGED * self.of_shots)]

    @property
    def total(self) -> float:
        """||A x - y|| / ||y||."""
        return float(_root(self.of_shots.sum(), self.signal_of_shots.sum()))

    def unexplained(self) -> Unexplained:
        """Return the numbers, as parts of the data: of all, of each shot and over time in the shot.

        A shot without signal has the residual of its misfit to the signal of most.
        """
        return {
            "total": self.total,
            "of_shots": self.per_shot().tolist(),
            "over_time": _root(self.over_time, self.signal_over_time).tolist(),
        }

    def per_shot(self) -> NDArray[np.float64]:
        """Return the residual of each shot (shot,), as a part of its own signal, or of that of most if it has less."""
        return _root(self.of_shots, np.maximum(self.signal_of_shots, 0.1 * np.median(self.signal_of_shots)))


def is_too_large(found: Residual, promised: Residual, noise: float, limit: Limit = TOO_LARGE) -> bool:
    """Tell whether a residual is far beyond what the reconstruction promises, or larger than in another order of shots.

    Parameters
    ----------
    found
        Of the data.
    promised
        Of data that the same images would give, reconstructed in the same way, without noise.
    noise
        ||n|| / ||y||, the part of the data that is noise.
    limit
        How far it may be.
    """
    allowed = (limit.promised * promised.total) ** 2 + limit.noise * noise**2
    return found.total**2 > allowed or bool(found.exchanged)


def outstanding(found: Residual, noise: float) -> list[int]:
    """Return the shots that agree better with the k of another one, or whose residual is far beyond that of most.

    Those of the largest residual come first.
    """
    squared = found.per_shot() ** 2
    limit = _OF_MOST**2 * np.median(squared) + noise**2
    return [int(shot) for shot in np.argsort(-squared) if squared[shot] > limit or shot in found.exchanged]


def blind_coils(kspace: Tensor, k: Tensor) -> list[int]:
    """Return the coils that see nothing: at the centre of k-space they receive no more than at its edge.

    Parameters
    ----------
    kspace
        (slice, coil, shot, sample), complex.
    k
        (shot, sample, dim).
    """
    radius = torch.linalg.vector_norm(k.flatten(0, 1), dim=-1)
    order = radius.argsort()
    power = kspace.flatten(2).abs().square().mean(0)
    n = len(order)
    centre = power[:, order[: max(1, math.ceil(_CENTRE * n))]].mean(1)
    edge = power[:, order[-max(1, math.ceil(_EDGE * n)) :]].mean(1)
    return [int(coil) for coil in torch.nonzero(centre <= _SEES**2 * edge).flatten()]


def silent_shots(kspace: Tensor) -> list[int]:
    """Return the shots of k-space (slice, coil, shot, sample) that hold zeros alone in one slice at least."""
    silent = (kspace.abs().amax((1, 3)) == 0).any(0)
    return [int(shot) for shot in torch.nonzero(silent).flatten()]


def _at_one_k(encoding: Encoding) -> NDArray[np.bool_]:
    """Tell which shots sample the same k (shot, shot), by some samples of each."""
    k = encoding.omega[:, :: max(1, encoding.omega.shape[1] // 8)].flatten(1)
    apart = torch.cdist(k, k, p=math.inf) * max(encoding.acquisition.matrix) / (2 * math.pi)
    return (apart <= MAX_K_ERROR_FOV).numpy()


def _parts(values: Tensor) -> NDArray[np.float64]:
    """Return the sums of values (shot, sample) in each part of the readout."""
    return np.array([float(part.sum()) for part in values.sum(0).chunk(_N_PARTS)])


def _root(misfit: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    misfit, power = np.asarray(misfit, float), np.asarray(power, float)
    return np.sqrt(np.divide(misfit, power, out=np.zeros_like(misfit), where=power > 0))
