"""From the file of a study to its cells: what each trains, and which files are refused."""

import pytest

from trajdesign.config import toml
from trajdesign.config.models import load_config
from trajdesign.errors import ConfigError, InputError
from trajdesign.studies import study

PAPER = """
name = "paper"
[base]
seed = 7
[base.acquisition]
n_samples = 500
[grid]
shots = [2, 16]
pattern = ["cartesian", "radial"]
parameterization = ["bspline", "free"]
anatomy = ["brain", "knee"]
seed = [0, 1]
[choice.pattern.cartesian]
init = {kind = "cartesian"}
limits = {iterations = 50}
[choice.parameterization.free]
parameterization = {kind = "samples"}
limits = {method = "penalty", weight = 0.5}
[choice.anatomy]
brain = {data = {kind = "phantom", seed = 1}}
knee = {data = {kind = "phantom", seed = 2}, acquisition = {fov = [0.16, 0.16]}}
[classic.wound]
init = {kind = "spiral", turns = 4.0}
acquisition = {dwell = 8e-6}
"""


@pytest.fixture
def load(tmp_path):
    def write(text):
        (tmp_path / "study.toml").write_text(text)
        return study.load(tmp_path / "study.toml")

    return write


def test_every_combination_is_a_cell_and_what_is_fixed_is_trained_once(load):
    paper = load(PAPER)
    assert paper.name == "paper"
    assert paper.text == PAPER
    assert list(paper.axes) == ["pattern", "shots", "parameterization", "reconstructor", "seed", "anatomy"]
    assert paper.further == ["anatomy"]
    fixed = [cell for cell in paper.cells if cell.is_fixed and not cell.classic]
    classic = [cell for cell in paper.cells if cell.classic]
    learned = [cell for cell in paper.cells if not cell.is_fixed]
    assert (len(fixed), len(classic), len(learned)) == (16, 8, 32)
    assert paper.cells == [*fixed, *classic, *learned]
    assert len({cell.name for cell in paper.cells}) == 56
    assert all(cell.is_fixed for cell in classic)
    for cell in learned:
        assert [f.name for f in fixed if cell.shares(f, "parameterization")] == [
            cell.name.replace("-bspline-", "-fixed-").replace("-free-", "-fixed-")
        ]


def test_a_cell_has_the_config_that_its_values_say(load):
    cells = {cell.name: cell for cell in load(PAPER).cells}
    free = cells["cartesian-02-free-unet-s1-knee"].config
    wanted = {
        "name": "cartesian-02-free-unet-s1-knee",
        "seed": 1,
        "acquisition.n_samples": 500,
        "acquisition.n_shots": 2,
        "acquisition.fov": [0.16, 0.16],
        "init.kind": "cartesian",
        "parameterization.kind": "samples",
        "limits.iterations": 50,
        "limits.method": "penalty",
        "limits.weight": 0.5,
        "data.seed": 2,
    }
    assert free == load_config(None, [f"{key}={value}" for key, value in wanted.items()])
    fixed = cells["cartesian-02-fixed-unet-s1-knee"].config
    assert fixed.limits.iterations == 50
    assert fixed.limits.method == "project", "a choice of the parameterization is of the learned ones alone"
    assert fixed.parameterization == {"kind": "fixed"}
    wound = cells["wound-16-fixed-unet-s0-brain"]
    assert wound.classic
    assert wound.config.init["turns"] == 4
    assert wound.config.acquisition.dwell == 8e-6
    assert wound.config.acquisition.n_shots == 16
    assert wound.values == {
        "pattern": "wound",
        "shots": 16,
        "parameterization": "fixed",
        "reconstructor": "unet",
        "seed": 0,
        "anatomy": "brain",
    }


def test_where_has_the_last_word_in_the_learned_cells_that_it_names(load):
    where = """
[[where]]
shots = [16]
pattern = "radial"
set = {start = {kind = "spiral"}, limits = {weight = 0.7}}
[[where]]
parameterization = "free"
set.limits.weight = 0.9
"""
    plain, changed = ({cell.name: cell.config for cell in load(text).cells} for text in (PAPER, PAPER + where))
    radial, free = "radial-16-bspline-unet-s0-brain", "radial-16-free-unet-s0-brain"
    assert changed[radial].start["kind"] == "spiral"
    assert changed[radial].limits.weight == 0.7
    assert changed[free].start["kind"] == "spiral"
    assert changed[free].limits.weight == 0.9, "the later one"
    differ = {name for name in plain if plain[name] != changed[name]}
    assert differ == {n for n in plain if n.startswith("radial-16-bspline") or "-free-" in n}


def test_overrides_change_the_base_and_are_kept_in_the_text(tmp_path, load):
    ways = ["acquisition.n_samples=700", "data.kind=images", 'data.train=["a.npy"]', 'data.test=["b.npy"]']
    bare = PAPER.replace('brain = {data = {kind = "phantom", seed = 1}}', "brain = {}")
    (tmp_path / "study.toml").write_text(bare)
    changed = study.load(tmp_path / "study.toml", ways)
    config = next(cell.config for cell in changed.cells if cell.values["anatomy"] == "brain")
    assert config.acquisition.n_samples == 700
    assert config.data["train"] == ["a.npy"]
    assert load(changed.text).cells == changed.cells, "the text alone is the same study"


def test_an_axis_may_get_other_values(tmp_path, load):
    where = "[[where]]\nshots = [2, 16]\nset.limits.weight = 0.7\n[[where]]\nshots = 2\nset.limits.weight = 0.9\n"
    (tmp_path / "study.toml").write_text(PAPER + where)
    whole, part = (
        study.load(tmp_path / "study.toml", ways)
        for ways in ([], ["grid.shots=[16]", "grid.seed=[1, 4]", "grid.anatomy=knee", "training.epochs=2"])
    )
    assert part.axes == {**whole.axes, "shots": [16], "seed": [1, 4], "anatomy": ["knee"]}
    old = {cell.name: cell.config for cell in whole.cells}
    for cell in part.cells:
        same = old[cell.name.replace("-s4-", "-s1-")]
        assert (cell.config.init, cell.config.limits, cell.config.data) == (same.init, same.limits, same.data)
        assert (cell.config.seed, cell.config.training.epochs) == (cell.values["seed"], 2)
    assert load(part.text).cells == part.cells, "what the file says of other values is gone"
    with pytest.raises(ConfigError, match="speed"):
        study.load(tmp_path / "study.toml", ["grid.speed=[1]"])


def test_axes_that_are_not_in_the_grid_have_the_value_of_the_base_or_the_default(load):
    plain = load("[base]\nseed = 3\ninit = {kind = 'spiral', density = 2}\nparameterization = {kind = 'samples'}\n")
    assert plain.axes == {
        "pattern": ["spiral"],
        "shots": [8],
        "parameterization": ["samples"],
        "reconstructor": ["unet"],
        "seed": [3],
    }
    assert [cell.name for cell in plain.cells] == ["spiral-08-fixed-unet-s3", "spiral-08-samples-unet-s3"]
    assert {cell.config.init["density"] for cell in plain.cells} == {2}
    assert plain.name == "study", "of the file"


def test_another_kind_drops_the_options_of_the_old_one_and_no_kind_keeps_them():
    base = {"init": {"kind": "spiral", "density": 2}, "reconstructor": {"channels": 4}, "seed": 1}
    changes = {"init": {"kind": "radial"}, "reconstructor": {"kind": "unet"}, "training": {"epochs": 3}}
    assert toml.merge(base, changes) == {
        "init": {"kind": "radial"},
        "reconstructor": {"channels": 4, "kind": "unet"},
        "training": {"epochs": 3},
        "seed": 1,
    }
    assert toml.merge(base, {"init": {"kind": "spiral", "turns": 5}})["init"] == {
        "kind": "spiral",
        "density": 2,
        "turns": 5,
    }
    assert toml.merge(base, {"init": {}})["init"] == {}
    assert base["init"] == {"kind": "spiral", "density": 2}, "the base is left alone"


def test_folders_sort_by_shots_and_have_plain_names(load):
    many = load("[grid]\nshots = [2, 16, 128]\nrate = [0.01, true]\n[choice.rate.'0.01']\n[choice.rate.true]\n")
    names = [cell.name for cell in many.cells if cell.is_fixed]
    assert names == sorted(names, key=lambda name: (name.split("-")[1], names.index(name)))
    assert names[0] == "radial-002-fixed-unet-s0-0.01"
    assert names[1] == "radial-002-fixed-unet-s0-true"
    assert many.label(many.cells[0].values, "pattern", "shots") == "radial-002"
    words = load("[grid]\nway = ['a/b $c', '../x']\n[choice.way]\n'a/b $c' = {}\n'../x' = {}\n")
    assert {cell.name.split("-")[-1] for cell in words.cells} == {"a_b_c", ".._x"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[grids]\n", ["'grids'", "did you mean 'grid'"]),
        ("grid = 3\n", ["[grid]", "table"]),
        ("name = 3\n", ["name", "text"]),
        ("[grid]\nshot = [2]\n", ["grid.shot", "did you mean 'shots'"]),
        ("[grid]\nshots = 2\n", ["grid.shots", "list"]),
        ("[grid]\nshots = []\n", ["grid.shots", "list"]),
        ("[grid]\nshots = [[2]]\n", ["grid.shots", "words or numbers"]),
        ("[grid]\nshots = [2, 2]\n", ["grid.shots", "twice"]),
        ("[grid]\nshots = ['many']\n", ["radial-many", "n_shots"]),
        ("[grid]\nshots = [0]\n", ["radial-00-fixed", "n_shots"]),
        ("[grid]\npattern = ['radail']\n", ["radail-08-fixed", "did you mean 'radial'"]),
        ("[grid]\nparameterization = ['fixed']\n", ["fixed", "trained anyway"]),
        ("[grid]\nparameterization = ['bsplin']\n", ["radial-08-bsplin-", "did you mean 'bspline'"]),
        ("[grid]\nway = ['a', 'b']\n[choice.way.a]\n", ["[choice.way.b]"]),
        ("[grid]\nway = ['a']\n[choice.way.a]\n[choice.way.aa]\n", ["choice.way.aa", "did you mean 'a'"]),
        ("[choice.patern.radial]\n", ["choice.patern", "did you mean 'pattern'"]),
        ("[choice.pattern]\nradial = 3\n", ["radial", "table"]),
        ("[classic.radial]\n", ["'radial'", "pattern of the grid"]),
        ("[classic]\nwound = 3\n", ["wound", "table"]),
        ("[base.training]\nepoch = 3\n", ["training.epoch", "did you mean 'epochs'"]),
        ("[base]\ngrid = {}\n", ["'grid'"]),
        ("[where]\nset = {}\n", ["[[where]]"]),
        ("[[where]]\nshot = 8\n", ["where.shot", "did you mean 'shots'"]),
        ("[[where]]\nshots = 9\n", ["where.shots", "9", "[8]"]),
        ("[[where]]\nset = 3\n", ["[set]", "table"]),
        ("[classic.wound]\ninit = {kind = 'spiral', turn = 3}\n", ["wound-08-fixed", "did you mean 'turns'"]),
        ("[grid]\nway = ['a b', 'a_b']\n[choice.way]\n'a b' = {}\na_b = {}\n", ["two cells", "a_b"]),
    ],
)
def test_what_has_no_meaning_is_refused(load, text, words):
    with pytest.raises(ConfigError) as caught:
        load(text)
    for word in words:
        assert word in str(caught.value)


def test_files_that_cannot_be_read(load, tmp_path):
    with pytest.raises(InputError, match=r"none\.toml"):
        study.load(tmp_path / "none.toml")
    with pytest.raises(InputError, match="TOML"):
        load("[grid\n")
