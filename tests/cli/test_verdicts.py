"""No false "ok": every option of the scanner counts or is refused, and files say whose gradients they hold."""

import json
import math
import re
import shlex
import shutil
import sys
from dataclasses import replace

import h5py
import ismrmrd
import numpy as np
import pypulseq as pp
import pytest

from trajdesign import export, load
from trajdesign.acquisition import Acquisition
from trajdesign.cli import app
from trajdesign.config import models
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner, told_nucleus
from trajdesign.trajectories.inits.file import file as from_file
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectories.loading import load_sampled
from trajdesign.units import GAMMA, nucleus_of

SMALL = Acquisition((0.22, 0.22), (32, 32), 4, 300, 4e-6)
SODIUM = Scanner(nucleus="23Na")


@pytest.fixture
def trajdesign(capsys, monkeypatch):
    """Run the command line; return its exit code, standard output and standard error."""

    def run(*words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["trajdesign", *map(str, words)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A spiral that is as fast as the slew limit of 200 T/m/s lets it be."""
    path = tmp_path_factory.mktemp("ours") / "ours.npz"
    spiral(SMALL, Scanner()).save(path)
    return path


@pytest.fixture(scope="module")
def written(ours):
    """The same as a Pulseq and as a NeuroSpin file."""
    export(load(ours), ours.with_suffix(".seq"))
    export(load(ours), ours.with_suffix(".bin"), format="neurospin", overwrite=True)
    return ours


def site(folder, text):
    path = folder / "site.TOML"
    path.write_text(text)
    return path


@pytest.mark.parametrize("ending", [".npz", ".bin", ".seq"])
def test_the_limits_that_are_given_are_those_that_are_checked(trajdesign, written, ending, tmp_path):
    path = written.with_suffix(ending)
    for words in (["--max-slew", "50"], ["--scanner", "max_slew=50"], ["--profile", site(tmp_path, "max_slew = 50")]):
        code, out, _ = trajdesign("check", path, "--json", *words)
        assert (code, json.loads(out)["ok"]) == (4, False), "the spiral needs some 200 T/m/s"
    for words in (["--max-gradient", "0.002"], ["--scanner", "max_gradient=0.002"]):
        assert trajdesign("check", path, *words)[0] == 4
    assert trajdesign("check", path, "--max-slew", "210", "--max-gradient", "0.06")[0] == 0


@pytest.mark.parametrize("ending", [".npz", ".bin"])
def test_nothing_is_exported_beyond_the_limits_that_are_given(trajdesign, written, ending, tmp_path):
    code, _, err = trajdesign("export", written.with_suffix(ending), "--out", tmp_path / "x.seq", "--max-slew", "50")
    assert code == 4
    assert "against 50 T/m/s" in err
    assert list(tmp_path.iterdir()) == []
    code, out, _ = trajdesign("export", written, "--out", tmp_path / "x.seq", "--max-slew", "210")
    assert code == 0
    assert "--max-slew 210.0" in out


@pytest.mark.parametrize("command", [["check"], ["export", "--out", "ge.seq"]])
def test_a_scanner_of_another_raster_cannot_play_it(trajdesign, ours, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = trajdesign(command[0], ours, *command[1:], "--profile", "ge")
    assert code == 2
    assert "was learned on a 10 us gradient raster; ge needs 4 us: learn it again with scanner.profile=ge." in err
    assert list(tmp_path.iterdir()) == []
    radial(replace(SMALL, dwell=5e-6), Scanner()).save(tmp_path / "x.npz")  # sampled 3 us into a raster, or 4
    _, _, err = trajdesign(command[0], tmp_path / "x.npz", *command[1:], "--scanner", "rf_raster=2e-6")
    assert "was learned on a 1 us RF raster; the scanner that is given needs 2 us: learn it again for that." in err


def test_the_rest_of_a_profile_counts(trajdesign, ours, tmp_path):
    path = site(tmp_path, 'profile = "siemens"\nrf_ringdown_time = 500e-6\nlimit_norm = "axis"')
    assert trajdesign("export", ours, "--out", tmp_path / "x.seq", "--profile", path)[0] == 0
    assert (trajdesign("check", ours, "--profile", path)[1].find("axis norm")) > 0
    _, found, _ = trajdesign("check", tmp_path / "x.seq", "--profile", path, "--json")
    [ringdown] = [c for c in json.loads(found)["checks"] if c["name"] == "RF ringdown time"]
    assert ringdown["limit"] == 500e-6
    assert ringdown["verdict"] == "ok"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--matrix", "64"], "--matrix"),
        (["--fov", "0.2"], "--fov"),
        (["--dwell", "4e-6"], "--dwell"),
        (["--k-unit", "1/m"], "--k-unit"),
        (["--nerves", "xrm"], "--nerves"),
        (["--nerve-limit", "0.8"], "--nerve-limit"),
        (["--bands", "500:100"], "--bands"),
        (["--band-limit", "1e-3"], "--band-limit"),
        (["--out", "x.png"], "--out"),
        (["--nucleus", "23Na"], "23Na"),
        (["--scanner", "gamma=11e6"], "11 MHz/T"),
        (["--scanner", "max_slw=3"], "did you mean 'max_slew'"),
        (["--scanner", "max_slew=fast"], "scanner.max_slew"),
        (["--scanner", "max_slew=3", "--max-slew", "3"], "max_slew is given twice"),
    ],
)
def test_options_that_do_not_count_for_ours_are_refused_by_name(trajdesign, ours, words, named):
    code, out, err = trajdesign("check", ours, *words)
    assert (code, out) == (2, "")
    assert named in err


@pytest.mark.parametrize(
    "words",
    [
        ["--ignore", "receiver"],
        ["--matrix", "64"],
        ["--k-unit", "1/m"],
        ["--band-limit", "1e-3"],
        ["--nerve-limit", "0.8"],
    ],
)
def test_options_that_do_not_count_for_a_seq_file_are_refused_by_name(trajdesign, written, words):
    code, out, err = trajdesign("check", written.with_suffix(".seq"), *words)
    assert (code, out) == (2, "")
    assert words[0] in err


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "SEQ", "--out", "o", "--seed", "3"],
        ["psf", "NPZ", "--compare", "NPZ", "--dwell", "4e-6"],
        ["export", "NPZ", "--out", "x.csv", "--format", "csv", "--pulseq-version", "1.4.1"],
        ["export", "NPZ", "--out", "x.bin", "--format", "neurospin", "--sequence", "gre_2d"],
        ["config", "init", "--force"],
        ["config", "schema", "--force"],
    ],
)
def test_options_without_what_they_are_of_are_refused_by_name(trajdesign, written, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"SEQ": written.with_suffix(".seq"), "NPZ": written}
    code, out, err = trajdesign(*(files.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert words[-1 if words[-1].startswith("--") else -2].strip("-").replace("-", "_") in err.replace("-", "_")


def test_a_name_in_capitals_changes_no_verdict(trajdesign, written, tmp_path):
    for ending in (".seq", ".bin", ".npz"):
        shutil.copy(written.with_suffix(ending), tmp_path / f"x{ending.upper()}")
    for ending in (".seq", ".bin", ".npz"):
        for words, right in (([], 0), (["--max-slew", "50"], 4)):
            code, out, _ = trajdesign("check", tmp_path / f"x{ending.upper()}", "--json", *words)
            lower = trajdesign("check", written.with_suffix(ending), "--json", *words)[1]
            assert code == right
            assert {**json.loads(out), "path": ""} == {**json.loads(lower), "path": ""}


@pytest.mark.parametrize("name", ["y.SEQ", "y.NPZ", "y.CFL", "y.Csv", "y.H5", "y.BIN"])
def test_outputs_may_be_in_capitals(ours, name, tmp_path):
    formats = {"seq": "pulseq", "cfl": "bart", "h5": "mrd", "bin": "neurospin"}
    ending = name[2:].lower()
    facts = export(load(ours), tmp_path / name, format=formats.get(ending, ending))
    assert (tmp_path / name).exists()
    assert facts["max_k_error_fov"] < 1e-3


def test_formats_carry_the_nucleus(tmp_path):
    trajectory = spiral(replace(SMALL, dwell=10e-6, n_samples=400), SODIUM)
    for name, format in (
        ("x.seq", "pulseq"),
        ("x.bin", "neurospin"),
        ("x.h5", "mrd"),
        ("x.csv", "csv"),
        ("x.npz", "npz"),
    ):
        export(trajectory, tmp_path / name, format=format, overwrite=True)
    played = pp.Sequence()
    played.read(str(tmp_path / "x.seq"))
    assert played.get_definition("Nucleus") == "23Na"
    assert float(player.read(tmp_path / "x.seq").definitions["Gamma"]) == GAMMA["23Na"]
    with ismrmrd.Dataset(str(tmp_path / "x.h5"), create_if_needed=False) as data:
        header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
    assert header.userParameters.userParameterString[0].value == "23Na"
    assert header.userParameters.userParameterDouble[0].value == GAMMA["23Na"]
    assert header.experimentalConditions.H1resonanceFrequency_Hz == round(3 * GAMMA["1H"])
    assert f"gamma {GAMMA['23Na']:.12g} Hz/T (23Na)" in (tmp_path / "x.csv").read_text()
    with np.load(tmp_path / "x_k.npz") as k:
        assert (str(k["nucleus"]), float(k["gamma_hz_per_t"])) == ("23Na", GAMMA["23Na"])
    for name, most in (("x.seq", 1e-4), ("x.bin", 1e-6), ("x.npz", 1e-12)):
        read = load(tmp_path / name)
        assert read.scanner.nucleus == "23Na"
        assert math.isclose(
            float(read.gradient.norm(dim=-1).max()), float(trajectory.gradient.norm(dim=-1).max()), rel_tol=most
        )


@pytest.fixture(scope="module")
def sodium(tmp_path_factory):
    """A file of 23Na, and the same without its definitions, as older versions wrote it."""
    folder = tmp_path_factory.mktemp("sodium")
    facts = export(spiral(replace(SMALL, dwell=10e-6, n_samples=400), SODIUM), folder / "na.seq")
    lines = (folder / "na.seq").read_text().splitlines(keepends=True)
    silent = [line for line in lines if not line.startswith(("Nucleus", "Gamma"))]
    (folder / "silent.seq").write_text("".join(silent[: silent.index("[SIGNATURE]\n")]))
    return folder, facts


def gradient_of(document):
    [found] = [c["value"] for c in json.loads(document)["checks"] if c["name"] == "gradient vector"]
    return found


def test_check_takes_the_nucleus_of_the_file_or_says_that_it_assumes_one(trajdesign, sodium):
    folder, facts = sodium
    for name, words, source in (
        ("na.seq", [], "file"),
        ("na.seq", ["--nucleus", "23Na"], "file"),
        ("silent.seq", ["--nucleus", "23Na"], "options"),
        ("silent.seq", ["--scanner", f"gamma={GAMMA['23Na']}"], "options"),
        ("silent.seq", [], "assumed"),
    ):
        code, out, err = trajdesign("check", folder / name, "--json", *words)
        assert code == 0, err
        nucleus = "1H" if source == "assumed" else "23Na"
        assert json.loads(out)["nucleus_from"] == source
        assert math.isclose(json.loads(out)["gamma"], GAMMA[nucleus])
        right = facts["max_gradient"] * GAMMA["23Na"] / GAMMA[nucleus]
        assert math.isclose(gradient_of(out), right, rel_tol=1e-9)
    assert "does not say its nucleus; 1H is assumed" in trajdesign("check", folder / "silent.seq")[1]
    assert "assumed" not in trajdesign("check", folder / "na.seq")[1]
    code, _, err = trajdesign("check", folder / "na.seq", "--nucleus", "1H")
    assert code == 2
    assert "is for 23Na (gamma 11.2695 MHz/T), not for 1H (42.5775 MHz/T)" in err


@pytest.mark.parametrize(
    ("value", "hint"),
    [("80", "percent? Then write 0.8."), ("nan", ""), ("-1", ""), ("0", ""), ("1.01", ""), ("inf", "")],
)
def test_a_nerve_limit_that_is_no_part_of_the_limit_is_refused(trajdesign, written, value, hint):
    words = ["--nerves", "xrm", f"--nerve-limit={value}"]
    code, out, err = trajdesign("check", written.with_suffix(".seq"), *words)
    assert (code, out) == (2, "")
    assert "nerve_limit is" in err
    assert hint in err


@pytest.mark.parametrize(("value", "hint"), [("3", "mT/m? Then write 0.003"), ("nan", ""), ("-inf", ""), ("0", "")])
def test_a_limit_of_a_band_that_is_no_gradient_is_refused(trajdesign, written, value, hint):
    words = ["--bands", "500:100", f"--band-limit={value}"]
    code, out, err = trajdesign("check", written.with_suffix(".seq"), *words)
    assert (code, out) == (2, "")
    assert "band_limit is" in err
    assert hint in err


def test_export_writes_the_nucleus_that_it_knows_or_asks_for_it(trajdesign, sodium, tmp_path):
    folder, _ = sodium
    for name, words, source in (
        ("na.seq", [], "file"),
        ("silent.seq", ["--nucleus", "23Na"], "options"),
    ):
        words = [*words, "--ignore", "extent", "--max-gradient", "0.5", "--max-slew", "2000", "--json", "--force"]
        code, out, err = trajdesign("export", folder / name, "--out", tmp_path / "x.seq", *words)
        assert code == 0, err
        assert json.loads(out)["nucleus_from"] == source
        assert json.loads(out)["nucleus"] == load(tmp_path / "x.seq").scanner.nucleus == "23Na"
        assert re.search(r"(?m)^Nucleus 23Na *$", (tmp_path / "x.seq").read_text())
    (tmp_path / "x.seq").unlink()
    (tmp_path / "x_k.npz").unlink()
    np.savez(tmp_path / "k.npz", k=np.zeros((2, 300, 2)) + np.linspace(-40, 40, 300)[None, :, None])
    unit = ["--k-unit", "1/m", "--dwell", "4e-6", "--fov", "0.22"]
    for path, words in ((folder / "silent.seq", ["--ignore", "extent"]), (tmp_path / "k.npz", unit)):
        for name, format in (("x.seq", "pulseq"), ("x.h5", "mrd"), ("x.csv", "csv"), ("x.bin", "neurospin")):
            code, out, err = trajdesign("export", path, "--out", tmp_path / name, "--format", format, *words)
            assert (code, out) == (2, "")
            assert f"{path} does not say its nucleus; give it, as --nucleus 1H" in err
            assert not (tmp_path / name).exists()
    out = trajdesign("check", tmp_path / "k.npz", *unit)[1]
    assert "1H is assumed" in out
    [line] = [line for line in out.splitlines() if line.startswith("  trajdesign export")]
    assert "--nucleus 1H" in line
    assert trajdesign(*shlex.split(line)[1:])[0] == 0
    assert re.search(r"(?m)^Nucleus 1H *$", (tmp_path / "k.seq").read_text())


def test_readers_refuse_another_nucleus_and_a_start_may_be_of_any(sodium, tmp_path):
    path = sodium[0] / "na.seq"
    with pytest.raises(ConfigError, match="is for 23Na"):
        load_sampled(path, scanner=Scanner())
    assert load_sampled(path, scanner=SODIUM)[0].scanner == SODIUM
    assert load(path).scanner.nucleus == "23Na"
    acquisition = replace(SMALL, dwell=10e-6, n_samples=400)
    assert from_file(acquisition, Scanner(), path=str(path)).scanner.nucleus == "1H"
    text = path.read_text().replace("Gamma ", "Gamma -").partition("\n[SIGNATURE]")[0]
    (tmp_path / "x.seq").write_text(text)
    with pytest.raises(InputError, match="Gamma"):
        load(tmp_path / "x.seq")


def test_nuclei_are_told_by_their_gamma():
    for nucleus, gamma in GAMMA.items():
        assert nucleus_of(gamma * 1.0005) == nucleus
        assert told_nucleus("of another program", gamma) == {"nucleus": nucleus, "gamma": gamma}
        assert told_nucleus(nucleus, None) == {"nucleus": nucleus, "gamma": gamma}
    assert nucleus_of(30e6) is None
    assert told_nucleus(None, None) == {}
    for wrong in (("24Xy", None), ("1H", 0.0), (None, 267.5e6), (None, 30e6), ("24Xy", 30e6), ("1H", GAMMA["23Na"])):
        with pytest.raises(ConfigError):
            told_nucleus(*wrong)


def test_a_gamma_that_is_not_of_the_nucleus_beside_it_is_refused(trajdesign, written, tmp_path):
    """60 mT/m for protons, called 50 mT/m with a larger gamma."""
    text = written.with_suffix(".seq").read_text().partition("\n[SIGNATURE]")[0]
    for name, other in (("1H", 1.2 * GAMMA["1H"]), ("1H", GAMMA["23Na"]), ("23Na", GAMMA["1H"]), (None, 9e7)):
        body = re.sub(r"\nNucleus .*", f"\nNucleus {name}" if name else "", text)
        (tmp_path / "x.seq").write_text(re.sub(r"\nGamma .*", f"\nGamma {other:.10g}", body))
        code, _, err = trajdesign("check", tmp_path / "x.seq")
        assert code == 3
        assert f"definitions Nucleus and Gamma: gamma is {other * 1e-6:.6g} MHz/T" in err
    arrays = dict(np.load(written))
    for name, other in (("1H", 9e7), ("23Na", GAMMA["1H"])):
        np.savez(tmp_path / "x.npz", **{**arrays, "nucleus": np.array(name), "gamma_hz_per_t": other})
        code, _, err = trajdesign("check", tmp_path / "x.npz")
        assert code == 3
        assert f"gamma is {other * 1e-6:.6g} MHz/T, and that of the nucleus {name}" in err
    numbers = np.fromfile(written.with_suffix(".bin"), "<f4")
    numbers[7] = 8e7  # after version, axes, field of view, matrix and oversampling
    numbers.tofile(tmp_path / "x.bin")
    code, _, err = trajdesign("export", tmp_path / "x.bin", "--out", tmp_path / "y.seq")
    assert code == 3
    assert "80 MHz/T, that of no known nucleus" in err
    np.save(tmp_path / "k.npy", load(written).k_adc.numpy())
    words = ["--k-unit", "1/m", "--dwell", "4e-6", "--fov", "0.22", "--nucleus", "23Na", "--scanner", "gamma=9e7"]
    code, _, err = trajdesign("check", tmp_path / "k.npy", *words)
    assert code == 2
    assert "gamma is 90 MHz/T, and that of the nucleus 23Na 11.2695 MHz/T" in err


def random_scanner(seed):
    draw = np.random.default_rng(seed)
    table = {
        "profile": str(draw.choice(["siemens", "ge", "multi"])),
        "max_gradient": float(draw.uniform(0.02, 0.08)),
        "max_slew": float(draw.uniform(60, 250)),
        "limit_norm": str(draw.choice(["vector", "axis"])),
        "nucleus": str(draw.choice(list(GAMMA))),
    }
    for time in ("adc_dead_time", "rf_dead_time", "rf_ringdown_time"):
        if draw.random() < 0.5:
            table[time] = float(draw.integers(0, 300)) * 1e-6
    if draw.random() < 0.3:
        table["gamma"] = GAMMA[table["nucleus"]] * float(draw.uniform(0.9995, 1.0005))
    if draw.random() < 0.3:
        table |= {"gradient_raster": 5e-6, "block_raster": 10e-6, "adc_raster": 1e-6, "rf_raster": 1e-6}
    return Scanner(**models.scanner_settings(table))


@pytest.mark.parametrize("seed", range(8))
def test_the_command_that_export_prints_gives_its_verdict_and_numbers(trajdesign, tmp_path, seed):
    scanner = random_scanner(seed)
    radial(replace(SMALL, dwell=8e-6, n_samples=400), scanner).save(tmp_path / "x.npz")
    code, out, err = trajdesign("export", tmp_path / "x.npz", "--out", tmp_path / "x.seq")
    assert code == 0, err
    [line] = [line for line in out.splitlines() if line.startswith("  trajdesign check")]
    code, found, err = trajdesign(*shlex.split(line)[1:], "--json")
    assert code == 0, (line, found, err)
    checks = {check["name"]: check for check in json.loads(found)["checks"]}
    gradient, slew = player.read(tmp_path / "x.seq").extremes(scanner.gamma)
    assert json.loads(found)["gamma"] == scanner.gamma
    assert math.isclose(checks["gradient vector"]["value"], gradient, rel_tol=1e-9)
    assert math.isclose(checks["slew rate vector"]["value"], slew, rel_tol=1e-9)
    assert checks["gradient x"]["limit"] == scanner.max_gradient
    assert checks["slew rate x"]["limit"] == scanner.max_slew
    assert (checks["slew rate vector"]["limit"] is None) == (scanner.limit_norm == "axis")
    assert checks["RF dead time"]["limit"] == scanner.rf_dead_time
    assert checks["RF ringdown time"]["limit"] == scanner.rf_ringdown_time
    assert checks["ADC dead time before"]["limit"] == scanner.adc_dead_time
    assert checks["gradient raster"]["limit"] == scanner.gradient_raster
    assert checks["RF raster"]["limit"] == scanner.rf_raster


def test_the_whole_shots_of_neurospin_are_checked(trajdesign, tmp_path):
    path = tmp_path / "radial.bin"
    export(radial(SMALL, Scanner()), path, format="neurospin")
    assert trajdesign("check", path)[0] == 0
    values = np.fromfile(path, dtype="<f4")
    n_shots, n_cells, n_before = int(values[8]), int(values[9]), int(values[14])
    cells = values[23 + 4 * n_shots :].reshape(n_shots, n_cells, 2)  # of 2D: header of 23, ends of both kinds
    kept = cells.copy()
    for shot, cell in ((1, 3), (2, n_cells - 3)):  # in the prephaser, in the rewinder
        cells[:] = kept
        cells[shot, cell] = [0.0, 12.0]  # times the largest gradient
        if cell < n_before:
            cells[shot, cell + 1] = kept[shot, cell] + kept[shot, cell + 1] - cells[shot, cell]  # where k starts stays
        values.tofile(tmp_path / "x.bin")
        code, out, err = trajdesign("check", tmp_path / "x.bin", "--json")
        assert out, err
        found = json.loads(out)["constraints"]["gradient, whole shot"]
        assert code == 4
        assert not json.loads(out)["ok"]
        assert math.isclose(found["value"], np.linalg.norm(cells, axis=-1).max() * values[11] * 1e-3, rel_tol=1e-6)
        assert found["shot"] == shot
        assert (found["time"] < 0) == (cell < n_before)


@pytest.mark.parametrize(
    ("profile", "dwell", "near"),
    [("ge", 2.5e-6, "2e-06 and 4e-06"), ("siemens", 2.55e-6, "2.5e-06 and 2.6e-06"), ("ge", 1e-6, "nearest is 2e-06")],
)
def test_a_dwell_time_off_the_raster_of_the_receiver_is_refused_at_once(profile, dwell, near, tmp_path, trajdesign):
    tables = {"scanner": {"profile": profile}, "acquisition": {"dwell": dwell}}
    with pytest.raises(ConfigError, match=f"config acquisition.dwell: the dwell time of {dwell:.9g} s .* {near}"):
        models.from_tables(tables)
    scanner = Scanner(**models.scanner_settings(tables["scanner"]))
    trajectory = radial(replace(SMALL, dwell=dwell, n_samples=1200), scanner)
    trajectory.save(tmp_path / "x.npz")
    code, _, err = trajdesign("check", tmp_path / "x.npz")
    assert (code, "ADC raster" in err) == (4, True)
    with pytest.raises(LimitError, match="ADC raster"):
        export(trajectory, tmp_path / "x.seq")
    assert scanner.unplayable(4e-6) == ""


def test_sentences_name_the_file_and_the_table(trajdesign, tmp_path):
    wrong = tmp_path / "run.toml"
    wrong.write_text("fov = 0.22\n")
    code, _, err = trajdesign("config", "show", wrong)
    assert code == 2
    assert f"{wrong}: unknown config key 'fov'; did you mean 'acquisition.fov'?" in err
    assert "run.toml" not in trajdesign("config", "show", "--set", "fov=0.22")[2]
    path = site(tmp_path, "rf_ringdown = 1e-6\n")
    code, _, err = trajdesign("config", "show", "--set", f"scanner.profile={path}")
    assert code == 2
    assert f"{path}: unknown config key 'scanner.rf_ringdown'; did you mean 'rf_ringdown_time'?" in err


def test_raw_data_are_named_as_such(trajdesign, ours, tmp_path):
    export(load(ours), tmp_path / "raw.h5", format="mrd")
    code, _, err = trajdesign("scan", tmp_path / "raw.h5", "--out", tmp_path / "o")
    assert code == 3
    assert "is raw data (HDF5, as ISMRMRD), no Pulseq file" in err
    export(load(ours), tmp_path / "x.seq")
    code, _, err = trajdesign("scan", tmp_path / "x.seq", "--out", tmp_path / "o", "--object", tmp_path / "raw.h5")
    assert code == 3
    assert "holds raw data of ISMRMRD; use data.kind = 'fastmri'" in err
    with h5py.File(tmp_path / "raw.h5") as file:
        assert "dataset" in file


def test_large_voxels_are_asked_about(trajdesign, ours, tmp_path):
    k = load(ours).k_adc.numpy()
    np.save(tmp_path / "k.npy", k)
    words = ["--dwell", "4e-6", "--fov", "0.22", "--k-unit", "1/m"]
    assert "the voxels are large; is the unit right?" in trajdesign("check", tmp_path / "k.npy", *words)[2]
    assert "is the unit right" not in trajdesign("check", tmp_path / "k.npy", *words, "--matrix", "32")[2]


def test_a_working_directory_that_is_gone(trajdesign, ours, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = trajdesign("check", ours)
    assert code == 6
    assert err == "trajdesign: the working directory was removed; change to one that is there.\n"


def test_rasters_that_do_not_nest_are_refused_at_once():
    with pytest.raises(ConfigError, match="gradient raster of 5e-06 s is no multiple of the RF raster of 2e-06 s"):
        models.from_tables({"scanner": {"gradient_raster": 5e-6, "rf_raster": 2e-6}})


def test_a_file_of_bart_says_its_unit(trajdesign, ours, tmp_path):
    wanted = load(ours)
    export(wanted, tmp_path / "k.cfl", format="bart")
    given = ("--dwell", wanted.acquisition.dwell, "--fov", wanted.acquisition.fov[0])
    code, out, _ = trajdesign("check", tmp_path / "k.cfl", *given, "--json")
    assert code == 0
    assert json.loads(out)["matrix"] == list(wanted.acquisition.matrix)
    code, _, err = trajdesign("check", tmp_path / "k.cfl", *given[:2])
    assert code == 2
    assert "does not say its dwell time and field of view; give --dwell (s) and --fov (m) too" in err
    code, _, err = trajdesign("check", tmp_path / "k.cfl", *given, "--k-unit", "1/m")
    assert code == 2
