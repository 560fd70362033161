"""The encoding operator against sums written out, and its gradient down to the control points."""

import math

import pytest
import torch
from exact_sums import exact_adjoint, exact_forward, setup

from trajdesign.encoding import nufft as module
from trajdesign.encoding.operator import Encoding, angular
from trajdesign.errors import ConfigError, DivergedError, InputError

NORMALS = ["toeplitz", "chain"]
SIZES = [((0.22, 0.2), (12, 15)), ((0.22, 0.2, 0.18), (8, 7, 6))]
BOUND = {"finufft": 1e-5, "torchkbnufft": 1e-3}


@pytest.fixture(params=BOUND)
def backend(request):
    """Return the kernel that computes in a test."""
    with module.using(request.param):
        yield request.param


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dims", [2, 3])
def test_every_coil_image_is_encoded_by_itself(backend, dims):
    fov, matrix = (0.22, 0.2, 0.18)[:dims], (8, 7, 6)[:dims]
    trajectory, images, kspace, _ = setup(fov, matrix)
    encoding = Encoding(trajectory, dtype=torch.float64)
    found = encoding.forward(images)
    assert found.shape == kspace.shape
    assert relative(found, exact_forward(images, trajectory)[0]) < BOUND[backend]
    assert relative(encoding.adjoint(kspace), exact_adjoint(kspace, trajectory)) < BOUND[backend]


@pytest.mark.parametrize("one_map_for_all", [True, False])
def test_coil_maps_multiply_before_and_combine_after(backend, one_map_for_all):
    trajectory, images, kspace, maps = setup()
    maps = maps if one_map_for_all else torch.cat([maps, maps.flip(1)])
    encoding = Encoding(trajectory, maps, dtype=torch.float64)
    image = images[:, :1]
    assert relative(encoding.forward(image), exact_forward(image * maps, trajectory)[0]) < BOUND[backend]
    combined = (exact_adjoint(kspace, trajectory) * maps.conj()).sum(1, keepdim=True)
    found = encoding.adjoint(kspace)
    assert found.shape == (2, 1, *trajectory.acquisition.image_shape)
    assert relative(found, combined) < BOUND[backend]
    assert relative(encoding.coil_images(kspace), exact_adjoint(kspace, trajectory)) < BOUND[backend]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_maps", [True, False])
def test_the_adjoint_is_the_adjoint(backend, dtype, with_maps):
    trajectory, images, kspace, maps = setup()
    complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
    image = images[:, :1] if with_maps else images
    encoding = Encoding(trajectory, maps.to(complex_type) if with_maps else None, dtype=dtype)
    sampled = encoding.forward(image.to(complex_type))
    kspace = kspace + sampled
    returned = encoding.adjoint(kspace.to(complex_type))
    left = torch.vdot(sampled.flatten().cdouble(), kspace.flatten())
    right = torch.vdot(image.flatten(), returned.flatten().cdouble())
    assert float((left - right).abs() / left.abs()) < 1e-5


@pytest.mark.parametrize(("fov", "matrix"), SIZES)
@pytest.mark.parametrize("normal", NORMALS)
@pytest.mark.parametrize("with_maps", [True, False])
def test_normal_is_the_weighted_round_trip(with_maps, normal, fov, matrix):
    trajectory, images, _, maps = setup(fov, matrix)
    generator = torch.Generator().manual_seed(5)
    weights = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    maps = maps if with_maps else None
    encoding = Encoding(trajectory, maps, weights, dtype=torch.float64, normal=normal)
    image = images[:, :1] if with_maps else images
    coil_images = image * maps if with_maps else image
    wanted = exact_adjoint(weights * exact_forward(coil_images, trajectory)[0], trajectory)
    if with_maps:
        wanted = (wanted * maps.conj()).sum(1, keepdim=True)
    assert relative(encoding.normal(image), wanted) < 1e-9
    # A^H W A is Hermitian and positive
    left = torch.vdot(image.flatten(), encoding.normal(image).flatten())
    assert float(left.real) > 0
    assert abs(float(left.imag)) < 1e-9 * float(left.real)


@pytest.mark.parametrize(("fov", "matrix"), SIZES)
@pytest.mark.parametrize("normal", NORMALS)
@pytest.mark.parametrize("with_maps", [True, False])
def test_the_gradient_reaches_the_control_points(backend, with_maps, normal, fov, matrix):
    trajectory, images, _, maps = setup(fov, matrix)
    maps = maps if with_maps else None
    image = images[:, :1] if with_maps else images
    generator = torch.Generator().manual_seed(9)
    weights = torch.rand(3, 40, generator=generator, dtype=torch.float64) / 100

    def exact(moved, image):
        back = exact_adjoint(weights * exact_forward(image * maps if with_maps else image, moved)[0], moved)
        return (back * maps.conj()).sum(1, keepdim=True) if with_maps else back

    def ours(moved, image):
        return Encoding(moved, maps, weights, dtype=torch.float64, normal=normal).normal(image)

    gradients = []
    for operator in (exact, ours):
        k, leaf = trajectory.points.clone().requires_grad_(), image.clone().requires_grad_()
        loss = (operator(trajectory.with_points(k), leaf) - image).abs().square().sum()
        gradients.append(torch.autograd.grad(loss, (k, leaf)))
    for wanted, found in zip(*gradients, strict=True):
        assert relative(found, wanted) < BOUND[backend]
        assert float(wanted.norm()) > 0


@pytest.mark.parametrize(("fov", "matrix"), SIZES)
@pytest.mark.parametrize("normal", NORMALS)
def test_a_single_precision_gradient_is_close(normal, fov, matrix):
    trajectory, images, _, _ = setup(fov, matrix)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        k = trajectory.points.clone().requires_grad_()
        image = images.cfloat() if dtype == torch.float32 else images
        encoding = Encoding(trajectory.with_points(k), weights=torch.full((3, 40), 0.01), dtype=dtype, normal=normal)
        (encoding.normal(image) - image).abs().square().sum().backward()
        gradients.append(k.grad)
    assert gradients[1].dtype == torch.float64
    assert relative(gradients[1], gradients[0]) < 1e-3


def test_angles_are_pi_at_k_max():
    trajectory, *_ = setup()
    edge = torch.tensor(trajectory.acquisition.k_max)
    omega = angular(trajectory.with_points(torch.ones_like(trajectory.points) * edge))
    torch.testing.assert_close(omega, torch.full_like(omega, math.pi))


def test_weights_are_those_given_or_else_computed_once():
    trajectory, *_ = setup()
    given = torch.rand(3, 40)
    assert torch.equal(Encoding(trajectory, weights=given).weights, given)
    encoding = Encoding(trajectory.with_points(trajectory.points.clone().requires_grad_()))
    assert encoding.weights.shape == (3, 40)
    assert (encoding.weights > 0).all()
    assert encoding.weights.requires_grad, "where samples crowd, the weights give way"
    assert encoding.weights is encoding.weights


def test_a_trajectory_that_is_not_finite_is_refused():
    trajectory, images, _, _ = setup()
    k = trajectory.points.clone()
    k[1, 3, 0] = math.nan
    encoding = Encoding(trajectory.with_points(k), dtype=torch.float64)
    for call in (lambda: encoding.forward(images), lambda: encoding.weights):
        with pytest.raises(DivergedError):
            call()


@pytest.mark.parametrize("normal", NORMALS)
def test_the_gradient_reaches_the_weights(normal):
    trajectory, images, *_ = setup()
    generator = torch.Generator().manual_seed(3)
    gradients = []
    for operator in ("exact", normal):
        weights = (torch.rand(3, 40, generator=generator.manual_seed(3), dtype=torch.float64) / 100).requires_grad_()
        if operator == "exact":
            back = exact_adjoint(weights * exact_forward(images, trajectory)[0], trajectory)
        else:
            back = Encoding(trajectory, weights=weights, dtype=torch.float64, normal=normal).normal(images)
        gradients.append(torch.autograd.grad((back - images).abs().square().sum(), weights)[0])
    assert relative(gradients[1], gradients[0]) < 1e-9


def test_auto_takes_the_chain_for_few_images_and_else_one_nufft(monkeypatch):
    trajectory, images, *_ = setup(matrix=(20, 24))
    counted, finufft = [], module.KERNELS["finufft"]

    def counting(kind, *given):
        counted.append(f"type{kind}")
        return finufft(kind, *given)

    monkeypatch.setitem(module.KERNELS, "finufft", counting)
    k = trajectory.points.clone().requires_grad_()
    weights = torch.full((3, 40), 0.01)
    few = Encoding(trajectory.with_points(k), weights=weights).normal(images[:1, :1].cfloat())
    few.abs().sum().backward()
    assert counted.count("type1") == 1
    assert counted.count("type2") > 1
    counted.clear()
    many = Encoding(trajectory.with_points(k), weights=weights).normal(images.repeat(4, 1, 1, 1).cfloat())
    assert counted == ["type1"]
    many.abs().sum().backward()
    assert counted == ["type1", "type2"]


# 120 samples, and 15, 16, nearly 3/2 and 3/2 times as many pixels
FEW = [((40, 45), 4, "chain"), ((40, 45), 5, "toeplitz"), ((40, 48), 8, "chain"), ((40, 48), 9, "toeplitz")]
FEW += [((10, 17), 1, "toeplitz"), ((12, 15), 4, "chain"), ((12, 15), 5, "toeplitz")]


@pytest.mark.parametrize(("matrix", "n_images", "how"), FEW)
def test_the_batch_decides_what_auto_is_for_every_part_of_it(monkeypatch, matrix, n_images, how):
    trajectory, images, *_ = setup(matrix=matrix)
    counted, finufft = [], module.KERNELS["finufft"]
    monkeypatch.setitem(module.KERNELS, "finufft", lambda *given: counted.append(given[0]) or finufft(*given))
    encoding = Encoding(trajectory, weights=torch.full((3, 40), 0.01))
    cut = encoding.cut(n_images)
    counted.clear()
    cut.normal(images[:1, :1].cfloat())
    assert counted == ([2, 1] if how == "chain" else [])


def test_an_unknown_normal_operator_is_refused():
    trajectory, *_ = setup()
    with pytest.raises(ConfigError, match="auto, toeplitz, chain"):
        Encoding(trajectory, normal="fft")


@pytest.mark.parametrize("method", ["forward", "normal"])
def test_images_of_another_size_are_refused(method):
    trajectory, images, *_ = setup()
    with pytest.raises(InputError, match=r"\(15, 12\) pixels"):
        getattr(Encoding(trajectory), method)(images[..., :-1])


@pytest.mark.parametrize("normal", NORMALS)
def test_losses_that_go_back_one_by_one_add_up(normal):
    trajectory, images, *_ = setup(batch=3)
    gradients = []
    for one_by_one in (False, True):
        k = trajectory.points.clone().requires_grad_()
        encoding = Encoding(
            trajectory.with_points(k), weights=torch.full((3, 40), 0.01), dtype=torch.float64, normal=normal
        )
        if one_by_one:
            cut = encoding.cut(9)
            for image in images.split(1):
                (cut.normal(image) - image).abs().square().sum().backward()
            assert k.grad is None
            encoding.carry_on(cut)
        else:
            (encoding.normal(images) - images).abs().square().sum().backward()
        gradients.append(k.grad)
    assert relative(*gradients) < 1e-10


def test_a_cut_of_a_fixed_trajectory_has_nothing_to_carry_on():
    trajectory, images, *_ = setup()
    encoding = Encoding(trajectory, weights=torch.full((3, 40), 0.01), dtype=torch.float64, normal="toeplitz")
    leaf = images.clone().requires_grad_()
    cut = encoding.cut(6)
    cut.normal(leaf).abs().sum().backward()
    encoding.carry_on(cut)
    assert leaf.grad is not None
    assert cut.omega.grad is None


def test_what_was_made_under_inference_mode_serves_learning_later(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # the FFTs of halves in threads of their own
    trajectory, images, _, _ = setup((0.21, 0.19), (11, 14))  # of a size that no other test has made tables for
    with torch.inference_mode():
        first = Encoding(trajectory, dtype=torch.float64, normal="toeplitz").normal(images)
    points = trajectory.points.clone().requires_grad_()
    found = Encoding(trajectory.with_points(points), dtype=torch.float64, normal="toeplitz").normal(images)
    found.abs().sum().backward()
    assert float(points.grad.abs().max()) > 0
    assert relative(first, found.detach()) < 1e-12


@pytest.mark.parametrize("normal", NORMALS)
def test_second_derivatives_are_refused_rather_than_wrong(normal):
    trajectory, images, _, _ = setup()
    points = trajectory.points.clone().requires_grad_()
    loss = Encoding(trajectory.with_points(points), dtype=torch.float64, normal=normal).normal(images).abs().sum()
    (slope,) = torch.autograd.grad(loss, points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()
