"""The device of these tests: one that pretends, or with ``pytest tests/devices --device cuda`` a real one."""

import importlib.machinery
import sys
from types import SimpleNamespace

import pytest
import torch
from devices import pretend, pretend_cufinufft

from trajdesign.encoding import nufft
from trajdesign.runtime import processes

pretend.device()  # before the first backward pass of this process, which counts the devices once and for all


def pytest_addoption(parser):
    parser.addoption("--device", default=pretend.NAME, help="where the tests of devices compute: cuda, cuda:1, ...")


@pytest.fixture
def device(request, monkeypatch):
    """Return the device to compare with the CPU."""
    name = request.config.getoption("--device", pretend.NAME)
    if name != pretend.NAME:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        return processes.torch_device(name)
    found = pretend.device()
    monkeypatch.setattr(torch, "Generator", pretend.Generator)
    known = processes.torch_device
    monkeypatch.setattr(processes, "torch_device", lambda name: found if name == pretend.NAME else known(name))
    pretend_cufinufft.__spec__ = importlib.machinery.ModuleSpec("cufinufft", None)
    monkeypatch.setitem(sys.modules, "cufinufft", pretend_cufinufft)
    # cufinufft is there, and the fastest: times say nothing here
    fastest, there = nufft.fastest, nufft.there
    monkeypatch.setattr(
        nufft, "there", lambda device: (["cufinufft"] if device.type == pretend.NAME else []) + there(device)
    )
    monkeypatch.setattr(
        nufft, "fastest", lambda device: "cufinufft" if device.type == pretend.NAME else fastest(device)
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    return found


@pytest.fixture
def alike(device):
    """Return what holds the numbers of the device against those of the CPU, to 1e-5 of the largest."""
    loosened = 1.0 if device.type == pretend.NAME else 100.0  # a real device rounds otherwise

    def compare(found, expected, tolerance=1e-5):
        assert found.device.type == device.type
        assert found.dtype == expected.dtype
        expected = expected.detach()
        bound = loosened * tolerance * float(expected.abs().max())
        torch.testing.assert_close(found.detach().cpu(), expected, rtol=0, atol=bound)

    return compare
