"""Which runs may be compared, and the table of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_study import SETTINGS

from trajdesign.config.models import load_config
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning import compare
from trajdesign.learning.optimize import optimize
from trajdesign.learning.results import KEYS, Results, StageResult
from trajdesign.learning.run_folder import RunFolder

TINY = [*SETTINGS, "data.n_test=6"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of both stages, one that learned alone, and one that is fixed, on one test set."""
    path = tmp_path_factory.mktemp("runs")
    optimize(load_config(None, TINY), path / "both", device="cpu")
    optimize(load_config(None, [*TINY, "init.kind=spiral"]), path / "spiral", device="cpu", baseline=False)
    optimize(load_config(None, [*TINY, "parameterization.kind=fixed"]), path / "fixed", device="cpu")
    return path


def result(seed, n=12, **others):
    generator = np.random.default_rng(seed)
    lists = [generator.normal(30, 2, n).tolist() for _ in KEYS]
    return StageResult(n, [], *(float(np.mean(values)) for values in lists), *lists, **others)


def test_the_table_has_the_results_of_the_runs(runs):
    texts = [f"{runs / 'both'}:fixed", str(runs / "both"), str(runs / "spiral"), str(runs / "fixed")]
    stages = compare.open_stages(texts)
    assert [(stage.label, stage.name) for stage in stages] == [
        ("both:fixed", "fixed"),
        ("both", "learned"),
        ("spiral", "learned"),
        ("fixed", "fixed"),
    ]
    rows = compare.table(stages)
    both, spiral = (RunFolder(runs / name).results().stages for name in ("both", "spiral"))
    for row, expected in zip(rows, (both["fixed"], both["learned"], spiral["learned"], both["fixed"]), strict=True):
        assert row.stage.result.psnr_list == expected.psnr_list
        assert row.broken_limits == []
        assert row.over_first.gain["ssim"] == pytest.approx(expected.ssim - both["fixed"].ssim)
    assert rows[1].over_first.wilcoxon_p == RunFolder(runs / "both").results().wilcoxon_p
    found = rows[1].tables()
    assert json.loads(json.dumps(found)) == found
    assert found["psnr_sd"] == pytest.approx(np.std(both["learned"].psnr_list, ddof=1))


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, monkeypatch):
    monkeypatch.chdir(runs)
    stages = compare.open_stages(["both", "both:learned", "./both"])
    assert [stage.label for stage in stages] == ["both", "both:learned", "./both"]
    assert [stage.label for stage in compare.open_stages(["both", "both", "./spiral/"])] == ["both", "spiral"]


def test_a_trajectory_that_breaks_limits_is_told(runs, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / "config.toml").write_bytes((runs / "spiral" / "config.toml").read_bytes())
    kept = json.loads((runs / "spiral" / "metrics.json").read_text())
    del kept["files"], kept["sha256"]  # as earlier versions, which did not look whether a file is their own
    (folder.path / "metrics.json").write_text(json.dumps(kept))
    learned = RunFolder(runs / "spiral").trajectory()
    learned.with_points(2 * learned.points).save(folder.path / "trajectory.npz")
    rows = compare.table(compare.open_stages([str(runs / "spiral"), str(folder.path)]))
    assert rows[0].broken_limits == []
    assert {"extent", "slew"} <= set(rows[1].broken_limits)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.n_test", "5"),
        ("data.seed", "1"),
        ("acquisition.fov", "[0.2,0.2]"),
        ("acquisition.matrix", "[36,36]"),
        ("training.noise", "0.1"),
    ],
)
def test_other_test_images_are_refused(runs, tmp_path, key, value):
    folder = RunFolder(tmp_path / "other")
    folder.create(load_config(None, [*TINY, f"{key}={value}"]))
    folder.write_results(replace(RunFolder(runs / "both").results(), files={}))
    with pytest.raises(ConfigError, match="other images") as caught:
        compare.open_stages([str(runs / "both"), str(folder.path)])
    assert key in str(caught.value)


def images_run(path, file, **lists):
    """Return a finished run of both stages on images of a file, made by no training."""
    folder = RunFolder(path)
    text = ["data.kind=images", f"data.train=['{path}.npy']", f"data.test=['{file}']"]
    folder.create(load_config(None, [*(key for key in TINY if not key.startswith("data.")), *text]))
    folder.write_results(Results("", {"fixed": result(0, **lists), "learned": result(1, **lists)}))
    return str(path)


def test_the_images_are_compared_and_not_the_names_of_their_files(tmp_path):
    first = images_run(tmp_path / "a", "te.npy", fingerprints=[0.1, 0.2])
    same = images_run(tmp_path / "b", "/elsewhere/te.npy", fingerprints=[0.1, 0.200001])  # by rounding
    assert len(compare.open_stages([first, same])) == 2
    for other, sentence in (([0.1, 0.3], "number 1 "), ([0.1], "1 and 2 test images")):
        replaced = images_run(tmp_path / f"c{len(other)}", "te.npy", fingerprints=other)
        with pytest.raises(ConfigError, match=f"tested on other images: .*{sentence}"):
            compare.open_stages([first, replaced])
        with pytest.raises(InputError, match=sentence):
            result(1, fingerprints=other).over(result(0, fingerprints=[0.1, 0.2]))
    older = images_run(tmp_path / "d", "/elsewhere/te.npy")
    with pytest.raises(ConfigError, match=r"data\.test is"):
        compare.open_stages([first, older])


def test_what_the_test_does_not_depend_on_may_differ(runs, tmp_path):
    folder = RunFolder(tmp_path / "other")
    others = ["seed=3", "acquisition.n_shots=8", "training.epochs=9", "reconstructor.channels=8"]
    folder.create(load_config(None, [*TINY, *others]))
    folder.write_results(replace(RunFolder(runs / "both").results(), files={}))
    assert len(compare.open_stages([str(runs / "both"), str(folder.path)])) == 2


def test_runs_that_cannot_be_compared(runs, tmp_path):
    with pytest.raises(InputError, match="none"):
        compare.open_stages([str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="did you mean 'learned'"):
        compare.open_stages([f"{runs / 'both'}:lerned"])
    with pytest.raises(ConfigError, match="no stage 'fixed'"):
        compare.open_stages([f"{runs / 'spiral'}:fixed"])
