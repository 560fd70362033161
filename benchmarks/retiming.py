"""Random paths as fast as the limits allow: ours beside MRArbGrad (Luo et al., doi:10.1109/TBME.2026.3654117).

    python -m benchmarks.retiming

Each path is a sum of eight random harmonics that fills the matrix; *smooth* ones are those of them with no turn tighter
than 1/FOV. Both programs get the same points, gradient limit (the receiver's included) and slew rate, of the vector,
and play from rest to rest on the same raster. What MRArbGrad returns is judged as ours is: straight lines between
samples, from the start of the path.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import trajdesign as td
from benchmarks import common
from trajdesign.trajectories.design import Bounds
from trajdesign.trajectories.phase_plane import Path, fastest, spline_through
from trajdesign.trajectories.retiming import path_residual
from trajdesign.trajectory import n_points

HARMONICS, POINTS = 8, 400
COLUMNS = {
    "paths": "paths",
    "way": "way",
    "median_ratio": "duration / MRArbGrad's, median",
    "max_ratio": "largest",
    "median_over": "over the continuous optimum, median, %",
    "max_over": "largest, %",
    "broken": "paths beyond the slew rate",
    "max_slew": "largest slew rate, T/m/s",
    "max_end": "miss of the end, 1/FOV",
    "max_off": "miss of the path, 1/FOV",
    "median_ms": "CPU ms a path, median",
    "max_ms": "largest",
}

Way = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From the points of a path (point, dim) to control points (point, dim), both 1/m."""


@dataclass(frozen=True)
class Setting:
    """The scanner, and what is to be encoded."""

    acquisition: td.Acquisition
    scanner: td.Scanner

    @property
    def bounds(self) -> Bounds:
        """The limits, without a margin."""
        return Bounds.of(self.acquisition, self.scanner, 0.0)

    def trajectory(self, k: NDArray[np.float64]) -> td.Trajectory:
        """Return control points (point, dim) as a trajectory of one shot."""
        acquisition = self.acquisition
        while n_points(acquisition, self.scanner) < len(k):
            acquisition = td.Acquisition(acquisition.fov, acquisition.matrix, 1, acquisition.n_samples + 1)
        return td.Trajectory(torch.from_numpy(k[None]), acquisition, self.scanner)


def random_path(seed: int, setting: Setting, least_radius: float) -> NDArray[np.float64]:
    """Return the points of a path (point, dim), 1/m, that turns nowhere tighter than a radius, 1/m."""
    random, t = np.random.default_rng(seed), np.linspace(0, np.pi, POINTS)[:, None]
    k_max = np.array(setting.acquisition.k_max)
    while True:
        waves = random.normal(size=(HARMONICS, 2, len(k_max)))
        k = sum((a * np.cos(m * t) + b * np.sin(m * t)) / m for m, (a, b) in enumerate(waves, 1))
        k = 0.98 * k_max * k / np.abs(k).max()
        spline = spline_through(k)
        w = np.linspace(0, spline.x[-1], 40 * POINTS)
        velocity, change = spline(w, 1), spline(w, 2)
        speed = (velocity**2).sum(-1)
        across = change - ((change * velocity).sum(-1) / speed)[:, None] * velocity
        if (np.linalg.norm(across, axis=-1) / speed).max() * least_radius <= 1:
            return k


def mrarbgrad(setting: Setting, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return MRArbGrad's control points; its units are pixels and Hz a pixel."""
    package = importlib.import_module("mrarbgrad")
    pixel, raster = setting.acquisition.voxel[0], setting.scanner.gradient_raster
    package.config(dt=raster, sLim=setting.bounds.acceleration * pixel, gLim=setting.bounds.speed * pixel)
    points = np.zeros((len(k), 3))
    points[:, : k.shape[1]] = k * pixel
    moved = package.solve(points)[:, : k.shape[1]] / pixel * raster
    return np.concatenate([k[:1], k[0] + np.cumsum(moved, axis=0)])


def ours(setting: Setting, tolerance: float, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return our control points."""
    return td.retime(k[None], setting.acquisition, setting.scanner, tolerance=tolerance).points[0].numpy()


def measure(setting: Setting, paths: list[NDArray[np.float64]], ways: dict[str, Way], label: str) -> list[common.Row]:
    """Return a row for each way: it plays all the paths, in turn with the others."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    raster = setting.scanner.gradient_raster
    for path in paths:
        fine = Path.through(path, setting.bounds, raster / 8)
        optimum = fastest(fine, setting.bounds, np.ones(len(fine.arc))).duration
        for name, way in ways.items():
            started = time.process_time()  # others may use the machine
            k = way(path)
            seconds = time.process_time() - started
            trajectory = setting.trajectory(k)
            [slew] = td.check(trajectory, ["slew"])
            duration = (len(k) - 2) * raster  # from the first to the last sample of the gradient
            found[name].append(
                {
                    "duration": duration,
                    "over": 100 * (duration / optimum - 1),
                    "slew": slew.value,
                    "broken": not slew.ok,
                    "end": float(np.linalg.norm((k[-1] + k[-2]) / 2 - path[-1])) * max(setting.acquisition.fov),
                    "off": path_residual(trajectory, path[None]),
                    "ms": 1e3 * seconds,
                }
            )
    return [_row(label, name, all_, found.get("MRArbGrad"), setting.scanner.max_slew) for name, all_ in found.items()]


def _row(
    label: str, way: str, found: list[dict[str, float]], peer: list[dict[str, float]] | None, slew: float
) -> common.Row:
    row: dict[str, Any] = {"paths": f"{len(found)} {label}", "way": way}
    if peer is not None and peer is not found:
        ratios = [mine["duration"] / theirs["duration"] for mine, theirs in zip(found, peer, strict=True)]
        row |= {"median_ratio": f"{statistics.median(ratios):.4f}", "max_ratio": f"{max(ratios):.4f}"}
        kept = [r for r, theirs in zip(ratios, peer, strict=True) if theirs["slew"] <= 1.01 * slew]
        row |= {"max_ratio_kept": max(kept, default=None), "n_kept": len(kept)}
    for key in ("over", "ms"):
        row |= {f"median_{key}": statistics.median(one[key] for one in found)}
        row |= {f"max_{key}": max(one[key] for one in found)}
    row |= {f"max_{key}": max(one[key] for one in found) for key in ("end", "off")}
    worst = max(one["slew"] for one in found)
    row |= {"max_slew": f"{worst:.2f}", "broken": sum(one["broken"] for one in found)}
    return row | {"durations": [round(one["duration"], 9) for one in found]}


def main(arguments: Sequence[str] | None = None) -> list[common.Row]:
    """Measure and write the results."""
    options = common.parser(__doc__)
    options.add_argument("--paths", type=int, default=100)
    settings = common.parse(options, arguments, common.Size(64, 1, 400, 1, 1))
    facts = common.machine()
    matrix, number = (64, 2) if settings.quick else (128, settings.paths)
    has_peer = common.version("mrarbgrad") is not None
    if not has_peer:
        common.say("MRArbGrad is not installed (pip install mrarbgrad): skipped.")
    rows: list[common.Row] = []
    for dims in (2, 3):
        setting = Setting(td.Acquisition((0.22,) * dims, (matrix,) * dims, 1, 10), td.Scanner())
        ways: dict[str, Way] = {"MRArbGrad": partial(mrarbgrad, setting)} if has_peer else {}
        ways |= {f"ours, tolerance {t:g}/FOV": partial(ours, setting, t) for t in (1e-2, 1e-3)}
        for label, radius in (("smooth", 1 / 0.22), ("any", 0.0)):
            paths = [random_path(seed, setting, radius) for seed in range(number)]
            for way in ways.values():
                way(paths[0])  # what is imported and made at the first call
            rows += measure(setting, paths, ways, f"{label}, {dims}D")
    common.save("retiming", rows, COLUMNS, settings, facts, _note(rows))
    return rows


def _note(rows: list[common.Row]) -> str:
    """Return a sentence on the paths on which MRArbGrad keeps the slew rate to 1 %."""
    told = [
        f"{row['max_ratio_kept']:.4f} ({row['n_kept']} of {row['paths']}, {row['way']})"
        for row in rows
        if row.get("max_ratio_kept")
    ]
    return f"Largest ratio where MRArbGrad keeps the slew rate to 1 %: {'; '.join(told)}." if told else ""


if __name__ == "__main__":
    main()
