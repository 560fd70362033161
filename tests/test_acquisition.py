import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError


def test_what_follows_from_the_numbers():
    acquisition = Acquisition((0.2, 0.24), (100, 96), 3, 500, 4e-6)
    assert acquisition.n_dims == 2
    assert acquisition.image_shape == (96, 100)
    assert acquisition.voxel == pytest.approx((2e-3, 2.5e-3))
    assert acquisition.k_max == pytest.approx((250.0, 200.0))
    assert acquisition.readout == pytest.approx(2e-3)
    # the Nyquist relation: two k_max are one cycle a voxel
    for k, voxel in zip(acquisition.k_max, acquisition.voxel, strict=True):
        assert 2 * k * voxel == pytest.approx(1)


@settings(derandomize=True, deadline=None)
@given(
    dwell=st.integers(10, 400).map(lambda n: Fraction(n, 10)),  # us
    raster=st.sampled_from([4, 5, 10, Fraction(64, 10)]),
    rf=st.sampled_from([Fraction(1, 10), 1, 2]),
)
def test_the_adc_event_starts_on_the_rf_raster_after_the_shortest_wait(dwell, raster, rf):
    delay = Acquisition(dwell=float(dwell) * 1e-6).adc_delay(float(raster) * 1e-6, float(rf) * 1e-6)
    # exact arithmetic in us: the event starts half a dwell before its first sample
    start = Fraction(raster) / 2 - dwell / 2
    exact = math.ceil(start / rf) * rf - start
    assert delay * 1e6 == pytest.approx(float(exact), abs=1e-7)
    assert -1e-13 <= delay < float(rf) * 1e-6


def test_no_wait_for_the_common_dwell():
    assert Acquisition(dwell=4e-6).adc_delay(10e-6, 1e-6) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fov": (0.22,)},
        {"fov": (0.22, 0.22, 0.22)},
        {"fov": (0.22, 220.0)},
        {"fov": (0.22, math.nan)},
        {"matrix": (128, 2)},
        {"matrix": (128, 0)},
        {"n_shots": 0},
        {"n_samples": 3},
        {"dwell": 4.0},
        {"dwell": math.nan},
        {"dwell": 0.0},
    ],
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ConfigError):
        Acquisition(**wrong)


@pytest.mark.parametrize(
    "counts", [{"matrix": (32.5, 32)}, {"n_frames": 1.5}, {"n_shots": 2.5}, {"n_samples": math.nan}]
)
def test_counts_are_whole(counts):
    with pytest.raises(ConfigError, match=f"{next(iter(counts))} is .* in whole numbers"):
        Acquisition(**counts)
