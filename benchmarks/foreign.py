"""What `trajdesign check` says of other people's Pulseq files, and of planted faults, beside what pypulseq says.

Given are folders or files: scripts that write a sequence with pypulseq, each run as it is in a process of its own and
written in two versions of the format, and ``.seq`` files. Limits, rasters and dead times are those of the
`pypulseq.Opts` that a script makes; a ``.seq`` file holds none and is checked against the defaults of `Scanner`.
Nothing is timed.
"""

import argparse
import importlib.util
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pypulseq as pp

import trajdesign as td
from benchmarks.common import RESULTS, Row, say, table, version
from trajdesign.errors import InputError
from trajdesign.pulseq.checks import describe
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player, sequence
from trajdesign.pulseq.writer import parts

COLUMNS = {
    "file": "file",
    "version": "format",
    "n_blocks": "blocks",
    "ours": "`trajdesign check`",
    "check_timing": "`check_timing`",
    "k_fov": "k, 1/FOV",
    "maxima": "maxima",
}
FAULT_COLUMNS = {"fault": "planted fault", "ours": "`trajdesign check`", "check_timing": "`check_timing`"}
MRI_NUFFT = "mri-nufft"
FORMATS = ("1.5.0", "1.4.1")
_ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the comparison; returns the rows of the table of files."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("paths", type=Path, nargs="*", help="folders, scripts (.py), or .seq files")
    options.add_argument("--longest", type=float, default=300.0, help="what takes more seconds is skipped")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options.add_argument("--one", help="examine one path, or mri-nufft's export, here and print the rows as JSON")
    settings = options.parse_args(arguments)
    if settings.one:
        with redirect_stdout(sys.stderr):
            rows = examine(settings.one)
        say(json.dumps(rows))
        return rows
    files = [file for path in settings.paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    names = [str(file.resolve()) for file in files if file.suffix in (".py", ".seq")]
    names += [MRI_NUFFT] if version(MRI_NUFFT) else []
    rows = [row for name in names for row in child(name, settings.longest)]
    save(rows, list(faults()), settings.longest, settings.out)
    return rows


def child(name: str, longest: float) -> list[Row]:
    """Examine one file in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.foreign", "--one", name]
    row: Row = {"file": Path(name).name}
    try:
        result = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=longest, env=os.environ | {"MPLBACKEND": "Agg"}
        )
    except subprocess.TimeoutExpired:
        return [row | {"ours": f"skipped: over {longest:g} s"}]
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    rows: list[Row] = json.loads(result.stdout.splitlines()[-1])
    say(table(COLUMNS, rows))
    return rows


def examine(name: str) -> list[Row]:
    """Return the rows of a file, or one that says why there is none."""
    path = Path(name)
    row: Row = {"file": path.name}
    if path.suffix == ".seq":
        return [row | compare(path, parts.system(td.Scanner()))]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        try:
            sequence, system = mri_nufft() if name == MRI_NUFFT else made_by(path)
        except Exception as error:
            return [row | {"ours": f"the script stops: {_sentence(error)}"}]
        rows = []
        for form in FORMATS:
            to = Path(folder) / f"{form}.seq"
            try:
                sequence.write(str(to), v141_compat=form == "1.4.1", check_timing=False)
                rows.append(row | {"version": form} | compare(to, system))
            except Exception as error:
                rows.append(row | {"version": form, "ours": f"pypulseq stops: {_sentence(error)}"})
        return rows


def made_by(script: Path) -> tuple[pp.Sequence, pp.Opts]:
    """Run a script and return the sequence that it would write last, and the limits that it has made."""
    written, limits = list[pp.Sequence](), list[pp.Opts]()
    make = pp.Opts.__init__

    def record(self: pp.Opts, *positional: Any, **named: Any) -> None:
        make(self, *positional, **named)
        limits.append(self)

    with (
        mock.patch.object(pp.Sequence, "write", lambda self, *_, **__: written.append(self)),
        mock.patch.object(pp.Opts, "__init__", record),
    ):
        names = runpy.run_path(str(script), run_name="example")
        if "main" in names:
            names["main"](plot=False, write_seq=True)
    if not written:
        raise ValueError("it writes no sequence")
    return written[-1], limits[-1] if limits else written[-1].system


def mri_nufft() -> tuple[pp.Sequence, pp.Opts]:
    """Return mri-nufft's export of its own cones, with its own default limits."""
    import mrinufft
    from mrinufft.io import pulseq_gre

    pulse = pp.make_block_pulse(np.deg2rad(15), duration=1e-3, use="excitation")
    sequence = pulseq_gre(mrinufft.initialize_3D_cones(16, 512), TR=40, TE=15, rf_pulse=pulse)
    return sequence, sequence.system


def compare(path: Path, system: pp.Opts, limit_norm: Any = "axis") -> Row:
    """Return what both say of a file; pypulseq knows limits per axis alone."""
    scanner = td.Scanner(
        max_gradient=system.max_grad / system.gamma,
        max_slew=system.max_slew / system.gamma,
        limit_norm=limit_norm,
        gradient_raster=system.grad_raster_time,
        adc_raster=system.adc_raster_time,
        rf_raster=system.rf_raster_time,
        block_raster=system.block_duration_raster,
        adc_dead_time=system.adc_dead_time,
        rf_dead_time=system.rf_dead_time,
        rf_ringdown_time=system.rf_ringdown_time,
        gamma=system.gamma,
    )
    theirs = pp.Sequence(system)
    try:
        ours = player.read(path, signed=False)
    except InputError as error:
        return {"ours": f"refused: {str(error).removeprefix(f'{path}: ')}"}
    theirs.read(str(path), detect_rf_use=ours.version.startswith("1.4"))
    checks = {check.name: check for check in inspect(ours, scanner)}
    row: Row = {"version": ours.version, "n_blocks": len(ours.block_numbers), "ours": verdict(checks.values())}
    row["not_kept"] = [describe(check) for check in checks.values() if check.verdict in ("broken", "warning")]
    is_right, errors = theirs.check_timing()
    kinds = sorted({f"{error.event} {error.field} {error.error_type}" for error in errors})
    row["check_timing"] = "passed" if is_right else f"{len(errors)} errors: {', '.join(kinds)}"
    row["k_fov"] = k_difference(ours, theirs)
    row["maxima"] = maxima_difference({name: check.value for name, check in checks.items()}, theirs, system.gamma)
    return row


def verdict(checks: Any) -> str:
    """Return the rules that are broken and warned of."""
    words = [
        f"{title}: {', '.join(names)}"
        for title in ("broken", "warning")
        if (names := [check.name for check in checks if check.verdict == title])
    ]
    return "; ".join(words if words and words[0].startswith("broken") else ["ok", *words])


def k_difference(ours: sequence.SeqFile, theirs: pp.Sequence) -> float | None:
    """Return the largest difference of k at any sample, in 1 over the longest side of the FOV, or of 0.25 m."""
    k = theirs.calculate_kspace()[0].T
    sides = [float(side) for side in ours.definitions.get("FOV", "").split()]
    fov = max(sides) if sides and max(sides) < 2 else 0.25
    return float(np.abs(np.concatenate(ours.k) - k).max() * fov) if ours.k else None


def maxima_difference(maxima: dict[str, float], theirs: pp.Sequence, gamma: float) -> float:
    """Return the largest relative difference of an axis' gradient (T/m) and slew rate to what `test_report` prints.

    The maxima are taken from the waveforms as it takes them, without the minutes that it spends on other things.
    """
    apart = [0.0]
    waves = theirs.waveforms()
    for name, values in (
        ("gradient", [np.abs(g) for _, g in waves]),
        ("slew rate", [np.abs(np.diff(g) / np.diff(t)) for t, g in waves]),
    ):
        found = [float(value.max(initial=0)) for value in values]
        ours = [maxima[f"{name} {axis}"] * gamma for axis in "xyz"]
        apart += [abs(a - b) / max(found) for a, b in zip(ours, found, strict=True) if max(found)]
    return max(apart)


def faults() -> Iterator[Row]:
    """Plant the tests' faults in a good sequence, one by one."""
    builders = _builders()
    for name, plant in builders.FAULTS.items():
        sequence = builders.gre()
        plant(sequence)
        with tempfile.TemporaryDirectory() as folder:
            path = builders.written(sequence, Path(folder) / "x.seq")
            row = compare(path, builders.SYSTEM, limit_norm="vector")
        yield {"fault": name.replace("_", " "), **row}


def save(rows: list[Row], planted: list[Row], longest: float, out: Path) -> None:
    """Write the rows as JSON, and the tables as Markdown."""
    packages = {name: version(name) for name in ("pypulseq", MRI_NUFFT, "numpy")}
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    command = f"python -m benchmarks.foreign FOLDER --longest {longest:g}"
    result = {"command": command, "machine": machine, "packages": packages, "rows": rows, "faults": planted}
    out.mkdir(parents=True, exist_ok=True)
    (out / "foreign.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    tail = f"`{command}` with {', '.join(f'{name} {v}' for name, v in packages.items() if v)} on {machine}."
    text = "\n\n".join([table(COLUMNS, rows), table(FAULT_COLUMNS, planted), tail])
    (out / "foreign.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


def _builders() -> ModuleType:
    """Import ``tests/pulseq/foreign.py``, which no package holds."""
    spec = importlib.util.spec_from_file_location("builders", _ROOT / "tests" / "pulseq" / "foreign.py")
    if spec is None or spec.loader is None:
        raise ImportError("tests/pulseq/foreign.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sentence(error: Exception) -> str:
    """Return what stops, and the line that says so where the error has no words."""
    words = str(error).partition("\n")[0] or f"`{traceback.extract_tb(error.__traceback__)[-1].line}`"
    return f"{type(error).__name__} {words}"


if __name__ == "__main__":
    main()
