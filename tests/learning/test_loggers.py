"""What loggers write, read by the tools themselves."""

import math
import sys

import pytest

from trajdesign.errors import ResourceError
from trajdesign.interfaces import Progress
from trajdesign.learning.loggers.tensorboard import tensorboard


def read(folder):
    """Return tag -> (step, value) of what TensorBoard finds."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def log(folder, steps):
    with tensorboard(folder) as watch:
        for step in steps:
            watch(Progress("learned", step, 6, 1 / step, 20.0 + step // 2 if step > 1 else math.nan))


def test_tensorboard_shows_every_loss_and_every_validation(tmp_path):
    log(tmp_path, range(1, 5))
    found = read(tmp_path / "tensorboard" / "learned")
    assert found["loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 5)]
    assert found["validation/PSNR"] == [(2, 21.0), (4, 22.0)]


def test_a_run_goes_on_where_it_was_left_and_a_new_one_begins_anew(tmp_path):
    log(tmp_path, range(1, 5))
    log(tmp_path, range(3, 7))  # from a checkpoint after the second step
    assert [step for step, _ in read(tmp_path / "tensorboard" / "learned")["loss"]] == [1, 2, 3, 4, 5, 6]
    log(tmp_path, range(1, 3))
    assert [step for step, _ in read(tmp_path / "tensorboard" / "learned")["loss"]] == [1, 2]


def test_without_the_package_it_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ResourceError, match=r'pip install -e "\.\[tensorboard\]"'), tensorboard(tmp_path):
        pass
