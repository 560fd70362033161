"""The figures of a run, drawn from its folder."""

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajdesign import metrics, plots, plugins
from trajdesign.encoding import Encoding
from trajdesign.optimize import datasets, reconstruct
from trajdesign.psf import psf
from trajdesign.run import RunFolder


def draw(path: Path | str) -> list[Path]:
    """Draw every figure of a finished run into its folder ``figures``.

    Parameters
    ----------
    path
        The run folder.

    Returns
    -------
    list of Path
        ``trajectories``, ``waveforms``, ``psf``, ``reconstruction`` and ``learning`` as PNG files.

    Raises
    ------
    InputError
        If the run is not finished or a file is damaged.
    """
    folder = RunFolder(path)
    stages = folder.stages()
    shown = [folder.trajectory("initial"), *([folder.trajectory()] if "learned" in stages else [])]
    figures = {
        "trajectories": plots.trajectories(*shown),
        "waveforms": plots.waveforms(*shown),
        "psf": plots.psf_figure(*map(psf, shown)),
        "reconstruction": plots.reconstructions(*_example(folder, stages)),
        "learning": plots.learning_curves(_curves(folder)),
    }
    written = []
    for name, figure in figures.items():
        written.append(folder.figures / f"{name}.png")
        plots.save(figure, written[-1])
    return written


@torch.no_grad()
def _example(folder: RunFolder, stages: list[str]) -> tuple[Any, dict[str, Any], dict[str, dict[str, float]]]:
    """Return reference, reconstructions and scores of the test image in the middle of the set."""
    config = folder.config()
    test = datasets(config)["test"]
    coil_images: Tensor = test[len(test) // 2][None]  # type: ignore[arg-type]
    images, scores = {}, {}
    for label in stages:
        network = plugins.build("reconstructor", config.reconstructor).eval()
        trajectory = folder.load_stage(label, network)
        image, reference = reconstruct(coil_images, Encoding(trajectory), network, config)
        images[label] = image[0, 0].numpy()
        scores[label] = {
            "PSNR": float(metrics.psnr(image, reference, 1.0)),
            "SSIM": float(metrics.ssim(image, reference, 1.0)),
        }
    return reference[0, 0].numpy(), images, scores


def _curves(folder: RunFolder) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    with (folder.path / "history.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            steps, values = curves.setdefault(row["stage"], ([], []))
            steps.append(float(row["step"]))
            values.append(float(row["val_psnr"] or math.nan))
    return curves
