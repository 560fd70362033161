"""The gradient of a parameterization against finite differences."""

import pytest
import torch


def require_slopes(model, value, generator):
    """Hold the gradient of `value` to each parameter against central differences along a random direction."""
    parameters = list(model.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(value(), parameters), strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                values.append(float(value()))
                parameter -= step * direction
        assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
