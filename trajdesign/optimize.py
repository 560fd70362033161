"""The joint loop: learn a trajectory and a reconstruction network on images, and the same network without learning."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trajdesign import limits, metrics, plugins
from trajdesign.config import Config
from trajdesign.density import density_compensation
from trajdesign.encoding import Encoding, angular
from trajdesign.errors import DivergedError, InputError, ResourceError
from trajdesign.interfaces import Parameterization, Reconstructor
from trajdesign.projection import Projection
from trajdesign.reconstructors.adjoint import root_sum_of_squares
from trajdesign.run import RunFolder
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
        The whole run.
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
        What ``metrics.json`` holds: test results of ``fixed`` and ``learned``, ``wilcoxon_p`` and ``limits``.

    Raises
    ------
    LimitError
        If the initial pattern cannot be played, or (a bug) the learned one cannot.
    OutputError, ResourceError, DivergedError
        If the folder is taken, the device is missing, or the loss leaves the finite numbers.
    """
    chosen = torch_device(device)
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    limits.require(initial, config.limits.constraints)
    data = datasets(config)
    # what cannot be built is refused before the folder is touched and the baseline trained
    plugins.build("parameterization", config.parameterization, initial)
    plugins.build("reconstructor", config.reconstructor)
    folder = RunFolder(out)
    folder.create(config, overwrite=overwrite)
    initial.save(folder.path / "initial.npz")

    results: dict[str, Any] = {"name": config.name}
    history: list[dict[str, Any]] = []
    for stage in ("fixed", "learned") if baseline else ("learned",):
        started = time.perf_counter()
        trained = train(config, initial, data, stage, chosen, report)
        scores = evaluate(trained.trajectory, trained.network, data["test"], config)
        results[stage] = {**scores, "seconds": time.perf_counter() - started}
        history += trained.history
        folder.write_history(history)
        folder.save_network(trained.network, "network" if stage == "learned" else "network_fixed")

    findings = limits.require(trained.trajectory, config.limits.constraints)
    trained.trajectory.save(folder.path / "trajectory.npz")
    if baseline:
        results["wilcoxon_p"] = {
            key: metrics.wilcoxon_p(results["learned"][f"{key}_list"], results["fixed"][f"{key}_list"])
            for key in ("psnr", "ssim")
        }
    results["limits"] = limits.summary(trained.trajectory, findings)
    folder.write_metrics(results)
    return results


def train(
    config: Config,
    initial: Trajectory,
    data: dict[str, Dataset[Tensor]],
    stage: str,
    device: torch.device,
    report: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train the network on the fixed initial trajectory, or with ``stage = "learned"`` both together.

    Raises
    ------
    DivergedError
        If the loss or a gradient is not finite in more than ten steps in a row, or in every step.
    """
    settings = config.training
    steps_an_epoch = max(1, len(data["train"]) // settings.batch_size)  # type: ignore[arg-type]
    n_steps = settings.epochs * steps_an_epoch
    first_constrained = config.limits.from_epoch * steps_an_epoch + 1
    validate_at = {max(1, round(n_steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
    joint = _Joint(config, initial, stage, n_steps, device)
    history: list[dict[str, Any]] = []
    losses: list[float] = []
    psnr, started = math.nan, time.perf_counter()

    for step, coil_images in enumerate(_batches(data["train"], config, n_steps), start=1):
        loss, penalty = joint.step(coil_images.to(device), constrained=step >= first_constrained)
        losses.append(loss)
        if step in validate_at:
            scores = evaluate(joint.trajectory, joint.network, data["val"], config)
            psnr = scores["psnr"]
            row = {"stage": stage, "step": step, "epoch": step / steps_an_epoch, "loss": sum(losses) / len(losses)}
            row |= {"val_psnr": psnr, "val_ssim": scores["ssim"], "penalty": penalty}
            history.append(row | {"seconds": time.perf_counter() - started})
            losses = []
        report(Progress(stage, step, n_steps, loss, psnr))
    return Trained(joint.final(), joint.network, history)


class _Joint:
    """Trajectory and network, and what follows them from step to step: projection, density, learning rates."""

    def __init__(self, config: Config, initial: Trajectory, stage: str, n_steps: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.stage, self.device = config, stage, device
        self.network: Reconstructor = plugins.build("reconstructor", config.reconstructor).to(device)
        table = config.parameterization if stage == "learned" else {"kind": "fixed"}
        self.parameterization: Parameterization = plugins.build("parameterization", table, initial)
        self.constraints = limits.constraints(config.acquisition, config.scanner, config.limits.constraints)
        self.projection = Projection(self.constraints, initial, config.limits.iterations)
        rates = {self.parameterization: config.training.trajectory_rate, self.network: config.training.network_rate}
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in rates.items()]
        self.optimizer = torch.optim.Adam(groups)
        self.anneal = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, n_steps)
        self.trains = any(group["params"] for group in groups)
        self.trajectory = initial
        self.weights: Tensor | None = None
        self.lost = 0
        self.most_lost = min(_MOST_LOST_STEPS, n_steps - 1)

    def step(self, coil_images: Tensor, *, constrained: bool) -> tuple[float, float]:
        """Take one step on coil images (batch, coil, y, x); returns the image loss and the limits' penalty."""
        wanted = self.parameterization()
        penalty = sum((c.penalty(wanted) for c in self.constraints), start=torch.zeros(()))
        project = self.stage == "learned" and constrained and self.config.limits.method == "project"
        trajectory = self.projection(wanted) if project else wanted
        self.weights = _follow(trajectory, self.weights, self.device)
        encoding = Encoding(trajectory, weights=self.weights, device=self.device)
        image, reference = reconstruct(coil_images, encoding, self.network, self.config)
        loss = metrics.image_loss(image, reference, self.config.training.ssim_weight)
        if self.trains:
            self._descend(loss + self.config.limits.weight * penalty if constrained else loss)
        self.trajectory = trajectory.with_k(trajectory.k.detach())
        return float(loss.detach()), float(penalty.detach())

    def final(self) -> Trajectory:
        """Return the trajectory after the last step, projected until nothing moves."""
        trajectory = self.parameterization()
        if self.stage == "learned":
            self.projection.n_iterations = _FINAL_ITERATIONS
            trajectory = self.projection(trajectory)
        return trajectory.with_k(trajectory.k.detach(), f"{self.config.name} {self.stage}")

    def _descend(self, loss: Tensor) -> None:
        """Step down the gradient, unless it is not finite."""
        self.optimizer.zero_grad()
        loss.backward()
        if _all_finite(loss, self.parameterization, self.network):
            self.optimizer.step()
            self.anneal.step()
            self.lost = 0
        else:
            self.lost += 1
            if self.lost > self.most_lost:
                raise DivergedError(f"no finite loss or gradient in {self.lost} steps; lower the learning rates.")


@torch.no_grad()
def evaluate(
    trajectory: Trajectory, network: Reconstructor, dataset: Dataset[Tensor], config: Config
) -> dict[str, Any]:
    """Reconstruct every image of a set and compare with its root sum of squares.

    Returns
    -------
    dict
        ``n``, the means ``psnr`` (dB), ``ssim`` and ``nrmse``, and the values of each image as ``psnr_list``, ...
    """
    lists: dict[str, list[float]] = {"psnr": [], "ssim": [], "nrmse": []}
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    encoding = Encoding(trajectory, device=device)
    network.eval()
    generator = torch.Generator().manual_seed(config.seed)
    for coil_images in DataLoader(dataset, batch_size=config.training.batch_size):
        image, reference = reconstruct(coil_images.to(device), encoding, network, config, generator)
        lists["psnr"] += metrics.psnr(image, reference, 1.0).tolist()
        lists["ssim"] += metrics.ssim(image, reference, 1.0).tolist()
        lists["nrmse"] += metrics.nrmse(image, reference).tolist()
    network.train()
    means = {key: sum(values) / len(values) for key, values in lists.items()}
    return {"n": len(lists["psnr"]), **means, **{f"{key}_list": values for key, values in lists.items()}}


def reconstruct(
    coil_images: Tensor,
    encoding: Encoding,
    network: Reconstructor,
    config: Config,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample and reconstruct coil images (batch, coil, y, x); returns image and reference (batch, 1, y, x)."""
    kspace = _with_noise(encoding.forward(coil_images), config, generator)
    return network(kspace, encoding), root_sum_of_squares(coil_images)


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


def torch_device(name: str) -> torch.device:
    """Return a torch device that is there; ``auto`` prefers CUDA.

    Raises
    ------
    ResourceError
        If the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ResourceError(f"device {name!r} is not available; found: {', '.join(found)}.") from None
    return device


def _batches(dataset: Dataset[Tensor], config: Config, n_steps: int) -> Iterator[Tensor]:
    """Shuffled batches of coil images for `n_steps` steps, the same for the same seed."""
    generator = torch.Generator().manual_seed(config.seed)
    loader = DataLoader(
        dataset,
        batch_size=config.training.batch_size,
        shuffle=True,
        drop_last=len(dataset) >= config.training.batch_size,  # type: ignore[arg-type]
        generator=generator,
    )
    done = 0
    while True:
        for batch in loader:
            yield batch
            done += 1
            if done == n_steps:
                return


def _follow(trajectory: Trajectory, weights: Tensor | None, device: torch.device) -> Tensor:
    """Density compensation (shot, sample) of a trajectory that moves a little each step, from the last one's."""
    omega = angular(trajectory).detach().to(device, torch.float32).flatten(0, 1)
    shape = trajectory.acquisition.image_shape
    if weights is None:
        new = density_compensation(omega, shape)
    else:
        new = density_compensation(omega, shape, n_iterations=1, start=weights.flatten())
    return new.view(trajectory.acquisition.n_shots, -1)


def _with_noise(kspace: Tensor, config: Config, generator: torch.Generator | None = None) -> Tensor:
    """Add complex Gaussian noise of the level that a fully sampled image of one coil would show."""
    if not config.training.noise:
        return kspace
    scale = config.training.noise * math.sqrt(math.prod(config.acquisition.matrix) / 2)
    noise = torch.randn((*kspace.shape, 2), generator=generator).to(kspace.device) * scale
    return kspace + torch.view_as_complex(noise)


def _all_finite(loss: Tensor, *modules: torch.nn.Module) -> bool:
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    return bool(torch.isfinite(loss)) and all(bool(torch.isfinite(g).all()) for g in gradients)
