"""One shape for all partitions or frames: what is turned, what is learned, and the limits that no plane breaks."""

import math

import numpy as np
import pytest
import torch
from slopes import require_slopes

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import from_tables
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.sampling import Planes
from trajdesign.errors import ConfigError
from trajdesign.learning.evaluation import encoding_of
from trajdesign.physics import limits
from trajdesign.physics.projection import Projection
from trajdesign.scanner import Scanner

STACK = Acquisition((0.2, 0.2, 0.06), (32, 32, 6), 3 * 6, 300, 4e-6)
FILM = Acquisition((0.2, 0.2), (32, 32), 3 * 5, 300, 4e-6, 5)


def n_planes(acquisition):
    return acquisition.matrix[2] if acquisition.n_dims == 3 else acquisition.n_frames


def start(acquisition, turn, pattern="spiral"):
    table = {"kind": "planes", "pattern": {"kind": pattern}, "turn": turn}
    return plugins.build("init", table, acquisition, Scanner())


def moved(acquisition, size=0.3, room=1.0, **options):
    """Return a model whose parameters are random, of a start that is smaller than k-space by a factor, `room`."""
    initial = start(acquisition, "golden")
    smaller = initial.points * torch.tensor([room, room, 1.0])[: acquisition.n_dims]
    model = plugins.build("parameterization", {"kind": "planes", **options}, initial.with_points(smaller))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, size, generator=generator)
    return model


def complex_planes(trajectory):
    """k_x + i k_y (plane, shot, point)."""
    k = trajectory.points.detach().numpy()
    return (k[..., 0] + 1j * k[..., 1]).reshape(n_planes(trajectory.acquisition), -1, k.shape[1])


@pytest.mark.parametrize("acquisition", [STACK, FILM], ids=["stack", "film"])
@pytest.mark.parametrize(
    ("turn", "degrees"), [(0.0, 0), (111.246, 111.246), ("even", 120), ("golden", 120 * (3 - math.sqrt(5)) / 2)]
)
def test_each_plane_of_the_start_is_turned_further(acquisition, turn, degrees):
    n = n_planes(acquisition)
    planes = complex_planes(start(acquisition, turn))
    step = np.radians(degrees / n if turn == "even" else degrees)
    wanted = planes[0] * np.exp(1j * step * np.arange(n))[:, None, None]
    np.testing.assert_allclose(planes, wanted, atol=1e-9)


def test_the_partitions_of_a_stack_are_all_of_the_matrix():
    trajectory = start(STACK, "golden")
    wanted = np.repeat((np.arange(6) - 3) / 0.06, 3)[:, None].repeat(trajectory.points.shape[1], 1)
    np.testing.assert_allclose(trajectory.points[..., 2].numpy(), wanted)
    limits.require(trajectory)


@pytest.mark.parametrize("acquisition", [STACK, FILM], ids=["stack", "film"])
@pytest.mark.parametrize("shape", ["bspline", "neural_ode", "fixed"])
def test_what_is_learned_is_one_shape_in_all_planes_and_keeps_every_limit(acquisition, shape):
    model = moved(acquisition, shape={"kind": shape})
    wanted = model()
    project = Projection(limits.constraints(acquisition, Scanner()), model.waveforms)
    assert shape == "fixed" or not all(finding.ok for finding in limits.check(wanted)), "nothing to mend"
    played = model.onto_limits(wanted, project)
    limits.require(played.with_points(played.points.detach()))
    planes = complex_planes(played)
    angle = np.angle((planes * planes[0].conj()).sum((1, 2)))
    np.testing.assert_allclose(planes, planes[0] * np.exp(1j * angle)[:, None, None], atol=1e-9)
    assert np.abs(angle[1:]).min() > 1e-3
    assert isinstance(Encoding(played, in_plane=True).sampling, Planes)
    if acquisition is STACK:
        assert torch.equal(played.points[..., 2], start(STACK, 0.0).points[..., 2])


def test_the_projection_is_that_of_each_plane_by_itself():
    model = moved(FILM, 0.05, room=0.7)
    wanted, constraints = model(), limits.constraints(FILM, Scanner())
    one = model.onto_limits(wanted, Projection(constraints, model.waveforms, 2000)).points
    each = Projection(constraints, model.initial, 2000)(wanted).points
    assert float((one - each).detach().abs().max()) < 1e-2 / 0.2


@pytest.mark.parametrize("acquisition", [STACK, FILM], ids=["stack", "film"])
def test_the_gradient_is_that_of_finite_differences(acquisition):
    model = moved(acquisition, 0.02, room=0.8)
    generator = torch.Generator().manual_seed(1)
    by = torch.randn(model.initial.points.shape, generator=generator, dtype=torch.float64)

    def value():
        return (model().points * by).sum()

    require_slopes(model, value, generator)


def test_the_gradient_passes_the_limits_as_if_nothing_had_been_moved():
    model = moved(FILM)
    wanted = model()
    played = model.onto_limits(wanted, Projection(limits.constraints(FILM, Scanner()), model.waveforms))
    by = torch.randn(played.points.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameters = list(model.parameters())
    there = torch.autograd.grad((played.points * by).sum(), parameters, retain_graph=True)
    here = torch.autograd.grad((wanted.points * by).sum(), parameters)
    assert all(torch.equal(one, other) for one, other in zip(there, here, strict=True))


@pytest.mark.parametrize(("kind", "by_planes"), [("planes", True), ("bspline", False), ("fixed", True)])
def test_a_stack_is_encoded_plane_by_plane_where_its_shots_stay_in_theirs(kind, by_planes):
    config = from_tables({"acquisition": {"fov": (0.2, 0.2, 0.1), "matrix": (16, 16, 8), "n_shots": 16},
                          "init": {"kind": "planes"}, "parameterization": {"kind": kind}})  # fmt: skip
    start = plugins.build("init", config.init, config.acquisition, config.scanner)
    trajectory = plugins.build("parameterization", config.parameterization, start)()
    encoding = encoding_of(config, trajectory, None)
    assert isinstance(encoding.sampling, Planes) == by_planes
    assert encoding.omega.requires_grad == (kind != "fixed")


def test_without_rotation_the_angles_stay():
    model = moved(FILM, rotation=False)
    assert [name for name, _ in model.named_parameters() if "angles" in name] == []
    planes = complex_planes(model())
    angle = np.angle((planes * planes[0].conj()).sum((1, 2)))
    wanted = np.angle(np.exp(1j * np.radians(120 * (3 - math.sqrt(5)) / 2) * np.arange(5)))
    np.testing.assert_allclose(angle, wanted, atol=1e-9)


def test_what_is_no_shape_that_is_turned_is_refused():
    trajectory = start(FILM, "golden")
    k = trajectory.points.clone()
    k[-1] *= 0.99
    with pytest.raises(ConfigError, match="not one shape"):
        plugins.build("parameterization", {"kind": "planes"}, trajectory.with_points(k))
    tilted = start(STACK, "golden")
    k = tilted.points.clone()
    k[0, 5, 2] += 1
    with pytest.raises(ConfigError, match="not one shape"):
        plugins.build("parameterization", {"kind": "planes"}, tilted.with_points(k))
    by_axis = plugins.build("init", {"kind": "planes"}, FILM, Scanner(limit_norm="axis"))
    with pytest.raises(ConfigError, match="limit_norm"):
        plugins.build("parameterization", {"kind": "planes"}, by_axis)
    with pytest.raises(ConfigError, match="shared evenly"):
        plugins.build("init", {"kind": "planes"}, Acquisition((0.2, 0.2, 0.06), (32, 32, 6), 17, 300), Scanner())
