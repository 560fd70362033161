"""The U-Net that other reconstructors correct images with."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from trajdesign.errors import ConfigError
from trajdesign.reconstruction import axes

#: Added to the mean square of an image, against a division by zero.
_DARK = 1e-12
#: Added to the variance of a channel; the number of pixels that are summed side by side.
_VARIANCE_FLOOR, _RUN = 1e-5, 16


class Correction(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28) for images of any size.

    Its output is added to its input, is zero before the first step, and scales with the input. Slices of a volume and
    frames of a film are corrected one by one, by what they and their neighbours show.

    Parameters
    ----------
    n_parts
        Channels of input and output: 1 for a magnitude, 2 for real and imaginary part.
    channels, levels, neighbours
        See `trajdesign.reconstruction.reconstructors.unet.UNet`.
    """

    def __init__(self, n_parts: int, channels: int, levels: int, neighbours: int = 0) -> None:
        super().__init__()
        if not 4 <= channels <= 1024 or channels % 4 or not 0 <= levels <= 10:
            raise ConfigError(
                f"reconstructor.channels is {channels}, levels {levels}: channels is a multiple of 4 up to 1024, "
                "levels 0 to 10."
            )
        if not 0 <= neighbours <= 16:
            raise ConfigError(f"reconstructor.neighbours is {neighbours}; it is 0 to 16.")
        self.neighbours = neighbours
        widths = [channels * 2**level for level in range(levels + 1)]
        self.stem = _block((1 + 2 * neighbours) * n_parts, channels)
        self.down = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(channels, n_parts, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return the correction of an image (batch, part, y, x), or (batch, part, n, y, x) of slices or frames."""
        size = image.square().mean(axes.of_image(image), keepdim=True).add(_DARK).sqrt()
        if image.ndim == 4:
            if self.neighbours:
                raise ConfigError(
                    f"reconstructor.neighbours is {self.neighbours}; a single slice has none, so it must be 0."
                )
            return size * self._of_slices(image / size)
        change = self._of_slices(_beside(image / size, self.neighbours).movedim(2, 1).flatten(0, 1))
        return size * change.unflatten(0, (len(image), -1)).movedim(1, 2)

    def _of_slices(self, image: Tensor) -> Tensor:
        """Return the correction (slice, part, y, x) of slices with what lies beside them (slice, channel, y, x)."""
        features = [self.stem(image.contiguous(memory_format=torch.channels_last))]
        for block in self.down:
            features.append(block(nn.functional.avg_pool2d(features[-1], 2, ceil_mode=True)))
        x = features.pop()
        for block in self.up:
            skip = features.pop()
            x = nn.functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(_join(x, skip))
        return self.head(x)


def _beside(image: Tensor, neighbours: int) -> Tensor:
    """Return slices (batch, part, n, y, x) with so many on either side of each as further parts.

    Beyond the first and the last these are repeated, also in films: not every one is of a cycle.
    """
    if not neighbours:
        return image
    n = image.shape[2]
    padded = torch.cat([image[:, :, :1]] * neighbours + [image] + [image[:, :, -1:]] * neighbours, dim=2)
    return torch.cat([padded[:, :, i : i + n] for i in range(2 * neighbours + 1)], dim=1)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (n_in, n_out):
        convolution = _OfOneChannel if a == 1 else nn.Conv2d
        layers += [convolution(a, n_out, 3, padding=1, bias=False), _InstanceNorm(n_out), nn.LeakyReLU(0.1, True)]
    return nn.Sequential(*layers)


class _OfOneChannel(nn.Conv2d):
    """Convolution of one channel beside one of zeros: on a CPU the way back of two is eight times as fast."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the features (batch, channel, y, x) of an image (batch, 1, y, x)."""
        image, weight = (
            nn.functional.pad(part, (0, 0, 0, 0, 0, 1)).contiguous(memory_format=torch.channels_last)
            for part in (image, self.weight)
        )
        return nn.functional.conv2d(image, weight, padding=self.padding)


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate channels."""
    if torch.compiler.is_compiling():
        return torch.cat([first, second], dim=1)
    return _Joined.apply(first, second)


class _Joined(torch.autograd.Function):
    """Concatenation whose gradients are no slices, of which bilinear interpolation takes seven times as long."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.n_channels = [first.shape[1], second.shape[1]]
        return torch.cat([first, second], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in grad.split(ctx.n_channels, dim=1))


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
        return _Normalize.apply(kept, self.weight, self.bias)


class _Normalize(torch.autograd.Function):
    """Features (batch, channel, y, x) to mean zero and variance one over the pixels, then scaled and shifted.

    A CPU is slow where the last axis is short, as that of few channels: so runs of pixels are laid end to end there.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        runs = _runs(features)
        centred = runs - _mean(runs, len(weight))
        inverse = (_mean(centred.square(), len(weight)) + _VARIANCE_FLOOR).rsqrt()
        n_pixels = runs.shape[-1] // len(weight)
        ctx.save_for_backward(centred, inverse, weight)
        result = torch.empty_like(features, memory_format=torch.channels_last)  # no view, so it can be changed in place
        torch.addcmul(bias.repeat(n_pixels), centred, inverse * weight.repeat(n_pixels), out=_runs(result))
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centred, inverse, weight = ctx.saved_tensors
        runs, n = _runs(grad), len(weight)
        mean, along = _mean(runs, n), _mean(runs * centred, n)
        scale = inverse * weight.repeat(runs.shape[-1] // n)
        change = torch.addcmul(-scale * mean, runs, scale)
        change = change.addcmul_(centred, -scale * inverse.square() * along)
        by_weight, by_bias = (values[..., :n].sum((0, 1)) * grad[0, 0].numel() for values in (along * inverse, mean))
        return _features(change, grad.shape), by_weight, by_bias


def _runs(features: Tensor) -> Tensor:
    """Return features (batch, channel, y, x) as runs of pixels laid end to end (batch, run, pixel and channel)."""
    pixels = features.movedim(1, -1).flatten(1, 2)
    return pixels.unflatten(1, (-1, math.gcd(pixels.shape[1], _RUN))).flatten(2)


def _features(runs: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_runs`."""
    batch, channels, *pixels = shape
    return runs.view(batch, *pixels, channels).movedim(-1, 1)


def _mean(runs: Tensor, n_channels: int) -> Tensor:
    """Return the mean of each channel over all pixels, once for each pixel of a run (batch, 1, pixel and channel)."""
    of_a_run = runs.mean(1, keepdim=True).unflatten(-1, (-1, n_channels))
    return of_a_run.mean(-2).repeat(1, 1, of_a_run.shape[-2])
