"""Real data of scanners, which are not part of the project: ``TRAJDESIGN_DATA``, or the folder beside the clone."""

import os
from pathlib import Path

import pytest


def real(name):
    """Return the path of a file, or skip the test."""
    root = Path(os.environ.get("TRAJDESIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_file():
        pytest.skip(f"no real data: {root / name} is absent; set TRAJDESIGN_DATA to the folder that holds it")
    return root / name
