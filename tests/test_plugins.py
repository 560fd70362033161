"""Contracts that every plug-in of a kind keeps: a new file in a folder is tested by being there."""

import inspect
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reconstructors import FOR_FILMS, FOR_SLICES

import trajdesign
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.interfaces import Constraint, Samples
from trajdesign.physics import limits
from trajdesign.scanner import Scanner
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectory import Trajectory, n_points

ROOT = Path(trajdesign.__file__).parent
ACQUISITIONS = [
    (Acquisition((0.22, 0.22), (64, 64), 8, 600, 4e-6), Scanner()),
    (Acquisition((0.24, 0.2), (48, 64), 3, 700, 5e-6), Scanner(limit_norm="axis", gradient_raster=4e-6)),
]


def tiny(seed=0):
    """Return a feasible trajectory that is neither straight nor at a limit."""
    trajectory = spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner())
    return trajectory.with_points(0.9 * trajectory.points, "tiny")


# --- the folders ---


def test_every_kind_has_plugins_and_the_catalogue_lists_them_all():
    catalogue = plugins.catalogue()
    assert list(catalogue) == list(plugins.KINDS)
    for kind, (folder, _) in plugins.KINDS.items():
        place = ROOT.parent if kind == "sequence" else ROOT
        files = sorted(p.stem for p in (place / folder.replace(".", "/")).glob("*.py") if not p.stem.startswith("_"))
        assert plugins.names(kind) == files == sorted(catalogue[kind])
        assert files
        for entry in catalogue[kind].values():
            assert entry["summary"].endswith(".")
            assert not entry["summary"].startswith("Return")
            assert list(entry["meanings"]) == list(entry["options"])
            for option, meaning in entry["meanings"].items():
                assert len(meaning) > 10, f"{kind} {option}: what it means is said"
                assert "See " not in meaning, "nor only where it is said"
    assert catalogue["parameterization"]["neural_ode"]["meanings"]["relaxation"].startswith("tau, s.")
    assert catalogue["constraint"]["slew"]["meanings"]["weight"].startswith("Weight of its penalty"), (
        "that of the base class"
    )


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_options_are_the_documented_keyword_only_parameters(kind):
    for name in plugins.names(kind):
        plugin = plugins.find(kind, name)
        target = plugin.__init__ if inspect.isclass(plugin) else plugin
        keywords = {p.name for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert set(plugins.options(plugin).model_fields) == keywords
        classes = inspect.getmro(plugin) if inspect.isclass(plugin) else [plugin]
        documented = " ".join(inspect.getdoc(c) or "" for c in classes)
        for option in keywords:
            assert option in documented, f"{kind} {name}: {option} is not documented"


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_an_unknown_name_or_option_names_the_nearest(kind):
    known = plugins.names(kind)
    typo = known[0][:-1] + "_"
    with pytest.raises(ConfigError, match=f"did you mean '{known[0]}'") as caught:
        plugins.find(kind, typo)
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match=", ".join(known)):
        plugins.find(kind, "zzzzzz")
    for name in known:
        fields = list(plugins.options(plugins.find(kind, name)).model_fields)
        for field in fields[:1]:
            with pytest.raises(ConfigError, match=f"did you mean '{field}'"):
                plugins.resolve(kind, {"kind": name, field + "x": 1})
        with pytest.raises(ConfigError, match="qqqq"):
            plugins.resolve(kind, {"kind": name, "qqqq": 1})
    with pytest.raises(ConfigError, match="kind"):
        plugins.resolve(kind, {})
    with pytest.raises(ConfigError, match="kind"):
        plugins.resolve(kind, {"kind": 3})


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_values_of_the_wrong_type_and_not_finite_are_refused(kind):
    for name in plugins.names(kind):
        for option, field in plugins.options(plugins.find(kind, name)).model_fields.items():
            bad = [3.5] if "dict" in str(field.annotation) else [{"no": "table"}]
            if field.annotation in (float, float | None):
                bad += [math.nan, math.inf, "fast"]
            if field.annotation is int:
                bad += [math.nan, 0.5, "many"]
            for value in bad:
                with pytest.raises(ConfigError, match=option) as caught:
                    plugins.resolve(kind, {"kind": name, option: value})
                assert "\n" not in str(caught.value)


def test_resolving_writes_out_every_default_and_leaves_the_table_alone():
    table = {"kind": "neural_ode", "hidden": 8}
    resolved = plugins.resolve("parameterization", table)
    assert table == {"kind": "neural_ode", "hidden": 8}
    assert resolved["hidden"] == 8
    assert resolved["method"] == "rk4"
    assert plugins.resolve("parameterization", resolved) == resolved


TYPES = {
    "init": "interfaces.Init", "exporter": "type[interfaces.Format]", "data": "interfaces.DataSource",
    "response": "interfaces.ResponseModel", "logger": "interfaces.Logger",
    "perturbation": "perturbation.Perturbation",
}  # fmt: skip


def mypy(file, lines):
    """Return the exit code of mypy, and what it says of a program."""
    file.write_text("\n".join(lines))
    settings = ["--config-file", str(ROOT.parent / "pyproject.toml"), "--cache-dir", str(ROOT.parent / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *settings, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    return result.returncode, result.stdout


def test_mypy_holds_every_plugin_against_its_kind(tmp_path):
    lines = ["from trajdesign import interfaces", "from trajdesign.config import plugins"]
    lines += ["from trajdesign.physics import perturbation"]
    for kind, type_ in TYPES.items():
        for name in plugins.names(kind):
            module = f"trajdesign.{plugins.KINDS[kind][0]}.{name}"
            lines += [f"import {module}", f"{kind}_{name}: {type_} = {module}.{plugins.find(kind, name).__name__}"]
    assert mypy(tmp_path / "right.py", lines) == (0, "Success: no issues found in 1 source file\n")
    # and what it holds them against is not nothing
    wrong = [
        "from trajdesign.trajectories.inits.radial import radial",
        "exporter: type[interfaces.Format] = radial",
        "network: interfaces.Constraint = plugins.build('reconstructor', {'kind': 'unet'})",
    ]
    code, said = mypy(tmp_path / "wrong.py", [*lines[:2], *wrong])
    assert code == 1
    assert said.count("Incompatible types in assignment") == 2


def test_the_model_of_the_options_is_made_once():
    spiral_ = plugins.find("init", "spiral")
    assert plugins.options(spiral_) is plugins.options(spiral_)


def test_a_plugin_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "somewhere_else.py").write_text(
        "from trajdesign.trajectories.inits.radial import radial\n"
        "def mine(acquisition, scanner, *, angle: str = 'golden'):\n"
        "    '''Mine.'''\n"
        "    return radial(acquisition, scanner, angle=angle)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    acquisition = Acquisition(matrix=(64, 64), n_samples=600)
    mine = plugins.build("init", {"kind": "somewhere_else:mine"}, acquisition, Scanner())
    golden = plugins.build("init", {"kind": "radial", "angle": "golden"}, acquisition, Scanner())
    assert torch.equal(mine.points, golden.points)
    for wrong in ("somewhere_else:nothing", "not_there:mine", ":", "a:", ":b", "somewhere_else:"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            plugins.find("init", wrong)


# --- inits ---

# a trajectory from a file is what its file holds
PATTERNS = [name for name in plugins.names("init") if name != "file"]


@pytest.mark.parametrize(("acquisition", "scanner"), ACQUISITIONS)
@pytest.mark.parametrize("name", PATTERNS)
def test_an_init_is_feasible_and_stays_inside_k_max(name, acquisition, scanner):
    trajectory = plugins.build("init", {"kind": name}, acquisition, scanner)
    assert isinstance(trajectory, Trajectory)
    assert trajectory.points.dtype == torch.float64
    assert (trajectory.acquisition, trajectory.scanner) == (acquisition, scanner)
    edge = torch.tensor(acquisition.k_max, dtype=torch.float64) * (1 + 1e-12)
    assert (trajectory.points.abs() <= edge).all()
    assert (trajectory.k_adc.abs() <= edge).all()
    limits.require(trajectory)
    again = plugins.build("init", {"kind": name}, acquisition, scanner)
    assert torch.equal(again.points, trajectory.points)
    # it goes somewhere: at least half way to the edge
    assert float(trajectory.k_adc.abs().max()) > 0.5 * min(acquisition.k_max)


@pytest.mark.parametrize("name", PATTERNS)
def test_an_init_that_cannot_be_played_says_why(name):
    with pytest.raises(LimitError, match="spiral" if name == "planes" else name) as caught:
        plugins.build("init", {"kind": name}, Acquisition(n_samples=16), Scanner())
    assert caught.value.exit_code == 4


# --- parameterizations ---

# no gradient moves these
UNMOVED = ["fixed", "lines"]
MOVED = [name for name in plugins.names("parameterization") if name not in UNMOVED]


@pytest.mark.parametrize("name", plugins.names("parameterization"))
def test_a_parameterization_reproduces_its_initial_trajectory_exactly(name):
    initial = cartesian(tiny().acquisition, Scanner()) if name == "lines" else tiny()
    trajectory = plugins.build("parameterization", {"kind": name}, initial)()
    assert torch.equal(trajectory.points, initial.points)
    assert torch.equal(trajectory.k_adc, initial.k_adc)
    assert (trajectory.acquisition, trajectory.scanner) == (initial.acquisition, initial.scanner)


@pytest.mark.parametrize("name", MOVED)
def test_a_parameterization_passes_gradients_and_learns(name):
    torch.manual_seed(0)
    initial = tiny()
    model = plugins.build("parameterization", {"kind": name}, initial)
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(4, 1, 2, generator=generator, dtype=torch.float64)
    target = initial.k_adc + 2 / 0.22 * smooth  # two pixels of k-space away
    if name == "rigid":  # as far, by what it can do
        angle = torch.tensor(2 / 16, dtype=torch.float64)
        turn = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
        target = initial.k_adc @ turn

    def loss():
        return ((model().k_adc - target) * 0.22).square().mean()

    start = loss()
    start.backward()
    parameters = dict(model.named_parameters())
    assert parameters
    for parameter in parameters.values():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert any(float(p.grad.norm()) > 0 for p in parameters.values())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    reached = set()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        reached |= {key for key, p in parameters.items() if float(p.grad.norm()) > 0}
        optimizer.step()
    assert reached == set(parameters), "a parameter that nothing moves"
    # the rate that the base promises to suit
    assert loss().item() < 0.5 * start.item()


@pytest.mark.parametrize("name", MOVED)
def test_a_parameterization_can_be_stored(name):
    torch.manual_seed(0)
    model = plugins.build("parameterization", {"kind": name}, tiny())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    other = plugins.build("parameterization", {"kind": name}, tiny())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other().points, model().points)
    assert not torch.equal(model().points, tiny().points)


@pytest.mark.parametrize("name", UNMOVED)
def test_what_no_gradient_moves_has_no_parameters(name):
    initial = cartesian(tiny().acquisition, Scanner())
    assert not list(plugins.build("parameterization", {"kind": name}, initial).parameters())


# --- constraints ---


# of those that need what only a site knows
OPTIONS = {
    "stimulation": {"model": "xrm"},
    "acoustics": {"bands": [[590.0, 100.0], [1140.0, 220.0]], "limit": 1e-3, "repetition_time": 10e-3},
    "echo": {"time": 595e-6},
}


def constraint(name, acquisition, scanner):
    return limits.constraints(acquisition, scanner, [name], OPTIONS)[0]


def test_the_constraints_that_need_options_are_known_here():
    assert set(plugins.names("constraint")) - set(OPTIONS) == set(limits.standard())


@pytest.mark.parametrize(("acquisition", "scanner"), ACQUISITIONS)
@pytest.mark.parametrize("name", plugins.names("constraint"))
def test_a_penalty_is_zero_exactly_when_the_check_passes(name, acquisition, scanner):
    limit = constraint(name, acquisition, scanner)
    rng = np.random.default_rng(0)
    points = n_points(acquisition, scanner)
    walk = torch.from_numpy(rng.normal(size=(acquisition.n_shots, points, 2)).cumsum(axis=1))
    walk = Trajectory(walk, acquisition, scanner)
    worst = float(limit.measure(walk).max())
    near = [1 + sign * 10.0**-power for power in (1, 3, 6, 8, 10, 12, 14) for sign in (-1, 1)]
    seen = set()
    for part in [0.0, 1e-6, 0.5, 1.0, 2.0, 1e3, *near]:
        trajectory = walk.with_points(walk.points * (part * limit.limit / worst))
        ok, penalty = limit.check(trajectory).ok, float(limit.penalty(trajectory))
        assert (penalty == 0) == ok, f"{part}: penalty {penalty}"
        assert penalty >= 0
        if abs(part - 1) > 1e-8:
            assert ok == (part < 1)
        seen.add(ok)
    assert seen == {True, False}


@pytest.mark.parametrize("name", plugins.names("constraint"))
def test_what_is_not_finite_breaks_a_limit(name):
    trajectory = tiny()
    limit = constraint(name, trajectory.acquisition, trajectory.scanner)
    for value in (math.nan, math.inf, -math.inf):
        k = trajectory.points.clone()
        k[2, 40, 1] = value
        broken = trajectory.with_points(k)
        finding = limit.check(broken)
        assert not finding.ok
        assert finding.shot == 2
        if limit.measure(trajectory).shape[1] > 1:  # a limit on a whole readout has its middle as the time
            assert finding.time == pytest.approx(40 * 10e-6, abs=25e-6)
        assert float(limit.penalty(broken)) != 0
        with pytest.raises(LimitError, match="shot 2"):
            limits.require(broken, [name], OPTIONS)


@pytest.mark.parametrize("name", plugins.names("constraint"))
def test_a_finding_is_the_worst_place(name):
    trajectory = tiny()
    limit = constraint(name, trajectory.acquisition, trajectory.scanner)
    k = trajectory.points.clone()
    k[1, 60] += 30.0
    finding = limit.check(trajectory.with_points(k))
    assert isinstance(limit, Constraint)
    assert finding.name == limit.name == name
    assert finding.limit == limit.limit
    assert finding.unit == limit.unit
    assert finding.value == pytest.approx(float(limit.measure(trajectory.with_points(k)).max()))
    if name not in ("extent", "acoustics"):
        # control point p lies (p - 1/2) rasters after the first gradient sample
        assert finding.shot == 1
        assert finding.time == pytest.approx(59.5 * 10e-6, abs=10.1e-6)
        assert finding.margin == pytest.approx(1 - finding.value / finding.limit)


@pytest.mark.parametrize("name", plugins.names("constraint"))
def test_a_penalty_has_a_gradient_that_lowers_it(name):
    trajectory = tiny()
    limit = constraint(name, trajectory.acquisition, trajectory.scanner)
    k = (trajectory.points * 1.5 * limit.limit / float(limit.measure(trajectory).max())).requires_grad_()
    penalty = limit.penalty(trajectory.with_points(k))
    penalty.backward()
    assert torch.isfinite(k.grad).all()
    step = 1e-3 * float(penalty.detach()) / float(k.grad.norm()) ** 2
    assert float(limit.penalty(trajectory.with_points(k.detach() - step * k.grad))) < float(penalty.detach())


def test_a_penalty_at_rest_has_a_finite_gradient():
    trajectory = tiny()
    k = torch.zeros_like(trajectory.points).requires_grad_()
    names = plugins.names("constraint")
    for limit in limits.constraints(trajectory.acquisition, trajectory.scanner, names, OPTIONS):
        limit.penalty(trajectory.with_points(k)).backward()
    assert torch.equal(k.grad, torch.zeros_like(k))


# --- reconstructors ---


SLICE = Acquisition((0.22, 0.22), (32, 32), 4, 300, 4e-6)
OTHER_SLICE = replace(SLICE, matrix=(30, 37))
FILM = replace(SLICE, n_shots=12, n_frames=3)
VOLUME = replace(SLICE, fov=(0.22, 0.22, 0.1), matrix=(32, 32, 8), n_shots=32)
TAKEN = [
    *((name, acquisition) for name in FOR_SLICES for acquisition in (SLICE, OTHER_SLICE, FILM, VOLUME)),
    *((name, FILM) for name in FOR_FILMS),
]
BY_RECONSTRUCTOR = pytest.mark.parametrize(
    ("name", "acquisition"), TAKEN, ids=[f"{name}-{acquisition.image_shape}" for name, acquisition in TAKEN]
)


def start(acquisition):
    """Return spirals, in each plane of a film or a volume turned further."""
    kind = {"kind": "spiral"} if len(acquisition.image_shape) == 2 else {"kind": "planes", "turn": 111.246}
    return plugins.build("init", kind, acquisition, Scanner())


@BY_RECONSTRUCTOR
def test_a_reconstructor_returns_real_finite_images(name, acquisition):
    torch.manual_seed(0)
    encoding = Encoding(start(acquisition))
    images = torch.randn(3, 2, *acquisition.image_shape, dtype=torch.complex64) * 0.1
    images[..., 8:20, 10:25] += 1
    model = plugins.build("reconstructor", {"kind": name})
    found = model(encoding.normal(images), encoding).detach()
    assert found.shape == (3, 1, *acquisition.image_shape)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    # before any training it shows the object at its own scale
    inside, outside = found[..., 10:18, 12:23].mean(), found[..., 24:, :6].mean()
    assert float(inside) == pytest.approx(math.sqrt(2), rel=0.15)
    assert float(outside) < 0.4
    # one image does not depend on the others in its batch
    alone = model(encoding.normal(images[:1]), encoding).detach()
    torch.testing.assert_close(alone, found[:1], rtol=1e-4, atol=1e-5)


@BY_RECONSTRUCTOR
def test_a_reconstructor_passes_gradients_to_the_trajectory_and_to_itself(name, acquisition):
    torch.manual_seed(0)
    trajectory = start(acquisition)
    k = trajectory.points.clone().requires_grad_()
    model = plugins.build("reconstructor", {"kind": name})
    images = torch.randn(2, 2, *acquisition.image_shape, dtype=torch.complex64)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *model.parameters()], lr=1e-3)
    reached = set()
    for _ in range(3):
        encoding = Encoding(trajectory.with_points(k))
        loss = (model(encoding.normal(images), encoding) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        reached |= {key for key, p in model.named_parameters() if float(p.grad.abs().max()) > 0}
        optimizer.step()
    assert torch.isfinite(k.grad).all()
    assert float(k.grad.norm()) > 0
    assert reached == {key for key, _ in model.named_parameters()}


@BY_RECONSTRUCTOR
def test_black_images_do_not_break_a_reconstructor(name, acquisition):
    trajectory = start(acquisition)
    k = trajectory.points.clone().requires_grad_()
    encoding = Encoding(trajectory.with_points(k))
    model = plugins.build("reconstructor", {"kind": name})
    found = model(encoding.normal(torch.zeros(1, 2, *acquisition.image_shape, dtype=torch.complex64)), encoding)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(k.grad).all()


def test_the_unet_is_a_short_file():
    assert len((ROOT / "reconstruction" / "reconstructors" / "unet.py").read_text().splitlines()) < 150


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"channels": -4}, {"channels": 6}, {"levels": -1}])
def test_impossible_sizes_of_the_unet_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        plugins.build("reconstructor", {"kind": "unet", **wrong})


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_any_depth_of_the_unet_fits_any_image(levels):
    model = plugins.build("reconstructor", {"kind": "unet", "levels": levels, "channels": 4})
    assert model.correction(torch.rand(2, 1, 17, 23)).shape == (2, 1, 17, 23)


# --- exporters ---


def out(name):
    return f"out{plugins.find('exporter', name).ending}"


@pytest.mark.parametrize("name", plugins.names("exporter"))
def test_an_exporter_refuses_violations_and_leaves_nothing(name, tmp_path):
    trajectory = tiny()
    wrong = {"far": trajectory.points * 2, "jump": trajectory.points.clone(), "nan": trajectory.points.clone()}
    wrong["jump"][0, 30] += 5.0
    wrong["nan"][0, 30] = math.nan
    for k in wrong.values():
        with pytest.raises(LimitError):
            export(trajectory.with_points(k), tmp_path / out(name), format=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", plugins.names("exporter"))
def test_an_exporter_is_deterministic_and_proves_its_file(name, tmp_path):
    trajectory = tiny()
    contents = []
    for folder in ("a", "b"):
        path = tmp_path / folder / out(name)
        facts = export(trajectory, path, format=name)
        assert facts["max_k_error_fov"] <= 1e-3
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_file_of_each_ending_has_one_reader():
    readers = {name: plugins.find("exporter", name).reads for name in plugins.names("exporter")}
    endings = [ending for reads in readers.values() for ending in reads]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


@pytest.mark.parametrize("name", [n for n in plugins.names("exporter") if not plugins.find("exporter", n).reads])
def test_a_format_that_reads_nothing_says_so(name, tmp_path):
    (tmp_path / out(name)).touch()
    with pytest.raises(InputError, match=rf"{out(name)}: files \.\w+ are written, and not read\.$"):
        plugins.build("exporter", {"kind": name}).read(tmp_path / out(name))
    with pytest.raises(InputError, match="is of no known kind of trajectory"):
        foreign_files.read(tmp_path / out(name))


@pytest.mark.parametrize("name", [n for n in plugins.names("exporter") if plugins.find("exporter", n).reads])
def test_a_format_reads_what_it_wrote_itself(name, tmp_path):
    trajectory = tiny()
    export(trajectory, tmp_path / out(name), format=name)
    found = foreign_files.read(tmp_path / out(name))
    if isinstance(found, Samples):
        scale = 1 / 0.22 if found.unit == "1/fov" else 1.0
        wanted = trajectory.k_adc if found.raster is None else trajectory.points
        np.testing.assert_allclose(found.k * scale, wanted, rtol=0, atol=1e-3)
    else:
        assert torch.equal(found.points, trajectory.points)


def test_a_format_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "raw_k.py").write_text(
        "import numpy as np\n"
        "from trajdesign.interfaces import Format\n"
        "class RawK(Format):\n"
        "    ending = '.K'\n"
        "    def __init__(self, *, scale: float = 1.0):\n"
        "        self.scale = scale\n"
        "    def write(self, trajectory, path):\n"
        "        path.write_bytes((trajectory.k_adc.numpy() * self.scale).tobytes())\n"
        "        return {'scale': self.scale}\n"
        "    def read_back(self, path, trajectory):\n"
        "        k = np.frombuffer(path.read_bytes()).reshape(trajectory.k_adc.shape)\n"
        "        return {'raw': k}, {}\n"
        "def no_format():\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trajectory = tiny()
    facts = export(trajectory, tmp_path / "a.k", format="raw_k:RawK")
    assert (facts["k_error_fov_by_reader"], facts["scale"]) == ({"raw": 0.0}, 1.0)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "a.k"), trajectory.k_adc.numpy().ravel())
    with pytest.raises(LimitError, match=r"raw reads a k from the file that is .*/FOV away"):
        export(trajectory, tmp_path / "b.k", format="raw_k:RawK", options={"scale": 1.01})
    with pytest.raises(ConfigError, match=r"must end in \.K"):
        export(trajectory, tmp_path / "b.csv", format="raw_k:RawK")
    with pytest.raises(ConfigError, match=r"'raw_k:no_format' is no trajdesign\.interfaces\.Format"):
        export(trajectory, tmp_path / "b.k", format="raw_k:no_format")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.k", "raw_k.py"]


# --- data sources ---


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_default_data_source_needs_no_files(split):
    small = {"kind": "phantom", "n_train": 2, "n_val": 2, "n_test": 2, "n_coils": 3}
    dataset = plugins.build("data", small, Acquisition(matrix=(32, 24), fov=(0.2, 0.15)), split)
    assert len(dataset) == 2
    for image in dataset:
        assert image.shape == (3, 24, 32)
        assert image.dtype == torch.complex64
        assert float(torch.linalg.vector_norm(image, dim=0).max()) == pytest.approx(1, rel=1e-5)
