"""The content of a checkpoint, key by key as every version with this layout reads it."""

import dataclasses

import pytest
import torch

from trajdesign.learning.results import Results
from trajdesign.learning.state import Done, JointState, RunState, TrainingState, Validation

ROW = {
    "stage": "fixed", "step": 2, "epoch": 1.0, "loss": 0.5, "val_psnr": 30.0, "val_ssim": 0.75, "penalty": 0.0,
    "seconds": 1.5,
}  # fmt: skip
JOINT = [
    "settled", "k", "parameterization", "network", "optimizer", "anneal", "projection", "weights", "spectra", "lost",
    "noise", "random", "random_cuda",
]  # fmt: skip


def training():
    return TrainingState(Done(2, 1.5, [0.25], 30.0, [Validation(**ROW)]), JointState(*torch.eye(len(JOINT))))


@pytest.mark.parametrize("tried", [[], [{"val_psnr": 30.0, "seconds": 1.5}]])
def test_a_state_is_written_and_read_key_by_key(tried):
    state = RunState(stages=["fixed", "learned"], stage="learned", results=Results("a"), history=[Validation(**ROW)])
    state.tried, state.best = tried, training() if tried else None
    tables = state.tables(training())
    first = ["stages", "stage", "results", "history", "circumstances", "config", "images"]
    assert list(tables) == [*first, *(["tried", "best"] if tried else []), "training"]
    assert tables["results"] == {"name": "a"}
    assert tables["history"] == tables["training"]["done"]["history"] == [ROW]
    assert tables["training"]["done"] == {
        "step": 2, "seconds": 1.5, "losses": [0.25], "psnr": 30.0, "history": [ROW]
    }  # fmt: skip
    assert list(tables["training"]["joint"]) == JOINT
    again = RunState.from_tables({"version": 2, **tables})
    assert (again.stage, again.history, again.tried, again.training.done) == (
        "learned", [Validation(**ROW)], tried, training().done
    )  # fmt: skip
    assert (again.best is None) is (not tried)
    with pytest.raises(TypeError, match="noise"):
        RunState.from_tables({**tables, "training": {"done": {"history": []}, "joint": dict.fromkeys(JOINT[:10])}})
    with pytest.raises(ValueError, match="stages"):
        RunState.from_tables({**tables, "stages": ["learned", "fixed"]})


def test_a_validation_is_a_row_of_the_history():
    assert [f.name for f in dataclasses.fields(Validation)] == list(ROW)
