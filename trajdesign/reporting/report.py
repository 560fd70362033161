"""The figures of a run, of a comparison and of a study, drawn from their folders."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajdesign.config import toml
from trajdesign.encoding.psf import PsfReport, psf
from trajdesign.errors import ConfigError
from trajdesign.files import atomic, untrusted
from trajdesign.learning import conditions, examples
from trajdesign.learning.compare import ComparedStage
from trajdesign.learning.examples import Example
from trajdesign.learning.other_data import Evaluation
from trajdesign.learning.results import FIXED
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.physics.response import Response
from trajdesign.reporting import plots, study_plots, webpage
from trajdesign.reporting.webpage import Contents
from trajdesign.studies import training
from trajdesign.studies.study import Cell, Study, as_file_name
from trajdesign.studies.tables import Row, StudyTable
from trajdesign.trajectory import Trajectory

#: A reference, images, their scores, and what is shown of them: see `trajdesign.reporting.plots.reconstructions`.
_Shown = tuple[np.ndarray, dict[str, np.ndarray], dict[str, dict[str, float]], str]


def draw(path: Path | str) -> list[Path]:
    """Draw every figure of a finished run folder into its folder ``figures``, and its page ``report.html``.

    Returns
    -------
    list of Path
        ``trajectories``, ``waveforms``, ``psf``, ``reconstruction`` and ``learning`` as PNG files, and ``response``, k
        as it is played and as it acts, if the run knows a response of the gradient system; then the page.

    Raises
    ------
    InputError
        If the run is not finished or a file is damaged.
    OutputError
        If the folder of the figures is a link to elsewhere.
    """
    figures, contents = RunFolder(path).figures, _contents(path)
    written = []
    for name, figure in _figures(contents).items():
        written.append(figures / f"{name}.png")
        plots.save(figure, written[-1])
    written.append(contents.path / "report.html")
    _write_page(contents, written[-1])
    return written


def write(path: Path | str, out: Path | str) -> None:
    """Write the report of a finished run folder: a page for the browser (``.html``), or its figures (``.pdf``).

    Raises
    ------
    ConfigError
        If the file name ends otherwise.
    InputError
        If the run is not finished or a file is damaged.
    """
    ending = untrusted.ending(out)
    if ending not in (".html", ".pdf"):
        raise ConfigError(f"{out}: a report's file name ends in .html or .pdf, not in {ending!r}.")
    contents = _contents(path)
    if ending == ".html":
        _write_page(contents, out)
    else:
        text = plots.text_pages(webpage.title(contents), _summary(contents))
        plots.save_pages([*text, *_figures(contents).values()], out)


def _contents(path: Path | str) -> Contents:
    """Read a finished run, and compute what its report shows."""
    folder = RunFolder(path)
    results, config = folder.results(), folder.config()
    read = {stage: folder.trajectory_of(stage) for stage in dict.fromkeys([FIXED, *results.stages])}
    trajectories = {label: trajectory.with_points(trajectory.points, label) for label, trajectory in read.items()}
    last = list(trajectories.values())[-1]
    acting = Response(config.response)(last) if config.response else None
    names = list(dict.fromkeys([*config.limits.constraints, "gradient", "slew"]))
    return Contents(
        path=folder.path,
        config=config,
        results=results,
        conditions={name: one.result for name, one in conditions.read(path).items()},
        trajectories=trajectories,
        acting=None if acting is None else last.with_points(acting.points, "as it acts"),
        psfs={label: psf(trajectory) for label, trajectory in trajectories.items()},
        findings={label: limits.check(t, names, config.limits.options) for label, t in trajectories.items()},
        examples=examples.of_stages({stage: (folder, stage) for stage in results.stages}),
        curves=_curves(folder),
    )


def _figures(contents: Contents) -> dict[str, plots.Figure]:
    shown = list(contents.trajectories.values())
    figures = {
        "trajectories": plots.trajectories(*shown),
        "waveforms": plots.waveforms(*shown),
        "psf": plots.psf_figure(*contents.psfs.values()),
        "reconstruction": plots.reconstructions(*_after(contents.examples)),
        "learning": plots.learning_curves(contents.curves),
    }
    if contents.acting is not None:
        figures["response"] = plots.trajectories(shown[-1], contents.acting)
    return figures


def _write_page(contents: Contents, out: Path | str) -> None:
    with atomic.atomic_path(out) as temporary:
        temporary.write_text(webpage.render(contents), encoding="utf-8", newline="\n")


def _summary(contents: Contents) -> str:
    """Return the text before the figures on paper: results, limits, how to go on, and the config."""
    results = [("test images", "PSNR (dB)", "SSIM", "NRMSE"), *webpage.results_table(contents.results)]
    lines = ["".join(f"{cell:>14}" for cell in row) for row in results]
    if contents.conditions:
        headings = ("in other conditions", "PSNR (against its own test)", "SSIM (against its own test)")
        shown = [headings, *webpage.conditions_table(contents)]
        lines += ["", *("".join(f"{cell:>32}" for cell in row) for row in shown)]
    for label, findings in contents.findings.items():
        lines += ["", f"Limits, {label}"]
        lines += [f"{'ok' if f.ok else 'BROKEN':>8}  {limits.describe(f)}" for f in findings]
    lines += ["", limits.unseen_sentence(f.name for f in findings)]
    scanner = contents.trajectories[FIXED].scanner
    lines += ["", "How to go on"]
    lines += [f"    {command}" for command in webpage.commands(contents.path, scanner).values()]
    return "\n".join([*lines, "", "Config", toml.to_toml(contents.config.to_dict())])


def draw_comparison(stages: Sequence[ComparedStage], out: Path | str) -> None:
    """Draw the trajectories of stages with one test set, their point spread functions, and a test image of each."""
    found = examples.of_stages({stage.label: (stage.folder, stage.name) for stage in stages})
    shown = {label: (example.trajectory, psf(example.trajectory)) for label, example in found.items()}
    plots.save(study_plots.side_by_side(shown, *_after(found)), out)


def draw_evaluation(evaluation: Evaluation, out: Path | str) -> None:
    """Draw a test image of an evaluation, in the middle of those that count, as each stage shows it."""
    plots.save(plots.reconstructions(*_after(examples.of_evaluation(evaluation))), out)


def draw_study(table: StudyTable, out: Path | str) -> list[Path]:
    """Draw the figures of a study into the folder ``figures`` of `out`, from the cells that are finished.

    Parameters
    ----------
    table
        What `trajdesign.studies.tables.collect` returned.
    out
        Folder of the study.

    Returns
    -------
    list of Path
        For each pattern and number of shots ``trajectories-...``, with the point spread functions, and for each fixed
        start ``reconstructions-...``, before and after the network, both of the first reconstructor and seed;
        ``gains-...`` over the number of shots, and ``errors-...`` over the size of each error of the conditions, the
        mean over the seeds.
    """
    study, figures = table.study, atomic.require_own(Path(out) / "figures")
    first = {axis: study.axes[axis][0] for axis in ("reconstructor", "seed")}.items()
    finished = [cell for cell in study.cells if training.outcome(cell, out).results is not None]
    drawn = [cell for cell in finished if not cell.classic and first <= cell.values.items()]
    starts = {study.label(c.values, "pattern", "shots", *study.further): c for c in drawn if c.is_fixed}
    written = []
    for name, start in starts.items():
        family = [cell for cell in drawn if cell.shares(start, "parameterization")]
        written.append(figures / f"reconstructions-{name}.png")
        plots.save(plots.reconstructions(*_before_and_after(family, out)), written[-1])
    for name in dict.fromkeys(study.label(start.values, "pattern", "shots") for start in starts.values()):
        kin = [cell for cell in drawn if study.label(cell.values, "pattern", "shots") == name]
        written.append(figures / f"trajectories-{name}.png")
        plots.save(study_plots.side_by_side(_fixed_and_learned(study, kin, out)), written[-1])
    for name, panels in _over_shots(study, table.rows).items():
        written.append(figures / f"gains-{name}.png")
        plots.save(study_plots.over_shots(list(map(str, study.axes["shots"])), panels), written[-1])
    for error, curves in _over_sizes(table).items():
        written.append(figures / f"errors-{as_file_name(error)}.png")
        plots.save(study_plots.over_sizes(error, curves), written[-1])
    return written


def _fixed_and_learned(study: Study, kin: list[Cell], out: Path | str) -> dict[str, tuple[Trajectory, PsfReport]]:
    """Return the fixed trajectory, the start of learning if that is another one, and the learned ones by label."""
    trajectories = {FIXED: training.folder(kin[0], out).trajectory("initial")}
    for cell in kin:
        if not cell.is_fixed:
            label, folder = study.label(cell.values, "parameterization", *study.further), training.folder(cell, out)
            start = folder.start()
            if not any(np.array_equal(start.points, known.points) for known in trajectories.values()):
                trajectories[f"{label}, start" if "start" in trajectories else "start"] = start
            trajectories[label] = folder.trajectory()
    return {label: (trajectory, psf(trajectory)) for label, trajectory in trajectories.items()}


def _before_and_after(family: list[Cell], out: Path | str) -> _Shown:
    """Return a test image of the fixed start and of what was learned from it, before and after the network."""
    folders = {str(cell.values["parameterization"]): training.folder(cell, out) for cell in family}
    found = examples.of_stages(
        {label: (folder, list(folder.results().stages)[-1]) for label, folder in folders.items()}
    )
    images, scores = {}, {}
    for label, example in found.items():
        reference, shown = example.in_the_middle()
        for part in ("adjoint", "network"):
            images[f"{label}, {part}"] = shown[part]
            scores[f"{label}, {part}"] = example.scores[part]
    return reference, images, scores, _which(example)


def _over_shots(study: Study, rows: Sequence[Row]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return figure -> pattern -> line -> PSNR for each number of shots, the mean over the seeds."""
    psnr: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        axes = row.axes
        panel = (study.label(axes, "reconstructor", *study.further), str(axes["pattern"]))
        drawn = {FIXED: row.fixed, "best fixed": row.strong, str(axes["parameterization"]): row.learned}
        for line, cell in drawn.items():
            psnr.setdefault((*panel, line, axes["shots"]), []).append(cell.result.psnr)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for figure, pattern, line, _ in psnr:
        over_seeds = [psnr.get((figure, pattern, line, n), [math.nan]) for n in study.axes["shots"]]
        found.setdefault(figure, {}).setdefault(pattern, {})[line] = list(map(statistics.fmean, over_seeds))
    return found


def _over_sizes(table: StudyTable) -> dict[str, dict[str, dict[str, tuple[list[float], list[float]]]]]:
    """Return error -> place -> line -> its sizes and the PSNR at each, the mean over the seeds.

    At size 0 it is that of the run's own test, if no condition has it. There are no lines of classical patterns.
    """
    study, places = table.study, [axis for axis in ("shots", "reconstructor") if len(table.study.axes[axis]) > 1]
    psnr: dict[tuple[str, str, str], dict[float, dict[str, float]]] = {}
    own: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in table.in_conditions:
        cell, condition, result = entry.one.cell, study.conditions[entry.condition], entry.result
        if condition.error and not cell.classic:
            place = study.label(cell.values, "pattern", *places)
            line = (condition.error, place, study.label(cell.values, "parameterization", *study.further))
            psnr.setdefault(line, {}).setdefault(condition.size, {})[cell.name] = result.psnr
            own.setdefault(line, {})[cell.name] = entry.one.result.psnr
    found: dict[str, dict[str, dict[str, tuple[list[float], list[float]]]]] = {}
    for (error, place, label), points in psnr.items():
        points.setdefault(0.0, own[error, place, label])
        over_seeds = [statistics.fmean(points[size].values()) for size in sorted(points)]
        found.setdefault(error, {}).setdefault(place, {})[label] = (sorted(points), over_seeds)
    return found


def _after(found: dict[str, Example]) -> _Shown:
    """Return what the network made of the examples."""
    first = next(iter(found.values()))
    images = {label: example.in_the_middle()[1]["network"] for label, example in found.items()}
    scores = {label: example.scores["network"] for label, example in found.items()}
    return first.in_the_middle()[0], images, scores, _which(first)


def _which(example: Example) -> str:
    """Return which slice or frame is the one in the middle; nothing of an image of two axes."""
    n = len(example.reference)
    return f"{example.planes} {n // 2} of 0 to {n - 1}; scores: of all" if example.planes else ""


def _curves(folder: RunFolder) -> dict[str, tuple[list[float], list[float]]]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in folder.history():
        steps, values = curves.setdefault(row.stage, ([], []))
        steps.append(row.step)
        values.append(row.val_psnr)
    return curves
