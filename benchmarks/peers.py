"""The ways to take a physics step: ours, and each peer's at its fastest documented use, behind one small interface.

A way is made from a problem; calling it with a trajectory and coil images (batch, coil, y, x) returns A^H W A of each
coil image, differentiable in the trajectory's k. Peers are imported when one is made, so none needs to be installed.
"""

import importlib.machinery
import importlib.util
import itertools
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

import trajdesign as td
from benchmarks.common import Problem, say
from trajdesign.encoding import nufft
from trajdesign.encoding.operator import angular
from trajdesign.encoding.spectrum_cache import SpectrumCache
from trajdesign.learning.step import slices_at_once
from trajdesign.reconstruction.coils import root_sum_of_squares

Way = Callable[[td.Trajectory, Tensor], Tensor]

#: Relative tolerance of the peers' finufft: that of ours.
TOLERANCE = 3e-5


class Ours:
    """Our package; its ``auto`` chooses between the convolution (``toeplitz``) and the two NUFFTs (``chain``)."""

    def __init__(self, weights: Tensor, normal: str = "auto") -> None:
        self.weights, self.normal = weights, normal

    def __call__(self, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """Return A^H W A of coil images."""
        return self.encoding(trajectory, images).normal(images)

    def encoding(self, trajectory: td.Trajectory, images: Tensor) -> td.Encoding:
        """Return the operator at a trajectory."""
        settings: dict[str, Any] = {"dtype": images.real.dtype, "device": images.device, "normal": self.normal}
        return td.Encoding(trajectory, weights=self.weights, **settings)


class OursInTraining(Ours):
    """The same as `trajdesign.optimize` uses it: slice by slice on a CPU, the spectra of the training images kept."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights)
        self.spectra = SpectrumCache(sys.maxsize)

    def step(self, problem: Problem, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """Take a physics step; returns the image (batch, 1, y, x)."""
        encoding = self.encoding(trajectory, images)
        cut = encoding.cut(images.shape[0] * images.shape[1])
        n_at_once = slices_at_once(images.shape, images.device)
        found = []
        for start in range(0, len(images), n_at_once):
            part = slice(start, start + n_at_once)
            known = [] if cut.normal_by == "chain" else self.spectra.of(range(len(images))[part], images[part].detach())
            image = root_sum_of_squares(cut.normal(images[part], known))
            ((image - problem.reference[part]).square().sum() / problem.reference.numel()).backward()
            found.append(image.detach())
        encoding.carry_on(cut)
        return torch.cat(found)


class TorchKbNufft(Ours):
    """torchkbnufft with the Jacobian of Wang and Fessler, of which it has none itself; all coil images at once."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights, normal="chain")

    def __call__(self, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """See `Ours`; the gradient is computed by the same kernel."""
        with nufft.using("torchkbnufft"):
            return super().__call__(trajectory, images)


class TorchKbNufftCoils(TorchKbNufft):
    """The same, one coil after the other."""

    def __call__(self, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """See `Ours`."""
        with nufft.using("torchkbnufft"):
            encoding = self.encoding(trajectory, images)
            return torch.cat([encoding.normal(coil) for coil in images.split(1, dim=1)], dim=1)


class MriNufft:
    """mri-nufft's autodiff on finufft as its documentation uses it: one operator, its defaults, all coil images."""

    requires = "mrinufft"
    choice = "its defaults: n_trans 1, eps 1e-6"

    def __init__(self, problem: Problem) -> None:
        _hide_deepinv()
        self.weights = problem.weights.flatten()
        self.sample = self.image = self._make(problem)

    def __call__(self, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """See `Ours`."""
        # its first axis is the first of the array
        points = angular(trajectory).to(self.weights).flatten(0, 1).flip(-1)
        for operator in {self.sample, self.image}:
            operator.samples = points
        scale = float(self.image.norm_factor) ** 2
        return self.image.adj_op(scale * self.weights * self.sample.op(images))

    def _make(self, problem: Problem, by_data: bool = True, **plan: Any) -> Any:
        from mrinufft import get_operator

        points = angular(problem.trajectory).float().flatten(0, 1).flip(-1).detach().numpy()
        shape = problem.size.shape
        counts = {"n_coils": problem.size.coils, "n_batchs": problem.size.batch, "squeeze_dims": False}
        return get_operator("finufft", wrt_data=by_data, wrt_traj=True)(points, shape=shape, **counts, **plan)


class MriNufftTuned(MriNufft):
    """mri-nufft at its fastest: our tolerance, and what measures fastest on one image of this problem.

    That is how many transforms a plan takes at once, and its oversampling. Its operator for the samples is one that
    computes no gradient for the image unless that is asked for.
    """

    def __init__(self, problem: Problem, image_gradient: bool = False) -> None:
        _hide_deepinv()
        self.weights = problem.weights.flatten()
        coils, one = problem.size.coils, problem.first(1)
        transforms = sorted({1, *(n for n in (torch.get_num_threads(), coils) if coils % n == 0)})
        seconds = {}
        for choice in itertools.product(transforms, (1.25, 2.0)):
            self._make_both(one, image_gradient, *choice)
            step(self, one, 0)
            started = time.perf_counter()
            step(self, one, 0)
            seconds[choice] = time.perf_counter() - started
        best = min(seconds, key=lambda choice: seconds[choice])
        self._make_both(problem, image_gradient, *best)
        self.choice = f"n_trans {best[0]}, upsampfac {best[1]}"

    def _make_both(self, problem: Problem, image_gradient: bool, n_transforms: int, oversampling: float) -> None:
        plan = {"nthreads": torch.get_num_threads(), "upsampfac": oversampling}
        self.image = self._make(problem, n_trans=n_transforms, eps=TOLERANCE, **plan)
        self.sample = self.image
        if not image_gradient:
            self.sample = self._make(problem, by_data=False, n_trans=n_transforms, eps=TOLERANCE, **plan)
        for operator in {self.sample, self.image}:
            # its plan for the gradient does not get these options
            operator.nufft_op._make_plan_grad(**plan)


class PytorchFinufft:
    """pytorch-finufft: its differentiable transforms of type 2 and 1, all coil images at once."""

    requires = "pytorch_finufft"

    def __init__(self, problem: Problem) -> None:
        from pytorch_finufft.functional import finufft_type1, finufft_type2

        self.type1, self.type2, self.weights = finufft_type1, finufft_type2, problem.weights.flatten()
        # with its default order of modes the image would be taken as one shifted by half its size
        self.options = {"eps": TOLERANCE, "modeord": 0, "upsampfac": 1.25, "nthreads": torch.get_num_threads()}

    def __call__(self, trajectory: td.Trajectory, images: Tensor) -> Tensor:
        """See `Ours`."""
        points = angular(trajectory).to(self.weights).flatten(0, 1).flip(-1).T.contiguous()
        samples = self.type2(points, images.flatten(0, 1), isign=-1, **self.options)
        result = self.type1(points, self.weights * samples, tuple(images.shape[2:]), isign=1, **self.options)
        return result.view(images.shape)


#: The ways by name, in the order of the tables.
WAYS: dict[str, Callable[..., Way]] = {
    "ours": lambda problem: OursInTraining(problem.weights),
    "ours, toeplitz": lambda problem: Ours(problem.weights, "toeplitz"),
    "ours, chain": lambda problem: Ours(problem.weights, "chain"),
    "mri-nufft": MriNufft,
    "mri-nufft, tuned": MriNufftTuned,
    "pytorch-finufft": PytorchFinufft,
    "torchkbnufft": lambda problem: TorchKbNufft(problem.weights),
    "torchkbnufft, coil by coil": lambda problem: TorchKbNufftCoils(problem.weights),
}


def available(names: Iterable[str], device: str = "cpu") -> list[str]:
    """Return the names of the ways that run here, and say why others do not."""
    found = []
    for name in names:
        package = getattr(WAYS[name], "requires", None)
        if package and importlib.util.find_spec(package) is None:
            say(f"skipped {name}: {package} is not installed (benchmarks/requirements.txt).")
        elif package and device != "cpu":
            say(f"skipped {name}: its finufft runs on the CPU alone.")
        else:
            found.append(name)
    return found


def make(name: str, problem: Problem, image_gradient: bool = False) -> Way:
    """Return a way for a problem."""
    return MriNufftTuned(problem, image_gradient) if name == "mri-nufft, tuned" else WAYS[name](problem)


def step(way: Way, problem: Problem, number: int, image_gradient: bool = False) -> tuple[Tensor, Tensor]:
    """Take one physics step; returns the image (batch, 1, y, x) and the gradient for k (shot, point, dim)."""
    trajectory = problem.moved(number)
    images = problem.coil_images.detach().requires_grad_(image_gradient)
    if isinstance(way, OursInTraining):
        image = way.step(problem, trajectory, images)
    else:
        image = root_sum_of_squares(way(trajectory, images))
        (image - problem.reference).square().mean().backward()
    gradient = trajectory.points.grad
    if gradient is None:
        raise RuntimeError("the step gave no gradient for k.")
    return image.detach(), gradient


def exact(problem: Problem) -> tuple[Tensor, Tensor]:
    """Take the step of a problem by two NUFFTs in double precision, to which every way is compared."""
    double = problem.double()
    return step(Ours(double.weights, "chain"), double, 0)


def _hide_deepinv() -> None:
    """Let mri-nufft's autodiff be imported without deepinv, whose torchvision does not load beside a CPU torch.

    Only one class of it is asked for, as a base of one that is not used here.
    """
    warnings.filterwarnings("ignore", message="Casting complex values to real")
    if "deepinv" in sys.modules:
        return
    names = ("deepinv", "deepinv.physics", "deepinv.physics.forward")
    modules = [types.ModuleType(name) for name in names]
    for name, module in zip(names, modules, strict=True):
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
    modules[2].LinearPhysics = type("LinearPhysics", (torch.nn.Module,), {})  # type: ignore[attr-defined]
