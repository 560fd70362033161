"""What it takes to write trajectories for the scanner and to prove the written file, in both formats.

Patterns of 32 shots of 1000 samples that use the slew rate all the way, as learned ones do. The time is that of
`trajdesign.exporting.proof.export`: the design of prephasers and rewinders, writing, and reading back by two readers.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trajdesign as td
from benchmarks.common import Row, Size, alternate, machine, parse, parser, save, say, timing
from trajdesign.config import plugins

COLUMNS = {
    "pattern": "pattern",
    "version": "Pulseq",
    "shots": "shots",
    "median_s": "median, s",
    "min_s": "least, s",
    "max_s": "largest, s",
    "max_k_error_fov": "largest k error, 1/FOV",
}
PATTERNS: dict[str, dict[str, Any]] = {
    "waves": {"kind": "cartesian", "spacing": "variable", "power": 0.5, "wave": 0.5},
    "petals": {"kind": "rosette", "turns": 0.5},
    "spiral": {"kind": "spiral", "density": 3.0},
}
FORMATS = ("1.5.0", "1.4.1")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    settings = parse(parser(__doc__, repeats=3), arguments, Size(32, 4, 200, 1, 1))
    facts = machine("cpu")
    size = settings.size
    n_shots = size.shots if settings.quick else 32
    acquisition = td.Acquisition((0.22, 0.22), (size.matrix, size.matrix), n_shots, size.samples, 4e-6)
    with tempfile.TemporaryDirectory() as folder:
        ways, rows = {}, []
        for pattern, table in PATTERNS.items():
            trajectory = plugins.build("init", table, acquisition, td.Scanner())
            for version in FORMATS:
                file = Path(folder) / "x.seq"
                write = partial(td.export, trajectory, file, options={"pulseq_version": version}, overwrite=True)
                row: Row = {"pattern": pattern, "version": version, "shots": n_shots}
                rows.append(row | {"max_k_error_fov": write()["max_k_error_fov"]})
                ways[f"{pattern}, {version}"] = lambda _, write=write: write()
        for row, seconds in zip(rows, alternate(ways, settings.repeats, "cpu").values(), strict=True):
            row |= timing(seconds)
            say(f"{row['pattern']}, {row['version']}: {row['median_s']:.3g} s")
    save("exporting", rows, COLUMNS, settings, facts)
    return rows


if __name__ == "__main__":
    main()
