"""Reads HDF5 files that may crash their library: ``python hdf5s.py FIRST FOLDER``, a process of its own.

It tells of each file before it is read and of what came of it, so that a crash is known by what is missing.
"""

import sys
from pathlib import Path

from trajdesign.acquisition import Acquisition
from trajdesign.data.hdf5 import sandbox
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.errors import InputError

ACQUISITION = Acquisition(matrix=(16, 16))


def outcome(path):
    """Return what a file gives: ``finite``, ``not finite``, a refusal, or what should not be."""
    try:
        dataset = fastmri(ACQUISITION, "test", test=[str(path)])
        items = [dataset[i] for i in range(len(dataset))]
        return "finite" if all(bool(item.isfinite().all()) for item in items) else "not finite"
    except InputError as error:
        return f"refused: {error}" if str(error).isprintable() else "not printable"
    except Exception as error:  # what a test fails for
        return f"leaked: {error!r}"


if __name__ == "__main__":
    sandbox.require_sound = lambda *_: None  # this is a process for it
    for path in sorted(Path(sys.argv[2]).glob("*.h5"))[int(sys.argv[1]) :]:
        sys.stdout.write(f"{path.name}\t")
        sys.stdout.flush()
        sys.stdout.write(f"{outcome(path)}\n")
        sys.stdout.flush()
