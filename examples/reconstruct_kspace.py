"""Sample measured multi-coil k-space (fastMRI HDF5) on learned trajectories and reconstruct it with the runs' networks.

python examples/reconstruct_kspace.py FILE.h5 RUN[:STAGE] [RUN[:STAGE] ...]

The fully sampled coil images are the reference, combined by root sum of squares. A run stands for its learned
trajectory and the network trained with it, RUN:fixed for its fixed start. The slice in the middle is drawn in
reconstruct_kspace.png.
"""

import argparse
import sys
from pathlib import Path

import torch

from trajdesign.data.sources.fastmri import fastmri
from trajdesign.errors import TrajdesignError
from trajdesign.learning import compare
from trajdesign.learning.evaluation import reconstruct
from trajdesign.learning.trained import TrainedRun
from trajdesign.reconstruction import metrics
from trajdesign.reporting import plots


@torch.no_grad()
def main(kspace: str, *runs: str) -> None:
    """Print PSNR and SSIM of every slice, and draw the one in the middle."""
    stages = compare.open_stages(runs)
    trained = {stage.label: TrainedRun.load(stage.folder.path, stage.name) for stage in stages}
    slices = fastmri(stages[0].config.acquisition, "test", test=[kspace])
    for i in range(len(slices)):
        coil_images = slices[i][None]
        images, scores = {}, {}
        for label, run in trained.items():
            # what was measured has noise of its own
            settings = run.config.training.model_copy(update={"noise": 0.0})
            image, reference = reconstruct(coil_images, run.encoding, run.network, settings)
            images[label] = image[0, 0].numpy()
            scores[label] = {
                "PSNR": float(metrics.psnr(image, reference, 1.0)),
                "SSIM": float(metrics.ssim(image, reference, 1.0)),
            }
            print(f"slice {i}, {coil_images.shape[1]} coils, {label}: {scores[label]}")
        if i == len(slices) // 2:
            figure = Path("reconstruct_kspace.png")
            plots.save(plots.reconstructions(reference[0, 0].numpy(), images, scores), figure)
            print(f"drawn in {figure}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Reconstruct measured k-space as runs would have sampled it.")
    parser.add_argument("kspace", metavar="FILE.h5", help="fully sampled multi-coil k-space, as of fastMRI or ISMRMRD")
    parser.add_argument("runs", metavar="RUN[:STAGE]", nargs="+", help="run folder; RUN:fixed for its fixed start")
    given = parser.parse_args()
    try:
        main(given.kspace, *given.runs)
    except TrajdesignError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
