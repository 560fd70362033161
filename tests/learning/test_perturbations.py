"""Scans that go otherwise than asked: what they sample, the training under them, and tests at a given error."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_sums import exact_adjoint, exact_forward, setup
from faults.tiny import tiny

import trajdesign as td
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning import step
from trajdesign.learning.evaluation import draw_seeds, reconstruct
from trajdesign.learning.other_data import settings
from trajdesign.physics.perturbation import Perturbations
from trajdesign.physics.response import Response
from trajdesign.runtime.processes import Ranks
from trajdesign.scanner import Scanner

PERFECT = Response({})
FIXED = {
    "delay": {"delays": [4e-6, -3e-6, 0.0], "spread": 0.0},
    "gain": {"gains": [0.02, -0.01, 0.0], "spread": 0.0},
    "drift": {"frequency": 300.0, "spread": 0.0, "start": 1e-3},
    "lost_shot": {"shot": 1, "probability": 1.0},
}


def written_out(trajectory):
    """Return the trajectory and the factor of each sample in a scan that goes as FIXED says, by other code."""
    raster, points = trajectory.scanner.gradient_raster, trajectory.points.numpy()
    steps, n = np.diff(points, axis=1), round(1e-3 / raster)
    # what leads to the readout, in a millisecond from rest, is as `trajdesign.physics.response` says
    part = np.arange(1, n + 1)[:, None] / (n + 1)
    bump = part**2 * (1 - part) ** 2
    lead = steps[:, :1] * part**4
    lead += (points[:, :1] - lead.sum(axis=1, keepdims=True)) * bump / bump.sum()
    assert lead.sum(axis=1) == pytest.approx(points[:, 0], abs=1e-9)
    steps = np.concatenate([lead, steps], axis=1)
    times = raster * np.arange(steps.shape[1])
    late = np.empty_like(steps)
    for axis, delay in enumerate(FIXED["delay"]["delays"][: points.shape[-1]]):
        for shot in range(len(points)):
            late[shot, :, axis] = np.interp(times - delay, times, steps[shot, :, axis])
    k = np.cumsum(late, axis=1)[:, n - 1 :] * [1.02, 0.99]
    turned = np.array([100.0, 200.0, 300.0])[:, None] * (1e-3 + 4e-6 * np.arange(40))
    factor = np.exp(-2j * math.pi * turned) * np.array([1, 0, 1])[:, None]
    return trajectory.with_points(torch.from_numpy(k)), torch.from_numpy(factor)


def test_what_is_sampled_is_the_exact_sum_on_what_acts():
    trajectory, coil_images, kspace, _ = setup()
    believed = Encoding(trajectory, dtype=torch.float64)
    truly = Perturbations(FIXED).encoding(trajectory, PERFECT, 0, believed)
    acting, factor = written_out(trajectory)
    wanted = exact_forward(coil_images, acting)[0] * factor
    assert float((truly.forward(coil_images) - wanted).abs().max() / wanted.abs().max()) < 1e-11
    nominal = exact_forward(coil_images, trajectory)[0]
    assert float((wanted - nominal).abs().max() / wanted.abs().max()) > 0.1  # by far another
    back = exact_adjoint(factor.conj() * kspace, acting)
    assert float((truly.coil_images(kspace) - back).abs().max() / back.abs().max()) < 1e-11


def test_the_image_is_made_as_if_all_had_gone_as_asked():
    """The adjoint is that of what was asked, of samples that lie elsewhere."""
    trajectory, coil_images, _, _ = setup()
    believed = Encoding(trajectory, dtype=torch.float64)
    truly = Perturbations(FIXED).encoding(trajectory, PERFECT, 0, believed)
    network = plugins.build("reconstructor", {"kind": "adjoint"})
    found, _ = reconstruct(coil_images, believed, network, tiny().training, sampled_by=truly)
    acting, factor = written_out(trajectory)
    kspace = believed.weights * factor * exact_forward(coil_images, acting)[0]
    wanted = network(exact_adjoint(kspace, trajectory), believed)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-11


def test_what_goes_wrong_by_nothing_changes_nothing():
    trajectory, coil_images, _, _ = setup()
    nothing = {
        "delay": {"spread": 0.0}, "gain": {"spread": 0.0}, "drift": {"spread": 0.0}, "lost_shot": {"probability": 0.0},
    }  # fmt: skip
    scan = Perturbations(nothing).draw(trajectory, PERFECT, 3)
    assert torch.allclose(scan.acting.points, trajectory.points, rtol=0, atol=1e-9)
    assert torch.equal(scan.factor, torch.ones(3, 40, dtype=torch.complex128))
    terms = segments(trajectory.adc_times, (-400.0, 400.0), n_terms=4)
    frequencies = 300 * torch.rand(2, *trajectory.acquisition.image_shape, dtype=torch.float64)
    network, options = plugins.build("reconstructor", {"kind": "adjoint"}), tiny().training
    for field in (None, terms.maps(frequencies)):
        for knows in (False, True):
            believed = Encoding(trajectory, dtype=torch.float64, segments=terms, knows_field=knows)
            wanted, _ = reconstruct(coil_images, believed, network, options, field=field)
            truly = scan.encoding(believed)
            found, _ = reconstruct(coil_images, believed, network, options, field=field, sampled_by=truly)
            assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-11


def test_the_gradient_to_the_trajectory_is_that_of_finite_differences():
    """Through what is sampled and through what is believed, by way of the parts of a batch."""
    trajectory, coil_images, _, _ = setup()
    perturbations, network = Perturbations(FIXED), plugins.build("reconstructor", {"kind": "adjoint"})
    weights = 0.5 + torch.rand(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def loss(points, parts=False):
        moved = trajectory.with_points(points)
        believed = Encoding(moved, dtype=torch.float64, weights=weights, normal="chain")
        truly = perturbations.encoding(moved, PERFECT, 0, believed)
        cut, cut_truly = (believed.cut(1), truly.cut(1)) if parts else (believed, truly)
        image, _ = reconstruct(coil_images, cut, network, tiny().training, sampled_by=cut_truly)
        total = image.square().mean()
        if parts:
            total.backward()
            truly.carry_on(cut_truly)
            believed.carry_on(cut)
        return total

    points = trajectory.points.clone().requires_grad_()
    loss(points, parts=True)
    direction = torch.randn(points.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        difference = (loss(points + 1e-4 * direction) - loss(points - 1e-4 * direction)) / 2e-4
    assert float((points.grad * direction).sum()) == pytest.approx(float(difference), rel=1e-6)


def test_errors_are_drawn_uniformly_each_axis_another_and_again_by_the_seed():
    trajectory = setup()[0]
    ones = trajectory.with_points(torch.ones_like(trajectory.points))
    perturbations = Perturbations({"gain": {"gains": [0.01], "spread": 0.02}})
    drawn = torch.stack([perturbations.draw(ones, PERFECT, seed).acting.points[0, 0] - 1 for seed in range(2000)])
    assert float(drawn.min()) >= -0.01
    assert float(drawn.max()) <= 0.03
    assert drawn.mean(0).tolist() == pytest.approx([0.01, 0.01], abs=4 * 0.02 / math.sqrt(3 * 2000))
    assert drawn.std(0).tolist() == pytest.approx([0.02 / math.sqrt(3)] * 2, rel=0.05)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.09
    assert torch.equal(perturbations.draw(ones, PERFECT, 7).acting.points[0, 0] - 1, drawn[7])


def test_a_shot_is_lost_in_a_part_of_the_scans_and_each_shot_is_at_times():
    trajectory = setup()[0]
    perturbations = Perturbations({"lost_shot": {"probability": 0.3}})
    lost = torch.stack([perturbations.draw(trajectory, PERFECT, seed).factor == 0 for seed in range(1000)])
    assert torch.equal(lost.all(2), lost.any(2))
    counts = lost.all(2).sum(1)
    assert counts.max() == 1
    assert float(counts.double().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 1000))
    assert min(lost.all(2).sum(0)) > 60


def test_another_response_acts_than_is_believed(tmp_path):
    trajectory = setup()[0]
    np.savez(tmp_path / "x.npz", frequency_hz=[0.0, 1e5], response=np.array([[1.0, 0.6]] * 3))
    there = {"kind": "girf", "path": str(tmp_path / "x.npz")}
    believed = Response({"kind": "delay", "delays": [1e-6]})
    always, never = (Perturbations({"girf": {"path": there["path"], "probability": p}}) for p in (1.0, 0.0))
    assert torch.equal(always.draw(trajectory, believed, 0).acting.points, Response(there)(trajectory).points)
    assert torch.equal(never.draw(trajectory, believed, 0).acting.points, believed(trajectory).points)


@pytest.mark.parametrize(("name", "options", "match"), [
    ("delay", {"delays": [1e-6, 1e-6]}, "2 values; give one"), ("delay", {"delays": [2e-4]}, "delay"),
    ("delay", {"spread": -1e-6}, "spread"), ("delay", {"delays": []}, "0 values"), ("gain", {"gains": [2.0]}, "gain"),
    ("gain", {"spread": 0.6}, "gain"), ("drift", {"frequency": 3e3}, "drift"), ("lost_shot", {"shot": 3}, "3 shots"),
    ("lost_shot", {"probability": 1.1}, "from 0 to 1"), ("girf", {"path": "x.npz", "probability": -1.0}, "from 0 to 1"),
])  # fmt: skip
def test_nonsense_is_refused(name, options, match):
    with pytest.raises(ConfigError, match=match):
        Perturbations({name: options}).draw(setup()[0], PERFECT, 0)


def test_a_response_that_is_not_there_is_an_error_of_input():
    with pytest.raises(InputError, match=r"nowhere\.npz"):
        _ = Perturbations({"girf": {"path": "nowhere.npz"}}).draw(setup()[0], PERFECT, 0).acting


def bumped(scan, random, *, by: float = 0.0):
    """Return a scan that is brighter than asked."""
    return type(scan)(scan.played, scan.response, (1 + by) * scan.factor)


def test_one_of_your_own_stands_beside_the_others():
    config = tiny("perturbation={gain={}, 'learning.test_perturbations:bumped'={by=1.0}}")
    assert list(config.perturbation) == ["gain", "learning.test_perturbations:bumped"]
    scan = Perturbations(config.perturbation).draw(setup()[0], PERFECT, 0)
    assert torch.equal(scan.factor, torch.full((3, 40), 2.0, dtype=torch.complex128))


def test_each_step_has_another_scan_and_the_settled_trajectory_too(monkeypatch):
    seeds = []
    draw = Perturbations.draw
    monkeypatch.setattr(Perturbations, "draw", lambda *given: seeds.append(given[-1]) or draw(*given))
    config = tiny("perturbation.delay.spread=5e-6")
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    images = torch.stack([plugins.build("data", config.data, config.acquisition, "train")[i] for i in range(2)])
    joint = step.Joint(config, initial, "learned", 4, Ranks(device=torch.device("cpu")))
    for number in range(4):
        if number == 2:
            joint.settle()
        joint.step(images, (0, 1), constrained=True)
    assert len(set(seeds)) == 4
    again = step.Joint(config, initial, "learned", 4, Ranks(device=torch.device("cpu")))
    again.step(images, (0, 1), constrained=True)
    assert seeds[4] == seeds[0]


def test_a_step_learns_from_what_a_scan_with_an_error_shows():
    """Its loss is that of the images that the network makes of such a scan."""
    error = {"gain": {"gains": [0.2], "spread": 0.0}}
    config = tiny("perturbation.gain={gains=[0.2], spread=0.0}", "training.slices_at_once=1")
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    images = torch.stack([plugins.build("data", config.data, config.acquisition, "train")[i] for i in range(2)])
    joint = step.Joint(config, initial, "learned", 4, Ranks(device=torch.device("cpu")))
    believed = Encoding(initial)
    truly = Perturbations(error).encoding(initial, PERFECT, 0, believed)
    with torch.no_grad():
        image, reference = reconstruct(images, believed, joint.network, config.training, sampled_by=truly)
        clean, _ = reconstruct(images, believed, joint.network, config.training)
    wanted, without = (float(step.metrics.image_loss(x, reference, 0.2, 1.0)) for x in (image, clean))
    joint.projection.n_iterations = 0
    found, _ = joint.step(images, (0, 1), constrained=False)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted - without) > 1e-2 * wanted


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run that was trained under errors, and its results."""
    path = tmp_path_factory.mktemp("runs") / "run"
    config = tiny("perturbation.gain.spread=0.05", "perturbation.lost_shot={}", "reconstructor.kind=adjoint")
    return path, td.optimize(config, path, quiet=True)


def test_the_tests_of_a_run_are_without_errors(run):
    path, results = run
    own = td.evaluate(path, quiet=True)
    assert own.config.perturbation == {}
    assert own.results.last.psnr_list == results.last.psnr_list
    off = td.evaluate(path, ["perturbation.gain={gains=[0.0], spread=0.0}"], quiet=True)
    assert off.results.last.psnr_list == pytest.approx(results.last.psnr_list, abs=1e-3)
    assert "[perturbation.lost_shot]" in (path / "config.toml").read_text()


def test_an_error_of_a_given_size_is_tested_as_the_exact_sums_have_it(run):
    path, _ = run
    found = td.evaluate(path, ["perturbation={lost_shot={shot=1, probability=1.0}}"], stage="learned", quiet=True)
    one, test = found.trained["learned"], found.test
    for number, psnr in enumerate(found.results.last.psnr_list):
        kspace = exact_forward(test[number][None].cdouble(), one.trajectory)[0]
        kspace[:, :, 1] = 0
        image = exact_adjoint(one.encoding.weights * kspace, one.trajectory)
        image, reference = (x.abs().square().sum(1).sqrt() for x in (image, test[number][None].cdouble()))
        wanted = -10 * math.log10(float((image - reference).square().mean()))
        assert psnr == pytest.approx(wanted, abs=0.01)


def test_each_image_is_a_scan_of_its_own_whatever_the_batch(run):
    path, _ = run
    asked = ["perturbation.gain.spread=0.3"]
    one, two = (td.evaluate(path, [*asked, f"training.batch_size={n}"], quiet=True) for n in (1, 2))
    assert one.results.last.psnr_list == two.results.last.psnr_list
    assert one.tables()["perturbation"] == {"gain": {"gains": [0.0], "spread": 0.3}}


def test_an_evaluation_has_the_errors_that_are_asked_for_and_none_of_the_training():
    of_run = tiny("perturbation.delay.spread=3e-6")
    assert settings(of_run, []).perturbation == {}
    asked = settings(of_run, ["perturbation.gain.gains=[0.02]", "perturbation.gain.spread=0"])
    assert asked.perturbation == {"gain": {"gains": [0.02], "spread": 0.0}}
    with pytest.raises(ConfigError, match="did you mean 'drift'"):
        settings(of_run, ["perturbation.drit.frequency=3"])
    with pytest.raises(ConfigError, match=r"perturbation\.gain\.gans"):
        settings(of_run, ["perturbation.gain.gans=[0.1]"])


@pytest.mark.parametrize("tables", [{"gain": 0.02}, [{"kind": "gain"}], "gain"])
def test_a_table_of_another_shape_is_refused_in_one_sentence(tables):
    with pytest.raises(ConfigError, match="perturbation") as error:
        td.config.models.from_tables({"perturbation": tables})
    assert len(str(error.value).splitlines()) == 1


def test_three_axes_have_errors_too():
    acquisition = Acquisition((0.2, 0.2, 0.2), (8, 8, 8), 4, 100, 1e-5)
    trajectory = plugins.build("init", {"kind": "radial"}, acquisition, Scanner())
    table = {"gain": {"gains": [0.1, 0.2, 0.3], "spread": 0.0}}
    acting = Perturbations(table).draw(trajectory, PERFECT, 0).acting
    assert torch.allclose(acting.k_adc, trajectory.k_adc * torch.tensor([1.1, 1.2, 1.3], dtype=torch.float64))


def test_a_lost_shot_brings_no_noise():
    trajectory, coil_images, _, _ = setup()
    believed = Encoding(trajectory, dtype=torch.float64)
    options = tiny("training.noise=0.1").training
    network, seeds = plugins.build("reconstructor", {"kind": "adjoint"}), torch.arange(len(coil_images))

    def image(lost):
        factor = torch.ones(3, 40, dtype=torch.complex128)
        factor[lost] = 0
        scan = replace(Perturbations({}).draw(trajectory, PERFECT, 0), factor=factor)
        return reconstruct(0 * coil_images, believed, network, options, seeds, sampled_by=scan.encoding(believed))[0]

    assert float(image([0, 1, 2]).abs().max()) < 1e-5
    assert float(image([]).abs().max()) > float(image([0, 1]).abs().max()) > 1e-3


def test_a_test_is_of_other_draws_than_the_training():
    joint = step.Joint(
        tiny(), plugins.build("init", {"kind": "radial"}, tiny().acquisition, Scanner()), "learned", 9, Ranks()
    )
    trained = {int(seed) for _ in range(50) for seed in draw_seeds(2, joint.noise)}
    tested = draw_seeds(100, torch.Generator().manual_seed(tiny().seed))
    assert not trained & set(tested.tolist())
