"""Every finished run of a study is tested in its conditions, once, as `evaluate` would."""

import csv
import json
import shutil

import numpy as np
import pytest
import tiny_study

import trajdesign as td
from trajdesign.errors import ConfigError, DivergedError, InputError, Interrupted
from trajdesign.learning import conditions, other_data
from trajdesign.reporting import report
from trajdesign.studies import study, tables, training

TINY = tiny_study.base("training.noise=0.01")
TINY += """
[grid]
pattern = ["spiral"]
parameterization = ["bspline"]
errors = ["without", "with"]
[choice.errors.without]
[choice.errors.with]
perturbation.delay.spread = 5e-6
"""
ASKED = """
[condition.same]
[condition.in_the_field]
set.field = {{ kind = "maps", files = ["{b0}"] }}
set.training.field_terms = 6
[condition.others]
set.data.seed = 9
[condition]
late = {{ error = "delay, µs", size = 5, set.perturbation.delay = {{ delays = [5e-6], spread = 0.0 }} }}
early = {{ error = "delay, µs", size = -5, set.perturbation.delay = {{ delays = [-5e-6], spread = 0.0 }} }}
"""
LATE = ["perturbation.delay.delays=[5e-6]", "perturbation.delay.spread=0"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("conditions")
    np.save(path / "b0.npy", 200 * np.linspace(-1, 1, 32)[:, None] * np.ones(32))
    (path / "study.toml").write_text(TINY + ASKED.format(b0=path / "b0.npy"), encoding="utf-8")
    asked = study.load(path / "study.toml")
    training.train(asked, path / "out", device="cpu")
    return asked, path / "out"


@pytest.fixture
def copy(done, tmp_path):
    """A study like the one that is done, to be changed."""
    shutil.copytree(done[1], tmp_path / "out")
    return done[0], tmp_path / "out"


@pytest.fixture
def counted(monkeypatch):
    """Tests from here on; nothing may be trained."""
    seen, scored = [], other_data.scored

    def count(one, *rest):
        seen.append(one.config)
        return scored(one, *rest)

    monkeypatch.setattr(other_data, "scored", count)
    monkeypatch.setattr(training, "optimize", lambda *_, **__: pytest.fail("a finished cell is trained again"))
    return seen


def load(path, text):
    (path / "study.toml").write_text(text, encoding="utf-8")
    return study.load(path / "study.toml")


def test_a_condition_is_what_evaluate_finds_under_its_settings(done):
    asked, out = done
    field = [f'field={{kind="maps", files=["{out.parent / "b0.npy"}"]}}', "training.field_terms=6"]
    settings = {"in_the_field": field, "others": ["data.seed=9"], "late": LATE}
    for cell in asked.cells:
        run = training.folder(cell, out)
        kept, own = conditions.read(run.path), run.results().last
        assert list(kept) == ["same", "in_the_field", "others", "late", "early"]
        assert kept["same"].result.psnr_list == own.psnr_list
        assert kept["same"].result.ssim_list == own.ssim_list
        for name, overrides in settings.items():
            found = td.evaluate(run.path, overrides, device="cpu", quiet=True).results.last
            assert kept[name].result.psnr_list == found.psnr_list
            assert kept[name].result.ssim_list == found.ssim_list
            assert found.psnr_list != own.psnr_list


def test_what_is_tested_is_not_tested_again_and_what_is_new_is(copy, counted, tmp_path):
    asked, out = copy
    training.train(asked, out, resume=True, device="cpu")
    assert counted == []
    more = asked.text + "more = { set.training.noise = 0.1 }\n"
    changed = load(tmp_path, more.replace("delays = [5e-6]", "delays = [6e-6]"))
    assert not any(training.outcome(cell, out).is_final for cell in changed.cells)
    before = [conditions.read(training.folder(cell, out).path) for cell in changed.cells]
    training.train(changed, out, resume=True, device="cpu")
    assert [(c.perturbation["delay"]["delays"] if c.perturbation else c.training.noise) for c in counted] == [
        [6e-6], 0.1,
    ] * 4  # fmt: skip
    assert all(training.outcome(cell, out).is_final for cell in changed.cells)
    for cell, kept in zip(changed.cells, before, strict=True):
        found = conditions.read(training.folder(cell, out).path)
        assert found["early"] == kept["early"]
        assert found["late"].result.psnr_list != kept["late"].result.psnr_list


def test_a_study_that_is_stopped_among_the_conditions_goes_on_there(copy, counted, monkeypatch):
    asked, out = copy
    files = [training.folder(cell, out).path / conditions.FILE for cell in asked.cells]
    whole = [json.loads(file.read_text())["conditions"] for file in files]
    for file in files:
        file.unlink()
    count = other_data.scored

    def stop(*given):
        if len(counted) == 7:
            raise Interrupted(15)
        return count(*given)

    with monkeypatch.context() as patched:
        patched.setattr(other_data, "scored", stop)
        with pytest.raises(Interrupted):
            training.train(asked, out, resume=True, device="cpu")
    assert [training.outcome(cell, out).untested for cell in asked.cells] == [
        (), ("others", "late", "early"), tuple(asked.conditions), tuple(asked.conditions),
    ]  # fmt: skip
    training.train(asked, out, resume=True, device="cpu")
    assert len(counted) == 20
    for file, kept in zip(files, whole, strict=True):
        found = json.loads(file.read_text())["conditions"]
        for name in kept:
            assert found[name]["result"]["psnr_list"] == kept[name]["result"]["psnr_list"]


def test_a_condition_that_fails_is_told_and_done_when_the_study_goes_on(copy, counted, monkeypatch):
    asked, out = copy
    cell = asked.cells[-1]
    (training.folder(cell, out).path / conditions.FILE).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(other_data, "scored", lambda *_: (_ for _ in ()).throw(DivergedError("not finite.")))
        training.train(asked, out, resume=True, device="cpu")
    found = training.outcome(cell, out)
    assert (found.status, found.untested, found.sentence) == ("finished", tuple(asked.conditions), "not finite.")
    with pytest.raises(DivergedError, match=rf"cell {cell.name}: not finite\."):
        training.require(asked.cells, out)
    table = tables.collect(asked, out)
    assert table.tables()["untested"] == [{"cell": cell.name, "reason": f"{', '.join(asked.conditions)}: not finite."}]
    assert "## Cells untested" in (out / "table.md").read_text(encoding="utf-8")
    training.train(asked, out, resume=True, device="cpu")
    training.require(asked.cells, out)
    assert len(counted) == len(asked.conditions)


def test_results_of_an_earlier_training_do_not_count(copy):
    asked, out = copy
    run = training.folder(asked.cells[0], out)
    file = run.path / conditions.FILE
    shutil.copy(training.folder(asked.cells[1], out).path / conditions.FILE, file)
    assert conditions.read(run.path) == {}
    for damaged in ("", "[]", "{}", "[" * 10**5, file.read_text().replace('"psnr": ', '"psnr": 1')):
        file.write_text(damaged)
        with pytest.raises(InputError, match=r"conditions\.json is damaged"):
            conditions.read(run.path)
    run.create(run.config(), overwrite=True)
    assert not file.exists()


def test_other_images_in_the_place_of_the_run_s_own_are_refused(copy, monkeypatch):
    asked, out = copy
    cell = asked.cells[0]
    run = training.folder(cell, out).path
    (run / conditions.FILE).unlink()
    others = other_data.settings(cell.config, {"data": {"seed": 9}})
    datasets = conditions.datasets
    monkeypatch.setattr(conditions, "datasets", lambda _: datasets(others))
    with pytest.raises(InputError):
        conditions.tested(run, {"same": cell.conditions["same"]}, device="cpu")


def test_the_tables_tell_each_result_and_its_difference(done):
    asked, out = done
    found = tables.collect(asked, out).tables()
    assert list(found["conditions"]) == list(asked.conditions)
    [row, _] = found["rows"]
    run = out / "cells" / row["cell"]
    own = json.loads((run / "metrics.json").read_text())["learned"]
    late = json.loads((run / "conditions.json").read_text())["conditions"]["late"]["result"]
    told = row["learned"]["conditions"]["late"]
    assert told["psnr"] == pytest.approx(np.mean(late["psnr_list"]))
    assert told["psnr_change"] == pytest.approx(np.mean(late["psnr_list"]) - np.mean(own["psnr_list"]))
    assert told["ssim_change"] == pytest.approx(np.mean(late["ssim_list"]) - np.mean(own["ssim_list"]))
    with (out / "table.csv").open(encoding="utf-8") as stream:
        [flat, _] = csv.DictReader(stream)
    assert float(flat["learned_conditions_late_psnr"]) == pytest.approx(told["psnr"])
    text = (out / "table.md").read_text(encoding="utf-8")
    lines = text.partition("## In other conditions")[2].strip().splitlines()[2:]
    assert len(lines) == len(asked.conditions) * len(asked.cells)
    cells = [cell.strip() for cell in lines[3 * 4 + 2].split("|")[1:-1]]
    assert cells == [
        "spiral", "4", "without", "bspline", "late", f"{told['psnr']:.2f} ({told['psnr_change']:+.2f})",
        f"{told['ssim']:.3f} ({told['ssim_change']:+.3f})",
    ]  # fmt: skip


def test_the_figure_has_a_line_for_each_training_over_the_size_of_the_error(done, monkeypatch):
    asked, out = done
    shown, over_sizes = {}, report.study_plots.over_sizes
    monkeypatch.setattr(report.study_plots, "over_sizes", lambda *given: shown.update([given]) or over_sizes(*given))
    written = report.draw_study(tables.collect(asked, out), out)
    assert written[-1].name == "errors-delay_µs.png"
    assert written[-1].read_bytes().startswith(b"\x89PNG")
    lines = shown["delay, µs"]["spiral"]
    assert list(lines) == ["fixed-without", "fixed-with", "bspline-without", "bspline-with"]
    for label, cell in zip(lines, asked.cells, strict=True):
        run = training.folder(cell, out)
        kept = conditions.read(run.path)
        psnr = [kept["early"].result.psnr, run.results().last.psnr, kept["late"].result.psnr]
        assert lines[label] == ([-5, 0, 5], psnr)


def test_the_report_of_a_run_tells_them(done):
    asked, out = done
    run = training.folder(asked.cells[-1], out).path
    report.write(run, out / "report.html")
    own, late = report.RunFolder(run).results().last, conditions.read(run)["late"].result
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "In other conditions" in page
    assert f"<td>{late.psnr:.2f} ({late.psnr - own.psnr:+.2f})</td>" in page
    report.write(run, out / "report.pdf")


def test_a_condition_may_be_set_on_the_command_line(tmp_path):
    (tmp_path / "study.toml").write_text(TINY + "[condition.given]\nset.training.noise = 0.1\n")
    given = ['condition.given.set.field={kind="random", amplitude=70}', "condition.given.set.training.noise=0.2"]
    asked = study.load(tmp_path / "study.toml", given)
    for cell in asked.cells:
        assert cell.conditions["given"].field["amplitude"] == 70
        assert cell.conditions["given"].training.noise == 0.2
        assert cell.config.field == {}
    (tmp_path / "again.toml").write_text(asked.text, encoding="utf-8")
    assert study.load(tmp_path / "again.toml").cells == asked.cells


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 5", r"\[condition\.x\] of a study is a table"),
        ("x.sets.field = {}", r"unknown key condition\.x\.sets; did you mean 'set'"),
        ("x.set = 5", r"\[set\] of a study is a table"),
        ("x.set.response = {kind = 'delay', delays = [1e-6]}", r"condition\.x, of cell .*: response\..* another run"),
        ("x.set.response = {}", r"condition\.x, of cell .*: response cannot be set"),
        ("x.set.acquisition.n_shots = 3", r"condition\.x, of cell .*: acquisition\.n_shots cannot be set"),
        ("x.set.perturbation.dely = {}", "did you mean 'delay'"),
        ("x.set.perturbation = 5", "perturbation"),
        ("x.set.field = 5", "field"),
        ("x.set.field.kind = 'map'", "did you mean 'maps'"),
        ("x.set.training.epochs = 3", "training.epochs cannot be set"),
        ("x.size = 5", "give both, or neither"),
        ("x.error = 'delay'", "give both, or neither"),
        ("x = {error = 'delay', size = inf}", "give both, or neither"),
        ("x = {error = 5, size = 5}", "error is text"),
        ("x = {error = 'delay', size = 'five'}", "size a number"),
        ("x = {error = 'd', size = 1}\ny = {error = 'd', size = 1.0}", "are one point of the curve 'd'"),
        ("x = {error = 'd 1', size = 1}\ny = {error = 'd,1', size = 1}", "would have one figure"),
    ],
)  # fmt: skip
def test_a_condition_that_means_nothing_is_refused_in_one_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as error:
        load(tmp_path, f"{TINY}[condition]\n{text}\n")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("x.set.field = {kind = 'maps', files = ['none.npy']}", InputError, "none.npy"),
        ("x.set.perturbation.delay = {delays = [1.0]}", ConfigError, "perturbation.delay"),
        ("x.set.perturbation.lost_shot = {shot = 4}", ConfigError, "the scan has 4 shots"),
        ("x.set.perturbation.girf = {path = 'none.npz'}", InputError, "none.npz"),
        ("x.set.data = {kind = 'images', test = ['none.nii']}", InputError, "none.nii"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_before_anything_is_trained(tmp_path, text, kind, said):
    asked = load(tmp_path, f"{TINY}[condition]\n{text}\n")
    with pytest.raises(kind, match=said) as error:
        training.train(asked, tmp_path / "out", device="cpu")
    assert str(error.value).startswith(f"condition.x, of cell {asked.cells[0].name}: ")
    assert not (tmp_path / "out" / "cells").exists()


def test_without_conditions_a_table_has_none(tmp_path):
    asked = load(tmp_path, TINY)
    found = tables.collect(asked, tmp_path / "out").tables()
    assert found["conditions"] == {}
    assert found["untested"] == []
    assert "conditions" not in (tmp_path / "out" / "table.md").read_text()
