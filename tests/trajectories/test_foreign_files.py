"""Trajectories of other programs, as those programs and their own readers have them."""

import shutil
import subprocess
import sys

import mrinufft
import mrinufft.io
import numpy as np
import pypulseq
import pytest

import trajdesign
from trajdesign import Acquisition, Scanner
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.files import arrays, untrusted
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectories.loading import Given, load, load_sampled

ACQUISITION = Acquisition(fov=(0.24, 0.2), matrix=(32, 24), n_shots=3, n_samples=400)


@pytest.fixture(scope="module")
def trajectory():
    return spiral(ACQUISITION, Scanner(), turns=1.0)


@pytest.fixture(scope="module")
def files(trajectory, tmp_path_factory):
    """Return a folder with the trajectory in every format that we write."""
    folder = tmp_path_factory.mktemp("files")
    for name, format in (("gre.seq", "pulseq"), ("shots.bin", "neurospin"), ("traj.cfl", "bart")):
        export(trajectory, folder / name, format=format)
    np.save(folder / "coord.npy", trajectory.k_adc.numpy() * trajectory.acquisition.voxel)
    return folder


@pytest.mark.parametrize(
    ("name", "unit"), [("gre.seq", None), ("shots.bin", None), ("traj.cfl", None), ("coord.npy", "normalized")]
)
def test_a_run_starts_from_a_file_of_any_program(trajectory, files, name, unit):
    table = {"kind": "file", "path": str(files / name), "k_unit": unit}
    again = plugins.build("init", table, ACQUISITION, Scanner(max_gradient=51e-3, max_slew=210.0))
    assert np.abs((again.k_adc - trajectory.k_adc).numpy()).max() * max(ACQUISITION.fov) < 1e-5


def test_what_a_complete_file_tells_need_not_be_given(trajectory, files):
    from_seq, from_bin = trajdesign.load(files / "gre.seq"), trajdesign.load(files / "shots.bin")
    assert from_seq.acquisition.fov == pytest.approx(ACQUISITION.fov)
    assert from_bin.acquisition.fov == pytest.approx(ACQUISITION.fov)
    assert from_seq.acquisition.dwell == pytest.approx(4e-6)
    assert from_bin.acquisition.dwell == pytest.approx(3.3e-6)  # at least three samples a raster
    assert from_bin.acquisition.matrix == ACQUISITION.matrix
    assert np.abs((from_bin.points - trajectory.points).numpy()).max() < 1e-3


def test_any_pulseq_file_is_read_as_pypulseq_reads_it(tmp_path):
    system = pypulseq.Opts(max_grad=30, grad_unit="mT/m", max_slew=120, slew_unit="T/m/s", rf_ringdown_time=30e-6)
    seq = pypulseq.Sequence(system)
    rf = pypulseq.make_block_pulse(0.2, duration=1e-3, system=system, use="excitation")
    gx = pypulseq.make_trapezoid("x", flat_area=200, flat_time=2e-3, system=system)
    gy = pypulseq.make_trapezoid("y", area=150, duration=1e-3, system=system)
    gx_pre = pypulseq.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=system)
    adc = pypulseq.make_adc(200, duration=2e-3, delay=gx.rise_time, system=system)
    for scale in (-1.0, -0.3, 0.4, 1.0):
        seq.add_block(rf)
        seq.add_block(gx_pre, pypulseq.scale_grad(gy, scale))
        seq.add_block(gx, adc)
    seq.set_definition("FOV", [0.2, 0.2, 0.005])
    seq.write(str(tmp_path / "gre.seq"))
    wanted = seq.calculate_kspace()[0].T.reshape(4, 200, 3)
    found = load(tmp_path / "gre.seq")
    assert found.acquisition.fov == (0.2, 0.2)
    assert (found.acquisition.n_shots, found.acquisition.n_samples) == (4, 200)
    assert found.acquisition.dwell == pytest.approx(10e-6)
    np.testing.assert_allclose(found.k_adc, wanted[..., :2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("version", [4.2, 5.0])
def test_neurospin_files_are_read_as_mri_nufft_reads_them(tmp_path, version):
    samples = mrinufft.initialize_2D_radial(4, 256, in_out=True)
    mrinufft.io.write_trajectory(
        samples, (0.24, 0.24), (64, 64), str(tmp_path / "shots"), version=version, check_constraints=False
    )
    wanted, _ = mrinufft.io.read_trajectory(str(tmp_path / "shots.bin"), read_shots=True, normalize_factor=None)
    found = foreign_files.read(tmp_path / "shots.bin")
    assert found.fov == pytest.approx((0.24, 0.24))
    assert found.matrix == (64, 64)
    np.testing.assert_allclose(found.k, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("options", [["-r"], ["-r", "-3"]])
def test_trajectories_of_bart(tmp_path, options):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    command = ["bart", "traj", "-x", "64", "-y", "5", *options, "k"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = foreign_files.read(tmp_path / "k.cfl")
    assert found.unit == "1/fov"
    assert found.k.shape == (5, 64, 3 if "-3" in options else 2)
    radius = np.linalg.norm(found.k, axis=-1)
    np.testing.assert_allclose(radius, np.broadcast_to(np.abs(np.arange(64) - 32 + 0.5), (5, 64)), rtol=0, atol=0.51)


def test_a_contradiction_to_the_file_is_refused(files):
    for changes, sentence in (
        ({"k_unit": "rad/m"}, r"gre\.seq has the k unit 1/m, not rad/m"),
        ({"dwell": 5e-6}, r"gre\.seq has the dwell time 4e-06, not 5e-06"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            load_sampled(files / "gre.seq", Scanner(), Given(**changes))
    with pytest.raises(ConfigError, match=r"coord\.npy does not tell its k unit; give it"):
        load_sampled(files / "coord.npy", scanner=Scanner())
    with pytest.raises(ConfigError, match=r"traj\.cfl does not tell its field of view"):
        load_sampled(files / "traj.cfl", scanner=Scanner())
    with pytest.raises(ConfigError, match=r"traj\.cfl does not tell its dwell time"):
        load_sampled(files / "traj.cfl", Scanner(), Given(fov=(0.2,)))
    with pytest.raises(ConfigError, match=r"shots\.bin is for a gradient raster of 1e-05 s, not 4e-06 s"):
        load_sampled(files / "shots.bin", scanner=Scanner(gradient_raster=4e-6))


def test_samples_that_the_raster_cannot_play_are_refused(tmp_path):
    np.save(tmp_path / "jagged.npy", np.random.default_rng(0).uniform(-0.5, 0.5, size=(3, 400, 2)))
    table = {"kind": "file", "path": str(tmp_path / "jagged.npy"), "k_unit": "normalized"}
    with pytest.raises(InputError, match=r"jagged\.npy: straight gradients on a raster of 1e-05 s miss its samples by"):
        plugins.build("init", table, ACQUISITION, Scanner())


@pytest.mark.parametrize("name", ["gre.seq", "shots.bin", "traj.cfl", "coord.npy"])
def test_damaged_files_are_one_sentence(files, tmp_path, name):
    content = (files / name).read_bytes()
    if name == "traj.cfl":
        shutil.copy(files / "traj.hdr", tmp_path / "traj.hdr")
    for length in (0, 3, 10, 70, len(content) // 2, len(content) - 5):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            foreign_files.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        foreign_files.read(tmp_path / f"missing{name}")


def test_what_is_no_trajectory_is_one_sentence(tmp_path):
    (tmp_path / "k.txt").write_text("1 2 3")
    with pytest.raises(
        InputError, match=r"k\.txt is of no known kind of trajectory \(\.bin, \.cfl, \.npy, \.npz, \.seq\)"
    ):
        foreign_files.read(tmp_path / "k.txt")
    np.save(tmp_path / "k.npy", np.zeros((3, 2)))
    with pytest.raises(InputError, match="not a real"):
        foreign_files.read(tmp_path / "k.npy")
    (tmp_path / "k.hdr").write_text("# Dimensions\n2 3 4\n")
    np.zeros(24, dtype="<c8").tofile(tmp_path / "k.cfl")
    with pytest.raises(InputError, match=r"a trajectory of BART has \(3, sample, shot\)"):
        foreign_files.read(tmp_path / "k.cfl")


def cfl(folder, array, dimensions=None):
    """Write an array of BART's axes."""
    (folder / "k.hdr").write_text(f"# Dimensions\n{' '.join(map(str, dimensions or array.shape))} 1 1\n")
    (folder / "k.cfl").write_bytes(np.asarray(array, "<c8").tobytes(order="F"))
    return folder / "k.cfl"


def test_k_of_bart_is_real(tmp_path):
    k = np.random.default_rng(0).normal(size=(3, 6, 4))
    found = foreign_files.read(cfl(tmp_path, k))
    np.testing.assert_array_equal(found.k, k.astype("<f4").transpose(2, 1, 0))
    # frames follow shots
    np.testing.assert_array_equal(foreign_files.read(cfl(tmp_path, k, (3, 6, 2, 1, 2))).k, found.k)
    wrong = k.astype(complex)
    for imaginary in (1e-6, np.nan):
        wrong[1, 5, 2] = complex(1, imaginary)
        with pytest.raises(InputError, match=r"k\.cfl: k is complex, first at shot 2, sample 5, axis 1"):
            foreign_files.read(cfl(tmp_path, wrong))
    k[0, 3, 1] = np.nan
    with pytest.raises(InputError, match=r"k\.cfl: k is not finite at shot 1, sample 3"):
        foreign_files.read(cfl(tmp_path, k))
    with pytest.raises(InputError, match=r"has the dimensions \(6, 3, 4, 1, 1\); a trajectory of BART has"):
        foreign_files.read(cfl(tmp_path, k.transpose(1, 0, 2)))


@pytest.mark.parametrize("dtype", [int, complex])
def test_k_is_of_real_numbers(tmp_path, dtype):
    k, other = np.ones((2, 8, 2), dtype), np.zeros((2, 8, 2))
    np.save(tmp_path / "k.npy", k)
    np.savez(tmp_path / "k.npz", k=k, weights=other)  # of which the weights are not taken in its place
    for name in ("k.npy", "k.npz"):
        with pytest.raises(InputError, match=rf"holds {k.dtype} of shape \(2, 8, 2\), not a real"):
            foreign_files.read(tmp_path / name)
    np.savez(tmp_path / "k.npz", k=other + 1, weights=other)
    np.testing.assert_array_equal(foreign_files.read(tmp_path / "k.npz").k, other + 1)
    np.savez(tmp_path / "k.npz", a=other, b=other)
    with pytest.raises(InputError, match="it has 2"):
        foreign_files.read(tmp_path / "k.npz")


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (-1, np.nan, "the gradient is not finite at shot 2, sample"),  # of the rewinder, behind the readout
        (11, -10.0, r"its largest gradient is -0\.01 T/m"),
        (8, 2.5, "damaged"),
        (4, 32.5, "damaged"),
    ],
)
def test_damaged_numbers_of_neurospin_are_refused(files, tmp_path, place, value, sentence):
    values = np.fromfile(files / "shots.bin", "<f4")
    values[place] = value
    values.tofile(tmp_path / "x.bin")
    with pytest.raises(InputError, match=sentence):
        foreign_files.read(tmp_path / "x.bin")


def test_a_file_is_read_without_what_writes_others(tmp_path, trajectory):
    trajectory.save(tmp_path / "k.npz")
    code = (
        "import sys; from trajdesign.trajectories import foreign_files; foreign_files.read(sys.argv[1]); "
        "print(*[m for m in ('pypulseq', 'clarabel', 'ismrmrd', 'matplotlib') if m in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "k.npz")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == []


def test_a_file_is_opened_once(files, tmp_path, monkeypatch, trajectory):
    trajectory.save(tmp_path / "ours.npz")
    opened, once = [], untrusted.opened

    def counted(path, *words, **options):
        opened.append(path.name)
        return once(path, *words, **options)

    for module in (untrusted, arrays):
        monkeypatch.setattr(module, "opened", counted)
    for path in (tmp_path / "ours.npz", files / "gre.seq", files / "shots.bin"):
        opened.clear()
        load(path)
        assert opened == [path.name]
