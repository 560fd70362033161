"""
What does a variable density do to the point spread function?
=============================================================

The point spread functions of 12 spokes and of 12 spiral interleaves whose turns are closer at the centre, both of
3 ms: in dB of the peak over twice the field of view (box: the field of view, 220 mm), and their mean over all
directions against the distance from the peak in mm. Spokes alias into streaks from a certain distance on; the spiral,
in the same time, into a faint haze.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import trajdesign as td
from trajdesign.reporting import drawing
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral

acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(64, 64), n_shots=12, n_samples=750, dwell=4e-6)
scanner = td.Scanner(max_gradient=40e-3, max_slew=150.0)
spokes = radial(acquisition, scanner)
dense = replace(spiral(acquisition, scanner, density=2.0), name="spiral, density 2")

# %%
# Width and side lobes
# --------------------
# The samples are weighted with the density compensation that reconstructions use. `psf` looks between the pixels of
# its images too, so that neither the width nor the highest side lobe depends on them.

reports = [td.psf(trajectory) for trajectory in (spokes, dense)]
for report in reports:
    print(report.name)
    for quantity, value in report.rows():
        print(f"    {quantity}: {value}")

# %%
# The two in dB
# -------------
# ``plots.psf_figure(*reports)`` draws more of them on one page.

figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained", width_ratios=(1, 1, 1.1))
for panel, report, colour in zip(axes[:2], reports, drawing.COLOURS, strict=False):
    image = drawing.psf_image(panel, report, report.image, report.image_step, "box: field of view")
    distance, mean, _ = report.over_directions()
    axes[2].plot(1e3 * distance, 20 * np.log10(mean), color=colour, label=report.name)
figure.colorbar(image, ax=axes[:2], label="|PSF| (dB)", shrink=0.85)
drawing.label(axes[2], "distance (mm)", "mean over directions (dB)", "")
axes[2].legend(frameon=False)
plt.show()
