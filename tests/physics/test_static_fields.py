"""Static fields of objects: what is drawn, and the training under them."""

import numpy as np
import pytest
import torch

import trajdesign as td
from trajdesign import plugins
from trajdesign.acquisition import Acquisition
from trajdesign.config.models import from_tables
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.evaluation import encoding_of, reconstruct, static_field
from trajdesign.learning.trained import TrainedRun
from trajdesign.physics.field import StaticField
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


TINY = {
    "acquisition": {"fov": [0.22, 0.22], "matrix": [24, 24], "n_shots": 4, "n_samples": 400, "dwell": 1e-5},
    "init": {"kind": "spiral"},
    "data": {"kind": "phantom", "n_train": 8, "n_val": 2, "n_test": 3, "n_coils": 2},
    "reconstructor": {"kind": "unet", "channels": 4, "levels": 1},
    "training": {"epochs": 1, "batch_size": 2, "validations": 1},
    "field": {"kind": "random", "amplitude": 100, "hot_spot": 100},
}


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
