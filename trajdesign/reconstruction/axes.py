"""The axes of images: (batch, coil, y, x), (batch, coil, z, y, x) of volumes, (batch, coil, frame, y, x) of films."""

from torch import Tensor

from trajdesign.encoding.operator import Encoding


def of_image(images: Tensor) -> tuple[int, ...]:
    """Return all axes but that of the batch."""
    return tuple(range(1, images.ndim))


def of_space(images: Tensor) -> tuple[int, ...]:
    """Return the axes after those of the batch and the coils; of a film, they are space only once it is `still`."""
    return tuple(range(2, images.ndim))


def still(images: Tensor, encoding: Encoding) -> Tensor:
    """Return encoded images; of a film the mean over its frames, as a volume of one slice (batch, coil, 1, y, x)."""
    return images if encoding.acquisition.n_frames == 1 else images.mean(2, keepdim=True)
