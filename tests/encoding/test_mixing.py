"""Convolutions of terms that mix, against the exact sums that they replace."""

import math

import pytest
import torch

from trajdesign.encoding import halves, mixing
from trajdesign.errors import DivergedError

# odd sizes, one that no FFT likes (it is padded), three dimensions
SHAPES = [(9, 6), (23, 5), (5, 4, 6)]
FUNCTIONS = {"known": mixing.mixing_function, "blind": mixing.blurring_function}


def problem(shape, n_maps=2, n_terms=3, n_points=40):
    generator = torch.Generator().manual_seed(0)

    def randn(*size, dtype=torch.complex128):
        return torch.randn(*size, generator=generator, dtype=dtype)

    omega = (torch.rand(n_points, len(shape), generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    turn = torch.exp(1j * randn(n_points, dtype=torch.float64))
    basis = randn(n_terms, n_points, dtype=torch.float64) * turn
    return randn(2, 3, *shape), omega, randn(n_points, dtype=torch.float64), basis, randn(n_maps, n_terms, *shape)


def exact(images, omega, weights, basis, maps, knows):
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in images.shape[2:]]
    pixels = torch.stack([g.flatten() for g in torch.meshgrid(*axes, indexing="ij")[::-1]])
    phase = torch.exp(-1j * (omega @ pixels))
    turned = torch.einsum("lj,blp->bjp", basis, maps.flatten(2))
    kspace = torch.einsum("jp,bjp,bcp->bcj", phase, turned, images.flatten(2)) * weights
    back = turned.conj() if knows else torch.ones_like(turned)
    return torch.einsum("jp,bjp,bcj->bcp", phase.conj(), back, kspace).view(images.shape)


def results(operator, images, omega, weights, wanted=(0, 1, 2)):
    """Return the value, and the gradients of a sum of it to some of the inputs."""
    leaves = [images.clone(), omega.clone(), weights.clone()]
    for index in wanted:
        leaves[index].requires_grad_()
    value = operator(*leaves)
    towards = torch.linspace(-1, 1, value.numel(), dtype=torch.float64).view(value.shape)
    loss = (value * (towards + 1j * towards.square())).real.sum()
    return value.detach(), *torch.autograd.grad(loss, [leaves[index] for index in wanted])


def ours(kind, basis, maps):
    return lambda images, omega, weights: mixing.mix(
        images, FUNCTIONS[kind](omega, weights, basis, tuple(images.shape[2:])), maps
    )


@pytest.mark.parametrize("n_maps", [1, 2])
@pytest.mark.parametrize("n_terms", [1, 2, 3])
@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_all_gradients_are_those_of_the_exact_sums(shape, kind, n_terms, n_maps, monkeypatch):
    monkeypatch.setitem(halves.PIXELS_AT_ONCE, "cpu", 2 * n_terms * math.prod(shape))  # two coils, and one
    images, omega, weights, basis, maps = problem(shape, n_maps, n_terms)
    found = results(ours(kind, basis, maps), images, omega, weights)
    wanted = results(lambda x, k, w: exact(x, k, w, basis, maps, kind == "known"), images, omega, weights)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-11


@pytest.mark.parametrize("wanted", [[0], [1], [2], [1, 2]])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_each_gradient_alone_is_the_same(kind, wanted):
    *given, basis, maps = problem((9, 6))
    _, *whole = results(ours(kind, basis, maps), *given)
    _, *alone = results(ours(kind, basis, maps), *given, wanted)
    for index, found in zip(wanted, alone, strict=True):
        torch.testing.assert_close(found, whole[index])


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_gradient_that_is_taken_twice_is_the_same(kind):
    images, omega, weights, basis, maps = problem((9, 6))
    omega.requires_grad_()
    loss = ours(kind, basis, maps)(images, omega, weights).abs().square().sum()
    once, again = (torch.autograd.grad(loss, omega, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(once, again, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_points_that_are_not_finite_are_refused(kind):
    _, omega, weights, basis, _ = problem((9, 6))
    omega[3, 1] = math.nan
    with pytest.raises(DivergedError):
        FUNCTIONS[kind](omega, weights, basis, (9, 6))
