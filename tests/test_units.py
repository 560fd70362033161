import math
import re

import numpy as np
import pytest

from trajdesign import units
from trajdesign.errors import ConfigError
from trajdesign.units import GAMMA, plausible

# rad/s/T as tabulated, in units of 1e7: an independent reading of the tables named in units.py
TABLE = {
    "2H": 4.10662791,
    "3He": 20.3801587,
    "7Li": 10.3977013,
    "13C": 6.728284,
    "17O": 3.62808,
    "19F": 25.18148,
    "23Na": 7.0808493,
    "31P": 10.8394,
    "129Xe": 7.452103,
}


def test_gammas_are_the_tabulated_ones():
    assert GAMMA["1H"] == pytest.approx(42.577478461e6, rel=1e-12)
    assert set(GAMMA) == {"1H", *TABLE}
    for nucleus, value in TABLE.items():
        assert GAMMA[nucleus] == pytest.approx(value * 1e7 / (2 * math.pi), rel=1e-12), nucleus
    # and in the unit people know them in, MHz/T
    assert GAMMA["13C"] / 1e6 == pytest.approx(10.708, abs=2e-3)
    assert GAMMA["31P"] / 1e6 == pytest.approx(17.251, abs=2e-3)
    assert GAMMA["129Xe"] / 1e6 == pytest.approx(11.860, abs=2e-3)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("max_gradient", 40e-3), ("max_slew", 200.0), ("fov", 0.22), ("dwell", 4e-6), ("gradient_raster", 10e-6)],
)
def test_a_believable_number_comes_back_unchanged(quantity, value):
    assert plausible(quantity, value) == value


@pytest.mark.parametrize(
    ("quantity", "slip", "meant", "word"),
    [
        ("max_gradient", 40.0, 40e-3, "mT/m"),
        ("max_slew", 0.2, 200.0, "T/m/ms"),
        ("max_slew", 200e3, 200.0, "mT/m/s"),
        ("max_gradient", 4.0, 40e-3, "G/cm"),
        ("fov", 220.0, 0.22, "mm"),
        ("fov", 22.0, 0.22, "cm"),
        ("dwell", 4.0, 4e-6, "us"),
        ("gradient_raster", 10.0, 10e-6, "us"),
        ("gamma", 42.577, 42.577e6, "MHz/T"),
        ("gamma", 267.522e6, 42.577e6, "rad/s/T"),
    ],
)
def test_a_slip_of_the_unit_is_refused_and_named(quantity, slip, meant, word):
    with pytest.raises(ConfigError) as caught:
        plausible(quantity, slip)
    sentence = str(caught.value)
    assert quantity in sentence
    offered = {unit: float(number.rstrip(".")) for unit, number in re.findall(r"in (\S+)\? Then write (\S+)", sentence)}
    assert offered[word] == pytest.approx(meant, rel=1e-3)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("quantity", ["max_gradient", "max_slew", "fov", "dwell", "gradient_raster", "gamma"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e30])
def test_nonsense_is_refused(quantity, value):
    with pytest.raises(ConfigError, match=quantity):
        plausible(quantity, value)


def test_the_tolerances_are_in_the_order_of_size():
    values = [value for name, value in vars(units).items() if name.endswith(("ROUNDING", "MARGIN"))]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] < 1


def test_each_tolerance_has_room_for_what_it_is_for():
    # half a unit in the last place: of doubles, of float32, of six digits whose first is 1
    assert np.finfo(np.float64).eps / 2 < units.ROUNDING
    assert np.finfo(np.float32).eps / 2 < units.WRITER_ROUNDING
    assert units.FILE_ROUNDING > 0.5e-5
    # a dwell time of the fastest receivers, 1 us, in whole ns
    assert units.DWELL_ROUNDING > 0.5e-9 / 1e-6
    # what keeps away from a limit still keeps it when a file has rounded it
    for left in (units.PROJECTION_MARGIN, units.BRIDGE_MARGIN, units.DESIGN_MARGIN):
        assert left > 2 * units.FILE_ROUNDING
