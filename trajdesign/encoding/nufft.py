"""Non-uniform FFT with gradients for the image AND the trajectory: one autograd layer over all kernels.

Conventions: pixel n of an axis with N pixels sits at n - N // 2; points are angular, omega = 2 pi k voxel, in
radians a pixel, ordered (x, y[, z]), while image arrays are ordered (y, x) or (z, y, x).

    type 2, forward  y[j] = sum_n x[n] exp(-i omega[j] . n)
    type 1, adjoint  x[n] = sum_j y[j] exp(+i omega[j] . n)

The derivative of either with respect to omega is another transform of the image times its pixel positions
(Wang and Fessler, IEEE TCI 2023, doi:10.1109/TCI.2023.3240081).
"""

import contextlib
import ctypes
import importlib.util
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import finufft
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.errors import ConfigError, DivergedError, ResourceError

#: Images of so few pixels in all are transformed for all axes at once: this is faster, but needs more memory.
_FEW_PIXELS = 2**19
#: The fewest slices, or rows, of a larger image that are worth a thread of their own.
_THINNEST = 16
#: finufft: up to which longest axis, relative tolerance, oversampling. In single precision the small grid is 4 to 10
#: times faster and, with the widest kernel that it allows, loses nothing that float32 images hold. The tolerance only
#: chooses the width of the kernel, so it is the loosest that does: finufft 2.6 refuses tolerances below the rounding
#: that it expects, which grows with the grid.
_ACCURACY = {
    torch.complex64: ((320, 5e-5, 1.25), (math.inf, 1.2e-4, 1.3)),
    torch.complex128: ((450, 1e-13, 2.0), (math.inf, 5e-13, 2.0)),
}
#: cufinufft: relative tolerance.
_GPU_TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}
_NAMES = {torch.complex64: "complex64", torch.complex128: "complex128"}

#: A plain transform without gradients. Type 2 takes images (batch, [z,] y, x) to values (batch, point), type 1 back;
#: the arguments are the type, what is transformed, omega (point, dim), rad/pixel, and the image shape ([z,] y, x).
Kernel = Callable[[int, Tensor, Tensor, tuple[int, ...]], Tensor]


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


def _in_memory(data: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """Return data and points (dim, point), in the order of the image's axes, as finufft and cufinufft read them."""
    # folding into one period keeps far points exact; that they are finite was checked before
    folded = torch.remainder(omega.detach().double() + math.pi, 2 * math.pi) - math.pi
    points = folded.to(data.real.dtype).T.flip(0).contiguous()
    # the libraries read what lies in memory, where a conjugate that torch has put off is none
    return data.detach().resolve_conj().contiguous(), points


def _finufft(kind: int, data: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """FINUFFT on the CPU (Barnett et al., SIAM J. Sci. Comput. 2019, doi:10.1137/18M120885X)."""
    n_slabs = min(torch.get_num_threads(), shape[0] // _THINNEST)
    if kind == 1 and len(data) == 1 and n_slabs > 1 and math.prod(shape) > _FEW_PIXELS:
        return _by_slabs(data, omega, shape, n_slabs)
    data, points = _in_memory(data, omega)
    threads = torch.get_num_threads() if kind == 2 else _repeatable_threads(len(data))
    plan = _finufft_plan(kind, shape, len(data), data.dtype, threads, threading.get_ident())
    result = torch.from_numpy(plan.execute(data.numpy(), points, list(points.numpy())))
    return result.view(len(data), *(shape if kind == 1 else (-1,)))


def _by_slabs(values: Tensor, omega: Tensor, shape: tuple[int, ...], n_slabs: int) -> Tensor:
    """Do type 1 of values (1, point) as a batch of slabs of the image, each by a thread of its own.

    A slab is an image whose centre lies elsewhere: its values are turned by the angle that they have there.
    """
    depth = -(-shape[0] // n_slabs)
    centres = torch.arange(n_slabs, dtype=torch.float64) * depth + (depth // 2 - shape[0] // 2)
    angle = centres[:, None] * omega[:, -1].detach().double()
    turned = values.detach() * torch.polar(torch.ones_like(angle), angle).to(values.dtype)
    return _finufft(1, turned, omega, (depth, *shape[1:])).flatten(0, 1)[None, : shape[0]]


@lru_cache(maxsize=8)
def _finufft_plan(kind: int, shape: tuple[int, ...], n: int, dtype: torch.dtype, threads: int, _thread: int) -> _Plan:
    eps, upsampling = next(rest for longest, *rest in _ACCURACY[dtype] if max(shape) <= longest)
    settings = {"dtype": _NAMES[dtype], "upsampfac": upsampling, "nthreads": threads}
    if tuple(map(int, finufft.__version__.split(".")[:2])) >= (2, 6):  # before, the option has no name
        settings["allow_eps_too_small"] = 1  # for the few longer axes where no tolerance would do
    return _Plan(finufft.Plan(kind, shape, n, eps, 1 if kind == 1 else -1, **settings))


def _repeatable_threads(n_vectors: int) -> int:
    """Return the most threads with which finufft's type 1 gives the same bits each time.

    It gives each vector of a batch a thread; but on a single vector all threads work, and add up in any order.
    """
    for threads in range(torch.get_num_threads(), 1, -1):
        n_batches = -(-n_vectors // threads)
        batch = -(-n_vectors // n_batches)
        if batch > 1 and n_vectors % batch != 1:
            return threads
    return 1


def _cufinufft(kind: int, data: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """FINUFFT on CUDA (Shih et al., IPDPSW 2021, doi:10.48550/arXiv.2102.08463)."""
    data, points = _in_memory(data, omega)
    stream = torch.cuda.current_stream(data.device).cuda_stream
    plan = _cufinufft_plan(kind, shape, len(data), data.dtype, data.device, stream)
    return plan.execute(data, points, list(points)).view(len(data), *(shape if kind == 1 else (-1,)))


@lru_cache(maxsize=8)
def _cufinufft_plan(
    kind: int, shape: tuple[int, ...], n: int, dtype: torch.dtype, device: torch.device, stream: int
) -> _Plan:
    settings = {"gpu_device_id": device.index or 0, "gpu_stream": ctypes.c_void_p(stream), "dtype": _NAMES[dtype]}
    try:
        cufinufft = importlib.import_module("cufinufft")
        return _Plan(cufinufft.Plan(kind, shape, n, _GPU_TOLERANCE[dtype], 1 if kind == 1 else -1, **settings))
    except (ImportError, OSError, RuntimeError) as error:  # built for another CUDA, or no memory is left
        raise ResourceError(
            f"cufinufft cannot be used on {device}: {str(error).rstrip('.')}; is it built for this CUDA, and is "
            "memory of the GPU free? Where cufinufft is not installed, torchkbnufft takes its place."
        ) from None


def _torchkbnufft(kind: int, data: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """torchkbnufft: pure torch, on any device (Muckley et al., ISMRM 2020); imported when it is first used."""
    transform = _kb_modules(shape, data.dtype, str(data.device))[kind]
    return transform(data[:, None], omega.flip(-1).T.contiguous().to(data.real.dtype))[:, 0]


@lru_cache(maxsize=8)
def _kb_modules(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[int, Any]:
    try:
        import torchkbnufft
    except (ImportError, AttributeError, RuntimeError) as error:  # it needs TorchScript, which torch gives up
        raise ResourceError(
            f"torchkbnufft cannot be used with torch {torch.__version__}: {str(error).splitlines()[0]}; "
            "take finufft on the CPU, or install cufinufft for a GPU."
        ) from None
    # the default table of 2**10 steps a pixel leaves an error of 1e-3, this one of 4e-5, for no time
    settings = {"im_size": shape, "dtype": dtype, "device": torch.device(device), "table_oversamp": 2**14}
    return {1: torchkbnufft.KbNufftAdjoint(**settings), 2: torchkbnufft.KbNufft(**settings)}


#: The kernels by their names.
KERNELS: dict[str, Kernel] = {"finufft": _finufft, "cufinufft": _cufinufft, "torchkbnufft": _torchkbnufft}
#: The name of the kernel that `using` asks for.
_ASKED: ContextVar[str | None] = ContextVar("kernel", default=None)


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Let the kernel of this name compute every transform in the block; raises `ConfigError` if there is none."""
    if name not in KERNELS:
        raise ConfigError(f"unknown NUFFT kernel {name!r}; known: {', '.join(KERNELS)}.")
    before = _ASKED.set(name)
    try:
        yield
    finally:
        _ASKED.reset(before)


def kernel(device: torch.device) -> Kernel:
    """Return the `fastest` kernel on a device, or that of `using`; raises `ResourceError` if it does not run there."""
    name = _ASKED.get() or fastest(device)
    if name not in there(device):
        raise ResourceError(
            f"the NUFFT kernel {name!r} does not run on {device} here; there are: {', '.join(there(device))}."
        )
    return KERNELS[name]


def there(device: torch.device) -> list[str]:
    """Return the names of the kernels that run on a device, and whose libraries are installed."""
    names = {"cpu": ["finufft"], "cuda": ["cufinufft"]}.get(device.type, [])
    return [name for name in (*names, "torchkbnufft") if importlib.util.find_spec(name) is not None]


def fastest(device: torch.device) -> str:
    """Return the name of the kernel that is fastest on a device: on a CPU finufft, elsewhere by what is `measured`."""
    if device.type == "cpu":
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
        float(engine(1, engine(2, image, omega, (128, 128)), omega, (128, 128)).abs().sum())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def nufft(image: Tensor, omega: Tensor) -> Tensor:
    """Return the spectrum of complex images at omega, differentiable in both.

    Parameters
    ----------
    image, omega
        Images (batch, [z,] y, x); points (point, dim), rad/pixel, real.

    Returns
    -------
    Tensor
        (batch, point), of the images' type.

    Raises
    ------
    DivergedError
        If a point is not finite.
    """
    require_finite(omega)
    return _Transform.apply(2, image, omega, tuple(image.shape[1:]), kernel(image.device))


def nufft_adjoint(values: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images (batch, [z,] y, x) of a shape ([z,] y, x): the adjoint of `nufft` of values (batch, point)."""
    require_finite(omega)
    return _Transform.apply(1, values, omega, tuple(shape), kernel(values.device))


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


class _Transform(torch.autograd.Function):
    """A transform; the gradient to what is transformed is a transform of the other type."""

    @staticmethod
    def forward(ctx: Any, kind: int, data: Tensor, omega: Tensor, shape: tuple[int, ...], engine: Kernel) -> Tensor:
        ctx.save_for_backward(data, omega)
        ctx.kind, ctx.shape, ctx.engine = kind, shape, engine
        return engine(kind, data, omega, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        data, omega = ctx.saved_tensors
        grad = grad.contiguous()
        grad_data = grad_omega = None
        if ctx.needs_input_grad[1]:
            grad_data = ctx.engine(3 - ctx.kind, grad, omega, ctx.shape)
        if ctx.needs_input_grad[2]:
            image, values = (data, grad) if ctx.kind == 2 else (grad, data)
            grad_omega = _omega_gradient(ctx.engine, image, values, omega)
        return None, grad_data, grad_omega, None, None


def transforms(engine: Kernel, images: Iterable[Tensor], omega: Tensor, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield the values (batch, point) of each of several images (batch, [z,] y, x) of one size.

    Large images are transformed one after the other, so that one at a time is in memory; of few pixels all at once.
    """
    images = iter(images)
    for image in images:
        if image.numel() <= _FEW_PIXELS:
            yield from engine(2, torch.cat([image, *images]), omega, shape).split(len(image))
        else:
            yield engine(2, image, omega, shape)


def _omega_gradient(engine: Kernel, image: Tensor, values: Tensor, omega: Tensor) -> Tensor:
    """Real part of <values, d/d omega of the forward transform of image>, the same for both directions."""
    shape = tuple(image.shape[1:])
    ramps = (image * positions(shape, axis, image) for axis in range(omega.shape[-1]))
    moments = transforms(engine, ramps, omega, shape)
    axes = [(values.conj() * -1j * moment).real.sum(0) for moment in moments]
    return torch.stack(axes, dim=-1).to(omega.dtype)
