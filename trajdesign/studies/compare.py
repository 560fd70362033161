"""Results of several runs on the same test images, image by image."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trajdesign import errors
from trajdesign.config.models import Config
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.reconstruction import metrics

#: The metrics of a result.
KEYS = ("psnr", "ssim", "nrmse")
_DIGITS = {"psnr": 2, "ssim": 3, "nrmse": 3}

# Whose names do not matter where the test images are known to be the same.
_FILES = {"data.train", "data.val", "data.test"}


@dataclass(frozen=True)
class Stage:
    """A training of a run, ``fixed`` or ``learned``, with its entry in ``metrics.json``.

    Its label is the name of the run's folder, or the whole path where another run's has the same name, and the stage
    where that was asked for.
    """

    label: str
    folder: RunFolder
    name: str
    config: Config
    scores: dict[str, Any]


def open_stages(texts: Sequence[str]) -> list[Stage]:
    """Open runs that were tested on the same images.

    Parameters
    ----------
    texts
        ``RUN`` or ``RUN:STAGE``: a run folder and one of its trainings, by default ``learned`` where there is one.

    Raises
    ------
    InputError
        If a run is missing, damaged or not finished.
    ConfigError
        If a run has no such stage, or the test images differ.
    """
    stages = [_open_stage(text) for text in dict.fromkeys(texts)]
    labels = [stage.label for stage in stages]
    if len(set(labels)) < len(labels):
        stages = [replace(stage, label=text) for stage, text in zip(stages, dict.fromkeys(texts), strict=True)]
    for other in stages[1:]:
        _require_one_test(stages[0], other)
    return stages


def table(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return a row for each: scores and spread, the comparison with the first, and limits broken or not checked.

    Raises
    ------
    InputError
        If a trajectory cannot be read, or the results are not of the same number of images.
    """
    rows = []
    for stage in stages:
        trajectory = stage.folder.trajectory("initial" if stage.name == "fixed" else "trajectory")
        settings = stage.config.limits
        findings = limits.check(trajectory, settings.constraints, settings.options)
        summary = limits.summary(trajectory, findings)
        broken = [name for name, f in summary["constraints"].items() if not f["ok"]]
        comparison = paired(stage.scores, stages[0].scores)
        rows.append(
            {
                "run": stage.label,
                "path": str(stage.folder.path),
                "stage": stage.name,
                **result(stage.scores),
                "over_first": comparison,
                "broken_limits": broken,
                "not_checked": summary["not_checked"],
            }
        )
    return rows


def result(scores: dict[str, Any]) -> dict[str, Any]:
    """Return a stage of ``metrics.json`` with the standard deviations ``psnr_sd``, ``ssim_sd`` and ``nrmse_sd``.

    They are over the test images, of the sample (n - 1); not a number for a single image.
    """
    lists = {key: scores[f"{key}_list"] for key in KEYS}
    spread = {f"{key}_sd": statistics.stdev(values) if len(values) > 1 else math.nan for key, values in lists.items()}
    return {**scores, **spread}


def paired(scores: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Compare two results on the same images, in the same order.

    Parameters
    ----------
    scores, reference
        Stages of ``metrics.json``.

    Returns
    -------
    dict
        ``gain``: the mean of each metric less that of the reference, and ``wilcoxon_p`` of PSNR and SSIM.

    Raises
    ------
    InputError
        If they are not of the same images.
    """
    metrics.require_same(scores, reference)
    return {
        "gain": {key: scores[key] - reference[key] for key in KEYS},
        "wilcoxon_p": {
            key: metrics.wilcoxon_p(scores[f"{key}_list"], reference[f"{key}_list"]) for key in ("psnr", "ssim")
        },
    }


def spread(scores: dict[str, Any], key: str) -> str:
    """Return the mean of a metric and its standard deviation, as text."""
    digits = _DIGITS[key]
    sd = scores[f"{key}_sd"]
    return f"{scores[key]:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def gain(comparison: dict[str, Any], key: str) -> str:
    """Return the gain in a metric and its p, as text."""
    return f"{comparison['gain'][key]:+.{_DIGITS[key]}f} ({comparison['wilcoxon_p'][key]:.0e})"


def _open_stage(text: str) -> Stage:
    path, colon, name = text.rpartition(":")
    if not colon or Path(text).exists():
        path, name = text, ""
    folder = RunFolder(path)
    measured, found = folder.metrics(), folder.stages()
    if name and name not in found:
        raise ConfigError(f"{path} has no stage {name!r}{errors.nearest(name, found)}")
    label = f"{folder.path.resolve().name}:{name}" if name else folder.path.resolve().name
    name = name or found[-1]
    return Stage(label, folder, name, folder.config(), measured[name])


def _require_one_test(first: Stage, other: Stage) -> None:
    sentence = f"{first.label} and {other.label} were tested on other images"
    is_known = all("fingerprints" in stage.scores for stage in (first, other))
    wanted, found = (_of_the_test(stage.config) for stage in (first, other))
    for key in sorted({*wanted, *found} - (_FILES if is_known else set())):
        if wanted.get(key) != found.get(key):
            raise ConfigError(f"{sentence}: {key} is {wanted.get(key)!r} and {found.get(key)!r}.")
    try:
        metrics.require_same(other.scores, first.scores)
    except InputError as error:
        raise ConfigError(f"{sentence}: {error}") from None


def _of_the_test(config: Config) -> dict[str, Any]:
    """Return what decides on the test images and their noise, by its key in the config."""
    return {
        **{f"data.{key}": value for key, value in config.data.items()},
        "acquisition.matrix": config.acquisition.matrix,
        "acquisition.fov": config.acquisition.fov,
        "training.noise": config.training.noise,
    }
