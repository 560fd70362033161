"""What a training says: where it is, how many slices of how many people it has, and how many steps that makes."""

import re
import threading

import numpy as np
import pytest

from trajdesign.config.models import load_config
from trajdesign.learning.optimize import optimize
from trajdesign.learning.progress import plan, taking_long

TINY = [
    "acquisition={matrix=[16,16], n_shots=2, n_samples=100, dwell=8e-6}",
    "training={epochs=3, batch_size=2, validations=3}",
    "reconstructor={kind='adjoint'}",
]


@pytest.fixture
def brains(tmp_path):
    """Settings of three files of two people to train on, validation cut off them, and another person to test on."""
    generator = np.random.default_rng(0)
    for name, n_slices in (("sub-1_a", 8), ("sub-1_b", 8), ("sub-2", 9), ("sub-3", 5)):
        np.save(tmp_path / f"{name}.npy", generator.uniform(0.5, 1, (n_slices, 16, 16)))
    train, test = (f"'{tmp_path}/sub-{which}.npy'" for which in ("[12]*", "3"))
    return f"data={{kind='images', train=[{train}], test=[{test}], n_coils=1, val_fraction=0.25}}"


def test_a_training_says_its_images_its_steps_and_each_validation(brains, tmp_path, capsys):
    optimize(load_config(None, [*TINY, brains]), tmp_path / "run", device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:1] == [
        # of 8, 8 and 9 slices a quarter each is validated on, and the slice before it is left out
        "Training on 16 slices of 2 people, validating on 6 slices of 2 people, testing on 5 slices of 1 person. "
        "3 epochs of 8 steps with 2 slices each: 24 steps fixed and 24 steps learned.",
    ]
    for stage, said in (("fixed", lines[1:5]), ("learned", lines[5:9])):
        for step, line in zip((8, 16, 24), said[:3], strict=True):
            assert re.fullmatch(rf"{stage} {step}/24 loss \d\.\d{{4}}  val \d+\.\d\d dB", line)
        assert said[3] == f"Testing what was trained ({stage}) on 5 slices of 1 person ..."
    assert len(lines) == 9


def test_who_is_named_hears_it_instead_and_quiet_is_quiet(tmp_path, capsys):
    config = load_config(None, [*TINY, "data={kind='phantom', n_train=4, n_val=1, n_test=1, n_coils=1}"])
    said, seen = [], []
    optimize(config, tmp_path / "heard", device="cpu", baseline=False, report=seen.append, say=said.append)
    assert said[0].startswith("Training on 4 slices, validating on 1 slice, testing on 1 slice. 3 epochs of 2 steps ")
    assert said[0].endswith(": 6 steps learned.")
    assert len(seen) == 6
    optimize(config, tmp_path / "quiet", device="cpu", baseline=False, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_starts_that_are_tried_are_said():
    config = load_config(None, [*TINY, "start=[{kind='spiral'}, {kind='rosette'}]", "training.trial=0.25"])
    data = {split: range(4) for split in ("train", "val", "test")}
    assert plan(config, data, ["fixed", "learned"]).endswith(" First 2 starts are tried, each for 25% of that.")
    assert plan(config, data, ["fixed"]).endswith("6 steps fixed.")


@pytest.mark.parametrize(
    ("acquisition", "name"),
    [
        ("acquisition={fov=[0.2,0.2,0.1], matrix=[16,16,4], n_shots=4}", "volume"),
        ("acquisition={matrix=[16,16], n_shots=4, n_frames=4}", "film"),
    ],
)
def test_volumes_and_films_are_called_so(acquisition, name):
    config = load_config(None, [acquisition, "training={epochs=2, batch_size=1}"])
    data = {"train": range(4), "val": range(1), "test": range(2)}
    assert plan(config, data, ["fixed"]) == (
        f"Training on 4 {name}s, validating on 1 {name}, testing on 2 {name}s. "
        f"2 epochs of 4 steps with 1 {name} each: 8 steps fixed."
    )


def test_what_takes_long_is_said_and_what_does_not_is_not():
    said, heard = [], threading.Event()

    def hear(sentence):
        said.append(sentence)
        heard.set()

    with taking_long(hear, "Reading ...", seconds=0.0):
        assert heard.wait(60)
    with pytest.raises(ValueError, match="refused"), taking_long(hear, "Reading more ...", seconds=60.0):
        raise ValueError("refused")
    assert said == ["Reading ..."]
