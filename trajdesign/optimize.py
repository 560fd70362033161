"""The joint loop: learn a trajectory and a reconstruction network on images, and the same network without learning."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign import limits, metrics, plugins, runtime
from trajdesign.config import Config
from trajdesign.errors import InputError
from trajdesign.evaluation import evaluate
from trajdesign.interfaces import Reconstructor
from trajdesign.joint import Joint, constraints_of
from trajdesign.run import RunFolder
from trajdesign.runtime import Ranks
from trajdesign.trajectory import Trajectory


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever watches it. `psnr` is the last validation's, not a number before the first."""

    stage: str
    step: int
    n_steps: int
    loss: float
    psnr: float


@dataclass
class Trained:
    """What a training leaves."""

    trajectory: Trajectory
    network: Reconstructor
    history: list[dict[str, Any]] = field(default_factory=list)


def optimize(
    config: Config,
    out: Path | str,
    *,
    device: str = "auto",
    baseline: bool = True,
    overwrite: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
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
    report
        Called after every step.

    Returns
    -------
    dict
        What ``metrics.json`` holds: test results of ``fixed`` and ``learned``, where both were trained
        ``wilcoxon_p``, and ``limits``.

    Raises
    ------
    LimitError
        If the initial pattern cannot be played, or (a bug) the repaired one cannot.
    OutputError, ResourceError, DivergedError
        If the folder is taken, the device is missing, or the loss leaves the finite numbers.
    """
    with runtime.join(device) as ranks:
        return _optimize(config, RunFolder(out), ranks, baseline, overwrite, report)


def _optimize(
    config: Config,
    folder: RunFolder,
    ranks: Ranks,
    baseline: bool,
    overwrite: bool,
    report: Callable[[Progress], None],
) -> dict[str, Any]:
    """Run on every rank; the first one writes the folder and reports."""
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    start = plugins.build("init", config.start, config.acquisition, config.scanner) if config.start else initial
    enforced = limits.enforceable(config.limits.constraints)
    for pattern in (initial, start):
        limits.require(pattern, enforced, config.limits.options)
    data = datasets(config)
    ranks.require_shares(min(config.training.batch_size, len(data["train"])))  # type: ignore[arg-type]
    # what cannot be built is refused before the folder is touched and the baseline trained
    constraints_of(config, config.scanner)
    plugins.build("parameterization", config.parameterization, start)
    plugins.build("reconstructor", config.reconstructor)
    if ranks.is_first:
        folder.create(config, overwrite=overwrite)
        initial.save(folder.path / "initial.npz")
        if config.start:
            start.save(folder.path / "start.npz")

    only = "fixed" if config.parameterization["kind"] == "fixed" else "learned"
    stages = ("fixed", "learned") if baseline and only == "learned" else (only,)
    results: dict[str, Any] = {"name": config.name}
    history: list[dict[str, Any]] = []
    for stage in stages:
        started = time.perf_counter()
        first = initial if stage == "fixed" else start
        trained = train(config, first, data, stage, ranks, report if ranks.is_first else lambda _: None)
        scores = evaluate(trained.trajectory, trained.network, data["test"], config, ranks)
        results[stage] = {**scores, "seconds": time.perf_counter() - started}
        history += trained.history
        if ranks.is_first:
            folder.write_history(history)
            folder.save_network(trained.network, "network" if stage == stages[-1] else "network_fixed")

    if config.limits.repair:
        limits.require(trained.trajectory, enforced, config.limits.options)
    findings = limits.check(trained.trajectory, config.limits.constraints, config.limits.options)
    if len(stages) == 2:
        results["wilcoxon_p"] = {
            key: metrics.wilcoxon_p(results["learned"][f"{key}_list"], results["fixed"][f"{key}_list"])
            for key in ("psnr", "ssim")
        }
    results["limits"] = limits.summary(trained.trajectory, findings)
    if ranks.is_first:
        trained.trajectory.save(folder.path / "trajectory.npz")
        folder.write_metrics(results)
    return results


def train(
    config: Config,
    initial: Trajectory,
    data: dict[str, Dataset[Tensor]],
    stage: str,
    ranks: Ranks,
    report: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train the network on the fixed initial trajectory, or with ``stage = "learned"`` both together.

    Each rank takes its part of every batch; the losses are those of the whole batch.

    Raises
    ------
    ConfigError
        If a batch cannot be shared evenly among the ranks.
    DivergedError
        If the loss or a gradient is not finite in more than ten steps in a row, or in every step.
    """
    settings = config.training
    n_images: int = len(data["train"])  # type: ignore[arg-type]
    batch_size = min(settings.batch_size, n_images)
    ranks.require_shares(batch_size)
    steps_an_epoch = n_images // batch_size
    n_steps = settings.epochs * steps_an_epoch
    first_constrained = config.limits.from_epoch * steps_an_epoch + 1
    validate_at = {max(1, round(n_steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
    joint = Joint(config, initial, stage, n_steps, ranks)
    history: list[dict[str, Any]] = []
    losses: list[float] = []
    psnr, started = math.nan, time.perf_counter()
    order = itertools.islice(_order(n_images, batch_size, config.seed), n_steps)
    shares, ahead = itertools.tee(map(ranks.shard, order))
    batches = runtime.stream(data["train"], ahead, workers=settings.workers, device=ranks.device)

    for step, (numbers, coil_images) in enumerate(zip(shares, batches, strict=True), start=1):
        if step == joint.n_learning + 1:
            joint.settle()
        joint.parameterization.refine((step - 1) / joint.n_learning)
        loss, penalty = joint.step(coil_images, numbers, constrained=step >= first_constrained)
        losses.append(loss)
        if step in validate_at:
            scores = evaluate(joint.trajectory, joint.network, data["val"], config, ranks)
            psnr = scores["psnr"]
            row = {"stage": stage, "step": step, "epoch": step / steps_an_epoch, "loss": sum(losses) / len(losses)}
            row |= {"val_psnr": psnr, "val_ssim": scores["ssim"], "penalty": penalty}
            history.append(row | {"seconds": time.perf_counter() - started})
            losses = []
        report(Progress(stage, step, n_steps, loss, psnr))
    return Trained(joint.final(), joint.network, history)


def datasets(config: Config) -> dict[str, Dataset[Tensor]]:
    """Return the train, val and test images of a config.

    Raises
    ------
    InputError
        If a split holds no images.
    """
    data = {split: plugins.build("data", config.data, config.acquisition, split) for split in ("train", "val", "test")}
    for split, dataset in data.items():
        if not len(dataset):
            raise InputError(f"the {split} split of {config.data['kind']!r} holds no images.")
    return data


def _order(n_images: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the images of each step, shuffled anew in every epoch, what is left of one left out; without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as torch's loader does: the same order
        epoch = torch.randperm(n_images, generator=generator).tolist()
        yield from (epoch[i : i + batch_size] for i in range(0, n_images - batch_size + 1, batch_size))
