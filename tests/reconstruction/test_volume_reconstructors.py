"""Reconstructors of volumes and films against dense least squares, frame by frame."""

import math

import pytest
import torch
from exact_encoding import ExactEncoding, cartesian, samples

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.sense import with_maps
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points

VOLUME = Acquisition((0.2, 0.2, 0.2), (12, 10, 8), 5, 100)
FILM = Acquisition((0.2, 0.2), (12, 10), 8, 100, n_frames=4)
ACQUISITIONS = pytest.mark.parametrize("acquisition", [VOLUME, FILM], ids=["volume", "film"])
N_COILS = 3


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def smooth_maps(shape):
    """Maps (1, coil, ...) of coils around, of magnitude one together."""
    places = torch.meshgrid(*((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape), indexing="ij")
    angles = [2 * math.pi * n / N_COILS for n in range(N_COILS)]
    ways = [math.cos(a) * places[-1] + math.sin(a) * places[-2] + 0.4 * places[0] * math.sin(2 * a) for a in angles]
    maps = torch.stack([torch.exp((1.5 + 1j) * way + 1j * angle) for way, angle in zip(ways, angles, strict=True)])
    return (maps / torch.linalg.vector_norm(maps, dim=0))[None]


def measured(acquisition):
    """Return an encoding with maps, adjoint images of a random image, and E^H W E, E^H W y of each frame, dense."""
    shape = acquisition.image_shape
    n_dims, n_frames = acquisition.n_dims, acquisition.n_frames
    maps = smooth_maps(shape) if n_frames == 1 else smooth_maps(shape[1:])[:, :, None]
    encoding = ExactEncoding(acquisition, samples(n_frames, 500 if n_dims == 3 else 70, n_dims))
    image = noise(1, 1, *shape) + 2
    normal = encoding.with_coils(maps[0].flatten(1))
    right = normal @ image.reshape(n_frames, -1, 1)
    return encoding.with_maps(maps), encoding.normal(maps * image), normal, right


@ACQUISITIONS
def test_the_adjoint_is_the_root_sum_of_squares(acquisition):
    encoding, images, _, _ = measured(acquisition)
    found = plugins.build("reconstructor", {"kind": "adjoint"})(images, encoding)
    torch.testing.assert_close(found[:, 0], images.abs().square().sum(1).sqrt())


@ACQUISITIONS
@pytest.mark.parametrize("regularization", [0.3, 0.02])
def test_cg_sense_is_the_dense_solution(acquisition, regularization):
    encoding, images, normal, right = measured(acquisition)
    identity = torch.eye(normal.shape[-1])
    expected = torch.linalg.solve(normal + regularization * identity, right).abs().view(acquisition.image_shape)
    table = {"kind": "cg_sense", "iterations": 150, "regularization": regularization}
    found = plugins.build("reconstructor", table)(images, encoding)
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-5 * float(expected.max()))


@ACQUISITIONS
@pytest.mark.parametrize("neighbours", [0, 1])
def test_unrolled_before_training_is_its_data_consistency(acquisition, neighbours):
    encoding, images, normal, right = measured(acquisition)
    table = {"kind": "unrolled", "iterations": 2, "steps": 120, "neighbours": neighbours}
    model = plugins.build("reconstructor", table).double()
    weights = torch.tensor([0.2, 0.6], dtype=torch.float64)
    with torch.no_grad():
        model.regularization.copy_(weights.log())
    x = torch.zeros_like(right)
    for weight in weights:
        x = torch.linalg.solve(normal + weight * torch.eye(normal.shape[-1]), right + weight * x)
    expected = x.abs().view(acquisition.image_shape)
    torch.testing.assert_close(model(images, encoding)[0, 0], expected, rtol=0, atol=1e-5 * float(expected.max()))


@ACQUISITIONS
def test_checkpointing_changes_no_gradient(acquisition):
    encoding, images, _, _ = measured(acquisition)
    gradients = []
    for checkpoint in (True, False):
        torch.manual_seed(0)
        table = {"kind": "unrolled", "iterations": 2, "neighbours": 1, "checkpoint": checkpoint}
        model = plugins.build("reconstructor", table).double()
        for correction in model.children():
            torch.nn.init.normal_(correction.head.weight)
        given = images.clone().requires_grad_()
        model(given, encoding).square().mean().backward()
        gradients.append([given.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


TABLES = [
    {"kind": "cg_sense", "iterations": 4},
    {"kind": "unet", "levels": 1, "neighbours": 1},
    {"kind": "unrolled", "iterations": 2, "levels": 1, "neighbours": 1},
]


@ACQUISITIONS
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["kind"])
def test_the_gradient_to_the_images_is_that_of_finite_differences(acquisition, table):
    torch.manual_seed(0)
    encoding, images, _, _ = measured(acquisition)
    model = plugins.build("reconstructor", table).double()
    for correction in model.children():
        torch.nn.init.normal_(correction.head.weight, std=0.1)
    given = images.clone().requires_grad_()
    model(given, encoding).square().mean().backward()
    step = 1e-6 * noise(*images.shape, seed=1)
    with torch.no_grad():
        ends = [model(images + sign * step, encoding).square().mean() for sign in (1, -1)]
    expected = float(ends[0] - ends[1]) / 2
    assert float((given.grad.conj() * step).real.sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("table", [*TABLES[:1], {"kind": "unrolled", "iterations": 1}], ids=lambda table: table["kind"])
def test_a_film_that_stands_still_is_its_slice(table):
    """Also the maps that are estimated from it are those of the slice."""
    matrix, omega = (16, 14), samples(1, 150, 2)
    slice_ = ExactEncoding(Acquisition((0.2, 0.2), matrix, 1, 150), omega)
    film = ExactEncoding(Acquisition((0.2, 0.2), matrix, 3, 150, n_frames=3), omega.expand(3, -1, -1))
    images = slice_.normal(smooth_maps((14, 16)) * (noise(2, 1, 14, 16) + 3))
    still = images[:, :, None].expand(-1, -1, 3, -1, -1)
    maps = with_maps(still, film)[1]
    assert maps.shape == (2, N_COILS, 1, 14, 16)
    torch.testing.assert_close(maps[:, :, 0], with_maps(images, slice_)[1])
    model = plugins.build("reconstructor", table).double()
    found, wanted = model(still, film), model(images, slice_)
    torch.testing.assert_close(found, wanted[:, :, None].expand_as(found))


def test_maps_from_the_measurement_of_a_volume_are_those_of_its_coils():
    """Half of the samples are missing, but about the centre of k-space."""
    z, y, x = torch.meshgrid(*(2 * (torch.arange(n) - n // 2) / n for n in (8, 10, 12)), indexing="ij")
    magnitude = (x.square() + y.square() + z.square() < 0.7) * (1 + 0.5 * torch.cos(4 * x + 3 * y))
    maps = smooth_maps((8, 10, 12))
    k = cartesian((8, 10, 12))
    is_sampled = (k[0].abs().amax(1) < math.pi / 2) | (torch.arange(k.shape[1]) % 2 == 0)
    encoding = ExactEncoding(VOLUME, k[:, is_sampled])
    found = with_maps(encoding.normal(maps * magnitude), encoding)[1]
    likeness = (found.conj() * maps).sum(1).abs() / torch.linalg.vector_norm(found, dim=1)
    assert float(likeness[0][magnitude > 0].mean()) > 0.99
    assert not found.requires_grad


def test_what_moves_has_the_maps_of_the_coils():
    """Each frame is measured at too few samples by itself, and shows another part of the object."""
    acquisition = Acquisition((0.2, 0.2), (16, 14), 6, 90, n_frames=6)
    y, x = torch.meshgrid(*(2 * (torch.arange(n) - n // 2) / n for n in (14, 16)), indexing="ij")
    phases = torch.arange(6)[:, None, None] * math.pi / 3
    film = (x.square() + y.square() < 0.7) * (1 + 0.4 * torch.cos(4 * x + 3 * y + phases))
    maps = smooth_maps((14, 16))[:, :, None]
    encoding = ExactEncoding(acquisition, samples(6, 90, 2))
    found = with_maps(encoding.normal(maps * film), encoding)[1]
    likeness = (found.conj() * maps).sum(1).abs() / torch.linalg.vector_norm(found, dim=1)
    assert float(likeness[0, 0][film[0] > 0].mean()) > 0.99


@ACQUISITIONS
@pytest.mark.parametrize("normal", ["chain", "toeplitz"])
@pytest.mark.parametrize("table", [{"kind": "adjoint"}, *TABLES], ids=lambda table: table["kind"])
def test_what_the_encoding_gives_is_that_of_exact_sums(acquisition, table, normal):
    """Maps are estimated here, by either."""
    torch.manual_seed(0)
    n_shots, n_dims, shape = acquisition.n_shots, acquisition.n_dims, acquisition.image_shape
    points = samples(n_shots, n_points(acquisition, Scanner()), n_dims) / math.pi * torch.tensor(acquisition.k_max)
    trajectory = Trajectory(points, acquisition, Scanner())
    weights = torch.full((n_shots, acquisition.n_samples), 1 / math.prod(acquisition.matrix), dtype=torch.float64)
    encoding = Encoding(trajectory, None, weights, dtype=torch.float64, normal=normal)
    exact = ExactEncoding(acquisition, encoding.omega.view(acquisition.n_frames, -1, n_dims))
    coils = smooth_maps(shape) if acquisition is VOLUME else smooth_maps(shape[1:])[:, :, None]
    images = exact.normal(coils * (noise(1, 1, *shape) + 2))
    model = plugins.build("reconstructor", table).double()
    found, wanted = model(images, encoding), model(images, exact)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.detach().max()))


@ACQUISITIONS
def test_a_unet_before_training_is_the_adjoint(acquisition):
    encoding, images, _, _ = measured(acquisition)
    for neighbours in (0, 2):
        model = plugins.build("reconstructor", {"kind": "unet", "neighbours": neighbours}).double()
        torch.testing.assert_close(model(images, encoding), root_sum_of_squares(images))
