"""Random objects, drawn anew for every image: no files needed."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.data.phantoms.brain import brain
from trajdesign.data.phantoms.head import head
from trajdesign.data.phantoms.heart import heart
from trajdesign.data.receiver import receive
from trajdesign.errors import ConfigError
from trajdesign.runtime import memory

_SPLITS = ("train", "val", "test")


def phantom(
    acquisition: Acquisition,
    split: Literal["train", "val", "test"],
    *,
    n_train: int = 400,
    n_val: int = 20,
    n_test: int = 40,
    n_coils: int = 4,
    seed: int = 0,
) -> Dataset[Tensor]:
    """Procedural anatomy with simulated coils and phase: brain slices, in 3D heads, in a film beating hearts.

    Every image (coil, y, x) is another object: an axial brain slice, whose head shape, cortical folds, ventricles,
    vessels and tissue contrast (T1-, T2- or FLAIR-like) are random. A 3D acquisition has images (coil, z, y, x) of
    whole heads of the same contrasts, or of a slab of them where the field of view along z is shorter; a film has
    images (coil, frame, y, x) of one beat of a heart in its short axis. Images of different splits come from different
    random streams. Each is its own volume, with a maximum of one; head or chest fills most of the field of view.

    Parameters
    ----------
    n_train, n_val, n_test
        Number of images in the split. Each is drawn when it is first read, and kept: a head of 64 x 64 x 64 voxels
        takes about half a second.
    n_coils
        Number of simulated coils.
    seed
        Seed of all images.

    Raises
    ------
    ConfigError, ResourceError
        If a number makes no sense, or the objects do not fit into memory.
    """
    count = {"train": n_train, "val": n_val, "test": n_test}[split]
    if count < 1 or n_coils < 1 or seed < 0:
        raise ConfigError(f"n_{split} is {count}, n_coils {n_coils}, seed {seed}: counts start at 1, seeds at 0.")
    memory.require(8 * count * math.prod(acquisition.image_shape), f"data.n_{split} = {count} objects", "draw fewer")
    return _Phantoms(acquisition, n_coils, (seed, _SPLITS.index(split)), count)


class _Phantoms(Dataset[Tensor]):
    """Objects are kept once they are drawn; coils and phase are simulated anew, which takes less room."""

    def __init__(self, acquisition: Acquisition, n_coils: int, stream: tuple[int, int], count: int) -> None:
        self.acquisition, self.n_coils, self.stream = acquisition, n_coils, stream
        self.draw = head if acquisition.n_dims == 3 else heart if acquisition.n_frames > 1 else brain
        self.objects: list[NDArray[np.floating] | None] = [None] * count

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> Tensor:
        index = range(len(self))[index]
        magnitude = self.objects[index]
        if magnitude is None:
            magnitude = self.draw(self.acquisition, np.random.default_rng((*self.stream, index, 0)))
            magnitude = self.objects[index] = magnitude / magnitude.max()
        generator = np.random.default_rng((*self.stream, index, 1))
        return receive(magnitude, self.n_coils, generator, self.acquisition.fov)
