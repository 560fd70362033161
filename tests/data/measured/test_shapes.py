"""Raw data in arrays, against the numbers that were written."""

import shutil
import subprocess

import numpy as np
import pytest
from attacks.commands import require_one_line
from real_data import real
from twix_files import samples

from trajdesign.data.measured.reading import read
from trajdesign.errors import InputError


def numbers(*shape):
    return samples(1, 1, int(np.prod(shape))).reshape(shape)


def write_bart(path, array):
    """Write an array with its axes in BART's order, of which the first counts fastest."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, array.shape))}\n")
    path.write_bytes(array.astype("<c8").tobytes(order="F"))
    return path


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (6, 2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["npy", "npz", "capitals"])
def test_the_shape_says_which_shot_is_which(tmp_path, shape, kind):
    kspace = numbers(*shape)
    path = tmp_path / {"npy": "a.npy", "npz": "a.npz", "capitals": "A.NPY"}[kind]
    if kind == "npz":
        np.savez(path, anything=kspace.astype(np.complex128))
    else:
        with path.open("wb") as stream:
            np.save(stream, kspace)
    found = read(path)
    n_repetitions, n_slices = (1, 1, *shape[:-3])[-2:]
    assert (found.kind, found.layout) == ("array", (n_repetitions, n_slices, 4))
    assert (found.events.shape, found.events.dtype) == ((n_repetitions * n_slices * 4, 3, 5), np.complex64)
    whole = kspace.reshape(n_repetitions, n_slices, 3, 4, 5)
    for repetition, s, shot in ((0, 0, 0), (0, 0, 3), (n_repetitions - 1, n_slices - 1, 2)):
        event = found.events[(repetition * n_slices + s) * 4 + shot]
        np.testing.assert_array_equal(event, whole[repetition, s, :, shot])
    assert (found.dwell, found.noise, found.oversampling, found.flags) == (None, None, None, {})
    assert found.discard.tolist() == [[0, 0]] * len(found.events)


def test_of_several_arrays_the_one_called_kspace_is_read(tmp_path):
    kspace = numbers(3, 4, 5)
    np.savez(tmp_path / "a.npz", kspace=kspace, mask=np.ones(3))
    np.testing.assert_array_equal(read(tmp_path / "a.npz").events, kspace.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": numbers(1, 2, 3), "b": numbers(1, 2, 3)}, r"the arrays 'a', 'b'; call the one of raw data 'kspace'"),
        ({"a": np.ones((1, 2, 3))}, "holds float64, but raw data are complex"),
        ({"a": numbers(2, 3)}, r"an array of shape \(2, 3\); raw data are \(coil, shot, sample\)"),
        ({"a": numbers(1, 1, 1, 1, 1, 2)}, r"an array of shape \(1, 1, 1, 1, 1, 2\)"),
        ({"a": np.zeros((0, 2, 3), complex)}, r"an array of shape \(0, 2, 3\)"),
        ({"a": np.full((1, 2, 3), 1e300 + 0j)}, "sample 0 of coil 0 in event 0 is not finite"),
        ({"a": np.array([[[1, 2, 3], [4, 5, complex(0, np.inf)]]])}, "sample 2 of coil 0 in event 1 is not finite"),
    ],
)
def test_arrays_that_are_no_raw_data_are_refused(tmp_path, content, sentence):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path / "a.npz")
    require_one_line(caught.value)


def test_axes_of_bart(tmp_path):
    # Cartesian: sample, line, 1, coil; 10 is time, 13 the slice
    kspace = numbers(5, 4, 1, 3, *[1] * 6, 2, 1, 1, 6)
    found = read(write_bart(tmp_path / "a.cfl", kspace))
    assert (found.kind, found.layout, found.events.shape) == ("bart", (2, 6, 4), (48, 3, 5))
    for time, s, line in ((0, 0, 0), (1, 0, 3), (0, 5, 1), (1, 5, 2)):
        wanted = kspace[:, line, 0, :, 0, 0, 0, 0, 0, 0, time, 0, 0, s].T
        np.testing.assert_array_equal(found.events[(time * 6 + s) * 4 + line], wanted)
    # not Cartesian: 1, sample, shot, coil
    kspace = numbers(1, 5, 4, 3)
    found = read(write_bart(tmp_path / "a.cfl", kspace))
    assert found.layout == (1, 1, 4)
    np.testing.assert_array_equal(found.events, kspace[0].transpose(1, 2, 0))
    assert read(write_bart(tmp_path / "a.cfl", numbers(1, 5))).events.shape == (1, 1, 5)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((5, 4, 2, 3), r"2 of axis 2 \(second phase encoding\)"),
        ((1, 5, 4, 3, 2), r"2 of axis 4 \(map\)"),
        ((5, 4, 1, 3, 1, 2, *[1] * 8, 3), r"2 of axis 5 \(echo time\) and 3 of axis 14 \(average\)"),
    ],
)
def test_axes_of_bart_that_are_no_shots_are_refused(tmp_path, shape, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read(write_bart(tmp_path / "a.cfl", numbers(*shape)))
    require_one_line(caught.value)


def test_shots_of_bart_itself(tmp_path):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    for words in (["traj", "-r", "-x", "16", "-y", "5", "k"], ["phantom", "-k", "-s", "3", "-t", "k", "data"]):
        subprocess.run(["bart", *words], cwd=tmp_path, check=True)
    assert read(tmp_path / "data.cfl").sizes == [(3, 16)] * 5


def test_a_real_head_has_its_lines_in_order():
    path = real("pulseq_raw/brain_16ch_flash_128.npz")
    found = read(path)
    assert (found.layout, found.events.shape) == ((1, 1, 128), (128, 16, 128))
    with np.load(path) as file:
        np.testing.assert_array_equal(found.events, file["kspace"].transpose(1, 0, 2))


@pytest.mark.parametrize("name", ["a.7", "a.raw", "a", "a.hdr"])
def test_files_of_other_kinds_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(InputError, match=r"is no raw data by its name; known are \.dat, \.h5, .* GE and Philips"):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    for name in ("a.dat", "a.h5", "a.npy", "a.npz", "a.cfl"):
        with pytest.raises(InputError, match=r"a\.(dat|h5|npy|npz|hdr) does not exist"):
            read(tmp_path / name)
