"""From a trajectory to a file and back, in every format, and nothing left behind by what breaks a limit."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, LimitError, OutputError
from trajdesign.exporting.proof import export
from trajdesign.physics import limits
from trajdesign.physics.projection import project
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner
from trajdesign.trajectories.formats.pulseq import Pulseq
from trajdesign.trajectories.loading import Given, load, load_sampled
from trajdesign.trajectory import Trajectory, n_points

GE_LIKE = {
    "gradient_raster": 4e-6,
    "rf_raster": 2e-6,
    "adc_raster": 2e-6,
    "block_raster": 4e-6,
    "adc_dead_time": 40e-6,
    "rf_ringdown_time": 60e-6,
}


def made_feasible(k, acquisition, scanner, name):
    """Scale each shot about its mean, and then its mean, until every limit has a percent of room."""
    k = torch.as_tensor(k, dtype=torch.float64)
    mean = k.mean(dim=1, keepdim=True)
    for _ in range(200):
        findings = limits.check(Trajectory(k, acquisition, scanner, name))
        if all(f.margin > 0.01 for f in findings):
            break
        mean = 0.97 * mean
        k = mean + 0.97 * (k - k.mean(dim=1, keepdim=True))
    return Trajectory(k, acquisition, scanner, name)


def spokes(acquisition, scanner):
    line = np.linspace(-1, 1, n_points(acquisition, scanner))[None, :, None] * acquisition.k_max[0]
    angles = 0.2 + np.pi * np.arange(acquisition.n_shots)[:, None, None] / acquisition.n_shots
    k = line * np.concatenate([np.cos(angles), np.sin(angles)], axis=2)
    return made_feasible(k, acquisition, scanner, "spokes")


def smooth(acquisition, scanner, seed=3):
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n_points(acquisition, scanner))
    waves = np.stack([np.cos(np.pi * m * t) for m in range(9)])
    size = rng.normal(size=(acquisition.n_shots, 2, 9)) / (1 + np.arange(9) / 3)
    k = np.einsum("sdm,mt->std", size, waves) * acquisition.k_max[0]
    return made_feasible(k, acquisition, scanner, "smooth")


def spiral(acquisition, scanner):
    t = np.linspace(0, 1, n_points(acquisition, scanner)) ** 2
    angles = 2 * np.pi * (3 * t[None] + np.arange(acquisition.n_shots)[:, None] / acquisition.n_shots)
    k = acquisition.k_max[0] * t[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], axis=2)
    return made_feasible(k, acquisition, scanner, "spiral")


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
@pytest.mark.parametrize("pattern", [spokes, smooth, spiral])
def test_both_readers_find_what_was_meant(tmp_path, pattern, version):
    trajectory = pattern(Acquisition(n_shots=3), Scanner())
    path = tmp_path / "scan.seq"
    report = export(trajectory, path, options={"pulseq_version": version, "sequence": {"n_dummies": 2}})
    assert report["max_k_error_fov"] < 1e-5
    assert report["rms_k_error_fov"] <= report["max_k_error_fov"]
    assert report["reader_difference_fov"] < 1e-6
    assert set(report["k_error_fov_by_reader"]) == {"seqfile", "pypulseq"}
    assert report["timing_ok"]
    assert report["version"] == version == player.read(path).version
    assert report["max_gradient"] <= trajectory.scanner.max_gradient
    assert report["max_slew"] <= trajectory.scanner.max_slew
    assert report["duration"] == pytest.approx(5 * report["tr"])
    beside = np.load(tmp_path / "scan_k.npz")
    fov = trajectory.acquisition.fov[0]
    assert np.abs(beside["k_adc"] - trajectory.k_adc.numpy()).max() * fov < 1e-5
    assert str(beside["seq_md5"]) == report["md5"]
    assert float(beside["dwell_s"]) == trajectory.acquisition.dwell
    of = trajectory.acquisition
    refit, residual = load_sampled(
        tmp_path / "scan_k.npz", trajectory.scanner, Given("1/m", of.fov, of.dwell, of.matrix)
    )
    assert residual[0] < 1e-2
    assert refit.k_adc.shape == trajectory.k_adc.shape


@pytest.mark.parametrize(
    ("scanner", "dwell"),
    [
        (Scanner(), 5e-6),
        (Scanner(), 2e-6),
        (Scanner(), 12.5e-6),
        (Scanner(**GE_LIKE), 4e-6),
        (Scanner(**GE_LIKE), 2e-6),
        (Scanner(limit_norm="axis"), 4e-6),
        (Scanner(gradient_raster=20e-6, block_raster=20e-6), 2e-6),
        (Scanner(nucleus="13C"), 4e-6),
        (Scanner(max_gradient=24e-3, max_slew=45.0), 4e-6),
    ],
)
def test_rasters_dwells_norms_and_nuclei(tmp_path, scanner, dwell):
    acquisition = Acquisition(n_shots=2, n_samples=400, dwell=dwell, matrix=(64, 64))
    trajectory = smooth(acquisition, scanner)
    report = export(trajectory, tmp_path / "x.seq", options={"sequence": {"n_dummies": 1}})
    assert report["max_k_error_fov"] < 1e-5
    assert report["reader_difference_fov"] < 1e-6
    order = 2 if scanner.limit_norm == "vector" else np.inf
    played = player.read(tmp_path / "x.seq")
    gradient, slew = played.extremes(scanner.gamma, scanner.limit_norm)
    readout = np.linalg.norm(trajectory.gradient.numpy(), ord=order, axis=2).max()
    assert readout * (1 - 1e-6) <= gradient <= scanner.max_gradient
    assert slew <= scanner.max_slew


def test_a_waveform_at_the_limit_survives_the_rounding_of_the_file(tmp_path):
    # the gradient rises at exactly the largest slew rate for 0.4 ms, then stays
    scanner = Scanner(max_gradient=0.1)
    acquisition = Acquisition((0.04, 0.04), (1024, 1024), n_shots=1, n_samples=500, dwell=2e-6)
    step = scanner.max_slew * scanner.gradient_raster
    samples = np.minimum(np.arange(n_points(acquisition, scanner) - 1), 40) * step
    line = np.append(0, np.cumsum(samples)) * scanner.gamma * scanner.gradient_raster
    k = (line - line.mean())[None, :, None] * np.array([0.6, 0.8])
    trajectory = Trajectory(torch.from_numpy(k), acquisition, scanner)
    assert float(trajectory.slew.norm(dim=2).max()) == pytest.approx(scanner.max_slew, rel=1e-9)
    report = export(trajectory, tmp_path / "x.seq")
    assert report["max_slew"] == pytest.approx(scanner.max_slew, rel=1e-6)


def test_export_is_deterministic_and_never_overwrites_unasked(tmp_path):
    trajectory = spokes(Acquisition(n_shots=2), Scanner())
    export(trajectory, tmp_path / "a.seq")
    export(trajectory, tmp_path / "b.seq")
    content = (tmp_path / "a.seq").read_bytes()
    assert content == (tmp_path / "b.seq").read_bytes()
    assert (tmp_path / "a_k.npz").read_bytes() == (tmp_path / "b_k.npz").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        export(trajectory, tmp_path / "a.seq")
    (tmp_path / "a.seq").unlink()
    with pytest.raises(OutputError, match=r"a_k\.npz"):
        export(trajectory, tmp_path / "a.seq")
    assert not (tmp_path / "a.seq").exists()
    export(trajectory, tmp_path / "a.seq", overwrite=True)
    assert (tmp_path / "a.seq").read_bytes() == content


def broken(kind):
    trajectory = smooth(Acquisition(n_shots=2, n_samples=300), Scanner())
    k = trajectory.points.clone()
    if kind == "slew":
        k[1, 40:] += 1.0
    elif kind == "gradient":
        k[0] += torch.linspace(-400, 400, k.shape[1])[:, None]
    elif kind == "start jump":
        k[1, 0] += 3.0
    elif kind == "nan":
        k[0, 5, 1] = torch.nan
    elif kind == "inf":
        k[1, -1, 0] = torch.inf
    return trajectory.with_points(k, "broken")


@pytest.mark.parametrize("name", ["x.seq", "x.csv", "x.npz"])
@pytest.mark.parametrize("kind", ["slew", "gradient", "start jump", "nan", "inf"])
def test_nothing_is_left_of_what_breaks_a_limit(tmp_path, kind, name):
    formats = {"seq": "pulseq", "csv": "csv", "npz": "npz"}
    with pytest.raises(LimitError, match="broken"):
        export(broken(kind), tmp_path / name, format=formats[name[-3:]], overwrite=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dwell", [4e-6, 5e-6])  # with the centre at a sample, and half a us before one
@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
def test_the_file_itself_passes_the_centre_at_the_echo_time(tmp_path, monkeypatch, version, dwell):
    in_out = plugins.build(
        "init", {"kind": "spiral", "in_out": True}, Acquisition(n_samples=800, dwell=dwell), Scanner()
    )
    options = {"pulseq_version": version}
    for time in (400 * dwell - float(in_out.adc_times[0]), "auto"):
        report = export(
            in_out, tmp_path / "x.seq", options=options, constraints={"echo": {"time": time}}, overwrite=True
        )
        assert report["echo_k_fov"] < 2e-7
    k = player.read(tmp_path / "x.seq").k  # which sample 400 is near, or at
    at = np.array([shot[400, :2] for shot in k]) - in_out.k_adc[:, 400].numpy()
    assert np.linalg.norm(at * 0.22, axis=1).max() == pytest.approx(report["echo_k_fov"], abs=1e-7)
    assert "echo_k_fov" not in export(in_out, tmp_path / "y.seq", options=options)
    with pytest.raises(LimitError, match=r"breaks 1 limit.*echo"):
        export(in_out, tmp_path / "z.seq", options=options, constraints={"echo": {"time": 1e-3}})
    without = export(in_out, tmp_path / "z.seq", options=options, constraints={"echo": {"time": 1e-3}}, ignore=["echo"])
    assert "echo_k_fov" not in without
    read_back = Pulseq.read_back

    def shifted(self, path, trajectory):
        read, facts = read_back(self, path, trajectory)
        return {reader: k + 1e-5 / 0.22 for reader, k in read.items()}, facts

    monkeypatch.setattr(Pulseq, "read_back", shifted)
    with pytest.raises(LimitError, match=r"1\.4\de-05/FOV from the centre at the echo time"):
        export(in_out, tmp_path / "w.seq", options=options, constraints={"echo": {"time": "auto"}})
    assert not (tmp_path / "w.seq").exists()


TEMPLATE = """
import numpy as np
from trajdesign.config import plugins
original = plugins.find("sequence", "gre_2d")


def build(trajectory, **options):
    sequence = original(trajectory, **options)
    {damage}
    return sequence
"""

_LAST_GRADIENT = "key = max(k for k in sequence.grad_library.data if sequence.grad_library.type[k] == 'g')"
_CHANGE = "; a, f, l, *rest = sequence.grad_library.data[key]; sequence.grad_library.data[key] = "


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_LAST_GRADIENT + _CHANGE + "(1.001 * a, f, l, *rest)", "away from the trajectory|turns of phase"),
        (_LAST_GRADIENT + _CHANGE + "(5 * a, f, l, *rest)", "largest"),
        (_LAST_GRADIENT + _CHANGE + "(a, f, 500.0, *rest)", "starts or ends at"),
        (
            "sequence.adc_library.data[1] = (*sequence.adc_library.data[1][:2], 0.0, *"
            "sequence.adc_library.data[1][3:])",
            "timing",
        ),
        ("sequence.block_events.popitem()", "ADC events"),
        ("sequence.definitions.pop('TE')", "lacks the definitions TE"),
        ("sequence.set_definition('FOV', [0.22, 0.3, 0.005])", r"says FOV \[0.22, 0.3\] m.*\[0.22, 0.22\] m"),
    ],
)
def test_a_template_that_plays_something_else_is_found_out(tmp_path, damage, match):
    template = tmp_path / "mine.py"
    template.write_text(TEMPLATE.format(damage=damage))
    trajectory = smooth(Acquisition(n_shots=1, n_samples=300), Scanner())
    with pytest.raises((LimitError, ConfigError), match=match):
        export(trajectory, tmp_path / "x.seq", options={"sequence": str(template)})
    assert [file.name for file in tmp_path.glob("*") if file.is_file()] == ["mine.py"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("trajectory.points.mul_(0.5)", "away from the trajectory"),
        ("trajectory.points.copy_(trajectory.points.flip(0))", "away from the trajectory"),
        ("object.__setattr__(trajectory.scanner, 'max_slew', 400.0)", "slew rate"),
    ],
)
def test_a_template_that_changes_the_trajectory_is_not_proven_against_its_change(tmp_path, change, match):
    template = TEMPLATE.replace("    sequence = original", f"    {change}\n    sequence = original")
    (tmp_path / "mine.py").write_text(template.format(damage="pass"))
    trajectory = smooth(Acquisition(n_shots=2, n_samples=300), Scanner())
    k = trajectory.points.clone()
    with pytest.raises(LimitError, match=match):
        export(trajectory, tmp_path / "x.seq", options={"sequence": str(tmp_path / "mine.py")})
    assert torch.equal(trajectory.points, k)
    assert trajectory.scanner == Scanner()
    assert [file.name for file in tmp_path.glob("*") if file.is_file()] == ["mine.py"]


def test_te_and_tr(tmp_path):
    trajectory = spokes(Acquisition(n_shots=2), Scanner())
    shortest = export(trajectory, tmp_path / "a.seq")
    wanted = {"te": shortest["te"] + 1e-3, "tr": shortest["tr"] + 3e-3}
    longer = export(trajectory, tmp_path / "b.seq", options={"sequence": wanted})
    assert longer["te"] == pytest.approx(wanted["te"], abs=1e-5)
    assert longer["tr"] == pytest.approx(wanted["tr"], abs=1e-5)
    played = player.read(tmp_path / "b.seq")
    assert np.diff(played.excitations) == pytest.approx(longer["tr"])
    nearest = np.argmin(np.linalg.norm(played.k_adc, axis=2).sum(axis=0))
    assert played.adc_times[:, nearest] - played.excitations[-2:] == pytest.approx(longer["te"])
    for key in ("te", "tr"):
        with pytest.raises(ConfigError, match=rf"{key} is .*; the shortest possible is {shortest[key]:.6f}"):
            export(trajectory, tmp_path / "c.seq", options={"sequence": {key: shortest[key] - 2e-5}})


def test_the_sequence_that_is_played(tmp_path):
    pp = pytest.importorskip("pypulseq")
    trajectory = spokes(Acquisition(n_shots=4), Scanner())
    trajectory = trajectory.with_points(trajectory.points, "x\n[BLOCKS]\n1 2 3 é")
    export(trajectory, tmp_path / "x.seq", options={"sequence": {"n_dummies": 3, "flip_angle_deg": 12.0}})
    sequence = pp.Sequence(parts.system(trajectory.scanner))
    sequence.read(str(tmp_path / "x.seq"))
    played = [sequence.get_block(key) for key in sequence.block_events]
    pulses = [block.rf for block in played if block.rf is not None]
    samplers = [block.adc for block in played if block.adc is not None]
    assert (len(pulses), len(samplers)) == (7, 4)
    flip = np.abs(np.sum(pulses[0].signal)) * trajectory.scanner.rf_raster * 360
    assert flip == pytest.approx(12.0, rel=1e-4)
    # quadratic RF spoiling, and a receiver in phase with it
    phases = np.degrees([pulse.phase_offset for pulse in pulses])
    assert np.cos(np.radians(np.diff(phases, n=2) - 117)) == pytest.approx(1)
    assert [adc.phase_offset for adc in samplers] == [pulse.phase_offset for pulse in pulses[3:]]
    assert len({(adc.num_samples, adc.dwell, adc.delay) for adc in samplers}) == 1
    assert sequence.evaluate_labels(evolution="adc")["LIN"].tolist() == [0, 1, 2, 3]
    assert sequence.definitions["Name"] == "x__BLOCKS__1_2_3__"
    assert sequence.definitions["FOV"] == pytest.approx([0.22, 0.22, 5e-3])
    # the slice: bandwidth of the pulse over the gradient
    assert 4 / 2e-3 / played[0].gz.amplitude == pytest.approx(5e-3, rel=1e-4)


@pytest.mark.parametrize(("name", "n_dims"), [("csv", 2), ("csv", 3), ("npz", 2), ("npz", 3)])
def test_other_formats(tmp_path, name, n_dims):
    acquisition = Acquisition((0.2,) * n_dims, (64,) * n_dims, 3, 200)
    scanner = Scanner()
    line = torch.linspace(-0.5, 0.5, n_points(acquisition, scanner), dtype=torch.float64)
    ends = torch.tensor([[60.0, 20, 9], [-30, 80, 7], [10, 10, 90]], dtype=torch.float64)[:, None, :n_dims]
    trajectory = Trajectory(line[None, :, None] * ends, acquisition, scanner, "lines é\n1,2")
    path = tmp_path / f"x.{name}"
    report = export(trajectory, path, format=name)
    assert report["max_k_error_fov"] < 1e-9
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if name == "npz":
        assert torch.equal(load(path).points, trajectory.points)
    else:
        table = np.loadtxt(path, delimiter=",")
        assert table.shape == (3 * trajectory.gradient.shape[1], 2 + 2 * n_dims)
        gradient = table[:, 2 : 2 + n_dims].reshape(3, -1, n_dims)
        assert gradient * 1e-3 == pytest.approx(trajectory.gradient.numpy(), rel=1e-12)
        assert np.diff(table[:200, 1])[:50] == pytest.approx(10e-6)


def test_unusable_requests(tmp_path):
    trajectory = spokes(Acquisition(n_shots=1), Scanner())
    for options, path, match in (
        ({"sequence": "gre_2s"}, "x.seq", "did you mean 'gre_2d'"),
        ({"sequence": "none/at/all.py"}, "x.seq", "unknown sequence"),
        ({"sequence": {"flip_angle": 3.0}}, "x.seq", "flip_angle_deg"),
        ({"sequence": {"flip_angle_deg": 400.0}}, "x.seq", "flip_angle_deg is 400"),
        ({"sequence": {"slice_thickness": 5.0}}, "x.seq", "slice_thickness is 5"),
        ({"sequence": {"n_dummies": -1}}, "x.seq", "n_dummies"),
        ({"sequence": {"bridge_slew": 0.0}}, "x.seq", "bridge_slew"),
        ({"pulseq_version": "1.3.0"}, "x.seq", "pulseq_version"),
        ({}, "x.txt", "must end in .seq"),
    ):
        with pytest.raises(ConfigError, match=match):
            export(trajectory, tmp_path / path, options=options)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "wrong.py").write_text("def build(): ...")
    (tmp_path / "nothing.py").write_text("def build(trajectory): ...")
    for name, match in (("empty", "no function build"), ("wrong", "no function build"), ("nothing", "returned no")):
        with pytest.raises(ConfigError, match=match):
            export(trajectory, tmp_path / "x.seq", options={"sequence": str(tmp_path / f"{name}.py")})
    volume = Acquisition((0.2,) * 3, (32,) * 3, 1, 100)
    still = Trajectory(torch.zeros(1, n_points(volume, Scanner()), 3, dtype=torch.float64), volume, Scanner())
    with pytest.raises(ConfigError, match="gre_2d plays 2D trajectories"):
        export(still, tmp_path / "x.seq", options={"sequence": "gre_2d"})
    assert not list(tmp_path.glob("x*"))


def test_a_damaged_file_is_refused_before_pypulseq_can_hang_on_it(tmp_path):
    trajectory = spokes(Acquisition(n_shots=1), Scanner())
    Pulseq().write(trajectory, tmp_path / "x.seq")
    content = (tmp_path / "x.seq").read_bytes()
    for part in (0.0, 0.3, 0.6, 0.9, 0.999):
        (tmp_path / "x.seq").write_bytes(content[: int(part * len(content))])
        with pytest.raises(LimitError, match="does not read back"):
            Pulseq().read_back(tmp_path / "x.seq", trajectory)


def test_a_seq_file_has_lf_where_the_system_has_other_lines(tmp_path, monkeypatch):
    # pypulseq opens text as the system does: on Windows it writes CR LF, and signs what it reads back, which is LF
    trajectory = spokes(Acquisition(matrix=(16, 16), n_shots=2, n_samples=64, dwell=8e-6), Scanner())
    Pulseq().write(trajectory, tmp_path / "here.seq")

    def on_windows(path, mode):
        return open(path, mode, newline=None if mode == "r" else "\r\n")  # noqa: PTH123

    monkeypatch.setattr(sys.modules["pypulseq.Sequence.write_seq"], "open", on_windows, raising=False)
    Pulseq().write(trajectory, tmp_path / "there.seq")
    monkeypatch.undo()
    assert b"\r" not in (tmp_path / "there.seq").read_bytes()
    assert (tmp_path / "there.seq").read_bytes() == (tmp_path / "here.seq").read_bytes()
    assert Pulseq().read_back(tmp_path / "there.seq", trajectory)[1]["md5"] == player.read(tmp_path / "here.seq").md5


def test_the_module_imports_no_pypulseq():
    code = "import sys, trajdesign.exporting.proof, trajdesign.cli.app; sys.exit('pypulseq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
def test_the_file_itself_nulls_the_first_moment_of_the_readout(tmp_path, version):
    options = {"echo": {"time": "auto", "moment": True}}
    in_out = plugins.build("init", {"kind": "spiral", "in_out": True}, Acquisition(n_samples=800), Scanner())
    names = ["extent", "gradient", "receiver", "slew", "echo"]
    constraints = limits.constraints(in_out.acquisition, in_out.scanner, names, options)
    nulled = project(in_out, [constraint.from_start(in_out) for constraint in constraints])
    report = export(nulled, tmp_path / "x.seq", options={"pulseq_version": version}, constraints=options)
    assert max(report["echo_k_fov"], report["echo_moment_fov"]) < 1e-6
    file = player.read(tmp_path / "x.seq")
    echo = 400 * in_out.acquisition.dwell
    cells = int(file.numbers("PrephaserCells")[0])
    for adc, told in zip(file.adcs, file.k, strict=True):
        first, end = adc.clock + (cells + 0.5) * 10e-6, adc.times[400]  # the first gradient sample of the readout
        assert first == pytest.approx(adc.times[0], abs=1e-9)
        # the integral of G t: of straight lines, so Simpson's rule is exact in each of them
        edges = np.unique(np.append(np.arange(first, end, 10e-6), end))
        moments = np.zeros(3)
        for a, b in itertools.pairwise(edges):
            g = file.gradient_at(np.array([a, (a + b) / 2, b - 1e-12]))
            moments += (b - a) / 6 * (g[0] * (a - end) + 4 * g[1] * ((a + b) / 2 - end) + g[2] * (b - end))
        # about the echo it is what the area before the readout makes, as if it were played when the readout starts
        assert np.linalg.norm(told[400, :2]) * 0.22 < 1e-6
        assert (moments + told[0] * (first - end))[:2] / echo * 0.22 == pytest.approx(0, abs=1e-6)
    with pytest.raises(LimitError, match=r"breaks 1 limit.*echo"):
        export(in_out, tmp_path / "y.seq", constraints=options)
