"""Ultrashort echo time on a trajectory from the centre out: sampling starts as soon as the receiver can.

The slice is selected by half pulses: every shot is played twice, with the slice gradient and its opposite (label
``SET``), and the sum of the two is of one slice (Robson et al., 2003, doi:10.1097/00004728-200311000-00001). Or a short
hard pulse excites everything, which suits a coil with a small field of view, and 3D trajectories.
"""

from typing import Literal

import pypulseq as pp

from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.calibration import add_prescans
from trajdesign.pulseq.writer.labels import shot_labels
from trajdesign.pulseq.writer.repetitions import spoiled
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory

#: Duration of each pulse, s, if None is asked for.
_USUAL = {"half": 1e-3, "hard": 40e-6}


def build(
    trajectory: Trajectory,
    *,
    pulse: Literal["half", "hard"] = "half",
    flip_angle_deg: float = 10.0,
    slice_thickness: float = 5e-3,
    tr: float | None = None,
    n_averages: int = 1,
    n_dummies: int = 16,
    noise_scan: bool = False,
    calibration: int = 0,
    spoiler_cycles: float = 2.0,
    bridge_slew: float = 0.7,
    rf_duration: float | None = None,
) -> pp.Sequence:
    """Return an ultrashort echo time sequence, for shots from the centre out.

    Parameters
    ----------
    trajectory
        Every shot starts within 1/FOV of the centre. 3D only with the hard pulse.
    pulse
        ``"half"``: half a sinc pulse and slice selection; ``"hard"``: a rectangle, and none.
    flip_angle_deg
        Flip angle of one pulse, degrees.
    slice_thickness
        Thickness of the slice, and over which the spoiler's turns of phase are counted, m.
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
        the dummies, by whole pulses: an even number from 8 on, or 0 for none.
    spoiler_cycles
        Turns of phase across the slice that the spoiler adds in each repetition.
    bridge_slew
        Part of the scanner's slew rate that prephaser, rewinder and slice selection may use.
    rf_duration
        Duration of the pulse, s; 1 ms for the half, 40 us for the hard pulse if None.

    Raises
    ------
    ConfigError
        If the trajectory does not start at the centre, a number makes no sense, or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    parts.require_dims("ute_2d", trajectory, *((2,) if pulse == "half" else (2, 3)))
    parts.require_plausible(
        longest_tr=1.0,
        flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, tr=tr, n_averages=n_averages,
        n_dummies=n_dummies, spoiler_cycles=spoiler_cycles, bridge_slew=bridge_slew, rf_duration=rf_duration,
    )  # fmt: skip
    parts.require_start_at_centre("ute_2d", trajectory)
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    is_half, is_volume = pulse == "half", acquisition.n_dims == 3
    sequence = pp.Sequence(parts.system(scanner))
    duration = _USUAL[pulse] if rf_duration is None else rf_duration
    excitation = _excitation(scanner, flip_angle_deg, slice_thickness if is_half else None, duration, bridge_slew)
    spoiler = spoiler_cycles / slice_thickness
    waveforms = bridges.design(trajectory, gz_prephaser=-excitation.after, gz_rewinder=spoiler, bridge_slew=bridge_slew)
    shots, segment = parts.Shots(sequence, trajectory, waveforms), parts.Segments(scanner)
    te = excitation.duration - excitation.centre + shots.echo
    wait_tr, tr = parts.wait("tr", tr, excitation.duration + shots.duration, scanner.block_raster)

    add_prescans(
        sequence, trajectory, shots, segment, noise_scan=noise_scan, calibration=calibration,
        slab=acquisition.fov[2] if is_volume else slice_thickness, rf_duration=2 * duration if is_half else duration,
        bridge_slew=bridge_slew, n_partitions=calibration if is_volume else 1, is_selective=is_half,
    )  # fmt: skip
    signs = (1.0, -1.0) if is_half else (1.0,)
    for repetition, phase in spoiled(n_dummies, n_averages * acquisition.n_shots):
        average, shot = divmod(repetition, acquisition.n_shots)
        for number, sign in enumerate(signs):
            sequence.add_block(*excitation.turned(phase, sign=sign), *segment(shot, repetition < 0, sign))
            events = shots.gradients(shot, prephaser=sign)
            if repetition >= 0:
                labels = shot_labels(trajectory, shot, average, n_averages, SET=number)
                events = [*events, shots.sampled(phase), *labels]
            sequence.add_block(*events)
            parts.add_wait(sequence, wait_tr)
    positions = [0.0] if is_half else []
    parts.add_definitions(
        sequence, trajectory, waveforms, te=te, tr=tr, slice_thickness=slice_thickness, slice_positions=positions
    )
    return sequence


def _excitation(
    scanner: Scanner, flip_angle_deg: float, slice_thickness: float | None, duration: float, slew: float
) -> parts.Pulse:
    """Return the half pulse of a slice, or the hard pulse where the slice has no thickness."""
    if slice_thickness is None:
        return parts.hard_pulse(scanner, flip_angle_deg=flip_angle_deg, duration=duration)
    return parts.slice_pulse(
        scanner, flip_angle_deg=flip_angle_deg, slice_thickness=slice_thickness, duration=duration, slew=slew,
        shape="half",
    )  # fmt: skip
