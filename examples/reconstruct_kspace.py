"""Sample real multi-coil k-space (fastMRI HDF5) on a learned trajectory and reconstruct it with the run's network.

python examples/reconstruct_kspace.py RUN FILE.h5 [FIGURE.png]

The fully sampled coil images are the reference, combined by root sum of squares; the same is done on the fixed
initial trajectory, with the network that was trained on it.
"""

import sys
from pathlib import Path

import torch

from trajdesign import metrics, plots, plugins
from trajdesign.datasets.fastmri import fastmri
from trajdesign.encoding import Encoding
from trajdesign.evaluation import reconstruct
from trajdesign.run import RunFolder


@torch.no_grad()
def main(run: str, kspace: str, figure: str = "reconstruct_kspace.png") -> None:
    """Print PSNR and SSIM of every slice, and draw the one in the middle."""
    folder = RunFolder(run)
    config = folder.config()
    slices = fastmri(config.acquisition, "test", test=[kspace])
    for i in range(len(slices)):
        coil_images = slices[i][None]
        images, scores = {}, {}
        for label, start, weights in (("fixed", "initial", "network_fixed"), ("learned", "trajectory", "network")):
            network = plugins.build("reconstructor", config.reconstructor).eval()
            folder.load_network(network, weights)
            image, reference = reconstruct(coil_images, Encoding(folder.trajectory(start)), network, config)
            images[label] = image[0, 0].numpy()
            scores[label] = {
                "PSNR": float(metrics.psnr(image, reference, 1.0)),
                "SSIM": float(metrics.ssim(image, reference, 1.0)),
            }
            print(f"slice {i}, {coil_images.shape[1]} coils, {label}: {scores[label]}")
        if i == len(slices) // 2:
            plots.save(plots.reconstructions(reference[0, 0].numpy(), images, scores), Path(figure))
            print(f"drawn in {figure}")


if __name__ == "__main__":
    main(*sys.argv[1:])
