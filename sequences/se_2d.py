"""2D spin echo on any trajectory: 90 degrees, 180 degrees between crushers, and the whole shot after that.

The spin echo forms at the sample nearest to k = 0, or when all shots pass it between two. For that the excitation
begins a little late in its block: blocks begin on the block raster, pulses anywhere on the finer RF raster, so that the
echo is off by half of that at most.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_prescans
from trajdesign.pulseq.writer.labels import shot_labels
from trajdesign.pulseq.writer.lobes import Lobe, lobe
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory


def build(
    trajectory: Trajectory,
    *,
    slice_thickness: float = 5e-3,
    te: float | None = None,
    tr: float | None = None,
    n_averages: int = 1,
    n_dummies: int = 0,
    noise_scan: bool = False,
    calibration: int = 0,
    crusher_cycles: float = 4.0,
    spoiler_cycles: float = 4.0,
    bridge_slew: float = 0.7,
    rf_duration: float = 2e-3,
) -> pp.Sequence:
    """Return a 2D spin echo.

    Parameters
    ----------
    trajectory
        A 2D trajectory.
    slice_thickness
        Thickness of the slice, m.
    te
        Echo time, s: that of the spin echo, and of the sample nearest to k = 0; shortest if None.
    tr
        Repetition time, s; shortest if None.
    n_averages
        How often all shots are played, one time after the other (label ``AVG``).
    n_dummies
        Repetitions without ADC before the first shot.
    noise_scan
        Whether the receiver's noise is sampled first.
    calibration
        Lines of a short, fully sampled, low-resolution scan of the same for coil maps (label ``REF``), played before
        the dummies: an even number from 8 on, or 0 for none.
    crusher_cycles
        Turns of phase across the slice by each of the crushers beside the refocusing pulse.
    spoiler_cycles
        Turns of phase across the slice that the spoiler adds after the readout.
    bridge_slew
        Part of the scanner's slew rate that all but the readout may use.
    rf_duration
        Duration of each sinc pulse, s.

    Raises
    ------
    ConfigError
        If the trajectory is not 2D, a number makes no sense, or TE or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    parts.require_dims("se_2d", trajectory, 2)
    parts.require_plausible(
        slice_thickness=slice_thickness, te=te, tr=tr, n_averages=n_averages, n_dummies=n_dummies,
        crusher_cycles=crusher_cycles, spoiler_cycles=spoiler_cycles, bridge_slew=bridge_slew, rf_duration=rf_duration,
    )  # fmt: skip
    scanner, n_shots, raster = trajectory.scanner, trajectory.acquisition.n_shots, trajectory.scanner.block_raster
    sequence = pp.Sequence(parts.system(scanner))
    sinc = partial(parts.slice_pulse, scanner, slice_thickness=slice_thickness, duration=rf_duration, slew=bridge_slew)
    refocusing = sinc(flip_angle_deg=180, use="refocusing")
    crusher = crusher_cycles / slice_thickness
    waveforms = bridges.design(
        trajectory, gz_prephaser=crusher, gz_rewinder=spoiler_cycles / slice_thickness, bridge_slew=bridge_slew
    )
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    to_echo = refocusing.duration - refocusing.centre + shots.echo
    start = _start(scanner, partial(sinc, flip_angle_deg=90), refocusing, crusher, bridge_slew, to_echo)
    te, wait_pulse, wait_echo = _echo_time(te, start.to_pulse, to_echo, raster)
    crushing = start.crusher.duration + wait_pulse
    played = start.excitation.duration + crushing + refocusing.duration + wait_echo + shots.duration
    wait_tr, tr = parts.wait("tr", tr, played, raster)

    add_prescans(
        sequence, trajectory, shots, segment, noise_scan=noise_scan, calibration=calibration, slab=slice_thickness,
        rf_duration=rf_duration, bridge_slew=bridge_slew,
    )  # fmt: skip
    for repetition in range(-n_dummies, n_averages * n_shots):  # below 0 are dummies
        average, shot = divmod(repetition, n_shots)
        sequence.add_block(*start.excitation.turned(0.0), *segment(shot, repetition < 0))
        sequence.add_block(start.crusher.gz, pp.make_delay(crushing))
        sequence.add_block(*refocusing.turned(math.pi / 2))
        parts.add_wait(sequence, wait_echo)
        events = shots.gradients(shot)
        if repetition >= 0:
            labels = shot_labels(trajectory, shot, average, n_averages)
            events = [*events, shots.sampled(0.0), *labels]
        sequence.add_block(*events)
        parts.add_wait(sequence, wait_tr)
    parts.add_definitions(
        sequence, trajectory, waveforms, te=te, tr=tr, slice_thickness=slice_thickness, slice_positions=[0.0]
    )
    return sequence


class _Start(NamedTuple):
    """What is played before the refocusing pulse."""

    excitation: parts.Pulse
    crusher: Lobe
    to_pulse: float
    """Time from the centre of the excitation to that of the refocusing pulse, if nothing waits, s."""


def _start(
    scanner: Scanner,
    excite: Callable[..., parts.Pulse],
    refocusing: parts.Pulse,
    crusher: float,
    slew: float,
    to_echo: float,
) -> _Start:
    """Return the start with the excitation so late that the spin echo forms at its sample.

    The refocusing pulse has the moment `crusher`, 1/m, on both sides, and the sample is `to_echo` after its centre, s.
    """

    def start(late: float) -> _Start:
        excitation = excite(late=late)
        # the refocusing pulse turns the first crusher against the second, which is part of the prephaser
        first = lobe(scanner, crusher - excitation.after, slew)
        to_pulse = excitation.duration - excitation.centre + first.duration + refocusing.centre
        return _Start(excitation, first, to_pulse)

    steps = round((start(0.0).to_pulse - to_echo) / scanner.rf_raster)
    return start(steps % max(1, round(scanner.block_raster / scanner.rf_raster)) * scanner.rf_raster)


def _echo_time(te: float | None, to_pulse: float, to_echo: float, raster: float) -> tuple[float, float, float]:
    """Return the echo time, and the waits before and after the refocusing pulse that make it, s.

    Without waits the refocusing pulse is `to_pulse` after the excitation, and the echo is sampled `to_echo` after that.
    """
    shortest = 2 * (to_pulse + max(0.0, round((to_echo - to_pulse) / raster) * raster))
    _, te = parts.wait("te", te, shortest, 2 * raster)
    return te, round(te / 2 - to_pulse, 9), round(round((te / 2 - to_echo) / raster) * raster, 9)
