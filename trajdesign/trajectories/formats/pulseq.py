"""Pulseq ``.seq`` files, through a sequence template; read back by pypulseq and by our own reader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.interfaces import Format, Samples
from trajdesign.physics.response import Response
from trajdesign.pulseq import coherence
from trajdesign.pulseq.checks import describe
from trajdesign.pulseq.declared import declared
from trajdesign.pulseq.reader import player, sequence
from trajdesign.pulseq.response import k_of_file, phase_of_file
from trajdesign.pulseq.rotations import with_rotations, without_rotations
from trajdesign.scanner import Scanner
from trajdesign.trajectory import MAX_K_ERROR_FOV, Trajectory
from trajdesign.units import WRITER_ROUNDING

#: Phase across the slice that may be left during the readout, turns.
_MOST_TURNS = 1e-3

#: Definitions that a sequence has, and how many numbers each holds.
_DEFINITIONS = {"FOV": 3, "TE": 1, "TR": 1, "PrephaserCells": 1, "ReadoutCells": 1, "RewinderCells": 1}

#: Labels that count how often every shot is played, and what they count.
_REPEATS = {"SLC": "slices", "PAR": "partitions", "AVG": "averages"}

#: Largest distance between repetitions of a shot, in slices or partitions, 1/FOV.
_SAME_K = 1e-6

#: Part of a field of view by which the digits of a file may differ from it.
_SAME_FOV = 1e-6

#: A file whose k along z is less than this part of that in the plane is 2D.
_FLAT = 1e-2


@dataclass(frozen=True, kw_only=True)
class Pulseq(Format):
    """A Pulseq file that plays the trajectory, from a template; read back by pypulseq and by our own reader.

    Parameters
    ----------
    sequence
        Name of a template in ``sequences/``, or the path of a ``.py`` file with a function ``build`` that takes the
        trajectory and options and returns a `pypulseq.Sequence`; with options of the template, a table of them and
        ``kind``, the name. By default ``gre_2d``, and ``gre_3d`` of a 3D trajectory.
    pulseq_version
        Of the file format; older interpreters need 1.4.1. In 1.5.1 shots that are turned copies of each other, as of
        spokes, of stacks and of films of one shape, share their shapes: see `trajdesign.pulseq.rotations`.
    """

    ending = ".seq"
    is_played = True
    reads = (".seq",)

    sequence: str | dict[str, Any] = ""
    pulseq_version: Literal["1.5.1", "1.5.0", "1.4.1"] = "1.5.0"

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Write the file, and return its ``version``, ``md5``, and ``sequence``: the template as ``kind``, and options.

        Raises
        ------
        ConfigError
            If there is no such template, or it refuses the trajectory or an option.
        LimitError
            If no waveform within the limits exists.
        """
        import pypulseq as pp

        given = {"kind": self.sequence} if isinstance(self.sequence, str) else self.sequence
        table = given if given.get("kind") else {**given, "kind": f"gre_{trajectory.acquisition.n_dims}d"}
        try:
            played = plugins.build("sequence", table, trajectory)
        except ValueError as error:  # pypulseq's own refusals
            raise LimitError(f"sequence {table['kind']!r}: {error}.") from None
        if not isinstance(played, pp.Sequence):
            raise ConfigError(f"build of sequence {table['kind']!r} returned no pypulseq.Sequence.")
        # of the rest of the scanner nothing: a file is to be checked against the one that plays it
        played.set_definition("Nucleus", trajectory.scanner.nucleus)
        played.set_definition("Gamma", repr(trajectory.scanner.gamma))
        # pypulseq appends its own suffix to any other name
        written = path if path.suffix == self.ending else path.with_name(path.name + self.ending)
        md5 = played.write(str(written), check_timing=False, v141_compat=self.pulseq_version == "1.4.1")
        # where a system ends lines in another way, pypulseq writes those and signs these
        content = written.read_bytes().replace(b"\r\n", b"\n")
        if self.pulseq_version == "1.5.1":
            content, md5 = with_rotations(content)
        written.write_bytes(content)
        if written != path:
            written.replace(path)
        return {"version": self.pulseq_version, "md5": md5, "sequence": table}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the file with two independent readers, and check all that needs no trajectory.

        The largest gradient and slew rate among the facts are those of the vectors of all axes, over the whole file.

        Raises
        ------
        ConfigError
            If the template left out a definition.
        LimitError
            If a limit is broken anywhere in the file, its field of view is not the trajectory's, a gradient event does
            not start and end at exactly 0, the timing is off a raster or within a dead time, the slice axis is not
            rephased, or the file does not read back.
        """
        scanner, acquisition = trajectory.scanner, trajectory.acquisition
        try:
            ours = player.read(path)
        except InputError as error:
            raise LimitError(f"the written file does not read back: {error}") from None
        told = ours.nucleus(path)
        if told != {"nucleus": scanner.nucleus, "gamma": scanner.gamma}:
            raise LimitError(
                f"the written file says {told} of the nucleus, not {scanner.nucleus} and {scanner.gamma!r}."
            )
        _require_limits(ours, scanner)
        theirs = _k_of_pypulseq(path, scanner, ours.labels)
        labels = ours.labels
        missing = [name for name, count in _DEFINITIONS.items() if len(ours.numbers(name)) != count]
        if missing:
            raise ConfigError(
                f"the sequence lacks the definitions {', '.join(missing)}; its build should call add_definitions."
            )
        fov = ours.numbers("FOV")[: acquisition.n_dims]
        if not np.allclose(fov, acquisition.fov, rtol=_SAME_FOV, atol=0):
            raise LimitError(
                f"the written file says FOV {list(fov)} m, and the trajectory's is {list(acquisition.fov)} m; "
                "the build of its sequence should leave that to add_definitions."
            )
        counts = [adc.count for adc in ours.adcs]
        if len(theirs) != sum(counts):
            raise LimitError(f"pypulseq reads {len(theirs)} samples from the file instead of {sum(counts)}.")
        by_pypulseq = np.split(theirs, np.cumsum(counts)[:-1])
        _require_same(ours, by_pypulseq)
        events = _events_of_shots(ours, acquisition)
        k = _of(ours.k, events)
        _require_receiver(ours, events)
        _require_declared(ours, events, scanner)
        turns = k[..., 2] * ours.numbers("FOV")[2]
        partitions = labels["PAR"][events] if "PAR" in labels else np.zeros(events.shape)
        middle = (partitions.max() + 1) // 2
        left = float(np.abs(turns - (partitions - middle)[..., None]).max()) if acquisition.n_dims == 2 else 0.0
        if not left <= _MOST_TURNS:
            raise LimitError(f"{left:.3g} turns of phase across the slice are left during the readout.")
        gradient, slew = ours.extremes(scanner.gamma)
        facts = {
            "max_gradient": gradient,
            "max_slew": slew,
            "timing_ok": True,
            "te": ours.numbers("TE")[0],
            "tr": ours.numbers("TR")[0],
            "duration": ours.duration,
            "n_prephaser": int(ours.numbers("PrephaserCells")[0]),
            "n_readout": int(ours.numbers("ReadoutCells")[0]),
            "n_rewinder": int(ours.numbers("RewinderCells")[0]),
            "version": ours.version,
            "md5": ours.md5,
        }
        for label, what in _REPEATS.items():
            if label in labels:
                facts[f"n_{what}"] = int(labels[label][events].max()) + 1
        read = {"seqfile": k, "pypulseq": _of(by_pypulseq, events)}
        return {name: _once(of[..., : acquisition.n_dims], acquisition) for name, of in read.items()}, facts

    def actual(self, path: Path, trajectory: Trajectory, response: Mapping[str, Any]) -> dict[str, NDArray]:
        """Return k and phase of the shots as the gradient system's response to the whole file makes them.

        Of several slices they are those of the first, and if that matters ``of_first_slice`` is there.
        """
        played, acting = player.read(path), Response(response)
        every = _events_of_shots(played, trajectory.acquisition)
        events = every[:, 0]
        found = {"k_actual": _of(k_of_file(played, acting), events)[..., : trajectory.acquisition.n_dims]}
        if acting.is_local and len(np.unique(coherence.places(played)[every.ravel()], axis=0)) > 1:
            found["of_first_slice"] = np.array(True)
        phase = phase_of_file(played, acting)
        return found if phase is None else {**found, "phase_actual": _of(phase, events)}

    def read(self, path: Path) -> Samples:
        """Play any Pulseq file: every ADC event after the first excitation is a shot, but for noise and calibration."""
        played = player.read(path, signed=False).for_image()
        try:
            k = played.k_adc
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        dwells = {round(adc.dwell, 12) for adc in played.adcs}
        if len(dwells) != 1:
            raise InputError(f"{path} has ADC events of {len(dwells)} dwell times after an excitation; it must be one.")
        n_dims = 2 if np.abs(k[..., 2]).max() <= _FLAT * np.abs(k).max() else 3
        try:
            fov = tuple(float(extent) for extent in played.definitions.get("FOV", "").split())[:n_dims] or None
        except ValueError:
            fov = None
        return Samples(k[..., :n_dims], "1/m", dwell=dwells.pop(), fov=fov, nucleus=played.nucleus(path))


def _events_of_shots(played: sequence.SeqFile, acquisition: Acquisition) -> np.ndarray:
    """Return the ADC events of each shot (shot, repetition), as the label ``LIN`` says, in a film with ``PHS``.

    Noise and calibration belong to none.
    """
    is_image = (played.label("NOISE") == 0) & ~played.is_calibration
    is_film = acquisition.n_frames > 1
    shots = coherence.shots(played, acquisition.shots_a_frame if is_film else 0)
    events = [np.flatnonzero((shots == shot) & is_image) for shot in range(acquisition.n_shots)]
    counts, lengths = {len(of_shot) for of_shot in events}, {played.adcs[i].count for i in np.flatnonzero(is_image)}
    if len(counts) != 1 or 0 in counts or lengths != {acquisition.n_samples}:
        raise LimitError(
            f"the file has {is_image.sum()} ADC events for the image, of {' or '.join(map(str, sorted(lengths)))} "
            f"samples, {min(counts)} to {max(counts)} a shot; the trajectory has {acquisition.n_shots} shots of "
            f"{acquisition.n_samples} samples."
        )
    return np.stack(events)


def _of(k: Sequence[np.ndarray], events: np.ndarray) -> np.ndarray:
    """Return k or phase of ADC events of one length (..., sample[, dim]), in the shape of `events`."""
    of_events = np.stack([k[i] for i in events.ravel().tolist()])
    return of_events.reshape(*events.shape, *of_events.shape[1:])


def _require_same(ours: sequence.SeqFile, theirs: Sequence[np.ndarray]) -> None:
    """Refuse a file of whose calibration the two readers do not have one k; nothing else holds that against a wish."""
    fov = np.array(ours.numbers("FOV"))
    for i in np.flatnonzero(ours.is_calibration).tolist():
        apart = float((np.linalg.norm((ours.k[i] - theirs[i]) * fov, axis=1)).max())
        if not apart <= MAX_K_ERROR_FOV:
            raise LimitError(f"the two readers of the file differ by {apart:.3g}/FOV in k of calibration event {i}.")


def _require_receiver(played: sequence.SeqFile, events: np.ndarray) -> None:
    """Refuse a file whose excitations differ from shot to shot (of one slice), or whose receiver does not follow."""
    slices = played.labels.get("SLC", np.zeros(len(played.adcs)))
    drift = coherence.drifts(played, events.ravel()).reshape(events.shape)
    off = np.maximum(coherence.departures(played, slices)[events], drift)
    is_off, is_uneven = ~(off <= coherence.TOLERANCE), coherence.uneven(played, slices)[events]
    if is_uneven.any():
        raise LimitError(
            f"the excitations of one slice differ in flip angle, frequency or slice gradient, or play nothing, in "
            f"{is_uneven.sum()} of {is_uneven.size} ADC events, first in shot {int(np.argwhere(is_uneven)[0][0])}."
        )
    if is_off.any():
        shot = int(np.argwhere(is_off)[0][0])
        raise LimitError(
            f"the receiver does not follow the phase of the excitation in {is_off.sum()} of {off.size} ADC events, "
            f"first in shot {shot}, by {off[shot].max():.3g} rad; a shot's ADC event should have its pulse's phase."
        )


def _require_declared(played: sequence.SeqFile, events: np.ndarray, scanner: Scanner) -> None:
    """Refuse a file that plays something else than its definitions and labels say, or unlike from shot to shot."""
    for check in declared(played, scanner):
        if not check.ok:
            raise LimitError(f"the file does not play what it says: {describe(replace(check, is_advice=False))}.")
    for label in ("SLC", "PAR", "SET"):
        of_shots = np.sort(played.labels.get(label, np.zeros(len(played.adcs)))[events], axis=1)
        if unlike := np.flatnonzero((of_shots != of_shots[0]).any(axis=1)).tolist():
            raise LimitError(
                f"the ADC events of shot {unlike[0]} have the labels {label} {of_shots[unlike[0]].tolist()}, those of "
                f"shot 0 {of_shots[0].tolist()}; every shot should be sampled alike."
            )


def _once(repeated: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Return k of every shot (shot, sample, dim), which all its repetitions (shot, repetition, sample, dim) share."""
    apart = np.linalg.norm((repeated - repeated[:, :1]) * np.array(acquisition.fov), axis=-1).max()
    if not apart <= _SAME_K:
        raise LimitError(f"the repetitions of a shot differ by {apart:.3g}/FOV in the file.")
    first: np.ndarray = repeated[:, 0]
    return first


def _require_limits(played: sequence.SeqFile, scanner: Scanner) -> None:

    if played.edge != 0:
        raise LimitError(f"a gradient event starts or ends at {played.edge / scanner.gamma:.3g} T/m instead of 0.")
    gradient, slew = played.extremes(scanner.gamma, scanner.limit_norm)
    for name, value, limit, unit in (
        ("gradient", gradient, scanner.max_gradient, "T/m"),
        ("slew rate", slew, scanner.max_slew, "T/m/s"),
    ):
        if not value <= limit * (1 + WRITER_ROUNDING):
            raise LimitError(f"the file's largest {name} is {value:.6g} {unit}; the limit is {limit:g} {unit}.")


def _k_of_pypulseq(path: Path, scanner: Scanner, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return k at all ADC samples (sample, 3), 1/m, of a file with right timing and these labels of its ADC events."""
    import pypulseq as pp

    from trajdesign.pulseq.writer import parts

    fresh = pp.Sequence(parts.system(scanner))
    # pypulseq knows no rotations in a file, so it turns the blocks itself
    written = path.read_bytes()
    content, angles = without_rotations(written)
    if content is written:
        fresh.read(str(path))
    else:
        straight = path.with_name(f"{path.name}.straight")
        try:
            straight.write_bytes(content)
            fresh.read(str(straight))
        finally:
            straight.unlink(missing_ok=True)
    for place, angle in angles.items():
        block = fresh.get_block(place + 1)
        events = [event for event in (block.gx, block.gy) if event is not None]
        fresh.block_events[place + 1][2:4] = 0
        for turned in pp.rotate(*events, angle=angle, axis="z", system=fresh.system):
            column = 2 + "xy".index(turned.channel)
            fresh.block_events[place + 1][column], _ = fresh.register_grad_event(turned)
    fresh.block_cache.clear()
    timing_ok, errors = fresh.check_timing()
    if not timing_ok:
        first = errors[0]
        raise LimitError(
            f"the timing of the file is wrong in {len(errors)} place(s), first in block {first.block}: "
            f"{first.event} {first.field}, {first.error_type}, {first.value:g} s."
        )
    theirs = fresh.evaluate_labels(evolution="adc")
    for name in sorted(theirs.keys() | labels.keys()):
        if not np.array_equal(theirs.get(name, ()), labels.get(name, ())):
            raise LimitError(f"the two readers of the file differ in the label {name} of its ADC events.")
    return np.asarray(fresh.calculate_kspace()[0]).T
