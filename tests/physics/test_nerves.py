"""Nerve models against direct sums, closed forms and pypulseq's SAFE model."""

import math

import numpy as np
import pytest
import torch
from pypulseq.utils.safe_pns_prediction import safe_example_gwf, safe_example_hw, safe_gwf_to_pns
from pypulseq.utils.siemens.asc_to_hw import asc_to_hw
from pypulseq.utils.siemens.readasc import readasc

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError
from trajdesign.physics.constraints.stimulation import Stimulation
from trajdesign.physics.nerves import COILS, ImpulseResponse, Safe, SafeAxis, causal, nerve_model, stimulation
from trajdesign.scanner import Scanner

XRM = COILS["xrm"]


def waveform(n=300, axes=3, shots=2, seed=0):
    """Return a gradient (shot, time, axis) in T/m whose slew rate reaches some 100 T/m/s."""
    rng = np.random.default_rng(seed)
    slew = rng.normal(scale=100, size=(shots, n, axes))
    return torch.from_numpy(1e-5 * slew.cumsum(axis=1))


def example():
    """Return the SAFE model of pypulseq's example hardware, in SI."""
    hardware = safe_example_hw()
    axes = []
    for name in "xyz":
        a = getattr(hardware, name)
        times = (1e-3 * a.tau1, 1e-3 * a.tau2, 1e-3 * a.tau3)
        axes.append(SafeAxis(times, (a.a1, a.a2, a.a3), a.stim_limit, a.g_scale))
    return Safe(*axes)


def asc(prefix=""):
    """Return the text of an .asc file with the numbers of pypulseq's example hardware."""
    hardware, lines = safe_example_hw(), []
    for name in "xyz":
        a, axis = getattr(hardware, name), name.upper()
        for i in range(3):
            lines.append(f"{prefix}flGSWDTau{axis}[{i}] = {getattr(a, f'tau{i + 1}')}")
            lines.append(f"{prefix}flGSWDA{axis}[{i}] = {getattr(a, f'a{i + 1}')}")
        lines.append(f"{prefix}flGSWDStimulationLimit{axis} = {a.stim_limit}")
        lines.append(f"{prefix}flGSWDStimulationThreshold{axis} = {a.stim_thresh}")
        lines.append(f"asGPAParameters[0].sGCParameters.flGScaleFactor{axis} = {a.g_scale}")
    return "\n".join(lines) + "\n"


# --- nerve impulse response ---


@pytest.mark.parametrize("coil", COILS)
def test_the_response_is_the_direct_sum(coil):
    model, gradient, raster = COILS[coil], waveform(), 10e-6
    c, gain = model.chronaxie, model.coil_length / model.rheobase
    slew = np.diff(gradient.numpy(), axis=1) / raster
    expected = np.zeros(gradient.shape[:2])
    for j in range(1, gradient.shape[1]):
        # the slew rate of interval i lasted from (j - i) to (j - i - 1) rasters ago
        ago = raster * (j - np.arange(j))
        kernel = gain * (c / (c + ago - raster) - c / (c + ago))
        axes = (kernel[:, None] * slew[:, :j]).sum(axis=1)
        expected[:, j] = np.sqrt((axes**2).sum(axis=-1))
    found = stimulation(model, gradient, raster)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-13)


def test_the_kernel_is_that_of_the_standard():
    # dt (alpha / r) c / (c + t)^2 at the middle of each raster time; they differ by (dt / 2 / c)^2
    gradient, raster = waveform(shots=1), 10e-6
    c, gain = XRM.chronaxie, XRM.coil_length / XRM.rheobase
    kernel = raster * gain * c / (c + raster * (np.arange(299) + 0.5)) ** 2
    slew = np.diff(gradient[0].numpy(), axis=0) / raster
    axes = np.stack([np.convolve(slew[:, a], kernel)[:299] for a in range(3)], axis=-1)
    np.testing.assert_allclose(stimulation(XRM, gradient, raster)[0, 1:], np.linalg.norm(axes, axis=-1), rtol=1e-3)


@pytest.mark.parametrize("coil", COILS)
@pytest.mark.parametrize("raster", [4e-6, 10e-6])
def test_a_ramp_reaches_the_limit_after_the_time_of_the_hyperbola(coil, raster):
    # strength-duration: S = r / alpha (1 + c / t) is felt after t
    model, n = COILS[coil], 120
    slew = model.rheobase / model.coil_length * (1 + model.chronaxie / (n * raster))
    ramp = slew * raster * torch.arange(n + 1, dtype=torch.float64)[:, None]
    response = stimulation(model, ramp, raster)
    assert float(response[-1]) == pytest.approx(1, rel=1e-12)
    assert float(response[0]) == 0
    assert (response[:-1] < 1).all()
    # two axes at once are felt as their vector
    assert float(stimulation(model, ramp.expand(-1, 2), raster)[-1]) == pytest.approx(math.sqrt(2))


def test_the_response_does_not_depend_on_the_raster():
    coarse = waveform(shots=1)[0]
    fine = torch.stack([coarse[:-1], (coarse[:-1] + coarse[1:]) / 2], dim=1).flatten(0, 1)
    same = stimulation(XRM, fine, 5e-6)[::2]
    torch.testing.assert_close(same, stimulation(XRM, coarse[:-1], 10e-6), rtol=0, atol=1e-13)


def test_a_turned_waveform_stimulates_as_much():
    gradient = waveform()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(
        stimulation(XRM, gradient @ turn, 1e-5), stimulation(XRM, gradient, 1e-5), rtol=0, atol=1e-13
    )


# --- SAFE ---


@pytest.mark.parametrize("raster", [4e-6, 10e-6, 1e-3])
def test_safe_is_that_of_pypulseq(raster):
    gradient = waveform(shots=1)[0] if raster < 1e-3 else torch.from_numpy(safe_example_gwf()[0])
    theirs = safe_gwf_to_pns(gradient.numpy(), np.ones(len(gradient)), raster, safe_example_hw(), do_padding=False)[0]
    slew = gradient.diff(dim=0) / raster
    np.testing.assert_allclose(example().filtered(slew, raster), theirs / 100, rtol=0, atol=1e-13 * theirs.max())
    combined = np.sqrt((theirs**2).sum(axis=1)) / 100
    assert combined.max() > 0.1
    found = stimulation(example(), gradient, raster)
    np.testing.assert_allclose(found[1:], combined, rtol=0, atol=1e-13 * combined.max())
    assert float(found[0]) == 0


def test_safe_takes_the_first_axes_of_a_plane():
    flat = waveform(axes=2)
    solid = torch.cat([flat, torch.zeros_like(flat[..., :1])], dim=-1)
    torch.testing.assert_close(
        stimulation(example(), flat, 1e-5), stimulation(example(), solid, 1e-5), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("prefix", ["", "GradPatSup.Phys.PNS."])
def test_safe_reads_the_file_as_pypulseq_does(tmp_path, prefix):
    path = tmp_path / "MP_GPA_EXAMPLE.asc"
    # a second model, of the heart, in the same file, is not that of the nerves
    heart = asc("GradPatSup.Phys.CarNS.").splitlines() if prefix else []
    path.write_text(asc(prefix) + "\n".join(line.replace("= ", "= 9") for line in heart if "CarNS" in line))
    model = nerve_model(str(path))
    assert model == example()
    hardware = asc_to_hw(readasc(path)[0])
    gradient = waveform(shots=1)[0]
    theirs = safe_gwf_to_pns(gradient.numpy(), np.ones(300), 1e-5, hardware, do_padding=False)[0]
    np.testing.assert_allclose(stimulation(model, gradient, 1e-5)[1:], np.linalg.norm(theirs, axis=1) / 100)


def test_a_safe_file_that_lacks_something_is_refused(tmp_path):
    path = tmp_path / "some.asc"
    with pytest.raises(InputError, match="does not exist"):
        nerve_model(str(path))
    for key in ("flGSWDTauX[2]", "flGSWDAY[0]", "flGSWDStimulationLimitZ", "sGCParameters.flGScaleFactorX"):
        path.write_text("".join(line for line in asc().splitlines(keepends=True) if key not in line))
        with pytest.raises(InputError) as caught:
            nerve_model(str(path))
        assert key in str(caught.value)
    for wrong in (("TauX[0] = 0.2", "TauX[0] = 0"), ("AX[0] = 0.4", "AX[0] = 0.6"), ("LimitY = 15.0", "LimitY = 0")):
        path.write_text(asc().replace(*wrong))
        with pytest.raises(InputError, match=r"axis [XY] has the time constants .* sum to 1"):
            nerve_model(str(path))


# --- both ---


@pytest.mark.parametrize("model", [XRM, example()], ids=["impulse response", "SAFE"])
def test_the_slope_is_that_of_differences(model):
    gradient = waveform(n=20, axes=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: stimulation(model, g, 1e-5), (gradient,), eps=1e-8, atol=1e-4, rtol=1e-5)
    still = torch.zeros(1, 20, 2, dtype=torch.float64, requires_grad=True)
    stimulation(model, still, 1e-5).sum().backward()
    assert torch.isfinite(still.grad).all()


@pytest.mark.parametrize("model", [XRM, example()], ids=["impulse response", "SAFE"])
def test_the_start_is_at_rest_and_the_first_step_is_not_counted(model):
    gradient = waveform()
    torch.testing.assert_close(
        stimulation(model, gradient + 0.02, 1e-5), stimulation(model, gradient, 1e-5), rtol=0, atol=1e-10
    )
    assert (stimulation(model, torch.full((5, 2), 0.03), 1e-5) == 0).all()


@pytest.mark.parametrize("model", [XRM, example()], ids=["impulse response", "SAFE"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_reaches_only_what_follows(model, wrong):
    gradient = waveform()
    good = stimulation(model, gradient, 1e-5)
    gradient[1, 100, 2] = wrong
    found = stimulation(model, gradient, 1e-5)
    assert found[1, 100:].isnan().all()
    torch.testing.assert_close(found[1, :100], good[1, :100], rtol=0, atol=1e-13)
    torch.testing.assert_close(found[0], good[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 65, 1000])
def test_a_causal_convolution_of_any_length_does_not_wrap_around(n):
    rng = np.random.default_rng(n)
    signal, kernel = rng.normal(size=(2, n, 3)), rng.normal(size=n)
    expected = np.apply_along_axis(lambda x: np.convolve(x, kernel)[:n], 1, signal)
    found = causal(torch.from_numpy(signal), torch.from_numpy(kernel))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_a_model_is_chosen_by_one_word():
    assert nerve_model("xrm") == ImpulseResponse(334e-6, 23.4, 0.333)
    with pytest.raises(ConfigError, match=r"'xmr', and no path to an \.asc file; did you mean 'xrm'\? Known: xrm, "):
        nerve_model("xmr")


@pytest.mark.parametrize("limit", [0.0, -1.0, 1.01, 1e9, np.inf, np.nan])
def test_a_constraint_that_allows_more_than_the_models_limit_is_refused(limit):
    with pytest.raises(ConfigError, match="nerve_limit is"):
        Stimulation(Acquisition(), Scanner(), model="xrm", limit=limit)
    assert Stimulation(Acquisition(), Scanner(), model="xrm", limit=1.0).limit == 1.0


@pytest.mark.parametrize("weight", [-1.0, 1e7, np.inf, np.nan])
def test_a_weight_that_drowns_the_rest_is_refused(weight):
    with pytest.raises(ConfigError, match="weight of the limit 'stimulation'"):
        Stimulation(Acquisition(), Scanner(), model="xrm", weight=weight)
