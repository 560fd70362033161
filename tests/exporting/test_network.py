"""The program of a run, loaded where there is no trajdesign."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

import trajdesign
from trajdesign import load_config
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding, angular
from trajdesign.errors import ConfigError, InputError, OutputError
from trajdesign.learning.results import Results, StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.trajectories.inits.radial import radial

LOAD = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(*torch.load(sys.argv[2])), sys.argv[3])
assert not any(name.split(".")[0] in ("trajdesign", "finufft", "torchkbnufft", "scipy") for name in sys.modules)
"""
SMALL = [
    "acquisition.matrix=[16,13]",
    "acquisition.fov=[0.2,0.18]",
    "acquisition.n_samples=200",
    "acquisition.n_shots=3",
]


def finished_run(path, *changes):
    """Return a run folder as training leaves it, and its network, with weights that are not those at the start."""
    config = load_config(None, [*SMALL, *changes])
    folder = RunFolder(path)
    folder.create(config)
    torch.manual_seed(0)
    network = plugins.build("reconstructor", config.reconstructor)
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    folder.save_network(network)
    radial(config.acquisition, config.scanner).save(path / "trajectory.npz")
    result = StageResult(1, [], 30.0, 0.9, 0.1, [30.0], [0.9], [0.1])
    folder.write_results(Results("run", {"learned": result}))
    return folder, network.eval()


def measured(trajectory):
    """Return random k-space (batch, coil, shot, sample), and the exact weighted adjoint of it."""
    kspace = torch.randn(3, 5, 3, 200, dtype=torch.complex128, generator=torch.Generator().manual_seed(1)) / 50
    encoding = Encoding(trajectory, normal="toeplitz")
    omega = angular(trajectory)
    x, y = (torch.exp(1j * omega[..., i, None] * (torch.arange(n) - n // 2)) for i, n in enumerate((16, 13)))
    images = torch.einsum("bcsm,sm,smy,smx->bcyx", kspace, encoding.weights.to(kspace), y, x)
    return kspace.to(torch.complex64), images.to(torch.complex64), encoding


@pytest.mark.parametrize(
    ("reconstructor", "coil_maps"),
    [
        (["kind=unet", "levels=1"], "self"),
        (["kind=unrolled", "iterations=1", "steps=1", "levels=0"], "self"),
        (["kind=cg_sense", "iterations=2"], "prescan"),
    ],
)
def test_torch_alone_reconstructs_as_the_run_does(tmp_path, reconstructor, coil_maps):
    changes = [f"reconstructor.{change}" for change in reconstructor]
    folder, network = finished_run(tmp_path / "run", *changes, f"training.coil_maps={coil_maps}")
    kspace, images, encoding = measured(folder.trajectory())
    sizes = torch.tensor([1.0, 3e-9, 7e7])[:, None, None, None]  # as scanners give them
    inputs = [kspace * sizes]
    if coil_maps == "prescan":
        inputs.append(torch.randn(3, 5, 13, 16, dtype=torch.complex64))
        encoding = encoding.with_maps(inputs[1])
    with torch.no_grad():
        wanted = network(images, encoding)

    trajdesign.export_network(folder.path, tmp_path / "network.pt2")
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [str(tmp_path / name) for name in ("network.pt2", "inputs.pt", "image.pt")]
    subprocess.run([sys.executable, "-I", "-c", LOAD, *files], check=True)
    found = torch.load(tmp_path / "image.pt")
    assert found.shape == (3, 1, 13, 16)
    # the program has exact sums where the run has NUFFTs, right to some 1e-5, and an untrained network may add to that
    assert float((found / sizes - wanted).abs().max() / wanted.abs().max()) < 1e-4


def test_the_program_tells_what_it_takes_and_is_not_replaced_unasked(tmp_path):
    folder, _ = finished_run(tmp_path / "run", "reconstructor.kind=adjoint")
    trajdesign.export_network(folder.path, tmp_path / "network.pt2")
    told = {"trajdesign.json": ""}
    torch.export.load(tmp_path / "network.pt2", extra_files=told)
    assert "(batch, coil, shot, sample)" in told["trajdesign.json"]
    with pytest.raises(OutputError, match="exists already"):
        trajdesign.export_network(folder.path, tmp_path / "network.pt2")
    with pytest.raises(ConfigError, match=r"ends in \.pt2"):
        trajdesign.export_network(folder.path, tmp_path / "network.onnx")
    with pytest.raises(ConfigError, match=r"stage is 'fixed'; .* has learned"):
        trajdesign.export_network(folder.path, tmp_path / "other.pt2", stage="fixed")
    with pytest.raises(InputError):
        trajdesign.export_network(tmp_path, tmp_path / "other.pt2")
    assert not (tmp_path / "other.pt2").exists()


@pytest.mark.parametrize(
    "changes",
    [
        ["acquisition.n_frames=2", "acquisition.n_shots=4", "init.kind=planes"],
        ["training.knows_field=true", "field.kind=random"],
    ],
    ids=["film", "known field"],
)
def test_what_a_program_cannot_do_is_refused(tmp_path, changes):
    folder, _ = finished_run(tmp_path / "run", "reconstructor.kind=adjoint", *changes)
    with pytest.raises(ConfigError, match="volumes, films or known static fields"):
        trajdesign.export_network(folder.path, tmp_path / "network.pt2")
    assert not (tmp_path / "network.pt2").exists()


def test_the_weights_are_plain_safetensors(tmp_path):
    folder, network = finished_run(tmp_path / "run")
    weights = safetensors.numpy.load_file(folder.path / "network.safetensors")
    assert weights.keys() == network.state_dict().keys()
    for name, weight in network.state_dict().items():
        np.testing.assert_array_equal(weights[name], weight.numpy())
