import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from trajdesign.errors import ConfigError, InputError
from trajdesign.reconstruction.metrics import has_signal, image_loss, nrmse, psnr, ssim, wilcoxon_p


@pytest.fixture
def pair():
    """Two batches of three images with structure, noise and an empty background."""
    generator = np.random.default_rng(1)
    reference = np.abs(gaussian_filter(generator.normal(size=(3, 1, 60, 47)), (0, 0, 2, 2)))
    reference[:, :, :, 35:] = 0
    reference *= np.array([1.0, 0.3, 250.0])[:, None, None, None] / reference.max()
    image = reference + 0.05 * reference.max((1, 2, 3), keepdims=True) * generator.normal(size=reference.shape)
    return image, reference


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_metrics_are_those_of_scikit_image(pair, dtype, tolerance):
    image, reference = pair
    tensors = [torch.from_numpy(a).to(dtype) for a in pair]
    for n, (x, y) in enumerate(zip(image[:, 0], reference[:, 0], strict=True)):
        peak = y.max()
        expected = structural_similarity(x, y, data_range=peak)
        assert ssim(*tensors)[n].item() == pytest.approx(expected, abs=tolerance)
        expected = peak_signal_noise_ratio(y, x, data_range=peak)
        assert psnr(*tensors)[n].item() == pytest.approx(expected, rel=tolerance)
        assert nrmse(*tensors)[n].item() == pytest.approx(normalized_root_mse(y, x), rel=tolerance)


def test_a_data_range_may_be_one_number_or_one_for_each_image(pair):
    image, reference = (torch.from_numpy(a) for a in pair)
    for metric in (ssim, psnr):
        single = metric(image, reference, 2.0)
        each = metric(image, reference, torch.tensor([2.0, 2.0, 2.0]))
        torch.testing.assert_close(single, each)
    expected = structural_similarity(pair[0][1, 0], pair[1][1, 0], data_range=2.0)
    assert ssim(image, reference, 2.0)[1].item() == pytest.approx(expected, abs=1e-10)


def test_equal_images_are_perfect(pair):
    reference = torch.from_numpy(pair[1])
    assert torch.isinf(psnr(reference, reference)).all()
    torch.testing.assert_close(ssim(reference, reference), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(nrmse(reference, reference), torch.zeros(3, dtype=torch.float64))
    assert image_loss(reference, reference, 1.0).item() == pytest.approx(0, abs=1e-12)


def test_the_loss_passes_gradients():
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 1, 9, 10, generator=generator, dtype=torch.float64)
    image = torch.rand(2, 1, 9, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: image_loss(x, reference, 0.7), image)


def test_the_loss_is_l1_and_ssim(pair):
    image, reference = (torch.from_numpy(a) for a in pair)
    l1 = np.abs(pair[0] - pair[1]).mean()
    assert image_loss(image, reference, 0.0).item() == pytest.approx(l1)
    expected = l1 + 0.3 * (1 - ssim(image, reference).mean().item())
    assert image_loss(image, reference, 0.3).item() == pytest.approx(expected)


def test_wrong_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"\(batch, 1, y, x\)"):
        psnr(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 9))
    with pytest.raises(ConfigError, match=r"\(batch, 1, y, x\)"):
        nrmse(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ConfigError, match="7 pixels"):
        ssim(torch.zeros(2, 1, 6, 8), torch.zeros(2, 1, 6, 8))


def test_wilcoxon_p_of_a_clear_win_is_that_of_all_signs_alike():
    fixed = [30.0, 28.5, 31.25, 27.0, 29.5, 33.0, 26.0]
    learned = [value + 0.1 * (n + 1) for n, value in enumerate(fixed)]
    assert wilcoxon_p(learned, fixed) == pytest.approx(2 / 2**7)
    assert wilcoxon_p(fixed, learned) == pytest.approx(2 / 2**7)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 40])
def test_wilcoxon_p_takes_zeros_and_ties_without_warning(n):
    fixed = list(np.random.default_rng(n).normal(size=n))
    learned = [value + (0.5 if k % 3 else 0.0) for k, value in enumerate(fixed)]
    assert 0 < wilcoxon_p(learned, fixed) <= 1
    assert wilcoxon_p(fixed, fixed) == 1.0


def test_wilcoxon_p_takes_perfect_reconstructions():
    assert wilcoxon_p([np.inf, 30.0], [np.inf, 30.0]) == 1.0
    assert wilcoxon_p([np.inf, 31.0, 32.0], [40.0, 30.0, 30.0]) == pytest.approx(2 / 2**3)


def test_wilcoxon_p_refuses_what_cannot_be_paired():
    with pytest.raises(InputError, match="paired"):
        wilcoxon_p([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="paired"):
        wilcoxon_p([], [])
    with pytest.raises(InputError, match="image 1"):
        wilcoxon_p([1.0, float("nan")], [1.0, 2.0])


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_an_image_without_signal_is_one_whose_single_grey_value_scores_46_db(level):
    flat, edge = torch.full((2, 1, 16, 16), level), torch.full((2, 1, 16, 16), level)
    edge[0, ..., :8] += 0.0099
    edge[1, ..., :8] += 0.0101
    assert has_signal(edge).tolist() == [False, True]
    assert not has_signal(flat).any()
    middle = edge.mean((1, 2, 3), keepdim=True).expand_as(edge)
    assert psnr(middle, edge, 1.0).tolist() == pytest.approx([46.11, 45.93], abs=0.01)
