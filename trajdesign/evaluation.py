"""From a trajectory and a network to images, and how good they are."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign import coils, metrics, prefetch
from trajdesign.config import Config
from trajdesign.encoding import Encoding
from trajdesign.errors import InputError
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstructors.adjoint import root_sum_of_squares
from trajdesign.response import actual
from trajdesign.runtime import Ranks
from trajdesign.trajectory import Trajectory

# Of images with a maximum of 1 in single precision, dB: what differs by less is rounding, where nothing differs too.
_MOST_PSNR = -20 * math.log10(torch.finfo(torch.float32).eps)

# In a sentence.
_MOST_LISTED = 12


@torch.no_grad()
def evaluate(
    trajectory: Trajectory,
    network: Reconstructor,
    dataset: Dataset[Tensor],
    config: Config,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Reconstruct every image of a set and compare with its root sum of squares.

    Parameters
    ----------
    trajectory, network, dataset, config
        What to reconstruct with, and what.
    ranks
        Those who share the work; without them this process does it all, on the network's device.

    Returns
    -------
    dict
        ``n``, the means ``psnr`` (dB), ``ssim`` and ``nrmse``, and the values of each image as ``psnr_list``, ...
        Images without signal (`trajdesign.metrics.has_signal`) are in none of them; ``left_out`` holds their numbers,
        from 0. ``fingerprints`` (`trajdesign.metrics.fingerprints`) are of all images.

    Raises
    ------
    InputError
        If no image has signal.
    """
    if ranks is None:
        ranks = Ranks(device=next((p.device for p in network.parameters()), torch.device("cpu")))
    encoding = Encoding(actual(trajectory, config.response), device=ranks.device, normal=config.training.normal)
    n_images: int = len(dataset)  # type: ignore[arg-type]
    seeds = draw_seeds(n_images, torch.Generator().manual_seed(config.seed))
    scores: list[tuple[float, float, float, bool, float]] = []
    network.eval()
    for batch, coil_images in _read(dataset, config, ranks):
        images = coil_images.to(ranks.device, non_blocking=True)
        image, reference = reconstruct(images, encoding, network, config, seeds[list(batch)])
        columns = [metrics.psnr(image, reference, 1.0).clamp(max=_MOST_PSNR), metrics.ssim(image, reference, 1.0)]
        columns += [metrics.nrmse(image, reference), metrics.has_signal(reference)]
        columns += [metrics.fingerprints(coil_images)]
        scores += zip(*(column.tolist() for column in columns), strict=True)
    network.train()
    found = ranks.gather(scores)
    shown = [values for *values, has_signal, _ in found if has_signal]
    if not shown:
        raise InputError(f"{_without_signal(range(n_images), n_images)}; there is nothing to compare.")
    psnr, ssim, nrmse = (list(values) for values in zip(*shown, strict=True))
    lists = {"psnr": psnr, "ssim": ssim, "nrmse": nrmse}
    means = {key: sum(values) / len(values) for key, values in lists.items()}
    left_out = [number for number, (*_, has_signal, _) in enumerate(found) if not has_signal]
    per_image = {f"{key}_list": values for key, values in lists.items()}
    prints = [values[-1] for values in found]
    return {"n": len(psnr), "left_out": left_out, **means, **per_image, "fingerprints": prints}


def fingerprints(dataset: Dataset[Tensor], config: Config, ranks: Ranks) -> list[float]:
    """Return those of all images of a set, as `evaluate` does."""
    return ranks.gather(
        [n for _, images in _read(dataset, config, ranks) for n in metrics.fingerprints(images).tolist()]
    )


def _read(dataset: Dataset[Tensor], config: Config, ranks: Ranks) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield the numbers of this rank's images, and the images (batch, coil, y, x), batch by batch."""
    own = ranks.shard(range(len(dataset)))  # type: ignore[arg-type]
    n_at_once = config.training.slices_at_once or config.training.batch_size
    indices = [own[i : i + n_at_once] for i in range(0, len(own), n_at_once)]
    yield from zip(indices, prefetch.stream(dataset, indices, seed=config.seed, device=ranks.device), strict=True)


@torch.no_grad()
def look(
    dataset: Dataset[Tensor], split: str, config: Config, ranks: Ranks, say: Callable[[str], None] = lambda _: None
) -> None:
    """Look at all images of a split before anything is trained, and say which of them have no signal.

    Raises
    ------
    InputError
        If an image is not finite, or none has signal.
    """
    n_images: int = len(dataset)  # type: ignore[arg-type]
    verdicts: list[bool | None] = []
    for _, coil_images in _read(dataset, config, ranks):
        for reference in root_sum_of_squares(coil_images):
            verdicts.append(bool(metrics.has_signal(reference[None])) if reference.isfinite().all() else None)
    verdicts = ranks.gather(verdicts)
    if None in verdicts:
        raise InputError(f"image {verdicts.index(None)} of the {split} split has values that are not finite.")
    blank = [number for number, has_signal in enumerate(verdicts) if not has_signal]
    if blank:
        sentence = f"{split} split: {_without_signal(blank, n_images)}"
        if len(blank) == n_images:
            raise InputError(f"{sentence}; there is nothing to compare.")
        say(f"{sentence}; they are left out of all results.")


def _without_signal(numbers: Sequence[int], n_images: int) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_LISTED])) + (", ..." if len(numbers) > _MOST_LISTED else "")
    return (
        f"{len(numbers)} of {n_images} images have no signal (number {listed}, counted from 0: their pixels differ by "
        f"less than {metrics.LEAST_CONTRAST:.0%} of the volume's maximum)"
    )


def reconstruct(
    coil_images: Tensor,
    encoding: Encoding,
    network: Reconstructor,
    config: Config,
    seeds: Tensor | None = None,
    spectra: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Sample and reconstruct coil images (batch, coil, y, x); returns image and reference (batch, 1, y, x).

    `seeds` (batch,) are those of each image's noise; without them the noise is another each time. `spectra` are those
    of each slice, where they are known: see `trajdesign.toeplitz.spectra`.
    """
    if seeds is None:
        seeds = draw_seeds(len(coil_images), torch.default_generator)
    images = encoding.normal(coil_images, spectra)
    if config.training.noise:
        images = images + _adjoint_noise(images, encoding, config, seeds)
    return from_adjoint(images, coil_images, encoding, network, config, seeds), root_sum_of_squares(coil_images)


def from_adjoint(
    images: Tensor, coil_images: Tensor, encoding: Encoding, network: Reconstructor, config: Config, seeds: Tensor
) -> Tensor:
    """Reconstruct adjoint images (batch, coil, y, x) of coil images, wherever they were measured.

    `coil_images` tell only what a scan before the actual one would measure. Returns the image (batch, 1, y, x).
    """
    if config.training.coil_maps != "self":
        encoding = encoding.with_maps(_measured_maps(coil_images, config, seeds))
    # physics, weights, limits and loss keep their precision
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.training.precision == "bfloat16"):
        image = network(images, encoding)
    return image.to(coil_images.real.dtype)


def draw_seeds(n_images: int, generator: torch.Generator) -> Tensor:
    """Draw a seed for each image's noise, so that an image's noise does not depend on who computes it."""
    return torch.randint(2**62, (n_images,), generator=generator)


def _measured_maps(coil_images: Tensor, config: Config, seeds: Tensor) -> Tensor:
    """Coil maps (batch, coil, y, x) as a scan before the actual one would give them."""
    other_noise = (seeds + 1).tolist()
    calibration = coils.calibration_scan(coil_images, config.training.noise, other_noise)
    maps = coils.espirit_maps if config.training.coil_maps == "espirit" else coils.smooth_maps
    return maps(calibration, coil_images.shape[2:])


@torch.no_grad()
def _adjoint_noise(images: Tensor, encoding: Encoding, config: Config, seeds: Tensor) -> Tensor:
    """Adjoint of complex Gaussian noise of the level that a fully sampled image of one coil would show.

    A constant to the gradient: in a single pixel the noise has the same distribution wherever the samples lie.
    """
    scale = config.training.noise * math.sqrt(math.prod(config.acquisition.matrix) / 2)
    generator = torch.Generator(images.device)
    noise = torch.empty((*images.shape[:2], *encoding.weights.shape, 2), device=images.device)
    for values, seed in zip(noise, seeds.tolist(), strict=True):
        values.normal_(0, scale, generator=generator.manual_seed(seed))
    return encoding.coil_images(encoding.weights * torch.view_as_complex(noise))
