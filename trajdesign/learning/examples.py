"""A test image as each training of a run shows it: what was sampled, and what the network made of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trajdesign.config import plugins
from trajdesign.errors import InputError
from trajdesign.learning.evaluation import draw_seeds, reconstruct
from trajdesign.learning.other_data import Evaluation
from trajdesign.learning.results import StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.reconstruction import metrics
from trajdesign.runtime import prefetch
from trajdesign.trajectory import Trajectory


@dataclass(frozen=True)
class Example:
    """A test image: the reference, the images and scores of the ``adjoint`` and of the ``network``.

    Images are (y, x), of a volume (slice, y, x), and of a film (frame, y, x).
    """

    trajectory: Trajectory
    reference: np.ndarray
    images: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]]

    @property
    def planes(self) -> str:
        """What a volume or a film is made of, ``slice`` or ``frame``; nothing of an image of two axes."""
        acquisition = self.trajectory.acquisition
        return "frame" if acquisition.n_frames > 1 else "slice" if acquisition.n_dims == 3 else ""

    def in_the_middle(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the reference and the images (y, x), of a volume or a film the slice or frame in the middle."""
        if not self.planes:
            return self.reference, self.images
        number = len(self.reference) // 2
        return self.reference[number], {part: image[number] for part, image in self.images.items()}


def of_stages(stages: Mapping[str, tuple[RunFolder, str]]) -> dict[str, Example]:
    """Return the image in the middle of the test set, of those with signal, as each stage of a run shows it.

    All have the same test set.

    Raises
    ------
    InputError
        If the test data are not what the results of the first are of; older versions did not keep what that is.
    """
    number, n_images, coil_images = _test_image(*next(iter(stages.values())))
    trained = {label: TrainedRun.load(folder.path, stage) for label, (folder, stage) in stages.items()}
    return _shown_by(trained, number, n_images, coil_images)


def of_evaluation(evaluation: Evaluation) -> dict[str, Example]:
    """Return the image in the middle of those that count in an evaluation, as each stage shows it."""
    n_images = len(evaluation.test)  # type: ignore[arg-type]
    number = _middle(evaluation.results.last, n_images)
    coil_images = next(prefetch.stream(evaluation.test, [[number]], seed=evaluation.config.seed))
    return _shown_by(evaluation.trained, number, n_images, coil_images)


@torch.no_grad()
def _shown_by(trained: Mapping[str, TrainedRun], number: int, n_images: int, coil_images: Tensor) -> dict[str, Example]:
    """Return a test image (1, coil, [n,] y, x), number `number` of `n_images`, as each stage shows it."""
    examples = {}
    for label, one in trained.items():
        networks = {"adjoint": plugins.build("reconstructor", {"kind": "adjoint"}).eval(), "network": one.network}
        # the noise that this image had in the test
        seeds = draw_seeds(n_images, torch.Generator().manual_seed(one.config.seed))[number : number + 1]
        images, scores = {}, {}
        for part, network in networks.items():
            field = None if one.field is None else one.field.maps(seeds)
            settings = one.config.training
            sampled_by = one.sampled_by(int(seeds[0]))
            image, reference = reconstruct(
                coil_images, one.encoding, network, settings, seeds, field=field, sampled_by=sampled_by
            )
            images[part] = image[0, 0].numpy()
            scores[part] = {
                "PSNR": float(metrics.psnr(image, reference, 1.0)),
                "SSIM": float(metrics.ssim(image, reference, 1.0)),
            }
        examples[label] = Example(one.trajectory, reference[0, 0].numpy(), images, scores)
    return examples


def _test_image(folder: RunFolder, stage: str) -> tuple[int, int, Tensor]:
    """Return the number of the image to show, of how many, and that image (1, coil, [n,] y, x) as it was tested."""
    config, result = folder.config(), folder.results().stages[stage]
    test = plugins.build("data", config.data, config.acquisition, "test")
    n_images: int = len(test)  # type: ignore[arg-type]
    told = result.fingerprints
    sentence = f"the test data of {folder.path} are no longer those that its results are of"
    remedy = "no figure can be drawn of them; restore the files, or train again"
    if told is not None and len(told) != n_images:
        raise InputError(f"{sentence}: {n_images} images instead of {len(told)}; {remedy}.")
    number = _middle(result, n_images)
    coil_images = next(prefetch.stream(test, [[number]], seed=config.seed))
    found = metrics.fingerprints(coil_images).tolist()
    try:
        metrics.require_same(found, told and told[number : number + 1])
    except InputError:
        raise InputError(f"{sentence}: number {number} (from 0) is another image; {remedy}.") from None
    return number, n_images, coil_images


def _middle(result: StageResult, n_images: int) -> int:
    """Return the number of the image in the middle of those that count."""
    shown = [number for number in range(n_images) if number not in result.left_out]
    return shown[len(shown) // 2]
