"""Benchmarks: this package and its peers, side by side. Run them from the repository: ``python -m benchmarks.physics``.

The package is imported here, before torch loads: it tells idle OpenMP threads to sleep.
"""

import trajdesign as trajdesign
