"""cufinufft as we call it: by exact sums on the pretend accelerator, and by the source of the installed package."""

import ast
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest
import torch
from devices import pretend, pretend_cufinufft

from trajdesign.encoding import nufft
from trajdesign.errors import ResourceError


def exact(image, omega):
    """Return the sums over all pixels at omega (point, dim), ordered (x, y[, z])."""
    axes = [torch.arange(n) - n // 2 for n in image.shape[1:]]
    pixels = torch.cartesian_prod(*axes).flip(1).double()
    return image.flatten(1) @ torch.exp(-1j * (omega @ pixels.T)).T


@pytest.mark.parametrize("shape", [(9, 12), (6, 7, 8)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("n", [1, 3])
def test_transforms_are_the_exact_sums(device, shape, dtype, n):
    kernel = "cufinufft" if "cufinufft" in nufft.there(device) else "torchkbnufft"
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(n, *shape, dtype=torch.complex128, generator=generator)
    for scale in (6.0, 60.0):  # within one period, and over many
        omega = (torch.rand(70, len(shape), dtype=torch.float64, generator=generator) - 0.5) * scale
        samples = exact(image, omega)
        there = omega.to(device).requires_grad_()
        given = image.to(device, dtype).requires_grad_()
        with nufft.using(kernel):
            found = nufft.nufft(given, there)
        bound = 1e-3 if kernel == "torchkbnufft" else 5e-5 if dtype == torch.complex64 else 1e-9
        assert relative(found, samples) < bound
        with nufft.using(kernel):
            back = nufft.nufft_adjoint(samples.to(device, dtype), there, shape)
        leaf = image.clone().requires_grad_()
        at = omega.clone().requires_grad_()
        values = exact(leaf, at)
        assert relative(back, torch.autograd.grad(values, leaf, samples, retain_graph=True)[0]) < bound
        found.backward(samples.to(device, dtype).conj())
        expected = torch.autograd.grad(values, (leaf, at), samples.conj())
        assert relative(given.grad, expected[0]) < bound
        assert relative(there.grad, expected[1]) < 10 * bound


def test_a_conjugate_that_is_put_off_is_none_in_memory():
    image = torch.randn(1, 8, 8, dtype=torch.complex128).conj()
    omega = torch.rand(5, 2, dtype=torch.float64)
    assert image.is_conj()
    torch.testing.assert_close(nufft.nufft(image, omega), exact(image, omega))
    values = torch.randn(1, 5, dtype=torch.complex128)
    found = nufft.nufft_adjoint(values.conj(), omega, (8, 8))
    torch.testing.assert_close(found, nufft.nufft_adjoint(values.conj().clone(), omega, (8, 8)))


@pytest.mark.parametrize("reason", [ImportError("no CUDA"), OSError("no CUDA"), RuntimeError("no CUDA")])
def test_one_that_does_not_work_here_is_said(device, monkeypatch, reason):
    if device.type != pretend.NAME:
        pytest.skip("the installed one works")

    def fail(*_, **__):
        raise reason

    monkeypatch.setattr(pretend_cufinufft, "Plan", fail)
    image = torch.ones(1, 7, 9, dtype=torch.complex64, device=device)
    said = r"cufinufft cannot be used on pretend:0: no CUDA; is it built for this CUDA"
    with pytest.raises(ResourceError, match=said), nufft.using("cufinufft"):
        nufft.nufft(image, torch.ones(3, 2, device=device))


def test_the_calls_are_those_that_the_installed_package_takes(monkeypatch):
    """Its source is read, not run: it cannot be imported where there is no CUDA."""
    spec = importlib.util.find_spec("cufinufft")
    if spec is None or spec.origin is None:
        pytest.skip("cufinufft is not installed")
    folder = Path(spec.origin).parent
    published = _methods(folder / "_plan.py", "Plan")
    options = _options(folder / "_cufinufft.py")
    assert set(pretend_cufinufft.OPTIONS) <= options
    for name in ("__init__", "setpts", "execute"):
        ours = inspect.signature(getattr(pretend_cufinufft.Plan, name)).parameters
        assert list(ours) == published[name]
    calls = []
    recorded = type("Plan", (pretend_cufinufft.Plan,), {})
    for name in ("__init__", "setpts", "execute"):
        original = getattr(pretend_cufinufft.Plan, name)
        monkeypatch.setattr(recorded, name, _recording(name, original, calls), raising=False)
    monkeypatch.setitem(sys.modules, "cufinufft", type(sys)("cufinufft"))
    sys.modules["cufinufft"].Plan = recorded
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("Stream", (), {"cuda_stream": 0}))
    there = pretend.device()
    omega = torch.rand(40, 3, dtype=torch.float64).to(there)
    image = torch.ones(2, 5, 6, 8, dtype=torch.complex128).to(there)
    cufinufft = nufft.KERNELS["cufinufft"]
    cufinufft(1, cufinufft(2, image, omega, (5, 6, 8)), omega, (5, 6, 8))
    assert {name for name, _, _ in calls} == {"__init__", "setpts", "execute"}
    for name, n_positional, keywords in calls:
        known = [argument for argument in published[name] if argument not in ("self", "kwargs")]
        assert n_positional <= len(known)
        assert keywords <= set(known) | (options if "kwargs" in published[name] else set())


def relative(found, expected):
    error = found.detach().cpu().to(expected.dtype) - expected.detach()
    return float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(expected.detach()))


def _recording(name, original, calls):
    def record(self, *args, **kwargs):
        calls.append((name, len(args), set(kwargs)))
        return original(self, *args, **kwargs)

    return record


def _methods(path, name):
    """Return the parameters of each method of a class, from its source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [found] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return {
        method.name: [a.arg for a in method.args.args] + ([method.args.kwarg.arg] if method.args.kwarg else [])
        for method in found.body
        if isinstance(method, ast.FunctionDef)
    }


def _options(path):
    """Return the names of the structure's fields: pairs of a name and a type of ctypes."""
    pairs = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Tuple)]
    return {
        pair.elts[0].value
        for pair in pairs
        if len(pair.elts) == 2 and isinstance(pair.elts[0], ast.Constant) and isinstance(pair.elts[0].value, str)
    }
