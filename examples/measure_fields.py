"""Test every run of a study in a measured static field, and where there is none.

python examples/measure_fields.py STUDY B0.npy [RESULTS.json]

`B0.npy` holds the off-resonance (y, x), Hz, over the field of view: see the field ``maps``. The table says what it is
worth to learn under fields: PSNR and SSIM of each run, trained without a field, under random ones (blind), and with the
map of each given (known). Written for examples/field.toml.
"""

import json
import sys
from pathlib import Path

import trajdesign as td
from trajdesign.errors import TrajdesignError
from trajdesign.learning.run_folder import RunFolder


def main(study: Path, off_resonance: Path, results: Path) -> None:
    """Print the table, and write its numbers as JSON."""
    rows = []
    print("| pattern | readout | stage | trained | PSNR, no field | in the field | SSIM, no field | in the field |")
    print("|---|---|---|---|---|---|---|---|")
    for run in sorted(path.parent for path in study.glob("cells/*/metrics.json")):
        config = RunFolder(run).config()
        trained = "none" if not config.field else "known" if config.training.knows_field else "blind"
        measured = ["field.kind=maps", f'field.files=["{off_resonance}"]', "training.field_terms=8"]
        found = [td.evaluate(run, settings, quiet=True).results.last for settings in (["field={}"], measured)]
        row = {
            "pattern": config.init["kind"],
            "readout": config.acquisition.n_samples * config.acquisition.dwell,
            "stage": list(RunFolder(run).results().stages)[-1],
            "trained": trained,
            "psnr": [one.psnr for one in found],
            "ssim": [one.ssim for one in found],
        }
        rows.append(row)
        psnr, ssim = (" | ".join(f"{x:.{n}f}" for x in row[key]) for key, n in (("psnr", 2), ("ssim", 4)))
        print(
            f"| {row['pattern']} | {1e3 * row['readout']:g} ms | {row['stage']} | {trained} | {psnr} | {ssim} |",
            flush=True,
        )
    results.write_text(
        json.dumps({"off_resonance": off_resonance.name, "runs": rows}, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "fields.json"))
    except TrajdesignError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
