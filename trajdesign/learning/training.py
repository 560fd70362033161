"""The training loop: steps, validations, checkpoints."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config.models import Config
from trajdesign.interfaces import Progress, Reconstructor
from trajdesign.learning import checkpoint, progress
from trajdesign.learning.checkpoint import Keeper
from trajdesign.learning.evaluation import evaluate
from trajdesign.learning.state import Done, TrainingState, Validation
from trajdesign.learning.step import Joint
from trajdesign.runtime import prefetch
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory


@dataclass(frozen=True)
class FinishedTraining:
    """What a training leaves.

    `n_skipped` counts the steps without a finite loss or gradient, which changed nothing. One that ended early has the
    `state` from which it goes on.
    """

    trajectory: Trajectory
    network: Reconstructor
    history: list[Validation]
    seconds: float
    n_skipped: int
    state: TrainingState | None = None


@dataclass(frozen=True)
class Trainer:
    """What all trainings of a run share.

    `data` holds the images by split: ``train``, ``val`` and ``test``. The `ranks` share every batch; losses are those
    of the whole batch. `report` is called after every step. The `keeper` keeps the state and knows when to leave, and
    `tell` is called with a sentence on what takes long.
    """

    config: Config
    data: dict[str, Dataset[Tensor]]
    ranks: Ranks
    report: Callable[[Progress], None] = lambda _: None
    keeper: Keeper = field(default_factory=Keeper)
    tell: Callable[[str], None] = lambda _: None

    def train(
        self, initial: Trajectory, stage: str, begun: TrainingState | None = None, part: float = 1.0
    ) -> FinishedTraining:
        """Train the network on the fixed initial trajectory, or with ``stage = "learned"`` both together.

        From where a training has `begun` it goes on as if there had been no break. With `part` it ends early, at the
        first validation after that part of all steps.

        Raises
        ------
        ConfigError
            If a batch cannot be shared evenly among the ranks.
        DivergedError
            If the loss or a gradient is not finite in more than ten steps in a row, or in every step.
        Interrupted
            If the keeper was asked to leave.
        """
        config, settings, ranks, keeper = self.config, self.config.training, self.ranks, self.keeper
        n_images: int = len(self.data["train"])  # type: ignore[arg-type]
        batch_size = min(settings.batch_size, n_images)
        ranks.require_shares(batch_size)
        steps_an_epoch = n_images // batch_size
        n_steps = settings.epochs * steps_an_epoch
        first_constrained = config.limits.from_epoch * steps_an_epoch + 1
        validate_at = {max(1, round(n_steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
        end = min(step for step in validate_at if step >= part * n_steps)
        joint, done = Joint(config, initial, stage, n_steps, ranks), Done()
        started = time.perf_counter()
        if begun is None:
            kind = config.parameterization["kind"]
            with progress.taking_long(
                self.tell, f"Choosing by the training images (parameterization.kind = {kind}) ..."
            ):
                joint.choose(self.data["train"])
        else:
            with checkpoint.fitting():
                done = begun.done
                joint.load_state(begun.joint, done.step)
            started -= done.seconds
        order = itertools.islice(_order(n_images, batch_size, config.seed), done.step, end)
        shares, ahead = itertools.tee(map(ranks.shard, order))
        epochs = (step // steps_an_epoch for step in itertools.count(done.step))
        batches = prefetch.stream(
            self.data["train"], ahead, seed=config.seed, epochs=epochs, workers=settings.workers, device=ranks.device
        )
        with keeper.signals.deferred():
            for step, (numbers, coil_images) in enumerate(zip(shares, batches, strict=True), start=done.step + 1):
                if step == joint.n_learning + 1:
                    joint.settle()
                joint.parameterization.refine((step - 1) / joint.n_learning)
                asked = bool(keeper.signals.noted)
                loss, penalty = joint.step(coil_images, numbers, constrained=step >= first_constrained, asked=asked)
                done.losses.append(loss)
                if step in validate_at:
                    scores = evaluate(joint.trajectory, joint.network, self.data["val"], config, ranks)
                    mean, seconds = sum(done.losses) / len(done.losses), time.perf_counter() - started
                    at = Validation(
                        stage, step, step / steps_an_epoch, mean, scores.psnr, scores.ssim, penalty, seconds
                    )
                    done.losses, done.psnr = [], scores.psnr
                    done.history.append(at)
                done.step, done.seconds = step, time.perf_counter() - started
                self.report(Progress(stage, step, n_steps, loss, done.psnr, step in validate_at))
                leaves = joint.asked or (ranks.size == 1 and bool(keeper.signals.noted))
                keeper.after_step(done, joint.state, is_good=joint.lost == 0, is_last=step == end, leaves=leaves)
        seconds = time.perf_counter() - started
        state = TrainingState(done, joint.state()) if part < 1 else None
        trajectory = joint.final() if state is None else joint.trajectory
        return FinishedTraining(trajectory, joint.network, done.history, seconds, joint.n_skipped, state)


def _order(n_images: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the images of each step without end, shuffled in every epoch; an incomplete last batch is left out."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as torch's loader does: the same order
        epoch = torch.randperm(n_images, generator=generator).tolist()
        yield from (epoch[i : i + batch_size] for i in range(0, n_images - batch_size + 1, batch_size))
