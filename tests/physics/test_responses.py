"""Eddy currents and measured impulse responses, against closed forms and direct sums."""

import numpy as np
import pypulseq as pp
import pytest
import torch
from scipy.integrate import quad

from trajdesign.acquisition import Acquisition
from trajdesign.config import models, plugins
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics.response import Response
from trajdesign.pulseq.writer import parts
from trajdesign.reporting import report
from trajdesign.scanner import Scanner

RASTER = 10e-6


def waveform(n=300, seed=0):
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n)
    waves = np.stack([np.cos(np.pi * m * t) for m in range(12)], axis=-1)
    return torch.from_numpy(np.einsum("tm,sdm->std", waves, rng.normal(size=(2, 2, 12))) * 5e-3)


def test_eddy_currents_are_the_integral_of_every_change():
    gradient = waveform()
    amplitudes, constants = [0.02, -0.005], [80e-6, 3e-3]
    table = {"kind": "eddy_currents", "amplitudes": amplitudes, "time_constants": constants}
    actual = plugins.build("response", table, gradient, RASTER)
    times = np.arange(300) * RASTER
    values = gradient[1, :, 0].numpy()
    slopes = np.diff(values) / RASTER
    for n in (0, 1, 57, 299):
        lost = 0.0
        for amplitude, constant in zip(amplitudes, constants, strict=True):
            for i in range(n):
                decayed, _ = quad(lambda s: np.exp(-(times[n] - s) / constant), times[i], times[i + 1])  # noqa: B023
                lost += amplitude * slopes[i] * decayed
        assert float(actual[1, n, 0]) == pytest.approx(values[n] - lost, abs=1e-12)


def write(tmp_path, frequency, factors):
    path = tmp_path / "girf.npz"
    np.savez(path, frequency_hz=frequency, response=factors)
    return str(path)


def test_a_girf_delays_and_damps_what_it_says(tmp_path):
    n, delay = 512, 25e-6
    frequency = np.linspace(0, 50e3, 5001)
    damping = 1 / (1 + (frequency / 2e4) ** 2)
    path = write(tmp_path, frequency, np.stack([damping * np.exp(-2j * np.pi * frequency * delay), np.ones(5001)]))
    # a burst well inside the readout, so that nothing depends on what came before or after
    t = np.arange(n) * RASTER
    burst = np.exp(-(((t - 2.5e-3) / 0.4e-3) ** 2)) * np.cos(2 * np.pi * 3e3 * t) * 10e-3
    gradient = torch.from_numpy(np.stack([burst, burst], axis=-1))[None]
    actual = plugins.build("response", {"kind": "girf", "path": path}, gradient, RASTER)[0].numpy()
    assert actual[:, 1] == pytest.approx(burst, abs=1e-9)
    spectrum = np.array([np.sum(burst * np.exp(-2j * np.pi * f * t)) for f in frequency[::20]])
    weights = damping[::20] * np.exp(-2j * np.pi * frequency[::20] * delay) * spectrum
    step = frequency[20] * RASTER
    wanted = [2 * step * np.sum(weights * np.exp(2j * np.pi * frequency[::20] * s)).real for s in t[200:300:9]]
    assert actual[200:300:9, 0] == pytest.approx(np.array(wanted), abs=2e-6)


def test_a_perfect_response_changes_nothing_and_a_csv_says_the_same(tmp_path):
    gradient = waveform()
    frequency = np.linspace(0, 5e4, 100)
    perfect = write(tmp_path, frequency, np.ones((2, 100), complex))
    assert torch.allclose(plugins.build("response", {"kind": "girf", "path": perfect}, gradient, RASTER), gradient)
    rng = np.random.default_rng(1)
    factors = np.exp(-2j * np.pi * frequency * 1e-6) * (1 + 0.01 * rng.normal(size=(2, 100)))
    factors[:, 0] = 1
    npz = plugins.build("response", {"kind": "girf", "path": write(tmp_path, frequency, factors)}, gradient, RASTER)
    table = np.column_stack([frequency, factors[0].real, factors[0].imag, factors[1].real, factors[1].imag])
    np.savetxt(tmp_path / "girf.csv", table, delimiter=",", header="Hz")
    csv = plugins.build("response", {"kind": "girf", "path": str(tmp_path / "girf.csv")}, gradient, RASTER)
    assert torch.allclose(csv, npz, atol=1e-12)


def eddy(**changes):
    return {"kind": "eddy_currents", "amplitudes": [0.03], "time_constants": [0.5e-3], **changes}


@pytest.mark.parametrize(
    ("table", "apart"),
    [({"kind": "delay", "delays": [4e-6]}, 0.03), (eddy(time_constants=[20e-3]), 0.1), (eddy(), 0.3)],
)
@pytest.mark.parametrize(
    "start", [{"kind": "radial"}, {"kind": "cartesian"}, {"kind": "epi"}, {"kind": "spiral", "in_out": True}]
)
def test_learning_meets_the_curve_that_a_file_is_answered_with(tmp_path, start, table, apart):
    acquisition = Acquisition((0.22, 0.22), (96, 96), 8, 1000, 4e-6)
    trajectory = plugins.build("init", start, acquisition, Scanner())
    learned = Response(table)(trajectory).k_adc.numpy()
    facts = export(trajectory, tmp_path / "x.seq", response=table)
    played = np.load(facts["k_path"])["k_actual"]  # the answer to all that the file plays, the prephaser too
    assert 0.22 * np.abs(learned - played).max() < apart
    assert 0.22 * np.abs(learned - trajectory.k_adc.numpy()).max() > 3 * min(apart, 0.03)


def test_the_actual_curve_passes_gradients_on():
    scanner, acquisition = Scanner(), Acquisition(n_shots=2, n_samples=200)
    trajectory = plugins.build("init", {"kind": "spiral"}, acquisition, scanner)
    assert Response({})(trajectory) is trajectory
    points = trajectory.points.clone().requires_grad_()
    small = Response(eddy())(trajectory.with_points(points)).k_adc[0, 100, 0]
    slope = torch.autograd.grad(small, points)[0][0, 30, 0]
    moved = trajectory.points.clone()
    moved[0, 30, 0] += 1.0
    step = Response(eddy())(trajectory.with_points(moved)).k_adc[0, 100, 0] - small.detach()
    assert float(slope) == pytest.approx(float(step.detach()), rel=1e-6)


def test_training_meets_the_actual_gradient(tmp_path):
    tiny = ["acquisition.matrix=[32,32]", "acquisition.n_shots=4", "acquisition.n_samples=128", "training.epochs=1"]
    tiny += ["acquisition.dwell=8e-6", 'init.kind="spiral"', "data.n_train=8", "data.n_val=2", "data.n_test=4"]
    runs = {}
    for name, more in (("perfect", []), ("eddy", ["response.kind=eddy_currents"])):
        values = ["response.amplitudes=[0.1]", "response.time_constants=[1e-3]"] if more else []
        settings = models.load_config(None, [*tiny, "parameterization.kind=fixed", *more, *values])
        runs[name] = optimize(settings, tmp_path / name).stages["fixed"].psnr_list
    assert not np.allclose(runs["perfect"], runs["eddy"])
    assert RunFolder(tmp_path / "eddy").config().response["amplitudes"] == [0.1]
    drawn = [{path.stem for path in report.draw(tmp_path / name)} for name in ("perfect", "eddy")]
    assert drawn[1] - drawn[0] == {"response"}


def test_a_training_makes_its_response_as_often_whatever_its_length(tmp_path, monkeypatch):
    tiny = ["acquisition.matrix=[32,32]", "acquisition.n_shots=4", "acquisition.n_samples=128", "data.n_val=2"]
    tiny += ["acquisition.dwell=8e-6", "init.kind=spiral", "data.n_train=4", "data.n_test=2", "training.validations=1"]
    tiny += ["response.kind=eddy_currents", "response.amplitudes=[0.1]", "response.time_constants=[1e-3]"]
    made, bind = [], plugins.bind
    monkeypatch.setattr(plugins, "bind", lambda kind, *more: made.append(kind) or bind(kind, *more))
    counts = []
    for epochs in (1, 5):
        made.clear()
        optimize(models.load_config(None, [*tiny, f"training.epochs={epochs}"]), tmp_path / str(epochs), baseline=False)
        counts.append(made.count("response"))
    assert counts[0] == counts[1] > 0


def test_a_file_is_answered_as_a_whole(tmp_path):
    scanner, acquisition = Scanner(), Acquisition(n_shots=2, n_samples=200)
    trajectory = plugins.build("init", {"kind": "spiral"}, acquisition, scanner)
    facts = export(trajectory, tmp_path / "x.seq", options={"sequence": {"n_dummies": 1}}, response=eddy())
    found = np.load(facts["k_path"])
    # pypulseq's waveforms, every change answered by an exponential in closed form
    sequence = pp.Sequence(parts.system(scanner))
    sequence.read(str(tmp_path / "x.seq"))
    excitation, times = sequence.rf_times()[0][-1], sequence.adc_times()[0].reshape(2, -1)[1]
    for axis in range(2):
        at, value = sequence.waveforms()[axis]
        slopes = np.diff(value) / np.diff(at)

        def lost(until, at=at, slopes=slopes):
            # integral from 0 to `until` of a (e^{-t/tau} * dg/dt)
            reach = np.clip(until - at, 0, None)
            summed = reach - 0.5e-3 * (1 - np.exp(-reach / 0.5e-3))
            return 0.03 * 0.5e-3 * np.sum(slopes * (summed[:-1] - summed[1:]))

        for sample in (0, 90, 199):
            wanted = found["k_adc"][1, sample, axis] - lost(times[sample]) + lost(excitation)
            assert found["k_actual"][1, sample, axis] == pytest.approx(wanted, abs=2e-3)
    assert np.abs(found["k_actual"] - found["k_adc"]).max() > 1


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (eddy(time_constants=[]), "1 amplitudes, 0 time constants"),
        (eddy(amplitudes=[3.0]), "amplitude 3"),
        (eddy(time_constants=[0.0]), "time constant 0"),
    ],
)
def test_impossible_eddy_currents(table, match):
    with pytest.raises(ConfigError, match=match):
        plugins.build("response", table, waveform(), RASTER)


def test_impossible_girfs(tmp_path):
    gradient = waveform()
    frequency = np.linspace(0, 1e4, 10)
    for number, (at, factors, match) in enumerate(
        [
            (frequency, np.ones((1, 10)), "has 1 axes; the gradient has 2"),
            (frequency[::-1], np.ones((2, 10)), "must rise from 0"),
            (frequency, np.full((2, 10), np.nan), "finite"),
            (frequency, np.ones((2, 9)), "must rise from 0, and each axis"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        path = write(tmp_path / str(number), at, factors)
        with pytest.raises(InputError, match=match):
            plugins.build("response", {"kind": "girf", "path": path}, gradient, RASTER)
    (tmp_path / "x.csv").write_text("one,two\n")
    for name, match in (("x.csv", "no table of numbers"), ("none.npz", "does not exist")):
        with pytest.raises(InputError, match=match):
            plugins.build("response", {"kind": "girf", "path": str(tmp_path / name)}, gradient, RASTER)
