"""Results of several runs on the same test images, image by image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trajdesign import errors
from trajdesign.config.models import Config
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.results import Comparison, StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.reconstruction import metrics

# Where the test images are known to be the same, the names of their files do not matter.
_FILES = {"data.train", "data.val", "data.test"}


@dataclass(frozen=True)
class ComparedStage:
    """A training of a run, ``fixed`` or ``learned``, with its result.

    Its label is the name of the run's folder, or the whole path where another run's has the same name, and the stage
    where that was asked for.
    """

    label: str
    folder: RunFolder
    name: str
    config: Config
    result: StageResult


@dataclass(frozen=True)
class ComparedRow:
    """A row of the comparison: a stage beside the first one, and the limits that it breaks or that are not checked."""

    stage: ComparedStage
    over_first: Comparison
    broken_limits: list[str]
    not_checked: list[str]

    def tables(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "run": self.stage.label,
            "path": str(self.stage.folder.path),
            "stage": self.stage.name,
            **self.stage.result.with_spread(),
            "over_first": asdict(self.over_first),
            "broken_limits": self.broken_limits,
            "not_checked": self.not_checked,
        }


def open_stages(texts: Sequence[str]) -> list[ComparedStage]:
    """Open runs that were tested on the same images.

    Each text is ``RUN`` or ``RUN:STAGE``: a run folder and one of its trainings, by default ``learned`` where there is
    one.

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


def table(stages: Sequence[ComparedStage]) -> list[ComparedRow]:
    """Compare each stage with the first one."""
    rows = []
    for stage in stages:
        trajectory, settings = stage.folder.trajectory_of(stage.name), stage.config.limits
        summary = limits.summary(trajectory, limits.check(trajectory, settings.constraints, settings.options))
        broken = [name for name, f in summary["constraints"].items() if not f["ok"]]
        rows.append(ComparedRow(stage, stage.result.over(stages[0].result), broken, summary["not_checked"]))
    return rows


def _open_stage(text: str) -> ComparedStage:
    path, colon, name = text.rpartition(":")
    if not colon or Path(text).exists():
        path, name = text, ""
    folder = RunFolder(path)
    found = folder.results().stages
    if name and name not in found:
        raise ConfigError(f"{path} has no stage {name!r}{errors.nearest(name, list(found))}")
    label = f"{folder.path.resolve().name}:{name}" if name else folder.path.resolve().name
    name = name or list(found)[-1]
    return ComparedStage(label, folder, name, folder.config(), found[name])


def _require_one_test(first: ComparedStage, other: ComparedStage) -> None:
    sentence = f"{first.label} and {other.label} were tested on other images"
    is_known = all(stage.result.fingerprints is not None for stage in (first, other))
    wanted, found = (_test_settings(stage.config) for stage in (first, other))
    for key in sorted({*wanted, *found} - (_FILES if is_known else set())):
        if wanted.get(key) != found.get(key):
            raise ConfigError(f"{sentence}: {key} is {wanted.get(key)!r} and {found.get(key)!r}.")
    try:
        metrics.require_same(other.result.fingerprints, first.result.fingerprints)
    except InputError as error:
        raise ConfigError(f"{sentence}: {error}") from None


def _test_settings(config: Config) -> dict[str, Any]:
    """Return what decides on the test images and their noise, by its key in the config."""
    return {
        **{f"data.{key}": value for key, value in config.data.items()},
        "acquisition.matrix": config.acquisition.matrix,
        "acquisition.fov": config.acquisition.fov,
        "training.noise": config.training.noise,
    }
