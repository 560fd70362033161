"""The brightness by which images are divided: a power of two, of any size."""

import pytest
import torch

from trajdesign.reconstruction.brightness import brightness


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.9, 1.0), (1.1, 2.0), (3e-9, 2.0**-28), (3e-25, 2.0**-81), (7e7, 2.0**27), (1e25, 2.0**84)],
)
def test_the_brightest_pixel_comes_between_a_half_and_one(value, wanted):
    images = torch.zeros(1, 2, 4, 4, dtype=torch.complex64)
    images[0, 0, 1, 2], images[0, 1, 1, 2] = 0.6 * value, 0.8j * value  # whose root sum of squares is `value`
    assert float(brightness(images)) == wanted


def test_each_image_has_its_own_and_black_ones_stay_finite():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.complex64)
    images[0, 0, 0, 0], images[1, 0, 1, 1] = 3, 5
    assert brightness(images)[:2].flatten().tolist() == [4, 8]
    assert (images / brightness(images))[2].abs().max() == 0
