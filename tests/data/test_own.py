"""Images of one's own, from Python: a function that the config names."""

import sys
from types import ModuleType

import pytest
import torch
from torch.utils.data import Dataset

import trajdesign
from trajdesign.errors import InputError

TINY = [
    "data.kind=own_images:brains",
    "acquisition.matrix=[24,20]",
    "acquisition.n_shots=3",
    "acquisition.n_samples=200",
    "training.epochs=1",
    "training.batch_size=2",
    "training.validations=1",
    "reconstructor.kind=adjoint",
    "parameterization.kind=samples",
]


class Turned(Dataset):
    """Each image, and the same one turned by half a circle."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return 2 * len(self.images)

    def __getitem__(self, index):
        return self.images[index // 2].flip(-2, -1) if index % 2 else self.images[index // 2]


@pytest.mark.parametrize("kind", [list, Turned])
def test_a_list_or_a_dataset_is_trained_on(tmp_path, monkeypatch, kind):
    images = torch.randn(10, 2, 20, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    images /= torch.linalg.vector_norm(images, dim=1).max()
    parts = {"train": images[:4], "val": images[4:7], "test": images[7:]}
    asked = set()

    def brains(acquisition, split):
        asked.add((acquisition.matrix, split))
        return kind(parts[split])

    module = ModuleType("own_images")
    module.brains = brains
    monkeypatch.setitem(sys.modules, "own_images", module)
    seen = []
    results = trajdesign.optimize(trajdesign.load_config(None, TINY), tmp_path / "run", report=seen.append)
    n_times = 2 if kind is Turned else 1
    assert asked == {((24, 20), split) for split in parts}
    assert results.last.n == 3 * n_times
    assert [(p.stage, p.step) for p in seen] == [(s, i + 1) for s in ("fixed", "learned") for i in range(2 * n_times)]

    parts["train"] = images[:4, :, :10]
    with pytest.raises(InputError, match=r"images of shape \(2, 2, 10, 24\) do not fit the acquisition"):
        trajdesign.optimize(trajdesign.load_config(None, TINY), tmp_path / "other", device="cpu")
