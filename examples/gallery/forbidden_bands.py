"""
Which echo spacing keeps out of the forbidden bands?
====================================================

Two echo-planar sequences, read back from their Pulseq files: above, one readout of each along x, in mT/m over ms;
below, the spectrum of the gradients of all axes in the worst 50 ms, in mT/m over Hz, and as grey bars the bands that
the gradient coil must not be driven in. A readout gradient that turns round every echo spacing has its strongest line
at one over twice that time: here the shorter spacing hits a band, and the longer one passes between the two. The
repetition of the readouts makes a comb of each line.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import trajdesign as td
from trajdesign.physics.nerves import nerve_model
from trajdesign.physics.resonances import Band
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.side_effects import expose
from trajdesign.reporting import drawing
from trajdesign.trajectories.inits.epi import epi

scanner = td.Scanner(max_gradient=40e-3, max_slew=180.0)
bands = [Band(590.0, 100.0), Band(1140.0, 220.0)]  # Hz; those of your coil are in its .asc file

# %%
# Write, and read back
# --------------------
# 16 lines a shot, in readouts of 7.2 and 9 ms. What counts is what stands in the file: the echo spacing is the time
# from one passage through k = 0 along x to the next.

files = {}
with tempfile.TemporaryDirectory() as folder:
    for n_samples in (1800, 2250):
        acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(64, 64), n_shots=4, n_samples=n_samples, dwell=4e-6)
        path = Path(folder) / f"epi_{n_samples}.seq"
        td.export(epi(acquisition, scanner, lines=16), path, options={"sequence": {"tr": 20e-3}})
        file = player.read(path)
        time, k = file.adc_times[-1], file.k_adc[-1, :, 0]
        spacing = np.diff(time[:-1][k[:-1] * k[1:] < 0]).mean()
        files[f"{1e3 * spacing:.3f} ms, {1 / (2 * spacing):.0f} Hz"] = file

# %%
# Verdicts
# --------
# Bands and nerves are judged over the whole file; the model of the nerves is that of one particular coil.

exposures = {name: expose(file, scanner, nerve_model("xrm"), bands=bands) for name, file in files.items()}
for name, exposure in exposures.items():
    print(f"echo spacing {name}")
    for check in exposure.checks:
        print(f"    {check.name}, {check.where}: {check.value:.3g} {check.unit}")

# %%
# Waveforms and spectra
# ---------------------

figure, (wave, spectrum) = plt.subplots(2, 1, figsize=(9, 7), layout="constrained")
for (name, exposure), colour in zip(exposures.items(), drawing.COLOURS, strict=False):
    gradient = files[name].sampled(scanner.gradient_raster, scanner.gamma)
    time = scanner.gradient_raster * (np.arange(gradient.shape[1]) + 0.5)
    readout = slice(*np.searchsorted(time, files[name].adc_times[-1][[0, -1]]))
    wave.plot(1e3 * (time[readout] - time[readout.start]), 1e3 * gradient[0, readout], color=colour)
    spectrum.plot(exposure.frequencies, 1e3 * exposure.spectrum, color=colour, label=f"echo spacing {name}")
for band in bands:
    spectrum.axvspan(band.low, band.high, color=drawing.GREY, alpha=0.25, linewidth=0)
spectrum.set_xlim(0, 3000)
drawing.label(wave, "time since the first sample (ms)", "gradient along x (mT/m)", "the last readout")
drawing.label(spectrum, "frequency (Hz)", "amplitude (mT/m)", "all axes, the worst 50 ms; grey: forbidden")
figure.legend(loc="outside upper center", ncols=2, frameon=False)
plt.show()
