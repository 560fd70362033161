"""What settings name: files under any name, responses and tables of anything, plug-ins that are none."""

import numpy as np
import pytest
import torch
from attacks.commands import command, require_one_line

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.errors import ConfigError, InputError, ResourceError
from trajdesign.files import lock
from trajdesign.files.atomic import atomic_path
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics.limits import check
from trajdesign.physics.nerves import nerve_model
from trajdesign.scanner import Scanner

FREQUENCY = np.linspace(0, 1e4, 10)


def girf(path, frequency, response, *, gradient=None):
    np.savez(path, frequency_hz=frequency, response=response)
    gradient = torch.linspace(0, 0.01, 20, dtype=torch.float64)[:, None].expand(20, 2) if gradient is None else gradient
    return gradient, plugins.build("response", {"kind": "girf", "path": str(path)}, gradient, 1e-5)


# --- responses ---


@pytest.mark.parametrize(
    ("frequency", "response", "match"),
    [
        (FREQUENCY, np.full((2, 10), "1"), "response is <U1"),
        (FREQUENCY, np.full((2, 10), b"1"), r"response is \|S1"),
        (FREQUENCY, np.ones((2, 10), bool), "response is bool"),
        (FREQUENCY.astype(str), np.ones((2, 10)), "frequency_hz is <U"),
        (FREQUENCY.astype(bytes), np.ones((2, 10)), r"frequency_hz is \|S"),
        (FREQUENCY + 0j, np.ones((2, 10)), "frequency_hz is complex128"),
        (FREQUENCY * 1j, np.ones((2, 10)), "frequency_hz is complex128"),
        (FREQUENCY.astype("c8"), np.ones((2, 10)), "frequency_hz is complex64"),
        (FREQUENCY.astype("M8[s]"), np.ones((2, 10)), "numbers and text"),
        (np.append(FREQUENCY[:-1], np.inf), np.ones((2, 10)), "must rise from 0"),
        (FREQUENCY, np.full((2, 10), np.longdouble("1e4000")), "finite response"),
        (FREQUENCY, np.full((2, 10), 1j * np.longdouble("1e4000")), "finite response"),
        (FREQUENCY.astype(np.longdouble) * np.longdouble("1e4000"), np.ones((2, 10)), "must rise from 0"),
        (FREQUENCY, np.full((2, 10), 100.0), "reaches 100; .* In percent"),
        (FREQUENCY, np.full((2, 10), 1e300 + 1e300j), "reaches 1.41421e"),
        (FREQUENCY, np.ones((2, 3, 10)), "2 axes act and 3 play"),
        (np.array(0.0), np.ones((2, 1)), "must rise from 0"),
        (np.zeros(0), np.ones((2, 0)), "must rise from 0"),
    ],
)
def test_a_response_of_anything_else_than_numbers_is_refused(tmp_path, frequency, response, match):
    with pytest.raises(InputError, match=match) as caught:
        girf(tmp_path / "girf.npz", frequency, response)
    require_one_line(caught.value)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "longdouble", "i1", "u8", "c8", "c16", "clongdouble", ">c16"])
def test_a_response_of_one_in_any_number_changes_nothing(tmp_path, kind):
    at = FREQUENCY if kind in ("c8", "c16", "clongdouble", ">c16") else FREQUENCY.astype(kind if kind != "i1" else "i8")
    gradient, actual = girf(tmp_path / "girf.npz", at, np.ones((2, 10), kind))
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, gradient, rtol=0, atol=1e-15)


# --- names of files ---

NAMES = {"nul": "a\0b", "long": "x" * 5000, "parts": "/".join(["y" * 200] * 30), "nobody": "~nobody-of-this-name/x"}


def settings(key, name):
    """Return the changes that give a name to one of the settings that are paths."""
    if key == "data":
        return {"data": {"kind": "images", "train": [name], "val": [name], "test": [name]}}
    if key == "raw data":
        return {"data": {"kind": "fastmri", "train": [name], "val": [name], "test": [name]}}
    if key == "init":
        return {"init": {"kind": "file", "path": name}}
    if key == "response":
        return {"response": {"kind": "girf", "path": name}}
    options = {"options": {"stimulation": {"model": name}}, "constraints": ["gradient", "slew", "stimulation"]}
    return {"limits": options}


ENDINGS = ["", ".npz", ".npy", ".nii", ".h5", ".cfl", ".csv", ".asc", ".seq"]
PATHS = [(key, end) for key in ("data", "raw data", "init") for end in ENDINGS]
PATHS += [("response", ""), ("response", ".npz"), ("response", ".csv"), ("nerves", ""), ("nerves", ".asc")]


@pytest.mark.parametrize(("key", "ending"), PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_file_can_have_is_one_sentence_and_makes_no_folder(tmp_path, monkeypatch, key, name, ending):
    monkeypatch.chdir(tmp_path)
    words = [f"{table}={toml(value)}" for table, value in settings(key, NAMES[name] + ending).items()]
    small = {"acquisition.matrix": [32, 32], "acquisition.n_shots": 4, "acquisition.n_samples": 128}
    small |= {"acquisition.dwell": 8e-6, "reconstructor.channels": 4, "reconstructor.levels": 1}
    with pytest.raises((InputError, ConfigError)) as caught:
        optimize(load_config(None, [*(f"{k}={v}" for k, v in small.items()), *words]), "run", device="cpu")
    assert caught.value.exit_code in ((2, 3) if key == "nerves" else (3,))
    assert str(caught.value).isprintable() or key == "nerves"
    assert not (tmp_path / "run").exists()


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return '"' + value.replace("\0", "\\u0000") + '"'


@pytest.mark.parametrize("name", ["nul", "long", "parts"])
def test_an_output_that_cannot_be_named_is_a_resource_error(tmp_path, name):
    with pytest.raises(ResourceError, match="cannot write"), atomic_path(tmp_path / NAMES[name]):
        pass
    with pytest.raises(ResourceError, match="cannot write"), lock.one_writer(tmp_path / NAMES[name]):
        pass
    assert list(tmp_path.rglob("*.tmp*")) == []
    with pytest.raises(InputError):
        RunFolder(tmp_path / NAMES[name]).load_network(torch.nn.Linear(1, 1))


def test_a_sequence_of_such_a_name_is_unknown():
    for name in ("nul", "long", "parts"):
        with pytest.raises(ConfigError, match="unknown sequence"):
            plugins.find("sequence", f"{NAMES[name]}.py")


# --- nerves ---


def test_a_table_with_a_negative_share_is_refused(tmp_path):
    """Shares that sum to 1 all the same: -5, 5.5 and 0.5."""
    lines = ["asGPAParameters[0].sGCParameters.flGScaleFactor{0} = 0.35", "flGSWDStimulationLimit{0} = 30"]
    lines += [f"flGSWDTau{{0}}[{i}] = {tau}" for i, tau in enumerate((0.2, 0.03, 3))]
    path = tmp_path / "site.asc"
    for shares, is_right in (
        ((0.4, 0.1, 0.5), True),
        ((0, 0, 1), True),
        ((-5, 5.5, 0.5), False),
        ((1.5, 0, -0.5), False),
    ):
        more = [f"flGSWDA{{0}}[{i}] = {share}" for i, share in enumerate(shares)]
        path.write_text("\n".join(line.format(axis) for axis in "XYZ" for line in lines + more))
        if is_right:
            assert nerve_model(str(path)).x.shares == shares
        else:
            with pytest.raises(InputError, match="none of them negative"):
                nerve_model(str(path))


# --- plug-ins ---

FUTURE = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from collections.abc import Sequence
    from trajdesign.acquisition import Acquisition
    from trajdesign.scanner import Scanner
    from trajdesign.trajectory import Trajectory
from trajdesign.trajectories.inits.radial import radial

def understood(
    acquisition: Acquisition, scanner: Scanner, *, angle: str = "golden", n: int | None = None
) -> Trajectory:
    return radial(acquisition, scanner, angle=angle)

def unknown(acquisition: Acquisition, scanner: Scanner, *, angles: Sequence[float] = ()) -> Trajectory:
    return radial(acquisition, scanner)

def no_type(acquisition, scanner, *, angle: 3 = 3): ...
def broken(acquisition, scanner, *, angle: "float[") : ...

class Understood:
    def __init__(self, initial: Trajectory, *, n: int = 3) -> None: ...
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    name = f"plugin_{tmp_path.name}"  # another one for each test: Python imports a name once
    (tmp_path / f"{name}.py").write_text(FUTURE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_types_for_type_checkers_alone_matter_for_options_alone(plugin):
    table = plugins.resolve("init", {"kind": f"{plugin}:understood", "n": 3})
    assert table == {"kind": f"{plugin}:understood", "angle": "golden", "n": 3}
    with pytest.raises(ConfigError, match=r"init\.n: .*integer"):
        plugins.resolve("init", {"kind": f"{plugin}:understood", "n": "three"})
    acquisition = Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6)
    made = plugins.build("init", {"kind": f"{plugin}:understood"}, acquisition, Scanner())
    wanted = plugins.build("init", {"kind": "radial", "angle": "golden"}, acquisition, Scanner())
    assert torch.equal(made.points, wanted.points)
    assert all(finding.ok for finding in check(made, ["gradient", "slew"]))
    assert plugins.resolve("parameterization", {"kind": f"{plugin}:Understood"})["n"] == 3


@pytest.mark.parametrize("name", ["unknown", "no_type", "broken"])
def test_options_of_a_type_that_is_not_known_are_one_sentence(plugin, name):
    with pytest.raises(ConfigError, match=f"the options of plug-in '{name}' cannot be set") as caught:
        plugins.resolve("init", {"kind": f"{plugin}:{name}"})
    assert "\n" not in str(caught.value)


NONE = ["typing:List", "typing:Dict", "typing:Union", "typing:Optional", "math:pi", "os:environ", "os.path", "os:path",
        "sys:stdout", "builtins:None", "string:ascii_letters", "torch:float32"]  # fmt: skip


@pytest.mark.parametrize("kind", plugins.KINDS)
@pytest.mark.parametrize("name", NONE)
def test_what_is_no_function_or_class_is_no_plugin(kind, name):
    with pytest.raises(ConfigError):
        plugins.resolve(kind, {"kind": name})


@pytest.mark.parametrize("name", ["math:sqrt", "fractions:Fraction", "os:getpid", "json:dumps"])
def test_what_takes_other_arguments_is_no_plugin(name):
    with pytest.raises(ConfigError, match=f"init plug-in '{name}' cannot be called as one"):
        plugins.build("init", {"kind": name}, Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner(), "more")


def test_a_plugin_that_is_none_is_one_sentence_of_the_command():
    for name in ("typing:List", "math:pi"):
        code, out, err = command("config", "show", "--set", f"data.kind={name}")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
