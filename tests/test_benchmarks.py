"""Every benchmark runs on a tiny problem, ours agree with each other, and the results are written. Nothing is timed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_study
import torch

from benchmarks import (
    common,
    exporting,
    first_light,
    foreign,
    girf,
    in_vivo,
    lines,
    memory,
    peers,
    physics,
    planted,
    retiming,
    roofline,
    scaling,
    step,
    tables,
)
from trajdesign.acquisition import Acquisition
from trajdesign.data.sources.phantom import phantom
from trajdesign.encoding.operator import Encoding
from trajdesign.reconstruction.reconstructors.cg_sense import CGSense
from trajdesign.scanner import Scanner
from trajdesign.studies import study, training
from trajdesign.trajectories.inits.cartesian import cartesian

OURS = ["ours", "ours, toeplitz", "ours, chain"]


def written(folder, name):
    result = json.loads((folder / f"{name}.json").read_text())
    assert (folder / f"{name}.md").read_text().startswith("| ")
    assert set(result) >= {"command", "machine", "columns", "rows"}
    assert result["machine"]["cpu"]
    # torch adds the build to its version where the package does not
    assert torch.__version__.startswith(result["machine"]["packages"]["torch"])
    return result


def test_ours_agree_in_a_physics_step(tmp_path):
    rows = physics.main(
        ["--quick", "--out", str(tmp_path), "--ways", *OURS, "torchkbnufft", "torchkbnufft, coil by coil"]
    )
    assert [row["way"] for row in rows[:3]] == OURS
    for row in rows:
        bound = 1e-3 if "kb" in row["way"] else 2e-4
        assert row["image_difference"] < bound
        assert row["gradient_difference"] < bound
        assert row["min_s"] <= row["median_s"] <= row["max_s"]
        assert len(row["all_s"]) == 2
    assert written(tmp_path, "physics")["rows"] == json.loads(json.dumps(rows))


def test_what_is_exported_is_proven_in_both_formats(tmp_path):
    rows = exporting.main(["--quick", "--out", str(tmp_path)])
    assert {(row["pattern"], row["version"]) for row in rows} == {
        (pattern, version) for pattern in exporting.PATTERNS for version in ("1.5.0", "1.4.1")
    }
    assert all(0 < row["max_k_error_fov"] < 1e-5 for row in rows)
    assert written(tmp_path, "exporting")["rows"] == json.loads(json.dumps(rows))


@pytest.mark.parametrize("image_gradient", [False, True])
def test_convolution_and_chain_give_one_gradient_in_double_precision(image_gradient):
    problem = common.build(common.Size(32, 4, 64, 2, 3)).double()
    found = [
        peers.step(peers.Ours(problem.weights, normal), problem, 1, image_gradient) for normal in ("toeplitz", "chain")
    ]
    for one, other in zip(*found, strict=True):
        assert common.difference(one, other) < 1e-10


def test_a_way_that_would_take_too_long_is_left_out_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(physics, "LONGEST", 0.0)
    rows = physics.main(["--quick", "--out", str(tmp_path), "--ways", "ours", "--name", "none"])
    assert "would take" in rows[0]["note"]
    assert "median_s" not in rows[0]
    assert "skipped ours" in capsys.readouterr().out
    assert written(tmp_path, "none")["rows"][0]["note"] == rows[0]["note"]


def test_a_peer_that_is_not_installed_is_skipped_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(peers.MriNufft, "requires", "no_such_package")
    assert peers.available(["ours", "mri-nufft"]) == ["ours"]
    assert "skipped mri-nufft: no_such_package is not installed" in capsys.readouterr().out


def test_the_grid_is_that_of_the_readme():
    sizes = list(physics.grid(common.Size()))
    assert len(sizes) == len(set(sizes)) == 81
    assert {size.matrix for size in sizes} == {128, 256, 320}


def test_training_steps_start_at_one_loss(tmp_path):
    rows = step.main(["--quick", "--out", str(tmp_path)])
    assert [row["way"] for row in rows] == list(step.TRAINERS)
    for row in rows:
        assert len(row["losses"]) == 3
        assert row["loss_difference"] < 1e-3
    written(tmp_path, "step")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process")
def test_memory_counts_what_a_step_takes(tmp_path):
    # in a process of its own, as the benchmark measures: one that has freed much takes memory which it still holds
    ask = "import torch; from benchmarks import memory; print(memory.peak(lambda: torch.ones(2**24), 'cpu'))"
    result = subprocess.run(
        [sys.executable, "-c", ask], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert 0.9 < int(result.stdout) / torch.zeros(2**24).nbytes < 1.5
    rows = memory.main(["--quick", "--out", str(tmp_path), "--ways", "ours, toeplitz", "training: ours"])
    assert [(row["step"], row["way"]) for row in rows] == [("physics", "ours, toeplitz"), ("training", "ours")]
    assert all(row["peak_mib"] > 0 for row in rows)
    written(tmp_path, "memory")


def test_scaling_draws_its_plot(tmp_path):
    rows = scaling.main(["--quick", "--out", str(tmp_path)])
    assert [row["series"] for row in rows] == ["coils"] * 2 + ["batch"] * 2 + ["shots"] * 2
    assert [row["ratio"] is None for row in rows] == [True, False] * 3
    assert (tmp_path / "scaling.png").stat().st_size > 0
    written(tmp_path, "scaling")


def test_roofline_counts_and_measures(tmp_path):
    rows = roofline.main(["--quick", "--out", str(tmp_path)])
    assert {row["what"] for row in rows} >= {
        "physics step: FFTs",
        "ceiling: FFT, torch",
        "ceiling: copy",
        "ceiling: GEMM",
    }
    written(tmp_path, "roofline")
    # forward and back to the trajectory: of each of the four halves 256 FFTs of 256 points along either axis
    small, large = (roofline.count(common.Size(256, 16, 1000, coils, 8), False)["fft_flops"] for coils in (1, 2))
    assert large - small == pytest.approx(8 * 2 * 8 * 256 * (5 * 256 * 8))


def test_tables_fill_the_blocks_of_the_readme(tmp_path):
    physics.main(["--quick", "--out", str(tmp_path), "--ways", "ours"])
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- table: physics -->\nold\n<!-- /table -->\nb\n<!-- table: none -->\n<!-- /table -->\n")
    for _ in range(2):
        tables.fill(readme, tmp_path)
        text = readme.read_text()
        assert "old" not in text
        assert text.count("| ours |") == 1
        assert text.startswith("a\n<!-- table: physics -->\n| size |")
        assert "Not measured yet." in text


_SCRIPT = """
import pypulseq as pp
system = pp.Opts(max_grad=20, grad_unit="mT/m", max_slew=100, slew_unit="T/m/s", rf_dead_time=1e-4)
sequence = pp.Sequence()
sequence.set_definition("FOV", [0.2, 0.2, 0.2])
def main(plot, write_seq):
    sequence.add_block(pp.make_block_pulse(0.1, duration=1e-3, delay=1e-4, use="excitation", system=system))
    gx = pp.make_trapezoid("x", flat_area=64 / 0.2, flat_time=0.64e-3, system=system)
    sequence.add_block(gx, pp.make_adc(64, duration=0.64e-3, delay=gx.rise_time, system=system))
    sequence.write("never.seq")
"""


def test_foreign_files_are_judged_by_the_limits_of_their_scripts(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "MRI_NUFFT", "no_such_package")
    (tmp_path / "notes.txt").write_text("no script\n")
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    rows = foreign.main([str(tmp_path), "--out", str(tmp_path / "out")])
    for row, version in zip(rows, foreign.FORMATS, strict=True):
        said = [row[key] for key in ("file", "version", "n_blocks", "ours", "check_timing")]
        assert said == ["script.py", version, 2, "ok", "passed"]
        assert max(row["k_fov"], row["maxima"]) < 1e-6
    result = json.loads((tmp_path / "out" / "foreign.json").read_text())
    assert result["rows"] == rows
    assert all("broken" in fault["ours"] or "warning" in fault["ours"] for fault in result["faults"])
    assert (tmp_path / "out" / "foreign.md").read_text().startswith("| file |")
    # the limits that count are made last, and the sequence does not keep these
    script.write_text(_SCRIPT.replace("    sequence.w", "    pp.Opts(max_slew=50, slew_unit='T/m/s')\n    sequence.w"))
    assert [row["ours"] for row in foreign.examine(str(script))] == 2 * ["broken: slew rate x"]


def test_random_paths_are_retimed_without_a_violation(tmp_path):
    rows = [row for row in retiming.main(["--quick", "--out", str(tmp_path)]) if row["way"] != "MRArbGrad"]
    assert [row["paths"] for row in rows[::2]] == ["2 smooth, 2D", "2 any, 2D", "2 smooth, 3D", "2 any, 3D"]
    for row in rows:
        assert row["broken"] == 0
        assert row["max_end"] < 1e-9
        assert row["max_off"] < (1e-2 if "0.01" in row["way"] else 1e-3)
        assert row["median_over"] > 0
    assert written(tmp_path, "retiming")["columns"] == retiming.COLUMNS


def test_what_is_no_sequence_says_why(tmp_path):
    script, damaged = tmp_path / "script.py", tmp_path / "damaged.seq"
    damaged.write_text("[VERSION]\n")
    assert foreign.examine(str(damaged))[0]["ours"].startswith("refused: the format version is")
    for text, why in (("assert 1 > 2\n", "AssertionError `assert 1 > 2`"), ("", "ValueError it writes no sequence")):
        script.write_text(text)
        assert [row["ours"] for row in foreign.examine(str(script))] == [f"the script stops: {why}"]


def test_the_scanner_page_has_the_tables_of_foreign_files():
    page = (tables.READMES[1].parent / "docs" / "scanner.md").read_text()
    assert (common.RESULTS / "foreign.md").read_text() in page


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process")
def test_first_light_goes_through_all_that_a_device_has_to_show(tmp_path):
    assert first_light.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "first_light.json").read_text())
    assert result["ok"] is True
    assert list(result["sections"]) == list(first_light.SECTIONS)
    sections = {name: section["result"] for name, section in result["sections"].items()}
    rows = sections["kernels"]["rows"]
    assert {row["kernel"] for row in rows} == {"finufft", "torchkbnufft"}
    for row in rows:
        bound = 1e-3 if row["kernel"] == "torchkbnufft" or row["dtype"] == "torch.complex64" else 1e-10
        assert max(row["forward_error"], row["adjoint_error"], row["gradient_error"]) < bound
    assert {"projection", "encode", "network and loss", "optimizer"} <= set(sections["step"]["parts"])
    assert sections["memory"]["peak_bytes"] > 0
    assert sections["run"]["resumed_distance_fov"] == 0
    assert all(limit["ok"] for limit in sections["run"]["limits"])
    assert sections["tests"]["passed"] > 0
    assert [row["way"] for row in sections["physics"]["rows"]][:3] == OURS
    assert torch.__version__.startswith(result["machine"]["packages"]["torch"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a device that is missing")
def test_first_light_writes_down_what_failed_and_goes_on(tmp_path):
    words = ["--quick", "--out", str(tmp_path), "--sections", "kernels", "memory"]
    assert first_light.main([*words, "--device", "cuda"]) == 1
    sections = json.loads((tmp_path / "first_light.json").read_text())["sections"]
    assert list(sections) == ["kernels", "memory"]
    for section in sections.values():
        assert section["ok"] is False
        assert "device 'cuda' is not available" in section["error"]
    assert first_light.main([*words, "--device", "cpu", "--budget", "0"]) == 1
    sections = json.loads((tmp_path / "first_light.json").read_text())["sections"]
    assert [section["error"] for section in sections.values()] == 2 * ["no time was left"]


def test_the_readme_has_a_block_for_each_script():
    text = tables.READMES[0].read_text()
    for name in (
        "physics",
        "physics_single",
        "physics_sparse",
        "physics_dense",
        "physics_3d",
        "physics_grid",
        "step",
        "memory",
        "memory_3d",
        "scaling",
        "roofline",
        "retiming",
    ):
        assert f"<!-- table: {name} -->" in text


def test_a_gradient_system_that_is_known_is_reckoned_with(tmp_path, monkeypatch):
    frequency = np.linspace(0, 5e4, 501)
    late = np.exp(-2j * np.pi * frequency * 6e-6)
    np.savez(tmp_path / "a.npz", frequency_hz=frequency, response=np.stack([late] * 3))
    crossed = np.array([[1, 0.05, 0], [-0.05, 1, 0], [0, 0, 1]])[..., None] * np.ones(501)
    np.savez(tmp_path / "b.npz", frequency_hz=frequency, response=crossed, b0=np.full((3, 501), 10e-3))
    monkeypatch.setattr(girf, "SHOTS", {"spiral": 4})
    systems = [f"{name}={tmp_path / name}.npz" for name in "ab"]
    rows = girf.main([*systems, "--matrix", "32", "--images", "4", "--epochs", "1", "--out", str(tmp_path)])
    assert [row["known"].partition(",")[0] for row in rows[4:]] == [
        *("k as told", "its own response", "its own", "that of a", "k as told")
    ]
    for own in (rows[1], rows[5]):
        others = [row for row in rows if row["system"] == own["system"] and row is not own and not any(row["delay"])]
        assert own["k_error"] == 0
        assert all(own["residual"] < row["residual"] and own["cg_sense"] > row["cg_sense"] for row in others)
    assert json.loads((tmp_path / "girf.json").read_text())["rows"] == rows


def test_the_page_of_results_has_the_table_of_known_gradient_systems():
    page = (common.RESULTS.parents[1] / "docs" / "results.md").read_text()
    assert (common.RESULTS / "girf.md").read_text() in page


_STUDY = tiny_study.base(
    "acquisition.n_shots=8", "acquisition.n_samples=160", "data.n_test=2", "data.n_coils=2",
    'training.coil_maps="prescan"', but=["training.batch_size", "training.validations"],
)  # fmt: skip
_STUDY += "[grid]\npattern = ['spiral']\nreconstructor = ['unet']\n"


def test_a_slice_is_reconstructed_by_the_runs_of_a_study(tmp_path):
    (tmp_path / "study.toml").write_text(_STUDY)
    training.train(study.load(tmp_path / "study.toml"), tmp_path)
    images = planted.coil_images(5, 4).reshape(4, 32, 4, 32, 4).mean((2, 4)).swapaxes(1, 2)  # a head that lies
    kspace = 1e-6 * np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(1, 2))), axes=(1, 2))
    np.savez(tmp_path / "head.npz", kspace=kspace.astype(np.complex64))
    words = [str(tmp_path), str(tmp_path / "head.npz"), "--coils", "3", "--picture", str(tmp_path / "head.png")]
    rows = in_vivo.main([*words, "--out", str(tmp_path)])
    assert [(row["coils"], row["trajectory"]) for row in rows] == [
        (n_coils, trajectory) for n_coils in (4, 3) for trajectory in ("fixed", "learned")
    ]
    # nearly enough samples, so CG-SENSE finds the head, where it lies and as bright as it is
    assert all(row["cg_sense"]["psnr"] > 32 for row in rows)
    assert not any(row["warnings"] for row in rows)
    result = written(tmp_path, "in_vivo")
    assert result["rows"] == json.loads(json.dumps(rows))
    assert result["all_data"]["adjoint"]["psnr"] > 90  # the root sum of squares of all data, through `reconstruct`
    assert (tmp_path / "head.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_results_has_the_table_of_the_brain():
    page = (common.RESULTS.parents[1] / "docs" / "results.md").read_text()
    assert (common.RESULTS / "in_vivo.md").read_text() in page


def phantoms(acquisition, n, n_coils=4):
    return torch.stack([*phantom(acquisition, "train", n_train=n, n_val=1, n_test=1, n_coils=n_coils)])


def test_lines_are_compared_by_the_error_of_cg_sense():
    acquisition = Acquisition(matrix=(48, 48), n_shots=16, n_samples=500)
    trajectory = cartesian(acquisition, Scanner(), spacing="poisson")
    images = phantoms(acquisition, 2)
    scans = lines.Scans(images, 0.0)
    rows = lines.rows_of(trajectory)
    encoding = Encoding(trajectory)
    found = CGSense()(encoding.normal(images), encoding.with_maps(scans.maps))
    wanted = -10 * (found - scans.reference).square().mean((1, 2, 3)).log10()
    assert scans.psnr(rows) == pytest.approx(float(wanted.mean()), abs=1e-2)


def test_straight_through_gradients_keep_the_budget_and_find_the_centre():
    images = phantoms(Acquisition(matrix=(16, 16)), 4)
    rows = lines.straight_through(images, 0.0, 4, steps=40)
    assert len(set(rows)) == 4
    assert 8 in rows
    scans = lines.Scans(images, 0.0)
    assert scans.psnr(rows) > scans.psnr([0, 4, 8, 12])


@pytest.mark.parametrize("part", [0.1, 0.25, 0.9])
def test_probabilities_are_rescaled_to_the_budget(part):
    given = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = lines.rescaled(given, part)
    assert float(found.mean()) == pytest.approx(part)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert found.argsort().equal(given.argsort())


def test_learned_lines_beside_hand_made_ones(tmp_path):
    images = phantoms(Acquisition(matrix=(32, 32)), 9, 1).abs()[:, 0].numpy()
    np.save(tmp_path / "sub-1.npy", images)
    np.save(tmp_path / "sub-2.npy", images[::2])
    kspace = np.fft.fftshift(np.fft.fft2(phantoms(Acquisition(matrix=(32, 32)), 1, 3)[0].numpy()), axes=(1, 2))
    np.savez(tmp_path / "measured.npz", kspace=1e-9 * kspace)
    measured = lines.read(tmp_path / "measured.npz", Acquisition(matrix=(32, 32)))
    assert float(measured.abs().square().sum(1).max()) == pytest.approx(1, abs=1e-5)
    files = ["--train", f"{tmp_path}/sub-1.npy", "--test", f"{tmp_path}/sub-2.npy"]
    files += ["--measured", f"{tmp_path}/measured.npz", "--out", str(tmp_path)]
    rows = lines.main([*files, "--matrix", "32", "--shots", "8", "--coils", "4", "--steps", "5", "--seeds", "1"])
    hand_made = ["uniform", "equispaced", "random", "poisson"]
    assert [row["pattern"] for row in rows] == [*hand_made, "learned, greedy", "learned, straight-through"]
    for row in rows:
        assert len(set(row["rows"])) == row["shots"] == 8
        assert set(row["rows"]) <= set(range(32))
        assert {"val", "test", "measured"} <= set(row)
    assert rows[0]["rows"] == list(range(0, 32, 4))
    assert json.loads((tmp_path / "lines.json").read_text())["rows"] == rows
    assert (tmp_path / "lines.md").read_text().startswith("| lines | pattern |")
