"""Gradient waveforms as text: one row per sample, readable by every program."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.errors import LimitError
from trajdesign.interfaces import Format
from trajdesign.trajectory import Trajectory, point_times


class Csv(Format):
    """The readout's gradient (mT/m) and k (1/m) at every gradient raster centre, as text.

    `numpy.loadtxt` with ``delimiter=","`` reads the file; its header says what the columns are.
    """

    ending = ".csv"

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write the table, and return ``n_rows``, its number of rows."""
        acquisition, scanner = trajectory.acquisition, trajectory.scanner
        axes = "xyz"[: acquisition.n_dims]
        gradient = trajectory.gradient.detach().cpu().double().numpy()
        k = trajectory.points.detach().cpu().double().numpy()
        n_shots, n_samples = gradient.shape[:2]
        times = point_times(acquisition, scanner)[:-1] + scanner.gradient_raster / 2
        table = np.column_stack(
            [
                np.repeat(np.arange(n_shots), n_samples),
                np.tile(times, n_shots),
                gradient.reshape(n_shots * n_samples, -1) * 1e3,
                ((k[:, 1:] + k[:, :-1]) / 2).reshape(n_shots * n_samples, -1),
            ]
        )
        name = "".join(c if c.isprintable() else " " for c in trajectory.name)
        columns = ["shot", "time_s", *(f"g{a}_mT_per_m" for a in axes), *(f"k{a}_1_per_m" for a in axes)]
        header = [
            f"{name}: readout gradients, without prephaser and rewinder",
            "rows are samples at the centres of the gradient raster; straight lines between them are played",
            f"gradient raster {scanner.gradient_raster:.9g} s; gamma {scanner.gamma:.12g} Hz/T ({scanner.nucleus})",
            f"{acquisition.n_samples} ADC samples every {acquisition.dwell:.9g} s, "
            f"the first {abs(round(float(trajectory.adc_times[0]), 12)):.9g} s after a shot's first row",
            f"field of view {' '.join(f'{extent:.9g}' for extent in acquisition.fov)} m",
            ",".join(columns),
        ]
        formats = ["%d", "%.9g", *["%.15g"] * (2 * len(axes))]
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            np.savetxt(stream, table, fmt=formats, delimiter=",", header="\n".join(header))
        return {"n_rows": len(table)}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the gradients, and integrate them from the first k."""
        scanner, n_dims = trajectory.scanner, trajectory.acquisition.n_dims
        try:
            table = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8")
            rows = table.reshape(trajectory.acquisition.n_shots, -1, 2 + 2 * n_dims)
        except ValueError as error:
            raise LimitError(f"the written file does not read back: {error}.") from None
        gradient = rows[..., 2 : 2 + n_dims] * 1e-3
        steps = gradient * scanner.gamma * scanner.gradient_raster
        first = rows[:, :1, 2 + n_dims :] - steps[:, :1] / 2
        k = np.concatenate([first, first + np.cumsum(steps, axis=1)], axis=1)
        slew = np.diff(gradient, axis=1) / scanner.gradient_raster
        facts = {
            "max_gradient": float(np.linalg.norm(gradient, axis=-1).max()),
            "max_slew": float(np.linalg.norm(slew, axis=-1).max()),
        }
        return {"csv": trajectory.with_points(torch.from_numpy(k)).k_adc.numpy()}, facts
