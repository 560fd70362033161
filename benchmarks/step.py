"""The whole training step: ours, and one as in the paper, in turn, from the same seed; their losses must agree.

Neural ODE, penalty, density compensation, physics, U-Net, L1 and SSIM, back, Adam. As in the paper (Peng et al., CVPR
2022, doi:10.48550/arXiv.2204.02480): dopri5 with the adjoint ODE, and torchkbnufft one coil after the other. Ours: the
same right-hand side by one fixed step a raster, through which it back-propagates, and our own physics. Both penalise.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import trajdesign as td
from benchmarks.common import Row, Size, alternate, machine, parse, parser, save, say, timing
from benchmarks.peers import TorchKbNufftCoils
from trajdesign.config import plugins
from trajdesign.learning.step import Joint
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.runtime.processes import Ranks

COLUMNS = {
    "size": "size",
    "way": "way",
    "median_s": "median, s",
    "min_s": "least, s",
    "max_s": "largest, s",
    "ratio": "times ours",
    "steps": "steps",
    "loss_first": "first loss",
    "loss_last": "last loss",
    "loss_difference": "loss, largest distance from ours",
}
NOTE = (
    "The last row is what rounding does: the network and Adam part any two runs, the faster the higher the learning "
    "rates. A difference between ways of that size says nothing. With the default rate of the trajectory, 3e-3, runs "
    "that start one part in a million apart lie up to 0.02 apart within 50 steps, and more than the bar of 1e-3 with "
    "that of the network, 2e-3; so both are 1e-4 here."
)
ODE = {"kind": "neural_ode", "n_control": 100}
PAPER_ODE = {**ODE, "method": "dopri5", "adjoint": True}
OURS_ODE = {**ODE, "method": "rk4"}
_ANNEALED = 1000  # steps over which the learning rates fall
DISTINCT = 4  # batches, drawn before the clock runs and taken in turn

#: Takes a step on coil images, of these numbers in the data; returns the image loss.
Trainer = Callable[[Tensor, Sequence[int]], float]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = training_options(parser(__doc__))
    options.add_argument("--steps", type=int, default=50, help="training steps, each timed")
    settings = parse(options, arguments, Size(32, 4, 64, 2, 2))
    settings.repeats = steps = 3 if settings.quick else settings.steps
    facts = machine(settings.device)
    batches = draw(settings)
    trainers = {name: make(settings) for name, make in TRAINERS.items()}
    losses: dict[str, list[float]] = {name: [] for name in trainers}

    def train(name: str, number: int) -> None:
        images = batches[number % len(batches)]
        first = number % len(batches) * len(images)
        losses[name].append(trainers[name](images, range(first, first + len(images))))
        say(f"step {number + 1} of {steps}, {name}: loss {losses[name][-1]:.6f}")

    ways = {name: lambda number, name=name: train(name, number) for name in trainers}
    times = alternate(ways, steps, settings.device, first=0)
    rows: list[Row] = []
    for name, seconds in times.items():
        row: Row = {"size": settings.size.label, "way": name, "steps": steps, **timing(seconds)}
        row["ratio"] = row["median_s"] / timing(times["ours"])["median_s"]
        row["loss_first"], row["loss_last"] = losses[name][0], losses[name][-1]
        row["loss_difference"] = max(abs(a - b) for a, b in zip(losses[name], losses["ours"], strict=True))
        rows.append(row | {"losses": losses[name]})
    save("step", rows, COLUMNS, settings, facts, NOTE)
    return rows


def training_options(options: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options of what is trained."""
    options.add_argument("--images", nargs="+", help="NIfTI or NumPy files to train on, instead of the phantoms")
    options.add_argument("--trajectory-rate", type=float, default=1e-4)
    options.add_argument("--network-rate", type=float, default=1e-4)
    return options


def config(settings: argparse.Namespace, ode: dict[str, Any]) -> td.Config:
    """Return the run of a step."""
    size = settings.size
    data: dict[str, Any] = {"kind": "phantom", "n_train": DISTINCT * size.batch, "n_coils": size.coils}
    if settings.images:
        data = {"kind": "images", "train": settings.images, "n_coils": size.coils}
    matrix = {"matrix": (size.matrix, size.matrix), "n_shots": size.shots, "n_samples": size.samples}
    tables: dict[str, Any] = {
        "acquisition": matrix,
        "parameterization": ode,
        "limits": {"constraints": ["gradient", "slew"], "method": "penalty"},
        "data": data,
        "training": {
            "batch_size": size.batch,
            "trajectory_rate": settings.trajectory_rate,
            "network_rate": settings.network_rate,
        },
    }
    return td.Config(**tables)


def draw(settings: argparse.Namespace) -> list[Tensor]:
    """Return batches of coil images (batch, coil, y, x)."""
    run, batch = config(settings, OURS_ODE), settings.size.batch
    data = plugins.build("data", run.data, run.acquisition, "train")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(run.seed)).tolist()
    starts = range(0, min(len(order), DISTINCT * batch), batch)
    return [torch.stack([data[i] for i in order[s : s + batch]]).to(settings.device) for s in starts]


def joint(settings: argparse.Namespace, ode: dict[str, Any]) -> Joint:
    """Return the parts of a run, as `trajdesign.learning.step` makes them from the seed."""
    run = config(settings, ode)
    initial = plugins.build("init", run.init, run.acquisition, run.scanner)
    return Joint(run, initial, "learned", _ANNEALED, Ranks(device=torch.device(settings.device)))


class Ours:
    """The step of `trajdesign.learning.step`."""

    def __init__(self, settings: argparse.Namespace, ode: dict[str, Any]) -> None:
        self.joint = joint(settings, ode)

    def __call__(self, images: Tensor, numbers: Sequence[int]) -> float:
        """Take a step; returns the image loss."""
        return self.joint.step(images, numbers, constrained=True)[0]


class Jittered(Ours):
    """Our step on images that are one part in a million brighter: how far rounding alone takes two runs apart."""

    def __call__(self, images: Tensor, numbers: Sequence[int]) -> float:
        """Take a step; returns the image loss."""
        return super().__call__(images * (1 + 1e-6), numbers)


class Paper:
    """The step as in the paper, with the same network, losses and density compensation as ours, from the same seed."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.joint = joint(settings, PAPER_ODE)
        self.weights: Tensor | None = None

    def __call__(self, images: Tensor, numbers: Sequence[int]) -> float:
        """Take a step; returns the image loss."""
        parts, run = self.joint, self.joint.config
        trajectory = parts.parameterization()
        penalty = sum((c.penalty(trajectory) for c in parts.penalised), start=torch.zeros(()))
        self.weights = td.Encoding(trajectory, device=images.device).followed_weights(self.weights)
        start = root_sum_of_squares(TorchKbNufftCoils(self.weights)(trajectory, images))
        image = torch.relu(start + parts.network.correction(start))
        loss = metrics.image_loss(image, root_sum_of_squares(images), run.training.ssim_weight)
        parts.optimizer.zero_grad()
        (loss + run.limits.weight * penalty).backward()
        parts.optimizer.step()
        parts.anneal.step()
        return float(loss.detach())


#: The trainers by name, in the order of the table.
TRAINERS: dict[str, Callable[[argparse.Namespace], Trainer]] = {
    "ours": lambda settings: Ours(settings, OURS_ODE),
    "ours with the paper's ODE": lambda settings: Ours(settings, PAPER_ODE),
    "as in the paper": Paper,
    "ours, images times 1.000001": lambda settings: Jittered(settings, OURS_ODE),
}


if __name__ == "__main__":
    main()
