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
from trajdesign.pulseq.writer.calibration import add_calibration
from trajdesign.pulseq.writer.labels import average_label, shot_labels
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
        Repetitions without ADC before the first shot.
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
    scanner, n_shots = trajectory.scanner, trajectory.acquisition.n_shots
    sequence = pp.Sequence(parts.system(scanner))
    pulse = parts.slice_pulse(
        scanner, flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, duration=rf_duration, slew=bridge_slew
    )
    waveforms = bridges.design(
        trajectory, gz_prephaser=-pulse.after, gz_rewinder=spoiler_cycles / slice_thickness, bridge_slew=bridge_slew
    )
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    wait_te, te = parts.wait("te", te, pulse.duration - pulse.centre + shots.echo, scanner.block_raster)
    shortest = pulse.duration + wait_te + shots.duration
    wait_slices, tr = parts.wait("tr", tr, n_slices * shortest, n_slices * scanner.block_raster)
    wait_tr = round(wait_slices / n_slices, 9)

    positions = [(number - (n_slices - 1) / 2) * (slice_thickness + slice_gap) for number in range(n_slices)]
    if noise_scan:
        parts.add_noise_scan(sequence, shots, segment)
    add_calibration(
        sequence, trajectory, segment, n_lines=calibration, slab=slice_thickness, rf_duration=rf_duration,
        bridge_slew=bridge_slew, positions=positions,
    )  # fmt: skip
    for repetition, phase in parts.spoiled(n_dummies, n_averages * n_shots):
        average, shot = divmod(repetition, n_shots)
        for number in parts.interleaved(n_slices):
            sequence.add_block(*pulse.turned(phase, positions[number]), *segment(shot, repetition < 0))
            parts.add_wait(sequence, wait_te)
            events = shots.gradients(shot)
            if repetition >= 0:
                labels = [*shot_labels(trajectory, shot), pp.make_label("SLC", "SET", number)]
                events = [*events, shots.sampled(phase), *labels, *average_label(average, n_averages)]
            sequence.add_block(*events)
            parts.add_wait(sequence, wait_tr)
    parts.add_definitions(
        sequence, trajectory, waveforms, te=te, tr=tr, slice_thickness=slice_thickness, slice_positions=positions
    )
    return sequence
