"""A finished run in other conditions than its own: what it reaches in each is kept beside it, and tested once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config import plugins
from trajdesign.config.models import Config
from trajdesign.config.toml import Table
from trajdesign.errors import InputError
from trajdesign.files import untrusted
from trajdesign.files.atomic import atomic_path
from trajdesign.learning import other_data
from trajdesign.learning.evaluation import static_field
from trajdesign.learning.optimize import datasets
from trajdesign.learning.results import StageResult, to_json
from trajdesign.learning.run_folder import RunFolder, sum_of_table
from trajdesign.learning.trained import TrainedRun
from trajdesign.physics.perturbation import Perturbations
from trajdesign.physics.response import Response
from trajdesign.reconstruction import metrics
from trajdesign.runtime import processes, randomness
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory, n_points

FILE = "conditions.json"


@dataclass(frozen=True)
class Tested:
    """What a run reached in a condition, and the settings of that: see `trajdesign.learning.other_data.settings_of`."""

    settings: Table
    result: StageResult


def tested(run: Path | str, conditions: Mapping[str, Config], *, device: str) -> dict[str, Tested]:
    """Test what a finished run trained last in each condition where that is not done, and keep it in its folder.

    Parameters
    ----------
    conditions
        The config of the run with the settings of the condition (`trajdesign.learning.other_data.settings`), by name.

    Returns
    -------
    dict
        All that is kept, by the name of the condition.

    Raises
    ------
    ConfigError, InputError
        If the run, the images or a field cannot be used, or the images of its own test are others by now.
    DivergedError
        If the network makes no finite image.
    """
    folder, kept, waiting = RunFolder(run), read(run), missing(run, conditions)
    if not waiting:
        return kept
    ranks, trained, own = Ranks(device=processes.torch_device(device)), TrainedRun.load(run), folder.results()
    images: Dataset[Tensor] | None = None
    for name in waiting:
        config = conditions[name]
        if config.data == trained.config.data:  # its training has compared them with what it saw: they are read once
            images = _own_images(trained.config) if images is None else images
            result = other_data.scored(trained.under(config), images, ranks)
            metrics.require_same(result.fingerprints, own.last.fingerprints)
        else:
            others, _ = other_data.test_images(folder.path, trained.config, config, ranks, _silent)
            result = other_data.scored(trained.under(config), others, ranks)
        kept[name] = Tested(other_data.settings_of(config), result)
        _write(folder, kept)
    return kept


def read(run: Path | str) -> dict[str, Tested]:
    """Return what a run was tested in since it was trained, by the name of the condition.

    It raises an `InputError` if the file is not the one that was written.
    """
    folder = RunFolder(run)
    path = folder.path / FILE
    if not path.exists():
        return {}
    try:
        tables = json.loads(untrusted.read_bytes(path, untrusted.MOST_TEXT))
        if tables.pop("sha256") != sum_of_table(tables):
            raise ValueError("it was changed")
        if tables["files"] != folder.results().files:  # of an earlier training
            return {}
        return {
            name: Tested(dict(table["settings"]), StageResult.from_tables(table["result"]))
            for name, table in tables["conditions"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path} is damaged, or was changed; remove it, and test again.") from None


def missing(run: Path | str, conditions: Mapping[str, Config]) -> list[str]:
    """Return the names of the conditions in which a finished run is still to be tested."""
    kept = read(run) if conditions else {}
    return [
        name
        for name, config in conditions.items()
        if name not in kept or kept[name].settings != other_data.settings_of(config)
    ]


def require_possible(config: Config, *, images: bool) -> None:
    """Refuse a condition whose field, perturbations or, if asked for, images cannot be used.

    It raises a `ConfigError` or an `InputError`.
    """
    static_field(config)
    size = config.acquisition.n_shots, n_points(config.acquisition, config.scanner), config.acquisition.n_dims
    resting = Trajectory(torch.zeros(size, dtype=torch.float64), config.acquisition, config.scanner)
    Perturbations(config.perturbation).draw(resting, Response(config.response), config.seed).acting  # noqa: B018
    if images:
        plugins.build("data", config.data, config.acquisition, "test")


def _own_images(of_run: Config) -> Dataset[Tensor]:
    """Return the test images of a run."""
    with randomness.drawn_from(of_run.seed):  # as in its training: a source may draw
        return datasets(of_run)["test"]


def _silent(_: str) -> None:
    pass


def _write(folder: RunFolder, kept: Mapping[str, Tested]) -> None:
    conditions = {name: {"settings": one.settings, "result": one.result.tables()} for name, one in kept.items()}
    tables = {"files": folder.results().files, "conditions": conditions}
    with atomic_path(folder.path / FILE) as temporary:
        text = to_json({**tables, "sha256": sum_of_table(tables)})
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
