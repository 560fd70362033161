"""
What does learning change?
==========================

A tiny learning: 6 spokes of 1.6 ms for 48 x 48 pixels, moved by gradient descent together with the network that
reconstructs the image. Left the start in k-space (1/m) and what became of it, one colour a shot, with the PSNR (dB) on
test images that neither training has seen; right the slew rate (T/m/s) over time (ms), which the start does not use
and the learned shots do, up to the limit. A real learning takes many times as many steps.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import trajdesign as td
from trajdesign.reporting import drawing

# %%
# Settings
# --------
# What is not said keeps its default; the images are random brain-like phantoms.

config = td.Config(
    name="tiny",
    acquisition=td.Acquisition(fov=(0.22, 0.22), matrix=(48, 48), n_shots=6, n_samples=400, dwell=4e-6),
    scanner=td.Scanner(max_gradient=40e-3, max_slew=150.0),
    init={"kind": "radial"},
    parameterization={"kind": "bspline", "n_control": 40},
    reconstructor={"kind": "unet", "channels": 8, "levels": 2},
    data={"kind": "phantom", "n_train": 24, "n_val": 2, "n_test": 8, "n_coils": 1},
    training={"epochs": 3, "validations": 1, "trajectory_rate": 0.03},
)

# %%
# Train twice
# -----------
# Once with the start as it is, once learning it, with the same network, steps and seed.

with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "run"
    results = td.optimize(config, run)
    both = {"fixed": td.load(run / "initial.npz"), "learned": td.load(run)}
for stage, result in results.stages.items():
    print(f"{stage}: {result.psnr:.2f} dB, SSIM {result.ssim:.3f}")

# %%
# Before and after
# ----------------

figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
for panel, (stage, trajectory), colour in zip(axes, both.items(), drawing.COLOURS, strict=False):
    drawing.k_space(panel, trajectory, (0, 1))
    panel.set_title(f"{stage}: {results.stages[stage].psnr:.2f} dB")
    worst = trajectory.slew.norm(dim=-1).amax(dim=0).numpy()
    time = 1e3 * trajectory.scanner.gradient_raster * np.arange(len(worst))
    axes[2].plot(time, worst, color=colour, label=stage)
axes[2].axhline(config.scanner.max_slew, color=drawing.GREY, linestyle="--")
drawing.label(axes[2], "time (ms)", "slew rate (T/m/s)", "the shot that needs most")
axes[2].legend(frameon=False)
plt.show()
