"""What the readers of raw data share, against numbers written down by hand."""

import numpy as np
from twix_files import samples

from trajdesign.data.measured.measurement import flagged, joined, slices, stacked


def test_noise_of_several_events_is_one_row_of_samples_a_coil():
    first, second, other = samples(1, 2, 3)[0], samples(1, 2, 5, seed=1)[0], samples(1, 4, 3)[0]
    found = joined([first, other, second])
    assert found.shape == (2, 8)
    np.testing.assert_array_equal(found[:, :3], first)
    np.testing.assert_array_equal(found[:, 3:], second)
    assert joined([]) is None


def test_bits_of_one_name_are_one_flag():
    words = np.array([0b000, 0b001, 0b100, 0b110], np.uint64)
    found = flagged(words, {0: "noise", 1: "dummy", 2: "noise", 3: "reversed"})
    assert {name: flag.tolist() for name, flag in found.items()} == {
        "noise": [False, True, True, True],
        "dummy": [False, False, False, True],
    }


def test_slices_are_told_once_and_in_the_order_of_their_first_event():
    x, y, z = np.eye(3)
    position = np.array([(0, 0, 5), (0, 0, -5), (0, 0, 5), (0, 0, 9), (0, 0, np.inf)])
    normal = np.array([z, z, z, x, z])  # the fourth is not at right angles to the readout
    found = slices(position, np.tile(x, (5, 1)), np.tile(y, (5, 1)), normal)
    assert [of.position for of in found] == [(0, 0, 0.005), (0, 0, -0.005)]
    assert slices(position[:0], normal[:0], normal[:0], normal[:0]) == ()


def test_events_of_one_shape_are_one_array():
    assert stacked([np.zeros((2, 3))] * 4).shape == (4, 2, 3)
    assert [event.shape for event in stacked([np.zeros((2, 3)), np.zeros((2, 4))])] == [(2, 3), (2, 4)]
    assert stacked([]) == []
