import math

import pytest

from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.units import GAMMA

TIMINGS = [
    "gradient_raster",
    "adc_raster",
    "rf_raster",
    "block_raster",
    "adc_dead_time",
    "rf_dead_time",
    "rf_ringdown_time",
]


@pytest.mark.parametrize("nucleus", sorted(GAMMA))
def test_gamma_is_that_of_the_nucleus_unless_given(nucleus):
    assert Scanner(nucleus=nucleus).gamma == GAMMA[nucleus]
    assert Scanner(nucleus=nucleus, gamma=1.0009 * GAMMA[nucleus]).gamma == 1.0009 * GAMMA[nucleus]


@pytest.mark.parametrize("nucleus", sorted(GAMMA))
def test_the_gamma_of_another_nucleus_is_refused(nucleus):
    for other in GAMMA.keys() - {nucleus}:
        with pytest.raises(ConfigError, match=f"nucleus {nucleus} .* it is that of {other}"):
            Scanner(nucleus=nucleus, gamma=GAMMA[other])
    for part in (0.998, 1.002):
        with pytest.raises(ConfigError, match="give one of the two"):
            Scanner(nucleus=nucleus, gamma=part * GAMMA[nucleus])


def test_an_unknown_nucleus_or_norm_is_refused():
    with pytest.raises(ConfigError, match="1H"):
        Scanner(nucleus="1h")
    with pytest.raises(ConfigError, match="vector"):
        Scanner(limit_norm="euclid")


@pytest.mark.parametrize("quantity", ["max_gradient", "max_slew", "gamma"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e12])
def test_implausible_limits_are_refused(quantity, value):
    with pytest.raises(ConfigError, match=quantity):
        Scanner(**{quantity: value})


@pytest.mark.parametrize("quantity", TIMINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-6, 10.0])
def test_implausible_timings_are_refused(quantity, value):
    with pytest.raises(ConfigError, match=quantity):
        Scanner(**{quantity: value})


@pytest.mark.parametrize("quantity", [t for t in TIMINGS if t.endswith("raster")])
def test_a_raster_of_zero_is_refused(quantity):
    with pytest.raises(ConfigError, match=quantity):
        Scanner(**{quantity: 0.0})


def test_no_dead_time_is_a_scanner_too():
    assert Scanner(adc_dead_time=0.0, rf_dead_time=0.0, rf_ringdown_time=0.0).adc_dead_time == 0
