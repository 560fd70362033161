"""K-space that was measured as a whole, and over which field of view."""

import h5py
import numpy as np
import pytest

from trajdesign import Acquisition
from trajdesign.data.grid import center_fit, fit_matrix
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.errors import InputError

ACQUISITION = Acquisition(matrix=(48, 48))


def fourier(n):
    """Matrix of the centred orthonormal discrete Fourier transform."""
    at = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(at, at) / n) / np.sqrt(n)


def h5_of(path, kspace, xml=None, **arrays):
    """Write k-space (coil, y, x) of one slice as fastMRI does."""
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None].astype(np.complex64)
        for name, values in {"ismrmrd_header": xml, **arrays}.items():
            if values is not None:
                file[name] = values
    return str(path)


def masked(shape, keep):
    """Return random k-space (coil, y, x) where `keep(y, x)`, counted from the centre, and zeros elsewhere."""
    kspace = np.random.default_rng(0).normal(size=(2, *shape)) + 1j
    y, x = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in shape)]
    return kspace * (keep(y, x) & np.ones(shape, bool))


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (lambda y, x: x >= -15, "slice 0 along x has 15 of 48 positions before .* partial Fourier"),
        (lambda y, x: x < 18, "along x has 24 of 48 positions before the centre of k-space and 18 from"),
        (lambda y, x: y >= -30, "along y has 30 of 96 positions before"),
        (lambda y, x: x % 2 == 0, "line 1 along x of slice 0 was not measured, or is zero, one of 23 between lines"),
        (
            lambda y, x: (x % 4 == 0) | (abs(x) < 8),
            "line 1 along x of slice 0 was not measured, or is zero, one of 21 between lines",
        ),
        (lambda y, x: x != 3, "line 27 along x of slice 0 was not measured, or is zero, one of 1 between lines"),
        (lambda y, x: (y / 48) ** 2 + (x / 24) ** 2 <= 1, "2[0-9]% of slice 0 .* elliptical"),
    ],
)
def test_kspace_that_was_not_measured_as_a_whole_is_refused(tmp_path, keep, sentence):
    file = h5_of(tmp_path / "a.h5", masked((96, 48), keep))
    with pytest.raises(InputError, match=sentence) as caught:
        fastmri(ACQUISITION, "test", test=[file])
    assert "give them to 'images'" in str(caught.value)


@pytest.mark.parametrize(
    "keep",
    [
        lambda y, x: (x >= -20) & (x < 17),  # as fastMRI's files are padded
        lambda y, x: abs(y) < 30,
        lambda y, x: (x + 3 * y) % 41 != 0,  # noise of whole numbers is zero here and there
    ],
)
def test_kspace_padded_with_zeros_on_both_sides_is_that_of_a_lower_resolution(tmp_path, keep):
    kspace = masked((48, 48), keep)
    found = fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "a.h5", kspace)])[0].numpy()
    image = fourier(48).conj().T @ kspace @ fourier(48).conj()
    np.testing.assert_allclose(found, image / np.sqrt((np.abs(image) ** 2).sum(0)).max(), atol=1e-5)


def test_a_mask_that_leaves_out_columns_is_refused(tmp_path):
    kspace, mask = masked((48, 48), lambda y, x: True), np.arange(48) % 4 == 0
    with pytest.raises(InputError, match="its mask leaves out columns"):
        fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "a.h5", kspace, mask=mask)])
    assert len(fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "b.h5", kspace, mask=mask | True)])) == 1


def fastmri_header(encoded=(640, 368), encoded_fov=(280, 161), recon=(320, 320), fov=(140, 140), lines=(0, 321, 161)):
    limits = "".join(f"<{name}>{n}</{name}>" for name, n in zip(("minimum", "maximum", "center"), lines, strict=True))
    spaces = "".join(
        f"<{name}><matrixSize><x>{matrix[0]}</x><y>{matrix[1]}</y><z>1</z></matrixSize>"
        + (f"<fieldOfView_mm><x>{size[0]}</x><y>{size[1]}</y><z>4.5</z></fieldOfView_mm>" if size else "")
        + f"</{name}>"
        for name, matrix, size in (("encodedSpace", encoded, encoded_fov), ("reconSpace", recon, fov))
    )
    return (
        f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>{spaces}<encodingLimits><kspace_encoding_step_1>'
        f"{limits}</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"
    )


@pytest.mark.parametrize(
    ("shape", "facts", "crop"),
    [
        ((640, 368), {}, (320, 320)),
        ((640, 368), {"encoded_fov": (), "fov": ()}, (320, 320)),  # by the matrices, as fastMRI's own code
        ((640, 322), {}, (320, 280)),  # as many columns as lines were measured: 161 mm of them, 140 wanted
        ((320, 320), {}, (320, 320)),  # without oversampling
        ((640, 320), {}, (320, 320)),
    ],
)
def test_the_field_of_view_is_that_of_the_array_whatever_the_header_calls_its_matrix(tmp_path, shape, facts, crop):
    kspace = masked(shape, lambda y, x: (abs(y) < 30) & (abs(x) < 30))
    acquisition = Acquisition(fov=(0.14, 0.14), matrix=(64, 64))
    found = fastmri(acquisition, "test", test=[h5_of(tmp_path / "a.h5", kspace, fastmri_header(**facts))])
    image = center_fit(fourier(shape[0]).conj().T @ kspace @ fourier(shape[1]).conj(), crop)
    expected = fit_matrix(image, (140 / crop[0], 140 / crop[1]), acquisition)
    np.testing.assert_allclose(found[0].numpy(), expected / np.sqrt((np.abs(expected) ** 2).sum(0)).max(), atol=1e-5)


def test_a_header_of_another_array_is_refused(tmp_path):
    file = h5_of(tmp_path / "a.h5", masked((96, 48), lambda y, x: True), fastmri_header())
    with pytest.raises(InputError, match=r"96 x 48 samples, but its ISMRMRD header is of .* 640 x 368 .* 320 x 320"):
        fastmri(ACQUISITION, "test", test=[file])


def filled(kspace, keep, level=1e-9):
    """Return k-space (coil, y, x) with noise of `level` times its peak where it was not measured."""
    draw = np.random.default_rng(1).normal(size=(2, *kspace.shape))
    y, x = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in kspace.shape[1:])]
    return np.where(keep(y, x), kspace, level * np.abs(kspace).max() * (draw[0] + 1j * draw[1]))


@pytest.mark.parametrize("level", [1e-9, 1e-12])
@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (lambda y, x: x >= -10 + 0 * y, "slice 0 along x has 10 of 48 positions before .* partial Fourier"),
        (
            lambda y, x: x % 2 == 0 * y,
            "line 1 along x of slice 0 was not measured, or is zero, one of 23 between lines",
        ),
        (lambda y, x: (y / 24) ** 2 + (x / 24) ** 2 <= 1, "2[0-9]% of slice 0 .* elliptical"),
    ],
)
def test_what_was_filled_up_with_nearly_nothing_is_not_measured(tmp_path, keep, sentence, level):
    kspace = filled(masked((48, 48), lambda y, x: True), keep, level)
    with pytest.raises(InputError, match=sentence):
        fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "a.h5", kspace)])


@pytest.mark.parametrize("width", [3, 6, 12])
def test_an_object_without_noise_is_measured_however_small_its_kspace_gets(tmp_path, width):
    at = np.arange(48) - 24
    blob = np.exp(-(at[:, None] ** 2 + at**2) / (2 * width**2))  # k-space falls to 1e-9 of the peak and below
    box = (abs(at[:, None] + 0.5) < width) & (abs(at + 0.5) < width)  # ... and is zero on lines between others
    for n, image in enumerate((blob, box)):
        kspace = (fourier(48) @ image @ fourier(48).T)[None]
        found = fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / f"{n}.h5", kspace)])[0].numpy()
        np.testing.assert_allclose(np.abs(found[0]), image / image.max(), atol=1e-5)


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (lambda y, x: x < 6, "line 30 along x of slice 0 is zero in coil 1, one of 18 that other coils measured"),
        (lambda y, x: y >= -6, "line 0 along y of slice 0 is zero in coil 1, one of 18 that"),
        (lambda y, x: x % 3 == 0, "line 1 along x of slice 0 is zero in coil 1, one of 32 that"),
    ],
)
def test_parts_that_one_coil_lacks_are_refused(tmp_path, keep, sentence):
    kspace = masked((48, 48), lambda y, x: True)
    kspace[1] = masked((48, 48), keep)[1]
    with pytest.raises(InputError, match=sentence):
        fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "a.h5", kspace)])


def test_coils_of_hardly_any_signal_lack_nothing(tmp_path):
    kspace = masked((48, 48), lambda y, x: True)
    dead, weak = kspace.copy(), kspace.copy()
    dead[1], weak[1] = 0, np.round(0.4 * kspace[1].real)  # whole numbers, of which most are zero
    weak[1, 22:26, 22:26] = 50
    assert (weak[1] == 0).all(0).any() or (weak[1] == 0).mean() > 0.5
    for n, found in enumerate((dead, weak)):
        assert len(fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / f"{n}.h5", found)])) == 1


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_kspace_whose_centre_is_at_the_corner_is_refused(tmp_path, axes):
    at = np.arange(48) - 24
    image = (at[:, None] ** 2 + (at / 0.8) ** 2 < 15**2) * (1.0 + 0.3 * np.sin(at))
    noise = 1e-3 * masked((48, 48), lambda y, x: True)
    kspace = fourier(48) @ image @ fourier(48).T + noise
    assert len(fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "a.h5", kspace)])) == 1
    shifted = np.fft.ifftshift(kspace, axes=[1 + axis for axis in axes])
    with pytest.raises(
        InputError, match=f"slice 0 along {'yx'[axes[0]]} has its energy at the ends .* .np.fft.fftshift"
    ):
        fastmri(ACQUISITION, "test", test=[h5_of(tmp_path / "b.h5", shifted)])


@pytest.mark.parametrize("size", ["0", "-280", "nan", "inf", "0.28", "28000"])
@pytest.mark.parametrize("space", ["encoded_fov", "fov"])
def test_a_field_of_view_that_is_none_is_refused(tmp_path, size, space):
    kspace = masked((640, 368), lambda y, x: (abs(y) < 30) & (abs(x) < 30))
    file = h5_of(tmp_path / "a.h5", kspace, fastmri_header(**{space: (size, 161)}))
    with pytest.raises(InputError, match=r"a field of view in its ISMRMRD header is .* from 2 to 5000 mm; is it in mm"):
        fastmri(ACQUISITION, "test", test=[file])
