"""The joint loop: learn a trajectory and a reconstruction network on images, and the same network without learning."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign import limits, metrics, plugins, runtime
from trajdesign.config import Config
from trajdesign.encoding import Encoding, faster_normal
from trajdesign.errors import DivergedError, InputError
from trajdesign.evaluation import draw_seeds, evaluate, reconstruct
from trajdesign.interfaces import Constraint, Parameterization, Reconstructor
from trajdesign.projection import Projection
from trajdesign.response import actual
from trajdesign.run import RunFolder
from trajdesign.runtime import Ranks
from trajdesign.scanner import Scanner
from trajdesign.toeplitz import SpectrumCache
from trajdesign.trajectory import Trajectory

_MOST_LOST_STEPS = 10  # steps in a row without a finite loss or gradient after which a run has diverged
_FINAL_ITERATIONS = 2000  # of the projection after the last step


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
    _constraints(config, config.scanner)
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
    joint = _Joint(config, initial, stage, n_steps, ranks)
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


class _Joint:
    """Trajectory and network, and what follows them from step to step: projection, density, learning rates."""

    def __init__(self, config: Config, initial: Trajectory, stage: str, n_steps: int, ranks: Ranks) -> None:
        torch.manual_seed(config.seed)
        self.config, self.stage, self.ranks = config, stage, ranks
        self.learns = stage == "learned"
        self.n_learning = max(1, n_steps - round(config.training.settle * n_steps))
        self.network: Reconstructor = plugins.build("reconstructor", config.reconstructor).to(ranks.device)
        if config.training.compile:
            # its layers, not its own forward: there it calls the physics, which is no graph of layers
            for layers in self.network.children():
                layers.compile()
        table = config.parameterization if self.learns else {"kind": "fixed"}
        self.parameterization: Parameterization = plugins.build("parameterization", table, initial)
        scanner = config.scanner
        self.projection = Projection(_constraints(config, scanner), initial, config.limits.iterations)
        penalised = replace(scanner, limit_norm="axis") if config.limits.penalty_norm == "axis" else scanner
        self.penalised = _constraints(config, penalised)
        groups = [
            {"params": list(self.parameterization.parameters()), "lr": config.training.trajectory_rate},
            {"params": list(self.network.parameters()), "lr": config.training.network_rate},
        ]
        self.optimizer = torch.optim.Adam(groups)
        durations = (self.n_learning, n_steps)
        self.anneal = torch.optim.lr_scheduler.LambdaLR(self.optimizer, [partial(_cosine, n=n) for n in durations])
        self.spectra = SpectrumCache(config.training.spectra_bytes)
        self.noise = torch.Generator().manual_seed(config.seed)
        self.trajectory = initial
        self.encoding: Encoding | None = None
        self.lost = 0
        self.most_lost = min(_MOST_LOST_STEPS, n_steps - 1)

    @property
    def parameters(self) -> list[Tensor]:
        """What is learned now."""
        return [*self.parameterization.parameters(), *self.network.parameters()]

    def step(self, coil_images: Tensor, numbers: Sequence[int] = (), *, constrained: bool) -> tuple[float, float]:
        """Take one step on this rank's coil images (batch, coil, y, x), of these numbers in the data.

        Returns the image loss of all ranks' images, and the limits' penalty.
        """
        wanted = self.parameterization()
        method = self.config.limits.method if constrained else "none"
        project = self.learns and method == "project"
        trajectory = self.projection(wanted) if project else wanted
        penalty, weighted = self._penalty(wanted, trajectory)
        self.optimizer.zero_grad()
        loss, slope = self._backward(coil_images, numbers, trajectory)
        goal = (trajectory.k * slope).sum() + (weighted if method != "none" else 0)
        if goal.requires_grad:
            goal.backward()
        loss = self.ranks.average(loss, self.parameters)
        if self.parameters:
            self._descend(loss + goal.detach().to(loss))
        self.trajectory = trajectory.with_k(trajectory.k.detach())
        return float(loss), float(penalty.detach())

    def settle(self) -> None:
        """Learn no more of the trajectory: what is played is as it will be, and the network goes on with that."""
        self.parameterization = plugins.build("parameterization", {"kind": "fixed"}, self.final())
        self.learns, self.encoding = False, None

    def final(self) -> Trajectory:
        """Return the trajectory after the last step, projected until nothing moves if it is to keep the limits."""
        trajectory = self.parameterization()
        settings = self.config.limits
        if self.learns and (settings.repair or settings.method == "project"):
            self.projection.n_iterations = _FINAL_ITERATIONS
            trajectory = self.projection(trajectory)
        return trajectory.with_k(trajectory.k.detach(), f"{self.config.name} {self.stage}")

    def _penalty(self, wanted: Trajectory, played: Trajectory) -> tuple[Tensor, Tensor]:
        """Return the limits' penalty, and the same weighted.

        It pulls what is wanted onto the limits that a projection enforces, and what is played onto the others.
        """
        penalty = weighted = torch.zeros(())
        for limit in self.penalised:
            excess = limit.penalty(played if limit.derivative is None else wanted)
            penalty = penalty + excess
            weighted = weighted + excess * (self.config.limits.weight if limit.weight is None else limit.weight)
        return penalty, weighted

    def _backward(self, coil_images: Tensor, numbers: Sequence[int], trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Return the image loss and its gradient to k, and leave the network's gradients in place.

        The images go through in parts. The trajectory is cut off what made it, so that parameterization and
        projection are gone back through once, whatever the number of parts.
        """
        settings, device = self.config.training, self.ranks.device
        k = trajectory.k.detach().requires_grad_(trajectory.k.requires_grad)
        total = torch.zeros((), device=device)
        seeds = self.ranks.shard(draw_seeds(len(coil_images) * self.ranks.size, self.noise))
        n_at_once = settings.slices_at_once or slices_at_once(coil_images.shape, device)
        normal = settings.normal
        if normal == "auto":  # for the whole batch, so that neither parts nor ranks change what is computed
            normal = faster_normal(self.ranks.size * len(coil_images) * coil_images.shape[1], device)
        if self.encoding is None or k.requires_grad:  # that of a fixed trajectory is made once
            last = None if self.encoding is None else self.encoding.weights
            played = actual(trajectory.with_k(k), self.config.response)
            self.encoding = Encoding(played, device=device, normal=normal)
            self.encoding.weights = self.encoding.followed_weights(last)
        encoding = self.encoding
        cut = encoding.cut()
        for start in range(0, len(coil_images), n_at_once):
            part = slice(start, start + n_at_once)
            images = coil_images[part].to(device, non_blocking=True)
            spectra = [] if normal == "chain" else self.spectra.of(numbers[part], images)
            image, reference = reconstruct(images, cut, self.network, self.config, seeds[part], spectra)
            loss = metrics.image_loss(image, reference, settings.ssim_weight, 1.0) * (len(images) / len(coil_images))
            if loss.requires_grad:
                loss.backward()
            total += loss.detach()
        encoding.carry_on(cut)
        return total, torch.zeros_like(k) if k.grad is None else k.grad

    def _descend(self, loss: Tensor) -> None:
        """Step down the gradient, unless it is not finite."""
        values = [loss, *(p.grad for p in self.parameters if p.grad is not None)]
        if bool(torch.stack([v.isfinite().all().to(loss.device) for v in values]).all()):  # waits for a GPU once
            self.optimizer.step()
            self.anneal.step()
            self.lost = 0
        else:
            self.lost += 1
            if self.lost > self.most_lost:
                raise DivergedError(f"no finite loss or gradient in {self.lost} steps; lower the learning rates.")


def _constraints(config: Config, scanner: Scanner) -> list[Constraint]:
    """Return the constraints of a config for a scanner."""
    return limits.constraints(config.acquisition, scanner, config.limits.constraints, config.limits.options)


def _cosine(step: int, n: int) -> float:
    """Return the part of a learning rate that is left at a step, of `n` until it is zero."""
    return (1 + math.cos(math.pi * min(step / n, 1))) / 2


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


def slices_at_once(shape: Sequence[int], device: torch.device) -> int:
    """Return how many of a batch (batch, coil, y, x) go through the network together.

    On a CPU few are as fast as many, and take less memory: about 2^19 pixels, and 2^20 of all coils.
    """
    n_images, n_coils, *pixels = shape
    return max(1, min(2**19, 2**20 // n_coils) // math.prod(pixels)) if device.type == "cpu" else n_images


def _order(n_images: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the images of each step, shuffled anew in every epoch, what is left of one left out; without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as torch's loader does: the same order
        epoch = torch.randperm(n_images, generator=generator).tolist()
        yield from (epoch[i : i + batch_size] for i in range(0, n_images - batch_size + 1, batch_size))
