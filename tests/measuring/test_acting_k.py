"""Under a gradient system that departs from what is played, what was scanned is reconstructed where it was sampled."""

import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.measured import reading
from trajdesign.encoding.nufft import nufft
from trajdesign.errors import ConfigError
from trajdesign.exporting.proof import export
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.measuring import virtual_scan
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.physics.response import Response

N, N_COILS = 32, 4
SETTINGS = [
    f"acquisition.matrix=[{N},{N}]",
    "acquisition.n_shots=6",
    "acquisition.n_samples=400",
    "init.kind=spiral",
    "parameterization.kind=fixed",
    "data.n_train=2",
    "data.n_val=2",
    "data.n_test=3",
    f"data.n_coils={N_COILS}",
    "training.epochs=1",
    "reconstructor.channels=4",
    "reconstructor.levels=1",
]
FREQUENCY = np.arange(0, 50e3 + 1, 50.0)
#: Field, m, and the time constant of its decay, s.
FIELD, TIME = 20e-3, 1e-3


def system(path, *, cross, field, sign=1):
    """Write a response that delays, with cross terms or without, and with a field that decays or without."""
    late = np.exp(-2j * np.pi * FREQUENCY * 5e-6)
    response = (np.array([[1, 0.05, 0], [-0.03, 1, 0], [0, 0, 1]]) if cross else np.eye(3))[..., None] * late**cross
    pole = 2j * np.pi * FREQUENCY * TIME
    b0 = sign * np.array([FIELD, -FIELD / 2, 0])[:, None] * pole / (1 + pole)
    np.savez(path, frequency_hz=FREQUENCY, response=response, **({"b0": b0} if field else {}))
    return {"kind": "girf", "path": str(path)}


def scanned(path, table=None, **sequence):
    """Return the folder of a run under a response, with its file and a virtual scan of it, and the scan."""
    settings = [*SETTINGS, *(f'response.{key}="{value}"' for key, value in (table or {}).items())]
    optimize(load_config(None, settings), path / "run", device="cpu", baseline=False, quiet=True)
    run = RunFolder(path / "run")
    options = {"sequence": {"n_dummies": 2, **sequence}}
    export(run.trajectory(), run.path / "x.seq", options=options, response=run.config().response)
    return path, virtual_scan.scan(run.path / "x.seq", run=run.path, out=path / "scan")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return scanned(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def of_field(tmp_path_factory):
    path = tmp_path_factory.mktemp("field")
    return scanned(path, system(path / "girf.npz", cross=False, field=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return scanned(path, system(path / "girf.npz", cross=True, field=True))


def images(folder, out, **options):
    """Return the image by each reconstruction, and the part of the data that CG-SENSE leaves unexplained."""
    found = reconstruct(folder / "scan" / "raw.h5", run=folder / "run", out=out, **options)
    return {name: image[0, 0] for name, image in found.images.items()}, found.facts.residual["cg_sense"]["total"]


def bare_of(run, path):
    """Return a copy of a run without its file."""
    (bare := path / "run").mkdir()
    for file in run.path.iterdir():
        if file.is_file() and file.suffix != ".seq":
            (bare / file.name).write_bytes(file.read_bytes())
    return bare


def nrmse(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_a_field_that_is_known_leaves_the_image_as_it_is(plain, of_field, tmp_path):
    wanted, _ = images(plain[0], tmp_path / "plain")
    (folder, scan) = of_field
    known, residual = images(folder, tmp_path / "known")
    assert all(nrmse(known[name], wanted[name]) < 1e-5 for name in wanted)
    assert nrmse(scan.image, plain[1].image) < 1e-5
    assert scan.facts["is_of_run"]
    for name, response in (
        ("ignored", {}),
        ("wrong", system(tmp_path / "x.npz", cross=False, field=True, sign=-1)),
    ):
        found, left = images(folder, tmp_path / name, response=response)
        assert nrmse(found["cg_sense"], wanted["cg_sense"]) > 0.1
        assert left > 3 * residual


def test_the_raw_data_are_exact_sums_at_the_k_and_phase_that_act(whole):
    folder, _ = whole
    kept, config = np.load(folder / "run" / "x_k.npz"), RunFolder(folder / "run").config()
    coils = plugins.build("data", config.data, config.acquisition, "test")[1].to(torch.complex128)
    omega = torch.from_numpy(kept["k_actual"]) * (2 * math.pi * config.acquisition.voxel[0])
    exact = nufft(coils, omega.flatten(0, 1)).view(N_COILS, 6, 400).numpy() * np.exp(-1j * kept["phase_actual"])
    raw = reading.read(folder / "scan" / "raw.h5").events.swapaxes(0, 1)
    assert nrmse(raw, exact) < 1e-5
    assert np.ptp(kept["phase_actual"]) > 0.5
    assert np.abs(kept["k_actual"] - kept["k_adc"]).max() * config.acquisition.fov[0] > 0.3


def test_a_known_response_is_as_good_as_samples_at_their_places(whole, tmp_path):
    folder, _ = whole
    kept, raw = np.load(folder / "run" / "x_k.npz"), reading.read(folder / "scan" / "raw.h5").events.swapaxes(0, 1)
    np.save(tmp_path / "still.npy", raw * np.exp(1j * kept["phase_actual"]))
    told = {key: kept[key] for key in kept if key not in ("k_actual", "phase_actual")}
    np.savez(tmp_path / "k.npz", **{**told, "k_adc": kept["k_actual"]})
    wanted = reconstruct(tmp_path / "still.npy", k=tmp_path / "k.npz", out=tmp_path / "wanted").images
    known, residual = images(folder, tmp_path / "known")
    assert all(nrmse(known[name], wanted[name][0, 0]) < 1e-5 for name in wanted)
    np.save(tmp_path / "raw.npy", raw)  # the file beside the export says it too
    by_k = reconstruct(tmp_path / "raw.npy", k=folder / "run" / "x_k.npz", out=tmp_path / "by_k").images
    assert all(nrmse(by_k[name], wanted[name]) < 1e-5 for name in wanted)
    for number, response in enumerate(
        [
            {},
            system(tmp_path / "a.npz", cross=True, field=False),
            system(tmp_path / "c.npz", cross=True, field=True, sign=-1),
        ]
    ):
        found, left = images(folder, tmp_path / str(number), response=response)
        assert nrmse(found["cg_sense"], known["cg_sense"]) > 0.05
        assert left > 2 * residual


def test_averages_with_a_phase_of_their_own_are_put_right(tmp_path):
    (folder, scan) = scanned(tmp_path, system(tmp_path / "x.npz", cross=False, field=True), kind="ute_2d")
    found, _ = images(folder, tmp_path / "out")
    assert nrmse(found["network"], scan.image) < 1e-4
    assert nrmse(scan.image, scan.promised) < 1e-3


def test_without_a_file_the_readout_alone_is_answered(of_field, plain, tmp_path):
    folder, _ = of_field
    raw, run = reading.read(plain[0] / "scan" / "raw.h5").events.swapaxes(0, 1), RunFolder(folder / "run")
    bare = bare_of(run, tmp_path)
    phase = Response(run.config().response).phase(run.trajectory()).numpy()
    np.save(tmp_path / "x.npy", raw * np.exp(-1j * phase))
    wanted, _ = images(plain[0], tmp_path / "wanted")
    found = reconstruct(tmp_path / "x.npy", run=bare, out=tmp_path / "found").images
    assert all(nrmse(found[name][0, 0], wanted[name]) < 1e-5 for name in wanted)


def test_a_response_that_the_run_does_not_know_is_scanned_under_and_shows(plain, whole, tmp_path):
    folder, wanted = whole
    given = {"kind": "girf", "path": str(folder / "girf.npz")}
    run = plain[0] / "run"
    facts = virtual_scan.scan(run / "x.seq", run=run, out=tmp_path / "scan", response=given).facts
    # the start is the same, and was not learned: so the samples are those of the run that knows the response
    ours, theirs = (reading.read(path / "scan" / "raw.h5").events for path in (tmp_path, folder))
    assert nrmse(ours, theirs) < 1e-6
    assert (facts["is_of_run"], facts["departure"], facts["response"]) == (True, None, given)
    assert "the response that is given moves k by up to" in facts["remark"]
    assert facts["nrmse_to_promised"] > 0.1 > wanted.facts["nrmse_to_promised"]
    alone = virtual_scan.scan(run / "x.seq", out=tmp_path / "alone", response=given)  # k and phase are then known
    ignored = virtual_scan.scan(run / "x.seq", out=tmp_path / "ignored")
    assert alone.facts["image"]["psnr"] == pytest.approx(ignored.facts["image"]["psnr"], abs=2)


def test_the_command_names_a_response_and_its_options(whole, tmp_path):
    folder, _ = whole
    command = ["reconstruct", str(folder / "scan" / "raw.h5"), "--seq", str(folder / "run" / "x.seq"), "--out"]
    by_name = ["--response", "girf", "--set", f'response.path="{folder / "girf.npz"}"']
    result = CliRunner().invoke(app, [*command, str(tmp_path / "a"), *by_name])
    assert result.exit_code == 0, result.output
    assert "response is girf" in result.output
    found = np.load(tmp_path / "a" / "image.npz")["cg_sense"]
    wanted, _ = images(folder, tmp_path / "wanted")
    assert nrmse(found[0, 0], wanted["cg_sense"]) < 1e-5
    for number, (more, words) in enumerate(
        [
            (["--set", "response.path=x"], "give --response too"),
            (["--response", "none", "--set", "response.path=x"], "give --response too"),
            (["--response", "girf", "--set", "path=x"], "response.OPTION=V"),
            (["--response", "griff"], "unknown response"),
            (["--response", "girf"], "response.path"),
        ]
    ):
        result = CliRunner().invoke(app, [*command, str(tmp_path / f"b{number}"), *more])
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)
    with pytest.raises(ConfigError, match="response: k of this kind"):
        reconstruct(folder / "scan" / "raw.h5", k=folder / "run" / "x_k.npz", response={}, out=tmp_path / "c")


#: Far from the isocentre of a weak magnet, so that the small object of these tests shows it.
AWAY = {"kind": "concomitant", "tesla": 0.5, "position": [0.0, 0.0, 0.3], "axes": [0.8, 0, -0.6, 0, 1, 0]}


def test_concomitant_fields_are_scanned_and_reconstructed(plain, tmp_path):
    folder, _ = plain
    run = folder / "run"
    facts = virtual_scan.scan(run / "x.seq", run=run, out=tmp_path / "scan", response=AWAY).facts
    assert "linear over the slice" in facts["remark"]
    assert facts["left_out_rad"] > 0.1
    wanted, _ = images(folder, tmp_path / "wanted")
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=run, out=tmp_path / "known", response=AWAY)
    told = reconstruct(tmp_path / "scan" / "raw.h5", run=run, out=tmp_path / "told")
    known, ignored = (nrmse(one.images["cg_sense"][0, 0], wanted["cg_sense"]) for one in (found, told))
    assert known < 0.02 < 10 * known < ignored
    sentences = [[w for w in one.facts.warnings if "linear over the slice" in w] for one in (found, told)]
    assert [len(one) for one in sentences] == [1, 0]


def test_slices_at_their_places_are_each_reconstructed_there(plain, tmp_path):
    folder, _ = plain
    axial, run = {**AWAY, "axes": [1, 0, 0, 0, 1, 0]}, RunFolder(folder / "run")
    options = {"sequence": {"kind": "gre_2d", "n_slices": 3, "slice_gap": 40e-3}}
    facts = export(run.trajectory(), tmp_path / "x.seq", options=options, response=axial)
    assert "remark" not in facts  # in an axial slice the field is the same everywhere
    virtual_scan.scan(tmp_path / "x.seq", run=run.path, out=tmp_path / "scan", response=axial)
    virtual_scan.scan(tmp_path / "x.seq", run=run.path, out=tmp_path / "plain")
    raw, still = (reading.read(tmp_path / name / "raw.h5").events for name in ("scan", "plain"))
    assert nrmse(raw, still) > 0.1
    options = {"run": run.path, "seq": tmp_path / "x.seq"}
    wanted = reconstruct(tmp_path / "plain" / "raw.h5", out=tmp_path / "a", **options).images["cg_sense"][0]
    found = reconstruct(tmp_path / "scan" / "raw.h5", out=tmp_path / "b", response=axial, **options).images["cg_sense"][
        0
    ]
    assert len(found) == 3
    assert all(nrmse(found[i], wanted[i]) < 0.01 for i in range(3))
    by_slices = np.moveaxis(raw.reshape(3, 6, N_COILS, 400), 2, 1)
    np.save(tmp_path / "raw.npy", by_slices)
    with pytest.raises(ConfigError, match="k of the first slice alone, and concomitant fields differ among the 3 that"):
        reconstruct(tmp_path / "raw.npy", k=facts["k_path"], out=tmp_path / "c")
    np.save(tmp_path / "one.npy", by_slices[0])
    assert len(reconstruct(tmp_path / "one.npy", k=facts["k_path"], out=tmp_path / "d").images["cg_sense"][0]) == 1
    bare = reconstruct(tmp_path / "raw.npy", run=bare_of(run, tmp_path), out=tmp_path / "e", response=axial)
    assert any("taken as those of one slice" in sentence for sentence in bare.facts.warnings)
