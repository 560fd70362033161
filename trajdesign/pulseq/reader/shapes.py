"""The code in which a Pulseq file stores shapes."""

import math
from array import array

import numpy as np

from trajdesign.errors import InputError


def decompressed(data: "array[float]", count: int, shape_id: str) -> np.ndarray:
    """Undo the run-length code of the derivative: after a value twice in a row comes how often it repeats.

    Raises
    ------
    InputError
        If the samples are more or fewer, or not finite.
    """
    steps, lengths = array("d"), array("q")
    i = 0
    while i < len(data):
        run = 1
        if i + 1 < len(data) and data[i] == data[i + 1]:
            if i + 2 >= len(data) or data[i + 2] != round(data[i + 2]) or not 0 <= data[i + 2] <= count:
                raise InputError(f"shape {shape_id} has a damaged run length.")
            run = 2 + int(data[i + 2])
        steps.append(data[i])
        lengths.append(run)
        i += 1 if run == 1 else 3
    if sum(lengths) != count:
        raise InputError(f"shape {shape_id} has {sum(lengths)} samples instead of {count}.")
    shape: np.ndarray = np.cumsum(np.repeat(np.frombuffer(steps), np.frombuffer(lengths, dtype=np.int64)))
    if not math.isfinite(float(shape @ shape)):
        raise InputError(f"shape {shape_id} leaves the finite numbers.")
    return shape
