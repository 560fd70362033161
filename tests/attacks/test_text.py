"""Settings, results and tables from strangers."""

import contextlib
import json
import os
import resource

import pytest
import safetensors.torch
import torch
from attacks.commands import command, require_one_line
from attacks.mutants import mutants, taken

from trajdesign.cli.commands.scan import read_off_resonance
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.config.toml import read_toml, to_toml
from trajdesign.errors import InputError
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics.siemens_asc import read_asc


def refusal(read, path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(load_config(None, ["reconstructor.channels=4", "reconstructor.levels=1"]))
    return run


def network(seed=0):
    torch.manual_seed(seed)
    return plugins.build("reconstructor", {"kind": "unet", "channels": 4, "levels": 1})


# --- a gradient system's .asc ---

ASC = "a[0].b = 1.5\nflGSWDTauX[0] = 0.2 # ms\n$INCLUDE part.asc\n"


def test_a_table_reads_its_own_folder_alone_and_no_file_twice(tmp_path):
    path, secret = tmp_path / "own" / "a.asc", tmp_path / "secret.asc"
    path.parent.mkdir()
    secret.write_text("secret = 42\n")
    for name in ("../secret.asc", str(secret), "..\\secret.asc", "x/../../secret.asc", ".", "..", "~/secret.asc"):
        path.write_text(f'a = 1\n$INCLUDE "{name}"\n')
        assert "no others" in refusal(read_asc, path)
    path.write_text("$INCLUDE a.asc\n")
    assert "includes itself" in refusal(read_asc, path)
    for i in range(40):  # each twice the one before, so that there would be no end
        (path.parent / f"{i}.asc").write_text(f"$INCLUDE {i + 1}.asc\n" * 2)
    (path.parent / "40.asc").write_text("x = 1\n")
    assert "included twice" in refusal(read_asc, path.parent / "20.asc")
    for i in range(40):
        (path.parent / f"{i}.asc").write_text(f"$INCLUDE {i + 1}.asc\n")
    assert "more than 32 files" in refusal(read_asc, path.parent / "0.asc")
    os.mkfifo(path.parent / "pipe.asc")
    path.write_text("$INCLUDE pipe.asc\n")
    assert "regular" in refusal(read_asc, path)


def test_a_table_of_hostile_lines_ends(tmp_path):
    path = tmp_path / "a.asc"
    for text in ("$INCLUDE " + " " * 10**6 + '"x', "$INCLUDE " + "a " * 10**6 + '"', "a " + " " * 10**6, "a" * 10**6):
        path.write_text(text)
        with contextlib.suppress(InputError):
            assert read_asc(path) == {}
    path.write_text("a = 1e999\n")
    assert "finite" in refusal(read_asc, path)
    path.write_text("a = " + "1" * 10**6 + ".1.1")
    refusal(read_asc, path)
    with path.open("wb") as stream:
        stream.truncate(2**30)
    assert "at most" in refusal(read_asc, path)


@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.nightly)])
def test_mutants_of_a_table_are_refused_or_numbers(tmp_path, n):
    path = tmp_path / "a.asc"
    for data in mutants(ASC.encode(), n):
        (tmp_path / "part.asc").write_bytes(data.replace(b"part.asc", b"x.asc"))
        path.write_bytes(data)
        try:
            assert all(abs(value) < float("inf") for value in read_asc(path).values())
        except InputError as error:
            require_one_line(error)


# --- a run folder ---


@pytest.mark.parametrize(
    "content",
    [b"a = 1\n" * 2**18, b"a = " + b"[" * 10**5, b"a" + b".a" * 10**5 + b" = 1", b"\xff", b"\0", b"a = 1\na = 2",
     b"a = '\x1b[2J'"],
    ids=["large", "deep", "dotted", "latin", "zero", "twice", "escape"],
)  # fmt: skip
def test_settings_are_refused_in_a_sentence(folder, content):
    (folder.path / "config.toml").write_bytes(content)
    refusal(read_toml, folder.path / "config.toml")


@pytest.mark.parametrize("n", [30, pytest.param(1000, marks=pytest.mark.nightly)])
def test_mutants_of_settings_are_refused_or_settings(folder, n):
    path = folder.path / "config.toml"
    for config in taken(path, mutants(path.read_bytes(), n), lambda _: folder.config(), codes=(2, 3)):
        assert to_toml(config.to_dict())


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"[" * 10**5, b"{" * 10**5, b'{"a": ' * 10**5, b"1" * 10**5, b"\xff\xfe",
     b'{"a": 1' + b" " * 2**23],
    ids=["empty", "list", "null", "deep list", "deep", "deep table", "digits", "bytes", "large"],
)  # fmt: skip
def test_results_are_refused_in_a_sentence(folder, content):
    (folder.path / "metrics.json").write_bytes(content)
    assert "no readable metrics.json" in refusal(lambda _: folder.results(), folder)


@pytest.mark.parametrize(
    "content", [b"", b"stage,step\n", b"stage,step,val_psnr\na,b,c\n", b"stage,step,val_psnr\na\n", b"\0"]
)
def test_a_history_is_refused_or_empty(folder, content):
    (folder.path / "history.csv").write_bytes(content)
    try:
        assert folder.history() == []
    except InputError as error:
        require_one_line(error)


@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.nightly)])
def test_mutants_of_weights_are_refused_or_change_nothing(folder, n):
    saved, fresh, path = network(), network(1), folder.path / "network.safetensors"
    folder.save_network(saved)
    for _ in taken(path, mutants(path.read_bytes(), n), lambda _: folder.load_network(fresh)):
        assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), saved.parameters(), strict=True))


def test_weights_without_a_sum_are_those_of_an_older_version(folder):
    state = {key: value.contiguous() for key, value in network().state_dict().items()}
    (folder.path / "network.safetensors").write_bytes(safetensors.torch.save(state))
    fresh = network(1)
    folder.load_network(fresh)
    assert all(torch.equal(value, state[key]) for key, value in fresh.state_dict().items())


def test_hostile_weights_are_refused(folder):
    path = folder.path / "network.safetensors"
    large = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    overlapping = json.dumps({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "ab"}).encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in (
        b"",
        b"\xff" * 8,
        (10**8 + 1).to_bytes(8, "little") + b"{",
        len(large).to_bytes(8, "little") + large,
        len(overlapping).to_bytes(8, "little") + overlapping + bytes(8),
        (10**5).to_bytes(8, "little") + b"[" * 10**5,
    ):
        path.write_bytes(content)
        assert "cannot read the network" in refusal(lambda _: folder.load_network(network()), path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10, "KiB"


# --- the other files of a command line ---


def test_maps_and_responses_are_walled_in_too(tmp_path):
    path = tmp_path / "map.npy"
    path.write_bytes(b"no array")
    assert "neither a number" in refusal(read_off_resonance, str(path))
    for name in ("a.csv", "a.npz"):
        (tmp_path / name).write_bytes(b"\xff\0" * 100)
        table = {"kind": "girf", "path": str(tmp_path / name)}
        with pytest.raises(InputError):
            plugins.build("response", table, torch.zeros(1, 10, 2), 1e-5)
    for text in ("", "# nothing\n", "0,1,0\n", "a,b,c\n", "0,1\n1,2,3\n"):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(InputError):
            plugins.build("response", {"kind": "girf", "path": str(tmp_path / "b.csv")}, torch.zeros(1, 10, 2), 1e-5)


def test_a_command_names_what_it_cannot_read(tmp_path):
    for name, words in {
        "a.toml": ("optimize", tmp_path / "a.toml", "--out", tmp_path / "run"),
        "a.npz": ("psf", tmp_path / "a.npz", "--out", tmp_path / "x.png"),
        "a.seq": ("scan", tmp_path / "a.seq", "--out", tmp_path / "scan"),
        "run/metrics.json": ("report", tmp_path / "run"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x1b[2J\xff" * 100)
        code, out, err = command(*words)
        assert (code, out, err.count("\n")) == (3, "", 1), err
        assert err[:-1].isprintable()
