"""
How does a pattern from elsewhere become playable?
==================================================

Spirals of mri-nufft in k-space (1/m), 8 of 4 ms, as they are drawn, and the two ways to play them under 40 mT/m and
150 T/m/s; below, the gradient of the first one (mT/m, vector norm) over time (ms), against the lower of the scanner's
limit and the receiver's (dashed). Moved onto the limits, each sample stays as near as it can to where it was at its
time, and the outer turns shrink. Timed anew, the shots keep their path, fast at the centre and slower outside.
"""

import matplotlib.pyplot as plt
import numpy as np
from mrinufft import initialize_2D_spiral

import trajdesign as td
from trajdesign.physics import limits
from trajdesign.reporting import drawing
from trajdesign.trajectories import convert
from trajdesign.trajectories.inits.mrinufft import mrinufft

acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=8, n_samples=1000, dwell=4e-6)
scanner = td.Scanner(max_gradient=40e-3, max_slew=150.0)

# %%
# As it comes
# -----------
# mri-nufft draws x before y; the arrays of its operators, in cycles a pixel, hold y before x. Fitted onto the gradient
# raster, the array is a trajectory, and every limit can be measured.

samples = initialize_2D_spiral(8, 1000, nb_revolutions=4)
drawn = convert.from_mrinufft(samples[..., ::-1], acquisition, scanner)
for finding in td.check(drawn):
    print(f"{limits.describe(finding)}: {'kept' if finding.ok else 'BROKEN'}")

# %%
# In its time, or on its path
# ---------------------------

constraints = limits.constraints(acquisition, scanner)
moved = td.project(drawn, constraints, n_iterations=500)
timed = mrinufft(acquisition, scanner, pattern="spiral", options={"nb_revolutions": 4})

# %%
# What either costs
# -----------------

highest = 1e3 * min(constraint.limit for constraint in constraints if constraint.name in ("gradient", "receiver"))
figure, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained", sharey="row", height_ratios=(2, 1))
ways = {"as drawn": drawn, "moved onto the limits": moved, "timed anew": timed}
for (name, trajectory), path, speed in zip(ways.items(), *axes, strict=True):
    drawing.k_space(path, trajectory, (0, 1))
    path.set_title(name)
    gradient = 1e3 * trajectory.gradient[0].norm(dim=-1).numpy()
    time = 1e3 * scanner.gradient_raster * np.arange(len(gradient))
    speed.plot(time, gradient, color=drawing.COLOURS[0])
    speed.axhline(highest, color=drawing.GREY, linestyle="--")
    slew = float(trajectory.slew.norm(dim=-1).max())
    drawing.label(speed, "time (ms)", "gradient (mT/m)", f"largest slew rate {slew:.0f} T/m/s")
for panel in axes[:, 1:].flat:
    panel.set_ylabel("")
plt.show()
