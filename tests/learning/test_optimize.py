"""A whole run, tiny: what it leaves, that it can be repeated, and how it ends when it cannot go on."""

import csv
import json
import math
import sys
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats
import torch
from reconstructors import FOR_SLICES

from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, DivergedError, InputError, LimitError, OutputError, ResourceError
from trajdesign.exporting.proof import export
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.evaluation import evaluate, reconstruct
from trajdesign.learning.optimize import datasets, optimize
from trajdesign.learning.parameterizations.samples import Samples
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.step import Joint, slices_at_once
from trajdesign.learning.training import Trainer
from trajdesign.physics import limits
from trajdesign.physics.nerves import nerve_model, stimulation
from trajdesign.physics.projection import Projection
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.runtime.processes import Ranks, torch_device

GAMMA = 42.577478461e6
TINY = [
    "acquisition.matrix=[32,32]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=128",
    "acquisition.dwell=8e-6",
    "data.n_train=4",
    "data.n_val=2",
    "data.n_test=5",
    "data.n_coils=2",
    "training.epochs=2",
    "training.batch_size=2",
    "training.validations=2",
    "training.trajectory_rate=0.01",
    "reconstructor.channels=4",
    "reconstructor.levels=2",
    "parameterization.n_control=12",
    "name=tiny",
]


def tiny(*overrides):
    others = {o.partition(".")[0] for o in overrides if ".kind=" in o}  # another kind has other options
    return load_config(None, [*(o for o in TINY if o.partition(".")[0] not in others), *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "folder"
    seen = []
    metrics = optimize(tiny(), path, device="cpu", report=seen.append)
    return RunFolder(path), metrics, seen


def test_the_folder_holds_everything(run):
    folder, metrics, _ = run
    assert {p.name for p in folder.path.iterdir()} == {
        "config.toml",
        "history.csv",
        "initial.npz",
        "metrics.json",
        "network.safetensors",
        "network_fixed.safetensors",
        "trajectory.npz",
    }
    assert folder.config() == tiny()
    assert folder.results() == metrics
    initial, learned = folder.trajectory("initial"), folder.trajectory()
    wanted = plugins.build("init", tiny().init, tiny().acquisition, tiny().scanner)
    assert torch.equal(initial.points, wanted.points)
    assert float((learned.points - initial.points).abs().max()) > 0.1, "nothing was learned"
    assert learned.acquisition == initial.acquisition == tiny().acquisition
    assert learned.scanner == tiny().scanner


def test_the_metrics_have_the_promised_keys(run):
    metrics = run[1]
    assert set(metrics.tables()) == {"name", "fixed", "learned", "wilcoxon_p", "limits", "files"}
    for stage in ("fixed", "learned"):
        result = metrics.stages[stage]
        assert result.n == 5
        for key in ("psnr", "ssim", "nrmse"):
            assert len(result.values(key)) == 5
            assert result.mean(key) == pytest.approx(np.mean(result.values(key)))
            assert np.isfinite(result.values(key)).all()
    for key in ("psnr", "ssim"):
        lists = [metrics.stages[stage].values(key) for stage in ("learned", "fixed")]
        assert metrics.wilcoxon_p[key] == pytest.approx(scipy.stats.wilcoxon(*lists).pvalue)


def test_the_learned_trajectory_has_no_violation_in_plain_differences(run):
    folder, metrics, _ = run
    with np.load(folder.path / "trajectory.npz") as file:
        k, raster = file["k"], float(file["raster_s"])
        gradient = np.diff(k, axis=1) / raster / GAMMA
        slew = np.diff(gradient, axis=1) / raster
        largest = np.linalg.norm(gradient, axis=-1).max(), np.linalg.norm(slew, axis=-1).max()
        assert largest[0] < min(float(file["max_gradient_t_per_m"]), 1 / (GAMMA * 8e-6 * 0.22))
        assert largest[1] < float(file["max_slew_t_per_m_s"])
        assert np.abs(k).max() < 16 / 0.22
    limits = metrics.limits
    assert limits["ok"] is True
    assert limits["max_gradient"] == pytest.approx(largest[0])
    assert limits["max_slew"] == pytest.approx(largest[1])


def test_the_results_are_those_of_the_files(run):
    folder, metrics, _ = run
    config = folder.config()
    test = datasets(config)["test"]
    for stage, trajectory, weights in (("fixed", "initial", "network_fixed"), ("learned", "trajectory", "network")):
        network = plugins.build("reconstructor", config.reconstructor)
        folder.load_network(network, weights)
        scores = evaluate(folder.trajectory(trajectory), network, test, config)
        np.testing.assert_allclose(scores.psnr_list, metrics.stages[stage].psnr_list, rtol=1e-5)
        # and from the pixels
        with torch.no_grad():
            encoding = Encoding(folder.trajectory(trajectory))
            image, reference = reconstruct(test[1][None], encoding, network, config.training)
        np.testing.assert_allclose(reference[0, 0], np.sqrt((test[1].abs().numpy() ** 2).sum(0)), atol=1e-5)
        error = float((image - reference).square().mean())
        assert metrics.stages[stage].psnr_list[1] == pytest.approx(-10 * math.log10(error), abs=1e-3)


def test_the_history_has_a_row_a_validation(run):
    with (run[0].path / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["stage"], int(row["step"])) for row in rows] == [
        ("fixed", 2),
        ("fixed", 4),
        ("learned", 2),
        ("learned", 4),
    ]
    assert all(math.isfinite(float(row[key])) for row in rows for key in ("loss", "val_psnr", "val_ssim"))


def test_every_step_is_reported(run):
    seen = run[2]
    assert [(p.stage, p.step, p.n_steps) for p in seen] == [
        (stage, step, 4) for stage in ("fixed", "learned") for step in (1, 2, 3, 4)
    ]
    assert math.isnan(seen[0].psnr)
    assert math.isfinite(seen[-1].psnr)


def test_the_same_seed_gives_the_same_run_and_another_does_not(run, tmp_path):
    folder, metrics, _ = run
    again = optimize(folder.config(), tmp_path / "again", device="cpu")
    assert torch.equal(RunFolder(tmp_path / "again").trajectory().points, folder.trajectory().points)
    assert again.stages["learned"].psnr_list == metrics.stages["learned"].psnr_list
    other = optimize(tiny("seed=1"), tmp_path / "other", device="cpu", baseline=False)
    assert not torch.equal(RunFolder(tmp_path / "other").trajectory().points, folder.trajectory().points)
    assert other.stages["learned"].psnr_list != metrics.stages["learned"].psnr_list


def test_without_the_baseline_the_learned_run_is_the_same(run, tmp_path):
    folder, metrics, _ = run
    alone = optimize(tiny(), tmp_path / "run", device="cpu", baseline=False)
    assert set(alone.tables()) == {"name", "learned", "limits", "files"}
    assert alone.stages["learned"].psnr_list == metrics.stages["learned"].psnr_list
    assert torch.equal(RunFolder(tmp_path / "run").trajectory().points, folder.trajectory().points)
    assert not (tmp_path / "run" / "network_fixed.safetensors").exists()


def test_learning_starts_where_it_is_told_to_and_is_compared_with_the_initial_pattern(run, tmp_path):
    folder, metrics, _ = run
    other = optimize(tiny("start.angle=golden", "training.trajectory_rate=0"), tmp_path / "run", device="cpu")
    assert other.stages["fixed"].psnr_list == metrics.stages["fixed"].psnr_list
    started = RunFolder(tmp_path / "run")
    golden = plugins.build("init", started.config().start, started.config().acquisition, started.config().scanner)
    assert torch.equal(started.trajectory("start").points, golden.points)
    torch.testing.assert_close(
        started.trajectory().points, golden.points, rtol=2e-4, atol=0
    )  # the margin of the projection
    assert torch.equal(started.trajectory("initial").points, folder.trajectory("initial").points)


@pytest.mark.parametrize("matrix", ["[32,16]", "[16,32]"])
def test_without_a_rate_nothing_moves_and_nothing_is_gained_where_the_axes_differ(tmp_path, matrix):
    options = [f"acquisition.matrix={matrix}", "training.trajectory_rate=0", "init.kind=spiral"]
    metrics = optimize(tiny(*options), tmp_path / "run", device="cpu")
    run = RunFolder(tmp_path / "run")
    moved = run.trajectory().points - run.trajectory("initial").points
    assert float(moved.abs().max() * 0.22) < 1e-9
    assert metrics.stages["learned"].psnr_list == pytest.approx(metrics.stages["fixed"].psnr_list, abs=1e-2)


def test_a_run_that_learns_no_trajectory_is_the_fixed_stage_of_one_that_does(run, tmp_path):
    folder, metrics, _ = run
    alone = optimize(tiny("parameterization.kind=fixed"), tmp_path / "run", device="cpu")
    assert set(alone.tables()) == {"name", "fixed", "limits", "files"}
    assert alone.stages["fixed"].psnr_list == metrics.stages["fixed"].psnr_list
    fixed = RunFolder(tmp_path / "run")
    assert torch.equal(fixed.trajectory().points, folder.trajectory("initial").points)
    assert (fixed.path / "network.safetensors").read_bytes() == (folder.path / "network_fixed.safetensors").read_bytes()
    assert not (fixed.path / "network_fixed.safetensors").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["limits.method=penalty", "limits.weight=0.0", "data.n_coils=1"],
        ["limits.from_epoch=1", "init.kind=spiral", "training.noise=0.01"],
        ["limits.from_epoch=9", "init.kind=cartesian", "training.ssim_weight=0.0"],
        ["parameterization.kind=samples", "training.batch_size=50"],
        ["parameterization.kind=neural_ode", "parameterization.hidden=8", "training.validations=1000"],
        ["scanner.limit_norm=axis", "scanner.max_slew=60.0"],
        ["acquisition.matrix=[36,30]", "acquisition.fov=[0.24,0.2]", "scanner.gradient_raster=4e-6"],
        ["limits.constraints=[]", "limits.method=penalty", "training.trajectory_rate=0.0"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_way_ends_feasible(tmp_path, overrides):
    settings = tiny("training.trajectory_rate=0.05", *overrides)
    metrics = optimize(settings, tmp_path / "run", device="cpu", baseline=False)
    assert metrics.limits["ok"] is True
    assert metrics.limits["margin"] >= 0.99e-4 or settings.limits.constraints == []
    assert math.isfinite(metrics.stages["learned"].psnr)


def instead_of_evaluate(monkeypatch, spy):
    """Let a spy see what is validated in the training, and tested after it."""
    for name in ("training", "optimize"):
        monkeypatch.setattr(sys.modules[f"trajdesign.learning.{name}"], "evaluate", spy)


@pytest.mark.parametrize(
    ("method", "from_epoch", "kept"),
    [("project", 0, [True, True, True]), ("project", 2, [False, False, True]), ("penalty", 0, [False] * 3)],
)
def test_the_projection_acts_in_every_step_from_its_epoch_on(monkeypatch, tmp_path, method, from_epoch, kept):
    seen = []

    def spy(trajectory, *others):
        seen.append(all(f.ok for f in limits.check(trajectory)))
        return evaluate(trajectory, *others)

    instead_of_evaluate(monkeypatch, spy)
    overrides = [f"limits.method={method}", f"limits.from_epoch={from_epoch}", "limits.weight=0.0"]
    rates = ["training.trajectory_rate=0.05", "training.epochs=3", "training.validations=3", "training.settle=0.0"]
    optimize(tiny(*overrides, *rates), tmp_path / "run", device="cpu", baseline=False)
    assert seen == [*kept, True], "the last is the final one"


@pytest.mark.parametrize("method", ["none", "penalty", "project"])
def test_without_repair_the_trajectory_is_what_training_left(monkeypatch, tmp_path, method):
    seen = []

    def spy(trajectory, *others):
        seen.append(trajectory)
        return evaluate(trajectory, *others)

    instead_of_evaluate(monkeypatch, spy)
    options = ["limits.repair=false", "parameterization.kind=samples", "training.trajectory_rate=0.05"]
    settings = tiny(f"limits.method={method}", *options)
    found = optimize(settings, tmp_path / "run", device="cpu", baseline=False).limits
    learned = RunFolder(tmp_path / "run").trajectory()
    assert torch.equal(learned.points, seen[-1].points), "what was tested is what is kept"
    slew = learned.slew.norm(dim=-1)
    assert found["max_slew"] == pytest.approx(float(slew.max()))
    assert found["constraints"]["slew"]["n_violations"] == int((slew > 200 * (1 + 1e-9)).sum())
    kept = method == "project"
    assert (found["ok"], found["n_broken"] == 0) == (kept, kept)
    if not kept:
        with pytest.raises(LimitError, match="slew"):
            export(learned, tmp_path / "run.seq")
        assert not (tmp_path / "run.seq").exists()


def test_without_a_method_there_is_no_penalty():
    def learn(method, weight):
        options = ["training.trajectory_rate=0.05", "parameterization.kind=samples", f"limits.weight={weight}"]
        result = trained(f"limits.method={method}", "limits.repair=false", *options)[1]
        assert result.history[-1].penalty > 0
        return result.trajectory.points

    free = learn("penalty", 0.0)
    assert torch.equal(learn("none", 1e3), free)
    assert not torch.equal(learn("penalty", 1e3), free)


def test_a_penalty_by_axis_lets_a_diagonal_be():
    config = tiny("limits.constraints=['gradient']", "limits.method=penalty")
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    step = 0.8 * config.scanner.max_gradient * GAMMA * config.scanner.gradient_raster
    diagonal = initial.with_points(
        step * torch.arange(initial.points.shape[1]).double()[None, :, None].expand_as(initial.points)
    )
    images = torch.stack([datasets(config)["train"][0]])
    found = {}
    for norm in ("axis", "scanner"):
        settings = config.model_copy(update={"limits": config.limits.model_copy(update={"penalty_norm": norm})})
        found[norm] = Joint(settings, diagonal, "learned", 2, Ranks()).step(images, constrained=True)[1]
    assert found == {"axis": 0, "scanner": pytest.approx(0.8 * math.sqrt(2) - 1)}


def test_training_refines_what_is_learned(monkeypatch):
    seen = []
    refine = Samples.refine

    def spy(self, progress):
        refine(self, progress)
        seen.append((progress, self.offset.gap))

    monkeypatch.setattr(Samples, "refine", spy)
    trained("parameterization.kind=samples", "parameterization.decimation=2", "training.settle=0.0")
    assert seen == [(0, 2), (0.25, 2), (0.5, 1), (0.75, 1)]


def test_a_penalty_holds_the_trajectory_back(tmp_path):
    def penalty(weight, method="penalty", from_epoch=0):
        overrides = [f"limits.weight={weight}", f"limits.method={method}", f"limits.from_epoch={from_epoch}"]
        steps = ["training.epochs=6", "training.settle=0.0", "training.network_rate=0.0"]
        settings = tiny(*overrides, *steps, "parameterization.kind=samples")
        optimize(settings, tmp_path / f"{weight}{method}{from_epoch}", device="cpu", baseline=False)
        with (tmp_path / f"{weight}{method}{from_epoch}" / "history.csv").open() as stream:
            return float(list(csv.DictReader(stream))[-1]["penalty"])

    free, held = penalty(0.0), penalty(10.0)
    assert free > 0
    assert held < 0.5 * free
    # constraints that start after the last epoch do not hold anything back
    assert penalty(10.0, from_epoch=6) == pytest.approx(free)
    assert penalty(10.0, method="project", from_epoch=6) == pytest.approx(free)


# --- limits that no projection enforces ---

NERVES = ["limits.constraints=['extent', 'gradient', 'receiver', 'slew', 'stimulation']"]


def nerves(limit, weight):
    options = f"{{slew = {{weight = 3.0}}, stimulation = {{model = 'xrm', limit = {limit}, weight = {weight}}}}}"
    return [*NERVES, f"limits.options={options}"]


def test_each_penalty_has_its_weight_and_its_trajectory():
    config = tiny(*nerves(0.35, 40.0), "init.kind=spiral")
    wanted = plugins.build("init", config.init, config.acquisition, config.scanner)
    wanted = wanted.with_points(1.5 * wanted.points)
    played = wanted.with_points(1.2 * wanted.points)
    joint = Joint(config, wanted, "learned", 2, Ranks())
    parts = {c.name: c.penalty(played if c.name == "stimulation" else wanted) for c in joint.penalised}
    assert min(float(parts[name]) for name in ("slew", "stimulation")) > 0
    penalty, weighted = joint._penalty(wanted, played)
    assert float(penalty) == pytest.approx(sum(map(float, parts.values())))
    weights = {"slew": 3.0, "stimulation": 40.0}
    assert float(weighted) == pytest.approx(sum(weights.get(n, 0.1) * float(part) for n, part in parts.items()))


@pytest.mark.parametrize("method", ["project", "penalty"])
def test_learning_comes_below_a_limit_that_it_starts_beyond(tmp_path, method):
    config = tiny(
        *nerves(0.35, 30.0),
        f"limits.method={method}",
        "init.kind=spiral",
        "reconstructor.kind=adjoint",
        "parameterization.kind=bspline",
        "parameterization.n_control=20",
        "training.trajectory_rate=0.02",
        "training.epochs=15",
        "training.settle=0.0",
        "training.validations=1",
    )
    optimize(config, tmp_path / "run", device="cpu", baseline=False)
    folder = RunFolder(tmp_path / "run")
    model = nerve_model("xrm")
    start, end = (
        float(stimulation(model, folder.trajectory(n).gradient, 1e-5).max()) for n in ("initial", "trajectory")
    )
    found = folder.results().limits
    assert start > 0.45
    assert end <= 0.35
    assert found["constraints"]["stimulation"]["value"] == pytest.approx(end)
    assert found["constraints"]["stimulation"]["limit"] == 0.35
    assert found["ok"]
    # without the option it is no limit of the hardware
    assert [f.name for f in limits.check(folder.trajectory("initial"))] == limits.standard()


def test_a_limit_that_learning_does_not_reach_is_told_not_refused(tmp_path):
    found = optimize(tiny(*nerves(1e-3, 0.0), "training.epochs=1"), tmp_path / "run", device="cpu", baseline=False)
    assert found.limits["ok"] is False
    assert found.limits["n_broken"] == 1
    assert not found.limits["constraints"]["stimulation"]["ok"]


def test_a_constraint_that_cannot_be_built_is_refused_at_once(tmp_path):
    missing = "limits.options={stimulation = {model = 'nowhere.asc'}}"
    with pytest.raises(InputError, match=r"nowhere\.asc"):
        optimize(tiny(*NERVES, missing), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    negative = "limits.options={slew = {weight = -1.0}, stimulation = {model = 'xrm'}}"
    with pytest.raises(ConfigError, match="weight of the limit 'slew' is -1"):
        optimize(tiny(*NERVES, negative), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("kind", ["bspline", "samples"])
def test_the_trajectory_alone_lowers_the_loss(tmp_path, kind):
    # no network to help: the image is the adjoint's, and only the trajectory learns
    settings = tiny(
        "reconstructor.kind=adjoint",
        f"parameterization.kind={kind}",
        "training.epochs=20",
        "training.batch_size=4",
        "training.validations=20",
        "limits.method=project",
    )
    metrics = optimize(settings, tmp_path / "run", device="cpu")
    with (tmp_path / "run" / "history.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream) if row["stage"] == "learned"]
    assert losses[-1] < 0.98 * losses[0]
    assert metrics.stages["learned"].psnr > metrics.stages["fixed"].psnr


# --- the same run by other means ---


def trained(*overrides, stage="learned"):
    """Return the losses of a short training, and what it leaves."""
    config = tiny(*overrides)
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    losses = []
    return losses, Trainer(config, datasets(config), Ranks(), lambda p: losses.append(p.loss)).train(initial, stage)


@pytest.mark.parametrize("normal", ["toeplitz", "chain"])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(normal):
    def gradients(at_once):
        splits = [f"training.slices_at_once={at_once}", f"training.normal={normal}"]
        config = tiny("parameterization.kind=bspline", "data.n_train=5", *splits)
        initial = plugins.build("init", config.init, config.acquisition, config.scanner)
        joint = Joint(config, initial, "learned", 10, Ranks())
        with torch.no_grad():  # off the limits, so that the penalty has a gradient too
            next(joint.parameterization.parameters()).normal_(0, 5, generator=torch.Generator().manual_seed(1))
            joint.network.correction.head.weight.fill_(0.1)
        images = torch.stack([datasets(config)["train"][i] for i in range(5)])
        loss, penalty = joint.step(images, constrained=True)
        assert penalty > 0
        return loss, [p.grad for p in joint.parameters]

    loss, whole = gradients(0)
    assert all(float(g.abs().max()) > 0 for g in whole)
    for at_once in (1, 2, 5, 7):
        its_loss, parts = gradients(at_once)
        assert its_loss == pytest.approx(loss, rel=1e-5)
        for part, gradient in zip(parts, whole, strict=True):
            assert float((part - gradient).abs().max()) < 1e-4 * float(gradient.abs().max())


def test_on_a_cpu_a_large_batch_goes_through_in_even_parts():
    shapes = [(8, 1, 320, 320), (8, 8, 256, 256), (7, 8, 256, 256), (3, 1, 64, 64), (2, 16, 512, 512)]
    assert [slices_at_once(shape, torch.device("cpu")) for shape in shapes] == [4, 2, 2, 3, 1]


def test_the_trajectory_is_gone_back_through_once_a_step(monkeypatch):
    calls = []
    backward = Projection.__call__

    def spy(self, wanted):
        projected = backward(self, wanted)
        projected.points.register_hook(lambda _: calls.append(1))
        return projected

    monkeypatch.setattr(Projection, "__call__", spy)
    joint_steps, _ = trained("training.slices_at_once=1", "training.validations=1", "training.settle=0.0")
    assert len(calls) == len(joint_steps) == 4


def test_at_last_the_network_alone_learns_on_what_will_be_played(monkeypatch):
    seen = []

    def spy(trajectory, network, *others):
        seen.append((trajectory.points.clone(), [p.detach().clone() for p in network.parameters()]))
        return evaluate(trajectory, network, *others)

    instead_of_evaluate(monkeypatch, spy)
    losses, result = trained("training.settle=0.5", "training.trajectory_rate=0.05", "training.validations=4")
    assert len(losses) == len(seen) == 4
    learning, settled = seen[:2], seen[2:]
    assert float((learning[0][0] - learning[1][0]).abs().max()) > 0
    assert float((learning[1][0] - result.trajectory.points).abs().max()) > 0, "the projection ends once nothing moves"
    for k, _ in settled:
        assert torch.equal(k, result.trajectory.points)
    assert any(not torch.equal(a, b) for a, b in zip(settled[0][1], settled[1][1], strict=True))
    assert all(f.ok for f in limits.check(result.trajectory))


def test_readers_change_nothing():
    losses, alone = trained("training.noise=0.01")
    for workers in (1, 2):
        others, read = trained("training.noise=0.01", f"training.workers={workers}")
        assert others == losses
        assert torch.equal(read.trajectory.points, alone.trajectory.points)


def test_the_noise_of_an_image_does_not_depend_on_its_company():
    config = tiny("training.noise=0.05")
    initial = plugins.build("init", config.init, config.acquisition, config.scanner)
    encoding, network = Encoding(initial, normal="toeplitz"), plugins.build("reconstructor", config.reconstructor)
    images = torch.stack([datasets(config)["train"][i] for i in range(3)])
    seeds = torch.tensor([5, 6, 7])
    with torch.no_grad():
        whole, _ = reconstruct(images, encoding, network, config.training, seeds)
        single, _ = reconstruct(images[1:2], encoding, network, config.training, seeds[1:2])
        other, _ = reconstruct(images[1:2], encoding, network, config.training, seeds[2:3])
        free = [reconstruct(images[1:2], encoding, network, config.training)[0] for _ in range(2)]
    torch.testing.assert_close(single, whole[1:2], atol=1e-5, rtol=0)
    for different in (other, *free):
        assert float((different - single).abs().max()) > 1e-3
    assert not torch.equal(*free)


class Watched(Reconstructor):
    """Keeps what autocast was, and the types that its layer and its physics give under it."""

    seen: ClassVar[list] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)

    def forward(self, images, encoding):
        magnitude = root_sum_of_squares(images)
        image = self.layer(magnitude)
        physics = encoding.normal(images)
        self.seen.append((torch.is_autocast_enabled("cpu"), magnitude.dtype, image.dtype, physics.dtype))
        return image


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_of_the_layers_alone(monkeypatch, precision, dtype):
    Watched.seen.clear()
    outside = []
    loss = metrics.image_loss

    def spy(image, *others):
        outside.append((torch.is_autocast_enabled("cpu"), image.dtype))
        return loss(image, *others)

    monkeypatch.setattr(metrics, "image_loss", spy)
    _, result = trained(f"reconstructor.kind={__name__}:Watched", f"training.precision={precision}")
    assert set(Watched.seen) == {(precision == "bfloat16", torch.float32, dtype, torch.complex64)}
    assert set(outside) == {(False, torch.float32)}
    assert {p.dtype for p in result.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", FOR_SLICES)
def test_bfloat16_learns_what_float32_learns(kind):
    overrides = [f"reconstructor.kind={kind}", "training.validations=1"]
    (full, _), (half, result) = trained(*overrides), trained(*overrides, "training.precision=bfloat16")
    np.testing.assert_allclose(half, full, rtol=0.02)
    assert torch.isfinite(result.trajectory.points).all()


# torch hides this warning of what it does itself, but not from a filter that makes it an error
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kind", ["unet", "unrolled"])
def test_a_compiled_network_is_the_same_network(monkeypatch, tmp_path, kind):
    compiled = []
    compile_ = torch.compile

    def with_light_backend(*arguments, **options):
        compiled.append(arguments)
        return compile_(*arguments, **options, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", with_light_backend)
    overrides = [f"reconstructor.kind={kind}", "reconstructor.levels=1", "training.epochs=1", "data.n_val=1"]
    plain, network = trained(*overrides)
    assert not compiled, "off by default"
    losses, result = trained(*overrides, "training.compile=true")
    assert len(compiled) == len(list(result.network.children()))
    np.testing.assert_allclose(losses, plain, rtol=1e-4)
    folder = RunFolder(tmp_path)
    folder.save_network(result.network)
    folder.load_network(network.network)
    torch._dynamo.reset()


# --- runs that cannot be ---


ECHO = ["limits.constraints=['extent','gradient','receiver','slew','echo']", "limits.options.echo.time=auto"]


@pytest.mark.parametrize(
    ("overrides", "sample"),
    [
        ([], 64),  # a radial start
        (["init.kind=spiral"], 0),
        (["parameterization.kind=samples"], 64),
        (["limits.method=penalty"], 64),
        (["init.kind=rosette", "init.petals=2", "limits.options.echo.time=512e-6"], 64),
        (
            ["init.kind=spiral", "init.in_out=true", "limits.options.echo={time=512e-6, moment=true}"],
            64,
        ),
    ],
)
def test_every_shot_passes_the_centre_at_the_echo_time_after_learning(tmp_path, overrides, sample):
    config = tiny(*ECHO, "training.trajectory_rate=0.03", *overrides)
    optimize(config, tmp_path, quiet=True)
    folder = RunFolder(tmp_path)
    learned, start = folder.trajectory(), folder.trajectory("initial")
    at_echo = (learned.k_adc[:, sample] * 0.22).norm(dim=-1)
    assert float(at_echo.max()) < 1e-6
    assert float((learned.k_adc - start.k_adc).norm(dim=-1).max() * 0.22) > 0.1
    found = json.loads((tmp_path / "metrics.json").read_text())["limits"]
    assert found["ok"]
    assert found["constraints"]["echo"]["value"] < 1e-6
    exported = export(learned, tmp_path / "x.seq", constraints=config.limits.tables)
    assert max(value for key, value in exported.items() if key.startswith("echo_")) < 1e-6


def test_starts_that_cannot_pass_the_centre_are_refused_before_anything_is_written(tmp_path):
    for kind in ("cartesian", "epi"):
        with pytest.raises(ConfigError, match=f"{kind} cannot keep the limit 'echo'.*/FOV from the centre"):
            optimize(tiny(f"init.kind={kind}", *ECHO), tmp_path / "run", quiet=True)
    # what is not learned is not moved onto the centre either
    overrides = ["init.kind=rosette", "init.petals=2", "parameterization.kind=fixed"]
    rosette = tiny(*overrides, *ECHO, "limits.options.echo.time=512e-6")
    with pytest.raises(LimitError, match=r"rosette breaks 1 limit.*echo"):
        optimize(rosette, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_played_ends_before_anything_is_written(tmp_path):
    with pytest.raises(LimitError, match="radial") as caught:
        optimize(load_config(None, ["acquisition.n_samples=16"]), tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device_ends_before_anything_is_written(tmp_path):
    for device in ("tpu", "cuda:99", "", "cpu:x"):
        with pytest.raises(ResourceError, match="cpu") as caught:
            optimize(tiny(), tmp_path / "run", device=device)
        assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []
    assert torch_device("cpu") == torch.device("cpu")
    assert torch_device("auto").type in ("cpu", "cuda")


def test_a_folder_with_a_run_is_left_alone(run, tmp_path):
    folder = run[0]
    before = {p.name: p.read_bytes() for p in folder.path.iterdir()}
    with pytest.raises(OutputError, match="--force") as caught:
        optimize(tiny("seed=7"), folder.path, device="cpu")
    assert caught.value.exit_code == 5
    assert {p.name: p.read_bytes() for p in folder.path.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        optimize(tiny(), tmp_path / "file", device="cpu")


class NotANumber(Reconstructor):
    """Its first image is a number, if `good` allows; the rest are not."""

    def __init__(self, *, good: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.good = good

    def forward(self, images, encoding):
        image = images.abs().sum(1, keepdim=True) * self.weight
        self.good -= 1
        return image if self.good >= 0 else image * math.nan


@pytest.mark.parametrize("n_steps", [1, 4, 40])
def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path, n_steps):
    settings = tiny(f"reconstructor.kind={__name__}:NotANumber", f"training.epochs={n_steps}", "training.batch_size=4")
    seen = []
    with pytest.raises(DivergedError, match="no finite loss") as caught:
        optimize(settings, tmp_path / "run", device="cpu", report=seen.append)
    assert caught.value.exit_code == 7
    assert len(seen) <= 10
    assert not (tmp_path / "run" / "trajectory.npz").exists()


def test_a_replaced_run_leaves_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "run"
    optimize(tiny(), path, device="cpu")
    (path / "notes.txt").write_text("mine")
    optimize(tiny("reconstructor.channels=8"), path, device="cpu", baseline=False, overwrite=True)
    assert not (path / "network_fixed.safetensors").exists(), "of another architecture than config.toml says"
    settings = tiny(f"reconstructor.kind={__name__}:NotANumber")
    with pytest.raises(DivergedError):
        optimize(settings, path, device="cpu", overwrite=True)
    assert not (path / "trajectory.npz").exists(), "of another run than config.toml says"
    assert not (path / "metrics.json").exists()
    assert (path / "notes.txt").read_text() == "mine"


def test_a_dataset_without_images_is_an_input_error(monkeypatch, tmp_path):
    (tmp_path / "no_images.py").write_text(
        "def none(acquisition, split):\n    '''None.'''\n    return []\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        optimize(tiny("data.kind=no_images:none"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_of_several_starts_the_best_goes_on_as_if_it_were_alone(tmp_path):
    starts = ['{angle="golden"}', '{kind="rosette", turns=0.5}', '{kind="spiral"}']
    alone = []
    for number, start in enumerate(starts):
        optimize(tiny(f"start={start}"), tmp_path / str(number), device="cpu", baseline=False)
        rows = list(csv.DictReader((tmp_path / str(number) / "history.csv").read_text().splitlines()))
        alone.append(float(rows[0]["val_psnr"]))
    metrics = optimize(tiny(f"start=[{', '.join(starts)}]"), tmp_path / "all", device="cpu", baseline=False)
    assert [start["val_psnr"] for start in metrics.starts] == pytest.approx(alone, abs=1e-9)
    best = tmp_path / str(int(np.argmax(alone)))
    for name in ("start.npz", "network.safetensors"):
        assert (tmp_path / "all" / name).read_bytes() == (best / name).read_bytes()
    assert torch.equal(
        RunFolder(tmp_path / "all").trajectory("trajectory").points, RunFolder(best).trajectory("trajectory").points
    )
    assert metrics.last.psnr_list == json.loads((best / "metrics.json").read_text())["learned"]["psnr_list"]
