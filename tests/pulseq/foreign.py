"""Small sequences of the well-known kinds, and faults to plant in them, built with pypulseq alone."""

import numpy as np
import pypulseq as pp

FOV = 0.256
N = 16
SYSTEM = pp.Opts(
    max_grad=30,
    grad_unit="mT/m",
    max_slew=120,
    slew_unit="T/m/s",
    rf_ringdown_time=30e-6,
    rf_dead_time=100e-6,
    adc_dead_time=10e-6,
)
DK = 1 / FOV


def excitation(flip_deg=20, system=SYSTEM):
    """Return a slice-selective pulse, its gradient and the gradient that rephases it."""
    return pp.make_sinc_pulse(
        flip_angle=np.deg2rad(flip_deg),
        duration=1e-3,
        slice_thickness=5e-3,
        time_bw_product=4,
        return_gz=True,
        delay=system.rf_dead_time,
        use="excitation",
        system=system,
    )


def fresh(system=SYSTEM):
    sequence = pp.Sequence(system)
    sequence.set_definition("FOV", [FOV, FOV, 5e-3])
    return sequence


def gre(system=SYSTEM):
    sequence = fresh(system)
    rf, gz, rephaser = excitation(system=system)
    gx = pp.make_trapezoid("x", flat_area=N * DK, flat_time=0.64e-3, system=system)
    adc = pp.make_adc(N, duration=gx.flat_time, delay=gx.rise_time, system=system)
    prephaser = pp.make_trapezoid("x", area=-gx.area / 2, duration=0.8e-3, system=system)
    spoiler = pp.make_trapezoid("z", area=4 / 5e-3, system=system)
    for line in range(-1, N):  # the first is a dummy
        gy = pp.make_trapezoid("y", area=(line - N / 2) * DK, duration=0.8e-3, system=system)
        rf.phase_offset = adc.phase_offset = np.pi * line
        sequence.add_block(rf, gz)
        sequence.add_block(prephaser, gy, rephaser)
        sequence.add_block(gx, *([adc] if line >= 0 else []))
        sequence.add_block(pp.scale_grad(gy, -1), spoiler, pp.make_delay(2e-3))
    return sequence


def epi():
    """Return an EPI train whose blips are split at the borders of the blocks."""
    sequence = fresh()
    rf, gz, rephaser = excitation(90)
    blip_time = 100e-6
    gx = pp.make_trapezoid("x", flat_area=N * DK, flat_time=0.64e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=gx.flat_time, delay=blip_time / 2 + gx.rise_time, system=SYSTEM)
    blip = pp.make_trapezoid("y", area=DK, duration=blip_time, system=SYSTEM)
    up, down = pp.split_gradient_at(blip, blip_time / 2, SYSTEM)
    readout = pp.make_trapezoid("x", amplitude=gx.amplitude, flat_time=gx.flat_time, delay=blip_time / 2, system=SYSTEM)
    up.delay, down.delay = pp.calc_duration(readout), 0
    both = pp.add_gradients([down, up], system=SYSTEM)
    sequence.add_block(rf, gz)
    sequence.add_block(
        rephaser,
        pp.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=SYSTEM),
        pp.make_trapezoid("y", area=-N / 2 * DK, duration=1e-3, system=SYSTEM),
    )
    for line in range(N):
        gy = [up] if line == 0 else [down] if line == N - 1 else [both]
        sequence.add_block(pp.scale_grad(readout, (-1) ** line), *gy, adc)
    return sequence


def spin_echo():
    """Return spin echoes after an inversion and a fat saturation."""
    sequence = fresh()
    rf, gz, rephaser = excitation(90)
    refocus = pp.make_block_pulse(np.pi, duration=0.5e-3, use="refocusing", delay=100e-6, system=SYSTEM)
    invert = pp.make_adiabatic_pulse("hypsec", duration=8e-3, dwell=1e-5, use="inversion", delay=100e-6, system=SYSTEM)
    saturate = pp.make_gauss_pulse(
        np.deg2rad(110),
        duration=8e-3,
        bandwidth=220,
        freq_offset=-3.45e-6 * SYSTEM.B0 * SYSTEM.gamma,
        use="saturation",
        delay=100e-6,
        system=SYSTEM,
    )
    crusher = pp.make_trapezoid("z", area=2 / 5e-3, system=SYSTEM)
    gx = pp.make_trapezoid("x", flat_area=N * DK, flat_time=1.28e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=gx.flat_time, delay=gx.rise_time, system=SYSTEM)
    for line in range(3):
        sequence.add_block(invert)
        sequence.add_block(saturate)
        sequence.add_block(crusher)
        sequence.add_block(rf, gz)
        sequence.add_block(
            rephaser,
            pp.make_trapezoid("x", area=gx.area / 2, duration=1e-3, system=SYSTEM),
            pp.make_trapezoid("y", area=(line - 1) * DK, duration=1e-3, system=SYSTEM),
        )
        for _ in range(2):
            sequence.add_block(crusher)
            sequence.add_block(refocus)
            sequence.add_block(crusher)
            sequence.add_block(gx, adc)
    return sequence


def tse():
    """Return an echo train whose gradients run through the borders of the blocks."""
    sequence = fresh()
    rf, gz, rephaser = excitation(90)
    refocus = pp.make_block_pulse(np.pi, duration=0.5e-3, use="refocusing", delay=100e-6, system=SYSTEM)
    slice_amplitude, crush, read = 3e5, 8e5, 1.2e5

    def line(axis, times, values):
        return pp.make_extended_trapezoid(
            axis, times=np.array(times) * 1e-6, amplitudes=np.array(values), system=SYSTEM
        )

    held = line("z", [0, 630], [slice_amplitude, slice_amplitude])
    before = line("z", [0, 300, 700, 1000], [0, crush, crush, slice_amplitude])
    after = line("z", [0, 300, 700, 1000], [slice_amplitude, crush, crush, 0])
    ramp_up = line("x", [0, 800, 1000], [0, 0.8 * read, read])
    readout = line("x", [0, 1300], [read, read])
    ramp_down = line("x", [0, 200, 1000], [read, 0.8 * read, 0])
    adc = pp.make_adc(N, dwell=32e-6, delay=394e-6, system=SYSTEM)
    sequence.add_block(rf, gz)
    sequence.add_block(rephaser, pp.make_trapezoid("x", area=read * 1150e-6, duration=1.5e-3, system=SYSTEM))
    for echo in range(4):
        sequence.add_block(before)
        sequence.add_block(refocus, held)
        blip = pp.make_trapezoid("y", area=(echo - 2) * DK, duration=1e-3, system=SYSTEM)
        sequence.add_block(after, ramp_up, blip)
        sequence.add_block(readout, adc)
        sequence.add_block(ramp_down, pp.scale_grad(blip, -1))
    return sequence


def ute():
    """Return half spokes, sampled while the gradient rises."""
    sequence = fresh()
    rf, gz, rephaser = excitation(10)
    gx = pp.make_trapezoid("x", flat_area=N / 2 * DK, flat_time=0.4e-3, system=SYSTEM)
    adc = pp.make_adc(N, dwell=25e-6, delay=10e-6, system=SYSTEM)
    for spoke in range(7):
        angle = 2 * np.pi * spoke / 7
        sequence.add_block(rf, gz)
        sequence.add_block(rephaser)
        sequence.add_block(*pp.rotate(gx, angle=angle, axis="z", system=SYSTEM), adc)
    return sequence


def radial():
    sequence = fresh()
    rf, gz, rephaser = excitation()
    gx = pp.make_trapezoid("x", flat_area=N * DK, flat_time=0.64e-3, system=SYSTEM)
    prephaser = pp.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=gx.flat_time, delay=gx.rise_time, system=SYSTEM)
    for spoke in range(6):
        angle = np.pi * spoke / 6
        sequence.add_block(rf, gz)
        sequence.add_block(*pp.rotate(prephaser, angle=angle, axis="z", system=SYSTEM), rephaser)
        sequence.add_block(*pp.rotate(gx, angle=angle, axis="z", system=SYSTEM), adc)
    return sequence


def spiral():
    """Return a spiral of arbitrary gradients that start and end at 0."""
    sequence = fresh()
    rf, gz, rephaser = excitation(10)
    n = 300
    u = np.clip((np.arange(n) - 1.5) / (n - 4), 0, 1)
    size = 4e5 * np.sin(np.pi * u) ** 2
    for arm in range(3):
        phase = 2 * np.pi * (4 * u**0.5 + arm / 3)
        gx, gy = (
            pp.make_arbitrary_grad(axis, size * wave(phase), first=0.0, last=0.0, system=SYSTEM)
            for axis, wave in (("x", np.cos), ("y", np.sin))
        )
        sequence.add_block(rf, gz)
        sequence.add_block(rephaser)
        sequence.add_block(gx, gy, pp.make_adc(500, dwell=5e-6, delay=100e-6, system=SYSTEM))
    return sequence


def labelled():
    """Return a noise scan of its own length, triggers, labels, and two echoes."""
    sequence = fresh()
    rf, gz, rephaser = excitation()
    sequence.add_block(pp.make_adc(40, dwell=10e-6, delay=10e-6, system=SYSTEM), pp.make_label("NOISE", "SET", 1))
    sequence.add_block(pp.make_trigger("physio1", duration=2e-3))
    gx = pp.make_trapezoid("x", flat_area=N * DK, flat_time=0.64e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=gx.flat_time, delay=gx.rise_time, system=SYSTEM)
    for line in range(4):
        sequence.add_block(rf, gz, pp.make_label("LIN", "SET", line))
        sequence.add_block(rephaser, pp.make_label("ECO", "INC", 1))
        sequence.add_block(gx, adc)
        sequence.add_block(pp.scale_grad(gx, -1), adc, pp.make_digital_output_pulse("ext1", duration=1e-4))
    return sequence


KINDS = {f.__name__: f for f in (gre, epi, spin_echo, tse, ute, radial, spiral, labelled)}


#: Takes what the scanner does not, so that faults can be planted with pypulseq's own functions.
LAX = pp.Opts(max_grad=80, grad_unit="mT/m", max_slew=400, slew_unit="T/m/s", rf_dead_time=100e-6)


def trapezoid(axis, times, values):
    """Return an extended trapezoid from times in us and values in mT/m."""
    amplitudes = np.array(values) * 1e-3 * LAX.gamma
    return pp.make_extended_trapezoid(axis, times=np.array(times) * 1e-6, amplitudes=amplitudes, system=LAX)


def slew_across_blocks(sequence):
    # two events that meet without a jump; the second falls too fast
    sequence.add_block(trapezoid("x", [0, 200], [0, 15]))
    sequence.add_block(trapezoid("x", [0, 100], [15, 0]))


def jump_into_a_delay(sequence):
    # pypulseq lets values of up to one raster of slewing pass, and draws a line to the next event
    sequence.add_block(trapezoid("y", [0, 200], [0, 1.1]))
    sequence.add_block(pp.make_delay(1e-3))


def jump_between_events(sequence):
    sequence.add_block(trapezoid("z", [0, 200], [0, 0.8]))
    sequence.add_block(trapezoid("z", [0, 200], [-0.3, 0]))


def beyond_the_limit_as_a_vector(sequence):
    sequence.add_block(*(trapezoid(axis, [0, 400, 800], [0, 25, 0]) for axis in "xy"))


def beyond_the_limit(sequence):
    sequence.add_block(trapezoid("z", [0, 400, 800], [0, 31, 0]))


def adc_right_after_the_pulse(sequence):
    rf = pp.make_block_pulse(0.1, duration=1e-3, delay=100e-6, use="excitation", system=LAX)
    sequence.add_block(rf)
    sequence.add_block(pp.make_adc(16, dwell=10e-6, system=LAX), pp.make_delay(1e-3))


def adc_during_the_pulse(sequence):
    rf = pp.make_block_pulse(0.1, duration=1e-3, delay=100e-6, use="excitation", system=LAX)
    sequence.add_block(rf, pp.make_adc(16, dwell=10e-6, delay=500e-6, system=LAX), pp.make_delay(2e-3))


def pulse_without_its_dead_time(sequence):
    rf = pp.make_block_pulse(0.1, duration=1e-3, delay=100e-6, use="excitation", system=LAX)
    rf.delay = 20e-6
    sequence.add_block(rf, pp.make_delay(2e-3))


def adc_up_to_the_end(sequence):
    sequence.add_block(pp.make_adc(16, dwell=10e-6, delay=10e-6, system=LAX), pp.make_delay(170e-6))


def dwell_off_the_raster(sequence):
    sequence.add_block(pp.make_adc(16, dwell=10.05e-6, delay=10e-6, system=LAX), pp.make_delay(1e-3))


def too_fast_for_the_receiver(sequence):
    adc = pp.make_adc(16, dwell=10e-6, delay=400e-6, system=LAX)
    sequence.add_block(trapezoid("x", [0, 400, 800, 1200], [0, 20, 20, 0]), adc)


def samples_that_interpreters_dislike(sequence):
    sequence.add_block(pp.make_adc(8194, dwell=1e-6, delay=10e-6, system=LAX), pp.make_delay(1e-2))


FAULTS = {
    f.__name__: f
    for f in (
        slew_across_blocks,
        jump_into_a_delay,
        jump_between_events,
        beyond_the_limit_as_a_vector,
        beyond_the_limit,
        adc_right_after_the_pulse,
        adc_during_the_pulse,
        pulse_without_its_dead_time,
        adc_up_to_the_end,
        dwell_off_the_raster,
        too_fast_for_the_receiver,
        samples_that_interpreters_dislike,
    )
}


def written(sequence, path, version="1.5.0"):
    """Write a sequence and return the path."""
    sequence.write(str(path), v141_compat=version == "1.4.1", check_timing=False)
    return path
