"""Off-resonance and decay in the encoding against sums written out over every pixel and sample, with every sign."""

import math

import numpy as np
import pytest
import torch
from exact_sums import exact_forward, setup

from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.encoding.voxel_signal import signal
from trajdesign.errors import ConfigError

NORMALS = ["toeplitz", "chain"]
PLANE, VOLUME = (12, 15), (6, 7, 8)


def times(acquisition, start=2e-3):
    """As if the readout took 4 ms."""
    return start + torch.linspace(0, 4e-3, acquisition.n_samples, dtype=torch.float64)


def field(trajectory, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *trajectory.acquisition.image_shape)
    f, rate = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return 200 * f - 100, 50 * rate


def factor(f, rate, t):
    """exp(-2 pi i f t - R |t|), (batch, sample, pixel)."""
    f, rate = f.flatten(1)[:, None], rate.flatten(1)[:, None]
    return torch.exp(-2j * math.pi * f * t[:, None] - rate * t.abs()[:, None])


def sums(trajectory, f, rate, t):
    """The functions that sample images, and bring k-space back, with and without the field."""
    _, phase = exact_forward(torch.zeros(1, 1, *trajectory.acquisition.image_shape).cdouble(), trajectory)
    turned = factor(f, rate, t)

    def forward(images):
        return torch.einsum("sap,bap,bcp->bcsa", phase, turned, images.flatten(2))

    def adjoint(kspace, knows=True):
        back = turned.conj() if knows else torch.ones_like(turned)
        return torch.einsum("sap,bap,bcsa->bcp", phase.conj(), back, kspace)

    return forward, adjoint


def distance(found, wanted):
    return float((found.flatten() - wanted.flatten()).norm() / wanted.norm())


@pytest.mark.parametrize("start", [2e-3, -2e-3, -5e-3])
@pytest.mark.parametrize("matrix", [PLANE, VOLUME], ids=["2D", "3D"])
@pytest.mark.parametrize("normal", NORMALS)
def test_enough_terms_are_the_exact_sums(normal, matrix, start):
    trajectory, images, kspace, _ = setup((0.22, 0.2, 0.1)[: len(matrix)], matrix)
    (f, rate), t = field(trajectory), times(trajectory.acquisition, start)
    forward, adjoint = sums(trajectory, f, rate, t)
    terms = segments(t, (-100, 100), (0, 50), tolerance=1e-8)
    plain = Encoding(trajectory, dtype=torch.float64, normal=normal, segments=terms)
    maps = terms.maps(f, rate)
    there, weighted = plain.in_field(maps), plain.weights * forward(images)
    assert distance(there.forward(images), forward(images)) < 1e-6
    assert distance(there.coil_images(kspace), adjoint(kspace)) < 1e-6
    assert distance(there.normal(images), adjoint(weighted)) < 1e-6
    assert distance(plain.measured(images, maps), adjoint(weighted, knows=False)) < 1e-6
    assert distance(plain.normal(images), adjoint(weighted)) > 0.1  # the field matters


def test_coils_combine_after_the_field():
    trajectory, images, _, coil_maps = setup()
    (f, rate), t = field(trajectory), times(trajectory.acquisition)
    forward, adjoint = sums(trajectory, f, rate, t)
    terms = segments(t, (-100, 100), (0, 50), tolerance=1e-8)
    encoding = Encoding(trajectory, coil_maps, dtype=torch.float64, normal="toeplitz", segments=terms)
    image = images[:, :1]
    found = encoding.in_field(terms.maps(f, rate)).normal(image)
    coils = adjoint(encoding.weights * forward(image * coil_maps)).view(images.shape)
    assert distance(found, (coils * coil_maps.conj()).sum(1, keepdim=True)) < 1e-6


@pytest.mark.parametrize("n_terms", [2, 3, 4, 5, 6])
def test_few_terms_err_as_they_say(n_terms):
    trajectory, images, _, _ = setup(matrix=PLANE)
    (f, rate), t = field(trajectory), times(trajectory.acquisition)
    forward, _ = sums(trajectory, f, rate, t)
    terms = segments(t, (-100, 100), (0, 50), n_terms=n_terms)
    maps = terms.maps(f, rate)
    found = torch.einsum("blp,ls->bsp", maps.flatten(2), terms.basis)
    largest = float((found - factor(f, rate, t)).abs().max())
    assert 0.3 * terms.error < largest < 1.05 * terms.error
    encoding = Encoding(trajectory, dtype=torch.float64, normal="chain", segments=terms)
    missed = (encoding.in_field(maps).forward(images) - forward(images)).abs()
    assert (missed <= 1.05 * terms.error * images.abs().sum((2, 3))[..., None, None]).all()


def test_terms_halve_the_digits_as_published():
    """3, 4, 5 terms leave about 1e-2, 1e-3, 1e-4 of +-100 Hz over 4 ms (root mean square over a flat histogram)."""
    t = torch.linspace(0, 4e-3, 500, dtype=torch.float64)
    f = torch.linspace(-100, 100, 333, dtype=torch.float64)
    wanted = factor(f[None, :], torch.zeros_like(f)[None, :], t)[0]
    for n_terms, bound in ((3, 2e-2), (4, 2e-3), (5, 2e-4)):
        terms = segments(t, (-100, 100), n_terms=n_terms)
        found = torch.einsum("lp,ls->sp", terms.maps(f[None, None]).flatten(2)[0], terms.basis)
        assert bound / 20 < float((found - wanted).abs().square().mean().sqrt()) < bound


def test_histogram_makes_few_terms_best_for_what_occurs():
    t = torch.linspace(0, 4e-3, 200, dtype=torch.float64)
    f = torch.cat([torch.linspace(-10, 10, 180), torch.linspace(80, 100, 20)]).double()[None, None]
    wanted = factor(f, torch.zeros_like(f), t)
    errors = []
    for often in (None, torch.histc(f, 201, -100, 100)):
        terms = segments(t, (-100, 100), n_terms=4, histogram=often)
        errors.append(distance(torch.einsum("blp,ls->bsp", terms.maps(f).flatten(2), terms.basis), wanted))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("normal", NORMALS)
@pytest.mark.parametrize("matrix", [PLANE, VOLUME], ids=["2D", "3D"])
def test_gradient_to_the_trajectory(matrix, normal, knows):
    """Against central differences of the exact sums."""
    trajectory, images, towards, _ = setup((0.22, 0.2, 0.1)[: len(matrix)], matrix, n_coils=2)
    towards = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.complex128)
    (f, rate), t = field(trajectory), times(trajectory.acquisition)
    terms = segments(t, (-100, 100), (0, 50), tolerance=1e-8)
    weights = torch.rand(3, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    k = trajectory.points.clone().requires_grad_()
    encoding = Encoding(
        trajectory.with_points(k),
        weights=weights,
        dtype=torch.float64,
        normal=normal,
        segments=terms,
        knows_field=knows,
    )
    found = encoding.measured(images, terms.maps(f, rate))
    (slope,) = torch.autograd.grad((found * towards.conj()).real.sum(), k)
    direction = torch.randn(k.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    values = []
    for step in (1e-3, -1e-3):
        forward, adjoint = sums(trajectory.with_points(trajectory.points + step * direction), f, rate, t)
        moved = adjoint(weights * forward(images), knows)
        values.append(float((moved.flatten() * towards.conj().flatten()).real.sum()))
    assert float((slope * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-5)


def test_parts_of_a_batch_bring_the_gradient_of_the_whole():
    trajectory, images, _, _ = setup()
    (f, rate), t = field(trajectory), times(trajectory.acquisition)
    terms = segments(t, (-100, 100), (0, 50), n_terms=4)
    maps, slopes = terms.maps(f, rate), []
    for parts in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
        k = trajectory.points.clone().requires_grad_()
        encoding = Encoding(trajectory.with_points(k), dtype=torch.float64, normal="toeplitz", segments=terms)
        cut = encoding.cut(6)
        for part in parts:
            cut.measured(images[part], maps[part]).abs().square().sum().backward()
        encoding.carry_on(cut)
        slopes.append(k.grad)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-9, atol=0)


def test_single_precision_is_near():
    trajectory, images, _, _ = setup()
    (f, rate), t = field(trajectory), times(trajectory.acquisition)
    forward, adjoint = sums(trajectory, f, rate, t)
    terms = segments(t, (-100, 100), (0, 50), tolerance=1e-8)
    for normal in NORMALS:
        encoding = Encoding(trajectory, normal=normal, segments=terms, knows_field=True)
        found = encoding.measured(images.to(torch.complex64), terms.maps(f, rate))
        assert found.dtype == torch.complex64
        assert distance(found.cdouble(), adjoint(encoding.weights.double() * forward(images))) < 2e-5


def test_virtual_scan_has_the_same_sign():
    trajectory, images, _, _ = setup(batch=1)
    f, _ = field(trajectory, batch=1)
    t = times(trajectory.acquisition)
    when = t.expand(3, -1)
    received = signal(images[0], trajectory.k_adc, when, trajectory.acquisition, off_resonance=np.asarray(f[0]))
    terms = segments(t, (-100, 100), tolerance=1e-8)
    encoding = Encoding(trajectory, dtype=torch.float64, segments=terms)
    assert distance(encoding.in_field(terms.maps(f)).forward(images), received) < 1e-6


@pytest.mark.parametrize("change", [
    {"frequencies": (100.0, -100.0)}, {"frequencies": (0.0, math.nan)}, {"rates": (-1.0, 0.0)}, {"n_terms": 0},
    {"n_terms": 1000},
])  # fmt: skip
def test_nonsense_is_refused(change):
    settings = {"frequencies": (-100.0, 100.0), **change}
    with pytest.raises(ConfigError):
        segments(torch.linspace(0, 4e-3, 40), **settings)


def test_a_field_out_of_the_range_is_refused():
    terms = segments(torch.linspace(0, 4e-3, 40), (-100.0, 100.0))
    with pytest.raises(ConfigError, match="120 Hz"):
        terms.maps(torch.full((1, 2, 2), 120.0))
    trajectory, *_ = setup()
    with pytest.raises(ConfigError, match="segments"):
        Encoding(trajectory).in_field(torch.zeros(1, 3, *trajectory.acquisition.image_shape))
