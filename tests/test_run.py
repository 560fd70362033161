import json
import math

import pytest
import torch

from trajdesign import plugins
from trajdesign.config import load_config
from trajdesign.errors import InputError, OutputError
from trajdesign.inits.radial import radial
from trajdesign.run import RunFolder, load, to_json


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "a" / "run")
    made.create(load_config(None, ["seed=4"]))
    return made


def test_a_new_folder_has_the_resolved_config(folder):
    assert folder.config() == load_config(None, ["seed=4"])
    with pytest.raises(OutputError, match="--force"):
        folder.create(load_config())
    folder.create(load_config(), overwrite=True)
    assert folder.config().seed == 0


def test_a_folder_that_holds_something_else_is_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create(load_config())
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        RunFolder(tmp_path / "file").create(load_config())


def test_a_run_or_a_file_opens_as_its_trajectory(folder, tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        load(folder.path)
    config = folder.config()
    trajectory = radial(config.acquisition, config.scanner)
    trajectory.save(folder.path / "trajectory.npz")
    assert torch.equal(load(folder.path).k, trajectory.k)
    assert torch.equal(load(str(folder.path / "trajectory.npz")).k, trajectory.k)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none")


def test_a_network_comes_back_and_only_into_its_own_architecture(folder):
    torch.manual_seed(0)
    network = plugins.build("reconstructor", {"kind": "unet"})
    folder.save_network(network)
    other = plugins.build("reconstructor", {"kind": "unet"})
    folder.load_network(other)
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(other.correction(image), network.correction(image))
    for wrong in ({"kind": "unet", "channels": 12}, {"kind": "unet", "levels": 1}, {"kind": "adjoint"}):
        with pytest.raises(InputError, match="cannot read the network") as caught:
            folder.load_network(plugins.build("reconstructor", wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="none"):
        folder.load_network(network, "none")
    whole = (folder.path / "network.safetensors").read_bytes()
    for damaged in (b"", whole[:100], whole[:-4], b"\xff" * 100):
        (folder.path / "network.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read the network"):
            folder.load_network(network)


def test_metrics_are_strict_json(folder):
    folder.write_metrics({"a": math.nan, "b": [math.inf, 1.5, (2, -math.inf)], "c": {"d": None, "e": "ü"}})
    assert folder.metrics() == {"a": None, "b": [None, 1.5, [2, None]], "c": {"d": None, "e": "ü"}}
    assert "NaN" not in (folder.path / "metrics.json").read_text()
    assert json.loads(to_json([math.nan])) == [None]
    for text in ("", "{", "\xff"):
        (folder.path / "metrics.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"metrics\.json"):
            folder.metrics()


def test_history_is_a_table(folder):
    folder.write_history([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert (folder.path / "history.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
