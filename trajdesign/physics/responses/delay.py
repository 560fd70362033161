"""Gradients that act later than told."""

import torch
from torch import Tensor

from trajdesign.errors import ConfigError

# More than any gradient system has, s.
_LONGEST = 1e-4


def delay(gradient: Tensor, raster: float, *, delays: list[float]) -> Tensor:
    """Return the gradient of each axis later by its delay.

    Exact at the samples, between which a gradient runs in straight lines; its first and last samples are taken to last.

    Parameters
    ----------
    delays
        Of x, y and z, s, negative where an axis is early; one number serves all.
    """
    n, n_axes = gradient.shape[-2:]
    if len(delays) not in (1, 3):  # three also where two axes are learned: a file has three
        raise ConfigError(f"delay: {len(delays)} delays; give one for all axes, or those of x, y and z.")
    if not all(abs(late) <= _LONGEST for late in delays):
        raise ConfigError(f"delay: delays are {delays} s; each is at most {_LONGEST:g} s.")
    late = gradient.new_tensor(delays * n_axes if len(delays) == 1 else delays[:n_axes])
    at = (torch.arange(n, dtype=gradient.dtype, device=gradient.device)[:, None] - late / raster).clamp(0, n - 1)
    before = at.floor().clamp(max=max(n - 2, 0))
    index = before.long().expand(gradient.shape)
    following = gradient.gather(-2, (index + 1).clamp(max=n - 1))
    return gradient.gather(-2, index).lerp(following, (at - before).expand(gradient.shape))
