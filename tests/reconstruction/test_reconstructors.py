"""Reconstructors with coil maps against dense least squares, by exact sums in double precision."""

import math

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.data.receiver import coil_sensitivities
from trajdesign.data.sources.phantom import phantom
from trajdesign.encoding.operator import Encoding, angular
from trajdesign.errors import ConfigError
from trajdesign.reconstruction.correction import Correction
from trajdesign.reconstruction.sense import conjugate_gradients, with_maps
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

SHAPE = (10, 12)
N_COILS = 3


@pytest.fixture
def trajectory():
    return spiral(Acquisition((0.2, 0.2), SHAPE[::-1], 2, 60, 8e-6), Scanner())


@pytest.fixture
def maps():
    return torch.from_numpy(coil_sensitivities(SHAPE, N_COILS, np.random.default_rng(1))).to(torch.complex128)[None]


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def dense(trajectory, maps, weights):
    """Return E^H W E with the maps, and without, as sums over all pixels and samples."""
    y, x = (torch.arange(n) - n // 2 for n in SHAPE)
    pixels = torch.cartesian_prod(y, x).flip(1).double()
    transform = torch.exp(-1j * (angular(trajectory).detach().flatten(0, 1) @ pixels.T))
    adjoint = transform.conj().T * weights.flatten()
    of_coils = [m.flatten().conj()[:, None] * (adjoint @ transform) * m.flatten() for m in maps[0]]
    return sum(of_coils), adjoint @ transform


def measured(trajectory, maps, **options):
    """Return an encoding with maps, adjoint images of the noise that it measures, and their dense counterparts."""
    encoding = Encoding(trajectory, maps, dtype=torch.float64, **options)
    normal, of_a_coil = dense(trajectory, maps, encoding.weights)
    image = noise(math.prod(SHAPE)) + 2
    images = torch.stack([(of_a_coil @ (m.flatten() * image)).view(SHAPE) for m in maps[0]])[None]
    return encoding, images, normal, normal @ image


@pytest.mark.parametrize("normal_by", ["chain", "toeplitz"])
@pytest.mark.parametrize("regularization", [0.3, 0.01])
def test_cg_sense_is_the_dense_solution(trajectory, maps, regularization, normal_by):
    encoding, images, normal, right = measured(trajectory, maps, normal=normal_by)
    expected = torch.linalg.solve(normal + regularization * torch.eye(len(normal)), right).abs().view(SHAPE)
    table = {"kind": "cg_sense", "iterations": 200, "regularization": regularization}
    found = plugins.build("reconstructor", table)(images, encoding)[0, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.max()))


def test_unrolled_before_training_is_its_data_consistency(trajectory, maps):
    encoding, images, normal, right = measured(trajectory, maps)
    model = plugins.build("reconstructor", {"kind": "unrolled", "iterations": 3, "steps": 120}).double()
    weights = torch.tensor([0.2, 0.05, 0.6], dtype=torch.float64)
    with torch.no_grad():
        model.regularization.copy_(weights.log())
    x = torch.zeros_like(right)
    for weight in weights:
        x = torch.linalg.solve(normal + weight * torch.eye(len(normal)), right + weight * x)
    expected = x.abs().view(SHAPE)
    torch.testing.assert_close(model(images, encoding)[0, 0], expected, rtol=0, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("table", [{"kind": "cg_sense", "iterations": 5}, {"kind": "unrolled", "levels": 1}])
def test_the_gradient_to_the_trajectory_is_that_of_finite_differences(trajectory, maps, table):
    torch.manual_seed(0)
    model = plugins.build("reconstructor", table).double()
    for correction in model.children():
        torch.nn.init.normal_(correction.head.weight, std=0.1)
    weights = Encoding(trajectory, dtype=torch.float64).weights
    images = maps * (noise(1, 1, *SHAPE) + 2)

    def loss(k):
        encoding = Encoding(trajectory.with_points(k), None, weights, dtype=torch.float64, normal="chain")
        return model(encoding.normal(images), encoding.with_maps(maps)).square().mean()

    k = trajectory.points.clone().requires_grad_()
    loss(k).backward()
    direction = torch.randn(k.shape, dtype=k.dtype, generator=torch.Generator().manual_seed(1))
    step = 1e-5 * direction
    with torch.no_grad():
        difference = (loss(k + step) - loss(k - step)) / 2e-5
    assert float((k.grad * direction).sum()) == pytest.approx(float(difference), rel=1e-4)


@pytest.mark.parametrize("normal", ["auto", "toeplitz", "chain"])
def test_checkpointing_changes_no_gradient(trajectory, normal):
    gradients = []
    for checkpoint in (True, False):
        torch.manual_seed(0)
        model = plugins.build("reconstructor", {"kind": "unrolled", "checkpoint": checkpoint})
        for correction in model.children():
            torch.nn.init.normal_(correction.head.weight)
        k = trajectory.points.clone().requires_grad_()
        encoding = Encoding(trajectory.with_points(k), normal=normal)
        images = noise(2, N_COILS, *SHAPE).to(torch.complex64)
        model(encoding.normal(images), encoding).square().mean().backward()
        gradients.append([k.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_conjugate_gradients_solve_each_of_a_batch_by_itself():
    root = noise(2, 6, 6)
    matrix = root @ root.mH + torch.eye(6)
    right = noise(2, 1, 6, 1, seed=1)
    found = conjugate_gradients(lambda x: matrix[:, None] @ x, right, 8)
    torch.testing.assert_close(found, torch.linalg.solve(matrix[:, None], right))
    alone = conjugate_gradients(lambda x: matrix[:1, None] @ x, right[:1], 3)
    torch.testing.assert_close(alone, conjugate_gradients(lambda x: matrix[:, None] @ x, right, 3)[:1])


def test_maps_from_the_measurement_are_those_of_the_coils():
    acquisition = Acquisition((0.22, 0.22), (48, 48), 4, 400, 4e-6)
    images = phantom(acquisition, "train", n_coils=6)[0][None]
    encoding = Encoding(spiral(acquisition, Scanner()))
    found = with_maps(encoding.normal(images), encoding)[1]
    signal = torch.linalg.vector_norm(images, dim=1)
    true = images / signal[:, None]
    # up to the phase of the image, which no measurement tells from that of the maps
    likeness = (found.conj() * true).sum(1).abs() / torch.linalg.vector_norm(found, dim=1)
    assert float(likeness[signal > 0.2].mean()) > 0.99


def test_maps_of_the_encoding_are_used(trajectory, maps):
    encoding = Encoding(trajectory, maps)
    found, used = with_maps(noise(1, N_COILS, *SHAPE), encoding)
    assert used is maps
    assert found.coil_maps is maps


def test_maps_are_constants_and_keep_the_gradient_of_the_encoding(trajectory):
    k = trajectory.points.clone().requires_grad_()
    encoding = Encoding(trajectory.with_points(k), normal="toeplitz")
    found, maps = with_maps(noise(1, N_COILS, *SHAPE).to(torch.complex64), encoding)
    assert not maps.requires_grad
    assert found.transfer.requires_grad


def test_a_correction_is_as_bright_as_its_image():
    torch.manual_seed(0)
    correction = Correction(2, 4, 1)
    torch.nn.init.normal_(correction.head.weight)
    image = torch.rand(2, 2, 16, 16)
    torch.testing.assert_close(correction(0.01 * image), 0.01 * correction(image), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("n_parts", "shape"), [(1, (12, 16)), (2, (11, 14))])
def test_a_correction_is_a_unet_of_joined_features(n_parts, shape):
    torch.manual_seed(0)
    correction = Correction(n_parts, 4, 2).double()
    for parameter in correction.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def leaky_relu(features):
        return torch.nn.functional.leaky_relu(features, 0.1)

    def block(layers, features):
        features = leaky_relu(layers.first(features))
        return features + leaky_relu(layers.second(features))

    image = torch.rand(3, n_parts, *shape, dtype=torch.float64)
    size = image.square().mean((1, 2, 3), keepdim=True).sqrt()
    features = [block(correction.stem, image / size)]
    for layers in correction.down:
        features.append(block(layers, torch.nn.functional.avg_pool2d(features[-1], 2, ceil_mode=True)))
    joined = features.pop()
    for layers in correction.up:
        skip = features.pop()
        larger = torch.nn.functional.interpolate(joined, skip.shape[-2:], mode="bilinear")
        joined = block(layers, torch.cat([larger, skip], dim=1))
    torch.testing.assert_close(correction(image), size * correction.head(joined), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"kind": "unrolled", "iterations": 0}, "iterations"),
        ({"kind": "unrolled", "steps": 0}, "steps"),
        ({"kind": "cg_sense", "iterations": 0}, "iterations"),
        ({"kind": "cg_sense", "regularization": -0.1}, "regularization"),
    ],
)
def test_impossible_options_are_refused(table, match):
    with pytest.raises(ConfigError, match=match):
        plugins.build("reconstructor", table)


def test_a_correction_does_not_depend_on_how_much_of_the_image_is_background():
    torch.manual_seed(0)
    correction = Correction(1, 4, 2).double()
    for parameter in correction.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(correction.head.bias)
    image = torch.nn.functional.pad(
        torch.rand(2, 1, 12, 12, dtype=torch.float64), [42] * 4
    )  # so far from the edge that none is felt
    wider = torch.nn.functional.pad(image, [32] * 4)
    torch.testing.assert_close(correction(wider)[..., 32:-32, 32:-32], correction(image), rtol=1e-9, atol=1e-9)
