"""What it is worth to train for a scan that goes otherwise than asked: delays, gains, and another site's response.

Given are two responses in the format of the response ``girf``: the one that is believed, and that of the other site.
For each pattern a trajectory and a network are learned on the embedded data without errors, under delays and the other
response drawn anew in each step, and under gains too; all are then tested under errors of given sizes, of which the
reconstruction knows nothing. What the JSON file of the same command holds is not measured again. Nothing is timed.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trajdesign as td
from benchmarks.common import RESULTS, Row, machine, say, table, version
from trajdesign.config import plugins
from trajdesign.learning import conditions, other_data
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares

SHOTS = {"spiral": 6, "radial": 24}
SETTINGS = ["acquisition.n_samples=600", "data.n_coils=4", "training.validations=4", "training.noise=0.005"]
SETTINGS += ["reconstructor.channels=8", "data.n_val=8", "training.batch_size=4", "training.settle=0.25"]
#: Largest errors: delay, s, and gain, as a part. The curves have so many points.
DELAY, GAIN, POINTS = 5e-6, 0.02, 9
#: Curves: in which unit, how large, and the perturbation of an error of that size.
CURVES: dict[str, tuple[str, float, Any]] = {
    "delay of both axes": ("µs", 1e6 * DELAY, lambda x: {"delay": {"delays": [1e-6 * x], "spread": 0.0}}),
    "delay of x": ("µs", 1e6 * DELAY, lambda x: {"delay": {"delays": [1e-6 * x, 0.0, 0.0], "spread": 0.0}}),
    "gain of both axes": ("%", 100 * GAIN, lambda x: {"gain": {"gains": [0.01 * x], "spread": 0.0}}),
    "gain of x": ("%", 100 * GAIN, lambda x: {"gain": {"gains": [0.01 * x, 0.0, 0.0], "spread": 0.0}}),
}
#: Gains of x and y for which it is told what all of k-space would show.
GAINS = [(GAIN, GAIN), (-GAIN, -GAIN), (GAIN, 0.0), (-GAIN, 0.0)]
#: Trainings, and the settings that each has beside the others'.
WITHOUT = "without errors"
_DELAY, _GAIN = f"perturbation.delay.spread={DELAY}", f"perturbation.gain.spread={GAIN}"
_OTHER = "perturbation.girf={{path={other}, probability=0.5}}"
TRAININGS = {WITHOUT: [], "under delays": [_DELAY, _OTHER], "under gains too": [_DELAY, _GAIN, _OTHER]}
COLUMNS = {"pattern": "start", "seed": "seed", "error": "error"}
COLUMNS |= {training: f"trained {training}, dB (lost)" for training in TRAININGS}
COLUMNS |= {f"part {training}": f"loss {training} / without" for training in TRAININGS if training != WITHOUT}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the comparison; returns the rows of the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("believed", type=Path, help="response that is believed, .npz")
    options.add_argument("other", type=Path, help="response of the other site, .npz")
    options.add_argument("--matrix", type=int, default=64)
    options.add_argument("--images", type=int, default=200, help="to train on")
    options.add_argument("--tests", type=int, default=24, help="to test on")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options.add_argument("--figure", type=Path, help="of the curves of the first seed")
    settings = options.parse_args(arguments)
    facts, found = machine(), measured(settings)
    known = {(row["seed"], row["pattern"], row["training"]) for row in found}
    for seed in range(settings.seeds):
        for pattern in SHOTS:
            for training in TRAININGS:
                if (seed, pattern, training) not in known:
                    with tempfile.TemporaryDirectory() as folder:
                        found += tested(pattern, training, seed, settings, Path(folder))
                    save(found, settings, facts)
    if settings.figure:
        draw([row for row in found if row["seed"] == 0], settings.figure)
    return losses(found)


def command(settings: argparse.Namespace) -> str:
    """Return the command that measures the same."""
    numbers = " ".join(
        f"--{name} {getattr(settings, name)}" for name in ("matrix", "images", "tests", "epochs", "seeds")
    )
    return f"python -m benchmarks.robust {settings.believed.name} {settings.other.name} {numbers}"


def measured(settings: argparse.Namespace) -> list[Row]:
    """Return the rows that the same command has measured before."""
    path = settings.out / "robust.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return list(before["rows"]) if before.get("command") == command(settings) else []


def tested(pattern: str, training: str, seed: int, settings: argparse.Namespace, folder: Path) -> list[Row]:
    """Learn in one of the TRAININGS, and return the PSNR (dB) under each error of the curves, and of the other site."""
    paths = {name: json.dumps(str(getattr(settings, name).resolve())) for name in ("believed", "other")}
    given = [f"acquisition.matrix=[{settings.matrix},{settings.matrix}]", f"acquisition.n_shots={SHOTS[pattern]}"]
    given += [f'init.kind="{pattern}"', f'response={{kind="girf", path={paths["believed"]}}}', f"seed={seed}"]
    given += [f"data.n_train={settings.images}", f"data.n_test={settings.tests}", f"training.epochs={settings.epochs}"]
    given += [setting.format(other=paths["other"]) for setting in TRAININGS[training]]
    config = td.load_config(None, [*given, *SETTINGS])
    td.optimize(config, folder / "run", device="cpu", baseline=False, quiet=True)
    cases: list[tuple[str, float, Any]] = [("none", 0.0, {})]
    cases += [(error, x, at(x)) for error, (_, largest, at) in CURVES.items() for x in _sizes(largest)]
    cases.append(("response of the other site", 1.0, {"girf": {"path": str(settings.other.resolve())}}))
    cases.append(("delay and gain of each axis, drawn", 1.0, {"delay": {"spread": DELAY}, "gain": {"spread": GAIN}}))
    asked = {f"{error} {size}": other_data.settings(config, {"perturbation": what}) for error, size, what in cases}
    found = conditions.tested(folder / "run", asked, device="cpu")
    rows: list[Row] = [
        {"error": error, "size": size, "psnr": found[f"{error} {size}"].result.psnr} for error, size, _ in cases
    ]
    say(f"{pattern}, seed {seed}, {training}: {rows[0]['psnr']:.2f} dB, drawn {rows[-1]['psnr']:.2f} dB")
    return [{"pattern": pattern, "training": training, "seed": seed, **row} for row in rows]


def _sizes(largest: float) -> list[float]:
    return [float(x) for x in np.linspace(-largest, largest, POINTS)]


def of_all_of_kspace(gains: Sequence[float], settings: argparse.Namespace) -> float:
    """Return the PSNR (dB) of the images that all of k-space shows, Cartesian and without noise, under gains of x, y.

    They are magnified, as nothing in the data tells: this is what no trajectory and no network can give back.
    """
    config = td.load_config(None, [f"acquisition.matrix=[{settings.matrix},{settings.matrix}]", *SETTINGS])
    config = config.model_copy(update={"data": {**config.data, "n_test": settings.tests}})
    test, n = plugins.build("data", config.data, config.acquisition, "test"), settings.matrix
    at = torch.arange(n, dtype=torch.float64) - n // 2

    def played(gain: float) -> Tensor:
        phase = at[:, None, None] * (at[:, None] - (1 + gain) * at)  # of frequency, pixel that is shown, pixel
        return torch.exp(2j * math.pi / n * phase).sum(0) / n

    x, y = map(played, gains)
    images = torch.stack([test[i] for i in range(settings.tests)]).to(torch.complex128)
    shown, reference = root_sum_of_squares(y @ images @ x.T), root_sum_of_squares(images)
    return float(metrics.psnr(shown, reference, 1.0).mean())


def losses(found: Sequence[Row]) -> list[Row]:
    """Return what each training loses at the largest of each error, of the sign with which they lose most in all."""
    rows = []
    for seed, pattern in dict.fromkeys((row["seed"], row["pattern"]) for row in found):
        these = [row for row in found if (row["seed"], row["pattern"]) == (seed, pattern)]
        of = {(row["training"], row["error"], row["size"]): row["psnr"] for row in these}
        trainings = list(dict.fromkeys(row["training"] for row in these))
        for error, largest in {row["error"]: row["size"] for row in these}.items():
            sizes = [largest, -largest] if error in CURVES else [largest]
            size = min(sizes, key=lambda x: sum(of[training, error, x] for training in trainings))
            shown = f"{error}, {size:+g} {CURVES[error][0]}" if error in CURVES else error
            row: Row = {"pattern": pattern, "seed": seed, "error": shown}
            lost = {training: of[training, "none", 0.0] - of[training, error, size] for training in trainings}
            for training in trainings:
                row[training] = f"{of[training, error, size]:.1f}"
                if error != "none":
                    row[training] += f" ({lost[training]:.1f})"
                    row[f"part {training}"] = lost[training] / lost[WITHOUT]
            rows.append(row)
    return rows


def draw(found: Sequence[Row], to: Path) -> None:
    """Draw PSNR over the size of each error, of both trainings, a row for each pattern."""
    import matplotlib.pyplot as plt

    patterns = list(dict.fromkeys(row["pattern"] for row in found))
    figure, axes = plt.subplots(
        len(patterns), len(CURVES), figsize=(10, 2.3 * len(patterns)), sharey="row", squeeze=False, layout="constrained"
    )
    for row, pattern in zip(axes, patterns, strict=True):
        for axis, (error, (unit, *_)) in zip(row, CURVES.items(), strict=True):
            for training, style in zip(TRAININGS, ("C0o-", "C2^-", "C1s-"), strict=True):
                of = [p for p in found if (p["pattern"], p["training"], p["error"]) == (pattern, training, error)]
                axis.plot([p["size"] for p in of], [p["psnr"] for p in of], style, ms=3, label=f"trained {training}")
            axis.set_xlabel(f"{error}, {unit}")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{pattern}: PSNR, dB")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(to, dpi=75)
    plt.close(figure)


def save(found: list[Row], settings: argparse.Namespace, facts: Row) -> None:
    """Write all that was measured as JSON, and the losses as a Markdown table."""
    whole = {f"{100 * x:+g} %, {100 * y:+g} %": of_all_of_kspace((x, y), settings) for x, y in GAINS}
    result = {
        "command": command(settings),
        "machine": facts,
        "rows": found,
        "losses": losses(found),
        "all_of_kspace": whole,
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "robust.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    note = "; ".join(f"{psnr:.1f} dB at {gains}" for gains, psnr in whole.items())
    note = f"All of k-space, without noise, under gains of x and y: {note}."
    tail = f"`{command(settings)}` with torch {version('torch')} on {facts['cpu']}."
    text = "\n\n".join([table(COLUMNS, losses(found)), note, tail])
    (settings.out / "robust.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


if __name__ == "__main__":
    main()
