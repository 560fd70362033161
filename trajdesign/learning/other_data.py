"""A finished run tested on other data, with what it has learned as it is."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config import plugins
from trajdesign.config.models import Config, from_tables
from trajdesign.config.toml import Table, flattened, kinds_first, parse_options
from trajdesign.data import splits
from trajdesign.errors import ConfigError, DivergedError, InputError
from trajdesign.learning import progress
from trajdesign.learning.evaluation import evaluate, look_at, require_memory
from trajdesign.learning.results import FIXED, KEYS, LEARNED, Results, StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.runtime import processes, randomness
from trajdesign.runtime.processes import Ranks

#: Settings of ``training`` that an evaluation may change.
MAY_CHANGE = ("noise", "coil_maps", "knows_field", "field_terms", "batch_size", "slices_at_once")

# Tables of a config that it may change as a whole.
_TABLES = ("data", "field", "perturbation")

# Options of data sources that say what was trained on, or take a part of it.
_OF_TRAINING = ("train", "val", "val_fraction", "test_fraction", "n_train", "n_val")


@dataclass(frozen=True)
class Evaluation:
    """How good a finished run is on other data.

    Parameters
    ----------
    run
        Its folder.
    config
        That of the run with the settings of the evaluation.
    results
        As in the run's own ``metrics.json``: of each stage, and what was gained.
    trained
        The stages by name, each with the settings of the evaluation.
    test
        The images (coil, y, x).
    is_unseen
        Whether the test images were compared with those to train and validate on; False if these could not be read.
    """

    run: Path
    config: Config
    results: Results
    trained: dict[str, TrainedRun]
    test: Dataset[Tensor]
    is_unseen: bool

    def tables(self) -> dict[str, Any]:
        """Return it as ``evaluation.json`` has it."""
        over = self.results.over_fixed
        return {
            "run": str(self.run),
            **settings_of(self.config),
            "n_coils": len(self.test[0]),
            "images": getattr(self.test, "places", None),
            "is_unseen": self.is_unseen,
            **self.results.tables(),
            **({} if over is None else {"over_fixed": asdict(over)}),
        }


def score(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    stage: str | None = None,
    device: str = "auto",
    watch: Callable[[str, int, int], None] = lambda *_: None,
    say: progress.Say | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Test every stage of a finished run, or one, as at the end of its training: see `trajdesign.evaluate`.

    `say` hears what matters and, unless it is to be `quiet`, what takes long; `watch` hears the stage, and how many of
    how many images are done.
    """
    folder, ranks = RunFolder(run), Ranks(device=processes.torch_device(device))
    say, _, tell = progress.listeners(say, None, ranks, quiet=quiet)
    of_run, stages = folder.config(), list(folder.results().stages)
    if stage not in (None, *stages):
        raise ConfigError(f"stage is {stage!r}; {folder.path} has {', '.join(stages)}.")
    config = settings(of_run, overrides)
    kinds = " and ".join(dict.fromkeys([of_run.data["kind"], config.data["kind"]]))
    with progress.taking_long(tell, f"Reading the images (data.kind = {kinds}), also those of the training ..."):
        test, is_unseen = test_images(folder.path, of_run, config, ranks, say)
    trained = {name: TrainedRun.load(run, name).under(config) for name in stages if stage in (None, name)}
    results = Results(of_run.name, files=folder.sums())
    for name, one in trained.items():
        tell(f"Testing what was trained ({name}) on {progress.count(test, config)} ...")
        results.stages[name] = scored(one, test, ranks, partial(watch, name))
    if len(trained) > 1:
        results.wilcoxon_p = results.stages[LEARNED].over(results.stages[FIXED]).wilcoxon_p
    return Evaluation(folder.path, config, results, trained, test, is_unseen)


def scored(
    one: TrainedRun, test: Dataset[Tensor], ranks: Ranks, watch: Callable[[int, int], None] = lambda *_: None
) -> StageResult:
    """Test what a stage has trained under its config.

    It raises a `DivergedError` if the network makes no finite image.
    """
    started = time.perf_counter()
    trajectory = one.trajectory.with_points(one.trajectory.points.to(ranks.device))
    result = evaluate(trajectory, one.network.to(ranks.device), test, one.config, ranks, watch, one.perturbations)
    one.network.cpu().eval()
    if not all(math.isfinite(result.mean(key)) for key in KEYS):
        raise DivergedError(f"a test image as the {one.stage} network shows it is not finite.")
    return replace(result, seconds=time.perf_counter() - started)


def settings_of(config: Config) -> Table:
    """Return the settings of an evaluation."""
    tables = config.to_dict()
    training = {key: tables["training"][key] for key in MAY_CHANGE}
    return {**{key: tables[key] for key in _TABLES}, "training": training}


def settings(of_run: Config, asked: Sequence[str] | Table) -> Config:
    """Return the config of a run with other test data, static fields, perturbations, noise, coil maps or batches.

    What is `asked` are changes, ``"a.b=value"`` each, or the tables that these make.

    Another ``data.kind`` starts from the defaults of that source, and keeps nothing of the run's but
    ``patient_pattern``. Else other ``data.test`` files keep all options but those that divide the training files.
    Perturbations are those that are asked for, and none of the training's.

    Raises
    ------
    ConfigError
        If a setting is unknown, or would make another run of it.
    """
    asked = asked if isinstance(asked, dict) else parse_options(kinds_first(asked))
    for key in [*flattened(asked), *(table for table in asked if not asked[table])]:
        table, _, option = key.partition(".")
        if option in _OF_TRAINING and table == "data":
            raise ConfigError(f"{key} is of the training, which is over; the images to evaluate on are data.test.")
        is_known = (table == "data" and option) or (table == "training" and option in MAY_CHANGE)
        if not is_known and table not in ("field", "perturbation"):
            raise ConfigError(
                f"{key} cannot be set for an evaluation, because that would be another run; what can are the options "
                f"of data, field and perturbation, and of training {', '.join(MAY_CHANGE)}."
            )
    tables = of_run.to_dict()
    return from_tables(
        {
            **tables,
            "data": _data(of_run.data, asked.get("data", {})),
            "field": _field(of_run.field, asked.get("field")),
            "perturbation": asked.get("perturbation", {}),
            "training": {**tables["training"], **asked.get("training", {})},
        }
    )


def _field(own: Table, asked: Table | None) -> Table:
    """Return the table of the static fields: the run's own with what is asked for; an empty one asks for none."""
    if asked is None:
        return own
    is_new = not isinstance(asked, dict) or not asked or asked.get("kind", own.get("kind")) != own.get("kind")
    return asked if is_new else {**own, **asked}


def _data(own: Table, asked: Table) -> Table:
    """Return the table of the test data: the run's own with what is asked for."""
    if asked.get("kind", own["kind"]) != own["kind"]:
        other = plugins.resolve("data", asked)
        kept = {key: own[key] for key in ("patient_pattern",) if key in own.keys() & other.keys()}
        return {**other, **kept, **asked}
    if "test" not in asked:
        return {**own, **asked}
    if "test" not in own:
        raise ConfigError(
            f"data.test: {own['kind']!r}, on which the run was trained, reads no files; set data.kind too, as images."
        )
    return {**{key: value for key, value in own.items() if key not in _OF_TRAINING}, **asked}


def test_images(
    run: Path, of_run: Config, config: Config, ranks: Ranks, say: progress.Say
) -> tuple[Dataset[Tensor], bool]:
    """Return the images to test on, and whether they are known to be none of the training's.

    Those of the training are read again, because a run keeps no copy of them.
    """
    seen: dict[str, Dataset[Tensor]] = {}
    with randomness.drawn_from(config.seed):  # in the order of a training: a source may draw
        try:
            for split in ("train", "val"):
                seen[split] = plugins.build("data", of_run.data, of_run.acquisition, split)
        except (ConfigError, InputError) as error:
            seen = {}
            say(f"it is not known whether {run} was trained on some of these images; its own cannot be read: {error}")
        test = plugins.build("data", config.data, config.acquisition, "test")
        if not len(test):  # type: ignore[arg-type]
            raise InputError(f"the test split of {config.data['kind']!r} holds no images.")
        require_memory(test[0].shape)
    if seen and all("patient_pattern" in one.data for one in (of_run, config)):
        sources = {"train": of_run, "val": of_run, "test": config}
        files = {split: splits.expand(one.data[split], split, folders=True) for split, one in sources.items()}
        splits.refuse_leaks(files, {split: one.data["patient_pattern"] for split, one in sources.items()})
    # what images are known by as they came, and as they are on the matrix, cannot be compared
    alike = {split: one for split, one in seen.items() if hasattr(one, "marks") == hasattr(test, "marks")}
    look_at({**alike, "test": test}, config, ranks, say)
    return test, bool(seen)
