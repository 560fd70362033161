"""The paper's parameterization against an independent solver, its gradients, and its ways to fail."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, DivergedError
from trajdesign.learning.parameterizations.neural_ode import NeuralODE
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

FOV = 0.22
TIGHT = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-7}


def initial():
    return spiral(Acquisition((FOV, FOV), (32, 32), 4, 203, 4e-6), Scanner())


def disturbed(size=0.03, **options):
    """A neural ODE some way from its start."""
    torch.manual_seed(0)
    model = NeuralODE(initial(), **{"n_control": 20, "hidden": 32, **options})
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return model


def departure(model):
    """Of the control points from the initial ones, in 1/FOV."""
    return (model().points - model.initial.points) * FOV


def gradient(model):
    k = model().k_adc / 100
    generator = torch.Generator().manual_seed(0)
    loss = k.square().sum() + (k * torch.randn(k.shape, generator=generator, dtype=torch.float64)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4", "dopri5"])
@pytest.mark.parametrize("n_control", [1, 7, 20, 1000])
def test_every_solver_starts_at_the_initial_trajectory(method, n_control):
    start = initial()
    assert torch.equal(NeuralODE(start, method=method, n_control=n_control)().points, start.points)


@pytest.mark.parametrize("n_control", [3, 20])
def test_the_path_solves_the_ode_that_the_docstring_states(n_control):
    model = disturbed(n_control=n_control, **TIGHT)
    found = departure(model).detach().numpy()
    field = model.field.double()
    n_shots, n_intervals = model.initial.points.shape[0], model.initial.points.shape[1] - 1
    k0 = model.initial.points / model.k_max
    length = model.length
    assert length == round(n_intervals / n_control)
    shot_time = torch.linspace(0, 1, n_intervals + 1)
    assert len(shot_time) == k0.shape[1]
    tau = 6
    n_segments = math.ceil(n_intervals / length)
    carried = np.zeros((n_shots, 2))
    for segment in range(n_segments):
        first = segment * length

        def velocity(time, flat, segment=segment, first=first):
            # the network's inputs, written out: k, and the time in the shot, and their waves, and the code
            part = time + first
            low = min(int(part), n_intervals - 1) if part < n_intervals else n_intervals - 1
            point = torch.lerp(k0[:, low], k0[:, low + 1], min(part - low, 1.0))
            state = torch.cat(
                [
                    point + torch.from_numpy(flat.reshape(n_shots, 2)),
                    torch.full((n_shots, 1), 2 * part / (n_segments * length) - 1).double(),
                ],
                dim=1,
            )
            waves = torch.cat([state[..., None] * math.pi * 2.0**i for i in range(5)], dim=-1).flatten(1)
            codes, along = field.codes.detach(), time / length
            code = (1 - along) * codes[:, segment] + along * codes[:, segment + 1]
            with torch.no_grad():
                wanted = field.network(torch.cat([state, waves.sin(), waves.cos(), code], dim=1)) + code[:, :2]
            return ((2 * wanted.numpy() - flat.reshape(n_shots, 2)) / tau).ravel()

        here = np.zeros((length + 1, n_shots, 2))
        for step in range(length):  # the initial velocity has corners at the control points
            if first + step < n_intervals:
                end = solve_ivp(velocity, (step, step + 1), here[step].ravel(), rtol=1e-8, atol=1e-10).y[:, -1]
                here[step + 1] = end.reshape(n_shots, 2)
        total = here + np.exp(-np.arange(length + 1) / tau)[:, None, None] * carried
        stop = min(length, n_intervals - first)
        np.testing.assert_allclose(
            found[:, first : first + stop + 1].transpose(1, 0, 2), total[: stop + 1] * 16, atol=2e-3
        )
        carried = total[length]
    assert np.abs(found).max() > 0.3


def test_rk4_and_dopri5_agree():
    rk4, dopri5 = departure(disturbed()).detach(), departure(disturbed(**TIGHT)).detach()
    assert float(rk4.abs().max()) > 0.3
    assert relative(rk4, dopri5) < 0.01
    assert relative(gradient(disturbed()), gradient(disturbed(**TIGHT))) < 0.01
    # one step a raster: the order of the method shows in what a half step costs
    errors = [relative(departure(disturbed(method=m)).detach(), dopri5) for m in ("euler", "midpoint", "rk4")]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("size", "options"), [(0.03, TIGHT), (0.01, {"method": "rk4"})])
def test_the_adjoint_gives_the_gradient_of_back_propagation(size, options):
    direct, adjoint = disturbed(size, **options), disturbed(size, adjoint=True, **options)
    assert torch.equal(direct().points, adjoint().points)
    assert relative(gradient(adjoint), gradient(direct)) <= 1e-3


def test_the_gradient_is_a_finite_difference():
    model = disturbed()
    for p in (model.double(),):
        p.field.segments = p.field.segments.double()
    analytic = gradient(model)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]

    def loss():
        k = model().k_adc / 100
        weights = torch.randn(k.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return float((k.square().sum() + (k * weights).sum()).detach())

    values = []
    step = 1e-4
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
        values.append(loss())
    slope = float(analytic @ torch.cat([d.flatten() for d in direction]))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("n_control", [2, 9, 20])
def test_segments_are_joined(n_control):
    model = disturbed(n_control=n_control)
    steps = departure(model).detach().diff(dim=1).norm(dim=-1).amax(dim=0)
    at_joint = torch.arange(len(steps)) % model.length == 0
    assert float(steps[at_joint].max()) <= 1.5 * float(steps[~at_joint].max())


def test_a_departure_is_forgotten():
    # a network that pushes in the first tenth of the shot alone
    class Early(torch.nn.Module):
        def forward(self, features):
            return torch.where(features[..., 2:3] < -0.8, 1.0, 0.0).expand(*features.shape[:-1], 2)

    model = disturbed(relaxation=40e-6, n_code=0)
    model.field.network = Early()
    distance = departure(model).detach().norm(dim=-1)
    assert float(distance[:, 8].min()) > 1
    for later in (1, 5, 16, 40):
        wanted = distance[:, 12] * math.exp(-later / 4)
        torch.testing.assert_close(distance[:, 12 + later], wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize("adjoint", [False, True])
def test_too_many_steps_is_an_error(adjoint):
    model = disturbed(0.3, method="dopri5", max_steps=3, rtol=1e-9, atol=1e-12, adjoint=adjoint)
    with pytest.raises(DivergedError, match="dopri5") as caught:
        model()
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_an_error(method, value):
    model = disturbed(method=method)
    with torch.no_grad():
        model.field.network[-1].bias.fill_(value)
    with pytest.raises(DivergedError):
        model()


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_control": 0},
        {"n_control": -3},
        {"hidden": 0},
        {"relaxation": 9e-6},
        {"relaxation": math.nan},
        {"n_code": 1},
        {"n_code": -1},
        {"rtol": 0.0},
        {"atol": -1.0},
        {"max_steps": 0},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as caught:
        NeuralODE(initial(), **wrong)
    assert "\n" not in str(caught.value)
