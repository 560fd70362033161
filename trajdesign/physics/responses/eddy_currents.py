"""Eddy currents: decaying fields that oppose every change of a gradient."""

import math

import torch
from torch import Tensor

from trajdesign.errors import ConfigError
from trajdesign.physics.nerves import causal


def eddy_currents(gradient: Tensor, raster: float, *, amplitudes: list[float], time_constants: list[float]) -> Tensor:
    r"""Return the gradient with the fields of eddy currents, the same for each axis.

    .. math:: g - \sum_i a_i \int_0^t \frac{dg}{ds}(s) \, e^{-(t - s) / \tau_i} \, ds

    (Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 2004, section 10.3), exact for straight lines between
    the samples; before the first one all eddy currents have died out.

    Parameters
    ----------
    amplitudes
        Amplitude of each field, as a part of the change that causes it.
    time_constants
        Time constant of each field, s.
    """
    if len(amplitudes) != len(time_constants):
        raise ConfigError(f"eddy_currents: {len(amplitudes)} amplitudes, {len(time_constants)} time constants.")
    change = gradient.diff(dim=-2)
    actual = gradient
    for amplitude, constant in zip(amplitudes, time_constants, strict=True):
        if not (abs(amplitude) < 1 and 1e-6 <= constant <= 100):
            raise ConfigError(f"eddy_currents: amplitude {amplitude:g} (a part), time constant {constant:g} s?")
        kept = math.exp(-raster / constant)
        arising = amplitude * change * (constant / raster * (1 - kept))
        decaying = kept ** torch.arange(change.shape[-2], dtype=change.dtype, device=change.device)
        actual = actual - torch.nn.functional.pad(causal(arising, decaying), (0, 0, 1, 0))
    return actual
