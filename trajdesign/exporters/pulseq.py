"""Pulseq ``.seq`` files, through a sequence template; read back by pypulseq and by `trajdesign.seqfile`."""

import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trajdesign import plugins, seqfile
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory

if TYPE_CHECKING:
    import pypulseq as pp

    from trajdesign.waveform import ShotWaveforms

SUFFIX = ".seq"

#: What a scanner plays, so that k as read back from it is written beside it.
IS_PLAYED = True

#: What the rounding of a file's numbers may add to a waveform that is exactly at a limit.
_TOLERANCE = 1e-6

#: Phase across the slice that may be left during the readout, turns.
_MOST_TURNS = 1e-3

_DEFINITIONS = ("FOV", "TE", "TR", "PrephaserCells", "ReadoutCells", "RewinderCells")

#: Longest ADC event that the common interpreters take in one piece, samples.
_LONGEST_ADC = 8192


def pulseq(
    trajectory: Trajectory,
    path: Path,
    *,
    sequence: str = "gre_2d",
    pulseq_version: Literal["1.5.0", "1.4.1"] = "1.5.0",
    flip_angle_deg: float = 15.0,
    slice_thickness: float = 5e-3,
    te: float | None = None,
    tr: float | None = None,
    n_dummies: int = 16,
    spoiler_cycles: float = 2.0,
    bridge_slew: float = 0.7,
) -> dict[str, Any]:
    """Write a Pulseq file that plays the trajectory.

    Parameters
    ----------
    trajectory
        What is to be played.
    path
        The file.
    sequence
        Name of a template in ``sequences/``, or the path of a ``.py`` file with a function ``build`` that
        takes the trajectory and the options below and returns a `pypulseq.Sequence`.
    pulseq_version
        Of the file format; older interpreters need 1.4.1.
    flip_angle_deg, slice_thickness, te, tr, n_dummies, spoiler_cycles, bridge_slew
        Passed to the template.

    Returns
    -------
    dict
        ``version`` and ``md5`` of the file.

    Raises
    ------
    ConfigError
        If there is no such template, or it refuses the trajectory or an option.
    LimitError
        If no waveform within the limits exists.
    """
    build = template(sequence)
    options = {
        "flip_angle_deg": flip_angle_deg,
        "slice_thickness": slice_thickness,
        "te": te,
        "tr": tr,
        "n_dummies": n_dummies,
        "spoiler_cycles": spoiler_cycles,
        "bridge_slew": bridge_slew,
    }
    try:
        inspect.signature(build).bind(trajectory, **options)
    except TypeError as error:
        raise ConfigError(f"the function build of sequence {sequence!r} cannot be called: {error}.") from None
    try:
        played = build(trajectory, **options)
    except ValueError as error:  # pypulseq's own refusals
        raise LimitError(f"sequence {sequence!r}: {error}.") from None
    # pypulseq appends its own suffix to any other name
    written = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
    md5 = played.write(str(written), check_timing=False, v141_compat=pulseq_version == "1.4.1")
    if written != path:
        written.replace(path)
    return {"version": pulseq_version, "md5": md5}


def read_back(path: Path, trajectory: Trajectory) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the file with two independent readers and check all that needs no trajectory.

    Parameters
    ----------
    path
        The file.
    trajectory
        Gives the scanner, the shape of the result, and the number of ADC events.

    Returns
    -------
    k
        Per reader, k at the ADC samples (shot, sample, dim), 1/m, since the last excitation.
    facts
        For the report: the largest gradient and slew rate as vectors of all axes, timing, TE, TR, duration,
        cells.

    Raises
    ------
    ConfigError
        If the template left out a definition.
    LimitError
        If a limit is broken anywhere in the file, a gradient event does not start and end at exactly 0, the
        timing is off a raster or within a dead time, the slice axis is not rephased, or the file does not
        read back.
    """
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    try:
        ours = seqfile.read(path)
    except InputError as error:
        raise LimitError(f"the written file does not read back: {error}") from None
    _require_limits(ours, scanner)
    shape = (acquisition.n_shots, acquisition.n_samples)
    if ours.adc_times.shape != shape:
        raise LimitError(f"the file has (ADC events, samples) {ours.adc_times.shape} instead of {shape}.")
    theirs = _read_with_pypulseq(path, scanner)
    if theirs.shape != (3, math.prod(shape)):
        raise LimitError(f"pypulseq reads k of the shape {theirs.shape} from the file.")
    definitions = ours.definitions
    missing = [name for name in _DEFINITIONS if name not in definitions]
    if missing:
        raise ConfigError(
            f"the sequence lacks the definitions {', '.join(missing)}; its build should call add_definitions."
        )
    if acquisition.n_dims == 2:
        turns = float(np.abs(ours.k_adc[..., 2]).max()) * float(definitions["FOV"].split()[2])
        if not turns <= _MOST_TURNS:
            raise LimitError(f"{turns:.3g} turns of phase across the slice are left during the readout.")
    gradient, slew = ours.extremes(scanner.gamma)
    facts = {
        "max_gradient": gradient,
        "max_slew": slew,
        "timing_ok": True,
        "te": float(definitions["TE"]),
        "tr": float(definitions["TR"]),
        "duration": ours.duration,
        "n_prephaser": int(definitions["PrephaserCells"]),
        "n_readout": int(definitions["ReadoutCells"]),
        "n_rewinder": int(definitions["RewinderCells"]),
        "version": ours.version,
        "md5": ours.md5,
    }
    n_dims = acquisition.n_dims
    pypulseq_k = theirs.T.reshape(*shape, 3)
    return {"seqfile": ours.k_adc[..., :n_dims], "pypulseq": pypulseq_k[..., :n_dims]}, facts


def _require_limits(played: seqfile.SeqFile, scanner: Scanner) -> None:
    if played.edge != 0:
        raise LimitError(f"a gradient event starts or ends at {played.edge / scanner.gamma:.3g} T/m instead of 0.")
    gradient, slew = played.extremes(scanner.gamma, scanner.limit_norm)
    for name, value, limit, unit in (
        ("gradient", gradient, scanner.max_gradient, "T/m"),
        ("slew rate", slew, scanner.max_slew, "T/m/s"),
    ):
        if not value <= limit * (1 + _TOLERANCE):
            raise LimitError(f"the file's largest {name} is {value:.6g} {unit}; the limit is {limit:g} {unit}.")


def _read_with_pypulseq(path: Path, scanner: Scanner) -> np.ndarray:
    """Return k at the ADC samples (3, adc sample), 1/m, of a file whose timing is right."""
    import pypulseq as pp

    fresh = pp.Sequence(system(scanner))
    fresh.read(str(path))
    timing_ok, errors = fresh.check_timing()
    if not timing_ok:
        first = errors[0]
        raise LimitError(
            f"the timing of the file is wrong in {len(errors)} place(s), first in block {first.block}: "
            f"{first.event} {first.field}, {first.error_type}, {first.value:g} s."
        )
    return np.asarray(fresh.calculate_kspace()[0])


def template(name: str) -> Callable[..., "pp.Sequence"]:
    """Return the function `build` of a sequence template.

    Parameters
    ----------
    name
        File name of a template in ``sequences/``, or the path of a ``.py`` file.

    Raises
    ------
    ConfigError
        If there is no such file, or it has no `build`.
    """
    package = Path(__file__).resolve().parents[1]
    # beside the modules in a wheel, beside the package in a checkout
    folders = [folder for folder in (package / "sequences", package.parent / "sequences") if folder.is_dir()]
    known = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.py"))}
    file = Path(name) if name.endswith(".py") else known.get(name)
    if file is None or not file.is_file():
        raise ConfigError(f"unknown sequence {name!r}{plugins.nearest(name, sorted(known))}")
    spec = importlib.util.spec_from_file_location(f"trajdesign_sequence_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"sequence {name!r} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"sequence {name!r} cannot be loaded: {error}.") from None
    if not callable(getattr(module, "build", None)):
        raise ConfigError(f"sequence {name!r} has no function build(trajectory, ...).")
    build: Callable[..., pp.Sequence] = module.build
    return build


def system(scanner: Scanner) -> "pp.Opts":
    """Return pypulseq's system limits of a scanner, for writing and for reading.

    The limits are a millionth higher: pypulseq compares rounded numbers, and a waveform may be at a limit.
    """
    import pypulseq as pp

    return pp.Opts(
        max_grad=scanner.gamma * scanner.max_gradient * (1 + _TOLERANCE),
        max_slew=scanner.gamma * scanner.max_slew * (1 + _TOLERANCE),
        grad_unit="Hz/m",
        slew_unit="Hz/m/s",
        gamma=scanner.gamma,
        grad_raster_time=scanner.gradient_raster,
        rf_raster_time=scanner.rf_raster,
        adc_raster_time=scanner.adc_raster,
        block_duration_raster=scanner.block_raster,
        rf_dead_time=scanner.rf_dead_time,
        rf_ringdown_time=scanner.rf_ringdown_time,
        adc_dead_time=scanner.adc_dead_time,
    )


def gradient_event(sequence: "pp.Sequence", channel: str, samples: np.ndarray) -> SimpleNamespace:
    """Return an arbitrary gradient event that the file stores to nine digits.

    A file keeps six digits of an event's amplitude, which would scale the whole curve by up to 5e-6, and
    run-length coding keeps a shape to 1e-7. Both are avoided by registering the event with an amplitude that
    six digits hold, rounded up, and its uncompressed shape relative to that.

    Parameters
    ----------
    sequence
        The sequence the event is for.
    channel
        ``"x"``, ``"y"`` or ``"z"``.
    samples
        Samples at the raster centres (cell,), Hz/m; not all 0, but 0 at both ends.
    """
    import pypulseq as pp

    event = pp.make_arbitrary_grad(channel, samples, first=0.0, last=0.0, system=sequence.system)
    peak = float(np.abs(samples).max())
    unit = 10.0 ** (math.floor(math.log10(peak)) - 5)
    amplitude = float(f"{math.ceil(peak / unit) * unit:.5e}")
    shape_id, _ = sequence.shape_library.find_or_insert(np.concatenate([[len(samples)], samples / amplitude]))
    event.id, _ = sequence.grad_library.find_or_insert((amplitude, 0.0, 0.0, shape_id, 0, 0.0), "g")
    return event


def add_definitions(
    sequence: "pp.Sequence",
    trajectory: Trajectory,
    shots: "ShotWaveforms",
    *,
    te: float,
    tr: float,
    slice_thickness: float,
) -> None:
    """Write the definitions that interpreters and `read_back` look for."""
    n_samples = trajectory.acquisition.n_samples
    segment = next(n for n in range(min(n_samples, _LONGEST_ADC), 0, -1) if n_samples % n == 0)
    fov = [*trajectory.acquisition.fov, slice_thickness][:3]
    for name, value in (
        ("Name", plain_text(trajectory.name)),
        ("FOV", fov),
        ("TE", te),
        ("TR", tr),
        ("MaxAdcSegmentLength", segment),
        ("PrephaserCells", shots.n_prephaser),
        ("ReadoutCells", shots.n_readout),
        ("RewinderCells", shots.n_rewinder),
    ):
        sequence.set_definition(name, value)


def plain_text(text: str) -> str:
    """Return `text` as one short word of printable ASCII, so that it cannot become another line of a file."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-+") else "_" for c in text)
    return kept[:64] or "trajectory"
