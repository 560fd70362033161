"""The joint loop: learn a trajectory and a reconstruction network on images, and the same network without learning."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign import plugins
from trajdesign.config.models import Config, from_tables
from trajdesign.encoding import nufft
from trajdesign.errors import DivergedError, InputError
from trajdesign.files import lock
from trajdesign.interfaces import Progress
from trajdesign.learning import checkpoint, progress
from trajdesign.learning.checkpoint import Keeper
from trajdesign.learning.evaluation import evaluate, look
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.step import constraints_of
from trajdesign.learning.training import train
from trajdesign.physics import limits
from trajdesign.physics.response import Response
from trajdesign.reconstruction import metrics
from trajdesign.runtime import memory, processes, randomness
from trajdesign.runtime.interrupt import Signals
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory, n_points
from trajdesign.version import __version__

_STAGES = (["fixed", "learned"], ["fixed"], ["learned"])


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
) -> dict[str, Any]:
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
        Called after every step; what the loggers yield fits (`trajdesign.learning.loggers.tensorboard`). By default
        each validation is printed on a line.
    say
        Called with a sentence about the images, about what takes long, when a run goes on, or when something is wrong
        that does not end it. By default it is printed.
    quiet
        Print nothing, and call `say` only when a run goes on or something is wrong.

    Returns
    -------
    dict
        What ``metrics.json`` holds: test results of ``fixed`` and ``learned``, where both were trained
        ``wilcoxon_p``, and ``limits``; and in ``files`` the SHA-256 of the config, the history and what was learned.

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
            prints = look(data, config, ranks, say if ranks.is_first else lambda _: None) if is_new else {}
        with lock.one_writer(folder.path) if ranks.is_first else contextlib.nullcontext():
            goes_on = ranks.is_first and resume and folder.reopen(config)
            if goes_on and folder.is_finished:
                say(f"{folder.path} is finished; nothing is left to train.")
                folder.checkpoints.clear()  # which are left if it was killed when it had just finished
            elif ranks.is_first:
                if not goes_on:
                    folder.create(config, overwrite=overwrite)
                initial.with_k(initial.k, f"{config.name} fixed").save(folder.path / "initial.npz")
            # all go on from where the first does
            [state] = ranks.gather([_last_state(config, folder, ranks, say, prints)] if ranks.is_first else [])
            if folder.is_finished:
                return folder.metrics()
            only = "fixed" if config.parameterization["kind"] == "fixed" else "learned"
            stages = ["fixed", "learned"] if baseline and only == "learned" else [only]
            state = {"stages": stages, "results": {"name": config.name}, "history": [], "images": prints, **state}
            tell(progress.plan(config, data, stages))
            return _Run(config, folder, initial, starts, data, state, ranks, keeper, report, tell).train_stages()


@dataclass
class _Run:
    """A run in progress, on one of its ranks; the first one writes the folder and reports."""

    config: Config
    folder: RunFolder
    initial: Trajectory
    starts: list[Trajectory]
    data: dict[str, Dataset[Tensor]]
    state: dict[str, Any]
    ranks: Ranks
    keeper: Keeper
    report: Callable[[Progress], None]
    tell: Callable[[str], None]

    def train_stages(self) -> dict[str, Any]:
        """Train what is left to train."""
        config, folder, state, keeper = self.config, self.folder, self.state, self.keeper
        stages, results, history = state["stages"], state["results"], state["history"]
        for number, stage in enumerate(stages, start=1):
            if stage in results:
                continue
            keeper.before = {"stages": stages, "stage": stage, "results": results, "history": history}
            keeper.before |= {"circumstances": _circumstances(self.ranks), "config": config.to_dict()}
            keeper.before |= {"images": state["images"]}
            keeper.name = f"{number}-{stage}"
            first, begun, seconds = self.initial, state.pop("training", None), 0.0
            if stage == "learned":
                first, begun, seconds = self.best_start(begun)
                if self.ranks.is_first and config.start:
                    first.save(folder.path / "start.npz")
            trained = train(config, first, self.data, stage, self.ranks, self.report, keeper, begun)
            self.tell(f"Testing what was trained ({stage}) on {progress.count(self.data['test'])} ...")
            started = time.perf_counter()
            scores = evaluate(trained.trajectory, trained.network, self.data["test"], config, self.ranks)
            if not all(map(math.isfinite, (scores["psnr"], scores["ssim"], scores["nrmse"]))):
                raise DivergedError(f"a test image as the {stage} network shows it is not finite.")
            metrics.require_same(scores, results.get("fixed", {}))
            seconds += trained.seconds + time.perf_counter() - started
            results[stage] = {**scores, "seconds": seconds, "n_skipped": trained.n_skipped}
            history += trained.history
            if self.ranks.is_first:
                folder.write_history(history)
                folder.save_network(trained.network, "network" if stage == stages[-1] else "network_fixed")

        if "tried" in state:
            results["starts"] = state["tried"]
        if config.limits.repair:
            limits.require(trained.trajectory, limits.enforceable(config.limits.constraints), config.limits.options)
        findings = limits.check(trained.trajectory, config.limits.constraints, config.limits.options)
        if len(stages) == 2:
            results["wilcoxon_p"] = {
                key: metrics.wilcoxon_p(results["learned"][f"{key}_list"], results["fixed"][f"{key}_list"])
                for key in ("psnr", "ssim")
            }
        results["limits"] = limits.summary(trained.trajectory, findings)
        if self.ranks.is_first:
            trained.trajectory.save(folder.path / "trajectory.npz")
            results["files"] = folder.sums()
            folder.write_metrics(results)
            folder.checkpoints.clear()
        return results

    def best_start(self, begun: dict[str, Any] | None) -> tuple[Trajectory, dict[str, Any] | None, float]:
        """Return the start to learn from, what has begun there, and the seconds that the others took.

        Of several it is the one from where the first part of the training led to the best validation.
        """
        starts, state, keeper = self.starts, self.state, self.keeper
        if len(starts) == 1:
            return starts[0], begun, 0.0
        tried: list[dict[str, float]] = state.setdefault("tried", [])
        keeper.before["tried"] = tried
        stage = keeper.name
        for start in starts[len(tried) :]:
            number = len(tried) + 1
            keeper.name = f"{stage} {number:04d}"  # which sorts before that of the stage
            keeper.before["best"] = state.get("best")
            trained = train(
                self.config, start, self.data, "learned", self.ranks, partial(_as_start, self.report, number), keeper,
                begun, part=self.config.training.trial,
            )  # fmt: skip
            begun = None
            psnr = trained.history[-1]["val_psnr"]
            if all(psnr > other["val_psnr"] for other in tried):
                state["best"] = trained.state
            tried.append({"val_psnr": psnr, "seconds": trained.seconds})
        keeper.name, keeper.before["best"] = stage, None
        best = max(range(len(tried)), key=lambda number: tried[number]["val_psnr"])
        return starts[best], begun or state.pop("best"), sum(t["seconds"] for t in tried) - tried[best]["seconds"]


def _as_start(report: Callable[[Progress], None], number: int, at: Progress) -> None:
    report(replace(at, stage=f"start {number}"))


def _last_state(
    config: Config, folder: RunFolder, ranks: Ranks, say: Callable[[str], None], prints: dict[str, list[float]]
) -> dict[str, Any]:
    """Return the newest checkpoint of a run, nothing if there is none, and say what is to be known about it."""
    state = folder.checkpoints.load(say)
    if state is None:
        return {}
    now = _circumstances(ranks)
    with checkpoint.fitting():
        folder.require_same(config, from_tables(state["config"]))
        if state["stages"] not in _STAGES or not isinstance(state["results"], dict):
            raise ValueError("stages")
        step, stage, then = state["training"]["done"]["step"], state["stage"], state["circumstances"]
        changed = [f"{key} {then.get(key)} became {now[key]}" for key in now if now[key] != then.get(key)]
    metrics.require_kept(prints, state.get("images", {}))
    say(f"Going on with {folder.path} after step {step} ({stage}).")
    if changed:
        say(f"The result will differ from that without a break by rounding: {', '.join(changed)}.")
    return state


def _circumstances(ranks: Ranks) -> dict[str, Any]:
    """Return what changes the rounding, beside the config."""
    packages = {package: version(package) for package in ("torch", "finufft", "numpy")}
    return {
        "trajdesign": __version__, **packages,
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
    _require_memory_for((1, *acquisition.matrix))


def _require_memory_for(shape: Sequence[int]) -> None:
    """Refuse coil images of a shape (coil, ...) that do not fit with their spectra of the doubled matrix."""
    memory.require(
        5 * 8 * math.prod(shape),
        f"the images of {shape[0]} coils with the matrix {tuple(shape[1:])}",
        "take fewer coils or pixels",
    )


def _require_possible(config: Config, patterns: list[Trajectory], ranks: Ranks) -> dict[str, Dataset[Tensor]]:
    """Return the images, if everything can be built: else no folder is touched, and no baseline trained."""
    for pattern in patterns:
        limits.require(pattern, limits.enforceable(config.limits.constraints), config.limits.options)
    data = datasets(config)
    _require_memory_for(data["train"][0].shape)
    ranks.require_shares(min(config.training.batch_size, len(data["train"])))  # type: ignore[arg-type]
    constraints_of(config, config.scanner)
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
