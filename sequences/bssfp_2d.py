"""Balanced steady-state free precession in 2D on any trajectory: every gradient moment of a repetition is 0.

The pulse's phase alternates by 180 degrees, and so does the receiver's. A pulse of half the flip angle, half of TR
before the first one, starts the steady state smoothly (Deimling and Heid, 1994; Scheffler and Hennig, 2003,
doi:10.1007/s00330-003-1957-x).
"""

import math

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_prescans
from trajdesign.pulseq.writer.labels import shot_labels
from trajdesign.pulseq.writer.lobes import lobe
from trajdesign.pulseq.writer.repetitions import repetitions
from trajdesign.trajectory import Trajectory


def build(
    trajectory: Trajectory,
    *,
    flip_angle_deg: float = 40.0,
    slice_thickness: float = 5e-3,
    tr: float | None = None,
    n_averages: int = 1,
    n_dummies: int = 64,
    n_beats: int = 0,
    rr: float | None = None,
    noise_scan: bool = False,
    calibration: int = 0,
    bridge_slew: float = 0.7,
    rf_duration: float = 1e-3,
) -> pp.Sequence:
    """Return a balanced 2D steady-state free precession sequence.

    Parameters
    ----------
    trajectory
        A 2D trajectory. Static dephasing is refocused at the middle of TR, where its centre of k-space should be.
    flip_angle_deg
        Flip angle, degrees.
    slice_thickness
        Thickness of the slice, m.
    tr
        Repetition time, s; shortest if None.
    n_averages
        How often all shots are played, one time after the other (label ``AVG``).
    n_dummies
        Repetitions without ADC before the first shot, and before each heartbeat that is waited for.
    n_beats
        Of a film the heartbeats that share the shots of each frame: every beat plays its part of all frames in order;
        0 plays frame after frame.
    rr
        Shortest time between heartbeats, s: with it each is waited for (input ``physio1``), the steady state is started
        anew, and one that would play longer is refused.
    noise_scan
        Whether the receiver's noise is sampled first.
    calibration
        Lines of a short, fully sampled, low-resolution scan of the same for coil maps (label ``REF``), played before
        the dummies: an even number from 8 on, or 0 for none.
    bridge_slew
        Part of the scanner's slew rate that prephaser, rewinder and slice selection may use.
    rf_duration
        Duration of the sinc pulse, s.

    Raises
    ------
    ConfigError
        If the trajectory is not 2D, a number makes no sense, or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    parts.require_dims("bssfp_2d", trajectory, 2)
    parts.require_plausible(
        longest_tr=0.2,
        flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, tr=tr, n_averages=n_averages,
        n_dummies=n_dummies, bridge_slew=bridge_slew, rf_duration=rf_duration,
    )  # fmt: skip
    scanner, raster = trajectory.scanner, trajectory.scanner.block_raster
    sequence = pp.Sequence(parts.system(scanner))
    first, pulse = (
        parts.slice_pulse(
            scanner, flip_angle_deg=angle, slice_thickness=slice_thickness, duration=rf_duration, slew=bridge_slew
        )
        for angle in (flip_angle_deg / 2, flip_angle_deg)
    )
    waveforms = bridges.design(
        trajectory, gz_prephaser=-pulse.after, gz_rewinder=-pulse.before, bridge_slew=bridge_slew
    )
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    balance = lobe(scanner, -pulse.after - pulse.before, bridge_slew)
    half = parts.ceil(first.duration + balance.duration, raster)
    _, tr = parts.wait("tr", tr, max(pulse.duration + shots.duration, 2 * half), raster)
    echo = pulse.duration - pulse.centre + shots.echo
    add_prescans(
        sequence, trajectory, shots, segment, noise_scan=noise_scan, calibration=calibration, slab=slice_thickness,
        rf_duration=rf_duration, bridge_slew=bridge_slew,
    )  # fmt: skip
    order = repetitions(trajectory.acquisition, tr, n_dummies, n_averages, n_beats, rr)
    for number, repetition in enumerate(order):
        phase = math.pi * (number % 2)
        if repetition.is_triggered:
            parts.add_trigger(sequence, segment)
        if repetition.is_first:
            sequence.add_block(*first.turned(phase + math.pi), *segment("start"))
            sequence.add_block(balance.gz, pp.make_delay(parts.ceil(tr / 2 - first.duration, raster)))
        sequence.add_block(*pulse.turned(phase), *segment(repetition.shot, repetition.is_dummy))
        events = shots.gradients(repetition.shot)
        if not repetition.is_dummy:
            labels = shot_labels(trajectory, repetition.shot, repetition.average, n_averages)
            events = [*events, shots.sampled(phase), *labels]
        sequence.add_block(*events)
        parts.add_wait(sequence, round(tr - pulse.duration - shots.duration, 9))
    parts.add_definitions(
        sequence, trajectory, waveforms, te=echo, tr=tr, slice_thickness=slice_thickness, slice_positions=[0.0]
    )
    return sequence
