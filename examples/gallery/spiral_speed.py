"""
What do the gradient and the slew rate limit do to a spiral?
============================================================

One interleaf of an Archimedean spiral to the same edge of k-space (218 1/m) in 5 ms, on three scanners. Below, the
vector norm of its gradient (mT/m) over time (ms): first it rises as fast as the slew rate allows, and then it follows
the gradient limit (dashed) or the receiver's, whichever is lower. What is gained is turns: the more of them fit, the
fewer interleaves fill k-space.
"""

import matplotlib.pyplot as plt
import numpy as np

import trajdesign as td
from trajdesign.reporting import drawing
from trajdesign.trajectories.inits.spiral import spiral

# %%
# Three scanners
# --------------
# The receiver samples every 2 us, so that it sets no limit to the gradients of these three.

acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=1, n_samples=2500, dwell=2e-6)
scanners = {
    "25 mT/m, 150 T/m/s": td.Scanner(max_gradient=25e-3, max_slew=150.0),
    "25 mT/m, 75 T/m/s": td.Scanner(max_gradient=25e-3, max_slew=75.0),
    "15 mT/m, 150 T/m/s": td.Scanner(max_gradient=15e-3, max_slew=150.0),
}
spirals = {name: spiral(acquisition, scanner) for name, scanner in scanners.items()}

# %%
# Path and speed
# --------------

figure, axes = plt.subplots(2, 3, figsize=(12, 7.6), layout="constrained", sharey="row", height_ratios=(2, 1))
for (name, trajectory), path, speed in zip(spirals.items(), *axes, strict=True):
    x, y = trajectory.k_adc[0].T.numpy()
    turns = np.ptp(np.unwrap(np.arctan2(y, x))[1:]) / (2 * np.pi)
    print(f"{name}: {turns:.1f} turns")
    drawing.k_space(path, trajectory, (0, 1))
    path.set_title(f"{name}: {turns:.1f} turns")

    gradient = 1e3 * trajectory.gradient[0].norm(dim=-1).numpy()
    time = 1e3 * trajectory.scanner.gradient_raster * np.arange(len(gradient))
    speed.plot(time, gradient, color=drawing.COLOURS[0])
    speed.axhline(1e3 * trajectory.scanner.max_gradient, color=drawing.GREY, linestyle="--")
    drawing.label(speed, "time (ms)", "gradient (mT/m)", "")
    speed.set_ylim(0, 28)
for panel in axes[:, 1:].flat:
    panel.set_ylabel("")
plt.show()
