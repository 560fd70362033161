"""From a trajectory and a network to images, and how good they are."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config import plugins
from trajdesign.config.models import Config, Training
from trajdesign.data import copies
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.results import StageResult
from trajdesign.physics.field import StaticField
from trajdesign.physics.perturbation import Perturbations, PerturbedEncoding
from trajdesign.physics.response import Response
from trajdesign.reconstruction import axes, coils, metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.runtime import memory, prefetch
from trajdesign.runtime.processes import Ranks
from trajdesign.trajectory import Trajectory

# Of images with a maximum of 1 in single precision, dB: what differs by less is rounding, where nothing differs too.
_MOST_PSNR = -20 * math.log10(torch.finfo(torch.float32).eps)

_MOST_LISTED = 12  # numbers in a sentence


@torch.no_grad()
def evaluate(
    trajectory: Trajectory,
    network: Reconstructor,
    dataset: Dataset[Tensor],
    config: Config,
    ranks: Ranks | None = None,
    watch: Callable[[int, int], None] = lambda *_: None,
    perturbations: Perturbations | None = None,
) -> StageResult:
    """Reconstruct every image of a set and compare it with its root sum of squares.

    Images without signal (`trajdesign.reconstruction.metrics.has_signal`) and copies of earlier ones do not count.
    Without `ranks`, which share the work, this process does it all, on the network's device. `watch` is told after
    every batch how many images of how many are done by this process. With
    `perturbations` each image is a scan of its own, which goes otherwise than asked: those that the config has are for
    the training alone.

    Raises
    ------
    InputError
        If no image has signal.
    """
    if ranks is None:
        ranks = Ranks(device=next((p.device for p in network.parameters()), torch.device("cpu")))
    field = static_field(config)
    response = Response(config.response)
    encoding = encoding_of(config, response(trajectory), field, ranks.device)
    n_images: int = len(dataset)  # type: ignore[arg-type]
    seeds = draw_seeds(n_images, torch.Generator().manual_seed(config.seed))
    scores: list[tuple[float, float, float, float, bool, float]] = []
    is_film = config.acquisition.n_frames > 1
    marks: list[copies.Mark] = []
    network.eval()
    for batch, coil_images in _batches(dataset, config, ranks, None if perturbations is None else 1):
        images = coil_images.to(ranks.device, non_blocking=True)
        fields = None if field is None else field.maps(seeds[list(batch)])
        sampled_by = None
        if perturbations is not None:
            sampled_by = perturbations.encoding(trajectory, response, int(seeds[batch[0]]), encoding)
        image, reference = reconstruct(
            images, encoding, network, config.training, seeds[list(batch)], field=fields, sampled_by=sampled_by
        )
        columns = [metrics.psnr(image, reference, 1.0).clamp(max=_MOST_PSNR), metrics.ssim(image, reference, 1.0)]
        columns += [metrics.nrmse(image, reference)]
        columns += [metrics.nrmse_of_motion(image, reference) if is_film else torch.zeros(len(image))]
        columns += [metrics.has_signal(reference), metrics.fingerprints(coil_images)]
        marks += _marks(dataset, batch, coil_images)
        scores += zip(*(column.tolist() for column in columns), strict=True)
        watch(len(scores), len(ranks.shard(range(n_images))))
    network.train()
    found, again = ranks.gather(scores), set(_again(ranks.gather(marks)))
    counts = [has_signal and number not in again for number, (*_, has_signal, _) in enumerate(found)]
    left_out = [number for number, is_one in enumerate(counts) if not is_one]
    if len(left_out) == n_images:
        raise InputError(f"{_without_signal(range(n_images), n_images)}; there is nothing to compare.")
    counted = [values for (*values, _, _), is_one in zip(found, counts, strict=True) if is_one]
    psnr, ssim, nrmse, motion = (list(values) for values in zip(*counted, strict=True))
    n, prints, people = len(counted), [values[-1] for values in found], getattr(dataset, "people", None)
    if people is not None:
        people = [person for person, is_one in zip(people, counts, strict=True) if is_one]
    means = sum(psnr) / n, sum(ssim) / n, sum(nrmse) / n
    moving = [value for value in motion if math.isfinite(value)] if is_film else []  # of a still film there is none
    of_films = sum(moving) / len(moving) if moving else None
    return StageResult(n, left_out, *means, psnr, ssim, nrmse, prints, people=people, motion=of_films)


def _batches(
    dataset: Dataset[Tensor], config: Config, ranks: Ranks, n_at_once: int | None = None
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield the numbers of this rank's images, and the images (batch, coil, y, x), batch by batch."""
    own = ranks.shard(range(len(dataset)))  # type: ignore[arg-type]
    n_at_once = n_at_once or config.training.slices_at_once or config.training.batch_size
    indices = [own[i : i + n_at_once] for i in range(0, len(own), n_at_once)]
    yield from zip(indices, prefetch.stream(dataset, indices, seed=config.seed, device=ranks.device), strict=True)


@torch.no_grad()
def look_at(
    data: Mapping[str, Dataset[Tensor]], config: Config, ranks: Ranks, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[float]]:
    """Look at all images of each split before anything is trained, and say which do not count in the test.

    Returns the fingerprints (`trajdesign.reconstruction.metrics.fingerprints`) of the images of each split.

    Raises
    ------
    ConfigError
        If an image is in two splits, in whatever format (`trajdesign.data.copies`).
    InputError
        If an image to validate or test on is not finite, or none has signal.
    """
    found, marks = {}, {}
    for split, dataset in data.items():
        seen: list[tuple[float, bool | None, copies.Mark]] = []
        for numbers, images in _batches(dataset, config, ranks):
            verdicts = [
                bool(metrics.has_signal(reference[None])) if reference.isfinite().all() else None
                for reference in root_sum_of_squares(images)
            ]
            prints = metrics.fingerprints(images).nan_to_num(0).tolist()
            seen += zip(prints, verdicts, _marks(dataset, numbers, images), strict=True)
        seen = ranks.gather(seen)
        found[split], marks[split] = [values[0] for values in seen], [values[2] for values in seen]
        if split != "train":
            _require_signal([values[1] for values in seen], split, say)
    _refuse_copies(data, marks)
    if again := _again(marks.get("test", [])):
        say(
            f"test split: {len(again)} of {len(marks['test'])} images are copies of earlier ones ({_listed(again)}); "
            "each counts once in all results."
        )
    return found


def require_memory(shape: Sequence[int]) -> None:
    """Raise `ResourceError` if coil images (coil, ...) do not fit with their spectra of the doubled matrix."""
    memory.require(
        (1 + 2 ** (len(shape) - 1)) * 8 * math.prod(shape),
        f"the images of {shape[0]} coils with the matrix {tuple(shape[1:])}",
        "take fewer coils or pixels",
    )


def _require_signal(verdicts: list[bool | None], split: str, say: Callable[[str], None]) -> None:
    """Refuse a split with an image that is not finite (None) or with no signal at all; say which images have none."""
    if None in verdicts:
        raise InputError(f"image {verdicts.index(None)} of the {split} split has values that are not finite.")
    if blank := [number for number, has_signal in enumerate(verdicts) if not has_signal]:
        sentence = f"{split} split: {_without_signal(blank, len(verdicts))}"
        if len(blank) == len(verdicts):
            raise InputError(f"{sentence}; there is nothing to compare.")
        say(f"{sentence}; they are left out of all results.")


def _refuse_copies(data: Mapping[str, Dataset[Tensor]], marks: Mapping[str, list[copies.Mark]]) -> None:
    for split, other in (("test", "train"), ("test", "val"), ("val", "train")):
        found = copies.first_copies(marks.get(split, []), marks.get(other, []))
        which = [number for number, copy in enumerate(found) if copy is not None]
        if which:
            copy = found[which[0]]
            raise ConfigError(
                f"{len(which)} of {len(found)} images to {split} on are in data.{other} too: number "
                f"{which[0]}{_place(data[split], which[0])} shows what number {copy}{_place(data[other], copy)} there "
                "does (counted from 0; however stored, scaled, padded or turned); leave one of them out."
            )


def _place(dataset: Dataset[Tensor], number: int | None) -> str:
    """Return where an image comes from, if the dataset knows."""
    places = getattr(dataset, "places", None)
    return f" ({places[number]})" if places else ""


def _marks(dataset: Dataset[Tensor], numbers: Sequence[int], images: Tensor) -> list[copies.Mark]:
    """Return what tells copies of images (batch, coil, y, x): the dataset's own ``marks``, if it has some."""
    known = getattr(dataset, "marks", None)
    if known is not None:
        return [known[number] for number in numbers]
    return [copies.mark(reference[0].cpu().numpy()) for reference in root_sum_of_squares(images)]


def _again(marks: Sequence[copies.Mark]) -> list[int]:
    """Return which images are copies of earlier ones; turned ones, as some augment a test, are not."""
    found = enumerate(copies.first_copies(marks, marks, turned=False))
    return [number for number, copy in found if copy is not None and copy < number]


def _listed(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_LISTED])) + (", ..." if len(numbers) > _MOST_LISTED else "")
    return f"number {listed}, counted from 0"


def _without_signal(numbers: Sequence[int], n_images: int) -> str:
    return (
        f"{len(numbers)} of {n_images} images have no signal ({_listed(numbers)}: their pixels differ by "
        f"less than {metrics.LEAST_CONTRAST:.0%} of the volume's maximum)"
    )


def reconstruct(
    coil_images: Tensor,
    encoding: Encoding,
    network: Reconstructor,
    settings: Training,
    seeds: Tensor | None = None,
    spectra: Sequence[Tensor] = (),
    field: Tensor | None = None,
    sampled_by: PerturbedEncoding | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample and reconstruct coil images (batch, coil, y, x); returns image and reference (batch, 1, y, x).

    `settings` say the noise, the coil maps and the precision. `seeds` (batch,) are those of each image's noise; without
    them the noise is another each time. `spectra` are those of each slice, where they are known: see `Encoding.normal`.
    `field` (batch, term, y, x) is the static field of each image: see `Encoding.in_field`. `sampled_by`
    is what truly samples, where that is not the `encoding` that the reconstruction believes in.
    """
    if seeds is None:
        seeds = draw_seeds(len(coil_images), torch.default_generator)
    if sampled_by is None:
        images = encoding.measured(coil_images, field, spectra)
        encoding = encoding.known(field)
    else:
        kspace = (sampled_by if field is None else sampled_by.in_field(field)).forward(coil_images)
        encoding = encoding.known(field)
        images = encoding.coil_images(encoding.weights * kspace)
    if settings.noise:
        heard = None if sampled_by is None else sampled_by.factor != 0
        images = images + _adjoint_noise(images, encoding, settings.noise, seeds, heard)
    return from_adjoint(images, coil_images, encoding, network, settings, seeds), root_sum_of_squares(coil_images)


def from_adjoint(
    images: Tensor, coil_images: Tensor, encoding: Encoding, network: Reconstructor, settings: Training, seeds: Tensor
) -> Tensor:
    """Reconstruct adjoint images (batch, coil, y, x) of coil images, wherever they were measured.

    `coil_images`, which may have fewer pixels of the same field of view, tell only what a scan before the actual one
    would measure. Returns the image (batch, 1, y, x).
    """
    if settings.coil_maps != "self":
        still = axes.still(coil_images, encoding)
        calibration = coils.calibration_scan(still, settings.noise, (seeds + 1).tolist())  # with noise of its own
        maps = coils.espirit_maps if settings.coil_maps == "espirit" else coils.smooth_maps
        encoding = encoding.with_maps(maps(calibration, axes.still(images, encoding).shape[2:]))
    # physics, weights, limits and loss keep their precision
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        image = network(images, encoding)
    return image.to(coil_images.real.dtype)


def static_field(config: Config) -> StaticField | None:
    """Return the static fields of the objects of a config, if there are any."""
    if not config.field:
        return None
    return StaticField(config.field, config.acquisition, config.training.field_terms)


def encoding_of(
    config: Config, acting: Trajectory, field: StaticField | None, device: torch.device | str = "cpu"
) -> Encoding:
    """Return the encoding of a trajectory that acts, as the training of a config has it."""
    settings = config.training
    return Encoding(
        acting,
        device=device,
        normal=settings.normal,
        segments=None if field is None else field.segments,
        knows_field=settings.knows_field,
        in_plane=getattr(plugins.find("parameterization", config.parameterization["kind"]), "in_plane", False),
    )


def draw_seeds(n_images: int, generator: torch.Generator) -> Tensor:
    """Draw a seed for each image's noise, so that an image's noise does not depend on who computes it."""
    return torch.randint(2**62, (n_images,), generator=generator)


@torch.no_grad()
def _adjoint_noise(
    images: Tensor, encoding: Encoding, noise: float, seeds: Tensor, heard: Tensor | None = None
) -> Tensor:
    """Return the adjoint of complex Gaussian noise, as a fully sampled image of one coil would show it at this level.

    It is a constant to the gradient: in a single pixel it has the same distribution wherever the samples lie. Samples
    (shot, sample) that were not `heard` have none.
    """
    scale = noise * math.sqrt(math.prod(encoding.acquisition.matrix) / 2)
    generator = torch.Generator(images.device)
    samples = torch.empty((*images.shape[:2], *encoding.weights.shape, 2), device=images.device)
    for values, seed in zip(samples, seeds.tolist(), strict=True):
        values.normal_(0, scale, generator=generator.manual_seed(seed))
    weights = encoding.weights if heard is None else encoding.weights * heard
    return encoding.coil_images(weights * torch.view_as_complex(samples))
