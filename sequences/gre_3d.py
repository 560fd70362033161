"""Spoiled 3D gradient echo: a stack of any 2D trajectory, one for each partition, or a true 3D trajectory.

As gre_2d, with a slab instead of a slice. In a stack the prephaser also encodes the partition, and the rewinder undoes
it; all shots of a partition follow each other. Where the scanner needs a label for each distinct sequence of blocks, z
has blocks of its own before and after the shot: they differ by a factor alone, so that one label serves all partitions.
"""

import math

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_calibration
from trajdesign.trajectory import Trajectory


def build(
    trajectory: Trajectory,
    *,
    flip_angle_deg: float = 10.0,
    n_partitions: int = 16,
    partition_thickness: float = 4e-3,
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
    """Return a spoiled 3D gradient echo, of a stack of 2D trajectories or a 3D one.

    Parameters
    ----------
    trajectory
        A 2D trajectory to stack, or a 3D one, whose slab is its field of view along z.
    flip_angle_deg
        Flip angle, degrees.
    n_partitions
        Partitions of a stack of 2D shots; the slab is all of them. Partition p is at
        ``k_z = (p - n_partitions // 2) / slab``. A 3D trajectory has its own.
    partition_thickness
        Thickness of one partition, m.
    te
        Time from the centre of the excitation to the sample nearest to k = 0 (over all shots), s; shortest if
        None.
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
    spoiler_cycles
        Turns of phase across a partition or voxel that the spoiler adds in each repetition.
    bridge_slew
        Part of the scanner's slew rate that prephaser, rewinder and slab selection may use.
    rf_duration
        Duration of the sinc pulse, s.

    Raises
    ------
    ConfigError
        If a number makes no sense, or TE or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    parts.require_plausible(
        longest_tr=1.0,
        flip_angle_deg=flip_angle_deg, n_partitions=n_partitions, partition_thickness=partition_thickness, te=te, tr=tr,
        n_averages=n_averages, n_dummies=n_dummies, spoiler_cycles=spoiler_cycles, bridge_slew=bridge_slew,
        rf_duration=rf_duration,
    )  # fmt: skip
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    if acquisition.n_dims == 3:
        n_partitions, partition_thickness, slab = 1, acquisition.voxel[2], acquisition.fov[2]
    else:
        slab = n_partitions * partition_thickness
    sequence = pp.Sequence(parts.system(scanner))
    pulse = parts.slice_pulse(
        scanner, flip_angle_deg=flip_angle_deg, slice_thickness=slab, duration=rf_duration, slew=bridge_slew
    )
    is_apart = scanner.label_segments and n_partitions > 1
    # designed for the partition that needs most, and scaled for the others, so that all have the same timing in plane
    encoding = [(partition - n_partitions // 2) / slab for partition in range(n_partitions)]
    spoiler = spoiler_cycles / partition_thickness
    before, after = encoding[0] - pulse.after, spoiler - encoding[0]
    ends = (0.0, 0.0) if is_apart else (before, after)
    most = bridges.design(trajectory, gz_prephaser=ends[0], gz_rewinder=ends[1], bridge_slew=bridge_slew)
    encode, rewind = (
        pp.make_trapezoid("z", area=area, max_slew=bridge_slew * sequence.system.max_slew, system=sequence.system)
        for area in (before, after)
    )
    time_encode, time_rewind = (
        parts.ceil(pp.calc_duration(event), scanner.block_raster) if is_apart else 0.0 for event in (encode, rewind)
    )
    shots, segment = parts.Shots(sequence, trajectory, most), parts.Segments(scanner)
    to_echo = pulse.duration - pulse.centre + time_encode + shots.echo
    wait_te, te = parts.wait("te", te, to_echo, scanner.block_raster)
    played = pulse.duration + wait_te + time_encode + shots.duration + time_rewind
    wait_tr, tr = parts.wait("tr", tr, played, scanner.block_raster)

    if noise_scan:
        parts.add_noise_scan(sequence, shots, segment)
    add_calibration(
        sequence, trajectory, segment, n_lines=calibration, slab=slab, rf_duration=rf_duration,
        bridge_slew=bridge_slew, n_partitions=calibration if acquisition.n_dims == 3 else n_partitions,
    )  # fmt: skip
    phase_deg = 0.0
    for count in range(n_dummies + n_averages * n_partitions * acquisition.n_shots):
        phase_deg = (phase_deg + count * parts.RF_SPOILING_DEG) % 360
        phase, is_dummy = math.radians(phase_deg), count < n_dummies
        number, shot = divmod(max(count - n_dummies, 0), acquisition.n_shots)
        average, partition = divmod(number, n_partitions)
        scales = (encoding[partition] - pulse.after) / before, (spoiler - encoding[partition]) / after
        sequence.add_block(*pulse.turned(phase), *segment(shot, None if is_apart else partition, is_dummy))
        parts.add_wait(sequence, wait_te)
        if is_apart:
            sequence.add_block(pp.scale_grad(encode, scales[0]), pp.make_delay(time_encode))
        events = shots.gradients(shot, *([] if is_apart else scales))
        if not is_dummy:
            labels = [pp.make_label("LIN", "SET", shot), pp.make_label("PAR", "SET", partition)]
            events = [*events, shots.sampled(phase), *labels, *parts.average_label(average, n_averages)]
        sequence.add_block(*events)
        if is_apart:
            sequence.add_block(pp.scale_grad(rewind, scales[1]), pp.make_delay(time_rewind))
        parts.add_wait(sequence, wait_tr)
    parts.add_definitions(sequence, trajectory, most, te=te, tr=tr, slice_thickness=slab)
    return sequence
