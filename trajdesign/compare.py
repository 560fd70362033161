"""Results of several runs on the same test images, image by image."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from trajdesign import metrics

#: The metrics of a result, the better ones larger but for the last.
KEYS = ("psnr", "ssim", "nrmse")


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over the test images (of the sample, n - 1), not a number for a single one."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def result(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a stage of ``metrics.json`` with the standard deviations ``psnr_sd``, ... added."""
    return {**scores, **{f"{key}_sd": spread(scores[f"{key}_list"]) for key in KEYS}}


def paired(scores: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Compare two results on the same images, in the same order.

    Parameters
    ----------
    scores, reference
        Stages of ``metrics.json``.

    Returns
    -------
    dict
        ``gain``: the mean of each metric less that of the reference, and ``wilcoxon_p`` of PSNR and SSIM.

    Raises
    ------
    InputError
        If they are not of the same number of images.
    """
    return {
        "gain": {key: scores[key] - reference[key] for key in KEYS},
        "wilcoxon_p": {
            key: metrics.wilcoxon_p(scores[f"{key}_list"], reference[f"{key}_list"]) for key in ("psnr", "ssim")
        },
    }
