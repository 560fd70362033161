"""What is written and learned is what it was: six exports and two trainings against the numbers kept beside this file.

Where a change of them is meant, ``python tests/test_reference.py`` keeps the new ones.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pypulseq
import pytest
from faults.tiny import tiny

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.exporting.proof import export
from trajdesign.learning.optimize import optimize
from trajdesign.scanner import Scanner

KEPT = Path(__file__).with_name("reference.json")
PATTERNS = ("cartesian", "epi", "propeller", "radial", "rosette", "spiral")
TRAININGS = {"bspline": [], "neural_ode": ["parameterization.kind=neural_ode"]}


def exported(pattern, folder):
    """Return numbers of a scan with a pattern, as pypulseq reads the file: times, counts, and gradients all along."""
    trajectory = plugins.find("init", pattern)(Acquisition(matrix=(32, 32), n_shots=4, n_samples=400), Scanner())
    export(trajectory, folder / f"{pattern}.seq")
    sequence = pypulseq.Sequence()
    sequence.read(str(folder / f"{pattern}.seq"))
    duration, n_blocks, _ = sequence.duration()
    curves = sequence.waveforms_and_times()[0]
    times = np.linspace(0, duration, 97)
    return {
        "seconds": duration,
        "blocks": int(n_blocks),
        "k in 1/m": trajectory.k_adc[:, ::80].numpy().flatten().round(6).tolist(),
        "gradients in kHz/m": [(np.interp(times, *curve) / 1e3).round(3).tolist() for curve in curves],
    }


def losses(kind, folder):
    """Return the loss of each of twenty steps."""
    found = []
    rates = ["training.trajectory_rate=0.002", "training.network_rate=0.002"]
    config = tiny("training.epochs=10", *rates, *TRAININGS[kind])
    optimize(config, folder / kind, device="cpu", baseline=False, report=lambda p: found.append(p.loss))
    return found


@pytest.fixture(scope="module")
def kept():
    return json.loads(KEPT.read_text())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_export_is_what_it_was(pattern, kept, tmp_path):
    was, found = kept["exports"][pattern], exported(pattern, tmp_path)
    assert (found["seconds"], found["blocks"]) == (pytest.approx(was["seconds"], abs=1e-9), was["blocks"])
    assert np.allclose(found["k in 1/m"], was["k in 1/m"], rtol=0, atol=1e-4)
    for axis in range(3):  # prephasers and rewinders are a solver's, to some digits
        assert np.allclose(found["gradients in kHz/m"][axis], was["gradients in kHz/m"][axis], rtol=0, atol=1)


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_is_what_it_was(kind, kept, tmp_path):
    # in single precision another order of sums grows to some 1e-4 in twenty steps
    assert losses(kind, tmp_path) == pytest.approx(kept["losses"][kind], rel=5e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        numbers = {
            "exports": {pattern: exported(pattern, Path(name)) for pattern in PATTERNS},
            "losses": {kind: losses(kind, Path(name)) for kind in TRAININGS},
        }
    KEPT.write_text(json.dumps(numbers) + "\n")
