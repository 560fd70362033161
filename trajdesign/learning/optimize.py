"""The joint loop: learn a trajectory and a reconstruction network on images, and the same network without learning."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config import plugins
from trajdesign.config.models import Config, from_tables
from trajdesign.encoding import nufft
from trajdesign.errors import DivergedError, InputError
from trajdesign.files import lock
from trajdesign.interfaces import Progress
from trajdesign.learning import checkpoint, progress
from trajdesign.learning.checkpoint import Keeper
from trajdesign.learning.evaluation import evaluate, look_at, require_memory
from trajdesign.learning.results import FIXED, KEYS, LEARNED, Results
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.state import RunState, TrainingState
from trajdesign.learning.step import constraints_of
from trajdesign.learning.training import Trainer
from trajdesign.physics import limits
from trajdesign.physics.response import Response
from trajdesign.reconstruction import metrics
from trajdesign.runtime import memory, processes, randomness
from trajdesign.runtime.interrupt import Signals
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory, n_points


def optimize(
    config: Config,
    out: Path | str,
    *,
    device: str = "auto",
    baseline: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> Results:
    """Learn a trajectory, compare it with its fixed start, and write the run folder.

    Parameters
    ----------
    config
        The whole run. With ``parameterization.kind = "fixed"`` only the fixed initial trajectory is trained.
    out
        Folder to write.
    device
        ``auto``, ``cpu``, ``cuda`` or another torch device.
    baseline
        Also train the fixed initial trajectory, with the same network, steps and seed.
    overwrite
        Replace a run that is there already.
    resume
        Go on with the run that is there, from its newest checkpoint and with or without `baseline` as it was started;
        start it if there is none. A finished one is left as it is.
    report
        Called after every step. By default each validation is printed on a line.
    say
        Called with a sentence about the images, about what takes long, when a run goes on, or when something is wrong
        that does not end it. By default it is printed.
    quiet
        Print nothing, and call `say` only when a run goes on or something is wrong.

    Raises
    ------
    LimitError
        If the initial pattern cannot be played, or (a bug) the repaired one cannot.
    OutputError
        If the folder is taken, also by a process that writes it now, or is to be resumed with another config.
    ResourceError, DivergedError
        If the device, disk or memory is missing, or the loss or a test image leaves the finite numbers.
    Interrupted
        If a signal ends it: after the step in progress, whose checkpoint is written first.
    """
    signals = Signals(patient=processes.is_launched())
    with signals.caught(), processes.join(device) as ranks:
        folder = RunFolder(out)
        say, report, tell = progress.listeners(say, report, ranks, quiet=quiet)
        keeper = Keeper(
            folder.checkpoints if ranks.is_first else None, signals, config.training.checkpoint_seconds, say
        )
        _require_memory(config)
        with (
            progress.taking_long(tell, f"Reading the images (data.kind = {config.data['kind']}) ..."),
            randomness.drawn_from(config.seed),  # what a run is made of is the same when it goes on
        ):
            initial = plugins.build("init", config.init, config.acquisition, config.scanner)
            starts = [plugins.build("init", start, config.acquisition, config.scanner) for start in config.starts]
            data = _require_possible(config, [initial, *starts], ranks)
            is_new = not (resume and folder.is_finished)
            prints = look_at(data, config, ranks, say if ranks.is_first else lambda _: None) if is_new else {}
            if ranks.is_first and (remark := Response(config.response).remark(starts[-1])):
                say(remark)
        with lock.one_writer(folder.path) if ranks.is_first else contextlib.nullcontext():
            goes_on = ranks.is_first and resume and folder.reopen(config)
            if goes_on and folder.is_finished:
                say(f"{folder.path} is finished; nothing is left to train.")
                folder.checkpoints.clear()  # which are left if it was killed when it had just finished
            elif ranks.is_first:
                if not goes_on:
                    folder.create(config, overwrite=overwrite)
                initial.with_points(initial.points, f"{config.name} fixed").save(folder.path / "initial.npz")
            # all go on from where the first does
            [state] = ranks.gather([_last_state(config, folder, ranks, say, prints)] if ranks.is_first else [])
            if folder.is_finished:
                return folder.results()
            only = FIXED if config.parameterization["kind"] == FIXED else LEARNED
            stages = [FIXED, LEARNED] if baseline and only == LEARNED else [only]
            state = state or RunState(stages=stages, results=Results(config.name), images=prints)
            state.circumstances, state.config = _circumstances(ranks), config.to_dict()
            keeper.run = state
            tell(progress.plan(config, data, stages))
            trainer = Trainer(config, data, ranks, report, keeper, tell)
            return _RunInProgress(folder, initial, starts, state, trainer).train_stages()


@dataclass
class _RunInProgress:
    """A run on one of its ranks; the first one writes the folder."""

    folder: RunFolder
    initial: Trajectory
    starts: list[Trajectory]
    state: RunState
    trainer: Trainer

    def train_stages(self) -> Results:
        """Train what is left to train."""
        folder, state, results, trainer = self.folder, self.state, self.state.results, self.trainer
        config, ranks, test = trainer.config, trainer.ranks, trainer.data["test"]
        for number, stage in enumerate(state.stages, start=1):
            if stage in results.stages:
                continue
            state.stage, trainer.keeper.name = stage, f"{number}-{stage}"
            begun, state.training = state.training, None
            first, seconds = self.initial, 0.0
            if stage == LEARNED:
                first, begun, seconds = self._best_start(begun)
                if ranks.is_first and config.start:
                    first.save(folder.path / "start.npz")
            trained = trainer.train(first, stage, begun)
            trainer.tell(f"Testing what was trained ({stage}) on {progress.count(test, config)} ...")
            started = time.perf_counter()
            result = evaluate(trained.trajectory, trained.network, test, config, ranks)
            if not all(math.isfinite(result.mean(key)) for key in KEYS):
                raise DivergedError(f"a test image as the {stage} network shows it is not finite.")
            if FIXED in results.stages:
                results.wilcoxon_p = result.over(results.stages[FIXED]).wilcoxon_p
            seconds += trained.seconds + time.perf_counter() - started
            results.stages[stage] = replace(result, seconds=seconds, n_skipped=trained.n_skipped)
            state.history += trained.history
            if ranks.is_first:
                folder.write_history(state.history)
                folder.save_network(trained.network, "network" if stage == state.stages[-1] else "network_fixed")
        results.starts = state.tried
        self._finish(trained.trajectory)
        return results

    def _finish(self, trajectory: Trajectory) -> None:
        """Check the last trajectory, and write what makes the run a finished one."""
        folder, results, settings = self.folder, self.state.results, self.trainer.config.limits
        if settings.repair:
            limits.require(trajectory, limits.enforceable(settings.constraints), settings.options)
        findings = limits.check(trajectory, settings.constraints, settings.options)
        results.limits = limits.summary(trajectory, findings)
        if self.trainer.ranks.is_first:
            trajectory.save(folder.path / "trajectory.npz")
            results.files = folder.sums()
            folder.write_results(results)
            folder.checkpoints.clear()

    def _best_start(self, begun: TrainingState | None) -> tuple[Trajectory, TrainingState | None, float]:
        """Return the start to learn from, what has begun there, and the seconds that the others took.

        Of several it is the one from where the first part of the training led to the best validation.
        """
        starts, state, trainer = self.starts, self.state, self.trainer
        if len(starts) == 1:
            return starts[0], begun, 0.0
        tried, stage = state.tried, trainer.keeper.name
        for number, start in enumerate(starts[len(tried) :], start=len(tried) + 1):
            trainer.keeper.name = f"{stage} {number:04d}"  # which sorts before that of the stage
            trial = replace(trainer, report=partial(_report_as_start, trainer.report, number))
            trained = trial.train(start, LEARNED, begun, part=trainer.config.training.trial)
            begun, psnr = None, trained.history[-1].val_psnr
            if all(psnr > other["val_psnr"] for other in tried):
                state.best = trained.state
            tried.append({"val_psnr": psnr, "seconds": trained.seconds})
        trainer.keeper.name = stage
        begun, state.best = begun or state.best, None
        best = max(range(len(tried)), key=lambda number: tried[number]["val_psnr"])
        return starts[best], begun, sum(t["seconds"] for t in tried) - tried[best]["seconds"]


def _report_as_start(report: Callable[[Progress], None], number: int, at: Progress) -> None:
    report(replace(at, stage=f"start {number}"))


def _last_state(
    config: Config, folder: RunFolder, ranks: Ranks, say: Callable[[str], None], prints: dict[str, list[float]]
) -> RunState | None:
    """Return the newest checkpoint of a run, None if there is none, and say from where the run goes on."""
    tables = folder.checkpoints.load(say)
    if tables is None:
        return None
    now = _circumstances(ranks)
    with checkpoint.fitting():
        folder.require_same(config, from_tables(tables["config"]))
        state = RunState.from_tables(tables)
        step, then = tables["training"]["done"]["step"], state.circumstances
        changed = [f"{key} {then.get(key)} became {now[key]}" for key in now if now[key] != then.get(key)]
    metrics.require_kept(prints, state.images)
    state.images = state.images or prints
    say(f"Going on with {folder.path} after step {step} ({state.stage}).")
    if changed:
        say(f"The result will differ from that without a break by rounding: {', '.join(changed)}.")
    return state


def _circumstances(ranks: Ranks) -> dict[str, str | int]:
    """Return what changes the rounding, beside the config."""
    packages = {package: version(package) for package in ("trajdesign", "torch", "finufft", "numpy")}
    return {
        **packages,
        "NUFFT": nufft.fastest(ranks.device),
        "device": ranks.device.type, "ranks": ranks.size, "threads": torch.get_num_threads(),
    }  # fmt: skip


def _require_memory(config: Config) -> None:
    """Refuse what certainly does not fit, before it is made: the trajectory, and an image of one coil."""
    acquisition = config.acquisition
    points = n_points(acquisition, config.scanner)
    memory.require(
        # k, its gradient, the optimiser's state, ... and two matrices of the projection
        8 * points * (8 * acquisition.n_shots * acquisition.n_dims + 2 * points),
        f"a trajectory of {acquisition.n_shots} shots with {points} control points each",
        "take fewer shots or samples",
    )
    require_memory((1, *acquisition.matrix))


def _require_possible(config: Config, patterns: list[Trajectory], ranks: Ranks) -> dict[str, Dataset[Tensor]]:
    """Return the images, if everything can be built: before the folder is touched."""
    learns = config.parameterization["kind"] != FIXED
    for pattern in patterns:
        # what is not learned is never moved onto the limits
        require = limits.require_start if learns else limits.require
        require(pattern, limits.enforceable(config.limits.constraints), config.limits.options)
    data = datasets(config)
    require_memory(data["train"][0].shape)
    ranks.require_shares(min(config.training.batch_size, len(data["train"])))  # type: ignore[arg-type]
    constraints_of(config)
    Response(config.response)(patterns[-1])
    plugins.build("parameterization", config.parameterization, patterns[-1])
    plugins.build("reconstructor", config.reconstructor)
    return data


def datasets(config: Config) -> dict[str, Dataset[Tensor]]:
    """Return the train, val and test images of a config.

    Raises
    ------
    InputError
        If a split holds no images.
    """
    data = {split: plugins.build("data", config.data, config.acquisition, split) for split in ("train", "val", "test")}
    for split, dataset in data.items():
        if not len(dataset):  # type: ignore[arg-type]
            raise InputError(f"the {split} split of {config.data['kind']!r} holds no images.")
    return data
