"""One step of the joint training: a trajectory and a network, and what follows them from step to step."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config import plugins
from trajdesign.config.models import Config
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.spectrum_cache import SpectrumCache
from trajdesign.errors import DivergedError
from trajdesign.interfaces import Constraint
from trajdesign.learning.evaluation import draw_seeds, encoding_of, reconstruct, static_field
from trajdesign.learning.results import FIXED, LEARNED
from trajdesign.learning.state import JointState
from trajdesign.physics import limits
from trajdesign.physics.perturbation import Perturbations
from trajdesign.physics.projection import Projection
from trajdesign.physics.response import Response
from trajdesign.reconstruction import metrics
from trajdesign.runtime import memory, randomness
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory

_MOST_LOST_STEPS = 10  # steps in a row without a finite loss or gradient after which a run has diverged
_FINAL_ITERATIONS = 2000  # of the projection after the last step
_WARMING = 0.05  # part of all steps in which the network's learning rate rises
_TRAINING = 1  # beside the seed of a run, what its noise and errors are drawn from
_STEEPEST = 0.1  # norm of the network's gradient: longer ones are shortened to it


class Joint:
    """Trajectory and network, and what follows them from step to step: projection, density, learning rates."""

    def __init__(self, config: Config, initial: Trajectory, stage: str, n_steps: int, ranks: Ranks) -> None:
        memory.keep()
        torch.manual_seed(config.seed)
        self.config, self.stage, self.ranks = config, stage, ranks
        self.n_learning = max(1, n_steps - round(config.training.settle * n_steps))
        self.network = plugins.build("reconstructor", config.reconstructor).to(ranks.device)
        if config.training.compile:
            # its layers, not its own forward: there it calls the physics, which is no graph of layers
            for layers in self.network.children():
                layers.compile()
        table = config.parameterization if stage == LEARNED else {"kind": FIXED}
        self.parameterization = plugins.build("parameterization", table, initial)
        #: Whether steps move the trajectory; what they leave alone is not projected either.
        self.learns = any(True for _ in self.parameterization.parameters())
        self.response, self.field = Response(config.response), static_field(config)
        self.perturbations = Perturbations(config.perturbation) if config.perturbation else None
        kept, self.penalised = constraints_of(config), constraints_of(config, config.limits.penalty_norm)
        if self.learns:
            kept, self.penalised = ([limit.from_start(initial) for limit in each] for each in (kept, self.penalised))
        self.projection = Projection(kept, self.parameterization.waveforms, config.limits.iterations)
        groups = [
            {"params": list(self.parameterization.parameters()), "lr": config.training.trajectory_rate},
            {"params": list(self.network.parameters()), "lr": config.training.network_rate},
        ]
        self.optimizer = torch.optim.Adam(groups)
        anneal = partial(_cosine, n=self.n_learning), partial(_warmed, n=n_steps)
        self.anneal = torch.optim.lr_scheduler.LambdaLR(self.optimizer, [*anneal])
        self.settled = self.asked = False
        self.spectra = SpectrumCache(config.training.spectra_bytes)
        self.noise = randomness.generator(config.seed, _TRAINING)  # another than validation and test draw from
        self.trajectory = initial
        self.encoding: Encoding | None = None
        self.weights: Tensor | None = None
        self.lost = self.n_skipped = 0
        self.most_lost = min(_MOST_LOST_STEPS, n_steps - 1)

    @property
    def parameters(self) -> list[Tensor]:
        """What is learned now."""
        return [*self.parameterization.parameters(), *self.network.parameters()]

    def choose(self, images: Dataset[Tensor]) -> None:
        """Let the parameterization look at the training images, before the first step; the first rank's choice counts.

        What an item draws at random depends on the seed of the run alone.
        """
        with randomness.drawn_from(self.config.seed):
            if self.ranks.is_first:
                self.parameterization.choose(images, self.config.training.noise)
        [chosen] = self.ranks.gather([self.parameterization.state_dict()] if self.ranks.is_first else [])
        self.parameterization.load_state_dict(chosen)

    def step(
        self, coil_images: Tensor, numbers: Sequence[int] = (), *, constrained: bool, asked: bool = False
    ) -> tuple[float, float]:
        """Take one step on this rank's coil images (batch, coil, y, x), of these numbers in the data.

        Returns the image loss of all ranks' images, and the limits' penalty. Where a rank was `asked` to leave, all
        are from then on.
        """
        wanted = self.parameterization()
        method = self.config.limits.method if constrained else "none"
        project = self.learns and method == "project"
        trajectory = self.parameterization.onto_limits(wanted, self.projection) if project else wanted
        penalty, weighted = self._penalty(wanted, trajectory)
        self.optimizer.zero_grad()
        loss, slope = self._backward(coil_images, numbers, trajectory)
        goal = (trajectory.points * slope).sum() + (weighted if method != "none" else 0)
        if goal.requires_grad:
            goal.backward()
        both = torch.stack([loss, loss.new_tensor(float(asked))])  # so that all ranks leave after the same step
        loss, any_asked = self.ranks.average(both, self.parameters)
        self.asked = bool(any_asked)
        if self.parameters:
            self._descend(loss + goal.detach().to(loss))
        self.trajectory = trajectory.with_points(trajectory.points.detach())
        return float(loss), float(penalty.detach())

    def settle(self) -> None:
        """Learn no more of the trajectory: what is played is as it will be, and the network goes on with that."""
        self.parameterization = plugins.build("parameterization", {"kind": FIXED}, self.final())
        self.learns, self.settled = False, True
        self.encoding = self.weights = None

    def final(self) -> Trajectory:
        """Return the trajectory after the last step, projected until nothing moves if it is to keep the limits."""
        trajectory = self.parameterization()
        settings = self.config.limits
        if self.learns and (settings.repair or settings.method == "project"):
            self.projection.n_iterations = _FINAL_ITERATIONS
            trajectory = self.parameterization.onto_limits(trajectory, self.projection)
        return trajectory.with_points(trajectory.points.detach(), f"{self.config.name} {self.stage}")

    def state(self) -> JointState:
        """Return all that the next step depends on, beside the config."""
        device = self.ranks.device
        return JointState(
            settled=self.settled,
            k=self.trajectory.points,
            parameterization=self.parameterization.state_dict(),
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            anneal=self.anneal.state_dict(),
            projection=self.projection.state(),
            weights=None if self.weights is None else self.weights.detach(),
            spectra=self.spectra.state(),
            lost=[self.lost, self.n_skipped],
            noise=self.noise.get_state(),
            random=torch.get_rng_state(),
            random_cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )

    def load_state(self, state: JointState, step: int) -> None:
        """Go on from the `state` after a step, as if there had been no break."""
        self.trajectory = self.trajectory.with_points(state.k)
        if state.settled:
            self.parameterization = plugins.build("parameterization", {"kind": FIXED}, self.trajectory)
            self.learns, self.settled = False, True
        else:
            # first the resolution of that step, of which its coefficients are
            self.parameterization.refine((step - 1) / self.n_learning)
            self.parameterization.load_state_dict(state.parameterization)
        self.network.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        self.anneal.load_state_dict(state.anneal)
        self.projection.load_state(state.projection)
        self.weights = None if state.weights is None else state.weights.to(self.ranks.device)
        self.spectra.load_state(state.spectra)
        self.lost, self.n_skipped = state.lost
        self.noise.set_state(state.noise)
        torch.set_rng_state(state.random)
        if state.random_cuda is not None and self.ranks.device.type == "cuda":
            torch.cuda.set_rng_state(state.random_cuda, self.ranks.device)

    def _penalty(self, wanted: Trajectory, played: Trajectory) -> tuple[Tensor, Tensor]:
        """Return the limits' penalty, and the same weighted.

        It pulls what is wanted onto the limits that a projection enforces, and what is played onto the others.
        """
        penalty = weighted = torch.zeros(())
        for limit in self.penalised:
            excess = limit.penalty(wanted if limit.is_enforced() else played)
            penalty = penalty + excess
            weighted = weighted + excess * (self.config.limits.weight if limit.weight is None else limit.weight)
        return penalty, weighted

    def _backward(self, coil_images: Tensor, numbers: Sequence[int], trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Return the image loss and its gradient to k, and leave the network's gradients in place.

        The images go through in parts. The gradient stops at k: the parameterization and the projection are gone back
        through once, whatever the number of parts.
        """
        settings, device = self.config.training, self.ranks.device
        k = trajectory.points.detach().requires_grad_(trajectory.points.requires_grad)
        total = torch.zeros((), device=device)
        seeds = self.ranks.shard(draw_seeds(len(coil_images) * self.ranks.size, self.noise))
        n_at_once = settings.slices_at_once or slices_at_once(coil_images.shape, device)
        if self.encoding is None or k.requires_grad:  # that of a fixed trajectory is made once
            played = self.response(trajectory.with_points(k))
            self.encoding = encoding_of(self.config, played, self.field, device)
            if self.weights is None or k.requires_grad:
                self.weights = self.encoding.followed_weights(self.weights)
            self.encoding.weights = self.weights
        encoding = self.encoding
        sampling = None  # the batch is one scan
        if self.perturbations is not None:
            (seed,) = draw_seeds(1, self.noise).tolist()
            sampling = self.perturbations.encoding(trajectory.with_points(k), self.response, seed, encoding)
        # for the whole batch, so that neither parts nor ranks change what is computed
        cut = encoding.cut(self.ranks.size * len(coil_images) * coil_images.shape[1])
        sampled = None if sampling is None else sampling.cut(0)
        for start in range(0, len(coil_images), n_at_once):
            part = slice(start, start + n_at_once)
            images = coil_images[part].to(device, non_blocking=True)
            field = None if self.field is None else self.field.maps(seeds[part])
            is_kept = field is None and sampling is None and cut.takes_spectra
            spectra = self.spectra.of(numbers[part], coil_images[part], device) if is_kept else []
            image, reference = reconstruct(images, cut, self.network, settings, seeds[part], spectra, field, sampled)
            loss = metrics.image_loss(image, reference, settings.ssim_weight, 1.0, settings.motion_weight)
            loss = loss * (len(images) / len(coil_images))
            if loss.requires_grad:
                loss.backward()
            total += loss.detach()
        encoding.carry_on(cut)
        if sampling is not None and sampled is not None:
            sampling.carry_on(sampled)
        return total, torch.zeros_like(k) if k.grad is None else k.grad

    def _descend(self, loss: Tensor) -> None:
        """Step down the gradient, unless it is not finite."""
        values = [loss, *(p.grad for p in self.parameters if p.grad is not None)]
        if bool(torch.stack([v.isfinite().all().to(loss.device) for v in values]).all()):  # waits for a GPU once
            if weights := list(self.network.parameters()):
                torch.nn.utils.clip_grad_norm_(weights, _STEEPEST)
            self.optimizer.step()
            self.anneal.step()
            self.lost = 0
        else:
            self.lost += 1
            self.n_skipped += 1
            if self.lost > self.most_lost:
                raise DivergedError(f"no finite loss or gradient in {self.lost} steps; lower the learning rates.")


def constraints_of(config: Config, norm: Literal["scanner", "axis"] = "scanner") -> list[Constraint]:
    """Return the constraints of a config, in the norm of its scanner or of the largest axis."""
    scanner = replace(config.scanner, limit_norm="axis") if norm == "axis" else config.scanner
    return limits.constraints(config.acquisition, scanner, config.limits.constraints, config.limits.options)


def _cosine(step: int, n: int) -> float:
    """Return the fraction of a learning rate that is left at a step; it is zero at step `n`."""
    return (1 + math.cos(math.pi * min(step / n, 1))) / 2


def _warmed(step: int, n: int) -> float:
    """Do as `_cosine`, from nearly nothing on: the first steps of a network without normalization are far too large."""
    return _cosine(step, n) * min(1.0, (step + 1) / max(1, _WARMING * n))


def slices_at_once(shape: Sequence[int], device: torch.device) -> int:
    """Return how many of a batch (batch, coil, y, x) go through the network together.

    On a CPU few are as fast as many, and take less memory: about 2^19 pixels, and 2^20 of all coils, in even parts.
    """
    n_images, n_coils, *pixels = shape
    if device.type != "cpu":
        return n_images
    most = max(1, min(2**19, 2**20 // n_coils) // math.prod(pixels))
    n_parts = -(-n_images // most)
    return -(-n_images // n_parts)
