"""
What does an imperfect gradient system do to the image?
=======================================================

A gradient system with a bandwidth of 40 kHz and delays of 1 us along x and 3 us along y moves the samples of a spiral:
left, how far the k that acts is from the nominal one, in 1/FOV, over time (ms). Right, a phantom that was sampled where
the gradients really went, on one scale. Reconstructed with the nominal k, the head is too bright in the middle, and has
a haze around it.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import trajdesign as td
from trajdesign.data.sources.phantom import phantom
from trajdesign.physics.response import Response
from trajdesign.reporting import drawing
from trajdesign.trajectories.inits.spiral import spiral

# %%
# A measured response
# -------------------
# Sites measure it; here it is a low pass and a delay for each axis. In a config this is the table ``[response]``, and
# learning then sees the k that acts.

frequency = np.linspace(0, 50e3, 2001)
delays = np.array([[1e-6], [3e-6]])
response = np.exp(-2j * np.pi * frequency * delays) / (1 + 1j * frequency / 40e3)

acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=16, n_samples=800, dwell=4e-6)
nominal = spiral(acquisition, td.Scanner(max_gradient=40e-3, max_slew=180.0))
with tempfile.TemporaryDirectory() as folder:
    girf = Path(folder) / "girf.npz"
    np.savez(girf, frequency_hz=frequency, response=response)
    acting = Response({"kind": "girf", "path": str(girf)})(nominal)

# %%
# Where the samples are
# ---------------------

away = (acting.k_adc - nominal.k_adc) * acquisition.fov[0]
print(f"k is off by up to {float(away.norm(dim=-1).max()):.2f}/FOV")

# %%
# What the image becomes
# ----------------------
# The signal comes from where the samples are; the image depends on where one believes them to be.

head = phantom(acquisition, "test", n_test=1, n_coils=1)[0][None]
signal = td.Encoding(acting).forward(head)
images = {}
for name, trajectory in {"acting": acting, "nominal": nominal}.items():
    encoding = td.Encoding(trajectory)
    images[f"with the {name} k"] = encoding.adjoint(encoding.weights * signal)[0, 0].abs().numpy()

# %%
# k and images
# ------------

figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for axis, values, colour in zip("xy", away[0].T, drawing.COLOURS, strict=False):
    axes[0].plot(1e3 * nominal.adc_times, values, color=colour, label=axis)
drawing.label(axes[0], "time (ms)", "acting - nominal k (1/FOV)", "the first interleaf")
axes[0].legend(frameon=False)
for panel, (name, image) in zip(axes[1:], images.items(), strict=True):
    drawing.magnitude(panel, image, "gray", float(head.abs().max()))
    panel.set_title(name)
plt.show()
