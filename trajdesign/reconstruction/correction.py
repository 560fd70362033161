"""The U-Net that other reconstructors correct images with."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from trajdesign.errors import ConfigError

#: Added to the mean square of an image, against a division by zero.
_DARK = 1e-12
#: Added to the variance of a channel; the number of pixels that are summed side by side.
_VARIANCE_FLOOR, _RUN = 1e-5, 16


class Correction(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28) for images of any size.

    Its output is added to its input, is zero before the first step, and scales with the input.

    Parameters
    ----------
    n_parts
        Channels of input and output: 1 for a magnitude, 2 for real and imaginary part.
    channels, levels
        See `trajdesign.reconstruction.reconstructors.unet.UNet`.
    """

    def __init__(self, n_parts: int, channels: int, levels: int) -> None:
        super().__init__()
        if not 4 <= channels <= 1024 or channels % 4 or not 0 <= levels <= 10:
            raise ConfigError(
                f"reconstructor.channels is {channels}, levels {levels}: channels is a multiple of 4 up to 1024, "
                "levels 0 to 10."
            )
        widths = [channels * 2**level for level in range(levels + 1)]
        self.stem = _block(n_parts, channels)
        self.down = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(channels, n_parts, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return the correction of an image (batch, part, y, x)."""
        size = image.square().mean((1, 2, 3), keepdim=True).add(_DARK).sqrt()
        features = [self.stem((image / size).contiguous(memory_format=torch.channels_last))]
        for block in self.down:
            features.append(block(nn.functional.avg_pool2d(features[-1], 2, ceil_mode=True)))
        x = features.pop()
        for block in self.up:
            skip = features.pop()
            x = nn.functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        return size * self.head(x)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (n_in, n_out):
        layers += [nn.Conv2d(a, n_out, 3, padding=1, bias=False), _InstanceNorm(n_out), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class _InstanceNorm(nn.Module):
    """Instance normalization (Ulyanov et al. 2016, arXiv:1607.08022) with a learned scale and shift for each channel.

    It does as `torch.nn.GroupNorm` with one channel a group, but faster on a CPU where the channels come last.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalized features (batch, channel, y, x), in float32 or better."""
        kept = features if features.dtype == torch.float64 else features.float()
        if kept.device.type != "cpu" or torch.compiler.is_compiling():
            return nn.functional.group_norm(kept, len(self.weight), self.weight, self.bias, _VARIANCE_FLOOR)
        pixels = _Normalize.apply(kept.movedim(1, -1).flatten(1, 2), self.weight, self.bias)
        return pixels.unflatten(1, features.shape[2:]).movedim(-1, 1)


class _Normalize(torch.autograd.Function):
    """Pixels (batch, pixel, channel) to mean zero and variance one over the pixels, then scaled and shifted."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n = pixels.shape[1]
        centred = pixels - _sum(pixels) / n
        inverse = (_sum(centred.square()) / n + _VARIANCE_FLOOR).rsqrt()
        ctx.save_for_backward(centred, inverse, weight)
        return torch.addcmul(bias, centred, inverse * weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centred, inverse, weight = ctx.saved_tensors
        n = grad.shape[1]
        scale, total, along = inverse * weight, _sum(grad), _sum(grad * centred)
        change = torch.addcmul(-scale * total / n, grad, scale)
        change = change.addcmul_(centred, -scale * inverse.square() * along / n)
        return change, (along * inverse).sum((0, 1)), total.sum((0, 1))


def _sum(values: Tensor) -> Tensor:
    """Sum over the pixels: (batch, pixel, channel) to (batch, 1, channel), first over runs, which is fast on a CPU."""
    width = math.gcd(values.shape[1], _RUN)
    runs = values.unflatten(1, (-1, width)).flatten(2).sum(1)
    return runs.unflatten(1, (width, -1)).sum(1, keepdim=True)
