"""Films as a background of low rank and a motion of few temporal frequencies."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction import axes
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.sense import with_maps

#: Steps of the power method. What it finds is at most the largest eigenvalue, and half of that would do: see `parts`.
_POWER_STEPS = 5
#: Added to what black images would divide by.
_TINY = 1e-20


class LowRankSparse(Reconstructor):
    r"""Low-rank plus sparse reconstruction of films (Otazo et al., MRM 2015, doi:10.1002/mrm.25240).

    It seeks the films L, what is much alike in all frames, and S, what moves, that make

    .. math:: \tfrac12 \lVert E (L + S) - y \rVert_W^2 + \lambda_L \lVert L \rVert_* + \lambda_S \lVert F S \rVert_1

    least, E being the coil maps and the NUFFT of each frame, the nuclear norm that of the matrix (frame, pixel), and F
    the orthonormal Fourier transform over the frames. It returns the root sum of squares of the coil images of L + S.
    Each iteration is a step down the gradient, after which singular values and temporal frequencies shrink by a
    threshold. There is nothing to learn; the trajectory's gradient goes through every iteration. Coil maps are those of
    ``training.coil_maps``, else estimated from the measurement.

    Parameters
    ----------
    iterations
        Steps, from zero. Few regularize too.
    low_rank
        The weight of L, as a part of the largest singular value of E^H W y.
    sparse
        The weight of S, as a part of the largest value of F E^H W y.

    Raises
    ------
    ConfigError
        If `iterations` is below one, or a weight not between 0 and 1; and if images are no films.
    """

    def __init__(self, *, iterations: int = 60, low_rank: float = 0.01, sparse: float = 0.005) -> None:
        super().__init__()
        if iterations < 1 or not 0 < low_rank < 1 or not 0 < sparse < 1:
            raise ConfigError(
                f"reconstructor.iterations is {iterations}, low_rank {low_rank}, sparse {sparse}: iterations is 1 or "
                "more, the others are between 0 and 1."
            )
        self.iterations, self.low_rank, self.sparse = iterations, low_rank, sparse

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        if encoding.acquisition.n_frames == 1:
            raise ConfigError(
                "reconstructor low_rank_sparse is for films, and acquisition.n_frames is 1: take another reconstructor."
            )
        sense, maps = with_maps(images, encoding)
        background, motion = self.parts((maps.conj() * images).sum(dim=1, keepdim=True), sense)
        return root_sum_of_squares(maps * (background + motion))

    def parts(self, combined: Tensor, sense: Encoding) -> tuple[Tensor, Tensor]:
        """Return L and S of E^H W y, the `combined` film, all (batch, 1, frame, y, x), complex; `sense` has coil maps.

        The steps are so short that L and S may both take them, each as if the other stood still.
        """
        step = 0.5 / _largest_eigenvalue(sense, combined)
        largest = torch.linalg.eigvalsh(_gram(combined))[:, -1].clamp_min(_TINY).sqrt()[:, None, None, None, None]
        singular_value = step * self.low_rank * largest
        frequency = step * self.sparse * _over_time(combined).abs().amax(axes.of_image(combined), keepdim=True)
        background = motion = torch.zeros_like(combined)
        for _ in range(self.iterations):
            change = step * (combined - sense.normal(background + motion))
            background = _shrink_singular_values(background + change, singular_value)
            motion = _shrink_frequencies(motion + change, frequency + _TINY)
        return background, motion


@torch.no_grad()
def _largest_eigenvalue(sense: Encoding, like: Tensor) -> Tensor:
    """Return a little less than the largest eigenvalue of the normal operator (batch, 1, 1, 1, 1), a constant."""
    start = torch.randn(like.shape[1:], dtype=like.dtype, generator=torch.Generator().manual_seed(0))
    image = start.to(like.device).expand_as(like)
    for _ in range(_POWER_STEPS):
        image = sense.normal(image / _norm(image))
    return _norm(image)


def _norm(film: Tensor) -> Tensor:
    return torch.linalg.vector_norm(film, dim=axes.of_image(film), keepdim=True) + _TINY


def _gram(film: Tensor) -> Tensor:
    """Return the inner products of the frames (batch, frame, frame) of a film (batch, 1, frame, y, x)."""
    frames = film[:, 0].flatten(2)
    return frames @ frames.mH


def _shrink_singular_values(film: Tensor, threshold: Tensor) -> Tensor:
    """Take `threshold` off each singular value of the matrix (frame, pixel), down to zero.

    The small matrix that does so is made of the products of frames: that takes no decomposition of the film itself.
    """
    frames = film[:, 0].flatten(2)
    return (_Shrinkage.apply(_gram(film / threshold)) @ frames).view(film.shape)


def _shrink_frequencies(film: Tensor, threshold: Tensor) -> Tensor:
    """Take `threshold` off the magnitude of each temporal frequency of each pixel, down to zero."""
    spectrum = _over_time(film)
    spectrum = spectrum * (1 - threshold / torch.maximum(spectrum.abs(), threshold))
    return torch.fft.ifft(spectrum, dim=2, norm="ortho")


def _over_time(film: Tensor) -> Tensor:
    """Return the spectrum of each pixel over the frames."""
    return torch.fft.fft(film, dim=2, norm="ortho")


class _Shrinkage(torch.autograd.Function):
    """The function max(1 - 1 / sqrt(x), 0) of Hermitian matrices (batch, n, n).

    Its gradient is that of the whole function, by divided differences (Daleckii and Krein 1965). It is finite where
    eigenvalues are the same, where those of the eigenvectors are not.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(values, vectors)
        return (vectors * (1 - values.clamp_min(1).rsqrt())[:, None].to(vectors)) @ vectors.mH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        a, b = values[:, :, None], values[:, None, :]
        kept_a, kept_b = a.clamp_min(1), b.clamp_min(1)
        # of f(a) - f(b) over a - b, the part that lies above 1
        above = torch.where(a == b, (a > 1).to(a), ((kept_a - kept_b) / (a - b)).clamp(0, 1))
        slope = above / ((kept_a * kept_b).sqrt() * (kept_a.sqrt() + kept_b.sqrt()))
        return vectors @ (slope * (vectors.mH @ grad @ vectors)) @ vectors.mH
