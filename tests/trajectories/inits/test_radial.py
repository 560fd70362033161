import numpy as np
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial


def angles(trajectory):
    """Return the direction of the end of each spoke, degrees."""
    k = trajectory.k_adc.numpy()
    return np.degrees(np.arctan2(k[:, -1, 1], k[:, -1, 0]))


# table 1 of Wundrak et al., doi:10.1002/mrm.25831
@pytest.mark.parametrize(
    ("index", "angle"), [(1, 111.246), (2, 68.754), (3, 49.751), (4, 38.978), (5, 32.040), (6, 27.198), (7, 23.628)]
)
def test_tiny_golden_angles_are_those_of_the_paper(index, angle):
    found = angles(radial(Acquisition(n_shots=5), Scanner(), angle="tiny-golden", golden_index=index))
    np.testing.assert_allclose(found % 360, angle * np.arange(5) % 360, atol=4e-3)


def test_the_first_tiny_golden_angle_is_the_golden_one():
    acquisition, scanner = Acquisition(n_shots=13), Scanner()
    first = radial(acquisition, scanner, angle="tiny-golden", golden_index=1)
    assert first.points.equal(radial(acquisition, scanner, angle="golden").points)


@pytest.mark.parametrize("index", [2, 7])
def test_tiny_golden_spokes_leave_gaps_of_at_most_three_sizes(index):
    found = np.sort(angles(radial(Acquisition(n_shots=40), Scanner(), angle="tiny-golden", golden_index=index)) % 180)
    gaps = np.diff(np.append(found, found[0] + 180))
    sizes = np.unique(gaps.round(6))
    assert len(sizes) <= 3
    assert sizes.max() < 3 * 180 / 40


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="golden_index is 0; it is at least 1"):
        radial(Acquisition(), Scanner(), angle="tiny-golden", golden_index=0)
    with pytest.raises(ConfigError, match="2D; take angle = 'golden'"):
        radial(Acquisition((0.2,) * 3, (32,) * 3), Scanner(), angle="tiny-golden")
