"""Simulated scans of finer objects than the images that are made of them, and faults that are planted in them.

The samples are exact Fourier sums over objects of 128 x 128 pixels. Nothing here is shared with the program's
transforms, delays or noise.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import interpolate

import trajdesign as td
from trajdesign.config import plugins
from trajdesign.errors import InputError

#: Pixels of the objects along an axis; k of a simulated curve is integrated in steps, s.
FINE, _STEP = 128, 1e-7


@dataclass(frozen=True)
class Scan:
    """One slice, simulated.

    Parameters
    ----------
    init
        The pattern, with its options.
    n_shots, n_samples
        Of the acquisition.
    object
        The number of a simulated head, or the name of a file of coil images.
    noise
        ||n|| / ||y||.
    n
        Pixels of the image along an axis.
    """

    init: Mapping[str, Any]
    n_shots: int
    n_samples: int = 400
    n_coils: int = 4
    object: int | Path = 0
    noise: float = 0.0
    n: int = 64
    seed: int = 0
    fov: float = 0.22
    _kept: dict[float, NDArray[np.complex128]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def acquisition(self) -> td.Acquisition:
        """What is told of the scan."""
        return td.Acquisition((self.fov, self.fov), (self.n, self.n), self.n_shots, self.n_samples)

    @property
    def trajectory(self) -> td.Trajectory:
        """What is played."""
        return plugins.build("init", dict(self.init), self.acquisition, td.Scanner())

    def kspace(self, late: float = 0.0) -> NDArray[np.complex64]:
        """Return the samples (coil, shot, sample) of gradients that act later by `late`, s."""
        return self.noisy(self.quiet(late))

    def quiet(self, late: float = 0.0) -> NDArray[np.complex128]:
        """Return the samples without noise."""
        if late not in self._kept:
            k = k_played(self.trajectory, late) * self.fov
            self._kept[late] = signal(coil_images(self.object, self.n_coils), k)
        return self._kept[late]

    def noisy(self, kspace: NDArray[np.complex128]) -> NDArray[np.complex64]:
        """Return samples with noise."""
        drawn = np.random.default_rng(self.seed).standard_normal((2, *kspace.shape)) / np.sqrt(2)
        size = self.noise * np.sqrt(np.mean(np.abs(kspace) ** 2))
        return (kspace + size * (drawn[0] + 1j * drawn[1])).astype(np.complex64)

    def written(self, folder: Path, kspace: NDArray[np.complex64]) -> dict[str, Path]:
        """Write samples and the k that is told; returns what `reconstruct` is to be given."""
        np.save(folder / "raw.npy", kspace)
        told = {"fov_m": [self.fov] * 2, "matrix": [self.n] * 2, "dwell_s": self.acquisition.dwell}
        np.savez(folder / "raw_k.npz", k_adc=self.trajectory.k_adc.numpy(), **told)
        return {"raw": folder / "raw.npy", "k": folder / "raw_k.npz"}


def k_played(trajectory: td.Trajectory, late: float) -> NDArray[np.float64]:
    """Return k (shot, sample, 2), 1/m, when the receiver samples, of gradients that act later by `late`, s.

    The gradient, straight between its samples, is integrated; before the first and after the last it goes on as it is.
    """
    gradient = trajectory.gradient.numpy() * trajectory.scanner.gamma
    raster = trajectory.scanner.gradient_raster * np.arange(gradient.shape[1])
    wanted = trajectory.adc_times.numpy() - late
    times = np.arange(min(0.0, wanted[0]) - _STEP, max(raster[-1], wanted[-1]) + 2 * _STEP, _STEP)
    speed = interpolate.make_interp_spline(raster, gradient, k=1, axis=1)(np.clip(times, 0, raster[-1]))
    steps = (speed[:, 1:] + speed[:, :-1]) / 2 * _STEP
    k = np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, axis=1)], axis=1)
    played = interpolate.make_interp_spline(times, k, k=1, axis=1)
    start = trajectory.points[:, :2].numpy().mean(axis=1, keepdims=True)  # at the first gradient sample
    return played(wanted) - played(np.zeros(1)) + start


def signal(images: NDArray[np.complex128], k_fov: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the exact Fourier sums (coil, shot, sample) of images (coil, y, x), at k in 1 / field of view."""
    n = images.shape[-1]
    places = (np.arange(n) - n // 2) / n
    x, y = (np.exp(-2j * np.pi * k_fov[..., axis].reshape(-1, 1) * places) for axis in (0, 1))
    rows = np.einsum("sx,cyx->csy", x, images, optimize=True)
    return np.einsum("sy,csy->cs", y, rows).reshape(len(images), *k_fov.shape[:2])


@cache
def coil_images(what: int | Path, n_coils: int) -> NDArray[np.complex128]:
    """Return fine coil images (coil, y, x): of a simulated head, or of a file of fully sampled k-space."""
    if isinstance(what, int):
        fine = td.Acquisition(matrix=(FINE, FINE), n_shots=1)
        of_set = plugins.build("data", {"kind": "phantom", "n_coils": n_coils, "seed": what // 40}, fine, "test")
        return of_set[what % 40].numpy().astype(np.complex128)
    kspace = np.fft.ifftshift(np.load(what)["kspace"][:n_coils].astype(np.complex128), axes=(1, 2))
    images = np.fft.fftshift(np.fft.ifft2(kspace), axes=(1, 2))
    return images / np.abs(images).max()


def scans(brain: Path | None = None) -> dict[str, dict[str, Scan]]:
    """Return two halves of scans by name: on one thresholds were ``chosen``, on the other they are ``tested``.

    Each pattern samples a head of one coil without noise, and one of several with it; some also the measured `brain` of
    16 coils, which has noise of its own, if it is given.
    """
    found: dict[str, dict[str, Scan]] = {}
    for half, patterns in _PATTERNS.items():
        for name, (init, n_shots, n_samples) in patterns.items():
            has_brain = brain is not None and name in _OF_BRAIN
            for what, n_coils, noise in [*_HEADS[half], *([(brain, 16, 0.0)] if has_brain else [])]:
                title = f"{name}: {n_coils} coils, {'brain' if what == brain else f'noise {noise:.0%}'}"
                fov = 0.256 if what == brain else 0.22
                scan = Scan(init, n_shots, n_samples, n_coils, what, noise, 64 if what == brain else 48, fov=fov)
                found.setdefault(half, {})[title] = scan
    return found


_OF_BRAIN = ("radial 48", "spiral 8", "radial 24, golden", "spiral 12")
#: Number of the head, coils and noise.
_HEADS: dict[str, list[tuple[int | Path, int, float]]] = {
    "chosen": [(1, 1, 0.0), (0, 4, 0.1)],
    "tested": [(2, 1, 0.0), (3, 6, 0.07)],
}
_PATTERNS: dict[str, dict[str, tuple[dict[str, Any], int, int]]] = {
    "chosen": {
        "radial 16": ({"kind": "radial"}, 16, 400),
        "radial 48": ({"kind": "radial"}, 48, 400),
        "spiral 8": ({"kind": "spiral"}, 8, 400),
        "spiral in-out 8": ({"kind": "spiral", "in_out": True}, 8, 400),
        "epi 8": ({"kind": "epi"}, 8, 400),
        "rosette 12": ({"kind": "rosette"}, 12, 400),
        "cartesian 48": ({"kind": "cartesian"}, 48, 150),
        "cartesian 24, variable": ({"kind": "cartesian", "spacing": "variable"}, 24, 150),
    },
    "tested": {
        "radial 24, golden": ({"kind": "radial", "angle": "golden"}, 24, 400),
        "radial 32, centre out": ({"kind": "radial", "centre_out": True}, 32, 300),
        "spiral 12": ({"kind": "spiral"}, 12, 400),
        "spiral in-out 12": ({"kind": "spiral", "in_out": True}, 12, 400),
        "epi 12": ({"kind": "epi"}, 12, 400),
        "propeller 16": ({"kind": "propeller"}, 16, 400),
        "cartesian 36, random": ({"kind": "cartesian", "spacing": "random"}, 36, 150),
        "waves 16": ({"kind": "cartesian", "wave": 0.5}, 16, 400),
    },
}


#: Of the planted delay, s; how far another run's shots sway, 1 / field of view; the shot that is dropped or swapped.
LATE, _SWAY, _SHOT = 2e-6, 2.0, 1


def late(scan: Scan) -> NDArray[np.complex64]:
    """Return samples of gradients that act later than told."""
    return scan.kspace(LATE)


def dropped(scan: Scan) -> NDArray[np.complex64]:
    """Return samples of which a shot holds zeros."""
    kspace = scan.kspace()
    kspace[:, _SHOT] = 0
    return kspace


def swapped(scan: Scan) -> NDArray[np.complex64]:
    """Return samples with two shots in each other's place, far apart."""
    return _exchanged(scan, scan.n_shots // 2)


def neighbours(scan: Scan) -> NDArray[np.complex64]:
    """Return samples with two neighbouring shots in each other's place."""
    return _exchanged(scan, _SHOT + 1)


def dead(scan: Scan) -> NDArray[np.complex64]:
    """Return samples of which a coil holds noise alone."""
    kspace = scan.kspace()
    drawn = np.random.default_rng(99).standard_normal((2, *kspace.shape[1:]))
    kspace[-1] = (drawn[0] + 1j * drawn[1]) * 0.03 * np.sqrt(np.mean(np.abs(kspace) ** 2))
    return kspace


def elsewhere(scan: Scan) -> NDArray[np.complex64]:
    """Return samples of another run, as learning from another start leaves it: each shot sways about the told path."""
    drawn = np.random.default_rng(7).uniform(0, 2 * np.pi, (scan.n_shots, 1, 2))
    swaying = np.sin(3 * np.pi * np.linspace(0, 1, scan.n_samples)[:, None] + drawn)
    k = k_played(scan.trajectory, 0.0) * scan.fov + _SWAY * swaying
    return scan.noisy(signal(coil_images(scan.object, scan.n_coils), k))


def halved(scan: Scan) -> NDArray[np.complex64]:
    """Return every other sample."""
    return scan.kspace()[..., ::2]


def cut(scan: Scan) -> NDArray[np.complex64]:
    """Return all shots but the last."""
    return scan.kspace()[:, :-1]


#: What is planted, and the words that name it; what is in braces is of the scan.
FAULTS: dict[str, tuple[Callable[[Scan], NDArray[np.complex64]], str]] = {
    "2 us delay": (late, r"us later than they are taken to"),
    "dropped shot": (dropped, r"shot 1 is missing"),
    "two shots swapped": (swapped, r"Worst are the shots .*\b(1|{far})\b.*\(counted"),
    "two neighbours swapped": (neighbours, r"Worst are the shots .*\b(1|2)\b.*\(counted"),
    "dead coil": (dead, r"coil {last} sees nothing"),
    "k of another run": (elsewhere, r"of the data unexplained"),
    "half of the samples": (halved, r"has .* shots of {half} samples, .* of {n_samples}"),
    "a shot too few": (cut, r"has {fewer} shots of .* samples, .* {n_shots} of"),
}


def words(fault: str, scan: Scan) -> str:
    """Return the pattern of the sentence that names a fault of a scan."""
    numbers = {
        "far": scan.n_shots // 2,
        "last": scan.n_coils - 1,
        "half": scan.n_samples // 2,
        "n_samples": scan.n_samples,
        "fewer": scan.n_shots - 1,
        "n_shots": scan.n_shots,
    }
    return re.sub(r"\{(\w+)\}", lambda name: str(numbers[name[1]]), FAULTS[fault][1])


def told(scan: Scan, kspace: NDArray[np.complex64], folder: Path) -> list[str]:
    """Return what `trajdesign.reconstruct` says of samples: warnings, or the sentence of a refusal.

    Its picture is not drawn, which would take half of the time.
    """
    try:
        with mock.patch.object(Figure, "savefig"):
            found = td.reconstruct(**scan.written(folder, kspace), out=folder / "out", overwrite=True)
        return list(found.facts.warnings)
    except InputError as error:
        return [str(error)]


def _exchanged(scan: Scan, other: int) -> NDArray[np.complex64]:
    kspace = scan.kspace()
    kspace[:, [_SHOT, other]] = kspace[:, [other, _SHOT]]
    return kspace
