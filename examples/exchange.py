"""Is each learned trajectory the best on its own anatomy? Exchange those of two runs, and train the networks anew.

python examples/exchange.py RUN RUN OUT

Every trajectory, as it is, gets a network trained on every run's images: four run folders in OUT, and a table of what
that gives on the test images. A foreign trajectory is compared with the one at home, image by image.
"""

import json
import sys
from pathlib import Path

from trajdesign.config.models import Config, from_tables
from trajdesign.learning.optimize import optimize
from trajdesign.learning.results import StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.reconstruction.metrics import wilcoxon_p


def main(first: str, second: str, out: str) -> None:
    """Train what is not there yet, print the table, and write it as OUT/exchange.json."""
    runs = [RunFolder(first), RunFolder(second)]
    table = []
    for images in runs:
        own = trained(images, images, Path(out))
        for owner in runs:
            result = trained(owner, images, Path(out))
            row = {"trajectory": owner.path.name, "images": images.path.name}
            for key in ("psnr", "ssim"):
                row[key] = result.mean(key)
                row[f"{key}_lost"] = own.mean(key) - result.mean(key)
                row[f"{key}_p"] = wilcoxon_p(own.values(key), result.values(key))
            table.append(row)
            print(
                f"trajectory of {row['trajectory']} on images of {row['images']}: {row['psnr']:.2f} dB, "
                f"SSIM {row['ssim']:.4f}; lost {row['psnr_lost']:.2f} dB (p = {row['psnr_p']:.0e}), "
                f"{row['ssim_lost']:.4f} (p = {row['ssim_p']:.0e})"
            )
    Path(out, "exchange.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8", newline="\n")


def trained(owner: RunFolder, images: RunFolder, out: Path) -> StageResult:
    """Return the test scores of a network trained on one run's images with the other's trajectory."""
    folder = RunFolder(out / f"{owner.path.name}_on_{images.path.name}")
    if not (folder.path / "metrics.json").exists():
        optimize(exchanged(owner, images), folder.path, overwrite=True)
    return folder.results().last


def exchanged(owner: RunFolder, images: RunFolder) -> Config:
    """Return the config of a run on the trajectory of `owner`, fixed, with everything else from `images`."""
    changes = {
        "init": {"kind": "file", "path": str(owner.path / "trajectory.npz")},
        "start": {},
        "parameterization": {"kind": "fixed"},
    }
    return from_tables({**images.config().to_dict(), **changes})


if __name__ == "__main__":
    main(*sys.argv[1:])
