"""
Which classical pattern to start from?
======================================

Six classical patterns of the same acquisition: 8 shots of 4 ms for a field of view of 220 mm and 96 x 96 pixels. Each
panel shows the samples in k-space (1/m), one colour a shot, and the edge of k-space as a dashed box. Its title
says how much of the limits of 50 mT/m and 200 T/m/s a pattern needs: what is left is room that learning can use.
"""

import matplotlib.pyplot as plt

import trajdesign as td
from trajdesign.config import plugins
from trajdesign.reporting import drawing

# %%
# One acquisition, one scanner
# ----------------------------
# Every pattern fills the whole readout, and is refused if the scanner cannot play it.

acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=8, n_samples=1000, dwell=4e-6)
scanner = td.Scanner(max_gradient=50e-3, max_slew=200.0)
kinds = ["radial", "spiral", "rosette", "epi", "cartesian", "propeller"]
starts = {kind: plugins.build("init", {"kind": kind}, acquisition, scanner) for kind in kinds}

# %%
# What each needs of the scanner
# ------------------------------

needs = {}
for kind, trajectory in starts.items():
    used = {finding.name: finding.value / finding.limit for finding in td.check(trajectory)}
    needs[kind] = f"gradient {used['gradient']:.0%}, slew rate {used['slew']:.0%} of the limit"
    print(f"{kind}: {needs[kind]}")

# %%
# Side by side
# ------------

figure, axes = plt.subplots(2, 3, figsize=(12, 8.4), layout="constrained")
for panel, (kind, trajectory) in zip(axes.flat, starts.items(), strict=True):
    drawing.k_space(panel, trajectory, (0, 1))
    panel.set_title(f"{kind}\n{needs[kind]}", fontsize=10)
    panel.label_outer()
plt.show()
