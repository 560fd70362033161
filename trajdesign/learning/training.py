"""The training loop: steps, validations, checkpoints."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config.models import Config
from trajdesign.interfaces import Progress, Reconstructor
from trajdesign.learning import checkpoint
from trajdesign.learning.checkpoint import Keeper
from trajdesign.learning.evaluation import evaluate
from trajdesign.learning.step import Joint
from trajdesign.runtime import prefetch
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory


@dataclass
class Trained:
    """What a training leaves."""

    trajectory: Trajectory
    network: Reconstructor
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    n_skipped: int = 0
    """Steps without a finite loss or gradient, which changed nothing."""
    state: dict[str, Any] = field(default_factory=dict)
    """What `train` goes on from."""


@dataclass
class _Done:
    """What a training has behind it after a step."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Since the last validation."""
    psnr: float = math.nan
    history: list[dict[str, Any]] = field(default_factory=list)

    def validated(self, at: dict[str, Any], scores: dict[str, Any], *, penalty: float, seconds: float) -> None:
        """Note a validation."""
        self.psnr = scores["psnr"]
        loss = sum(self.losses) / len(self.losses)
        row = {**at, "loss": loss, "val_psnr": self.psnr, "val_ssim": scores["ssim"]}
        self.history.append(row | {"penalty": penalty, "seconds": seconds})
        self.losses = []


def train(
    config: Config,
    initial: Trajectory,
    data: dict[str, Dataset[Tensor]],
    stage: str,
    ranks: Ranks,
    report: Callable[[Progress], None] = lambda _: None,
    keeper: Keeper | None = None,
    state: dict[str, Any] | None = None,
    part: float = 1.0,
) -> Trained:
    """Train the network on the fixed initial trajectory, or with ``stage = "learned"`` both together.

    Each rank takes its part of every batch; the losses are those of the whole batch. From a `state` that a `keeper`
    was given the training goes on as if there had been no break. With `part` it ends early, at the first validation
    after that part of all steps.

    Raises
    ------
    ConfigError
        If a batch cannot be shared evenly among the ranks.
    DivergedError
        If the loss or a gradient is not finite in more than ten steps in a row, or in every step.
    Interrupted
        If the keeper was asked to leave.
    """
    settings, keeper = config.training, keeper or Keeper()
    n_images: int = len(data["train"])  # type: ignore[arg-type]
    batch_size = min(settings.batch_size, n_images)
    ranks.require_shares(batch_size)
    steps_an_epoch = n_images // batch_size
    n_steps = settings.epochs * steps_an_epoch
    first_constrained = config.limits.from_epoch * steps_an_epoch + 1
    validate_at = {max(1, round(n_steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
    end = min(step for step in validate_at if step >= part * n_steps)
    joint, done = Joint(config, initial, stage, n_steps, ranks), _Done()
    if state is not None:
        with checkpoint.fitting():
            done = _Done(**state["done"])
            joint.load_state(state["joint"], done.step)
    started = time.perf_counter() - done.seconds
    order = itertools.islice(_order(n_images, batch_size, config.seed), done.step, end)
    shares, ahead = itertools.tee(map(ranks.shard, order))
    epochs = (step // steps_an_epoch for step in itertools.count(done.step))
    batches = prefetch.stream(
        data["train"], ahead, seed=config.seed, epochs=epochs, workers=settings.workers, device=ranks.device
    )

    def now() -> dict[str, Any]:
        return {"done": asdict(done), "joint": joint.state()}

    with keeper.signals.deferred():
        for step, (numbers, coil_images) in enumerate(zip(shares, batches, strict=True), start=done.step + 1):
            if step == joint.n_learning + 1:
                joint.settle()
            joint.parameterization.refine((step - 1) / joint.n_learning)
            asked = bool(keeper.signals.noted)
            loss, penalty = joint.step(coil_images, numbers, constrained=step >= first_constrained, asked=asked)
            done.losses.append(loss)
            if step in validate_at:
                scores = evaluate(joint.trajectory, joint.network, data["val"], config, ranks)
                at = {"stage": stage, "step": step, "epoch": step / steps_an_epoch}
                done.validated(at, scores, penalty=penalty, seconds=time.perf_counter() - started)
            done.step, done.seconds = step, time.perf_counter() - started
            report(Progress(stage, step, n_steps, loss, done.psnr, step in validate_at))
            leaves = joint.asked or (ranks.size == 1 and bool(keeper.signals.noted))
            keeper.after_step(step, now, is_good=joint.lost == 0, is_last=step == end, leaves=leaves)
    seconds = time.perf_counter() - started
    if part < 1:
        return Trained(joint.trajectory, joint.network, done.history, seconds, joint.n_skipped, now())
    return Trained(joint.final(), joint.network, done.history, seconds, joint.n_skipped)


def _order(n_images: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the images of each step, shuffled anew in every epoch, what is left of one left out; without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as torch's loader does: the same order
        epoch = torch.randperm(n_images, generator=generator).tolist()
        yield from (epoch[i : i + batch_size] for i in range(0, n_images - batch_size + 1, batch_size))
