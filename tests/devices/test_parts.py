"""Every part of the software on an accelerator, with the numbers of the CPU."""

import numpy as np
import pytest
import torch
from reconstructors import FOR_SLICES

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding import nufft
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.operator import Encoding, angular
from trajdesign.encoding.psf import psf
from trajdesign.encoding.spectrum_cache import SpectrumCache
from trajdesign.encoding.toeplitz import spectrum
from trajdesign.errors import ResourceError
from trajdesign.exporting.proof import export
from trajdesign.physics import limits
from trajdesign.physics.perturbation import Perturbations
from trajdesign.physics.projection import project
from trajdesign.physics.response import Response
from trajdesign.reconstruction import coils, metrics
from trajdesign.scanner import Scanner
from trajdesign.trajectories import convert
from trajdesign.trajectories.fitting import fit, fit_residual
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectories.loading import load

ACQUISITION = Acquisition((0.22, 0.2), (14, 12), 2, 100, 8e-6)
#: Options without which a plug-in cannot be built; a new one with such options fails until it has a line here.
NEEDED = {
    "acoustics": {"bands": [(600.0, 100.0)], "limit": 1e-4, "repetition_time": 10e-3},
    "stimulation": {"model": "xrm", "limit": 1e-3},
    "echo": {"time": 200e-6},
    "concomitant": {"tesla": 3.0, "position": [0.02, -0.01, 0.05], "axes": [0.8, 0.0, 0.6, 0.0, 1.0, 0.0]},
    "delay": {"delays": [3e-6, -2e-6, 0.0]},
    "eddy_currents": {"amplitudes": [0.02, -0.005], "time_constants": [80e-6, 3e-3]},
}
PARAMETERIZATIONS = [
    *({"kind": name} for name in plugins.names("parameterization")),
    {"kind": "neural_ode", "adjoint": True},
    {"kind": "neural_ode", "method": "dopri5", "n_code": 0},
    {"kind": "samples", "decimation": 8},
    {"kind": "bspline", "decimation": 4, "n_control": 20},
]
RECONSTRUCTORS = [
    *({"kind": name} for name in FOR_SLICES),
    {"kind": "unrolled", "checkpoint": True, "iterations": 2},
]


@pytest.fixture
def trajectory():
    return spiral(ACQUISITION, Scanner())


@pytest.fixture
def girf(tmp_path):
    frequency = np.linspace(0, 50e3, 500)
    damping = 1 / (1 + (frequency / 2e4) ** 2)
    path = tmp_path / "girf.npz"
    response = np.array([[1.0, 0.1], [-0.05, 0.9]])[..., None] * damping * np.exp(-1e-4j * frequency)
    np.savez(path, frequency_hz=frequency, response=response, b0=1e-3 * response[0])
    return {"path": str(path)}


def moved(trajectory, device):
    return trajectory.with_points(trajectory.points.detach().to(device))


def learnable(trajectory, device="cpu"):
    """Return a trajectory that no limit allows, whose k asks for its gradient."""
    wave = torch.sin(torch.arange(trajectory.points.shape[1], dtype=torch.float64) * 0.7)[:, None]
    return trajectory.with_points((1.3 * trajectory.points + 80 * wave).to(device).requires_grad_())


def noise(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def images(n=2, n_coils=3, dtype=torch.complex128):
    return noise(n, n_coils, *ACQUISITION.image_shape, dtype=dtype)


def both(device, kernels, **options):
    """Return encodings of the device and of the CPU, whose trajectories ask for their gradients, in float64."""
    start = spiral(ACQUISITION, Scanner())
    if kernels[0] == "torchkbnufft":  # its many tables and steps take seconds; `test_the_density` has them
        options["weights"] = Encoding(start).weights
    leaves = [start.with_points(start.points.to(where).requires_grad_()) for where in (device, "cpu")]
    there = Encoding(leaves[0], device=device, dtype=torch.float64, **options)
    return there, Encoding(leaves[1], dtype=torch.float64, **options), [leaf.points for leaf in leaves]


@pytest.fixture(params=[("cufinufft", "finufft"), ("torchkbnufft", "torchkbnufft")], ids=lambda pair: pair[0])
def kernels(request, device, monkeypatch):
    """Compute with a kernel of the device, and with that of the CPU with which it agrees to rounding."""
    if request.param[0] not in nufft.there(device):
        pytest.skip(f"{request.param[0]} is not there")
    monkeypatch.setattr(nufft, "fastest", lambda where: request.param[where.type == "cpu"])
    return request.param


# --- trajectories ---


@pytest.mark.parametrize("how", ["made there", "moved there"])
@pytest.mark.parametrize("table", PARAMETERIZATIONS, ids=str)
def test_parameterizations(device, alike, trajectory, table, how):
    if table["kind"] == "lines":
        trajectory = cartesian(ACQUISITION, Scanner())
    torch.manual_seed(0)
    here = plugins.build("parameterization", table, trajectory)
    torch.manual_seed(0)
    there = plugins.build("parameterization", table, moved(trajectory, device) if how == "made there" else trajectory)
    if how == "moved there":
        there = there.to(device)
    alike(there().points, trajectory.points)
    for seed, (p, q) in enumerate(zip(there.parameters(), here.parameters(), strict=True)):
        change = 0.02 * noise(*q.shape, dtype=q.dtype, seed=seed)
        with torch.no_grad():
            q += change
            p += change.to(device)
    slope = noise(*trajectory.points.shape, dtype=torch.float64)
    for progress in (0.0, 0.5, 1.0):
        for model in (there, here):
            model.refine(progress)
        found, expected = there(), here()
        alike(found.points, expected.points)
        if not expected.points.requires_grad:
            assert table["kind"] in ("fixed", "lines")
            continue
        (found.points * slope.to(device)).sum().backward()
        (expected.points * slope).sum().backward()
        for p, q in zip(there.parameters(), here.parameters(), strict=True):
            alike(p.grad, q.grad)


@pytest.mark.parametrize("name", plugins.names("constraint"))
@pytest.mark.parametrize("norm", ["vector", "axis"])
def test_constraints(device, alike, name, norm):
    start = spiral(ACQUISITION, Scanner(limit_norm=norm))
    [limit] = limits.constraints(ACQUISITION, start.scanner, [name], {name: NEEDED.get(name, {})})
    found, expected = learnable(start, device), learnable(start)
    torch.testing.assert_close(limit.measure(found).detach().cpu(), limit.measure(expected).detach())
    penalties = [limit.penalty(t) for t in (found, expected)]
    assert float(penalties[1].detach()) > 0
    for penalty in penalties:
        penalty.backward()
    torch.testing.assert_close(penalties[0].detach().cpu(), penalties[1].detach())
    alike(found.points.grad, expected.points.grad)
    assert limit.check(found).shot == limit.check(expected).shot
    assert limit.check(found).value == pytest.approx(limit.check(expected).value)
    broken = expected.points.detach().clone()
    broken[1, 20] = torch.nan
    for k in (broken, broken.to(device)):
        finding = limit.check(start.with_points(k))
        assert (finding.ok, finding.shot) == (False, 1)


def test_the_projection(device, alike, trajectory):
    constraints = limits.constraints(ACQUISITION, trajectory.scanner)
    found, expected = (project(learnable(trajectory, where), constraints, 60) for where in (device, "cpu"))
    alike(found.points, expected.points)
    assert all(finding.ok for finding in limits.check(found))
    for trajectory_ in (found, expected):
        trajectory_.points.square().sum().backward()


@pytest.mark.parametrize("name", plugins.names("response"))
def test_responses(device, alike, trajectory, name, girf):
    table = {"kind": name, **({"girf": girf, **NEEDED}.get(name, {}))}
    found, expected = learnable(trajectory, device), learnable(trajectory)
    curves = [Response(table)(t).points for t in (found, expected)]
    alike(*curves)
    if name in ("girf", "concomitant"):
        alike(*(Response(table).phase(t) for t in (found, expected)))
    for curve in curves:
        curve.square().sum().backward()
    alike(found.points.grad, expected.points.grad)


@pytest.mark.parametrize("name", plugins.names("perturbation"))
def test_perturbations(device, alike, trajectory, kernels, name, girf):
    perturbations = Perturbations({name: {"girf": girf, "lost_shot": {"probability": 1.0}}.get(name, {})})
    *believed, leaves = both(device, kernels)
    seen = []
    for encoding, points in zip(believed, leaves, strict=True):
        truly = perturbations.encoding(trajectory.with_points(points), Response({}), 3, encoding)
        seen.append(truly.forward(images().to(points.device)))
        seen[-1].abs().square().sum().backward()
    alike(*seen)
    alike(*(points.grad for points in leaves))


def test_a_trajectory_as_file_fit_and_summary(device, alike, trajectory, tmp_path):
    found = moved(trajectory, device)
    for name in ("k_adc", "gradient", "slew"):
        alike(getattr(found, name), getattr(trajectory, name))
    found.save(tmp_path / "a.npz")
    assert torch.equal(load(tmp_path / "a.npz").points, trajectory.points)
    again = fit(found.k_adc, ACQUISITION, trajectory.scanner)
    assert fit_residual(again, trajectory.k_adc)[0] < 1e-5
    assert fit_residual(found, found.k_adc) == (0, 0)
    findings = [limits.check(t) for t in (found, trajectory)]
    assert limits.summary(found, findings[0]) == limits.summary(trajectory, findings[1])


@pytest.mark.parametrize("format", plugins.names("exporter"))
def test_exports(device, trajectory, tmp_path, format):
    files = [tmp_path / name / f"a{plugins.find('exporter', format).ending}" for name in ("there", "here")]
    facts = [
        export(t, file, format=format) for t, file in zip((moved(trajectory, device), trajectory), files, strict=True)
    ]
    assert facts[0]["max_k_error_fov"] == facts[1]["max_k_error_fov"]
    if format == "pulseq":
        assert files[0].read_bytes() == files[1].read_bytes()


def test_other_packages_get_numbers_of_the_cpu(device, trajectory):
    found, expected = (convert.to_mrinufft(t) for t in (moved(trajectory, device), trajectory))
    np.testing.assert_array_equal(found, expected)


def test_point_spread_functions(device, trajectory):
    weights = torch.linspace(1, 2, ACQUISITION.n_samples).expand(2, -1)
    for given in (None, weights):
        found = psf(moved(trajectory, device), None if given is None else given.to(device))
        assert found.to_dict() == psf(trajectory, given).to_dict()


# --- sampling ---


def test_the_density(device, alike, trajectory, kernels):
    omega = angular(trajectory).flatten(0, 1)
    leaves = [omega.to(where).requires_grad_() for where in (device, "cpu")]
    for start in (None, torch.linspace(1, 2, len(omega))):
        found, expected = (
            density_compensation(leaf, ACQUISITION.image_shape, n_iterations=5, start=start) for leaf in leaves
        )
        alike(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        alike(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("normal", ["chain", "toeplitz", "auto"])
@pytest.mark.parametrize("has_maps", [False, True])
def test_the_encoding(device, alike, kernels, normal, has_maps):
    maps = images(1) if has_maps else None
    there, here, leaves = both(device, kernels, coil_maps=maps, normal=normal)
    image = images()[:, :1] if has_maps else images()
    given = [image.to(where).requires_grad_() for where in (device, "cpu")]
    samples = [encoding.forward(x) for encoding, x in zip((there, here), given, strict=True)]
    alike(*samples)
    alike(there.adjoint(samples[0]), here.adjoint(samples[1]))
    results = [encoding.normal(x) for encoding, x in zip((there, here), given, strict=True)]
    alike(*results)
    for result in results:
        result.abs().square().sum().backward()
    alike(given[0].grad, given[1].grad)
    alike(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("normal", ["chain", "toeplitz"])
@pytest.mark.parametrize("is_stack", [False, True])
def test_stacks_and_films(device, alike, kernels, normal, is_stack):
    if is_stack:
        acquisition = Acquisition((0.2, 0.2, 0.08), (12, 12, 4), 8, 60, 8e-6)
    else:
        acquisition = Acquisition((0.2, 0.2), (12, 12), 8, 60, 8e-6, 4)
    start = plugins.build(
        "init", {"kind": "planes", "pattern": {"kind": "radial"}, "turn": 20.0}, acquisition, Scanner()
    )
    image, found = noise(1, 2, 4, 12, 12), []
    weights = None if kernels[0] != "torchkbnufft" else torch.ones(8, 60, dtype=torch.float64) / 480
    for where in (device, "cpu"):
        leaf = start.with_points(start.points.to(where).requires_grad_())
        encoding = Encoding(leaf, weights=weights, dtype=torch.float64, device=where, normal=normal)
        result = encoding.normal(image.to(where))
        result.abs().square().sum().backward()
        found.append([encoding.forward(image.to(where)), result, leaf.points.grad])
    for one, other in zip(*found, strict=True):
        alike(one, other)


def test_spectra_that_are_kept(device, alike, kernels):
    there, here, _ = both(device, kernels, normal="toeplitz")
    cache, image = SpectrumCache(2**24), images()
    alike(spectrum(image[0].to(device)), spectrum(image[0]))
    for _ in range(2):
        known = cache.of([4, 7], image.to(device))
        alike(there.normal(image.to(device), known), here.normal(image))
    assert {n: kept for n, (_, kept) in cache.state().items()} == {4: known[0].nbytes, 7: known[1].nbytes}


def test_an_encoding_cut_off_carries_gradients_on(device, alike, kernels):
    there, here, leaves = both(device, kernels, normal="toeplitz")
    for encoding in (there, here):
        cut = encoding.cut(6)
        for _ in range(2):
            cut.normal(images().to(cut.omega.device)).abs().square().sum().backward()
        encoding.carry_on(cut)
    alike(leaves[0].grad, leaves[1].grad)


# --- images ---


@pytest.mark.parametrize("table", RECONSTRUCTORS, ids=str)
@pytest.mark.parametrize("has_maps", [False, True])
def test_reconstructors(device, alike, trajectory, table, has_maps):
    weights = Encoding(trajectory).weights
    networks, results = [plugins.build("reconstructor", table).double() for _ in range(2)], []
    networks[0].load_state_dict(networks[1].state_dict())
    given = images()
    maps = coils.smooth_maps(coils.calibration_scan(given, 0.0, [0, 0]), ACQUISITION.image_shape)
    for where, network in zip((device, "cpu"), networks, strict=True):
        there = trajectory.with_points(trajectory.points.to(where).requires_grad_())
        encoding = Encoding(there, weights=weights, dtype=torch.float64, device=where)
        adjoint = encoding.normal(given.to(where))
        image = network.to(where)(adjoint, encoding.with_maps(maps.to(where)) if has_maps else encoding)
        image.square().mean().backward()
        results.append([image, there.points.grad, *(p.grad for p in network.parameters())])
    for one, other in zip(*results, strict=True):
        alike(one, other)


def test_coil_maps(device, alike):
    given = images()
    found, expected = (coils.calibration_scan(x, 0.1, [3, 4]) for x in (given.to(device), given))
    if device.type == "pretend":  # a real one has random numbers of its own
        alike(found, expected)
    shape = ACQUISITION.image_shape
    alike(coils.smooth_maps(expected.to(device), shape), coils.smooth_maps(expected, shape))
    try:
        maps = coils.espirit_maps(expected, shape)
    except ResourceError:
        return
    alike(coils.espirit_maps(expected.to(device), shape), maps)


def test_metrics(device, alike):
    image, reference = (noise(3, 1, 12, 14, dtype=torch.float32, seed=seed).abs() for seed in (1, 2))
    for metric in (metrics.psnr, metrics.ssim, metrics.nrmse):
        alike(metric(image.to(device), reference.to(device)), metric(image, reference))
    for peak in (1.0, None, torch.tensor([1.0, 2.0, 3.0])):
        there = peak.to(device) if isinstance(peak, torch.Tensor) else peak
        for metric in (metrics.psnr, metrics.ssim):
            alike(metric(image.to(device), reference.to(device), there), metric(image, reference, peak))
    found = metrics.image_loss(image.to(device), reference.to(device), 0.3, 1.0)
    alike(found, metrics.image_loss(image, reference, 0.3, 1.0))
