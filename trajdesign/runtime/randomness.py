"""Random numbers that depend on what they are for, and not on what was drawn before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Let the generators of torch (on the CPU), NumPy and Python start from some numbers, until the end of the block.

    Afterwards they go on as if nothing had been drawn. A generator of one's own is not touched.

    Parameters
    ----------
    numbers
        Not negative. Others give other random numbers, in another order too.
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
