"""Spoiled 3D gradient echo: a stack of any 2D trajectory, one for each partition, or a true 3D trajectory.

As gre_2d, with a slab instead of a slice. In a stack the prephaser also encodes the partition, and the rewinder undoes
it; all shots of a partition follow each other. Where the scanner needs a label for each distinct sequence of blocks, z
has blocks of its own before and after the shot: they differ by a factor alone, so that one label serves all partitions.
"""

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_prescans
from trajdesign.pulseq.writer.labels import shot_labels
from trajdesign.pulseq.writer.lobes import SlabEncoding
from trajdesign.pulseq.writer.repetitions import spoiled
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
    scanner, acquisition, raster = trajectory.scanner, trajectory.acquisition, trajectory.scanner.block_raster
    slab = n_partitions * partition_thickness
    if acquisition.n_dims == 3:
        n_partitions, partition_thickness, slab = 1, acquisition.voxel[2], acquisition.fov[2]
    sequence = pp.Sequence(parts.system(scanner))
    pulse = parts.slice_pulse(
        scanner, flip_angle_deg=flip_angle_deg, slice_thickness=slab, duration=rf_duration, slew=bridge_slew
    )
    encoding = SlabEncoding(scanner, pulse, slab, n_partitions, spoiler_cycles / partition_thickness, bridge_slew)
    waveforms = bridges.design(
        trajectory, gz_prephaser=encoding.prephaser, gz_rewinder=encoding.rewinder, bridge_slew=bridge_slew
    )
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    wait_te, te = parts.wait("te", te, pulse.duration - pulse.centre + encoding.before + shots.echo, raster)
    played = pulse.duration + wait_te + encoding.before + shots.duration + encoding.after
    wait_tr, tr = parts.wait("tr", tr, played, raster)

    add_prescans(
        sequence, trajectory, shots, segment, noise_scan=noise_scan, calibration=calibration, slab=slab,
        rf_duration=rf_duration, bridge_slew=bridge_slew,
        n_partitions=calibration if acquisition.n_dims == 3 else n_partitions,
    )  # fmt: skip
    for repetition, phase in spoiled(n_dummies, n_averages * n_partitions * acquisition.n_shots):
        number, shot = divmod(max(repetition, 0), acquisition.n_shots)
        average, partition = divmod(number, n_partitions)
        sequence.add_block(*pulse.turned(phase), *segment(shot, repetition < 0))
        parts.add_wait(sequence, wait_te)
        encoding.add_encoding(sequence, partition)
        events = shots.gradients(shot, *encoding.scales(partition))
        if repetition >= 0:
            labels = shot_labels(trajectory, shot, average, n_averages, PAR=partition)
            events = [*events, shots.sampled(phase), *labels]
        sequence.add_block(*events)
        encoding.add_rewinding(sequence, partition)
        parts.add_wait(sequence, wait_tr)
    parts.add_definitions(sequence, trajectory, waveforms, te=te, tr=tr, slice_thickness=slab)
    return sequence
