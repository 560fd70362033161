r"""Off-resonance and decay in the encoding, by a few products of a function of time and a map.

Static fields turn the signal of a voxel at f(r), Hz, and T2* takes it away at the rate R(r), 1/s, over the time t since
the excitation, so that no single NUFFT computes what is sampled. But over a readout

.. math:: \exp(-2 \pi i f(r) t - R(r) |t|) \approx \sum_l b_l(t) c_l(r)

holds with few terms. The best :math:`b_l` are the singular vectors of the factor over the histogram of f and R (Fessler
et al., IEEE TSP 2005, doi:10.1109/TSP.2005.853152), and :math:`c_l` its least-squares coefficients. Here they are the
best of real vectors, once the factor is turned back by the mean frequency or that in the middle. Where frequencies lie
as often on either side, these are as good as complex ones, and make less work: see `trajdesign.encoding.mixing`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajdesign.encoding.interpolation import chebyshev_nodes, polynomials, series
from trajdesign.errors import ConfigError

# Bins of the histogram: of frequencies, and of rates where there are several.
_N_FREQUENCIES, _N_RATES = 201, 9
# Added to the part of the voxels in each bin, so that no part of the range is left out.
_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Segments:
    """The terms in time.

    Parameters
    ----------
    basis
        b (term, sample), complex128, orthonormal; real but for a factor of each sample that all share.
    times
        t of each sample (sample,), s, float64; 0 at the excitation, or at a spin echo.
    frequencies, rates
        Lowest and highest f, Hz, and R, 1/s, that they are made for.
    error
        The largest departure of the sum from the factor, over the range and all samples; the factor is 1 at most.
    """

    basis: Tensor
    times: Tensor
    frequencies: tuple[float, float]
    rates: tuple[float, float]
    error: float

    def maps(self, off_resonance: Tensor, rate: Tensor | float = 0.0) -> Tensor:
        """Return c (batch, term, y, x), complex128, of f (batch, y, x), Hz, and R, 1/s, of the same shape or a number.

        Raises
        ------
        ConfigError
            If a voxel is out of the range.
        """
        f = off_resonance.to(torch.float64)
        r = torch.as_tensor(rate, dtype=torch.float64, device=f.device).expand(f.shape)
        for values, (low, high), unit in ((f, self.frequencies, "Hz"), (r, self.rates, "1/s")):
            slack = 1e-9 * max(1.0, abs(low), abs(high))
            if not bool(((values >= low - slack) & (values <= high + slack)).all()):
                raise ConfigError(
                    f"a field reaches {float(values.min()):.4g} to {float(values.max()):.4g} {unit}; the terms are "
                    f"made for {low:.4g} to {high:.4g} {unit}."
                )
        middle = (self.times[0] + self.times[-1]) / 2
        late, long = (self.times - middle).abs().max(), self.times.abs().max()
        at_f, of_f, by_f = _polynomials(f, self.frequencies, float(2 * math.pi * late))
        at_r, of_r, by_r = _polynomials(r, self.rates, float(long))
        factors = _factor(at_f[:, None], at_r, self.times, middle)
        coefficients = torch.einsum("ls,frs,nf,mr->mln", self.basis.conj(), factors, of_f.to(factors), of_r.to(factors))
        # real and imaginary parts are products of real matrices, which are faster than complex ones
        parts = torch.view_as_real(coefficients).movedim(-1, 1).to(f.device)
        found = torch.tensordot(parts[0], by_f, dims=1)
        for of_rate, weight in zip(parts[1:], by_r[1:], strict=True):
            found.addcmul_(torch.tensordot(of_rate, by_f, dims=1), weight)
        turn = torch.polar(torch.ones_like(f), -2 * math.pi * f * middle)
        return (torch.complex(*found) * turn).transpose(0, 1)


def segments(
    times: Tensor,
    frequencies: tuple[float, float],
    rates: tuple[float, float] = (0.0, 0.0),
    *,
    n_terms: int | None = None,
    tolerance: float = 1e-6,
    histogram: Tensor | None = None,
) -> Segments:
    """Return the terms for a range of frequencies and rates.

    Parameters
    ----------
    times
        Of the samples of a shot (sample,), s.
    frequencies, rates
        Lowest and highest f, Hz, and R, 1/s.
    n_terms
        Number of terms; by default as many as keep the error below `tolerance`.
    histogram
        How often each of as many bins of the range of frequencies occurs (bin,); by default all are as frequent. Where
        terms are few, it makes them best for these.

    Raises
    ------
    ConfigError
        If a range is not one, or no number of terms keeps the tolerance.
    """
    if not (
        frequencies[0] <= frequencies[1] and 0 <= rates[0] <= rates[1] and math.isfinite(sum((*frequencies, *rates)))
    ):
        raise ConfigError(f"a field of {frequencies} Hz and rates of {rates} 1/s is no range of finite numbers.")
    if n_terms is not None and not 1 <= n_terms <= len(times):
        raise ConfigError(f"n_terms is {n_terms}; it is 1 to {len(times)}, the number of samples.")
    times = times.to(torch.float64)
    n_bins = _N_FREQUENCIES if histogram is None else len(histogram)
    f = torch.linspace(*frequencies, n_bins, dtype=torch.float64)
    r = torch.linspace(*rates, _N_RATES if rates[1] > rates[0] else 1, dtype=torch.float64)
    often = torch.ones(n_bins, dtype=torch.float64) if histogram is None else histogram.to(torch.float64)
    often = often / often.sum() + _FLOOR / n_bins
    middle = (times[0] + times[-1]) / 2
    factors = _factor(f[:, None], r, times, middle)
    weighted = (factors * often.sqrt()[:, None, None]).flatten(0, 1)
    turns = [_factor(start, torch.zeros(()), times, middle) for start in ((often * f).sum(), f[[0, -1]].mean())]
    vectors = [_real_vectors(weighted * turn.conj()) * turn for turn in turns]
    counts: Sequence[int] = range(1, vectors[0].shape[0] + 1) if n_terms is None else [n_terms]
    for n in counts:
        basis = min((some[:n] for some in vectors), key=lambda some: float(_left(weighted, some).norm()))
        error = float(_left(factors.flatten(0, 1), basis).abs().max())
        if n_terms is not None or error <= tolerance:
            return Segments(basis, times, frequencies, rates, error)
    raise ConfigError(f"{n} terms leave an error of {error:.2g}, more than {tolerance:.2g}.")


def _real_vectors(rows: Tensor) -> Tensor:
    """Return the singular vectors (vector, sample) of rows (row, sample), complex, among those that are real."""
    return torch.linalg.svd(torch.cat([rows.real, rows.imag]), full_matrices=False).Vh


def _left(rows: Tensor, basis: Tensor) -> Tensor:
    """Return what an orthonormal basis (vector, sample) leaves of rows (row, sample)."""
    return rows - (rows @ basis.conj().T) @ basis


def _factor(f: Tensor, r: Tensor, times: Tensor, middle: Tensor) -> Tensor:
    """Return exp(-2 pi i f (t - middle) - R |t|) (..., sample) of f and R (...)."""
    return torch.exp(-2j * math.pi * f[..., None] * (times - middle) - r[..., None] * times.abs())


def _polynomials(values: Tensor, ends: tuple[float, float], turn: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what interpolates between two ends, in Chebyshev polynomials, at values (...).

    These are nodes (node,) between the ends, the matrix (n, node) of `series`, and the polynomials (n, ...). What is
    interpolated changes by `turn` rad for each unit of the values at most.
    """
    centre, reach = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    nodes = chebyshev_nodes(turn * reach)
    found = polynomials(len(nodes), (values - centre) / max(reach, 1e-300))
    return centre + reach * nodes, series(nodes), found
