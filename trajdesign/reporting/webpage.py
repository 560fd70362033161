"""The page of a run, in which the shots play: see `trajdesign.reporting.page`."""

import math
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from trajdesign.config import models as config_module
from trajdesign.config import plugins, toml
from trajdesign.config.models import Config
from trajdesign.encoding.psf import PsfReport
from trajdesign.learning.examples import Example
from trajdesign.learning.results import Results, StageResult
from trajdesign.physics import limits
from trajdesign.reporting import drawing, page
from trajdesign.scanner import Finding, Scanner
from trajdesign.trajectory import Trajectory

# Slices or frames of the test image, at most, and pixels of all its pictures together.
_MOST_PLANES, _MOST_PIXELS = 24, 2**22
# Numbers of k, gradient and slew rate of all shots that are shown, of about six letters each.
_MOST_NUMBERS = 2**20
_WIDEST = 512  # pixels of the image of a point spread function; of a wider one the largest pixels are kept
_WAVEFORMS = ("k_adc", "gradient", "slew")
LIMIT_HEADINGS = ("limit", "trajectory", "verdict", "worst", "allowed", "unit", "margin", "where")


@dataclass(frozen=True)
class Contents:
    """What a finished run has to show.

    Parameters
    ----------
    path
        The run folder, as the user named it.
    config, results
        Of the run.
    trajectories
        ``fixed`` and, if it was learned, ``learned``; all of one acquisition and scanner.
    acting
        The last of them as it acts through the gradient system's response, if the run knows one.
    conditions
        The results in other conditions than the run's own test, by name.
    psfs, findings, examples, curves
        The same labels -> point spread function; worst place against every limit; test image; steps and validation
        PSNR, dB.
    """

    path: Path
    config: Config
    results: Results
    conditions: dict[str, StageResult]
    trajectories: dict[str, Trajectory]
    acting: Trajectory | None
    psfs: dict[str, PsfReport]
    findings: dict[str, list[Finding]]
    examples: dict[str, Example]
    curves: dict[str, tuple[list[float], list[float]]]


def render(contents: Contents) -> str:
    """Return the page as HTML."""
    shown = next(iter(contents.trajectories.values()))
    example = next(iter(contents.examples.values()))
    shots = _shown_shots(contents)
    return page.render(
        "report",
        _data(contents, shots),
        contents=contents,
        title=title(contents),
        acquisition=shown.acquisition,
        scanner=shown.scanner,
        results=results_table(contents.results),
        conditions=conditions_table(contents),
        psf_rows=drawing.psf_rows(contents.psfs.values()),
        # fixed in the ink of the one, learned in that of the other: see the style sheet
        same=lambda labels: [(label, label) for label in labels],
        limits=[zip(contents.findings, row, strict=True) for row in zip(*contents.findings.values(), strict=True)],
        unseen=limits.unseen_sentence(f.name for f in next(iter(contents.findings.values()))),
        limit_headings=LIMIT_HEADINGS,
        commands=commands(contents.path, shown.scanner),
        formats=[name for name in plugins.names("exporter") if name != "pulseq"],
        config=toml.to_toml(contents.config.to_dict()),
        error_scale=drawing.ERROR_SCALE,
        # the number of each shot that is shown -> its place among them
        shots={shot: place for place, shot in enumerate(shots)},
        planes=example.planes,
        n_planes=len(example.reference),
        n_shown=len(_shown_planes(contents.examples)),
        magma=page.png(np.linspace(0, 1, 256)[None], 0, 1, "magma"),
    )


def title(contents: Contents) -> str:
    """Return the name of the run's folder, which is unique, and of the run."""
    return f"{contents.path.resolve().name} ({contents.config.name})"


def commands(path: Path, scanner: Scanner) -> dict[str, str]:
    """Return what can be done with a run folder -> its command."""
    run, sequence = quote(str(path)), quote(str(path / "trajectory.seq"))
    played_by = " ".join(config_module.options_of(scanner))
    return {
        "Check every limit": f"trajdesign check {run}",
        "Write a Pulseq file, proved by reading it back": f"trajdesign export {run} --format pulseq --out {sequence}",
        "Check that file: rules, nerves, resonances": f"trajdesign check {sequence} {played_by}",
        "Scan a phantom with it": f"trajdesign scan {sequence} --reconstruct {run} --out {quote(str(path / 'scan'))}",
    }


def results_table(results: Results) -> list[tuple[str, ...]]:
    """Return the scores on the test images: label, PSNR (dB), SSIM and NRMSE, as text."""
    forms = {"psnr": ".2f", "ssim": ".4f", "nrmse": ".4f"}
    rows = [
        (stage, *(format(result.mean(key), form) for key, form in forms.items()))
        for stage, result in results.stages.items()
    ]
    if over := results.over_fixed:
        rows.append(("gain", *(format(over.gain[key], f"+{form}") for key, form in forms.items())))
        rows.append(("Wilcoxon p", *(page.number(over.wilcoxon_p[key], 2) for key in ("psnr", "ssim")), ""))
    return rows


def conditions_table(contents: Contents) -> list[tuple[str, ...]]:
    """Return the scores in other conditions: name, PSNR (dB) and SSIM, each with its change."""
    own = contents.results.last
    return [
        (name, *(result.less(key, own) for key in ("psnr", "ssim"))) for name, result in contents.conditions.items()
    ]


def _shown_shots(contents: Contents) -> list[int]:
    """Return which shots are shown: all, or of many evenly some, in all frames the same, with every limit's worst."""
    shown = _shown_trajectories(contents)
    first, findings = next(iter(shown.values())), [f for found in contents.findings.values() for f in found]
    n_shots, n_frames = first.acquisition.shots_a_frame, first.acquisition.n_frames
    a_shot = len(shown) * sum(getattr(first, key)[0].numel() for key in _WAVEFORMS)
    some = page.some(n_shots, max(1, _MOST_NUMBERS // (n_frames * a_shot)))
    worst = [f.shot % n_shots for f in findings if f.shot is not None]
    return [frame * n_shots + shot for frame in range(n_frames) for shot in sorted({*some, *worst})]


def _shown_trajectories(contents: Contents) -> dict[str, Trajectory]:
    return contents.trajectories | ({} if contents.acting is None else {"as it acts": contents.acting})


def _data(contents: Contents, shots: list[int]) -> dict[str, Any]:
    """Return what the script draws."""
    shown = _shown_trajectories(contents)
    first = next(iter(shown.values()))
    allowed = {f.name: f.limit for f in next(iter(contents.findings.values()))}
    acquisition, raster = first.acquisition, first.scanner.gradient_raster
    delay = acquisition.adc_delay(raster, first.scanner.rf_raster)
    example, planes = next(iter(contents.examples.values())), _shown_planes(contents.examples)
    # those of all frames are the same
    n_shots, of_frame = acquisition.shots_a_frame, shots[: len(shots) // acquisition.n_frames]
    return {
        "times": {  # s, after the first gradient sample: start and step
            "adc": [delay, acquisition.dwell],
            "gradient": [0.0, raster],
            "slew": [raster / 2, raster],
        },
        "k_max": acquisition.k_max,
        "n_frames": acquisition.n_frames,
        "norm": first.scanner.limit_norm,
        "limits": {
            "gradient": {"scanner": allowed["gradient"]}
            | ({"receiver": allowed["receiver"]} if "receiver" in allowed else {}),
            "slew": {"scanner": allowed["slew"]},
        },
        "shot_colours": {
            theme: [drawing.hex_colours(n_shots, *ends)[shot] for shot in of_frame]
            for theme, ends in {"light": (0.0, 0.85), "dark": (0.3, 1.0)}.items()
        },
        "trajectories": [
            {"label": label, **{key: _by_axis(getattr(t, key)[shots]) for key in _WAVEFORMS}}
            for label, t in shown.items()
        ],
        "voxel": acquisition.voxel[:2],
        "fov": acquisition.fov[:2],
        "psfs": [{"label": label, **_psf(report)} for label, report in contents.psfs.items()],
        "planes": planes,
        "reference": _grey(example.reference, example, planes),
        "examples": [{"label": label, **_example(one, planes)} for label, one in contents.examples.items()],
        "curves": [{"label": label, "x": x, "y": y} for label, (x, y) in contents.curves.items()],
    }


def _by_axis(values: Any) -> list[Any]:
    """Return a tensor (shot, time, dim) as lists (shot, dim, time)."""
    return values.detach().double().cpu().numpy().transpose(0, 2, 1).tolist()


def _psf(report: PsfReport) -> dict[str, Any]:
    """Return images, wide ones first, with their edges (left, bottom, right, top), m, and profiles over offsets, m."""
    distance, mean, largest = report.over_directions()
    profiles = {"mean": {"x": distance, "y": mean}, "largest": {"x": distance, "y": largest}}
    for axis, values, step in zip("xy", report.profiles, report.profile_step, strict=True):
        profiles[axis] = {"x": (np.arange(len(values)) - len(values) // 2) * step, "y": values}
    field = report.image[tuple(slice(n // 4, n // 4 + n // 2) for n in report.image.shape)]
    images = [(report.image, report.image_step), (field, report.image_step), (report.detail, report.detail_step)]
    main_lobe = [report.main_lobe * v if math.isfinite(report.main_lobe) else 0.0 for v in report.voxel[:2]]
    return {"images": [_psf_image(*image) for image in images], "profiles": profiles, "main_lobe": main_lobe}


def _psf_image(values: np.ndarray, step: tuple[float, ...]) -> dict[str, Any]:
    rows, columns = values.shape
    left, bottom = -(columns // 2 + 0.5) * step[0], -(rows // 2 + 0.5) * step[1]
    fold = math.ceil(max(rows, columns) / _WIDEST)
    values = np.pad(values, [(0, -n % fold) for n in values.shape], mode="edge")
    rows, columns = (n // fold for n in values.shape)
    values = values.reshape(rows, fold, columns, fold).max(axis=(1, 3))
    edges = [left, bottom, left + columns * fold * step[0], bottom + rows * fold * step[1]]
    decibel = 20 * np.log10(np.maximum(values, 1e-12))
    return {"source": page.png(decibel[::-1], drawing.FLOOR_DB, 0.0, "magma"), "edges": edges}


def _shown_planes(examples: dict[str, Example]) -> list[int]:
    """Return which slices or frames are shown: all, or evenly some of many; of an image of two axes itself."""
    first = next(iter(examples.values()))
    if not first.planes:
        return [0]
    n, height, width = first.reference.shape
    n_pictures = 1 + 3 * len(examples)
    return page.some(n, max(1, min(_MOST_PLANES, _MOST_PIXELS // (n_pictures * height * width))))


def _example(example: Example, planes: list[int]) -> dict[str, Any]:
    """Return pictures of slices or frames, errors too, and the scores, which are of the whole image."""
    error = drawing.ERROR_SCALE * np.abs(example.images["network"] - example.reference)
    return {
        **{part: _grey(image, example, planes) for part, image in example.images.items()},
        "error": _pictures(error, example, planes, "inferno"),
        "scores": {part: drawing.scores_text(scores) for part, scores in example.scores.items()},
    }


def _grey(image: np.ndarray, example: Example, planes: list[int]) -> list[str]:
    return _pictures(image, example, planes, "gray")


def _pictures(image: np.ndarray, example: Example, planes: list[int], colours: str) -> list[str]:
    """Return pictures of some slices or frames, all as bright as they are beside each other."""
    stack = image if example.planes else image[None]
    return [page.png(stack[number], 0.0, drawing.peak(example.reference), colours) for number in planes]
