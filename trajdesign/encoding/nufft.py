"""Non-uniform FFT with gradients for the image AND the trajectory: one autograd layer over all kernels.

Conventions: pixel n of an axis with N pixels sits at n - N // 2; points are angular, omega = 2 pi k voxel, in
radians a pixel, ordered (x, y[, z]), while image arrays are ordered (y, x) or (z, y, x).

    forward  y[j] = sum_n x[n] exp(-i omega[j] . n)          (type 2)
    adjoint  x[n] = sum_j y[j] exp(+i omega[j] . n)          (type 1)

The derivative of either with respect to omega is another transform of the image times its pixel positions
(Wang and Fessler, IEEE TCI 2023, doi:10.1109/TCI.2023.3240081).
"""

import contextlib
import ctypes
import importlib.util
import math
import threading
import time
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, Literal

import finufft
import torch
from torch import Tensor

from trajdesign.errors import ConfigError, DivergedError, ResourceError

#: So few are transformed together along all axes: faster, but it takes the memory of all of them.
_FEW_PIXELS = 2**19

Backend = Literal["auto", "finufft", "cufinufft", "torchkbnufft"]


class Kernel(ABC):
    """A plain pair of transforms over a batch of images; knows nothing of gradients."""

    @abstractmethod
    def runs_on(self, device: torch.device) -> bool:
        """Whether the transforms are computed on this device, and the libraries for it are there."""

    @abstractmethod
    def type2(self, image: Tensor, omega: Tensor) -> Tensor:
        """Return (batch, point) from the image (batch, [z,] y, x) at omega (point, dim)."""

    @abstractmethod
    def type1(self, values: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the image (batch, [z,] y, x) from values (batch, point) at omega (point, dim)."""


class PlannedKernel(Kernel):
    """What finufft and cufinufft share: plans, kept from call to call, and points, set when they move."""

    def type2(self, image: Tensor, omega: Tensor) -> Tensor:
        """See `Kernel.type2`."""
        return self._run(2, image, omega, tuple(image.shape[1:])).view(len(image), -1)

    def type1(self, values: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Kernel.type1`."""
        return self._run(1, values, omega, shape).view(len(values), *shape)

    def _run(self, kind: int, data: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
        # folding into one period keeps far points exact; that they are finite was checked before
        folded = torch.remainder(omega.detach().double() + math.pi, 2 * math.pi) - math.pi
        points = folded.to(data.real.dtype).T.flip(0).contiguous()
        # the libraries read what lies in memory, where a conjugate that torch has put off is none
        return self._execute(data.detach().resolve_conj().contiguous(), points, kind, shape)

    @abstractmethod
    def _execute(self, data: Tensor, points: Tensor, kind: int, shape: tuple[int, ...]) -> Tensor:
        """Transform data (batch, ...) of one kind with points (dim, point) in the order of the image's axes."""


class _Plan:
    """A plan of finufft or cufinufft, and the points that are set in it."""

    def __init__(self, plan: Any) -> None:
        self._plan = plan
        self._points = torch.empty(0)

    def execute(self, data: Any, points: Tensor, axes: list[Any]) -> Any:
        if self._points.shape != points.shape or not torch.equal(self._points, points):
            self._plan.setpts(*axes)
            self._points = points
        return self._plan.execute(data)


class Finufft(PlannedKernel):
    """FINUFFT on the CPU (Barnett et al., SIAM J. Sci. Comput. 2019, doi:10.1137/18M120885X)."""

    # Up to which longest axis, relative tolerance, oversampling. In single precision the small grid is 4 to 10 times
    # faster and, with the widest kernel that it allows, loses nothing that float32 images hold. The tolerance only
    # chooses the width of the kernel, so it is the loosest that does: finufft 2.6 refuses tolerances below the rounding
    # that it expects, which grows with the grid.
    _accuracy = {  # noqa: RUF012
        torch.complex64: ((320, 5e-5, 1.25), (math.inf, 1.2e-4, 1.3)),
        torch.complex128: ((450, 1e-13, 2.0), (math.inf, 5e-13, 2.0)),
    }

    def runs_on(self, device: torch.device) -> bool:
        """See `Kernel.runs_on`."""
        return device.type == "cpu"

    def _execute(self, data: Tensor, points: Tensor, kind: int, shape: tuple[int, ...]) -> Tensor:
        points = points.cpu()
        threads = torch.get_num_threads() if kind == 2 else _repeatable_threads(len(data))
        plan = self._plan(kind, shape, len(data), data.dtype, threads, threading.get_ident())
        result = plan.execute(data.cpu().numpy(), points, list(points.numpy()))
        return torch.from_numpy(result).to(data.device)

    @classmethod
    @lru_cache(maxsize=8)
    def _plan(cls, kind: int, shape: tuple[int, ...], n: int, dtype: torch.dtype, threads: int, _thread: int) -> _Plan:
        eps, upsampling = next(rest for longest, *rest in cls._accuracy[dtype] if max(shape) <= longest)
        single = "complex64" if dtype == torch.complex64 else "complex128"
        settings = {"upsampfac": upsampling, "nthreads": threads}
        if tuple(map(int, finufft.__version__.split(".")[:2])) >= (2, 6):  # before, the option has no name
            settings["allow_eps_too_small"] = 1  # for the few longer axes where no tolerance would do
        sign = 1 if kind == 1 else -1
        return _Plan(finufft.Plan(kind, shape, n, eps, sign, dtype=single, **settings))


class CuFinufft(PlannedKernel):
    """cuFINUFFT on CUDA, where the package ``cufinufft`` is installed.

    Shih et al., IPDPSW 2021, doi:10.48550/arXiv.2102.08463.
    """

    _accuracy = {torch.complex64: 1e-5, torch.complex128: 1e-12}  # noqa: RUF012

    def runs_on(self, device: torch.device) -> bool:
        """See `Kernel.runs_on`."""
        return device.type == "cuda" and importlib.util.find_spec("cufinufft") is not None

    def _execute(self, data: Tensor, points: Tensor, kind: int, shape: tuple[int, ...]) -> Tensor:
        stream = torch.cuda.current_stream(data.device).cuda_stream
        plan = self._plan(kind, shape, len(data), data.dtype, data.device, stream)
        return plan.execute(data, points, list(points))

    @classmethod
    @lru_cache(maxsize=8)
    def _plan(
        cls, kind: int, shape: tuple[int, ...], n: int, dtype: torch.dtype, device: torch.device, stream: int
    ) -> _Plan:
        single = "complex64" if dtype == torch.complex64 else "complex128"
        settings = {"gpu_device_id": device.index or 0, "gpu_stream": ctypes.c_void_p(stream)}
        sign = 1 if kind == 1 else -1
        try:
            cufinufft = importlib.import_module("cufinufft")
            return _Plan(cufinufft.Plan(kind, shape, n, cls._accuracy[dtype], sign, dtype=single, **settings))
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as error:  # of another CUDA, or without memory, which it does not say
            raise ResourceError(
                f"cufinufft cannot be used on {device}: {str(error).rstrip('.')}; is it built for this CUDA, and is "
                "memory of the GPU free? Where cufinufft is not installed, torchkbnufft takes its place."
            ) from None


def _repeatable_threads(n_vectors: int) -> int:
    """Return with how many threads finufft's type 1 gives the same bits each time.

    It spreads a batch of vectors with one thread each, but a batch of a single one with all threads, which add up in
    any order.
    """
    for threads in range(torch.get_num_threads(), 1, -1):
        n_batches = -(-n_vectors // threads)
        batch = -(-n_vectors // n_batches)
        if batch > 1 and n_vectors % batch != 1:
            return threads
    return 1


class TorchKbNufft(Kernel):
    """torchkbnufft: pure torch, on any device (Muckley et al., ISMRM 2020); imported when it is first used."""

    def runs_on(self, device: torch.device) -> bool:
        """See `Kernel.runs_on`."""
        return importlib.util.find_spec("torchkbnufft") is not None

    def type2(self, image: Tensor, omega: Tensor) -> Tensor:
        """See `Kernel.type2`."""
        forward, _ = _kb_modules(tuple(image.shape[1:]), image.dtype, str(image.device))
        return forward(image[:, None], self._points(image, omega))[:, 0]

    def type1(self, values: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Kernel.type1`."""
        _, adjoint = _kb_modules(shape, values.dtype, str(values.device))
        return adjoint(values[:, None], self._points(values, omega))[:, 0]

    @staticmethod
    def _points(data: Tensor, omega: Tensor) -> Tensor:
        return omega.flip(-1).T.contiguous().to(data.real.dtype)


@lru_cache(maxsize=8)
def _kb_modules(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    try:
        import torchkbnufft
    except (ImportError, AttributeError, RuntimeError) as error:  # it needs TorchScript, which torch gives up
        raise ResourceError(
            f"torchkbnufft cannot be used with torch {torch.__version__}: {str(error).splitlines()[0]}; "
            "take finufft on the CPU, or install cufinufft for a GPU."
        ) from None
    # the default table of 2**10 steps a pixel leaves an error of 1e-3, this one of 4e-5, for no time
    settings = {"im_size": shape, "dtype": dtype, "device": torch.device(device), "table_oversamp": 2**14}
    return torchkbnufft.KbNufft(**settings), torchkbnufft.KbNufftAdjoint(**settings)


#: The kernels by the name a user gives.
KERNELS: dict[str, Kernel] = {"finufft": Finufft(), "cufinufft": CuFinufft(), "torchkbnufft": TorchKbNufft()}


def kernel(backend: Backend, device: torch.device) -> Kernel:
    """Return the kernel of a name; ``auto`` is the `fastest` one on the device.

    Raises
    ------
    ConfigError
        If there is no such kernel.
    ResourceError
        If it does not run on this device.
    """
    name = fastest(device) if backend == "auto" else backend
    if name not in KERNELS:
        raise ConfigError(f"unknown NUFFT backend {name!r}; known: auto, {', '.join(KERNELS)}.")
    if not KERNELS[name].runs_on(device):
        raise ResourceError(
            f"the NUFFT backend {name!r} does not run on {device} here; there are: {', '.join(there(device))}."
        )
    return KERNELS[name]


def there(device: torch.device) -> list[str]:
    """Return the names of the kernels that run on a device."""
    return [name for name, engine in KERNELS.items() if engine.runs_on(device)]


def fastest(device: torch.device) -> str:
    """Return the name of the kernel that is fastest on a device: on a CPU finufft, elsewhere by what is `measured`."""
    if KERNELS["finufft"].runs_on(device):
        return "finufft"
    seconds = measured(device)
    return min(seconds, key=seconds.__getitem__, default="torchkbnufft")


@lru_cache(maxsize=8)
def measured(device: torch.device) -> dict[str, float]:
    """Return how long the kernels that are there take on a device for a small problem, s, timed once a process."""
    seconds = {}
    for name in there(device):
        with contextlib.suppress(ResourceError):  # said where it is used
            seconds[name] = _seconds(KERNELS[name], device)
    return seconds


def _seconds(engine: Kernel, device: torch.device) -> float:
    """Time, s, of both transforms of one image of 128 x 128 pixels at 4096 points: the better of two."""
    angle = torch.linspace(0, 200, 4096, device=device)
    omega = torch.stack([angle.cos(), angle.sin()], dim=-1) * angle[:, None] / 70
    image = torch.ones(1, 128, 128, dtype=torch.complex64, device=device)
    times = []
    for _ in range(3):  # the first one also makes plans and tables
        start = time.perf_counter()
        float(engine.type1(engine.type2(image, omega), omega, (128, 128)).abs().sum())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def nufft(image: Tensor, omega: Tensor, backend: Backend = "auto") -> Tensor:
    """Sample the spectrum of an image at omega, differentiable in both.

    Parameters
    ----------
    image
        Complex images (batch, [z,] y, x).
    omega
        Points (point, dim), rad/pixel, real.
    backend
        ``auto``, ``finufft``, ``cufinufft`` or ``torchkbnufft``; see `kernel`.

    Returns
    -------
    Tensor
        (batch, point), of the image's type.

    Raises
    ------
    DivergedError
        If a point is not finite.
    """
    require_finite(omega)
    return _Forward.apply(image, omega, kernel(backend, image.device))


def nufft_adjoint(values: Tensor, omega: Tensor, shape: tuple[int, ...], backend: Backend = "auto") -> Tensor:
    """Adjoint of `nufft`, differentiable in values and omega.

    Parameters
    ----------
    values
        Complex samples (batch, point).
    omega
        Points (point, dim), rad/pixel, real.
    shape
        Image shape ([z,] y, x).
    backend
        ``auto``, ``finufft``, ``cufinufft`` or ``torchkbnufft``; see `kernel`.

    Returns
    -------
    Tensor
        (batch, [z,] y, x), of the values' type.

    Raises
    ------
    DivergedError
        If a point is not finite.
    """
    require_finite(omega)
    return _Adjoint.apply(values, omega, tuple(shape), kernel(backend, values.device))


def require_finite(omega: Tensor) -> None:
    """Raise `DivergedError` if a point is not finite."""
    # A point that is not a number makes finufft write outside its arrays and abort the process.
    if not bool(torch.isfinite(omega).all()):
        raise DivergedError("the trajectory holds values that are not finite; nothing can be sampled there.")


def positions(shape: tuple[int, ...], axis: int, like: Tensor) -> Tensor:
    """Return the pixel positions n - N // 2 of axis 0 = x, 1 = y, ..., ready to multiply an image."""
    length = shape[-1 - axis]
    ramp = torch.arange(length, device=like.device, dtype=like.real.dtype) - length // 2
    return ramp.view(-1, *[1] * axis)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, omega: Tensor, engine: Kernel) -> Tensor:
        ctx.save_for_backward(image, omega)
        ctx.engine = engine
        return engine.type2(image, omega)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, omega = ctx.saved_tensors
        shape = tuple(image.shape[1:])
        grad_image = grad_omega = None
        if ctx.needs_input_grad[0]:
            grad_image = ctx.engine.type1(grad.contiguous(), omega, shape)
        if ctx.needs_input_grad[1]:
            grad_omega = _omega_gradient(ctx.engine, image, grad, omega)
        return grad_image, grad_omega, None


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, omega: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(values, omega)
        ctx.engine = engine
        return engine.type1(values, omega, shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, omega = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = grad_omega = None
        if ctx.needs_input_grad[0]:
            grad_values = ctx.engine.type2(grad, omega)
        if ctx.needs_input_grad[1]:
            grad_omega = _omega_gradient(ctx.engine, grad, values, omega)
        return grad_values, grad_omega, None, None


def _omega_gradient(engine: Kernel, image: Tensor, values: Tensor, omega: Tensor) -> Tensor:
    """Real part of <values, d/d omega of the forward transform of image>, the same for both directions."""
    ramps = (image * positions(tuple(image.shape[1:]), axis, image) for axis in range(omega.shape[-1]))
    if image.numel() <= _FEW_PIXELS:
        moments = engine.type2(torch.cat(list(ramps)), omega).split(len(image))
    else:
        moments = tuple(engine.type2(ramp, omega) for ramp in ramps)
    axes = [(values.conj() * -1j * moment).real.sum(0) for moment in moments]
    return torch.stack(axes, dim=-1).to(omega.dtype)
