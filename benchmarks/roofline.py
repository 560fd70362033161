"""How near our physics step is to what the machine can do: its arithmetic and traffic counted, the ceilings measured.

Counted is what the convolution needs for C coil images of N pixels, as training goes it, with their spectra kept:

- forward one inverse transform of the doubled grid, back to the trajectory one transform, back to the image, if asked,
  another inverse. On the doubled grid each falls into four FFTs of N, one for each choice of halves. An FFT is
  5 N log2 N operations;
- products: by the modulation and the transfer function, and of the two spectra;
- the transfer function: NUFFTs of the weights and back, with their FFTs, and the samples spread over w x w points.

The traffic is the least possible: every array that leaves the cache is written once and read once, so the FFTs of an
image, which fits, cost none. The ceilings are those of this machine on the same threads: the same FFTs alone, by torch
and by scipy, a copy and a triad of arrays that no cache holds, and a product of large matrices.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import scipy.fft
import torch

from benchmarks import peers
from benchmarks.common import Row, Size, alternate, build, machine, parse, parser, save, timing
from trajdesign.encoding.halves import fft_shape

COLUMNS = {
    "what": "what",
    "amount": "amount",
    "unit": "unit",
    "median_s": "median, s",
    "rate": "rate",
    "per": "a second",
}
FFTS = ("ceiling: FFT, torch", "ceiling: FFT, scipy")
_WIDTH = 7  # points along each axis that finufft spreads a sample over, at our tolerance and grid
_GRID = 1.25  # of finufft
_GIGA = 1e9


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = parser(__doc__)
    options.add_argument("--image-gradient", action="store_true", help="also go back to the coil images")
    settings = parse(options, arguments, Size(32, 4, 64, 2, 2))
    facts = machine(settings.device)
    problem, size, device = build(settings.size, settings.device), settings.size, settings.device
    work = count(size, settings.image_gradient)
    way = peers.OursInTraining(problem.weights)
    ways: dict[str, Callable[[int], Any]] = {
        "physics step": partial(peers.step, way, problem, image_gradient=settings.image_gradient)
    }
    ways |= ceilings(size, device, settings.quick)
    for take in ways.values():
        take(0)
    times = {name: timing(seconds) for name, seconds in alternate(ways, settings.repeats, device).items()}

    step = times["physics step"]
    rows = [_row("physics step: FFTs", work["fft_flops"], "FLOP", step)]
    rows += [_row("physics step: all arithmetic", work["flops"], "FLOP", step)]
    rows += [_row("physics step: least traffic", work["bytes"], "B", step)]
    elements = _elements(settings.quick)
    amounts = {
        **dict.fromkeys(FFTS, (_fft_flops(size) * size.batch * size.coils, "FLOP")),
        "ceiling: copy": (2 * 8 * elements, "B"),
        "ceiling: triad": (3 * 4 * 2 * elements, "B"),
        "ceiling: GEMM": (2 * _matrix(settings.quick) ** 3, "FLOP"),
    }
    rows += [_row(name, *amounts[name], times[name]) for name in amounts if name in times]
    rates = {row["what"]: row["rate"] for row in rows}
    best = max(rates.get(name, 0.0) for name in FFTS)
    fastest_memory = max(rates["ceiling: copy"], rates["ceiling: triad"])
    bound = (work["fft_flops"] / best + work["bytes"] / fastest_memory) / _GIGA
    rows.append({"what": "least time of FFTs and traffic", "median_s": bound})
    rows.append({"what": "fraction of the FFT ceiling", "amount": rates["physics step: FFTs"] / best})
    rows.append({"what": "fraction of the roofline", "amount": bound / step["median_s"]})
    save("roofline", rows, COLUMNS, settings, facts, f"Physics step: {size.label}.")
    return rows


def count(size: Size, image_gradient: bool) -> dict[str, float]:
    """Return floating-point operations and least bytes of a physics step."""
    images, pixels = size.batch * size.coils, math.prod(_grid(size))
    transforms = 4 * (2 + image_gradient)
    doubled = [2 * _GRID * n for n in _grid(size)]
    # type 1 of the weights and two sums of type 2 in one transform; and the plain FFTs to and from the four parts
    own_ffts = 2 * _fft(doubled) + 2 * _fft([2 * n for n in _grid(size)])
    spread = 2 * size.shots * size.samples * (_WIDTH**2 * 4 + 2 * _WIDTH * 12)
    fft_flops = transforms * images * _fft(_grid(size)) + own_ffts
    # modulation (6) of three arrays, demodulation (8) of three, transfer function (2) and products (4) of four
    products = images * pixels * (3 * 6 + 3 * 8 * (1 + image_gradient) + 4 * 2 * (1 + image_gradient) + 4 * 4)
    root_sum_of_squares = images * pixels * 8
    # spectra in twice, filtered images out, in and out again for the root sum of squares, their gradient back
    traffic = images * pixels * 8 * (2 * 4 + 1 + 2 + 1 + image_gradient)
    return {"fft_flops": fft_flops, "flops": fft_flops + products + spread + root_sum_of_squares, "bytes": traffic}


def ceilings(size: Size, device: str, quick: bool) -> dict[str, Callable[[int], Any]]:
    """Return what measures each ceiling."""
    n, rows = _elements(quick), _matrix(quick)
    images = torch.randn(size.batch * size.coils, *_grid(size), dtype=torch.complex64, device=device)
    a, b, c = (torch.randn(n, 2, device=device) for _ in range(3))
    left, right = (torch.randn(rows, rows, device=device) for _ in range(2))
    out = torch.empty(rows, rows, device=device)
    at_once = 8 if device == "cpu" else len(images)

    def fft(_: int) -> None:
        for part in images.split(at_once):
            torch.fft.fftn(part, dim=(1, 2))

    def scipy_fft(_: int) -> None:
        for part in images.split(at_once):
            scipy.fft.fft2(part.numpy(), workers=torch.get_num_threads())

    return {
        FFTS[0]: fft,
        **({FFTS[1]: scipy_fft} if device == "cpu" else {}),
        "ceiling: copy": lambda _: a.copy_(b),
        "ceiling: triad": lambda _: torch.add(b, c, alpha=0.5, out=a),
        "ceiling: GEMM": lambda _: torch.mm(left, right, out=out),
    }


def _row(what: str, amount: float, unit: str, seconds: Row) -> Row:
    amount /= _GIGA
    scaled = {"amount": amount, "unit": f"G{unit}", "rate": amount / seconds["median_s"], "per": f"G{unit}/s"}
    return {"what": what, **scaled, **seconds}


def _grid(size: Size) -> tuple[int, ...]:
    return fft_shape((size.matrix, size.matrix))


def _fft(shape: Sequence[float]) -> float:
    n = math.prod(shape)
    return 5 * n * math.log2(n)


def _fft_flops(size: Size) -> float:
    return _fft(_grid(size))


def _elements(quick: bool) -> int:
    return 2**14 if quick else 2**24


def _matrix(quick: bool) -> int:
    return 64 if quick else 2048


if __name__ == "__main__":
    main()
