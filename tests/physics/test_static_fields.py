"""Static fields of objects: what is drawn, and the training under them."""

import numpy as np
import pytest
import torch

import trajdesign as td
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import from_tables
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.evaluation import encoding_of, reconstruct, static_field
from trajdesign.learning.trained import TrainedRun
from trajdesign.physics.field import StaticField
from trajdesign.scanner import Scanner
from trajdesign.units import GAMMA

ACQUISITION = Acquisition((0.22, 0.22), (24, 20), 4, 100, 1e-5)


def test_random_fields_are_within_their_amplitudes_and_each_another():
    model = plugins.build("field", {"kind": "random", "amplitude": 50, "hot_spot": 30}, ACQUISITION)
    drawn = torch.stack([model.draw(seed)[0] for seed in range(200)])
    assert drawn.shape == (200, 20, 24)
    assert model.frequencies == (-80, 80)
    assert float(drawn.abs().max()) <= 80
    assert float(drawn.abs().amax((1, 2)).quantile(0.9)) > 40  # and they make use of the range
    assert torch.equal(model.draw(7)[0], drawn[7])
    assert len(torch.unique(drawn[:, 3, 4])) == 200


def test_ppm_are_those_of_hydrogen():
    model = plugins.build("field", {"kind": "random", "amplitude": 1.0, "hot_spot": 0.5, "tesla": 3.0}, ACQUISITION)
    assert model.frequencies[1] == pytest.approx(1.5e-6 * 3.0 * GAMMA["1H"])


def test_measured_maps_are_brought_onto_the_matrix(tmp_path):
    y, x = np.meshgrid(np.arange(40) - 20, np.arange(48) - 24, indexing="ij")
    whole = 70 * np.cos(2 * np.pi * x / 48) + 20 * np.sin(2 * np.pi * y / 40)
    np.save(tmp_path / "map.npy", whole)
    table = {"kind": "maps", "files": [str(tmp_path / "map.npy")], "scale": 3 / 7}
    model = plugins.build("field", table, ACQUISITION)
    drawn, rate = model.draw(0)
    assert rate == 0.0
    np.testing.assert_allclose(drawn, 3 / 7 * whole[::2, ::2], atol=1e-9)
    assert model.frequencies == pytest.approx((float(drawn.min()), float(drawn.max())))


@pytest.mark.parametrize(("values", "match"), [
    (np.full((8, 8), 1e5), "rad/s"), (np.array([[1.0, np.nan]] * 2), "finite"), (np.ones(5), "shape"),
    (np.ones((3, 3), complex), "real"),
])  # fmt: skip
def test_what_is_no_map_is_refused(tmp_path, values, match):
    np.save(tmp_path / "map.npy", values)
    with pytest.raises(InputError, match=match):
        plugins.build("field", {"kind": "maps", "files": [str(tmp_path / "map.npy")]}, ACQUISITION)


@pytest.mark.parametrize("options", [
    {"amplitude": -1.0}, {"t2_star": 0.0}, {"tesla": 100.0}, {"hot_spot": -3.0},
])  # fmt: skip
def test_nonsense_is_refused(options):
    with pytest.raises(ConfigError, match="field"):
        plugins.build("field", {"kind": "random", **options}, ACQUISITION)


def test_terms_leave_a_thousandth_of_what_each_field_turns():
    field = StaticField({"kind": "random", "t2_star": 0.02, "start": 3e-3}, ACQUISITION)
    seeds = torch.tensor([11, 12])
    found = torch.einsum("bl...,ls->bs...", field.maps(seeds), field.segments.basis)
    t = (3e-3 + 1e-5 * torch.arange(100, dtype=torch.float64))[None, :, None, None]
    f = torch.stack([field.model.draw(int(seed))[0] for seed in seeds])[:, None]
    assert float((found - torch.exp(-2j * torch.pi * f * t - t / 0.02)).abs().max()) < 1e-3


def waves(n_maps, seed):
    """Return smooth maps within +-1 (map, 20, 24)."""
    y, x = np.meshgrid(np.arange(20) / 20, np.arange(24) / 24, indexing="ij")
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (n_maps, 2, 1, 1))
    return np.cos(2 * np.pi * x + phases[:, 0]) * np.cos(2 * np.pi * y + phases[:, 1])


@pytest.mark.parametrize("start", [2e-3, -0.6e-3])  # after the excitation, and about a spin echo
def test_measured_t2_star_decays_as_the_sum_over_pixels_says(tmp_path, start):
    f, t2_star = 80 * waves(3, 1), 0.006 * 4 ** waves(3, 2)  # from 1.5 to 24 ms
    for part, which in (("a", slice(0, 2)), ("b", slice(2, 3))):
        np.save(tmp_path / f"{part}.npy", f[which])
        np.save(tmp_path / f"{part}_t2_star.npy", t2_star[which])
    names = [[str(tmp_path / f"{part}{end}.npy") for part in "ab"] for end in ("", "_t2_star")]
    table = {"kind": "maps", "files": names[0], "t2_star": names[1], "start": start}
    field = StaticField(table, ACQUISITION)
    assert field.model.rates == pytest.approx((1 / t2_star.max(), 1 / t2_star.min()))
    k = plugins.build("init", {"kind": "radial"}, ACQUISITION, Scanner())
    image = torch.randn(1, 1, 20, 24, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    encoding = Encoding(k, dtype=torch.float64, segments=field.segments)
    y, x = np.meshgrid((np.arange(20) - 10) * 0.22 / 20, (np.arange(24) - 12) * 0.22 / 24, indexing="ij")
    turns = np.einsum("sad,dyx->sayx", k.k_adc.numpy(), np.stack([x, y]))
    t = (start + 1e-5 * np.arange(100))[:, None, None]
    seen = set()
    for seed in range(20):
        drawn, rate = field.model.draw(seed)
        [number] = [i for i in range(3) if np.allclose(f[i], drawn, atol=1e-9)]
        assert rate.numpy() == pytest.approx(1 / t2_star[number])  # the one beside it
        seen.add(number)
        factor = np.exp(-2j * np.pi * (turns + f[number] * t) - np.abs(t) / t2_star[number])
        wanted = np.einsum("sayx,yx->sa", factor, image[0, 0].numpy())
        found = encoding.in_field(field.maps([seed])).forward(image)[0, 0].numpy()
        assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)
    assert seen == {0, 1, 2}


def test_where_t2_star_is_not_told_nothing_decays(tmp_path):
    whole = np.full((40, 48), 0.02)
    whole[:, :12] = 0
    np.save(tmp_path / "map.npy", np.zeros((40, 48)))
    np.save(tmp_path / "t2_star.npy", whole)
    table = {"kind": "maps", "files": [str(tmp_path / "map.npy")], "t2_star": [str(tmp_path / "t2_star.npy")]}
    model = plugins.build("field", table, ACQUISITION)
    _, rate = model.draw(0)
    assert model.rates == (0, 50)
    assert float(rate.min()) == 0
    assert float(rate.max()) == 50
    assert rate[10, 3] < 3  # but for what ringing leaves
    assert rate[10, 15] == pytest.approx(50, abs=3)


@pytest.mark.parametrize(("values", "error", "match"), [
    (np.full((8, 8), 40.0), InputError, "in ms"), (np.full((8, 8), -0.01), InputError, "at least"),
    (np.zeros((8, 8)), InputError, "at least"), (np.full((8, 8), 1e-7), InputError, "at least"),
    (np.full((2, 8, 8), 0.04), InputError, "2 maps of T2"), (np.full((8, 8), np.nan), InputError, "finite"),
    (None, ConfigError, "0 files, field.files 1"),
])  # fmt: skip
def test_what_is_no_t2_star_is_refused(tmp_path, values, error, match):
    np.save(tmp_path / "map.npy", np.ones((8, 8)))
    np.save(tmp_path / "t2_star.npy", np.ones(1) if values is None else values)
    names = [] if values is None else [str(tmp_path / "t2_star.npy")]
    with pytest.raises(error, match=match):
        plugins.build("field", {"kind": "maps", "files": [str(tmp_path / "map.npy")], "t2_star": names}, ACQUISITION)


TINY = {
    "acquisition": {"fov": [0.22, 0.22], "matrix": [24, 24], "n_shots": 4, "n_samples": 400, "dwell": 1e-5},
    "init": {"kind": "spiral"},
    "data": {"kind": "phantom", "n_train": 8, "n_val": 2, "n_test": 3, "n_coils": 2},
    "reconstructor": {"kind": "unet", "channels": 4, "levels": 1},
    "training": {"epochs": 1, "batch_size": 2, "validations": 1},
    "field": {"kind": "random", "amplitude": 100, "hot_spot": 100},
}


@pytest.mark.parametrize("kind", ["random", "maps"])
def test_a_film_is_in_one_field(tmp_path, kind):
    """As many terms as frames: what belongs to a term must not be taken for a frame's."""
    y, x = np.mgrid[-1:1:10j, -1:1:12j]
    np.save(tmp_path / "field.npy", 60 * np.exp(-3 * (x**2 + y**2)))
    table = {"kind": "maps", "files": [str(tmp_path / "field.npy")]} if kind == "maps" else {"kind": "random"}
    acquisition = Acquisition((0.22, 0.2), (12, 10), 8, 100, 4e-6, n_frames=4)
    trajectory = plugins.build("init", {"kind": "planes", "pattern": {"kind": "radial"}}, acquisition, Scanner())
    field = StaticField(table, acquisition, n_terms=4)
    encoding = Encoding(trajectory, dtype=torch.float64, segments=field.segments)
    images = torch.randn(1, 2, 4, 10, 12, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    hertz, pixels = field.model.draw(3)[0].flatten(), torch.cartesian_prod(torch.arange(10) - 5, torch.arange(12) - 6)
    wanted = []
    for shot, omega in enumerate(encoding.omega):
        turns = omega @ pixels.flip(1).double().T + 2 * np.pi * field.segments.times[:, None] * hertz
        wanted.append(images[:, :, shot // 2].flatten(2) @ torch.exp(-1j * turns).T)
    error = encoding.in_field(field.maps([3])).forward(images) - torch.stack(wanted, dim=2)
    assert float(error.abs().max() / torch.stack(wanted).abs().max()) < 1e-4  # what four terms leave


def test_fields_of_volumes_are_refused():
    with pytest.raises(ConfigError, match="of slices and films"):
        StaticField({"kind": "random"}, Acquisition((0.2, 0.2, 0.1), (8, 8, 4), 8, 100, 4e-6))


@pytest.mark.parametrize("knows", [False, True])
def test_reconstruction_sees_the_field_of_each_image(knows):
    """As if each image were encoded alone, by enough terms of its own field."""
    config = from_tables({**TINY, "training": {**TINY["training"], "knows_field": knows, "field_terms": 12}})
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    network = plugins.build("reconstructor", {"kind": "adjoint"})
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 2, 24, 24, dtype=torch.complex64, generator=generator)
    field, seeds = static_field(config), torch.tensor([5, 6, 7])
    encoding = encoding_of(config, initial, field)
    found, _ = reconstruct(images, encoding, network, config.training, seeds, field=field.maps(seeds))
    for number, seed in enumerate(seeds.tolist()):
        f = field.model.draw(seed)[0][None]
        own = segments(field.segments.times, (float(f.min()), float(f.max())), tolerance=1e-8)
        alone = Encoding(initial, segments=own, knows_field=knows, weights=encoding.weights)
        wanted = network(alone.measured(images[number : number + 1], own.maps(f)), alone)
        assert float((found[number] - wanted[0]).norm() / wanted.norm()) < 1e-4


def test_a_run_learns_under_fields_and_is_read_again(tmp_path):
    config = from_tables({**TINY, "training": {**TINY["training"], "knows_field": True}})
    results = td.optimize(config, tmp_path / "run", quiet=True)
    assert results.last.psnr > 5
    trained = TrainedRun.load(tmp_path / "run")
    assert torch.equal(trained.trajectory.points, td.load(tmp_path / "run").points)
    assert trained.field is not None
    assert trained.encoding.knows_field
    assert 'kind = "random"' in (tmp_path / "run" / "config.toml").read_text()
