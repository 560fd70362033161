"""A run of seconds, how to break it off, and what it leaves."""

import hashlib
import os
import random
import signal
from dataclasses import replace

import numpy as np
import torch

from trajdesign.config.models import load_config
from trajdesign.data.sources.phantom import phantom
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.optimize import optimize

#: Two steps an epoch, six in all, of which the last two are on the settled trajectory.
TINY = [
    "acquisition.matrix=[32,32]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=128",
    "acquisition.dwell=8e-6",
    "data.n_train=5",
    "data.n_val=1",
    "data.n_test=2",
    "data.n_coils=2",
    "training.epochs=3",
    "training.batch_size=2",
    "training.validations=2",
    "training.settle=0.33",
    "training.trajectory_rate=0.02",
    "training.checkpoint_seconds=0",
    "reconstructor.channels=4",
    "reconstructor.levels=1",
    "parameterization.kind=bspline",
    "parameterization.n_control=12",
    "name=tiny",
]
N_STEPS = 6
RESULTS = ("trajectory.npz", "network.safetensors", "network_fixed.safetensors")


class Dropout(Reconstructor):
    """A layer that draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images, encoding):
        magnitude = images.abs().square().sum(1, keepdim=True).add(1e-6).sqrt()
        return magnitude + self.layer(torch.nn.functional.dropout(magnitude, training=self.training))


def augmented(acquisition, split, *, n_train=5, n_val=1, n_test=2, n_coils=2):
    """Return the images of `phantom`, each time turned, cut out and with other noise, by any generator."""
    images = phantom(acquisition, split, n_train=n_train, n_val=n_val, n_test=n_test, n_coils=n_coils)
    return Augmented(images, torch.rand(()))


class Augmented(torch.utils.data.Dataset):
    """See `augmented`."""

    def __init__(self, images, strength):
        self.images, self.strength = images, strength

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index].clone()
        if random.random() < 0.5:
            image = image.flip(-1)
        if np.random.rand() < 0.5:  # noqa: NPY002
            image[:, 3, 5] = 0
        return image + 1e-3 * self.strength * torch.randn(image.shape, dtype=image.dtype) * (torch.rand(()) < 0.5)


class NoNumber(Reconstructor):
    """Its second training image is no number on rank 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.n_calls = 0

    def forward(self, images, encoding):
        self.n_calls += self.training
        bad = self.training and self.n_calls == 2 and os.environ.get("RANK") == "1"
        return images.abs().sum(1, keepdim=True) * self.weight * (float("nan") if bad else 1)


def settings(*overrides):
    others = {o.partition(".")[0] for o in overrides if ".kind=" in o}  # another kind has other options
    return [*(o for o in TINY if o.partition(".")[0] not in others), *overrides]


def tiny(*overrides):
    return load_config(None, settings(*overrides))


def broken_off(config, path, stage, step, number=signal.SIGTERM, **options):
    """Train on, and send a signal to this process during a step; returns the exit status, if any."""

    def report(p):
        if (p.stage, p.step) == (stage, step):
            os.kill(os.getpid(), number)

    try:
        optimize(config, path, resume=True, report=report, **{"device": "cpu", **options})
    except SystemExit as end:
        return end.code
    return None


def resealed(folder):
    """Make the digests of a finished run those of its files as they are now, as if it had left them so."""
    folder.write_results(replace(folder.results(), files=folder.sums()))


def sums(path):
    """Return the SHA-256 of what a run has learned, and the numbers that do not depend on the time."""
    found = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in RESULTS if (path / name).exists()}
    lines = (path / "history.csv").read_text().splitlines()
    return found | {"history": [line.rpartition(",")[0] for line in lines]}
