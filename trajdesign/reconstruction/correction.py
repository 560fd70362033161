"""The U-Net that other reconstructors correct images with."""

import itertools

import torch
from torch import Tensor, nn

from trajdesign.errors import ConfigError
from trajdesign.reconstruction import axes

#: Added to the mean square of an image, against a division by zero.
_DARK = 1e-12
#: Of what is negative between the layers.
_SLOPE = 0.1


class Correction(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28) for images of any size.

    Its output is added to its input, is zero before the first step, and scales with the input. Nothing is normalized
    between the layers: instance normalization made the brightness of a slice depend on how much of it is background,
    and so the result on the seed. Slices of a volume and frames of a film are corrected one by one, by what they and
    their neighbours show.

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
        self.stem = _Block((1 + 2 * neighbours) * n_parts, channels)
        self.down = nn.ModuleList(_Block(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
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
            x = block(x, skip)
        # a convolution of one pixel takes three times as long on a CPU
        return nn.functional.linear(x.movedim(1, -1), self.head.weight.flatten(1), self.head.bias).movedim(-1, 1)


def _beside(image: Tensor, neighbours: int) -> Tensor:
    """Return slices (batch, part, n, y, x) with so many on either side of each as further parts.

    Beyond the first and the last these are repeated, also in films: not every one is of a cycle.
    """
    if not neighbours:
        return image
    n = image.shape[2]
    padded = torch.cat([image[:, :, :1]] * neighbours + [image] + [image[:, :, -1:]] * neighbours, dim=2)
    return torch.cat([padded[:, :, i : i + n] for i in range(2 * neighbours + 1)], dim=1)


class _Block(nn.Module):
    """Two convolutions; what the second makes is added to what the first does, and is zero before the first step."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, _SLOPE)
        nn.init.zeros_(self.second.weight)

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the features (batch, channel, y, x) of the next level, of parts with their channels in this order.

        The parts are convolved one by one, which is as much arithmetic as that of all joined, without the joining.
        """
        weights = self.first.weight.split([part.shape[1] for part in parts], dim=1)
        features = _convolved(parts[0], weights[0])
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            features += _convolved(part, weight)
        features = nn.functional.leaky_relu(features, _SLOPE, inplace=True)
        return features + nn.functional.leaky_relu(self.second(features), _SLOPE, inplace=True)


def _convolved(image: Tensor, weight: Tensor) -> Tensor:
    """Return the features (batch, feature, y, x) of an image (batch, channel, y, x).

    A single channel is convolved beside one of zeros: on a CPU the way back of two is eight times as fast.
    """
    if image.shape[1] == 1:
        image, weight = (
            nn.functional.pad(part, (0, 0, 0, 0, 0, 1)).contiguous(memory_format=torch.channels_last)
            for part in (image, weight)
        )
    return nn.functional.conv2d(image, weight, padding=1)
