"""Stacks of partitions: a small volume, sampled by exact sums at the k of a file, against each slice by itself."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.data.measured.shapes import of_array
from trajdesign.errors import InputError
from trajdesign.exporting.proof import export
from trajdesign.measuring import assignment, partitions
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.response import phase_of_file
from trajdesign.scanner import Scanner

N, FOV, N_COILS, N_SHOTS, THICKNESS = 12, 0.2, 2, 6, 3e-3
ACQUISITION = Acquisition((FOV, FOV), (N, N), N_SHOTS, 100, 10e-6)


@pytest.fixture(scope="module", params=[6, 5])
def stack(request, tmp_path_factory):
    """Return a folder with a file of so many partitions and a noise scan, and a volume (coil, z, y, x)."""
    path, n = tmp_path_factory.mktemp("stack"), request.param
    radial = plugins.build("init", {"kind": "radial"}, ACQUISITION, Scanner())
    sequence = {"kind": "gre_3d", "n_partitions": n, "partition_thickness": THICKNESS, "n_dummies": 1}
    export(radial, path / "x.seq", options={"sequence": {**sequence, "noise_scan": True}})
    rng = np.random.default_rng(n)
    volume = rng.uniform(0.2, 1.0, (1, n, N, N)) * np.exp(2j * rng.uniform(0, 1, (N_COILS, 1, 1, 1)))
    return path, volume, player.read(path / "x.seq")


def sampled(volume, k):
    """Return k-space (coil, ...) of a volume (coil, z, y, x) at k (..., 3), 1/m, by exact sums."""
    steps = (FOV / N, FOV / N, THICKNESS)
    x, y, z = (
        np.exp(-2j * np.pi * k[..., axis, None] * (np.arange(n) - n // 2) * steps[axis])
        for axis, n in enumerate(volume.shape[:0:-1])
    )
    return np.einsum("czyx,...z,...y,...x->c...", volume, z, y, x, optimize=True)


def measured(file, volume, noise=0.0):
    """Return what the events of a file sample (coil, event, sample), in the order of playing; the first is noise."""
    k = np.stack([np.nan_to_num(one) for one in file.k])
    data = sampled(volume, k)
    data[:, 0] = 0
    drawn = np.random.default_rng(0).standard_normal((2, *data.shape))
    return (data + noise * (drawn[0] + 1j * drawn[1])).astype(np.complex64)


def test_a_stack_gives_each_slice_as_its_own_data_do(stack, tmp_path):
    path, volume, file = stack
    n = volume.shape[1]
    np.save(tmp_path / "x.npy", measured(file, volume))
    found = reconstruct(tmp_path / "x.npy", seq=path / "x.seq", out=tmp_path / "out")
    flat = np.stack(file.k[1 : 1 + N_SHOTS]) * [1, 1, 0]
    np.save(tmp_path / "y.npy", np.stack([sampled(volume[:, [i]], flat) for i in range(n)]).astype(np.complex64))
    np.savez(tmp_path / "y_k.npz", k_adc=flat[..., :2], fov_m=[FOV, FOV], matrix=found.facts.matrix, dwell_s=10e-6)
    wanted = reconstruct(tmp_path / "y.npy", k=tmp_path / "y_k.npz", out=tmp_path / "wanted")
    for name, images in wanted.images.items():
        assert found.images[name].shape == images.shape
        assert np.linalg.norm(found.images[name] - images) < 1e-4 * np.linalg.norm(images)
    assert found.facts.n_slices == n
    file = nibabel.load(tmp_path / "out" / "adjoint.nii")
    assert file.affine[:3, 2] == pytest.approx([0, 0, 1e3 * THICKNESS], abs=1e-3)
    assert (file.affine @ [0, 0, n // 2, 1])[2] == pytest.approx(0, abs=1e-3)


def test_the_noise_of_a_slice_is_the_mean_of_that_of_all_partitions(stack, tmp_path):
    path, volume, file = stack
    n, data, noise = volume.shape[1], measured(file, volume), measured(file, 0 * volume, 5.0)
    np.save(tmp_path / "x.npy", data + noise)
    found = reconstruct(tmp_path / "x.npy", seq=path / "x.seq", out=tmp_path / "out")
    assert found.facts.prewhitened
    # the transform is unitary but for 1 / sqrt(n): parts of the data are what they were
    wanted = np.linalg.norm(noise[:, 1:]) / np.linalg.norm((data + noise)[:, 1:])
    assert found.facts.noise == pytest.approx(wanted, rel=0.1)
    assert n > 1


def test_each_partition_loses_the_phase_of_its_own_field(stack, tmp_path):
    """The field at the isocentre that the gradient along z leaves behind differs between partitions."""
    path, volume, file = stack
    frequency = np.linspace(0, 60e3, 601)
    field = 5e-4 / (1 + 2j * np.pi * frequency * 2e-3) * (2j * np.pi * frequency * 2e-3)  # an eddy current of 2 ms, m
    response, none = np.ones((3, 601), complex), np.zeros(601)
    np.savez(tmp_path / "girf.npz", frequency_hz=frequency, response=response, b0=np.stack([none, none, field]))
    table = {"kind": "girf", "path": str(tmp_path / "girf.npz")}
    phases = [np.nan_to_num(one) for one in phase_of_file(file, Response(table))]
    middle = np.array([one[50] for one in phases[1:]]).reshape(volume.shape[1], N_SHOTS)
    assert np.ptp(middle, axis=0).min() > 0.1
    data = measured(file, volume)
    for name, samples, given in (("off", data * np.exp(-1j * np.stack(phases)), table), ("plain", data, {})):
        np.save(tmp_path / f"{name}.npy", samples.astype(np.complex64))
        reconstruct(tmp_path / f"{name}.npy", seq=path / "x.seq", out=tmp_path / name, response=given)
    off, plain = (np.load(tmp_path / name / "image.npz")["adjoint"] for name in ("off", "plain"))
    assert np.linalg.norm(off - plain) < 1e-3 * np.linalg.norm(plain)


def test_partitions_of_an_array_are_in_the_order_of_its_shape(stack):
    path, volume, file = stack
    data = measured(file, volume)
    raw = of_array(path / "x.npy", data[None, None], "array")
    played = assignment.by_sequence(raw, file, path / "x.seq", ACQUISITION)
    shaped = data[:, 1:].reshape(N_COILS, 1, volume.shape[1], N_SHOTS, -1).transpose(1, 2, 0, 3, 4)
    ordered = assignment.by_sequence(of_array(path / "x.npy", shaped, "array"), file, path / "x.seq", ACQUISITION)
    assert torch.equal(played.kspace, ordered.kspace)
    assert played.stack.thickness == pytest.approx(THICKNESS, rel=1e-6)


def test_several_slabs_are_refused(stack):
    path, _, file = stack
    labels = {**file.labels, "SLC": np.arange(len(file.adcs))}
    with pytest.raises(InputError, match="of several slabs"):
        partitions.as_slices(replace(file, labels=labels), np.arange(len(file.adcs)) > 0, path / "x.seq")


def heights(values, turn=0.0, tilt=0.0):
    """Return a stand-in for a file: partitions at k along z of some steps, the last one turned in plane, or tilted."""
    ends = np.linspace(-1, 1, 8)
    k = [np.stack([40 * ends, 0 * ends, 30.0 * z + 0 * ends], axis=1) for z in values]
    k[-1] = k[-1] + np.stack([0 * ends, turn * ends, tilt * ends], axis=1)
    return SimpleNamespace(k=k)


def test_the_order_of_playing_does_not_matter():
    played = heights([1, -2, 0, -1])
    found = partitions.stack_of(played, [np.array([[i]]) for i in range(4)], ACQUISITION, Path("x.seq"))
    assert found.numbers.tolist() == [1, -2, 0, -1]
    assert found.thickness == pytest.approx(1 / 120)


@pytest.mark.parametrize(
    ("played", "words"),
    [
        (heights([0, 0, 0, 0]), "not even steps from -2 on"),
        (heights([-1, 0, 1, 2]), "not even steps from -2 on"),
        (heights([-2, -1, 0, 3]), "not even steps"),
        (heights([-2, -1, -1, 1]), "not even steps"),
        (heights([-2, -1, 0, 1], turn=1.0), "other k in plane in its partitions"),
        (heights([-2, -1, 0, 1], tilt=1.0), "steps from where it should be"),
    ],
)
def test_what_is_no_stack_is_refused(played, words):
    with pytest.raises(InputError, match=words):
        partitions.stack_of(played, [np.array([[i]]) for i in range(4)], ACQUISITION, Path("x.seq"))
