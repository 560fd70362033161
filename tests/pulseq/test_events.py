"""Events against closed forms and pypulseq: offsets of phase and frequency."""

import math

import foreign
import pypulseq as pp
import pytest
from test_player import FILES, signed, write

from trajdesign.errors import InputError
from trajdesign.pulseq.reader import player

#: Of 1H at 3 T, Hz.
LARMOR = 42.576e6 * 3


def test_offsets_are_in_rad_and_hz(tmp_path):
    for version, pulse, adc in (
        ("1.4.1", ("1 10 2 3 0 3 0 0", "1 10 2 3 0 3 -440 1.25"), ("1 10 2000 20 0 0", "1 10 2000 20 900 0.5")),
        (
            "1.5.0",
            ("1 10 2 3 0 2 3 0 0 0 0 e", "1 10 2 3 0 2 3 0 0 -440 1.25 e"),
            ("1 10 2000 20 0 0 0 0 0", "1 10 2000 20 0 0 900 0.5 0"),
        ),
    ):
        text = FILES[version]
        played = player.read(write(tmp_path, signed(text.replace(*pulse).replace(*adc))))
        assert {(p.phase, p.frequency) for _, p in played.pulses} == {(1.25, -440)}
        assert {(a.event.phase, a.event.frequency) for a in played.adcs} == {(0.5, 900)}
        assert {a.event.modulation is None for a in played.adcs} == {True}
        assert {(p.phase, p.frequency) for _, p in player.read(write(tmp_path, signed(text))).pulses} == {(0, 0)}


def test_ppm_are_of_the_field_that_is_given(tmp_path):
    # 127.728 MHz: -3.45 ppm are -440.6616 Hz, and 0.01 rad/MHz are 1.27728 rad
    text = FILES["1.5.0"].replace("1 10 2 3 0 2 3 0 0 0 0 e", "1 10 2 3 0 2 3 -3.45 0.01 10 0.5 e")
    text = text.replace("1 10 2000 20 0 0 0 0 0", "1 10 2000 20 2 -0.01 1 0.25 0")
    path = write(tmp_path, signed(text))
    played = player.read(path, larmor=LARMOR)
    (_, pulse), *_ = played.pulses
    assert (pulse.frequency, pulse.phase) == pytest.approx((10 - 440.6616, 0.5 + 1.27728), rel=1e-12)
    assert (played.adcs[0].event.frequency, played.adcs[0].event.phase) == pytest.approx(
        (1 + 255.456, 0.25 - 1.27728), rel=1e-12
    )
    told = signed(path.read_text().partition("\n[SIG")[0].replace("Name by hand", "Gamma 42.576e6\nB0 3"))
    (_, pulse), *_ = player.read(write(tmp_path, told)).pulses
    assert (pulse.frequency, pulse.phase) == pytest.approx((10 - 440.6616, 0.5 + 1.27728), rel=1e-12)
    unknown = player.read(write(tmp_path, signed(text)))
    assert all(math.isnan(x) for x in (unknown.pulses[0][1].phase, unknown.adcs[0].event.frequency))


def test_the_receiver_may_have_a_phase_for_each_sample(tmp_path):
    text = FILES["1.5.0"].replace("1 10 2000 20 0 0 0 0 0", "1 8 2000 20 0 0 0 0.5 1")
    played = player.read(write(tmp_path, signed(text)))
    assert played.adcs[1].event.modulation == pytest.approx([0, 1, 1, 1, 1, 1, 0, 0])
    with pytest.raises(InputError, match="8 samples and 4 phases"):
        player.read(write(tmp_path, signed(text.replace("0 0.5 1", "0 0.5 2"))))


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
def test_offsets_are_those_of_pypulseq(tmp_path, version):
    sequence = foreign.fresh()
    adc = pp.make_adc(4, dwell=1e-5, delay=2e-4, system=foreign.SYSTEM)
    rf = pp.make_block_pulse(0.5, duration=1e-4, delay=1e-4, system=foreign.SYSTEM, use="excitation")
    for n in range(5):
        rf.phase_offset = adc.phase_offset = math.radians(117 * n * (n + 1) / 2 % 360)
        rf.freq_offset, adc.freq_offset = 100.0 * n, -50.0 * n
        sequence.add_block(rf)
        sequence.add_block(adc)
    path = foreign.written(sequence, tmp_path / "x.seq", version)
    theirs = pp.Sequence(foreign.SYSTEM)
    theirs.read(str(path))
    blocks = [theirs.get_block(i) for i in theirs.block_events]
    played = player.read(path)
    pulses = [(b.rf.phase_offset, b.rf.freq_offset) for b in blocks if b.rf is not None]
    assert [(p.phase, p.frequency) for _, p in played.pulses] == pulses
    assert [(a.event.phase, a.event.frequency) for a in played.adcs] == [
        (b.adc.phase_offset, b.adc.freq_offset) for b in blocks if b.adc is not None
    ]
    assert pulses[2][0] == pytest.approx(math.radians(351), abs=1e-5)
