"""The U-Net that other reconstructors correct images with."""

import itertools

import torch
from torch import Tensor, nn

from trajdesign.errors import ConfigError

# Mean square of an image, in parts of that of its volume's peak, that keeps black ones from a division by zero.
_DARK = 1e-12


class Correction(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28) for images of any size.

    Its output is to be added to its input, and is zero before the first step. It is as bright as the input: times two,
    times two.

    Parameters
    ----------
    n_parts
        Channels of input and output: 1 for a magnitude, 2 for real and imaginary part.
    channels, levels
        See `trajdesign.reconstructors.unet.UNet`.
    """

    def __init__(self, n_parts: int, channels: int, levels: int) -> None:
        super().__init__()
        if channels < 4 or channels % 4 or levels < 0:
            raise ConfigError(
                f"reconstructor.channels is {channels}, levels {levels}: channels is a multiple of 4, levels 0 or more."
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
        # one group a channel is instance normalization, faster in this memory format than torch's own
        layers += [nn.Conv2d(a, n_out, 3, padding=1, bias=False), nn.GroupNorm(n_out, n_out)]
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)
