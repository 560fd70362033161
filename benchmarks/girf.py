"""What it is worth to know the gradient system that a trajectory was learned and scanned under.

Given are responses as NAME=FILE.npz, in the format of the response ``girf``. Under each one a trajectory and a network
are learned on the embedded data, the exported file is scanned virtually (one image, with noise), and what was sampled
is reconstructed: at k as the file tells it, at the k and phase of the response, without its cross terms and field, with
each of the other responses, and with the delays that the data themselves tell. Nothing is timed.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trajdesign as td
from benchmarks.common import RESULTS, Row, say, table, version
from trajdesign.learning.run_folder import RunFolder
from trajdesign.reconstruction import metrics

COLUMNS = {
    "pattern": "start",
    "system": "scanned under",
    "known": "reconstructed with",
    "network": "network, PSNR, dB",
    "cg_sense": "CG-SENSE, PSNR, dB",
    "residual": "unexplained by CG-SENSE",
    "n_warnings": "warnings",
    "k_error": "k of an axis off by up to, 1/FOV",
}
SHOTS = {"spiral": 6, "radial": 24}
SETTINGS = ["acquisition.n_samples=600", "data.n_coils=8", "training.validations=4", "reconstructor.channels=8"]
SETTINGS += ["training.batch_size=4", "training.settle=0.25"]
#: Standard deviation of a pixel's noise, as a part of the brightest pixel.
NOISE = 0.005


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the comparison; returns the rows of the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("responses", nargs="+", metavar="NAME=FILE.npz")
    options.add_argument("--matrix", type=int, default=64)
    options.add_argument("--images", type=int, default=200, help="to train on")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    settings = options.parse_args(arguments)
    systems = dict(given.split("=", 1) for given in settings.responses)
    rows: list[Row] = []
    for pattern in SHOTS:
        for name in systems:
            with tempfile.TemporaryDirectory() as folder:
                rows += compare(pattern, name, systems, settings, Path(folder))
            save(rows, systems, settings)
    return rows


def compare(pattern: str, name: str, systems: dict[str, str], settings: argparse.Namespace, folder: Path) -> list[Row]:
    """Learn and scan under one system, and reconstruct with what may be known of it."""
    own = {"kind": "girf", "path": str(Path(systems[name]).resolve())}
    given = [f"acquisition.matrix=[{settings.matrix},{settings.matrix}]", f"acquisition.n_shots={SHOTS[pattern]}"]
    given += [f'init.kind="{pattern}"', f'response={{kind="girf", path="{own["path"]}"}}', "data.n_val=8"]
    given += [f"data.n_train={settings.images}", "data.n_test=8", f"training.epochs={settings.epochs}", *SETTINGS]
    td.optimize(td.load_config(None, given), folder / "run", device="cpu", baseline=False, quiet=True)
    run = RunFolder(folder / "run")
    td.export(run.trajectory(), run.path / "x.seq", options={"sequence": {"n_dummies": 2}}, response=own)
    scanned = td.scan(run.path / "x.seq", run=run.path, out=folder / "scan", noise=NOISE)
    reference = torch.from_numpy(scanned.reference)[None, None]
    ways: dict[str, tuple[Any, str | None]] = {"k as told": ({}, None), "its own response": (own, None)}
    if (reduced := _diagonal(own["path"], folder / "diagonal.npz")) is not None:
        ways["its own, without cross terms and field"] = ({"kind": "girf", "path": str(reduced)}, None)
    for other in systems.keys() - {name}:
        ways[f"that of {other}"] = ({"kind": "girf", "path": str(Path(systems[other]).resolve())}, None)
    ways["k as told, delay auto"] = ({}, "auto")
    rows, right = list[Row](), np.load(run.path / "x_k.npz")["k_actual"]
    for number, (known, (response, delay)) in enumerate(ways.items()):
        to = folder / str(number)
        found = td.reconstruct(folder / "scan" / "raw.h5", run=run.path, response=response, delay=delay, out=to)
        row: Row = {"pattern": pattern, "system": name, "known": known}
        row["residual"] = found.facts.residual["cg_sense"]["total"]
        row["delay"], row["n_warnings"] = found.facts.delay["axes"], len(found.facts.warnings)
        for image in ("network", "cg_sense"):
            row[image] = float(metrics.psnr(torch.from_numpy(found.images[image][:1, :1]), reference, 1.0))
        if delay is None:
            k = _k(run, response, folder / f"{number}.seq")
            row["k_error"] = float(np.abs(k - right).max()) * run.config().acquisition.fov[0]
        rows.append(row)
        say(table(COLUMNS, [row]))
    return rows


def _diagonal(path: str, to: Path) -> Path | None:
    """Write a response without cross terms and field; None if it has none."""
    arrays = np.load(path)
    if arrays["response"].ndim == 2 and "b0" not in arrays:
        return None
    response = arrays["response"]
    alone = np.einsum("aaf->af", response) if response.ndim == 3 else response
    np.savez(to, frequency_hz=arrays["frequency_hz"], response=alone)
    return to


def _k(run: RunFolder, response: Any, to: Path) -> np.ndarray:
    """Return k of the exported file as a response makes it (shot, sample, dim), 1/m."""
    td.export(run.trajectory(), to, options={"sequence": {"n_dummies": 2}}, response=response)
    arrays = np.load(to.with_name(f"{to.stem}_k.npz"))
    return np.asarray(arrays["k_actual" if response else "k_adc"])


def save(rows: list[Row], systems: dict[str, str], settings: argparse.Namespace) -> None:
    """Write the rows as JSON, and the table as Markdown."""
    names = " ".join(f"{name}={Path(path).name}" for name, path in systems.items())
    numbers = " ".join(f"--{name} {getattr(settings, name)}" for name in ("matrix", "images", "epochs"))
    command = f"python -m benchmarks.girf {names} {numbers}"
    packages = {name: version(name) for name in ("torch", "numpy", "pypulseq")}
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    result = {"command": command, "machine": machine, "packages": packages, "rows": rows}
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "girf.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    tail = f"`{command}` with {', '.join(f'{name} {v}' for name, v in packages.items() if v)} on {machine}."
    text = "\n\n".join([table(COLUMNS, rows), tail])
    (settings.out / "girf.md").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
