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

from trajdesign import plugins
from trajdesign.config.models import from_tables
from trajdesign.config.toml import merge
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import TrajdesignError
from trajdesign.learning.evaluation import reconstruct
from trajdesign.reconstruction import metrics
from trajdesign.reporting import plots
from trajdesign.studies import compare


@torch.no_grad()
def main(kspace: str, *runs: str) -> None:
    """Print PSNR and SSIM of every slice, and draw the one in the middle."""
    stages = compare.open_stages(runs)
    slices = fastmri(stages[0].config.acquisition, "test", test=[kspace])
    for i in range(len(slices)):
        coil_images = slices[i][None]
        images, scores = {}, {}
        for stage in stages:
            network = plugins.build("reconstructor", stage.config.reconstructor).eval()
            encoding = Encoding(stage.folder.load_stage(stage.name, network))
            # what was measured has noise of its own
            config = from_tables(merge(stage.config.to_dict(), {"training": {"noise": 0.0}}))
            image, reference = reconstruct(coil_images, encoding, network, config)
            images[stage.label] = image[0, 0].numpy()
            scores[stage.label] = {
                "PSNR": float(metrics.psnr(image, reference, 1.0)),
                "SSIM": float(metrics.ssim(image, reference, 1.0)),
            }
            print(f"slice {i}, {coil_images.shape[1]} coils, {stage.label}: {scores[stage.label]}")
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
