"""The waveform's k against numerical integration, and files that are whole, damaged, foreign or wrong."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajdesign.acquisition import Acquisition
from trajdesign.config.models import profiles, with_profile
from trajdesign.errors import ConfigError, InputError
from trajdesign.physics import limits
from trajdesign.scanner import Scanner
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.fitting import fit, fit_residual
from trajdesign.trajectories.loading import Given, load, load_sampled, require_close
from trajdesign.trajectory import Trajectory, n_points, point_times

GAMMA = 42.577478461e6
TIMINGS = [  # dwell, raster, RF raster, samples
    (4e-6, 10e-6, 1e-6, 300),
    (2e-6, 10e-6, 1e-6, 1001),
    (3.7e-6, 10e-6, 1e-6, 301),
    (5e-6, 4e-6, 2e-6, 200),
    (2e-6, 4e-6, 2e-6, 500),
    (2.5e-6, 6.4e-6, 1e-6, 123),
    (10e-6, 10e-6, 1e-6, 100),
    (30e-6, 10e-6, 1e-6, 50),
]


def random_trajectory(dwell=4e-6, raster=10e-6, rf_raster=1e-6, n_samples=300, dims=2, n_shots=3, seed=0, **other):
    acquisition = Acquisition((0.22, 0.2, 0.18)[:dims], (64, 48, 32)[:dims], n_shots, n_samples, dwell)
    scanner = Scanner(gradient_raster=raster, rf_raster=rf_raster, **other)
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(n_shots, n_points(acquisition, scanner), dims)).cumsum(axis=1)
    k *= np.array(acquisition.k_max) / np.abs(k).max()
    return Trajectory(torch.from_numpy(k), acquisition, scanner, "random")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("dwell", "raster", "rf_raster", "n_samples"), TIMINGS)
def test_k_is_the_integral_of_the_straight_lines_between_raster_centres(dwell, raster, rf_raster, n_samples, dims):
    trajectory = random_trajectory(dwell, raster, rf_raster, n_samples, dims)
    gradient = trajectory.gradient.numpy()
    centres = np.arange(gradient.shape[1]) * raster  # the time axis starts at the first gradient sample
    times = trajectory.adc_times.numpy()
    np.testing.assert_allclose(np.diff(times), dwell, rtol=1e-9)
    assert times[0] >= -1e-15
    assert times[-1] <= centres[-1] * (1 + 1e-9), "the gradient is defined at every ADC sample"
    # trapezoids on a fine grid that holds every corner of the waveform and every ADC sample are exact
    fine = np.unique(np.concatenate([np.linspace(0, centres[-1], 20 * len(centres)), centres, np.append(times, 0)]))
    fine = fine[fine <= centres[-1]]
    for shot in range(gradient.shape[0]):
        for axis in range(dims):
            g = np.interp(fine, centres, gradient[shot, :, axis])
            area = np.concatenate([[0], np.cumsum(np.diff(fine) * (g[1:] + g[:-1]) / 2)])
            # at the first raster centre, k is half a raster of constant slope past its first control point
            start = float(trajectory.points[shot, :2, axis].mean())
            expected = start + GAMMA * np.interp(times, fine, area)
            scale = trajectory.acquisition.k_max[axis]
            np.testing.assert_allclose(trajectory.k_adc[shot, :, axis].numpy(), expected, atol=1e-9 * scale)


def test_the_first_raster_centre_lies_between_the_first_two_control_points():
    trajectory = random_trajectory()
    times = point_times(trajectory.acquisition, trajectory.scanner)
    np.testing.assert_allclose(times[:3], [-5e-6, 5e-6, 15e-6])
    assert len(times) == trajectory.points.shape[1]


def test_gradient_and_slew_of_a_parabola_are_its_derivatives():
    acquisition, scanner = Acquisition(n_shots=1, n_samples=100), Scanner()
    t = torch.from_numpy(point_times(acquisition, scanner))
    k = torch.stack([3e7 * t**2, 2e5 * t], dim=-1)[None]
    trajectory = Trajectory(k, acquisition, scanner)
    centres = torch.arange(k.shape[1] - 1) * 10e-6
    torch.testing.assert_close(trajectory.gradient[0, :, 0], 6e7 * centres.double() / GAMMA)
    torch.testing.assert_close(trajectory.gradient[0, :, 1], torch.full_like(trajectory.gradient[0, :, 1], 2e5 / GAMMA))
    torch.testing.assert_close(trajectory.slew[0, :, 0], torch.full_like(trajectory.slew[0, :, 0], 6e7 / GAMMA))
    # the played k of a parabola is the parabola but for a constant: a quadratic spline meets it
    difference = trajectory.k_adc[0, :, 0] - 3e7 * trajectory.adc_times**2
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), timing=st.sampled_from(TIMINGS))
def test_samples_stay_in_the_hull_of_their_three_control_points(seed, timing):
    trajectory = random_trajectory(*timing, seed=seed)
    k, k_adc = trajectory.points.numpy(), trajectory.k_adc.numpy()
    first = np.floor(trajectory.adc_times.numpy() / trajectory.scanner.gradient_raster + 1e-9).astype(int)
    first = np.minimum(first, k.shape[1] - 3)
    three = np.stack([k[:, first + i] for i in range(3)])
    assert (k_adc <= three.max(axis=0) + 1e-9).all()
    assert (k_adc >= three.min(axis=0) - 1e-9).all()


def test_k_is_differentiable_and_keeps_its_precision():
    trajectory = random_trajectory()
    k = trajectory.points.clone().requires_grad_()
    trajectory.with_points(k).k_adc.sum().backward()
    # every sample has a total weight of one
    assert float(k.grad.sum()) == pytest.approx(trajectory.k_adc.numel())
    assert (k.grad >= 0).all()
    assert trajectory.k_adc.dtype == torch.float64


def test_complex_positions_are_refused():
    trajectory = random_trajectory()
    with pytest.raises(InputError, match="real"):
        trajectory.with_points(trajectory.points + 1e-3j)


def test_a_wrong_shape_is_refused():
    trajectory = random_trajectory()
    for k in (trajectory.points[:, :-1], trajectory.points[:2], trajectory.points[..., :1], trajectory.points[0]):
        with pytest.raises(InputError, match="shape"):
            trajectory.with_points(k)


@pytest.mark.parametrize(("dwell", "raster", "rf_raster", "n_samples"), TIMINGS)
def test_a_fit_of_what_is_played_plays_the_same(dwell, raster, rf_raster, n_samples):
    smooth = random_trajectory(dwell, raster, rf_raster, n_samples)
    t = point_times(smooth.acquisition, smooth.scanner) / point_times(smooth.acquisition, smooth.scanner)[-1]
    wave = np.stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], axis=-1)
    wave = wave[None] * np.array([1, 0.7, 0.4])[:, None, None] * 140
    trajectory = smooth.with_points(torch.from_numpy(wave))
    again = fit(trajectory.k_adc, trajectory.acquisition, trajectory.scanner)
    largest, rms = fit_residual(again, trajectory.k_adc)
    assert rms <= largest < 1e-3
    line = trajectory.adc_times[None, :, None] * torch.tensor([[[3e5, -2e5]], [[0.0, 1e5]], [[1e5, 1e5]]])
    again = fit(line, trajectory.acquisition, trajectory.scanner)
    assert fit_residual(again, line)[0] < 1e-6
    torch.testing.assert_close(again.slew, torch.zeros_like(again.slew), rtol=0, atol=1e-3)


def test_a_fit_of_what_is_not_finite_names_the_place():
    trajectory = random_trajectory()
    samples = trajectory.k_adc.clone()
    samples[1, 7, 0] = np.nan
    with pytest.raises(InputError, match="shot 1, sample 7"):
        fit(samples, trajectory.acquisition, trajectory.scanner)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_file_brings_back_everything(tmp_path, dims):
    trajectory = random_trajectory(
        5e-6, 4e-6, 2e-6, dims=dims, nucleus="23Na", max_gradient=30e-3, max_slew=120.0, limit_norm="axis",
        adc_dead_time=40e-6, block_raster=4e-6, adc_raster=2e-6, rf_ringdown_time=60e-6,
    )  # fmt: skip
    path = tmp_path / "new folder" / "naïve name.npz"
    trajectory.save(path)
    again = load(path)
    assert torch.equal(again.points, trajectory.points)
    assert torch.equal(again.k_adc, trajectory.k_adc)
    assert again.scanner == trajectory.scanner
    assert again.acquisition == trajectory.acquisition
    assert again.name == trajectory.name
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"
    # the keys carry their units, and plain numpy reads them
    with np.load(path, allow_pickle=False) as file:
        assert file["k_adc"].shape == (3, 300, dims)
        assert float(file["raster_s"]) == 4e-6
        assert float(file["max_gradient_t_per_m"]) == 30e-3
        assert float(file["gamma_hz_per_t"]) == trajectory.scanner.gamma


def test_a_trajectory_with_a_gradient_can_be_saved(tmp_path):
    trajectory = random_trajectory()
    trajectory.with_points(trajectory.points.clone().requires_grad_()).save(tmp_path / "k.npz")
    assert torch.equal(load(tmp_path / "k.npz").points, trajectory.points)


@pytest.fixture
def content(tmp_path):
    """Return the arrays of a good file, and a function that writes others and loads them."""
    path = tmp_path / "k.npz"
    random_trajectory().save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}

    def reload(**changes):
        changed = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        np.savez(path, **changed)
        return load(path)

    reload()
    return arrays, reload


def test_missing_and_empty_files_and_folders(tmp_path):
    empty, text = tmp_path / "empty.npz", tmp_path / "text.npz"
    empty.touch()
    text.write_text("k = 1")
    for path in (tmp_path / "none.npz", empty, text, tmp_path):
        with pytest.raises(InputError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "k.npz"
    random_trajectory(n_samples=20).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "k.npz"
    original = random_trajectory(n_samples=20)
    original.save(path)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            again = load(path)
        except InputError:
            refused += 1
        else:
            assert torch.equal(again.points, original.points)
            assert again.scanner == original.scanner
            assert again.acquisition == original.acquisition
    assert refused > 200


def test_a_pickle_is_refused_and_not_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "k.npz"
    random_trajectory().save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}

    class Attack:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    arrays["k"] = np.array([Attack()], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="pickle"):
        load(path)
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError):
        load(path)
    assert not canary.exists()


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "k.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("format", "trajdesign/1")
    with pytest.raises(InputError, match="not arrays"):
        load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_control_points_that_are_not_finite_are_named(content, value):
    arrays, reload = content
    k = arrays["k"].copy()
    k[2, 5, 1] = value
    with pytest.raises(InputError, match="shot 2, point 5"):
        reload(k=k)


def test_tampering_with_either_curve_is_found(content):
    arrays, reload = content
    for key in ("k", "k_adc"):
        changed = arrays[key].copy()
        changed[1, 10, 0] += 0.01
        with pytest.raises(InputError, match="k_adc is not what k plays"):
            reload(**{key: changed})
    not_finite = arrays["k_adc"].copy()
    not_finite[0, 0, 0] = np.nan
    with pytest.raises(InputError):
        reload(k_adc=not_finite)


@pytest.mark.parametrize(
    "key", ["k", "k_adc", "raster_s", "dwell_s", "fov_m", "matrix", "gamma_hz_per_t", "nucleus", "limit_norm"]
)
def test_a_missing_key_is_named(content, key):
    with pytest.raises(InputError, match=key):
        content[1](**{key: None})


@pytest.mark.parametrize(
    "changes",
    [
        {"dwell_s": 4.0},
        {"dwell_s": 0.0},
        {"dwell_s": np.nan},
        {"dwell_s": 5e-6},
        {"raster_s": 0.0},
        {"raster_s": 4e-6},
        {"rf_raster_s": 0.0},
        {"rf_raster_s": np.nan},
        {"fov_m": np.array([220.0, 220.0])},
        {"fov_m": 0.22},
        {"fov_m": np.array([np.nan, 0.2])},
        {"fov_m": np.full((2, 2), 0.2)},
        {"fov_m": np.array([0.2, 0.2, 0.2])},
        {"matrix": np.array([64.0, np.nan])},
        {"matrix": np.array([64, 48, 32])},
        {"matrix": np.array([])},
        {"matrix": np.array(["a", "b"])},
        {"gamma_hz_per_t": 42.58},
        {"nucleus": "1h"},
        {"limit_norm": "none"},
        {"max_slew_t_per_m_s": 0.2},
        {"k": np.zeros((3, 5))},
        {"k": np.zeros((0, 5, 2))},
        {"k": np.zeros((3, 5, 2))},
        {"k": np.array("text")},
        {"k_adc": np.zeros((3, 300, 3))},
        {"k_adc": np.zeros((3, 300, 1))},
        {"k_adc": np.zeros((3, 0, 2))},
        {"k_adc": np.zeros((4, 300, 2))},
        {"k_adc": np.zeros((3, 300))},
        {"format": "trajdesign/2"},
        {"format": None},
    ],
    ids=lambda changes: "-".join(f"{k}={np.asarray(v).ravel()[:2]}{np.shape(v)}" for k, v in changes.items()),
)
def test_a_foreign_or_wrong_content_is_one_sentence(content, changes):
    with pytest.raises(InputError) as caught:
        content[1](**changes)
    assert "\n" not in str(caught.value)


def test_other_byte_and_memory_orders_are_the_same_file(content):
    arrays, reload = content
    swapped = reload(k=np.asfortranarray(arrays["k"]).astype(">f8"))
    np.testing.assert_array_equal(swapped.points.numpy(), arrays["k"])


# --- sampled k from elsewhere ---


def spiral_samples(n_samples=600, turns=8.0):
    t = np.linspace(0, 1, n_samples)
    path = t * np.exp(2j * np.pi * turns * t) * 0.4999
    turned = path * np.exp(2j * np.pi * np.arange(2) / 2)[:, None]
    return np.stack([turned.real, turned.imag], axis=-1)  # cycles a pixel


FOV, MATRIX = (0.24, 0.20), (64, 64)
UNITS = {
    "normalized": np.ones(2),
    "1/fov": np.array(MATRIX, dtype=float),
    "1/m": np.array(MATRIX) / np.array(FOV),
    "rad/m": 2 * np.pi * np.array(MATRIX) / np.array(FOV),
}


def sampled(tmp_path, k, unit, **changes):
    path = tmp_path / "foreign.npz"
    np.savez(path, **(k if isinstance(k, dict) else {"anything": k}))
    settings = {"fov": FOV, "dwell": 4e-6, "scanner": Scanner(), "matrix": MATRIX} | changes
    return load_sampled(path, settings.pop("scanner"), Given(unit, **settings))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_each_unit_gives_the_same_trajectory_and_an_honest_residual(tmp_path, unit, dtype):
    normalized = spiral_samples()
    trajectory, (largest, rms) = sampled(tmp_path, (normalized * UNITS[unit]).astype(dtype), unit)
    wanted = normalized * UNITS["1/m"]
    distance = np.linalg.norm((trajectory.k_adc.numpy() - wanted) * np.array(FOV), axis=-1)
    assert largest == pytest.approx(distance.max(), rel=1e-2, abs=1e-6)
    assert rms == pytest.approx(np.sqrt(np.mean(distance**2)), rel=1e-2, abs=1e-6)
    assert largest < 0.05
    assert trajectory.acquisition.matrix == MATRIX
    assert trajectory.acquisition.fov == FOV
    assert trajectory.acquisition.n_samples == 600
    assert trajectory.name == "foreign"


def test_without_a_matrix_it_is_the_smallest_even_one(tmp_path):
    k = spiral_samples() * UNITS["1/fov"]
    trajectory = sampled(tmp_path, k, "1/fov", matrix=None)[0]
    played = np.abs(trajectory.points.numpy() * trajectory.acquisition.fov).max(axis=(0, 1))
    for n, *reach in zip(trajectory.acquisition.matrix, np.abs(k).max(axis=(0, 1)), played, strict=True):
        assert n % 2 == 0
        assert n / 2 - 1 < max(reach) - 1e-3 <= n / 2


def test_a_matrix_that_is_taken_from_k_holds_what_is_played_after_the_last_sample(tmp_path):
    k = np.linspace(0, 15.999, 403)[None, :, None] * np.array([1.0, 0.5])  # of a raster that ends after the samples
    trajectory = sampled(tmp_path, k, "1/fov", matrix=None)[0]
    assert trajectory.acquisition.matrix == (34, 18)
    assert {f.name: f.ok for f in limits.check(trajectory)}["extent"]


def test_without_a_matrix_it_has_four_pixels_at_least(tmp_path):
    k = spiral_samples() * UNITS["1/fov"] * np.array([1.0, 0.0])
    assert sampled(tmp_path, k, "1/fov", matrix=None)[0].acquisition.matrix[1] == 4


def test_a_fit_is_close_to_a_tenth_of_a_pixel_of_k(tmp_path):
    trajectory = sampled(tmp_path, spiral_samples(), "normalized")[0]
    assert require_close(trajectory, (0.1, 0.05), "x.npz") is trajectory
    for wrong in (0.1001, np.nan):
        with pytest.raises(InputError, match=rf"^x\.npz: straight .* raster of 1e-05 s miss its .* {wrong:.3g}/FOV"):
            require_close(trajectory, (wrong, 0.05), "x.npz")


def test_a_curve_too_fast_for_the_raster_shows_in_the_residual(tmp_path):
    rng = np.random.default_rng(0)
    jagged = rng.uniform(-30, 30, size=(1, 600, 2))
    assert sampled(tmp_path, jagged, "1/fov")[1][0] > 5


@pytest.mark.parametrize(
    ("true", "claimed"),
    [
        ("rad/m", "1/m"),
        ("rad/m", "1/fov"),
        ("rad/m", "normalized"),
        ("1/m", "1/fov"),
        ("1/m", "normalized"),
        ("1/fov", "normalized"),
        ("normalized", "1/m"),
        ("normalized", "rad/m"),
        ("normalized", "1/fov"),
    ],
)
def test_a_wrong_unit_that_cannot_be_is_refused(tmp_path, true, claimed):
    with pytest.raises(InputError, match="is the unit right"):
        sampled(tmp_path, spiral_samples() * UNITS[true], claimed)


@pytest.mark.parametrize("profile", profiles())
def test_a_file_keeps_the_whole_scanner(profile, tmp_path):
    scanner = Scanner(**with_profile({"profile": profile, "max_slew": 123.0, "limit_norm": "axis", "nucleus": "23Na"}))
    acquisition = Acquisition((0.2, 0.3), (8, 12), 2, 50, 8e-6)
    k = torch.zeros(2, n_points(acquisition, scanner), 2, dtype=torch.float64)
    Trajectory(k, acquisition, scanner, "still").save(tmp_path / "x.npz")
    found = load(tmp_path / "x.npz")
    assert (found.scanner, found.acquisition, found.name) == (scanner, acquisition, "still")


def test_k_reaches_a_percent_beyond_its_matrix_and_no_more(tmp_path):
    k = spiral_samples() * UNITS["1/fov"] / np.abs(spiral_samples()).max() / 2
    assert sampled(tmp_path, 1.0099 * k, "1/fov")[0].acquisition.matrix == MATRIX
    with pytest.raises(InputError, match=f"does not fit a matrix of {max(MATRIX)}; is the unit right"):
        sampled(tmp_path, 1.0101 * k, "1/fov")
    with np.errstate(all="raise"), pytest.raises(InputError, match="reaches inf/FOV, which does not fit"):
        sampled(tmp_path, np.full((2, 600, 2), 1.7e308), "1/fov", fov=(0.01,))


def test_k_reaches_two_pixels_at_least(tmp_path):
    k = UNITS["1/fov"] * spiral_samples() / np.abs(spiral_samples()).max(axis=(0, 1)) / np.array(MATRIX)
    assert max(sampled(tmp_path, 2.001 * k, "1/fov", matrix=None)[0].acquisition.matrix) <= 6
    with pytest.raises(InputError, match=r"reaches 1\.999/FOV.*Choices: 1/m, rad/m, 1/fov, normalized\.$"):
        sampled(tmp_path, 1.999 * k, "1/fov")


def test_a_file_of_ours_says_all_of_itself(tmp_path):
    trajectory, _ = sampled(tmp_path, spiral_samples(), "normalized")
    assert not isinstance(foreign_files.read(tmp_path / "foreign.npz"), Trajectory)
    for name in ("x.npz", "x", "x.dat"):  # of ours, whatever it is called
        trajectory.save(tmp_path / name)
        assert torch.equal(foreign_files.read(tmp_path / name).points, trajectory.points)
        assert torch.equal(load(tmp_path / name).points, trajectory.points)
    with pytest.raises(ConfigError, match=r"x\.npz says its unit, .* itself; leave them out\.$"):
        load_sampled(tmp_path / "x.npz", Scanner(), Given("1/m", FOV, 4e-6))


def test_a_matrix_has_4096_pixels_at_most(tmp_path):
    k = np.linspace(0, 2047.9, 4000)[None, :, None] * np.array([1.0, 0.01])
    settings = {"fov": (2.0,), "dwell": 1e-6}
    assert max(sampled(tmp_path, k, "1/fov", matrix=(4096, 64), **settings)[0].acquisition.matrix) == 4096
    with pytest.raises(InputError, match="does not fit a matrix of 4098; is the unit right"):
        sampled(tmp_path, k, "1/fov", matrix=(4098, 64), **settings)


def test_unknown_unit_and_missing_matrix_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="rad/m"):
        sampled(tmp_path, spiral_samples(), "rad/mm")
    with pytest.raises(ConfigError, match="matrix"):
        sampled(tmp_path, spiral_samples(), "normalized", matrix=None)
    for quantity, changes in (("matrix", {"matrix": (64,) * 3}), ("fov", {"fov": (0.2,) * 3})):
        with pytest.raises(ConfigError, match=f"^{quantity} has 3 numbers, the trajectory 2 axes; give 1 or 2"):
            sampled(tmp_path, spiral_samples(), "normalized", **changes)


def test_one_number_serves_every_axis(tmp_path):
    trajectory, _ = sampled(tmp_path, spiral_samples() * UNITS["1/fov"], "1/fov", fov=(0.22,), matrix=(64,))
    assert trajectory.acquisition.fov == (0.22, 0.22)
    assert trajectory.acquisition.matrix == (64, 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"fov": (0.2, 0.2, 0.2)},
        {"fov": (0.0,)},
        {"fov": (np.nan,)},
        {"fov": (220.0,)},
        {"matrix": (64, 64, 64)},
        {"matrix": (0,)},
        {"matrix": (-64, -64)},
        {"dwell": 4.0},
        {"dwell": 0.0},
        {"dwell": np.nan},
    ],
)
@pytest.mark.parametrize("unit", ["1/m", "normalized"])
def test_wrong_descriptions_are_one_sentence(tmp_path, changes, unit):
    with pytest.raises((ConfigError, InputError)) as caught:
        sampled(tmp_path, spiral_samples() * UNITS[unit], unit, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"a": np.zeros((2, 3))},
        {"a": np.zeros((2, 600, 2)), "b": np.zeros((2, 600, 2))},
        {"a": np.zeros((2, 600, 2), dtype=complex)},
        {"k": np.zeros((2, 600, 4))},
        {"k": np.zeros((2, 600, 1))},
        {"k": np.zeros((0, 600, 2))},
        {"k": np.zeros((2, 0, 2))},
        {"k": np.zeros((2, 600, 2))},
        {"k": np.full((2, 600, 2), np.nan)},
        {"k": np.full((2, 600, 2), np.inf)},
        {"k": np.full((2, 600, 2), 1e300)},
    ],
)
@pytest.mark.parametrize("matrix", [None, MATRIX])
def test_arrays_that_are_no_trajectory_are_one_sentence(tmp_path, arrays, matrix):
    with pytest.raises(InputError) as caught:
        sampled(tmp_path, arrays, "1/m", matrix=matrix)
    assert "\n" not in str(caught.value)


def test_one_value_that_is_not_finite_is_named(tmp_path):
    k = spiral_samples() * UNITS["1/m"]
    for value in (np.nan, np.inf):
        k[1, 33, 0] = value
        with pytest.raises(InputError, match="shot 1, sample 33"):
            sampled(tmp_path, k, "1/m")


def test_the_array_named_k_is_taken_among_several(tmp_path):
    k = spiral_samples() * UNITS["1/m"]
    trajectory, _ = sampled(tmp_path, {"k": k, "other": np.ones_like(k)}, "1/m")
    assert float(trajectory.k_adc.abs().max()) == pytest.approx(np.abs(k).max(), rel=1e-2)
