"""The figures of a run are of the images that its results are of, or there are none."""

from dataclasses import replace

import numpy as np
import pytest
from faults.tiny import tiny
from skimage.metrics import peak_signal_noise_ratio

from trajdesign.config.models import load_config
from trajdesign.errors import InputError
from trajdesign.learning import compare, examples
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.reporting import plots, report


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a run on files of random blobs: three images to train, one to validate, five to test."""
    path = tmp_path_factory.mktemp("report")
    for name, n in (("train", 3), ("val", 1), ("test", 5)):
        np.save(path / f"{name}.npy", images(n, seed=n))
    names = [f"data.{split}=['{path / split}.npy']" for split in ("train", "val", "test")]
    few = ["training.epochs=1", "training.validations=1", "training.batch_size=1", "training.noise=0.01"]
    config = tiny("data.kind=images", *names, "data.n_coils=1", *few)
    optimize(config, path / "run", device="cpu", baseline=False, quiet=True)
    return path


def images(n, seed):
    y, x = np.mgrid[:32, :32]
    at = np.random.default_rng(seed).uniform(10, 22, (n, 2, 1, 1))
    return np.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / 30)


def test_the_image_of_the_report_has_the_score_that_the_run_has_of_it(trained):
    folder = RunFolder(trained / "run")
    [example] = examples.of_stages({"learned": (folder, "learned")}).values()
    wanted = folder.results().last.psnr_list[2]
    assert example.scores["network"]["PSNR"] == pytest.approx(wanted, abs=0.01)
    found = peak_signal_noise_ratio(
        example.reference.astype(float), example.images["network"].astype(float), data_range=1
    )
    assert found == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda kept: images(5, seed=9), r"number 2 \(from 0\) is another image"),
        (lambda kept: kept[::-1][[0, 1, 3, 2, 4]], r"number 2 \(from 0\) is another image"),
        (lambda kept: kept[:4], "4 images instead of 5"),
    ],
)
def test_no_figure_is_drawn_of_test_data_that_were_replaced(trained, tmp_path, change, sentence):
    run, data = trained / "run", trained / "test.npy"
    before = (run / "report.html").read_bytes() if (run / "report.html").exists() else None
    kept = np.load(data)
    try:
        np.save(data, change(kept))
        for draw in (
            lambda: report.draw(run),
            lambda: report.write(run, tmp_path / "a.html"),
            lambda: report.write(run, tmp_path / "a.pdf"),
            lambda: report.draw_comparison(compare.open_stages([str(run)]), tmp_path / "a.png"),
        ):
            with pytest.raises(InputError, match=f"no longer those that its results are of: {sentence}; no figure"):
                draw()
    finally:
        np.save(data, kept)
    assert not list(tmp_path.iterdir())
    assert before == ((run / "report.html").read_bytes() if (run / "report.html").exists() else None)
    report.write(run, tmp_path / "a.html")
    report.draw_comparison(compare.open_stages([str(run)]), tmp_path / "a.png")


def test_a_run_of_an_older_version_has_no_fingerprints_and_is_drawn(trained, tmp_path):
    folder = RunFolder(trained / "run")
    kept = folder.results()
    older = {**kept.stages, "learned": replace(kept.last, fingerprints=None)}
    try:
        folder.write_results(replace(kept, stages=older))
        report.write(folder.path, tmp_path / "a.html")
    finally:
        folder.write_results(kept)


@pytest.mark.parametrize(
    ("settings", "shape", "planes"),
    [
        ("fov=[0.2,0.2,0.1], matrix=[32,32,6], n_shots=12", (6, 32, 32), "slice"),
        ("fov=[0.2,0.2], matrix=[32,32], n_frames=5, n_shots=10", (5, 32, 32), "frame"),
    ],
    ids=["stack", "film"],
)
def test_an_example_has_every_slice_or_frame_and_figures_the_one_in_the_middle(tmp_path, settings, shape, planes):
    few = ["training.epochs=1", "training.validations=1", "training.batch_size=1"]
    data = ["data={kind='phantom', n_train=1, n_val=1, n_test=1, n_coils=1}"]
    kinds = ["init.kind=planes", "parameterization.kind=planes", "reconstructor.kind=adjoint"]
    config = load_config(None, [f"acquisition={{{settings}, n_samples=128, dwell=8e-6}}", *kinds, *data, *few])
    optimize(config, tmp_path / "run", device="cpu", baseline=False, quiet=True)
    folder = RunFolder(tmp_path / "run")
    [example] = found = list(examples.of_stages({"learned": (folder, "learned")}).values())
    assert example.reference.shape == example.images["network"].shape == shape
    assert example.planes == planes
    # the score of the run is that of all slices or frames together
    whole = peak_signal_noise_ratio(
        example.reference.astype(float), example.images["network"].astype(float), data_range=1
    )
    assert whole == pytest.approx(folder.results().last.psnr_list[0], abs=0.01)
    middle = shape[0] // 2
    reference, images, _, which = report._after({"learned": found[0]})
    np.testing.assert_array_equal(reference, example.reference[middle])
    np.testing.assert_array_equal(images["learned"], example.images["network"][middle])
    figure = plots.reconstructions(reference, images, which=which)
    assert figure.axes[0].get_xlabel() == f"{planes} {middle} of 0 to {shape[0] - 1}; scores: of all"
