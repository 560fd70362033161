"""Spoiled 2D gradient echo on any trajectory: slice excitation, prephaser, readout, rewinder and spoiler.

Each repetition is an excitation block, an optional wait for TE, ONE gradient block that holds the whole shot
on all axes, and an optional wait for TR. Every gradient event starts and ends at 0, every shot has the same
timing, and the one ADC event differs between shots in its phase only.

Copy this file to make a sequence of your own: any file with a function `build` like the one below can be
named as the exporter's `sequence`.
"""

import math
from types import SimpleNamespace

import numpy as np
import pypulseq as pp

from trajdesign import waveform
from trajdesign.errors import ConfigError
from trajdesign.exporters.pulseq import add_definitions, gradient_event, system
from trajdesign.trajectory import Trajectory

_RF_SPOILING_DEG = 117.0
_TIME_BANDWIDTH = 4.0


def build(
    trajectory: Trajectory,
    *,
    flip_angle_deg: float = 15.0,
    slice_thickness: float = 5e-3,
    te: float | None = None,
    tr: float | None = None,
    n_dummies: int = 16,
    spoiler_cycles: float = 2.0,
    bridge_slew: float = 0.7,
    rf_duration: float = 2e-3,
) -> pp.Sequence:
    """Return the sequence.

    Parameters
    ----------
    trajectory
        A 2D trajectory.
    flip_angle_deg
        Flip angle, degrees.
    slice_thickness
        Slice thickness, m.
    te
        Time from the centre of the excitation to the sample nearest to k = 0 (over all shots), s; shortest if
        None.
    tr
        Repetition time, s; shortest if None.
    n_dummies
        Repetitions without ADC before the first shot.
    spoiler_cycles
        Turns of phase across the slice that the spoiler adds in each repetition.
    bridge_slew
        Part of the scanner's slew rate that prephaser, rewinder and slice selection may use.
    rf_duration
        Duration of the sinc pulse, s.

    Raises
    ------
    ConfigError
        If the trajectory is not 2D, or TE or TR is shorter than possible.
    LimitError
        If no waveform within the limits exists.
    """
    _refuse(flip_angle_deg, slice_thickness, n_dummies, rf_duration)
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    limits = system(scanner)
    sequence = pp.Sequence(limits)

    rf, gz_slice = _excitation(limits, flip_angle_deg, slice_thickness, rf_duration, bridge_slew)
    rf_centre = rf.delay + rf.center
    after_centre = gz_slice.delay + gz_slice.rise_time + gz_slice.flat_time - rf_centre + gz_slice.fall_time / 2
    shots = waveform.design(
        trajectory,
        gz_prephaser=-gz_slice.amplitude * after_centre,
        gz_rewinder=spoiler_cycles / slice_thickness,
        bridge_slew=bridge_slew,
    )
    gradients = [
        [
            gradient_event(sequence, channel, scanner.gamma * shot[:, axis])
            for axis, channel in enumerate("xyz")
            if np.any(shot[:, axis])
        ]
        for shot in shots.gradient
    ]
    adc = pp.make_adc(acquisition.n_samples, dwell=acquisition.dwell, delay=round(shots.adc_start, 9), system=limits)

    excitation = _ceil(pp.calc_duration(rf, gz_slice), scanner.block_raster)
    centre = int(trajectory.k_adc.detach().square().sum(dim=(0, 2)).argmin())
    echo = shots.adc_start + (centre + 0.5) * acquisition.dwell
    wait_te, te = _wait("te", te, excitation - rf_centre + echo, scanner.block_raster)
    wait_tr, tr = _wait("tr", tr, excitation + wait_te + shots.duration, scanner.block_raster)

    phase_deg = 0.0
    for repetition in range(-n_dummies, acquisition.n_shots):
        count = repetition + n_dummies
        phase_deg = (phase_deg + count * _RF_SPOILING_DEG) % 360
        rf.phase_offset = adc.phase_offset = math.radians(phase_deg)
        sequence.add_block(rf, gz_slice, pp.make_delay(excitation))
        if wait_te:
            sequence.add_block(pp.make_delay(wait_te))
        events = gradients[repetition % acquisition.n_shots]
        if repetition >= 0:
            sequence.add_block(*events, adc, pp.make_label("LIN", "SET", repetition))
        else:
            sequence.add_block(*events)
        if wait_tr:
            sequence.add_block(pp.make_delay(wait_tr))
    add_definitions(sequence, trajectory, shots, te=te, tr=tr, slice_thickness=slice_thickness)
    return sequence


def _excitation(
    limits: pp.Opts, flip_angle_deg: float, slice_thickness: float, rf_duration: float, bridge_slew: float
) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Return the pulse and the gradient that selects its slice."""
    rf, gz_slice, _ = pp.make_sinc_pulse(
        flip_angle=math.radians(flip_angle_deg),
        apodization=0.5,
        delay=limits.rf_dead_time,
        duration=_multiple(rf_duration, 2 * limits.rf_raster_time, limits.grad_raster_time),
        max_slew=bridge_slew * limits.max_slew,
        slice_thickness=slice_thickness,
        time_bw_product=_TIME_BANDWIDTH,
        return_gz=True,
        use="excitation",
        system=limits,
    )
    return rf, gz_slice


def _refuse(flip_angle_deg: float, slice_thickness: float, n_dummies: int, rf_duration: float) -> None:
    """Refuse numbers that make no sense, before they make a strange sequence."""
    if not 0 < flip_angle_deg <= 90:
        raise ConfigError(f"flip_angle_deg is {flip_angle_deg:g}; it lies above 0 and at most at 90 degrees.")
    if not 1e-4 <= slice_thickness <= 1:
        raise ConfigError(f"slice_thickness is {slice_thickness:g} m; it lies between 1e-4 and 1 m (is it in mm?).")
    if n_dummies < 0:
        raise ConfigError(f"n_dummies is {n_dummies}; it cannot be negative.")
    if not 1e-4 <= rf_duration <= 2e-2:
        raise ConfigError(f"rf_duration is {rf_duration:g} s; it lies between 1e-4 and 2e-2 s (is it in ms?).")


def _wait(name: str, wanted: float | None, shortest: float, raster: float) -> tuple[float, float]:
    """Return the delay on the block raster that makes `shortest` into `wanted`, and the resulting time, s."""
    if wanted is None:
        return 0.0, shortest
    if not wanted >= shortest - 1e-9:
        raise ConfigError(f"{name} is {wanted:g} s; the shortest possible is {shortest:.6f} s.")
    delay = round(round((wanted - shortest) / raster) * raster, 9)
    return delay, shortest + delay


def _ceil(duration: float, raster: float) -> float:
    return round(math.ceil(duration / raster - 1e-6) * raster, 9)


def _multiple(duration: float, *rasters: float) -> float:
    """Round up to a common multiple of rasters, s."""
    step = math.lcm(*(round(raster * 1e9) for raster in rasters)) * 1e-9
    return _ceil(duration, step)
