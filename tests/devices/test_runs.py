"""Whole runs on an accelerator, and what is made of them, with the numbers of the CPU."""

import json
import signal

import numpy as np
import pytest
import torch
from devices import pretend
from faults.tiny import broken_off, sums, tiny

from trajdesign.config import plugins
from trajdesign.encoding import nufft
from trajdesign.exporting.network import export_network
from trajdesign.exporting.proof import export
from trajdesign.learning.evaluation import evaluate
from trajdesign.learning.optimize import datasets, optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.measuring.virtual_scan import scan
from trajdesign.reporting import report
from trajdesign.reporting.evaluate import evaluate as evaluate_run

#: The matrix is as small as the metrics allow; the rates are those of runs that rounding does not part.
SMALL = ["acquisition.matrix=[16,16]", "acquisition.n_samples=100", "training.trajectory_rate=3e-3"]
RUNS = {
    "splines": ["training.normal=toeplitz"],
    "ode, unrolled, eddy currents": [
        "parameterization.kind=neural_ode",
        "reconstructor.kind=unrolled",
        "reconstructor.channels=4",
        "reconstructor.levels=1",
        "reconstructor.iterations=1",
        "response.kind=eddy_currents",
        "response.amplitudes=[0.02]",
        "response.time_constants=[1e-4]",
        "training.coil_maps=prescan",
        "training.normal=toeplitz",
    ],
    "samples, cg, penalty": [
        "parameterization.kind=samples",
        "reconstructor.kind=cg_sense",
        "reconstructor.iterations=3",
        "limits.method=penalty",
        "training.normal=chain",
        "training.noise=0",
        "training.slices_at_once=1",
    ],
}


def borrowed_finufft(kind, data, omega, shape):
    """finufft on the pretend accelerator, so that numbers of both devices differ by rounding alone."""
    return pretend.Pretend(nufft.KERNELS["finufft"](kind, pretend.held(data), pretend.held(omega), shape))


@pytest.fixture(autouse=True)
def borrowed(monkeypatch, device):
    if device.type == pretend.NAME:
        monkeypatch.setitem(nufft.KERNELS, "cufinufft", borrowed_finufft)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {}


@pytest.fixture(params=RUNS)
def runs(request, device, folders, tmp_path_factory):
    """Return the folder of a run on the device, and of the same on the CPU."""
    if request.param not in folders:
        path = tmp_path_factory.mktemp("runs")
        config = tiny(*SMALL, *RUNS[request.param])
        if device.type != pretend.NAME and config.training.noise:  # a device has random numbers of its own
            config = tiny(*SMALL, *RUNS[request.param], "training.noise=0")
        for name, where in (("there", str(device.type)), ("here", "cpu")):
            optimize(config, path / name, device=where)
        folders[request.param] = path
    return folders[request.param] / "there", folders[request.param] / "here"


def close(device, found, expected, part=1e-5):
    loosened = 1.0 if device.type == pretend.NAME else 100.0
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=loosened * part * np.abs(expected).max())


def test_a_run(device, runs):
    found, expected = map(RunFolder, runs)
    for name in ("initial", "trajectory"):
        close(device, found.trajectory(name).points, expected.trajectory(name).points)
    for stage in expected.results().stages:
        networks = [plugins.build("reconstructor", expected.config().reconstructor) for _ in range(2)]
        for folder, network in zip((found, expected), networks, strict=True):
            folder.load_stage(stage, network)
        for p, q in zip(*(network.parameters() for network in networks), strict=True):
            close(device, p.detach(), q.detach(), 1e-4)  # Adam turns rounding of small gradients into more
        for key in ("psnr_list", "ssim_list", "nrmse_list"):
            close(device, getattr(found.results().stages[stage], key), getattr(expected.results().stages[stage], key))
    assert [row.step for row in found.history()] == [row.step for row in expected.history()]


def test_what_is_made_of_a_run(device, runs, tmp_path):
    folder = RunFolder(runs[0])
    for run, name in zip(runs, ("there", "here"), strict=True):
        report.write(run, tmp_path / f"{name}.html")
        assert "fixed" in (tmp_path / f"{name}.html").read_text()
    export(folder.trajectory(), tmp_path / "a.seq", response=folder.config().response)
    for run, name in zip(runs, ("there", "here"), strict=True):
        scan(tmp_path / "a.seq", out=tmp_path / name, run=run)
    close(device, *(np.load(tmp_path / name / "image.npy") for name in ("there", "here")), 1e-4)
    errors = [json.loads((tmp_path / name / "scan.json").read_text())["max_k_error_fov"] for name in ("there", "here")]
    assert errors[0] == pytest.approx(errors[1], rel=0.01, abs=1e-5)


@pytest.mark.parametrize("runs", ["splines"], indirect=True)
def test_a_network_for_others(device, runs, tmp_path):
    kspace, images = torch.ones(1, 2, 4, 100, dtype=torch.complex64), []
    for run, name in zip(runs, ("there", "here"), strict=True):
        export_network(run, tmp_path / f"{name}.pt2")
        images.append(torch.export.load(tmp_path / f"{name}.pt2").module()(kspace).detach())
    close(device, *images, 1e-4)


def test_the_evaluation_follows_the_network(device, runs):
    folder = RunFolder(runs[1])
    config, data = folder.config(), datasets(folder.config())["test"]
    scores = []
    for where in (device, "cpu"):
        network = plugins.build("reconstructor", config.reconstructor)
        trajectory = folder.load_stage("learned", network)
        scores.append(evaluate(trajectory.with_points(trajectory.points.to(where)), network.to(where), data, config))
    for key in ("psnr_list", "ssim_list", "nrmse_list"):
        close(device, getattr(scores[0], key), getattr(scores[1], key))


def test_a_run_on_other_data(device, runs, tmp_path):
    for name in ("there", "here"):
        where = str(device.type) if name == "there" else "cpu"
        evaluate_run(runs[1], ["data.n_test=3"], out=tmp_path / name, device=where, quiet=True)
    there, here = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("there", "here"))
    for stage in ("fixed", "learned"):
        close(device, there[stage]["psnr_list"], here[stage]["psnr_list"])


def test_a_run_goes_on_where_it_was_and_elsewhere(device, folders, tmp_path, monkeypatch):
    config = tiny(*SMALL, "training.noise=0")
    name = str(device.type)
    optimize(config, tmp_path / "whole", device=name)
    for path, first, second in (("there", name, name), ("to the CPU", name, "cpu"), ("from it", "cpu", name)):
        code = broken_off(config, tmp_path / path, "learned", 3, signal.SIGTERM, device=first)
        assert code == 128 + signal.SIGTERM
        said = []
        optimize(config, tmp_path / path, device=second, resume=True, say=said.append)
        assert any("device" in sentence for sentence in said) == (first != second)
        if path == "there" and device.type == pretend.NAME:
            assert sums(tmp_path / path) == sums(tmp_path / "whole")
        close(device, *(RunFolder(tmp_path / p).trajectory().points for p in (path, "whole")))
