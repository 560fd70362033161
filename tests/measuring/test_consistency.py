"""What images leave of the data, counted by hand."""

import math

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.measuring import consistency
from trajdesign.measuring.consistency import Residual
from trajdesign.measuring.solving import encoding_at


def of(misfit, signal):
    """Return a residual of shots whose misfit and signal are given as powers."""
    return Residual(np.array(misfit, float), np.array(misfit, float), np.array(signal, float), np.array(signal, float))


def test_the_residual_of_one_pixel_is_a_sum_by_hand():
    # a pixel of 2 in the middle gives 2 everywhere; of the 8 samples of 3 its best explanation leaves 1 each
    k = torch.rand(2, 4, 2, dtype=torch.float64) * 20 - 10
    encoding = encoding_at(k, Acquisition((0.2, 0.2), (8, 8), 2, 4, 4e-6))
    image = torch.zeros(1, 1, 8, 8, dtype=torch.complex64)
    image[0, 0, 4, 4] = 2
    kspace = torch.full((1, 2, 4), 3, dtype=torch.complex64)
    kspace[0, 1, 0] = 2
    found = Residual()
    found.add(encoding, image, kspace)
    assert found.total == pytest.approx(math.sqrt(7 / (7 * 9 + 4)), rel=1e-4)
    assert found.per_shot() == pytest.approx([1 / 3, math.sqrt(3 / 31)], rel=1e-4)
    assert found.unexplained()["over_time"] == pytest.approx([math.sqrt(1 / 13), *[1 / 3] * 3], rel=1e-4)
    scaled = Residual()
    scaled.add(encoding, image / 7, kspace, scaled=True)  # the best is the mean, 23 / 8
    left = 7 * (1 / 8) ** 2 + (7 / 8) ** 2
    assert scaled.total == pytest.approx(math.sqrt(left / 67), rel=1e-4)


@pytest.mark.parametrize(
    ("left", "noise", "wrong"),
    [(0.034, 0.0, False), (0.036, 0.0, True), (0.10, 0.10, False), (0.10, 0.07, True), (0.5, 0.49, False)],
)
def test_the_rule_leaves_room_for_noise(left, noise, wrong):
    assert consistency.is_too_large(of([left**2], [1]), of([0.01**2], [1]), noise) == wrong


def test_shots_that_stand_out_come_worst_first():
    found = of([0.01, 0.25, 0.01, 0.01, 0.09], [1, 1, 1, 1, 1])
    assert consistency.outstanding(found, 0.0) == [1, 4]
    assert consistency.outstanding(found, 0.4) == [1]


def test_shots_in_each_others_place_are_found():
    # a pixel in the corner gives exp(i pi (kx + ky)) with k in 1 / field of view; here x of each shot is constant
    k = torch.zeros(4, 5, 2, dtype=torch.float64)
    k[..., 0] = torch.tensor([0.0, 0.5, 1.0, 1.5])[:, None] / 0.2
    encoding = encoding_at(k, Acquisition((0.2, 0.2), (8, 8), 4, 5, 4e-6))
    image = torch.zeros(1, 1, 8, 8, dtype=torch.complex64)
    image[0, 0, 0, 0] = 1
    kspace = torch.tensor([1, 1j, -1, -1j])[None, :, None].expand(1, 4, 5).to(torch.complex64)
    sound = Residual()
    sound.add(encoding, image, kspace)
    assert sound.exchanged == []
    apart = np.array([[0, 2, 4, 2], [2, 0, 2, 4], [4, 2, 0, 2], [2, 4, 2, 0]])  # |1 - i|^2 = 2, |1 + 1|^2 = 4
    assert sound.gained == pytest.approx(-5 * apart, abs=1e-3)
    found = Residual()
    found.add(encoding, image, kspace[:, [0, 3, 2, 1]])
    assert found.exchanged == [1, 3]
    assert consistency.is_too_large(found, sound, 0.0)
    assert consistency.outstanding(found, 0.0) == [1, 3]


def test_a_silent_shot_is_measured_by_the_others():
    assert of([0.4, 0.04], [0, 4]).per_shot() == pytest.approx([math.sqrt(2), 0.1])


def test_coils_that_see_nothing_are_told_from_those_that_see_little():
    k = torch.linspace(-1, 1, 201, dtype=torch.float64)[None, :, None].expand(4, -1, 2)
    peak = torch.exp(-50 * k[..., 0] ** 2).to(torch.complex64)
    noise = torch.randn(4, 201, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace = torch.stack([100 * peak + noise, noise, 4 * peak + noise, torch.zeros_like(noise)])[None]
    assert consistency.blind_coils(kspace, k) == [1, 3]


def test_shots_of_zeros_are_silent():
    kspace = torch.ones(2, 3, 4, 5, dtype=torch.complex64)
    kspace[1, :, 2] = 0
    assert consistency.silent_shots(kspace) == [2]
