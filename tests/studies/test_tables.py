"""The tables of a study say what the metrics of its runs say."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import scipy.stats
import tiny_study

from trajdesign.errors import InputError
from trajdesign.learning.run_folder import RunFolder
from trajdesign.reporting import report
from trajdesign.studies import study, tables, training
from trajdesign.trajectories import loading

TINY = tiny_study.base(
    "data.n_val=2", "data.n_test=7", "training.epochs=5", "training.validations=5", but=["acquisition.n_shots"]
)
TINY += """
name = "tiny"
[grid]
pattern = ["radial", "spiral"]
shots = [4, 6]
parameterization = ["bspline", "samples"]
[choice.pattern.spiral]
init = {kind = "spiral"}
start = {density = 2.0}
[classic]
dense = {init = {kind = "spiral", density = 2}}
long = {init = {kind = "spiral", density = 2}, acquisition = {n_samples = 300}}
brief = {init = {kind = "spiral"}, acquisition = {n_samples = 16}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    (path / "study.toml").write_text(TINY)
    asked = study.load(path / "study.toml")
    training.train(asked, path, device="cpu")
    return asked, path, tables.collect(asked, path).tables()


def run(path, name):
    """Return the metrics and the validation PSNR of a cell, from its files."""
    folder = path / "cells" / name
    with (folder / "history.csv").open() as stream:
        rows = [(int(row["step"]), float(row["val_psnr"])) for row in csv.DictReader(stream)]
    return json.loads((folder / "metrics.json").read_text()), rows


def test_every_row_has_the_numbers_of_the_runs(done):
    _, path, table = done
    assert len(table["rows"]) == 8
    assert json.loads((path / "table.json").read_text()) == table
    for row in table["rows"]:
        axes = row["axes"]
        place = f"{axes['pattern']}-{axes['shots']:02}"
        assert row["cell"] == f"{place}-{axes['parameterization']}-unet-s0"
        learned, history = run(path, row["cell"])
        fixed, _ = run(path, f"{place}-fixed-unet-s0")
        for key in ("psnr", "ssim", "nrmse"):
            a, b = np.array(learned["learned"][f"{key}_list"]), np.array(fixed["fixed"][f"{key}_list"])
            assert row["learned"][key] == pytest.approx(a.mean())
            assert row["learned"][f"{key}_sd"] == pytest.approx(a.std(ddof=1))
            assert row["fixed"][key] == pytest.approx(b.mean())
            assert row["over_fixed"]["gain"][key] == pytest.approx((a - b).mean())
            if key != "nrmse":
                p = scipy.stats.wilcoxon(a, b).pvalue
                assert row["over_fixed"]["wilcoxon_p"][key] == pytest.approx(p)
                # of seven independent phantoms: as wide as their standard error has it
                width = row["over_fixed"]["ci_high"][key] - row["over_fixed"]["ci_low"][key]
                assert width == pytest.approx(2 * 1.96 * (a - b).std() / math.sqrt(7), rel=0.15)
        assert row["learned"]["violations"] == 0
        assert row["learned"]["seconds"] == learned["learned"]["seconds"]
        assert [step for step, _ in history] == [1, 2, 3, 4, 5]
        assert row["learned"]["plateau"] == pytest.approx(history[-1][1] - history[-2][1])


def test_the_strong_baseline_is_the_best_fixed_pattern_of_the_same_readout_by_validation(done):
    _, path, table = done
    assert {row["strong"]["pattern"] for row in table["rows"]} <= {"radial", "spiral", "dense"}, "long is longer"
    for row in table["rows"]:
        rivals = {}
        for pattern in ("radial", "spiral", "dense"):
            name = f"{pattern}-{row['axes']['shots']:02}-fixed-unet-s0"
            metrics, history = run(path, name)
            rivals[name] = (history[-1][1], metrics["fixed"]["psnr"])
        best = max(rivals, key=lambda name: rivals[name][0])
        assert row["strong"]["cell"] == best
        assert row["strong"]["psnr"] == rivals[best][1]
        gain = row["over_strong"]["gain"]["psnr"]
        assert gain == pytest.approx(row["learned"]["psnr"] - rivals[best][1])


def test_cells_of_other_test_images_are_not_paired(done, tmp_path):
    asked, path, _ = done
    shutil.copytree(path / "cells", tmp_path / "cells")
    folder = RunFolder(tmp_path / "cells" / "radial-04-samples-unet-s0")
    found = folder.results()
    found.last.fingerprints[3] += 0.01
    folder.write_results(found)
    with pytest.raises(InputError, match=r"cell radial-04-samples-unet-s0 .* other test images: number 3 "):
        tables.collect(asked, tmp_path)


def test_the_means_are_those_of_the_rows(done):
    table = done[2]
    assert [entry["axes"]["parameterization"] for entry in table["summary"]] == ["bspline", "samples"]
    for entry in table["summary"]:
        assert entry["axes"] == {**entry["axes"], "reconstructor": "unet", "seed": 0}
        rows = [row for row in table["rows"] if entry["axes"].items() <= row["axes"].items()]
        assert entry["n"] == len(rows) == 4
        for over in ("over_fixed", "over_strong"):
            gains = [row[over]["gain"]["psnr"] for row in rows]
            assert entry[f"gain_{over}"]["psnr"] == pytest.approx(np.mean(gains))
        assert entry["n_over_strong"] == sum(row["over_strong"]["gain"]["psnr"] > 0 for row in rows)
        assert entry["n_significant"] == sum(
            all(
                row["over_fixed"]["gain"][k] > 0 and row["over_fixed"]["wilcoxon_p"][k] < 0.05 for k in ("psnr", "ssim")
            )
            for row in rows
        )


def test_the_flat_table_is_the_same_table(done):
    _, path, table = done
    with (path / "table.csv").open(newline="") as stream:
        flat = list(csv.DictReader(stream))
    assert [row["cell"] for row in flat] == [row["cell"] for row in table["rows"]]
    for line, row in zip(flat, table["rows"], strict=True):
        assert line["pattern"] == row["axes"]["pattern"]
        assert float(line["fixed_psnr"]) == row["fixed"]["psnr"]
        assert float(line["over_fixed_wilcoxon_p_ssim"]) == row["over_fixed"]["wilcoxon_p"]["ssim"]
        assert float(line["over_strong_gain_nrmse"]) == row["over_strong"]["gain"]["nrmse"]
        assert float(line["over_strong_ci_high_psnr"]) == row["over_strong"]["ci_high"]["psnr"]
        assert line["strong_cell"] == row["strong"]["cell"]
        assert not any("list" in key for key in line)


def test_cells_of_an_earlier_version_may_lack_a_number(done, tmp_path):
    asked, path, table = done
    shutil.copytree(path / "cells", tmp_path / "cells")
    older = tmp_path / "cells" / "radial-04-samples-unet-s0" / "metrics.json"
    kept = json.loads(older.read_text())
    del kept["files"], kept["sha256"], kept["learned"]["n_skipped"]
    older.write_text(json.dumps(kept))
    tables.collect(asked, tmp_path)
    with (tmp_path / "table.csv").open(newline="") as stream:
        lines = {line["cell"]: line["learned_n_skipped"] for line in csv.DictReader(stream)}
    assert lines == {row["cell"]: "" if row["cell"].startswith("radial-04-samples") else "0" for row in table["rows"]}


def test_the_table_for_people_says_the_same(done):
    _, path, table = done
    text = (path / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# tiny",
        "## bspline",
        "## samples",
        "## Means",
        "## Fixed patterns",
        "## Cells skipped",
    ]
    for row in table["rows"]:
        cells_of_line = [row["axes"]["pattern"], str(row["axes"]["shots"])]
        cells_of_line.append(f"{row['fixed']['psnr']:.2f} ± {row['fixed']['psnr_sd']:.2f}")
        assert f"| {' | '.join(cells_of_line)} |" in text
        over = row["over_strong"]
        ends = f"{over['ci_low']['psnr']:+.2f} to {over['ci_high']['psnr']:+.2f}"
        assert f"| {ends} | images, people unknown |" in text
    widths = {line.count("|") for line in text.split("## samples")[1].split("##")[0].splitlines() if line}
    assert len(widths) == 1


def test_cells_without_results_are_told(done):
    asked, path, table = done
    assert [entry["cell"] for entry in table["skipped"]] == ["brief-04-fixed-unet-s0", "brief-06-fixed-unet-s0"]
    assert "spiral" in table["skipped"][0]["reason"]
    assert table["failed"] == table["missing"] == []
    assert len(table["fixed"]) == 8
    lost = path / "cells" / "radial-04-fixed-unet-s0" / "metrics.json"
    kept = lost.read_bytes()
    lost.unlink()
    try:
        partial = tables.collect(asked, path).tables()
    finally:
        lost.write_bytes(kept)
    assert [entry["cell"] for entry in partial["missing"]] == ["radial-04-fixed-unet-s0"]
    assert len(partial["rows"]) == 6
    assert tables.collect(asked, path).tables() == table


def test_a_study_of_nothing_yet_has_empty_tables(done, tmp_path):
    asked = done[0]
    table = tables.collect(asked, tmp_path)
    assert table.rows == table.summary == table.fixed == []
    assert len(table.tables()["missing"]) == len(asked.cells)
    assert report.draw_study(table, tmp_path) == []


def test_the_plateau_is_the_rise_over_the_last_fifth():
    steps = np.arange(1, 11) * 10
    assert tables.plateau(steps, np.linspace(1, 10, 10)) == pytest.approx(2)
    assert tables.plateau(np.array([3, 9, 10]), np.array([0.0, 6.0, 7.0])) == pytest.approx(7 - 5)
    assert math.isnan(tables.plateau(np.array([10]), np.array([5.0])))


def test_a_figure_shows_where_learning_started(done, monkeypatch):
    asked, path, _ = done
    shown = []
    monkeypatch.setattr(report.study_plots, "side_by_side", lambda columns: shown.append(columns))
    monkeypatch.setattr(report.plots, "save", lambda figure, path: None)
    report.draw_study(tables.collect(asked, path), path)
    radial, spiral = shown[0], shown[2]
    assert list(radial) == ["fixed", "bspline", "samples"]
    assert list(spiral) == ["fixed", "start", "bspline", "samples"]
    dense = loading.load(path / "cells" / "dense-04-fixed-unet-s0" / "initial.npz")
    assert np.array_equal(spiral["start"][0].points, dense.points)


def test_the_figures_of_a_study(done):
    asked, path, _ = done
    written = report.draw_study(tables.collect(asked, path), path)
    places = [f"{pattern}-{shots:02}" for pattern in ("radial", "spiral") for shots in (4, 6)]
    names = {f"{kind}-{place}.png" for kind in ("trajectories", "reconstructions") for place in places}
    assert {p.name for p in written} == {*names, "gains-unet.png"}
    assert {p.name for p in (path / "figures").iterdir()} == {p.name for p in written}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)
