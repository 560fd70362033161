"""Low-rank plus sparse films: against numpy's decompositions, and against the films they are made of."""

import math

import numpy as np
import pytest
import torch
from exact_encoding import ExactEncoding, cartesian, samples

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.reconstructors import low_rank_sparse

N_FRAMES = 12
FILM = Acquisition((0.2, 0.2), (10, 9), N_FRAMES, 40, n_frames=N_FRAMES)


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def built(**options):
    return plugins.build("reconstructor", {"kind": "low_rank_sparse", **options})


def undersampled():
    """An encoding of a film with one coil whose sensitivity is 1, and what it sees of a film (1, 1, frame, y, x)."""
    generator = torch.Generator().manual_seed(4)
    omega = torch.stack([cartesian((9, 10))[0, torch.randperm(90, generator=generator)[:40]] for _ in range(N_FRAMES)])
    encoding = ExactEncoding(FILM, omega, torch.ones(1, 1, 1, 9, 10, dtype=torch.complex128))
    still, moving = noise(1, 1, 1, 9, 10), 0.3 * noise(1, 1, N_FRAMES, 9, 10, seed=1)
    return encoding, encoding.normal(still + moving)


def singular_values(film):
    return np.linalg.svd(film[0, 0].flatten(1).numpy(), compute_uv=False)


def frequencies(film):
    return np.abs(np.fft.fft(film[0, 0].numpy(), axis=0, norm="ortho"))


def inner(a, b):
    return float((a.conj() * b).real.sum())


def test_every_iteration_costs_less_and_the_last_the_least():
    encoding, combined = undersampled()
    options = {"low_rank": 0.1, "sparse": 0.05}
    weights = 0.1 * singular_values(combined).max(), 0.05 * frequencies(combined).max()

    def cost(background, motion):
        """What is to be least, without the constant ||y||^2 / 2."""
        film = background + motion
        fit = inner(film, encoding.normal(film) / 2 - combined)
        return fit + weights[0] * singular_values(background).sum() + weights[1] * frequencies(motion).sum()

    found = [built(iterations=n, **options).parts(combined, encoding) for n in (1, 2, 3, 5, 10, 30, 100, 1000)]
    costs = [cost(*parts) for parts in found]
    assert costs[0] < 0
    assert (np.diff(costs) < 0).all()
    # a convex function is least where its subgradients hold zero
    background, motion = found[-1]
    misfit = combined - encoding.normal(background + motion)
    assert 0 < (singular_values(background) > 1e-9).sum() < N_FRAMES
    assert 0 < (frequencies(motion) > 1e-9).mean() < 0.5
    assert singular_values(misfit).max() == pytest.approx(weights[0], rel=5e-4)
    assert frequencies(misfit).max() == pytest.approx(weights[1], rel=5e-4)
    assert inner(misfit, background) == pytest.approx(weights[0] * singular_values(background).sum(), rel=5e-4)
    assert inner(misfit, motion) == pytest.approx(weights[1] * frequencies(motion).sum(), rel=5e-4)


def test_a_film_of_both_parts_is_taken_apart():
    """Of a background that flickers as a whole, and pixels that each beat at frequencies of their own."""
    shape, n_frames = (16, 15), 24
    acquisition = Acquisition((0.2, 0.2), shape[::-1], n_frames, 40, n_frames=n_frames)
    background = noise(1, 1, n_frames, 1, 1) * noise(1, 1, 1, *shape, seed=1)
    is_there = torch.rand(1, 1, n_frames, *shape, generator=torch.Generator().manual_seed(2)) < 0.02
    motion = torch.fft.ifft(3 * is_there * noise(1, 1, n_frames, *shape, seed=3).sgn(), dim=2, norm="ortho")
    film = background + motion
    # fully sampled; the weights small, and to each other as in Candes et al. (J. ACM 2011, doi:10.1145/1970392.1970395)
    encoding = ExactEncoding(acquisition, cartesian(shape), torch.ones(1, 1, 1, *shape, dtype=torch.complex128))
    weight = 0.01 * singular_values(film).max() / math.sqrt(math.prod(shape))
    model = built(iterations=300, low_rank=0.01, sparse=weight / frequencies(film).max())
    found = model.parts(film, encoding)
    assert (singular_values(found[0]) > 1e-9).sum() == 1
    np.testing.assert_array_equal(frequencies(found[1]) > 1e-9, is_there[0, 0])
    # but for what the thresholds take
    for part, wanted in zip(found, (background, motion), strict=True):
        assert float(torch.linalg.vector_norm(part - wanted) / torch.linalg.vector_norm(wanted)) < 0.02


def test_singular_values_and_frequencies_shrink_as_numpys():
    film = noise(2, 1, 5, 4, 3)
    thresholds = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = low_rank_sparse._shrink_singular_values(film, thresholds[:, None, None, None, None])
    for one, shrunk, threshold in zip(film, found, thresholds.tolist(), strict=True):
        u, s, vh = np.linalg.svd(one[0].flatten(1).numpy(), full_matrices=False)
        assert 0 < (s > threshold).sum() < 5
        np.testing.assert_allclose(shrunk[0].flatten(1), u * np.maximum(s - threshold, 0) @ vh, atol=1e-12)
    found = low_rank_sparse._shrink_frequencies(film, torch.full((2, 1, 1, 1, 1), 1.0))
    spectrum = np.fft.fft(film.numpy(), axis=2, norm="ortho")
    expected = np.where(np.abs(spectrum) > 1, spectrum * (1 - 1 / np.abs(spectrum)), 0)
    np.testing.assert_allclose(np.fft.fft(found.numpy(), axis=2, norm="ortho"), expected, atol=1e-12)


def test_the_gradient_of_shrinking_is_right_also_where_singular_values_are_the_same():
    shrink = low_rank_sparse._Shrinkage.apply
    root = noise(2, 5, 5)
    assert torch.autograd.gradcheck(lambda x: shrink(x @ x.mH / 4), root.requires_grad_())
    # at one eigenvalue alone, x = 4 I: the derivative of 1 - 1 / sqrt(x) is 1/16 in every direction
    matrix = 4 * torch.eye(5, dtype=torch.complex128)[None].requires_grad_()
    upstream = root.detach()[:1] + root.detach()[:1].mH
    [slope] = torch.autograd.grad(shrink(matrix), matrix, upstream)
    torch.testing.assert_close(slope, upstream / 16)


def test_the_gradient_to_the_images_is_that_of_finite_differences():
    encoding, images = undersampled()
    model = built(iterations=5, low_rank=0.05, sparse=0.1)
    given = images.clone().requires_grad_()
    model(given, encoding).square().mean().backward()
    step = 1e-6 * noise(*images.shape, seed=5)
    with torch.no_grad():
        ends = [model(images + sign * step, encoding).square().mean() for sign in (1, -1)]
    assert float((given.grad.conj() * step).real.sum()) == pytest.approx(float(ends[0] - ends[1]) / 2, rel=1e-4)


def test_the_gradient_to_the_samples_is_that_of_finite_differences(monkeypatch):
    monkeypatch.setattr(low_rank_sparse, "_largest_eigenvalue", lambda sense, like: torch.tensor(2.0))  # a constant
    omega, maps = samples(N_FRAMES, 40, 2), torch.ones(1, 1, 1, 9, 10, dtype=torch.complex128)
    film = noise(1, 1, 1, 9, 10) + 0.3 * noise(1, 1, N_FRAMES, 9, 10, seed=1)
    model = built(iterations=5, low_rank=0.05, sparse=0.1)

    def loss(omega):
        encoding = ExactEncoding(FILM, omega, maps)
        return model(encoding.normal(film), encoding).square().mean()

    given = omega.clone().requires_grad_()
    loss(given).backward()
    step = 1e-6 * torch.randn(omega.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert float((given.grad * step).sum()) == pytest.approx(
        float(loss(omega + step) - loss(omega - step)) / 2, rel=1e-4
    )


def test_films_are_as_bright_as_their_data_each_by_itself_and_black_ones_stay_black():
    encoding, images = undersampled()
    model = built(iterations=5)
    both = torch.cat([images, 1e-3 * images, 0 * images]).requires_grad_()
    found = model(both, encoding)
    wanted = model(images, encoding)[0]
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(found[1], 1e-3 * wanted, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(found[2], root_sum_of_squares(0 * images)[0])
    found.sum().backward()
    assert both.grad.isfinite().all()


def test_what_is_no_film_is_refused_and_so_are_impossible_options():
    encoding = ExactEncoding(Acquisition((0.2, 0.2), (10, 9), 1, 40), samples(1, 40, 2))
    with pytest.raises(ConfigError, match="for films"):
        built()(noise(1, 2, 9, 10), encoding)
    for options in ({"iterations": 0}, {"low_rank": 0.0}, {"sparse": 1.5}):
        with pytest.raises(ConfigError, match="low_rank"):
            built(**options)
