"""A run of many steps takes no more memory and files at its end than at its beginning."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.tiny import tiny

from trajdesign.learning.optimize import optimize

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc"),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_open_files_stay(tmp_path, workers):
    measured = []

    def report(p):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        measured.append(
            (p.step, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(1 for _ in Path("/proc/self/fd").iterdir()))
        )

    config = tiny("training.epochs=1000", "training.checkpoint_seconds=1", f"training.workers={workers}")
    optimize(config, tmp_path / "run", device="cpu", baseline=False, report=report)
    steps, mib, files = np.array(measured[200:]).T
    assert steps[-1] == 2000
    assert np.polyfit(steps, mib, 1)[0] * 100 < 1, "MiB in a hundred steps"
    # a checkpoint that is being written is one more
    assert files.max() - files.min() <= 1
