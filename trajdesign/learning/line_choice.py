"""Which rows of k-space to sample, chosen one after the other by what they do to images."""

import math

import torch
from torch import Tensor

from trajdesign.reconstruction import coils
from trajdesign.runtime import memory

#: Weight of the squared image beside the data of a full sampling, as that of `cg_sense`.
_REGULARIZATION = 0.01
#: Columns of an image with less than this part of the strongest column's energy hold next to nothing.
_EMPTY = 0.01
_TINY = 1e-12


class LineChoice:
    """Rows of k-space, and the error that they leave in columns of images, each column solved by itself.

    With lines along x, what is sampled of the Fourier transform along y decides about each column of an image alone. A
    set of rows M leaves of a column x, seen by coils with maps, the regularized least squares of SENSE (Pruessmann et
    al., MRM 2001, doi:10.1002/mrm.1241): minimal in sum over rows r in M of ||V_r^H x - y_r||^2 + 0.01 ||x||^2, V_r^H
    being the maps and a row of the Fourier matrix. A row more or less changes the inverse of its normal matrix by as
    many ranks as there are coils (Woodbury's identity). So the solution with every other row added, or taken away, is
    known exactly without solving anything anew.

    The error is the mean, over the images, of the logarithm of the squared error of their columns: the PSNR, but for a
    factor.

    Parameters
    ----------
    images
        Coil images (image, coil, y, x), complex.
    n_columns
        Columns of each image that are solved, evenly among those with signal.
    noise
        Standard deviation of the complex noise of a pixel in a fully sampled image of one coil, always the same noise.
    """

    def __init__(self, images: Tensor, *, n_columns: int, noise: float = 0.0) -> None:
        images = images.to(torch.complex128)  # in single precision errors would be off by per cents
        maps = coils.smooth_maps(coils.calibration_scan(images, noise, list(range(len(images)))), images.shape[2:])
        parts = [_columns_with_signal(image, n_columns) for image in images]
        n_solved, n_coils, n_rows = sum(map(len, parts)), *images.shape[1:3]
        memory.require(
            16 * n_solved * n_rows * (4 * n_rows + 3 * n_coils**2),
            f"{n_solved} columns of {n_rows} pixels and {n_coils} coils",
            "take fewer parameterization.n_images or n_columns",
        )
        noisy = images + _noise(images, noise)
        seen, data, whole = (
            torch.cat([one[:, :, part].permute(2, 0, 1) for one, part in zip(every, parts, strict=True)])
            for every in (maps, _transform(noisy), images)
        )
        self._image = torch.repeat_interleave(torch.tensor([len(part) for part in parts], device=images.device))
        self._maps, self._data = seen, data  # (column, coil, y), (column, coil, row)
        self._weight = seen.abs().square().sum(1)
        self._truth = (seen.conj() * whole).sum(1) / self._weight.clamp_min(_TINY)
        self._fourier = _transform(torch.eye(n_rows, dtype=seen.dtype, device=seen.device))  # (row, y)
        self._eye = torch.eye(n_coils, dtype=seen.dtype, device=seen.device)
        self._clear()

    def _clear(self) -> None:
        """Take all rows away."""
        n_solved, _, n_rows = self._maps.shape
        identity = torch.eye(n_rows, dtype=self._maps.dtype, device=self._maps.device)
        self.rows: list[int] = []
        self._inverse = (identity / _REGULARIZATION).repeat(n_solved, 1, 1)  # P (column, y, y)
        self._solution = torch.zeros_like(self._maps[:, 0])
        # V_r^H P V_r of every row (column, row, coil, coil), which without rows is the same for all
        gram = self._maps @ self._maps.mH / (n_rows * _REGULARIZATION)
        self._gram = gram[:, None].repeat(1, n_rows, 1, 1)

    def error(self) -> float:
        """Return the error of the present rows."""
        return float(self._mean_log(self._solution[..., None])[0])

    def errors(self, sign: int) -> Tensor:
        """Return the error (row,) with each row added, with ``sign = 1``, or taken away, with -1."""
        left = (self._data - _transform(self._maps * self._solution[:, None], -1)).transpose(1, 2)
        pulls = torch.linalg.solve(self._eye + sign * self._gram, left[..., None])[..., 0]
        changes = (pulls @ self._maps.conj()) * self._fourier.conj()  # V_r pull (column, row, y)
        return self._mean_log(self._solution[..., None] + sign * (self._inverse @ changes.mT))

    def add(self, row: int) -> None:
        """Sample one more row."""
        of_row = (self._maps * self._fourier[row]).mH  # V_r (column, y, coil)
        reach = self._inverse @ of_row
        inner = torch.linalg.inv(self._eye + of_row.mH @ reach)
        left = self._data[:, :, row] - (of_row.mH @ self._solution[..., None])[..., 0]
        self._solution = self._solution + (reach @ (inner @ left[..., None]))[..., 0]
        between = _transform(self._maps[..., None] * reach[:, None]).transpose(1, 2)  # V_s^H P V_r of every row s
        self._inverse = self._inverse - reach @ (inner @ reach.mH)
        self._gram = self._gram - between @ (inner[:, None] @ between.mH)
        self.rows = sorted([*self.rows, row])

    def drop(self, row: int) -> None:
        """Sample a row no more.

        The others are added anew: to take one out of the inverse would multiply its rounding by the square of one over
        the regularization.
        """
        others = [other for other in self.rows if other != row]
        self._clear()
        for other in others:
            self.add(other)

    def add_best(self) -> int:
        """Add the row that leaves the least error, and return it."""
        errors = self.errors(1)
        errors[self.rows] = math.inf
        self.add(best := int(errors.argmin()))
        return best

    def drop_least(self) -> int:
        """Drop the row without which the error is the least, and return it."""
        errors = self.errors(-1)
        self.drop(least := self.rows[int(errors[self.rows].argmin())])
        return least

    def choose(self, n_rows: int, n_exchanges: int) -> list[int]:
        """Return `n_rows` rows, rising: added one by one, then exchanged while that lowers the error.

        An exchange adds the best row and takes the least one away.
        """
        while len(self.rows) < n_rows:
            self.add_best()
        for _ in range(n_exchanges if n_rows < len(self._fourier) else 0):
            if self.add_best() == self.drop_least():
                break
        return self.rows

    def _mean_log(self, solutions: Tensor) -> Tensor:
        """Return the error (row,) of solutions (column, y, row)."""
        away = solutions - self._truth[..., None]
        squared = (self._weight[..., None] * (away.real.square() + away.imag.square())).sum(1)
        of_image = squared.new_zeros(int(self._image[-1]) + 1, squared.shape[1]).index_add_(0, self._image, squared)
        return of_image.clamp_min(_TINY).log().mean(0)


def _columns_with_signal(image: Tensor, n: int) -> Tensor:
    """Return up to `n` columns of an image (coil, y, x), evenly among those with signal."""
    energy = image.abs().square().sum((0, 1))
    columns = torch.nonzero(energy >= _EMPTY * energy.max())[:, 0]
    return columns[torch.linspace(0, len(columns) - 1, min(n, len(columns)), device=image.device).round().long()]


def _noise(like: Tensor, level: float) -> Tensor:
    parts = torch.randn(*like.shape, 2, dtype=like.real.dtype, generator=torch.Generator().manual_seed(0))
    return torch.view_as_complex(parts).to(like.device) * (level / math.sqrt(2))


def _transform(values: Tensor, axis: int = -2) -> Tensor:
    """Return the orthonormal Fourier transform along an axis, k = 0 at n // 2, as of pixels."""
    spectrum = torch.fft.fft(torch.fft.ifftshift(values, dim=axis), dim=axis, norm="ortho")
    return torch.fft.fftshift(spectrum, dim=axis)
