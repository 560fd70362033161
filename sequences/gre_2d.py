"""Spoiled 2D gradient echo on any trajectory: slice excitation, prephaser, readout, rewinder and spoiler.

Each repetition is an excitation block, an optional wait for TE, ONE gradient block that holds the whole shot
on all axes, and an optional wait for TR. Every gradient event starts and ends at 0, every shot has the same
timing, and the one ADC event differs between shots in its phase only. Slices are interleaved within TR, every
second one first. An echo-planar trajectory makes it an EPI sequence.

Copy this file to make a sequence of your own: any file with a function `build` like the one below can be
named as the exporter's `sequence`.
"""

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_prescans
from trajdesign.pulseq.writer.labels import shot_labels
from trajdesign.pulseq.writer.repetitions import repetitions, spoiling
from trajdesign.trajectory import Trajectory


def build(
    trajectory: Trajectory,
    *,
    flip_angle_deg: float = 15.0,
    slice_thickness: float = 5e-3,
    n_slices: int = 1,
    slice_gap: float = 0.0,
    te: float | None = None,
    tr: float | None = None,
    n_averages: int = 1,
    n_dummies: int = 16,
    n_beats: int = 0,
    rr: float | None = None,
    noise_scan: bool = False,
    calibration: int = 0,
    spoiler_cycles: float = 2.0,
    bridge_slew: float = 0.7,
    rf_duration: float = 2e-3,
) -> pp.Sequence:
    """Return a spoiled 2D gradient echo, of several slices if wanted.

    Parameters
    ----------
    trajectory
        A 2D trajectory.
    flip_angle_deg
        Flip angle, degrees.
    slice_thickness
        Thickness of a slice, m.
    n_slices
        Number of slices, centred about the isocentre.
    slice_gap
        From the end of a slice to the start of the next, m.
    te
        Time from the centre of the excitation to the sample nearest to k = 0 (over all shots), s; shortest if
        None.
    tr
        Repetition time, in which every slice is excited once, s; shortest if None.
    n_averages
        How often all shots are played, one time after the other (label ``AVG``).
    n_dummies
        Repetitions without ADC before the first shot, and before each heartbeat that is waited for.
    n_beats
        Of a film the heartbeats that share the shots of each frame: every beat plays its part of all frames in order;
        0 plays frame after frame.
    rr
        Shortest time between heartbeats, s: with it each is waited for (input ``physio1``), and one that would play
        longer is refused.
    noise_scan
        Whether the receiver's noise is sampled first.
    calibration
        Lines of a short, fully sampled, low-resolution scan of the same for coil maps (label ``REF``), played before
        the dummies: an even number from 8 on, or 0 for none.
    spoiler_cycles
        Turns of phase across the slice that the spoiler adds in each repetition.
    bridge_slew
        Part of the scanner's slew rate that prephaser, rewinder and slice selection may use.
    rf_duration
        Duration of the sinc pulse, s.

    Raises
    ------
    ConfigError
        If the trajectory is not 2D, a number makes no sense, or TE or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    parts.require_dims("gre_2d", trajectory, 2)
    parts.require_plausible(
        longest_tr=max(4.0, 0.1 * n_slices),  # no T1 of tissue gains by more, unless many slices fill it
        flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, slice_gap=slice_gap, n_slices=n_slices, te=te,
        tr=tr, n_averages=n_averages, n_dummies=n_dummies, spoiler_cycles=spoiler_cycles, bridge_slew=bridge_slew,
        rf_duration=rf_duration,
    )  # fmt: skip
    scanner = trajectory.scanner
    sequence = pp.Sequence(parts.system(scanner))
    pulse = parts.slice_pulse(
        scanner, flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, duration=rf_duration, slew=bridge_slew
    )
    waveforms = bridges.design(
        trajectory, gz_prephaser=-pulse.after, gz_rewinder=spoiler_cycles / slice_thickness, bridge_slew=bridge_slew
    )
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    wait_te, te = parts.wait("te", te, pulse.duration - pulse.centre + shots.echo, scanner.block_raster)
    wait_tr, tr = parts.wait("tr", tr, pulse.duration + wait_te + shots.duration, scanner.block_raster, n_slices)
    positions = [(number - (n_slices - 1) / 2) * (slice_thickness + slice_gap) for number in range(n_slices)]
    add_prescans(
        sequence, trajectory, shots, segment, noise_scan=noise_scan, calibration=calibration, slab=slice_thickness,
        rf_duration=rf_duration, bridge_slew=bridge_slew, positions=positions,
    )  # fmt: skip
    order = repetitions(trajectory.acquisition, tr, n_dummies, n_averages, n_beats, rr)
    for repetition, phase in zip(order, spoiling(), strict=False):  # the phases have no end
        if repetition.is_triggered:
            parts.add_trigger(sequence, segment)
        for number in parts.interleaved(n_slices):
            sequence.add_block(*pulse.turned(phase, positions[number]), *segment(repetition.shot, repetition.is_dummy))
            parts.add_wait(sequence, wait_te)
            events = shots.gradients(repetition.shot)
            if not repetition.is_dummy:
                labels = shot_labels(trajectory, repetition.shot, repetition.average, n_averages, SLC=number)
                events = [*events, shots.sampled(phase), *labels]
            sequence.add_block(*events)
            parts.add_wait(sequence, wait_tr)
    parts.add_definitions(
        sequence, trajectory, waveforms, te=te, tr=tr, slice_thickness=slice_thickness, slice_positions=positions
    )
    return sequence
