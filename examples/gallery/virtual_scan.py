"""
How long may a readout be?
==========================

A phantom scanned by two written Pulseq files that sample as many points, 4 spiral interleaves of 12 ms and 16 of 3 ms,
in a field that is off by 40 Hz. The images are on the scale of the object, with their PSNR (dB), above maps of their
errors. The phase that off-resonance adds grows along the readout, so the long one blurs more.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import trajdesign as td
from trajdesign.reporting import drawing
from trajdesign.trajectories.inits.spiral import spiral

scanner = td.Scanner(max_gradient=40e-3, max_slew=150.0)

# %%
# Write, and scan
# ---------------

scans = {}
for n_shots, n_samples in ((4, 3000), (16, 750)):
    acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=n_shots, n_samples=n_samples, dwell=4e-6)
    name = f"{n_shots} interleaves of {1e3 * acquisition.readout:.0f} ms"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spiral.seq"
        td.export(spiral(acquisition, scanner), path)
        scans[name] = td.scan(path, out=path.with_suffix(""), n_coils=1, off_resonance=40.0)
    facts = scans[name].facts["image"]
    print(f"{name}: PSNR {facts['psnr']:.1f} dB, SSIM {facts['ssim']:.3f}")

# %%
# Images and errors
# -----------------
# The folder of a scan holds such a picture too, and the raw data.

figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="compressed")
for column, (name, scanned) in zip(axes.T, scans.items(), strict=True):
    image = drawing.magnitude(column[0], scanned.image, "gray", scanned.reference.max())
    error = drawing.magnitude(column[1], abs(scanned.image - scanned.reference), "inferno", scanned.reference.max() / 3)
    column[0].set_title(f"{name}\n{scanned.facts['image']['psnr']:.1f} dB")
figure.colorbar(image, ax=axes[0], label="magnitude")
figure.colorbar(error, ax=axes[1], label="|error|")
plt.show()
