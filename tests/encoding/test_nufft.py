"""Values and both gradients against the exact DFT in float64."""

import json
import math
import subprocess
import sys

import pytest
import torch
from faults.tiny import TINY

from trajdesign.encoding import nufft as module
from trajdesign.encoding.nufft import nufft, nufft_adjoint
from trajdesign.errors import ConfigError, DivergedError, ResourceError

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


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Return the kernel that computes in a test."""
    with module.using(request.param):
        yield request.param


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


def operators(shape, forward=nufft, adjoint=nufft_adjoint):
    """Forward, adjoint and adjoint of forward: each of (input, omega)."""
    return {
        "forward": forward,
        "adjoint": lambda y, o: adjoint(y, o, shape),
        "normal": lambda x, o: adjoint(forward(x, o), o, shape),
    }


def exact_operators(shape):
    return operators(shape, exact, exact_adjoint)


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
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", REAL)
def test_values_and_both_gradients_are_those_of_the_exact_dft(dtype, shape, backend, name):
    image, values, omega = data(shape)
    argument, target = {
        "forward": (image, values),
        "adjoint": (values, image),
        "normal": (image, image.flip(0)),
    }[name]
    wanted = values_and_gradients(exact_operators(shape)[name], argument, omega, target)
    found = values_and_gradients(operators(shape)[name], argument.to(dtype), omega.to(REAL[dtype]), target.to(dtype))
    for what, a, b in zip(("value", "gradient of the input", "gradient of omega"), found, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == (REAL[dtype] if what.endswith("omega") else dtype)
        error = relative(a, b)
        assert error <= BOUNDS[backend, dtype], f"{what}: {error:.2e}"


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", REAL)
def test_slabs_of_an_image_are_those_of_the_exact_dft(monkeypatch, dtype, shape, threads):
    monkeypatch.setattr(module, "_FEW_PIXELS", 0)
    monkeypatch.setattr(module, "_THINNEST", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    _, values, omega = data(shape, n_images=1)
    found = nufft_adjoint(values.to(dtype), omega.to(REAL[dtype]), shape)
    assert relative(found, exact_adjoint(values, omega, shape)) <= BOUNDS["finufft", dtype]


@pytest.mark.parametrize("shape", [*SHAPES, (64, 64)], ids=str)
@pytest.mark.parametrize("dtype", REAL)
def test_the_adjoint_is_the_adjoint(dtype, shape):
    image, values, omega = data(shape)
    values = values + exact(image, omega)  # so that the products are not near zero by chance
    omega = omega.to(REAL[dtype])
    left = torch.vdot(nufft(image.to(dtype), omega).flatten().to(torch.complex128), values.flatten())
    right = torch.vdot(image.flatten(), nufft_adjoint(values.to(dtype), omega, shape).flatten().to(torch.complex128))
    assert float((left - right).abs() / left.abs()) <= (1e-5 if dtype == torch.complex64 else 1e-12)


def test_gradients_are_finite_differences(backend):
    # torchkbnufft reads its kernel from a table, so its values are steps: differences over a few of them
    step = 1e-5 if backend == "finufft" else 1e-2
    shape = (10, 9)
    image, values, omega = data(shape, n_points=5, n_images=2, spread=0.9)

    def loss(image, omega):
        kspace = nufft(image, omega)
        return (nufft_adjoint(kspace * kspace.abs(), omega, shape) - image).abs().square().sum()

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


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (-1, 1), (70, 1)])
def test_points_that_are_not_finite_never_reach_a_kernel(monkeypatch, backend, wrong, place):
    calls = []

    monkeypatch.setitem(module.KERNELS, backend, lambda *given: calls.append(given))
    image, values, omega = data((8, 8))
    omega[place] = wrong
    for call in (lambda: nufft(image, omega), lambda: nufft_adjoint(values, omega, (8, 8))):
        with pytest.raises(DivergedError) as caught:
            call()
        assert caught.value.exit_code == 7
    assert not calls


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ["forward", "adjoint", "normal"])
def test_points_far_beyond_pi_are_those_inside(backend, name, dtype):
    shape = (12, 15)
    image, values, omega = data(shape)
    argument = values if name == "adjoint" else image
    target = image if name != "forward" else values
    generator = torch.Generator().manual_seed(1)
    turns = torch.randint(-40, 41, omega.shape, generator=generator)
    far = omega + 2 * math.pi * turns.double()
    wanted = values_and_gradients(exact_operators(shape)[name], argument, omega, target)
    # the points stay in float64, which is what a trajectory is
    found = values_and_gradients(operators(shape)[name], argument.to(dtype), far, target.to(dtype))
    # in single precision torchkbnufft rounds the far angle
    bound = BOUNDS[backend, dtype]
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) <= bound


def test_images_of_a_batch_do_not_mix(backend):
    image, values, omega = data((9, 8))
    for i in range(3):
        torch.testing.assert_close(nufft(image, omega)[i], nufft(image[i : i + 1], omega)[0])
        whole, one = (nufft_adjoint(v, omega, (9, 8)) for v in (values, values[i : i + 1]))
        torch.testing.assert_close(whole[i], one[0])


def test_memory_order_does_not_matter(backend):
    image, values, omega = data((9, 8))
    strided = torch.stack([image, 0 * image], dim=-1)[..., 0]
    turned = omega.T.contiguous().T
    torch.testing.assert_close(nufft(strided, turned), nufft(image, omega))
    flipped = values.flip(1).contiguous().flip(1)
    torch.testing.assert_close(nufft_adjoint(flipped, turned, (9, 8)), nufft_adjoint(values, omega, (9, 8)))


def test_one_point_and_one_image(backend):
    image, values, omega = data((6, 6), n_points=1, n_images=1)
    assert relative(nufft(image, omega), exact(image, omega)) < 1e-3
    assert relative(nufft_adjoint(values, omega, (6, 6)), exact_adjoint(values, omega, (6, 6))) < 1e-3


def test_an_unknown_kernel_names_the_known():
    with pytest.raises(ConfigError, match="finufft, cufinufft, torchkbnufft"), module.using("fftw"):
        pass


def test_a_kernel_is_used_until_the_end_of_the_block_also_where_that_fails():
    cpu = torch.device("cpu")
    with module.using("torchkbnufft"):
        assert module.kernel(cpu) is module.KERNELS["torchkbnufft"]
        with pytest.raises(DivergedError), module.using("finufft"):
            nufft(torch.ones(1, 4, 4, dtype=torch.complex64), torch.full((1, 2), math.nan))
        assert module.kernel(cpu) is module.KERNELS["torchkbnufft"]
    assert module.kernel(cpu) is module.KERNELS["finufft"]


def test_auto_is_finufft_on_a_cpu_and_elsewhere_the_kernel_that_measures_fastest(monkeypatch):
    seconds = {"cufinufft": 3.0, "torchkbnufft": 1.0}
    kernels = {id(module.KERNELS[name]): time for name, time in seconds.items()}
    monkeypatch.setattr(module, "_seconds", lambda engine, device: kernels[id(engine)])
    monkeypatch.setattr(module, "there", lambda device: list(seconds))
    gpu = torch.device("cuda")
    module.measured.cache_clear()
    assert module.fastest(torch.device("cpu")) == "finufft"
    assert module.fastest(gpu) == "torchkbnufft"
    kernels[id(module.KERNELS["cufinufft"])] = 0.5
    assert module.fastest(gpu) == "torchkbnufft", "measured once"
    module.measured.cache_clear()
    assert module.fastest(gpu) == "cufinufft"
    module.measured.cache_clear()


UNUSED = """
import json, sys
from trajdesign.cli.app import app
from trajdesign.reporting import report
report.draw = lambda *_: None  # seconds, of what computes nothing
for command in json.loads(sys.argv[1]):
    try:
        app(command)
    except SystemExit as end:
        assert not end.code, command
    assert sys.modules.get("torchkbnufft") is None, command
"""


@pytest.mark.parametrize("before", ["", "import sys; sys.modules['torchkbnufft'] = None"], ids=["there", "gone"])
def test_torchkbnufft_is_not_imported_where_finufft_computes(tmp_path, before):
    run = str(tmp_path / "run")
    options = [f"--set={option}" for option in TINY]
    commands = [["--help"], ["optimize", "--out", run, "--no-baseline", *options], ["psf", run], ["check", run]]
    command = [sys.executable, "-c", before + UNUSED, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_torchkbnufft_that_cannot_be_imported_is_said_in_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "torchkbnufft.py").write_text("import torch\ntorch.without_script\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchkbnufft", raising=False)
    module._kb_modules.cache_clear()
    image, values, omega = data((6, 6))
    said = r"torchkbnufft cannot be used with torch .*without_script.*; take finufft"
    for call in (lambda: nufft(image, omega), lambda: nufft_adjoint(values, omega, (6, 6))):
        with pytest.raises(ResourceError, match=said), module.using("torchkbnufft"):
            call()
    module.measured.cache_clear()
    assert list(module.measured(torch.device("cpu"))) == ["finufft"]
    module.measured.cache_clear()
    monkeypatch.setitem(sys.modules, "torchkbnufft", None)
    said = r"'torchkbnufft' does not run on cpu here; there are: finufft\."
    with pytest.raises(ResourceError, match=said), module.using("torchkbnufft"):
        nufft(image, omega)


def as_published(shape, tolerance, oversampling, precision):
    """Whether finufft 2.6 takes a plan, by its published rule; numbers by name as there.

    The kernel must be wide enough for the tolerance, no wider than it has, and the tolerance beyond the rounding that
    is expected of a grid: the lowest oversampling is that of the kernel, and more near the rounding.
    """
    factor = 0.18 * 1.4 ** (len(shape) - 1)
    wanted = math.ceil(math.log(factor / tolerance) / (math.pi * math.sqrt(1 - 1 / oversampling)) + 1)
    widest = 8 if precision == "complex64" and oversampling < 1.4 else 16
    grid = max(math.ceil(oversampling * max(shape)), 2 * wanted)
    while grid % 2 or max(prime for prime in range(2, grid + 1) if is_prime_factor(prime, grid)) > 5:
        grid += 1
    ratio = tolerance / (0.48 * (2.0**-23 if precision == "complex64" else 2.0**-52) * grid)
    if wanted > widest or ratio <= 1:
        return False
    share = math.log(factor / tolerance) / ((wanted - 1) * math.pi)
    lowest = 1 / (1 - share**2) if share < 1 else 2.5
    if ratio < 10:
        a, b, c = (0.014, 0.291, -0.043) if wanted > 8 else (0.555, -0.290, 0.071)
        lowest += max((a / ratio + b) / ratio + c, 0)
    return min(lowest, 2.0) <= oversampling


def is_prime_factor(number, of):
    """Whether a number divides, and is prime."""
    return of % number == 0 and all(number % other for other in range(2, math.isqrt(number) + 1))


SIZES = [(n, n) for n in (16, 41, 64, 128, 176, 256, 320, 321, 400, 512, 640, 768, 960)]
SIZES += [(512, 64), (32, 32, 32), (41, 41, 41), (128, 128, 128), (256, 256, 32), (320, 320, 16), (512, 512, 64)]


@pytest.mark.parametrize("version", ["2.5.1", "2.6.0", "2.6.0rc1", "2.10.dev0"])
@pytest.mark.parametrize("dtype", REAL)
def test_every_plan_is_one_that_newer_versions_of_finufft_take(monkeypatch, dtype, version):
    taken = []

    class Plan:
        def __init__(self, kind, shape, n, eps, sign, *, dtype, upsampfac, nthreads, **others):
            assert others == ({} if version == "2.5.1" else {"allow_eps_too_small": 1})
            taken.append((shape, eps, upsampfac, dtype))

    monkeypatch.setattr(module.finufft, "Plan", Plan)
    monkeypatch.setattr(module.finufft, "__version__", version)
    for shape in SIZES:
        for kind in (1, 2):
            module._finufft_plan.__wrapped__(kind, shape, 1, dtype, 1, 0)
    refused = [plan for plan in taken if not as_published(*plan)]
    assert len(taken) == 2 * len(SIZES)
    assert not refused


def test_the_published_rule_is_that_which_refused_what_we_took():
    # the numbers of its sources: single precision, tolerance 3e-5, oversampling 1.25
    assert as_published((128, 128), 1e-4, 2.0, "complex64")
    assert not any(as_published((n,) * dims, 3e-5, 1.25, "complex64") for n in (176, 256) for dims in (2, 3))
    assert not as_published((512, 512), 1e-13, 2.0, "complex128")


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(128, 128), (256, 256), (320, 320), (512, 512), (320, 24), (40, 36, 48)], ids=str)
def test_large_plans_are_exact_at_random_points(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    omega = (torch.rand(2000, len(shape), generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    image = torch.randn(1, *shape, generator=generator, dtype=torch.complex128)
    values = torch.randn(1, 2000, generator=generator, dtype=torch.complex128)
    bound = 1e-4 if dtype == torch.complex64 else 2e-13
    found = nufft(image.to(dtype), omega)[:, :20]
    assert relative(found, exact(image, omega[:20])) <= bound
    # the adjoint at some pixels: those sums, pixel by pixel
    back = nufft_adjoint(values.to(dtype), omega, shape)
    places = [tuple(int(torch.randint(n, (), generator=generator)) for n in shape) for _ in range(20)]
    offsets = torch.tensor([[p - n // 2 for p, n in zip(place, shape, strict=True)][::-1] for place in places])
    wanted = torch.exp(1j * (offsets.double() @ omega.T)) @ values[0]
    assert relative(torch.stack([back[(0, *place)] for place in places]), wanted) <= bound


def test_what_is_measured_is_a_time():
    for name in BACKENDS:
        assert module._seconds(module.KERNELS[name], torch.device("cpu")) > 0


def test_a_kernel_of_another_device_is_refused():
    image, _, omega = data((6, 6))
    assert module.there(torch.device("cpu")) == BACKENDS
    assert "torchkbnufft" in module.there(torch.device("cuda"))
    said = r"cufinufft.*does not run on cpu here; there are: finufft, torchkbnufft"
    with pytest.raises(ResourceError, match=said), module.using("cufinufft"):
        nufft(image, omega)


@pytest.mark.parametrize("name", ["forward", "adjoint"])
def test_a_plan_used_again_sees_new_points(name):
    shape = (12, 15)
    image, values, omega = data(shape)
    argument = values if name == "adjoint" else image
    for points in (omega, omega, -omega, omega[:70], 0.5 * omega):
        given = argument[:, : len(points)] if name == "adjoint" else argument
        wanted = exact_operators(shape)[name](given, points)
        assert relative(operators(shape)[name](given, points), wanted) < 1e-10


def test_points_moved_in_place_are_noticed():
    image, _, omega = data((12, 15))
    nufft(image, omega)
    omega.mul_(0.5)
    assert relative(nufft(image, omega), exact(image, omega)) < 1e-10


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_the_same_input_gives_the_same_bits_whatever_the_threads_do(backend, n_images):
    image, values, omega = data((64, 64), n_points=20000, n_images=n_images)
    image, values = image.cfloat(), values.cfloat()
    forward, adjoint = nufft(image, omega), nufft_adjoint(values, omega, (64, 64))
    for _ in range(5):
        assert torch.equal(nufft(image, omega), forward)
        assert torch.equal(nufft_adjoint(values, omega, (64, 64)), adjoint)
