"""Coil images of low resolution from a calibration scan: of events of the same Pulseq file, or of a file of its own."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.measured import reading
from trajdesign.data.measured.measurement import Measurement
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import assignment, delays, reception
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.geometry import View, centred
from trajdesign.measuring.solving import KINDS, encoding_at
from trajdesign.physics.response import Response
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.pulseq.response import k_of_file, phase_of_file
from trajdesign.reconstruction.coils import calibration_scan
from trajdesign.reconstruction.measured import CoilMaps
from trajdesign.reconstruction.sense import conjugate_gradients

#: Coil maps are made of so many lines of the centre of k-space at most, as in training, and of so many at least.
MOST_LINES, FEWEST_LINES = 24, 8
#: Of the fit to samples that may lie anywhere.
_ITERATIONS = 20
# How far from the grid, 1 / field of view, lines still are on it; the smallest singular value that is inverted.
_ON_GRID, _SMALLEST = 1e-4, 1e-6
# How far from a point of the grid a sample counts as that point's, 1 / field of view; a field of view is another one,
# as a part of it; slices lie elsewhere, m.
_NEAR, _SAME_FOV, _SAME_PLACE = 0.55, 1e-3, 1e-4

_WITHOUT = "coil maps from the measurement itself (coil_maps self) do without it."


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples of a fully sampled scan of low resolution, in their places.

    Parameters
    ----------
    kspace
        (slice, coil, line, sample), complex64; a volume is one slice.
    k
        (slice, line, sample, dim), 1/m, float64.
    path
        The file that held them.
    played
        `k` before a view has turned it; None where none has.
    """

    kspace: Tensor
    k: Tensor
    path: Path
    played: Tensor | None = None

    def seen(self, view: View) -> "Calibration":
        """Return it with the phase of a view, and the k that it turns."""
        of_slices = zip(self.kspace, self.k, strict=True)
        kspace = torch.stack([centred(one, k, view.shift) for one, k in of_slices])
        return replace(self, kspace=kspace, k=view.turned(self.k), played=self.k)

    def n_lines(self, acquisition: Acquisition) -> int:
        """Return how many lines about the centre of k-space are complete in all slices: an even number, at most 24.

        Of a volume those along every axis that has as many pixels. A view turns corners and the last line out of the
        grid, but the fewest that coil maps need are there where they were played.
        """
        n_lines = min(_complete(k, acquisition) for k in self.k)
        if self.played is None:
            return n_lines
        return max(n_lines, min(FEWEST_LINES, *(_complete(k, acquisition) for k in self.played)))

    def coil_images(self, acquisition: Acquisition, matrix: Tensor | None = None) -> Tensor:
        """Return the images (slice, coil, y, x) or (1, coil, z, y, x), of any brightness, of the centre of k-space.

        For a film they are volumes of one slice, (slice, coil, 1, y, x), as `trajdesign.reconstruction.axes.still` has
        them. They have the field of view of `acquisition`, and as many pixels as lines about the centre are complete,
        at most 24 as in training's `trajdesign.reconstruction.coils.calibration_scan`. They are fitted to the samples
        by least squares on the pixels of `acquisition`. Of samples 1 / field of view apart that is k-space as measured.

        Parameters
        ----------
        acquisition
            Field of view and matrix of the measurement.
        matrix
            Which coils (virtual, coil) are made of those that measured.

        Raises
        ------
        InputError
            If fewer than 8 lines are complete.
        """
        n_lines = self.n_lines(acquisition)
        if n_lines < FEWEST_LINES:
            raise InputError(
                f"the calibration of {self.path} has {n_lines} complete lines about the centre of "
                f"k-space, and coil maps need {FEWEST_LINES}; {_WITHOUT}"
            )
        kspace = self.kspace if matrix is None else transformed(self.kspace, matrix)
        kspace = kspace / torch.exp2(torch.log2(kspace.abs().max().clamp_min(1e-30)).ceil())
        fits: dict[bytes, Callable[[Tensor], Tensor]] = {}
        images = []
        for samples, k in zip(kspace, self.k, strict=True):
            where = k.numpy().tobytes()
            if where not in fits:
                fits[where] = _fit(k, acquisition.frame, n_lines)
            images.append(_image(fits[where](samples[None].to(torch.complex128))))
        found = torch.cat(images)
        return found[:, :, None] if acquisition.n_frames > 1 else found


def wanted(
    measured: Measurement,
    found: Assigned,
    coil_maps: str | None,
    path: Path | str | None,
    seq: Path | str | None,
    response: Response,
    delay: Sequence[float],
    view: View,
) -> Calibration | None:
    """Return the calibration of a file of its own, or else of the measurement's, as a view shows it.

    None without one, or for ``self``.

    Raises
    ------
    ConfigError
        If the options contradict each other, or ask for a calibration that there is not.
    InputError
        As `of_measurement` and `of_file`.
    """
    if coil_maps not in (None, *KINDS):
        raise ConfigError(f"coil_maps is {coil_maps!r}; it is one of {', '.join(KINDS)}.")
    if seq is not None and path is None:
        raise ConfigError("calibration_seq: it tells what a calibration played; give the calibration too.")
    if coil_maps == "self":
        if path is not None:
            raise ConfigError("coil_maps self takes the maps from the measurement; leave it or the calibration out.")
        return None
    if path is not None:
        return of_file(Path(path), None if seq is None else Path(seq), found, response, delay).seen(view)
    scan = of_measurement(found, measured.path, response, delay)
    if scan is None and coil_maps is not None:
        raise ConfigError(f"coil_maps {coil_maps} are made of a calibration; the measurement has none (label REF).")
    return None if scan is None else scan.seen(view)


def described(
    scan: Calibration | None, coil_maps: str | None, trained: TrainedRun | None, acquisition: Acquisition
) -> tuple[CoilMaps, list[str]]:
    """Return how the coil maps are made and from what, and a sentence if they are not those of training.

    Those of CG-SENSE are made of a calibration as asked, or else as in training, or else as of a prescan.
    """
    network = None if trained is None else trained.config.training.coil_maps
    of_training = network in ("prescan", "espirit")
    if scan is None:
        without = [
            "the run has learned with coil maps of a calibration scan, and there is none: those of the measurement are "
            "worse the less its shots sample the centre of k-space. Export with sequence.calibration=24."
        ]
        of_measurement: CoilMaps = {"cg_sense": "self", "network": network, "calibration": None, "lines": None}
        return of_measurement, without if of_training and coil_maps is None else []
    n_lines = scan.n_lines(acquisition)
    kind = coil_maps or (network if network and of_training else "prescan")
    few = [
        f"the calibration has {n_lines} lines, training's coil maps were of {MOST_LINES}: the network's are not quite "
        "those that it has learned with."
    ]
    told: CoilMaps = {"cg_sense": kind, "network": network, "calibration": str(scan.path), "lines": n_lines}
    return told, few if of_training and n_lines < min(MOST_LINES, *acquisition.matrix) else []


def of_measurement(found: Assigned, path: Path, response: Response, delay: Sequence[float]) -> Calibration | None:
    """Return the calibration that was played in the file of the measurement; None without one.

    Parameters
    ----------
    found
        The measurement.
    path
        Of its raw data, for sentences.
    response, delay
        Of the gradient system, and of its axes (x, y), s.

    Raises
    ------
    InputError
        If it lacks a slice of the measurement, or its events are not alike.
    """
    if found.whole is None or not found.calibration:
        return None
    numbers = coherence.slices(found.whole)
    measured = np.unique(numbers[coherence.imaging(found.whole)])
    calibrated = np.unique(numbers[list(found.calibration)])
    if missing := sorted(set(measured.tolist()) - set(calibrated.tolist())):
        raise InputError(
            f"the calibration of {path} (label REF) has the slices {calibrated.tolist()}, the measurement "
            f"{measured.tolist()}: {missing} are missing; {_WITHOUT}"
        )
    return _of_events(found.whole, found.calibration, measured, path, response, delay, found)


def of_file(path: Path, seq: Path | None, found: Assigned, response: Response, delay: Sequence[float]) -> Calibration:
    """Return a calibration scan of a file of its own.

    Parameters
    ----------
    path
        Its raw data.
    seq
        The Pulseq file that it played; all that samples the object counts, or of labelled files (``REF``) what is for
        coil maps. Without one the raw data are an array (coil, line, sample), or of several slices (slice, coil, line,
        sample): lines along y and samples along x, 1 / field of view apart, the centre of k-space at n // 2.
    found
        The measurement that it is for.
    response, delay
        As for `of_measurement`.

    Raises
    ------
    InputError
        If a file cannot be read, the two do not fit each other, or slices or field of view are not the measurement's.
    """
    raw, acquisition, n_slices = reading.read(path), found.acquisition, found.kspace.shape[1]
    if seq is None:
        if raw.layout is None or found.is_volume:
            what = "is no array" if raw.layout is None else "is to be of a volume"
            raise InputError(f"{path} {what}: give the .seq file of the calibration too, which tells its k.")
        n_frames, n_found, n_lines = raw.layout
        if n_frames != 1 or n_found != n_slices:
            raise InputError(
                f"{path} has {n_frames} repetition(s) of {n_found} slice(s), the measurement {n_slices} slice(s); a "
                "calibration has one of each."
            )
        kspace = np.stack(list(raw.events)).reshape(n_slices, n_lines, *raw.events[0].shape).swapaxes(1, 2)
        axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in (n_lines, kspace.shape[3])]
        ky, kx = torch.meshgrid(*axes, indexing="ij")
        k = torch.stack([kx, ky], dim=-1) / torch.tensor(acquisition.fov, dtype=torch.float64)
        return Calibration(torch.from_numpy(np.ascontiguousarray(kspace)), k.expand(n_slices, *k.shape), path)
    file = player.read(seq, signed=False)
    labelled = assignment.for_coil_maps(file)
    which = labelled if labelled.any() else coherence.imaging(file)
    samples = assignment.matched(raw, file, seq, which)
    numbers = np.unique(coherence.slices(file)[which])
    fov, own = np.array(file.numbers("FOV")[: acquisition.n_dims]), np.array(acquisition.fov)
    if fov.shape != own.shape or not np.allclose(fov, own, rtol=_SAME_FOV):
        raise InputError(f"{seq} has the field of view {fov.tolist()} m, the measurement {own.tolist()} m.")
    if len(numbers) != n_slices:
        raise InputError(f"{seq} calibrates {len(numbers)} slice(s), and {n_slices} were measured.")
    places = [np.array(one.numbers("SlicePositions")) for one in (file, found.whole) if one is not None]
    if len(places) == 2 and all(map(len, places)) and not _same(*places):
        raise InputError(f"{seq} has its slices at {places[0].tolist()} m, the measurement at {places[1].tolist()} m.")
    wanted = {i: samples[i] for i in np.flatnonzero(which).tolist()}
    return _of_events(file, wanted, numbers, path, response, delay, replace(found, stack=None))


def transformed(kspace: Tensor, matrix: Tensor) -> Tensor:
    """Return k-space (..., coil, shot, sample), complex64, of the coils that a matrix (virtual, coil) makes."""
    return torch.einsum("dc,...csn->...dsn", matrix, kspace.to(torch.complex128)).to(torch.complex64)


def _of_events(
    file: SeqFile,
    samples: Mapping[int, NDArray[np.complex64]],
    slices: NDArray[np.integer],
    path: Path,
    response: Response,
    delay: Sequence[float],
    found: Assigned,
) -> Calibration:
    """Return what ADC events sampled, by their numbers in a file, of slices by the numbers of these.

    It is for what was `found`; of a stack the slices are its partitions.
    """
    stack, n_dims = found.stack, found.acquisition.n_dims
    of_slices = coherence.slices(file)
    which = np.zeros(len(file.adcs), dtype=bool)
    which[list(samples)] = True
    factor = assignment.oversampling(samples, file, path, path)
    played = assignment.finer(file.only(which), factor)
    (reception.require_flat if stack is None and n_dims == 2 else reception.require_phases)(played, path)
    places, shapes = of_slices[which], {(adc.count, adc.dwell) for adc in played.adcs}
    counts = {int((places == number).sum()) for number in slices}
    if len(shapes) > 1 or len(counts) > 1:
        raise InputError(
            f"the calibration of {path} has {min(counts)} to {max(counts)} ADC events in its slices, of "
            f"{min(shapes)[0]} to {max(shapes)[0]} samples; they must be alike; {_WITHOUT}"
        )
    events = [np.flatnonzero(places == number) for number in slices]
    ordered = [samples[int(i)] for i in np.flatnonzero(which)]
    kspace = np.stack([np.stack([ordered[i] for i in of_slice], axis=1) for of_slice in events])
    if (phases := phase_of_file(played, response)) is not None:
        turned = np.stack([reception.stacked(phases, of_slice) for of_slice in events])
        kspace = (kspace * np.exp(1j * turned)[:, None]).astype(np.complex64)
    if stack is not None:
        kspace = stack.slices(kspace[None])[0]
    of_samples, dwell = k_of_file(played, response), played.adcs[0].dwell
    k = torch.from_numpy(np.stack([reception.stacked(of_samples, of_slice, n_dims) for of_slice in events]))
    if any(delay):
        k = torch.stack([delays.delayed(one, dwell, delay) for one in k])
    return Calibration(torch.from_numpy(kspace), k, path)


def _complete(k: Tensor, acquisition: Acquisition) -> int:
    """Return how many lines about the centre are complete at k (line, sample, dim): an even number, at most 24."""
    cycles = (k.flatten(0, 1) * torch.tensor(acquisition.fov, dtype=torch.float64)).numpy()[:, ::-1]
    shape = [min(n, MOST_LINES) for n in acquisition.matrix[::-1]]
    hit = torch.zeros(shape, dtype=torch.bool)
    near = [(np.floor(of_axis + _NEAR), np.ceil(of_axis - _NEAR)) for of_axis in cycles.T]
    for one in itertools.product(*near):
        points = np.stack(one, axis=1).astype(int) + [n // 2 for n in shape]
        hit[tuple(points[((points >= 0) & (points < shape)).all(axis=1)].T)] = True
    return next((n for n in range(MOST_LINES, 0, -2) if bool(_central(hit, n, hit.ndim).all())), 0)


def _central(values: Tensor, n: int, n_axes: int) -> Tensor:
    """Return the central `n` values along each of the last axes, or all along a shorter one."""
    for axis in range(-n_axes, 0):
        size = values.shape[axis]
        first = max(0, size // 2 - n // 2)
        values = values.narrow(axis, first, min(n, size - first))
    return values


def _fit(k: Tensor, acquisition: Acquisition, n_lines: int) -> Callable[[Tensor], Tensor]:
    """Return what makes the centre of k-space (1, coil, [z,] y, x) of samples (1, coil, line, sample) at k."""
    central = _fitted_lines(k, acquisition, n_lines)
    if central is not None:
        return central
    return partial(_fitted, encoding=encoding_at(k, acquisition, torch.float64), n_lines=n_lines)


def _fitted(kspace: Tensor, encoding: Encoding, n_lines: int) -> Tensor:
    """Return the centre of k-space (1, coil, [z,] y, x), of so many lines, that fits (1, coil, line, sample)."""
    right = encoding.coil_images(encoding.weights * kspace)
    images = conjugate_gradients(encoding.normal, right, _ITERATIONS)
    return _central(calibration_scan(images, 0.0, []), n_lines, images.ndim - 2)


def _fitted_lines(k: Tensor, acquisition: Acquisition, n_lines: int) -> Callable[[Tensor], Tensor] | None:
    """Return the same for lines along x at all combinations of some k_y (and k_z); None where they are no such.

    Nor is it where a point of the grid was not sampled. At the edge of a truncated k-space pixels that differ look
    almost alike, and conjugate gradients tell them apart too late; where all points of the grid were sampled, the whole
    inverse tells, and no point is noisier than its sample.
    """
    cycles = k * torch.tensor(acquisition.fov, dtype=torch.float64)
    across = cycles[:, 0, 1:].flip(-1)  # [z,] y of each line
    order = np.lexsort(across.round(decimals=2).T.flip(0).numpy())
    # how many differ along each axis; of a product as many lines as of all of them
    counts = [len(of_axis.round(decimals=2).unique()) for of_axis in across.T]
    if math.prod(counts) != len(across):
        return None
    grid = across[order].view(*counts, len(counts))
    axes = [grid.movedim(axis, 0).reshape(n, -1, len(counts))[:, 0, axis] for axis, n in enumerate(counts)]
    axes.append(cycles[0, :, 0])
    product = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -3).flip(-1)
    if float((cycles[order] - product).abs().max()) > _ON_GRID:
        return None
    found = []
    for own, n in zip(axes, acquisition.matrix[::-1], strict=True):
        size = min(n, n_lines)
        points, pixels = (torch.arange(m, dtype=torch.float64) - m // 2 for m in (size, n))
        if float((own[:, None] - points).abs().min(dim=0).values.max()) > _ON_GRID:
            return None
        sampled, wanted = (torch.exp(-2j * math.pi / n * at[:, None] * pixels) for at in (own, points))
        found.append(wanted @ torch.linalg.pinv(sampled, rtol=_SMALLEST) / math.sqrt(n))

    def fit(kspace: Tensor) -> Tensor:
        kspace = kspace[:, :, order].unflatten(2, counts)
        for axis, matrix in enumerate(found, start=2):
            kspace = torch.tensordot(kspace, matrix, dims=([axis], [1])).movedim(-1, axis)
        return kspace

    return fit


def _image(centre: Tensor) -> Tensor:
    """Return the image (..., coil, [z,] y, x) of the centre of k-space (1, coil, [z,] y, x)."""
    space = tuple(range(2, centre.ndim))
    shifted = torch.fft.ifftshift(centre, dim=space)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=space, norm="ortho"), dim=space).to(torch.complex64)


def _same(places: NDArray[np.floating], others: NDArray[np.floating]) -> bool:
    return len(places) == len(others) and bool(np.allclose(places, others, atol=_SAME_PLACE))
