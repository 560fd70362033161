"""What a physics step of ours costs against coils, batch and shots: one at a time, each doubled and doubled again.

All sizes of a series are timed in turn. The plot and the last column show what the next doubling costs: ``ratio``.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.common import Row, Size, alternate, build, machine, parse, parser, save, say, timing

COLUMNS = {
    "series": "doubled",
    "value": "number",
    "size": "size",
    "median_s": "median, s",
    "min_s": "least, s",
    "max_s": "largest, s",
    "ratio": "times the row before",
}
SERIES = {"coils": (1, 2, 4, 8, 16, 32), "batch": (1, 2, 4, 8, 16, 32), "shots": (4, 8, 16, 32, 64)}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = parser(__doc__)
    settings = parse(options, arguments, Size(32, 4, 64, 2, 2))
    facts = machine(settings.device)
    rows: list[Row] = []
    for series, values in SERIES.items():
        ways = {}
        for value in values[:2] if settings.quick else values:
            problem = build(replace(settings.size, **{series: value}), settings.device)
            ways[str(value)] = partial(peers.step, peers.OursInTraining(problem.weights), problem)
            ways[str(value)](0)
        last = None
        for name, seconds in alternate(ways, settings.repeats, settings.device).items():
            value = int(name)
            row: Row = {"series": series, "value": value, **timing(seconds)}
            row["size"] = replace(settings.size, **{series: value}).label
            row["ratio"], last = row["median_s"] / last if last else None, row["median_s"]
            rows.append(row)
        say(f"{series}: {', '.join(f'{seconds:.3g} s' for seconds in (row['median_s'] for row in rows[-len(ways) :]))}")
    save("scaling", rows, COLUMNS, settings, facts)
    plot(rows, settings.out / "scaling.png")
    return rows


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw times against numbers, and the ratio of each doubling."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    figure = Figure(figsize=(4 * len(SERIES), 3.4), layout="constrained")
    for axes, series in zip(figure.subplots(1, len(SERIES), sharey=True), SERIES, strict=True):
        ours = [row for row in rows if row["series"] == series]
        values, medians = [row["value"] for row in ours], [row["median_s"] for row in ours]
        errors = [[row["median_s"] - row["min_s"] for row in ours], [row["max_s"] - row["median_s"] for row in ours]]
        axes.errorbar(values, medians, errors, marker="o", capsize=3)
        for before, row in itertools.pairwise(ours):
            middle = ((before["value"] * row["value"]) ** 0.5, (before["median_s"] * row["median_s"]) ** 0.5)
            axes.annotate(f"x {row['ratio']:.2f}", middle, (-4, 6), textcoords="offset points", ha="right", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel=series, xticks=values, xticklabels=values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("physics step, s")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
