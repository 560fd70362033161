"""Films and stacks, which are encoded plane by plane, against sums over every voxel and sample."""

import math

import pytest
import torch
from exact_sums import exact_adjoint, exact_forward

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.sampling import Planes, Whole
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points

SHOTS, SAMPLES, COILS = 2, 40, 3


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def stack(partitions, n_z=6, tilt=0.0):
    """Shots in these partitions, each sampled by two random ones."""
    acquisition = Acquisition((0.22, 0.2, 0.06), (9, 8, n_z), SHOTS * len(partitions), SAMPLES, 4e-6)
    flat = random_k(acquisition)
    k_z = (torch.tensor(partitions, dtype=torch.float64) - n_z // 2) / acquisition.fov[2]
    flat[..., 2] = k_z.repeat(SHOTS)[:, None]  # the shots of a partition do not follow each other
    flat[0, :, 2] += tilt
    return Trajectory(flat, acquisition, Scanner())


def film(n_frames=3):
    acquisition = Acquisition((0.22, 0.2), (9, 8), SHOTS * n_frames, SAMPLES, 4e-6, n_frames)
    return Trajectory(random_k(acquisition), acquisition, Scanner())


def random_k(acquisition):
    shape = (acquisition.n_shots, n_points(acquisition, Scanner()), acquisition.n_dims)
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (uniform * 2 - 1) * torch.tensor(acquisition.k_max)


def frame(trajectory, number):
    one = Acquisition(trajectory.acquisition.fov, trajectory.acquisition.matrix, SHOTS, SAMPLES, 4e-6)
    return Trajectory(trajectory.points[number * SHOTS :][:SHOTS], one, Scanner())


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("partitions", [range(6), [5, 0, 3]], ids=["all", "some, in any order"])
@pytest.mark.parametrize("normal", ["toeplitz", "chain"])
def test_a_stack_is_encoded_as_any_volume(partitions, normal):
    trajectory = stack(partitions)
    images, kspace = drawn((2, COILS, 6, 8, 9)), drawn((2, COILS, SHOTS * len(partitions), SAMPLES), 1)
    encoding = Encoding(trajectory, dtype=torch.float64, normal=normal)
    assert isinstance(encoding.sampling, Planes)
    wanted = exact_forward(images, trajectory)[0]
    assert relative(encoding.forward(images), wanted) < 1e-11
    assert relative(encoding.coil_images(kspace), exact_adjoint(kspace, trajectory)) < 1e-11
    assert relative(encoding.normal(images), exact_adjoint(encoding.weights * wanted, trajectory)) < 1e-11


@pytest.mark.parametrize("normal", ["toeplitz", "chain"])
def test_each_frame_of_a_film_is_encoded_by_its_own_shots(normal):
    trajectory = film()
    images, kspace = drawn((2, COILS, 3, 8, 9)), drawn((2, COILS, 3 * SHOTS, SAMPLES), 1)
    maps = drawn((1, COILS, 1, 8, 9), 2)
    encoding = Encoding(trajectory, maps, dtype=torch.float64, normal=normal)
    film_image = images[:, :1]
    found = encoding.forward(film_image), encoding.coil_images(kspace), encoding.normal(film_image)
    for number in range(3):
        one, shots = frame(trajectory, number), slice(number * SHOTS, (number + 1) * SHOTS)
        wanted = exact_forward(film_image[:, :, number] * maps[:, :, 0], one)[0]
        assert relative(found[0][:, :, shots], wanted) < 1e-11
        assert relative(found[1][:, :, number], exact_adjoint(kspace[:, :, shots], one)) < 1e-11
        back = exact_adjoint(encoding.weights[shots] * wanted, one) * maps[:, :, 0].conj()
        assert relative(found[2][:, :, number], back.sum(1, keepdim=True)) < 1e-11
        assert relative(encoding.weights[shots], Encoding(one, dtype=torch.float64).weights) < 1e-11


@pytest.mark.parametrize("in_plane", [True, False], ids=["in plane", "along z too"])
@pytest.mark.parametrize("normal", ["toeplitz", "chain"])
@pytest.mark.parametrize("make", [lambda: stack([5, 0, 3]), film], ids=["stack", "film"])
def test_the_gradient_to_the_trajectory_is_that_of_the_sums(make, normal, in_plane):
    trajectory = make()
    shape = trajectory.acquisition.image_shape
    images, direction = drawn((1, COILS, *shape)), drawn((1, COILS, *shape), 4)
    weights = torch.rand(trajectory.k_adc.shape[:2], generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def slope(normal_operator):
        points = trajectory.points.clone().requires_grad_(True)
        result = normal_operator(trajectory.with_points(points))
        (result * direction.conj()).real.sum().backward()
        return points.grad[..., :2] if in_plane else points.grad

    def of_sums(moved):
        if len(shape) == 3 and moved.acquisition.n_dims == 3:
            return exact_adjoint(weights * exact_forward(images, moved)[0], moved)
        frames = []
        for number in range(shape[0]):
            one, shots = frame(moved, number), slice(number * SHOTS, (number + 1) * SHOTS)
            frames.append(exact_adjoint(weights[shots] * exact_forward(images[:, :, number], one)[0], one))
        return torch.stack(frames, 2)

    def of_encoding(moved):
        encoding = Encoding(moved, weights=weights, dtype=torch.float64, normal=normal, in_plane=in_plane)
        assert isinstance(encoding.sampling, Planes) == (in_plane or len(moved.acquisition.matrix) == 2)
        return encoding.normal(images)

    assert relative(slope(of_encoding), slope(of_sums)) < 1e-10


def test_weights_of_a_full_grid_sum_to_the_image():
    # Cartesian lines through every row of every partition: the adjoint of the weighted samples is the image
    matrix, fov = (8, 8, 4), (0.2, 0.2, 0.1)
    acquisition = Acquisition(fov, matrix, 32, 8, 1e-5)
    lines = torch.zeros(32, n_points(acquisition, Scanner()), 3, dtype=torch.float64)
    first = acquisition.adc_delay(1e-5, 1e-6) / 1e-5 + 0.5  # control points of the first sample
    lines[..., 0] = (torch.arange(lines.shape[1]) - first - 4) / fov[0]
    lines[..., 1] = ((torch.arange(32) % 8 - 4) / fov[1])[:, None]
    lines[..., 2] = ((torch.arange(32) // 8 - 2) / fov[2])[:, None]
    encoding = Encoding(Trajectory(lines, acquisition, Scanner()), dtype=torch.float64)
    assert isinstance(encoding.sampling, Planes)
    torch.testing.assert_close(encoding.weights, torch.full((32, 8), 1 / math.prod(matrix), dtype=torch.float64))
    image = drawn((1, 1, 4, 8, 8))
    assert relative(encoding.normal(image), image) < 1e-9


def test_a_stack_whose_shots_leave_their_partition_or_share_unequally_is_a_volume():
    assert type(Encoding(stack(range(6), tilt=0.01)).sampling) is Whole
    assert type(Encoding(stack([0, 0, 3])).sampling) is Whole
    assert type(Encoding(stack([-1, 0, 3])).sampling) is Whole
