"""Values and both gradients against the exact DFT in float64."""

import math

import pytest
import torch

from trajdesign import nufft as module
from trajdesign.errors import ConfigError, DivergedError, ResourceError
from trajdesign.nufft import nufft, nufft_adjoint

BACKENDS = ["finufft", "torchkbnufft"]
SHAPES = [(16, 16), (15, 12), (13, 17), (20, 32), (8, 7, 6)]
# largest relative error (2-norm) of values and gradients; float32 finufft runs with a small grid, see nufft.py
BOUNDS = {
    ("finufft", torch.complex128): 1e-5,
    ("finufft", torch.complex64): 1e-4,
    ("torchkbnufft", torch.complex128): 1e-3,
    ("torchkbnufft", torch.complex64): 1e-3,
}
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def dft_matrix(shape, omega):
    """exp(-i omega . n), (point, pixel), by its definition."""
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in shape]
    pixels = torch.stack([g.flatten() for g in torch.meshgrid(*axes, indexing="ij")[::-1]])  # (x, y[, z])
    return torch.exp(-1j * (omega @ pixels))


def exact(image, omega):
    return image.flatten(1) @ dft_matrix(image.shape[1:], omega).T


def exact_adjoint(values, omega, shape):
    return (values @ dft_matrix(shape, omega).conj()).view(len(values), *shape)


def data(shape, n_points=150, n_images=3, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    omega = (torch.rand(n_points, len(shape), generator=generator, dtype=torch.float64) * 2 - 1) * math.pi * spread
    image = torch.randn(n_images, *shape, generator=generator, dtype=torch.complex128)
    values = torch.randn(n_images, n_points, generator=generator, dtype=torch.complex128)
    return image, values, omega


def operators(shape, backend=None):
    """Forward, adjoint and adjoint of forward: each of (input, omega)."""
    if backend is None:
        return {
            "forward": exact,
            "adjoint": lambda y, o: exact_adjoint(y, o, shape),
            "normal": lambda x, o: exact_adjoint(exact(x, o), o, shape),
        }
    return {
        "forward": lambda x, o: nufft(x, o, backend),
        "adjoint": lambda y, o: nufft_adjoint(y, o, shape, backend),
        "normal": lambda x, o: nufft_adjoint(nufft(x, o, backend), o, shape, backend),
    }


def values_and_gradients(operator, argument, omega, target):
    """The value, and the gradients of a loss that is neither linear nor real-only in it."""
    argument, omega = argument.clone().requires_grad_(), omega.clone().requires_grad_()
    value = operator(argument, omega)
    scale = value.detach().abs().square().mean().sqrt()
    loss = ((value / scale - target).abs().square() + (value / scale * target.conj()).imag).sum()
    return value.detach(), *torch.autograd.grad(loss, (argument, omega))


def relative(found, wanted):
    return float((found.to(wanted.dtype) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", ["forward", "adjoint", "normal"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", REAL)
def test_values_and_both_gradients_are_those_of_the_exact_dft(dtype, shape, backend, name):
    image, values, omega = data(shape)
    argument, target = {
        "forward": (image, values),
        "adjoint": (values, image),
        "normal": (image, image.flip(0)),
    }[name]
    wanted = values_and_gradients(operators(shape)[name], argument, omega, target)
    found = values_and_gradients(
        operators(shape, backend)[name], argument.to(dtype), omega.to(REAL[dtype]), target.to(dtype)
    )
    for what, a, b in zip(("value", "gradient of the input", "gradient of omega"), found, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == (REAL[dtype] if what.endswith("omega") else dtype)
        error = relative(a, b)
        assert error <= BOUNDS[backend, dtype], f"{what}: {error:.2e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [*SHAPES, (64, 64)], ids=str)
@pytest.mark.parametrize("dtype", REAL)
def test_the_adjoint_is_the_adjoint(dtype, shape, backend):
    image, values, omega = data(shape)
    values = values + exact(image, omega)  # so that the products are not near zero by chance
    omega = omega.to(REAL[dtype])
    left = torch.vdot(nufft(image.to(dtype), omega, backend).flatten().to(torch.complex128), values.flatten())
    right = torch.vdot(
        image.flatten(), nufft_adjoint(values.to(dtype), omega, shape, backend).flatten().to(torch.complex128)
    )
    assert float((left - right).abs() / left.abs()) <= (1e-5 if dtype == torch.complex64 else 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_finite_differences(backend):
    # torchkbnufft reads its kernel from a table, so its values are steps: differences over a few of them
    step = 1e-5 if backend == "finufft" else 1e-2
    shape = (10, 9)
    image, values, omega = data(shape, n_points=5, n_images=2, spread=0.9)

    def loss(image, omega):
        kspace = nufft(image, omega, backend)
        return (nufft_adjoint(kspace * kspace.abs(), omega, shape, backend) - image).abs().square().sum()

    leaves = image.requires_grad_(), omega.requires_grad_()
    grad_image, grad_omega = torch.autograd.grad(loss(*leaves), leaves)
    with torch.no_grad():
        for point, axis in ((0, 0), (0, 1), (3, 0), (4, 1)):
            shift = torch.zeros_like(omega)
            shift[point, axis] = step
            difference = (loss(image, omega + shift) - loss(image, omega - shift)) / (2 * step)
            assert float(grad_omega[point, axis]) == pytest.approx(
                float(difference), rel=1e-6 if backend == "finufft" else 2e-3, abs=1e-3 * float(grad_omega.norm())
            )
        for direction in (1.0, 1j):
            shift = direction * values[0, 0] * torch.ones_like(image)
            difference = (loss(image + 1e-5 * shift, omega) - loss(image - 1e-5 * shift, omega)) / 2e-5
            assert float((grad_image.conj() * shift).real.sum()) == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (-1, 1), (70, 1)])
def test_points_that_are_not_finite_never_reach_a_kernel(monkeypatch, backend, wrong, place):
    calls = []

    class Spy(module.Kernel):
        def runs_on(self, device):
            return True

        def type2(self, image, omega):
            calls.append(omega)

        def type1(self, values, omega, shape):
            calls.append(omega)

    monkeypatch.setitem(module.KERNELS, backend, Spy())
    image, values, omega = data((8, 8))
    omega[place] = wrong
    for call in (lambda: nufft(image, omega, backend), lambda: nufft_adjoint(values, omega, (8, 8), backend)):
        with pytest.raises(DivergedError) as caught:
            call()
        assert caught.value.exit_code == 7
    assert not calls


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ["forward", "adjoint", "normal"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_points_far_beyond_pi_are_those_inside(backend, name, dtype):
    shape = (12, 15)
    image, values, omega = data(shape)
    argument = values if name == "adjoint" else image
    target = image if name != "forward" else values
    generator = torch.Generator().manual_seed(1)
    turns = torch.randint(-40, 41, omega.shape, generator=generator)
    far = omega + 2 * math.pi * turns.double()
    wanted = values_and_gradients(operators(shape)[name], argument, omega, target)
    # the points stay in float64, which is what a trajectory is
    found = values_and_gradients(operators(shape, backend)[name], argument.to(dtype), far, target.to(dtype))
    # in single precision torchkbnufft rounds the far angle
    bound = BOUNDS[backend, dtype]
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) <= bound


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_of_a_batch_do_not_mix(backend):
    image, values, omega = data((9, 8))
    for i in range(3):
        torch.testing.assert_close(nufft(image, omega, backend)[i], nufft(image[i : i + 1], omega, backend)[0])
        whole, one = (nufft_adjoint(v, omega, (9, 8), backend) for v in (values, values[i : i + 1]))
        torch.testing.assert_close(whole[i], one[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_order_does_not_matter(backend):
    image, values, omega = data((9, 8))
    strided = torch.stack([image, 0 * image], dim=-1)[..., 0]
    turned = omega.T.contiguous().T
    torch.testing.assert_close(nufft(strided, turned, backend), nufft(image, omega, backend))
    flipped = values.flip(1).contiguous().flip(1)
    torch.testing.assert_close(
        nufft_adjoint(flipped, turned, (9, 8), backend), nufft_adjoint(values, omega, (9, 8), backend)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_point_and_one_image(backend):
    image, values, omega = data((6, 6), n_points=1, n_images=1)
    assert relative(nufft(image, omega, backend), exact(image, omega)) < 1e-3
    assert relative(nufft_adjoint(values, omega, (6, 6), backend), exact_adjoint(values, omega, (6, 6))) < 1e-3


def test_an_unknown_backend_names_the_known():
    image, _, omega = data((6, 6))
    with pytest.raises(ConfigError, match="finufft, cufinufft, torchkbnufft"):
        nufft(image, omega, "fftw")


def test_auto_is_the_kernel_that_measures_fastest(monkeypatch):
    cpu = torch.device("cpu")
    seconds = {"finufft": 3.0, "torchkbnufft": 1.0}
    kernels = {id(module.KERNELS[name]): time for name, time in seconds.items()}
    monkeypatch.setattr(module, "_seconds", lambda engine, device: kernels[id(engine)])
    module.measured.cache_clear()
    assert module.kernel("auto", cpu) is module.KERNELS["torchkbnufft"]
    kernels[id(module.KERNELS["finufft"])] = 0.5
    assert module.kernel("auto", cpu) is module.KERNELS["torchkbnufft"], "measured once"
    module.measured.cache_clear()
    assert module.kernel("auto", cpu) is module.KERNELS["finufft"]
    module.measured.cache_clear()


def test_what_is_measured_is_a_time():
    for name in BACKENDS:
        assert module._seconds(module.KERNELS[name], torch.device("cpu")) > 0


def test_a_kernel_of_another_device_is_refused():
    image, _, omega = data((6, 6))
    assert module.there(torch.device("cpu")) == BACKENDS
    assert "torchkbnufft" in module.there(torch.device("cuda"))
    with pytest.raises(ResourceError, match=r"cufinufft.*does not run on cpu here; there are: finufft, torchkbnufft"):
        nufft(image, omega, "cufinufft")


@pytest.mark.parametrize("name", ["forward", "adjoint"])
def test_a_plan_used_again_sees_new_points(name):
    shape = (12, 15)
    image, values, omega = data(shape)
    argument = values if name == "adjoint" else image
    for points in (omega, omega, -omega, omega[:70], 0.5 * omega):
        given = argument[:, : len(points)] if name == "adjoint" else argument
        wanted = operators(shape)[name](given, points)
        assert relative(operators(shape, "finufft")[name](given, points), wanted) < 1e-10


def test_points_moved_in_place_are_noticed():
    image, _, omega = data((12, 15))
    nufft(image, omega, "finufft")
    omega.mul_(0.5)
    assert relative(nufft(image, omega, "finufft"), exact(image, omega)) < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_the_same_input_gives_the_same_bits_whatever_the_threads_do(backend, n_images):
    image, values, omega = data((64, 64), n_points=20000, n_images=n_images)
    image, values = image.cfloat(), values.cfloat()
    forward, adjoint = nufft(image, omega, backend), nufft_adjoint(values, omega, (64, 64), backend)
    for _ in range(5):
        assert torch.equal(nufft(image, omega, backend), forward)
        assert torch.equal(nufft_adjoint(values, omega, (64, 64), backend), adjoint)
