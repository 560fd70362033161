"""The doctor finds what is missing and what computes wrong."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from trajdesign.cli import doctor
from trajdesign.config import plugins
from trajdesign.encoding import nufft

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def bare(requirements):
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The package as the project's file describes it, whatever is installed beside these tests."""
    extras = PROJECT["optional-dependencies"]
    wanted = [f'{text}; extra == "{extra}"' for extra, texts in extras.items() for text in texts]
    monkeypatch.setattr(metadata, "requires", lambda _: [*PROJECT["dependencies"], *wanted])


def test_everything_is_well_here():
    findings = doctor.examine()
    assert not [finding for finding in findings if finding.verdict in ("missing", "failed")]
    packages = {finding.name for finding in findings if finding.kind == "package"}
    assert packages >= bare(PROJECT["dependencies"]) | {"cufinufft", "sigpy"}
    assert not packages & {"pytest", "ruff", "sphinx"}
    tests = [finding for finding in findings if finding.kind == "test"]
    for name in nufft.there(torch.device("cpu")):
        assert len([test for test in tests if name in test.name]) == 3
    assert len(tests) >= 9


def test_what_is_missing_and_what_brings_it(monkeypatch):
    version = metadata.version

    def without(name):
        if name in ("finufft", "sigpy"):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert (findings["finufft"].verdict, findings["finufft"].remedy) == ("missing", "pip install finufft")
    assert (findings["sigpy"].verdict, findings["sigpy"].remedy) == ("absent", 'pip install -e ".[espirit]"')
    assert "device" not in {finding.kind for finding in findings.values()}, "nothing is imported without all packages"


def test_a_transform_that_is_wrong_fails(monkeypatch):
    finufft = nufft.KERNELS["finufft"]
    monkeypatch.setitem(
        nufft.KERNELS, "finufft", lambda kind, *given: finufft(kind, *given) * (1.001 if kind == 2 else 1)
    )
    failed = {finding.name.split(",")[0] for finding in doctor.examine() if finding.verdict == "failed"}
    assert failed == {"NUFFT", "gradient to k"}


def test_a_test_that_cannot_run_fails_and_says_why(monkeypatch):
    def broken(*_, **__):
        raise ValueError("no such thing")

    monkeypatch.setattr(plugins, "build", broken)
    failed = [finding for finding in doctor.examine() if finding.verdict == "failed"]
    assert [finding.name.split()[0] for finding in failed] == ["slew", "k"]
    assert {finding.value for finding in failed} == {"ValueError: no such thing"}


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("MPLCONFIGDIR", str(file / "below"))
    [cache] = [finding for finding in doctor._folders() if "matplotlib" in finding.name]
    assert (cache.verdict, "MPLCONFIGDIR" in cache.remedy) == ("absent", True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    [temporary] = [finding for finding in doctor._folders() if finding.name == "temporary files"]
    assert (temporary.verdict, "TMPDIR" in temporary.remedy) == ("missing", True)
