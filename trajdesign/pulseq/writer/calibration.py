"""What may be scanned before the imaging: noise, and a calibration for coil maps.

The calibration is a short, fully sampled, low-resolution Cartesian scan of the slices or the slab that follow.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pypulseq as pp
import torch

from trajdesign.errors import ConfigError
from trajdesign.pulseq.adc import LONGEST
from trajdesign.pulseq.writer import bridges, parts
from trajdesign.pulseq.writer.lobes import SlabEncoding
from trajdesign.pulseq.writer.repetitions import spoiled
from trajdesign.trajectory import Trajectory, point_times

#: Of a small flip angle most magnetisation is left for the imaging that follows.
_FLIP_DEG = 10.0

#: Repetitions before the first line, so that the signal does not change much from line to line.
_N_DUMMIES = 8

#: Turns of phase that the spoiler adds across a slice or a partition.
_SPOILER_CYCLES = 2.0

#: A readout lasts at least so long, s: the slower, the less noise, and a low resolution needs no speed.
_READOUT = 1e-3

#: Part of the gradient limit that the readout uses.
_GRADIENT = 0.5

#: Part of the slew rate of other bridges that those of the calibration use: it is to stimulate no nerves beside.
_SLEW = 0.5

#: Fewer lines make no coil maps.
_FEWEST = 8


def add_prescans(
    sequence: pp.Sequence,
    trajectory: Trajectory,
    shots: parts.Shots,
    segment: parts.Segments,
    *,
    noise_scan: bool,
    calibration: int,
    slab: float,
    rf_duration: float,
    bridge_slew: float,
    positions: Sequence[float] = (0.0,),
    n_partitions: int = 1,
    is_selective: bool = True,
) -> None:
    """Play a noise scan, and a spoiled gradient echo of `calibration` lines along y, and as many pixels along x.

    The noise is sampled once, with the ADC event of the shots and no pulse before it (label ``NOISE``).

    The calibration's field of view along x and y is the trajectory's, and so is its dwell time, so that one noise scan
    serves both. Line l of n, of partition p, is at ``k_y = (l - n // 2) / FOV_y`` and ``k_z = (p - n_partitions // 2) /
    slab``, and its sample s at ``k_x = (s - n_samples // 2) / (n_samples / n * FOV_x)``; two samples or more are taken
    for each that the field of view needs. Of many partitions the central n are played.

    ADC events have the labels ``REF`` 1, ``LIN``, and where there are several ``SLC`` and ``PAR``. Afterwards these are
    0.

    Parameters
    ----------
    sequence, trajectory, shots, segment
        To play it in, what will be played after it, its blocks, and the labels of its segments.
    noise_scan
        Whether the receiver's noise is sampled.
    calibration
        Lines: even, from 8 to 256; 0 for none.
    slab
        Thickness of a slice, or of all partitions, m.
    rf_duration
        Of the pulse, s: a sinc, or if not `is_selective` a rectangle that excites everything.
    bridge_slew
        Part of the slew rate that all but the readout may use; but for the pulse half of that is taken.
    positions
        Of the slices, m, by the label ``SLC``.
    n_partitions
        Of the imaging.
    is_selective
        Whether a gradient selects what is excited.

    Raises
    ------
    ConfigError
        If `calibration` makes no sense.
    LimitError
        If no waveform within the limits exists.
    """
    if noise_scan:
        _add_noise_scan(sequence, shots, segment)
    if not calibration:
        return
    parts.require_plausible(calibration=calibration)
    if calibration % 2 or calibration < _FEWEST:
        raise ConfigError(
            f"calibration is {calibration} lines; it is an even number, at least {_FEWEST}, or 0 for none."
        )
    scanner = trajectory.scanner
    if is_selective:
        pulse = parts.slice_pulse(
            scanner, flip_angle_deg=_FLIP_DEG, slice_thickness=slab, duration=rf_duration, slew=bridge_slew
        )
    else:
        pulse = parts.hard_pulse(scanner, flip_angle_deg=_FLIP_DEG, duration=rf_duration)
    lines = _lines(trajectory, calibration)
    of_lines = parts.Shots(sequence, lines, bridges.design(lines, bridge_slew=_SLEW * bridge_slew))
    n_played = min(n_partitions, calibration)
    first = n_partitions // 2 - n_played // 2
    # along z in blocks of their own, which differ by a factor alone, so that one segment serves all partitions
    encoding = SlabEncoding(
        scanner, pulse, slab, n_partitions, _SPOILER_CYCLES * n_partitions / slab, _SLEW * bridge_slew, is_apart=True,
        played=range(first, first + n_played),
    )  # fmt: skip
    counted = [*(["SLC"] if len(positions) > 1 else []), *(["PAR"] if n_partitions > 1 else [])]
    for repetition, phase in spoiled(_N_DUMMIES, n_played * calibration):
        partition, line = divmod(max(repetition, 0), calibration)
        partition += first
        for number in parts.interleaved(len(positions)):
            sequence.add_block(*pulse.turned(phase, positions[number]), *segment("calibration", line, repetition < 0))
            encoding.add_encoding(sequence, partition)
            events = of_lines.gradients(line)
            if repetition >= 0:
                values = {"REF": 1, "LIN": line, "SLC": number, "PAR": partition}
                labels = [pp.make_label(name, "SET", values[name]) for name in ("REF", "LIN", *counted)]
                events = [*events, of_lines.sampled(phase), *labels]
            sequence.add_block(*events)
            encoding.add_rewinding(sequence, partition)
    cleared = [pp.make_label(name, "SET", 0) for name in ("REF", "LIN", *counted)]
    sequence.add_block(pp.make_delay(scanner.block_raster), *cleared, *segment("after calibration"))


def _add_noise_scan(sequence: pp.Sequence, shots: parts.Shots, segment: parts.Segments) -> None:
    """Sample the receiver's noise once, with the ADC event of the shots and no pulse before it."""
    duration = parts.ceil(shots.duration, sequence.system.block_duration_raster)
    sequence.add_block(shots.adc, pp.make_delay(duration), pp.make_label("NOISE", "SET", 1), *segment("noise"))
    sequence.add_block(pp.make_delay(duration), pp.make_label("NOISE", "SET", 0))


def _lines(trajectory: Trajectory, n: int) -> Trajectory:
    """Return `n` parallel lines along x through the middle of k-space."""
    acquisition, scanner = trajectory.acquisition, trajectory.scanner
    fov, dwell = acquisition.fov[:2], acquisition.dwell
    nyquist = 1 / (fov[0] * dwell)  # speed at which nothing is sampled twice, 1/m/s
    oversampling = max(2.0, _READOUT / (n * dwell), nyquist / (_GRADIENT * scanner.gamma * scanner.max_gradient))
    oversampling = min(2 * math.ceil(oversampling / 2), LONGEST // n // 2 * 2)  # samples are a multiple of 4
    n_samples = n * oversampling
    of = replace(acquisition, fov=fov, matrix=(n, n), n_shots=n, n_samples=n_samples, n_frames=1)
    centre = of.adc_delay(scanner.gradient_raster, scanner.rf_raster) + n_samples // 2 * dwell
    kx = (point_times(of, scanner) - centre) * nyquist / oversampling
    ky = (np.arange(n) - n // 2) / fov[1]
    points = np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1)
    return Trajectory(torch.from_numpy(points.copy()), of, scanner, "calibration")
