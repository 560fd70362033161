"""The physics of a training step: ours and the peers, in turn, on the same problem.

Sample coil images, take the density-compensated adjoint and its root sum of squares, compare with the reference, and
go back to the trajectory. The weights are given. Options choose one size, or ``--grid`` many.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks import peers
from benchmarks.common import (
    Problem,
    Row,
    Size,
    alternate,
    build,
    difference,
    free_memory,
    machine,
    parse,
    parser,
    save,
    say,
    timing,
)

COLUMNS = {
    "size": "size",
    "way": "way",
    "median_s": "median, s",
    "min_s": "least, s",
    "max_s": "largest, s",
    "ratio": "times ours",
    "image_difference": "image, relative error",
    "gradient_difference": "gradient, relative error",
    "note": "note",
}
NOTE = (
    "Errors are against the same step in double precision by two NUFFTs, on the first two images of the batch. "
    "`ours` chooses by itself; all others are forced."
)
LONGEST = 60.0  # s; a way that would need more for one step is left out
ARRAYS = 40  # copies of the coil images that a step may need at once


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = parser(__doc__)
    options.add_argument("--grid", action="store_true", help="the sizes 128 to 320, 4 to 32 shots, coils and batch")
    options.add_argument("--image-gradient", action="store_true", help="also go back to the coil images")
    options.add_argument("--ways", nargs="+", choices=peers.WAYS, default=list(peers.WAYS))
    settings = parse(options, arguments, Size(32, 4, 64, 2, 2))
    facts = machine(settings.device)
    names = peers.available(settings.ways, settings.device)
    rows: list[Row] = []
    for size in grid(settings.size) if settings.grid else [settings.size]:
        say(f"{size.label}:")
        rows += measure(size, names, settings.repeats, settings.device, settings.image_gradient)
    settings.name = settings.name or ("physics_grid" if settings.grid else None)
    save("physics", rows, COLUMNS, settings, facts, NOTE)
    return rows


def grid(size: Size) -> Iterator[Size]:
    """Yield the sizes of the grid, with the samples of a size."""
    for matrix, shots, coils, batch in itertools.product((128, 256, 320), (4, 16, 32), (1, 8, 16), (1, 8, 32)):
        yield Size(matrix, shots, size.samples, coils, batch)


def measure(size: Size, names: Sequence[str], repeats: int, device: str, image_gradient: bool) -> list[Row]:
    """Return a row for each way at one size."""
    problem = build(size, device)
    small = problem.first(2)
    reference = peers.exact(small)
    rows: dict[str, Row] = {}
    ways = {}
    for name in names:
        row: Row = {"size": size.label, "way": name}
        rows[name] = row
        way = peers.make(name, small, image_gradient)
        image, gradient = peers.step(way, small, 0, image_gradient)
        row["image_difference"] = difference(image, reference[0])
        row["gradient_difference"] = difference(gradient, reference[1])
        trial = alternate({name: partial(peers.step, way, small, image_gradient=image_gradient)}, 1, device)
        row["note"] = reason = _too_much(problem, trial[name][0] / small.size.batch, device)
        if reason:
            say(f"skipped {name}: {reason}.")
            continue
        way = peers.make(name, problem, image_gradient)
        row["note"] = getattr(way, "choice", "")
        ways[name] = partial(peers.step, way, problem, image_gradient=image_gradient)
        ways[name](0)
    for name, seconds in alternate(ways, repeats, device).items():
        rows[name] |= timing(seconds)
    ours = rows.get("ours", {}).get("median_s")
    for row in rows.values():
        row["ratio"] = row["median_s"] / ours if ours and "median_s" in row else None
    return list(rows.values())


def _too_much(problem: Problem, seconds_an_image: float, device: str) -> str:
    """Return why a way is left out at a size, or nothing."""
    seconds = seconds_an_image * problem.size.batch
    if seconds > LONGEST:
        return f"would take about {seconds:.0f} s a step"
    memory, free = ARRAYS * problem.coil_images.nbytes, free_memory(device)
    return f"would need up to {memory / 2**30:.0f} GiB, {free / 2**30:.0f} are free" if memory > free else ""


if __name__ == "__main__":
    main()
