"""The convolution against the two exact DFTs that it replaces."""

import hashlib
import math

import pytest
import torch

from trajdesign.encoding import halves, spectrum_cache, toeplitz
from trajdesign.errors import DivergedError

# odd sizes, a prime that no FFT likes (it is padded), three dimensions
SHAPES = [(8, 8), (9, 6), (13, 17), (23, 5), (5, 4, 6)]


def exact_normal(images, omega, weights):
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in images.shape[1:]]
    pixels = torch.stack([g.flatten() for g in torch.meshgrid(*axes, indexing="ij")[::-1]])
    matrix = torch.exp(-1j * (omega @ pixels))
    return ((images.flatten(1) @ matrix.T * weights) @ matrix.conj()).view_as(images)


def problem(shape, n_points=60, n_images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def randn(*size, dtype=torch.float64):
        return torch.randn(*size, generator=generator, dtype=dtype)

    omega = (torch.rand(n_points, len(shape), generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    # weights of both signs: nothing here needs them positive
    return randn(n_images, *shape, dtype=torch.complex128), omega, randn(n_points), randn(n_images, *shape).cdouble()


def results(normal, images, omega, weights, target):
    leaves = [t.clone().requires_grad_() for t in (images, omega, weights)]
    value = normal(*leaves)
    return value.detach(), *torch.autograd.grad((value - target).abs().square().sum(), leaves)


def ours(images, omega, weights):
    return toeplitz.convolve(images, toeplitz.transfer_function(omega, weights, images.shape[1:]))


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_all_gradients_are_those_of_the_exact_sums(shape):
    given = problem(shape)
    for found, wanted in zip(results(ours, *given), results(exact_normal, *given), strict=True):
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        assert float((found - wanted).norm() / wanted.norm()) < 1e-11


@pytest.mark.parametrize("wanted", [[1], [2], [1, 2], [0], [0, 2]])
def test_each_gradient_alone_is_the_same(wanted):
    images, omega, weights, target = problem((9, 6))
    whole = results(ours, images, omega, weights, target)
    leaves = [images, omega, weights]
    for index in wanted:
        leaves[index] = leaves[index].clone().requires_grad_()
    loss = (ours(*leaves) - target).abs().square().sum()
    for index, found in zip(wanted, torch.autograd.grad(loss, [leaves[i] for i in wanted]), strict=True):
        torch.testing.assert_close(found, whole[index + 1])


def test_images_taken_in_parts_are_the_same(monkeypatch):
    given = problem((9, 6), n_images=7)
    whole = results(ours, *given)
    monkeypatch.setitem(halves.PIXELS_AT_ONCE, "cpu", 2 * 54)
    for a, b in zip(results(ours, *given), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_a_network_that_applies_it_twice_gets_the_gradient_of_both():
    images, omega, weights, target = problem((8, 8))

    def twice(operator):
        def apply(images, omega, weights):
            once = operator(images, omega, weights)
            return operator(once / 100, omega, weights)

        return apply

    found, wanted = (results(twice(o), images, omega, weights, target) for o in (ours, exact_normal))
    for a, b in zip(found, wanted, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-10


def test_single_precision_is_close():
    images, omega, weights, target = problem((24, 20), n_points=300)
    wanted = results(exact_normal, images, omega, weights, target)
    found = results(ours, images.cfloat(), omega.float(), weights.float(), target.cfloat())
    for a, b in zip(found, wanted, strict=True):
        assert float((a - b).norm() / b.norm()) < 3e-4


def test_the_transfer_function_is_real_and_of_a_fast_size():
    _, omega, weights, _ = problem((23, 5))
    transfer = toeplitz.transfer_function(omega, weights, (23, 5))
    assert transfer.dtype == torch.float64
    assert transfer.shape == (4, *halves.fft_shape((23, 5))) == (4, 24, 5)


def test_points_that_are_not_finite_are_refused():
    _, omega, weights, _ = problem((8, 8))
    omega[3, 1] = math.nan
    with pytest.raises(DivergedError):
        toeplitz.transfer_function(omega, weights, (8, 8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("counts", [[7], [3, 4], [1] * 7])
def test_known_spectra_change_nothing(shape, counts):
    images, omega, weights, target = problem(shape, n_images=7)
    known = [toeplitz.spectrum(part) for part in images.split(counts)]

    def with_known(images, omega, weights):
        return toeplitz.convolve(images, toeplitz.transfer_function(omega, weights, shape), known)

    before = [spectrum.clone() for spectrum in known]
    found, wanted = (results(operator, images, omega, weights, target) for operator in (with_known, ours))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert all(torch.equal(a, b) for a, b in zip(known, before, strict=True))


def test_the_same_input_gives_the_same_bits_and_leaves_torch_its_threads():
    given = problem((16, 12), n_images=40)
    n_threads = torch.get_num_threads()
    first = results(ours, *given)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(results(ours, *given), first, strict=True))
    assert torch.get_num_threads() == n_threads


def test_spectra_are_kept_by_number_as_long_as_there_is_room():
    slices = torch.randn(3, 2, 8, 8, dtype=torch.complex64)
    n_bytes = 2 * 16 * 16 * 8  # of one slice of two coils on a doubled grid, complex64
    cache = spectrum_cache.SpectrumCache(2 * n_bytes)
    first = cache.of([5, 9], slices[:2])
    for found, one in zip(first, slices, strict=False):
        assert torch.equal(found, toeplitz.spectrum(one))
        assert found.nbytes == n_bytes
    assert all(a is b for a, b in zip(cache.of([9, 5], slices[[1, 0]]), first[::-1], strict=True))
    assert cache.of([5, 7], slices[[0, 2]]) == []  # 7 has no room
    assert spectrum_cache.SpectrumCache(0).of([5], slices[:1]) == []
    assert cache.of([], slices) == []


def test_an_image_that_changes_is_not_kept():
    slices = torch.randn(1, 2, 8, 8, dtype=torch.complex64)
    n_bytes = 2 * 16 * 16 * 8
    cache = spectrum_cache.SpectrumCache(n_bytes)
    assert len(cache.of([5], slices)) == 1
    assert cache.of([5], slices.flip(-1)) == []
    assert cache.of([5], slices) == []
    assert len(cache.of([6], slices)) == 1  # its room is free again


def test_checksums_of_an_older_version_are_those_of_images_that_have_changed():
    images, n_bytes = torch.randn(2, 2, 8, 8, dtype=torch.complex64), 2 * 16 * 16 * 8
    cache = spectrum_cache.SpectrumCache(n_bytes)
    cache.load_state({5: (hashlib.sha256(images[0].numpy().data).hexdigest(), n_bytes)})
    assert cache.of([5], images[:1]) == []
    assert len(cache.of([6], images[1:])) == 1  # its room is free again


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 63, 63), (0, 31, 17), (1, 1, 2)])
@pytest.mark.parametrize(
    "change", [lambda x: x + 1e-6, lambda x: -x, torch.conj_physical], ids=["more", "sign", "conj"]
)
def test_a_change_in_one_pixel_is_seen(place, change):
    # of 8192 pixels, so that every second one would not be looked at if some were enough
    images = torch.randn(1, 2, 64, 64, dtype=torch.complex64)
    cache = spectrum_cache.SpectrumCache(2**30)
    assert len(cache.of([5], images)) == len(cache.of([5], images.clone())) == 1
    images[(0, *place)] = change(images[(0, *place)])
    assert cache.of([5], images) == []


def test_what_is_kept_after_a_break_is_what_would_be_without_one():
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randn(1, 2, 8, 8, generator=generator, dtype=torch.complex64) for _ in range(3)]
    n_bytes = 2 * 16 * 16 * 8
    for length in range(12):
        visits = [(int(a), int(b)) for a, b in torch.randint(3, (12, 2), generator=generator)]
        whole, part = spectrum_cache.SpectrumCache(2 * n_bytes), spectrum_cache.SpectrumCache(2 * n_bytes)
        for step, (number, version) in enumerate(visits):
            if step == length:
                state, part = part.state(), spectrum_cache.SpectrumCache(2 * n_bytes)
                part.load_state(state)
            found, wanted = (cache.of([number], pictures[version]) for cache in (part, whole))
            assert len(found) == len(wanted)
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert part.state() == whole.state()
