"""Batches of images, read ahead by worker processes."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trajdesign.errors import ResourceError, TrajdesignError
from trajdesign.runtime import interrupt, randomness
from trajdesign.runtime.processes import CPU, first_line


def stream(
    dataset: Dataset[Tensor],
    batches: Iterable[Sequence[int]],
    *,
    seed: int = 0,
    epochs: Iterable[int] | None = None,
    workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Tensor]:
    """Yield batches (batch, coil, y, x) of a dataset on the CPU, read ahead by worker processes.

    The random numbers that an item draws depend on the seed, the epoch and its index alone: see
    `trajdesign.runtime.randomness`. So they are the same for any number of processes, and after a break.

    Parameters
    ----------
    dataset
        Items (coil, y, x).
    batches, epochs
        Indices of each batch, and its epoch, 0 by default.
    workers
        Number of processes; 0 reads in this one.
    device
        Where the batches go; for CUDA they are in pinned memory, so that they can be copied while it computes.

    Raises
    ------
    TrajdesignError
        What reading an item raised, also in a worker.
    ResourceError
        If a worker was killed.
    """
    loader = DataLoader(
        _Batches(dataset, seed),
        batch_size=None,
        sampler=zip(batches, itertools.repeat(0) if epochs is None else epochs, strict=False),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=interrupt.ignore if workers else None,  # this process ends them
        generator=torch.Generator(),  # else it would shift the random numbers of the training
    )
    read = iter(loader)
    while True:
        try:
            batch = next(read, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise ResourceError(f"{first_line(error)}; take fewer training.workers.") from None
        if batch is None:
            return
        if isinstance(batch, TrajdesignError):
            raise batch
        yield batch


class _Batches(Dataset[Tensor | TrajdesignError]):
    """Whole batches; an error is an item too, because the loader would wrap its sentence in a traceback."""

    def __init__(self, dataset: Dataset[Tensor], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, batch: tuple[Sequence[int], int]) -> Tensor | TrajdesignError:
        indices, epoch = batch
        items = []
        for index in indices:
            with randomness.drawn_from(self.seed, epoch, index):
                try:
                    items.append(self.dataset[index])
                except TrajdesignError as error:
                    return error
        return torch.stack(items)
