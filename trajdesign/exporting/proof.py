"""The one door to a scanner file: check, write, read back, compare."""

from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trajdesign.config import plugins
from trajdesign.errors import ConfigError, LimitError, ResourceError
from trajdesign.files import untrusted
from trajdesign.files.atomic import atomic_path
from trajdesign.interfaces import Format
from trajdesign.learning.run_folder import Export, RunFolder
from trajdesign.physics import limits
from trajdesign.physics.response import Response
from trajdesign.trajectory import MAX_K_ERROR_FOV, Trajectory, not_finite


def export(
    trajectory: Trajectory,
    path: Path | str,
    *,
    format: str = "pulseq",
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    ignore: list[str] | None = None,
    response: Mapping[str, Any] | None = None,
    constraints: limits.Options | None = None,
    run: Path | str | None = None,
) -> dict[str, Any]:
    """Write `trajectory` to a file, and prove from the file that it plays what was meant.

    The file appears only after it has been read back and compared. Beside a file for a scanner, say ``name.seq``,
    appears ``name_k.npz``, the k that was read back from it, for the reconstruction.

    Parameters
    ----------
    format, options
        Name of an exporter, and its options.
    ignore
        Constraints that guard the image, not the hardware, and need not hold.
    response
        Table of the gradient system's response, if it is known: beside k of a Pulseq file stand the ``k_actual`` that
        the response makes of it, 1/m, and the ``phase_actual`` of its samples, rad, if it tells the field.
    constraints
        Options of the constraints that are to hold beside the standard ones, by name: `config.Limits.tables` of a run.
    run
        The run folder whose trajectory it is: its ``exports.json`` then tells the signature of the Pulseq file, by
        which `trajdesign.reconstruct` knows it. A folder that cannot be written is left as it is.

    Returns
    -------
    dict
        ``format``, ``path``, what `compare` returns, and the exporter's facts: for Pulseq ``max_gradient`` (T/m) and
        ``max_slew`` (T/m/s) of the vector of all axes over the whole file, ``te``, ``tr``, ``duration`` (s), the cells
        of prephaser, readout and rewinder, ``timing_ok``, ``version``, ``md5``, ``sequence`` (the template as ``kind``,
        and its options) and ``k_path``; with a run ``is_noted``, whether it tells of the file; and where `constraints`
        name ``echo``, ``echo_k_fov``, the largest distance of a shot from k = 0 at the echo time as the file plays it,
        in 1/FOV, and with its ``moment`` ``echo_moment_fov``, that of the mean of k until then; and a ``remark`` if k
        and phase leave much out of a response.

    Raises
    ------
    LimitError
        If the trajectory is not finite or breaks a limit, or the file does not play it; no file is left.
    ConfigError
        If the exporter, an option or the file's ending is wrong, or the trajectory is not the run's.
    OutputError
        If a file exists already and `overwrite` is false.
    """
    path = Path(path)
    exporter = plugins.build("exporter", {**(options or {}), "kind": format})
    if not isinstance(exporter, Format):
        raise ConfigError(f"exporter {format!r} is no trajdesign.interfaces.Format, so its files cannot be proved.")
    if untrusted.ending(path) != exporter.ending.lower():
        raise ConfigError(f"{path} must end in {exporter.ending} for the format {format!r}.")
    trajectory = trajectory.with_points(trajectory.points.detach())  # of which there are copies
    if wrong := not_finite(trajectory.points.cpu()):
        raise LimitError(f"{trajectory.name} {wrong}; it cannot be exported.")
    if run is not None:
        _require_of(trajectory, RunFolder(run))
    limits.require(trajectory, limits.without(ignore or [], constraints or ()), constraints)
    with ExitStack() as files:
        temporary = files.enter_context(atomic_path(path, overwrite=overwrite))
        if exporter.companion is not None:
            other = path.with_suffix(exporter.companion)
            files.enter_context(atomic_path(other, overwrite=overwrite, beside=temporary))
        k_file = None
        if exporter.is_played:
            k_path = path.with_name(f"{path.stem}_k.npz")
            k_file = files.enter_context(atomic_path(k_path, overwrite=overwrite))
        # of copies, so that what a template or an exporter changes in place is not what it is proven against
        facts = exporter.write(deepcopy(trajectory), temporary)
        read, more = exporter.read_back(temporary, deepcopy(trajectory))
        report = {"format": format, "path": str(path), **compare(read, trajectory), **facts, **more}
        report |= _echo(read, trajectory, constraints or {}, ignore or [], is_played=exporter.is_played)
        if k_file is not None:
            arrays = {"k_adc": next(iter(read.values()))}
            if response:
                arrays |= exporter.actual(temporary, trajectory, response)
                if remark := Response(response).remark(trajectory):
                    report["remark"] = remark
            _save_k(k_file, trajectory, arrays, report)
            report["k_path"] = str(k_path)
    if run is not None and "sequence" in report:
        options = dict(report["sequence"])
        noted = Export(path.name, report["md5"], options.pop("kind"), options)
        report["is_noted"] = True
        try:
            RunFolder(run).note_export(noted)
        except ResourceError:  # a run of others, which may be read alone
            report["is_noted"] = False
    return report


def _require_of(trajectory: Trajectory, run: RunFolder) -> None:
    """Refuse a trajectory that is not a run's, and before anything is written a run whose exports cannot be read."""
    own = run.trajectory()
    if own.acquisition != trajectory.acquisition or not torch.equal(own.points, trajectory.points.cpu()):
        raise ConfigError(f"{trajectory.name} is not the trajectory of the run {run.path}.")
    run.exports()


def compare(read: Mapping[str, np.ndarray], trajectory: Trajectory) -> dict[str, Any]:
    """Return how far k as each reader reads it from a file (shot, sample, dim), 1/m, is from `Trajectory.k_adc`.

    The origin of k-space counts too. ``max_k_error_fov`` and ``rms_k_error_fov`` are those of the worst reader, in
    1/FOV; beside them stand ``k_error_fov_by_reader`` and ``reader_difference_fov``.

    Raises
    ------
    LimitError
        If any reader's largest distance is over `MAX_K_ERROR_FOV`, or not a number.
    """
    wanted = trajectory.k_adc.detach().cpu().double().numpy()
    fov = np.array(trajectory.acquisition.fov)
    largest, rms = {}, {}
    for reader, k in read.items():
        if k.shape != wanted.shape:
            raise LimitError(f"{reader} reads k of the shape {k.shape} from the file instead of {wanted.shape}.")
        distance = np.linalg.norm((k - wanted) * fov, axis=-1)
        shot, sample = np.unravel_index(int(np.argmax(np.nan_to_num(distance, nan=np.inf))), distance.shape)
        if not distance[shot, sample] <= MAX_K_ERROR_FOV:
            raise LimitError(
                f"{reader} reads a k from the file that is {distance[shot, sample]:.3g}/FOV away from the "
                f"trajectory at shot {shot}, sample {sample}; allowed are {MAX_K_ERROR_FOV:g}/FOV."
            )
        largest[reader] = float(distance[shot, sample])
        rms[reader] = float(np.sqrt(np.mean(distance**2)))
    difference = max(
        (float(np.linalg.norm((a - b) * fov, axis=-1).max()) for a, b in combinations(read.values(), 2)), default=0.0
    )
    return {
        "max_k_error_fov": max(largest.values()),
        "rms_k_error_fov": max(rms.values()),
        "k_error_fov_by_reader": largest,
        "reader_difference_fov": difference,
    }


def _echo(
    read: Mapping[str, np.ndarray],
    trajectory: Trajectory,
    options: limits.Options,
    ignore: list[str],
    *,
    is_played: bool,
) -> dict[str, float]:
    """Return the constraint `echo` as a file keeps it: ``echo_k_fov``, the largest |k| of any shot then, in 1/FOV.

    With its ``moment`` also ``echo_moment_fov``, that of the mean until then. What a file's samples depart from the
    trajectory's is taken as straight between samples. It raises a `LimitError` if a scanner's file breaks the limit;
    that of a format in single precision may.
    """
    if "echo" not in options or "echo" in ignore:
        return {}
    [constraint] = limits.constraints(trajectory.acquisition, trajectory.scanner, ["echo"], options)
    time, sums = constraint.check(trajectory).time, constraint.vanishing(trajectory)
    wanted, fov = trajectory.k_adc.detach().cpu().double().numpy(), np.array(trajectory.acquisition.fov)
    exact = torch.einsum("rp,spd->rsd", sums, trajectory.points.detach().cpu().double()).numpy()
    times = trajectory.adc_times.numpy()
    place = int(np.searchsorted(times, time).clip(1, len(times) - 1))
    part = min(max((time - times[place - 1]) / (times[place] - times[place - 1]), 0.0), 1.0)
    largest = dict.fromkeys(("echo_k_fov", "echo_moment_fov")[: len(exact)], 0.0)
    for reader, k in read.items():
        off = k - wanted
        both = (1 - part) * off[:, place - 1] + part * off[:, place], off[:, : place + 1].mean(axis=1)
        for (name, so_far), at_echo, more in zip(largest.items(), exact, both, strict=False):
            distance = float(np.linalg.norm((at_echo + more) * fov, axis=-1).max())
            if is_played and not distance <= constraint.limit:
                raise LimitError(
                    f"{reader} reads k from the file that{'' if name == 'echo_k_fov' else ', on average until then,'} "
                    f"is {distance:.3g}/FOV from the centre at the echo time; allowed are {constraint.limit:g}/FOV."
                )
            largest[name] = max(so_far, distance)
    return largest


def _save_k(path: Path, trajectory: Trajectory, k: dict[str, np.ndarray], report: Mapping[str, Any]) -> None:
    """Write k as it was read back, with what a reconstruction needs to know."""
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    facts = {"te": "te_s", "tr": "tr_s", "md5": "seq_md5"}
    frames = {"n_frames": np.array(acquisition.n_frames)} if acquisition.n_frames > 1 else {}
    arrays: dict[str, Any] = {
        **k,
        **frames,
        **{key: np.array(report[fact]) for fact, key in facts.items() if fact in report},
    }
    with path.open("wb") as stream:
        np.savez(
            stream,
            dwell_s=acquisition.dwell,
            fov_m=np.array(acquisition.fov),
            matrix=np.array(acquisition.matrix),
            nucleus=np.array(scanner.nucleus),
            gamma_hz_per_t=scanner.gamma,
            name=np.array(trajectory.name),
            **arrays,
        )
