"""What sequence templates are made of, in pypulseq's terms: pulses, events of a shot, waits, labels, definitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pypulseq as pp

from trajdesign.encoding import echo
from trajdesign.errors import ConfigError, LimitError
from trajdesign.pulseq import adc
from trajdesign.pulseq.writer.bridges import ShotWaveforms
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory
from trajdesign.units import RASTER_ROUNDING, WRITER_ROUNDING, plausible

#: How long the block lasts that waits for a heartbeat, once it has come, s: as in Pulseq's demonstrations.
TRIGGER = 2e-3

_TIME_BANDWIDTH = 4.0


def system(scanner: Scanner) -> pp.Opts:
    """Return pypulseq's system limits of a scanner, for writing and for reading.

    The limits are a millionth higher: pypulseq compares rounded numbers, and a waveform may be at a limit.
    """
    return pp.Opts(
        max_grad=scanner.gamma * scanner.max_gradient * (1 + WRITER_ROUNDING),
        max_slew=scanner.gamma * scanner.max_slew * (1 + WRITER_ROUNDING),
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


@dataclass(frozen=True)
class Pulse:
    """A pulse and the gradient beside it."""

    rf: SimpleNamespace
    """The pulse's event."""
    gz: SimpleNamespace | None
    """The event of the gradient that selects its slice; None for a pulse that excites everything."""
    centre: float
    """Centre of the pulse after the start of its block, s."""
    duration: float
    """Duration of the block, a multiple of the block raster, s."""
    before: float = 0.0
    after: float = 0.0
    """Moment of the gradient before and after the centre, 1/m."""

    def turned(self, phase: float, offset: float = 0.0, sign: float = 1.0) -> list[SimpleNamespace]:
        """Return the events of the block with the pulse at a phase, rad, on a slice at an offset, m.

        With ``sign = -1`` the slice is selected by the opposite gradient.
        """
        gradient = 0.0 if self.gz is None else sign * self.gz.amplitude
        frequency = gradient * offset
        rf = SimpleNamespace(**vars(self.rf))
        rf.freq_offset = frequency
        # the frequency's own phase at the centre is taken off, so that all slices are excited at the same phase
        rf.phase_offset = (phase - 2 * math.pi * frequency * rf.center) % (2 * math.pi)
        wait = pp.make_delay(self.duration)
        return [rf, wait] if self.gz is None else [rf, pp.scale_grad(self.gz, sign), wait]


def slice_pulse(
    scanner: Scanner,
    *,
    flip_angle_deg: float,
    slice_thickness: float,
    duration: float,
    slew: float = 1.0,
    use: Literal["excitation", "refocusing"] = "excitation",
    shape: Literal["sinc", "half"] = "sinc",
    late: float = 0.0,
) -> Pulse:
    """Return a Hann-windowed sinc pulse of time-bandwidth product 4 and its slice gradient, or the first half of one.

    It raises a `ConfigError` if a number makes no sense, and a `LimitError` if the slice needs more gradient than the
    scanner has.

    Parameters
    ----------
    scanner, flip_angle_deg, slice_thickness, duration
        Limits and rasters; degrees, m and s. The duration of the pulse is rounded up to the rasters.
    slew
        Part of the slew rate that the gradient's ramps may use.
    use
        What the pulse is for.
    shape
        ``"half"`` ends at the sinc's peak, for two excitations with opposite gradients that are added
        (Pauly et al., 1989; Robson et al., 2003, doi:10.1097/00004728-200311000-00001).
    late
        By how much later than it could the pulse begins, on a slice gradient that lasts as much longer, s; a multiple
        of the RF raster.
    """
    require_plausible(slab=slice_thickness, rf_duration=duration)
    if use == "excitation":
        require_plausible(flip_angle_deg=flip_angle_deg)
    limits = system(scanner)
    played = _multiple(duration, 2 * limits.rf_raster_time, limits.grad_raster_time)
    length = played if shape == "sinc" else 2 * played  # of the whole sinc, s
    bandwidth = _TIME_BANDWIDTH / length
    t = (np.arange(round(played / limits.rf_raster_time)) + 0.5) * limits.rf_raster_time - length / 2
    wanted, most = bandwidth / slice_thickness / scanner.gamma, scanner.max_gradient
    if wanted > most:
        raise LimitError(
            f"a slice of {slice_thickness:g} m needs {wanted:.4g} T/m during a pulse of {played:g} s; the limit is "
            f"{most:g} T/m. Make the slice thicker, or rf_duration at least {played * wanted / most:.2g} s."
        )
    rf, gz = pp.make_arbitrary_rf(
        np.sinc(bandwidth * t) * np.cos(np.pi * t / length) ** 2,
        math.radians(flip_angle_deg),
        bandwidth=bandwidth,
        delay=limits.rf_dead_time,
        max_slew=slew * limits.max_slew,
        slice_thickness=slice_thickness,
        return_gz=True,
        use=use,
        system=limits,
    )
    if late:
        rf.delay += late
        gz = pp.make_trapezoid(
            "z",
            amplitude=gz.amplitude,
            rise_time=gz.rise_time,
            flat_time=gz.flat_time + ceil(late, limits.grad_raster_time),
            fall_time=gz.fall_time,
            delay=gz.delay,
            system=limits,
        )
    centre = rf.delay + rf.center
    flat_start = gz.delay + gz.rise_time
    return Pulse(
        rf,
        gz,
        centre,
        ceil(pp.calc_duration(rf, gz), scanner.block_raster),
        before=gz.amplitude * (centre - flat_start + gz.rise_time / 2),
        after=gz.amplitude * (flat_start + gz.flat_time - centre + gz.fall_time / 2),
    )


def hard_pulse(scanner: Scanner, *, flip_angle_deg: float, duration: float) -> Pulse:
    """Return a short rectangular pulse that excites everything."""
    require_plausible(flip_angle_deg=flip_angle_deg, rf_duration=duration)
    limits = system(scanner)
    rf = pp.make_block_pulse(
        flip_angle=math.radians(flip_angle_deg),
        delay=limits.rf_dead_time,
        duration=_multiple(duration, 2 * limits.rf_raster_time),
        use="excitation",
        system=limits,
    )
    return Pulse(rf, None, rf.delay + rf.center, ceil(pp.calc_duration(rf), scanner.block_raster))


class Shots:
    """The blocks of a trajectory's shots: one gradient event an axis, from zero to zero, and the ADC event."""

    def __init__(self, sequence: pp.Sequence, trajectory: Trajectory, waveforms: ShotWaveforms) -> None:
        self._sequence = sequence
        self._trajectory = trajectory
        self._waveforms = waveforms
        self._events: dict[tuple[int, float, float], list[SimpleNamespace]] = {}
        acquisition = trajectory.acquisition
        self.adc = pp.make_adc(
            acquisition.n_samples,
            dwell=acquisition.dwell,
            delay=round(waveforms.adc_start, 9),
            system=sequence.system,
        )
        self.duration = waveforms.duration
        #: From the start of the block to the sample nearest to k = 0 over all shots, or where all pass it exactly, s.
        self.echo = waveforms.adc_start + (_centre(trajectory) + 0.5) * acquisition.dwell

    def gradients(self, shot: int, prephaser: float = 1.0, rewinder: float = 1.0) -> list[SimpleNamespace]:
        """Return the gradient events of a shot, z scaled before the readout and after it."""
        key = (shot, prephaser, rewinder)
        if key not in self._events:
            parts, scanner = self._waveforms, self._trajectory.scanner
            samples = scanner.gamma * parts.gradient[shot]
            if (prephaser, rewinder) != (1.0, 1.0):
                samples[: parts.n_prephaser, 2] *= prephaser
                samples[-parts.n_rewinder :, 2] *= rewinder
            self._events[key] = [
                gradient_event(self._sequence, channel, samples[:, axis])
                for axis, channel in enumerate("xyz")
                if np.any(samples[:, axis])
            ]
        return self._events[key]

    def sampled(self, phase: float) -> SimpleNamespace:
        """Return the ADC event with the receiver at a phase, rad."""
        adc = SimpleNamespace(**vars(self.adc))
        adc.phase_offset = phase % (2 * math.pi)
        return adc


def _centre(trajectory: Trajectory) -> float:
    """Return which sample is nearest to k = 0 over all shots; between samples, if all pass it there exactly."""
    sample = int(trajectory.k_adc.detach().square().sum(dim=(0, 2)).argmin())
    first, dwell = float(trajectory.adc_times[0]), trajectory.acquisition.dwell
    exact = [(p.time - first) / dwell for p in echo.passages(trajectory) if p.distance <= echo.EXACT]
    nearest = min(exact, key=lambda place: abs(place - sample), default=float(sample))
    return sample if abs(nearest - sample) < RASTER_ROUNDING else nearest


class Segments:
    """Labels ``TRID``: one for each distinct sequence of blocks, where the scanner needs them."""

    def __init__(self, scanner: Scanner) -> None:
        self._needed = scanner.label_segments
        self._known: dict[object, int] = {}

    def __call__(self, *what: object) -> list[SimpleNamespace]:
        """Return the label events that begin the blocks of `what`, none where they are not needed."""
        if not self._needed:
            return []
        return [pp.make_label("TRID", "SET", self._known.setdefault(what, len(self._known) + 1))]


def gradient_event(sequence: pp.Sequence, channel: str, samples: np.ndarray) -> SimpleNamespace:
    """Return an arbitrary gradient event that the file stores to nine digits.

    A file keeps six digits of an event's amplitude, which would scale the whole curve by up to 5e-6, and
    run-length coding keeps a shape to 1e-7. Both are avoided by registering the event with an amplitude that
    six digits hold, rounded up, and its uncompressed shape relative to that.

    The samples at the raster centres (cell,), Hz/m, are not all 0, but 0 at both ends; the channel is x, y or z.
    """
    event = pp.make_arbitrary_grad(channel, samples, first=0.0, last=0.0, system=sequence.system)
    peak = float(np.abs(samples).max())
    unit = 10.0 ** (math.floor(math.log10(peak)) - 5)
    amplitude = float(f"{math.ceil(peak / unit) * unit:.5e}")
    shape_id, _ = sequence.shape_library.find_or_insert(np.concatenate([[len(samples)], samples / amplitude]))
    event.id, _ = sequence.grad_library.find_or_insert((amplitude, 0.0, 0.0, shape_id, 0, 0.0), "g")
    return event


def add_trigger(sequence: pp.Sequence, segment: Segments) -> None:
    """Wait for a heartbeat: the input that Siemens calls ``physio1``."""
    trigger = pp.make_trigger("physio1", duration=TRIGGER, system=sequence.system)
    sequence.add_block(trigger, pp.make_delay(TRIGGER), *segment("trigger"))


def interleaved(n_slices: int) -> list[int]:
    """Return the order in which slices are excited: every second one first."""
    return [*range(0, n_slices, 2), *range(1, n_slices, 2)]


def add_wait(sequence: pp.Sequence, duration: float) -> None:
    """Wait, unless for no time."""
    if duration:
        sequence.add_block(pp.make_delay(duration))


def add_definitions(
    sequence: pp.Sequence,
    trajectory: Trajectory,
    shots: ShotWaveforms,
    *,
    te: float,
    tr: float,
    slice_thickness: float,
    slice_positions: Sequence[float] = (),
) -> None:
    """Write the definitions that interpreters and the exporter look for.

    Parameters
    ----------
    sequence, trajectory, shots, te, tr
        What is played; echo and repetition time, s.
    slice_thickness
        Thickness of a slice, or of the slab that all partitions make, m.
    slice_positions
        Centres of the slices along z in the order of the label ``SLC``, m; none for a slab. With them the field of view
        along z is what they cover, as interpreters that show and shift the slices take it.
    """
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    segment = _longest_piece(sequence, adc.segment(acquisition.n_samples, acquisition.dwell, scanner.gradient_raster))
    positions = [round(position, 9) for position in slice_positions]
    stack = slice_thickness + (max(positions) - min(positions) if positions else 0.0)
    definitions: dict[str, str | float | list[float]] = {
        "Name": plain_text(trajectory.name),
        "FOV": [*acquisition.fov, stack][:3],
        "TE": te,
        "TR": tr,
        "MaxAdcSegmentLength": segment,
        "PrephaserCells": shots.n_prephaser,
        "ReadoutCells": shots.n_readout,
        "RewinderCells": shots.n_rewinder,
    }
    if positions:
        apart = positions[1] - positions[0] if len(positions) > 1 else slice_thickness
        definitions |= {
            "SlicePositions": positions,
            "SliceThickness": slice_thickness,
            "SliceGap": round(apart - slice_thickness, 9),
        }
    for name, value in definitions.items():
        sequence.set_definition(name, value)


def _longest_piece(sequence: pp.Sequence, piece: int) -> int:
    """Return the length of ADC pieces that splits no event but those too long for one, which `piece` splits."""
    counts = [int(event[0]) for event in sequence.adc_library.data.values()]
    whole = max((n for n in counts if n <= adc.LONGEST), default=0)
    if whole > piece and max(counts) > adc.LONGEST:
        raise ConfigError(
            f"interpreters would split the {whole} ADC samples of the calibration, as those of a shot, into pieces of "
            f"{piece}; set another acquisition.n_samples, or no calibration."
        )
    return max(whole, piece)


def plain_text(text: str) -> str:
    """Return `text` as one short word of printable ASCII, so that it cannot become another line of a file."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-+") else "_" for c in text)
    return kept[:64] or "trajectory"


def require_dims(name: str, trajectory: Trajectory, *n_dims: int) -> None:
    """Refuse a trajectory that has not one of the numbers of axes by a `ConfigError`."""
    if trajectory.acquisition.n_dims not in n_dims:
        wanted = " and ".join(f"{n}D" for n in n_dims)
        raise ConfigError(f"{name} plays {wanted} trajectories; {trajectory.name} is {trajectory.acquisition.n_dims}D.")


def require_start_at_centre(name: str, trajectory: Trajectory) -> None:
    """Refuse shots that do not run from the centre of k-space outwards, by a `ConfigError`."""
    away = float(trajectory.k_adc[:, 0].detach().norm(dim=-1).max()) * max(trajectory.acquisition.fov)
    if away > 1:
        raise ConfigError(f"{name} plays shots from the centre out; {trajectory.name} starts {away:.3g}/FOV away.")


def require_plausible(longest_tr: float = math.inf, **options: float | None) -> None:
    """Refuse options of a sequence that are implausible in their unit, before they make a strange one.

    `trajdesign.units.plausible` knows the options by name; None stands for one that is not given, and `longest_tr`, s,
    is of a sequence that repeats faster than others.
    """
    for name, value in options.items():
        if value is not None:
            plausible(name, value, longest_tr if name == "tr" else math.inf)


def wait(name: str, wanted: float | None, shortest: float, raster: float, n: int = 1) -> tuple[float, float]:
    """Return the delay on the block raster that makes n times `shortest` into `wanted`, and the resulting time, s.

    The delay is that of each of the n. It raises a `ConfigError` if `wanted` is shorter than possible; the sentence
    says what is.
    """
    shortest, raster = n * shortest, n * raster
    if wanted is None:
        return 0.0, shortest
    if not wanted >= shortest - 1e-9:
        raise ConfigError(f"{name} is {wanted:g} s; the shortest possible is {shortest:.6f} s.")
    delay = round(round((wanted - shortest) / raster) * raster, 9)
    return round(delay / n, 9), shortest + delay


def ceil(duration: float, raster: float) -> float:
    """Round up to a multiple of a raster, s."""
    return round(math.ceil(duration / raster - RASTER_ROUNDING) * raster, 9)


def _multiple(duration: float, *rasters: float) -> float:
    """Round up to a common multiple of rasters, s."""
    step = math.lcm(*(round(raster * 1e9) for raster in rasters)) * 1e-9
    return ceil(duration, step)
