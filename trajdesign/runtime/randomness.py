"""Random numbers that depend on their purpose, not on what was drawn before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Let the generators of torch (on the CPU), NumPy and Python start from some numbers in the block.

    Afterwards they go on as if nothing had been drawn. The numbers are not negative; their order matters.
    """
    seeds = np.random.SeedSequence(numbers).generate_state(4)
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  what others draw from
    torch.default_generator.manual_seed(int(seeds[0]) << 32 | int(seeds[1]))
    np.random.seed(seeds[2])  # noqa: NPY002
    random.seed(int(seeds[3]))
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def generator(*numbers: int) -> torch.Generator:
    """Return a generator of torch, on the CPU, that starts from some numbers as `drawn_from` does."""
    [seed] = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))
