"""Memory that is freed stays with the process: what is taken next costs no page faults."""

import ctypes
import subprocess
import sys

import pytest

# Takes and frees as a training step does, 120 MiB in six pieces, and prints the page faults after the first rounds.
SCRIPT = """
import resource
import torch
from trajdesign.runtime import memory

memory.keep()
for step in range(8):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(5 * 2**20) for _ in range(6)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults():
    """Return how many pages the last four of eight rounds had to ask the system for."""
    return int(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's allocator alone is asked"
)
def test_what_is_freed_is_taken_again_without_page_faults():
    n_pages = 4 * 120 * 2**20 // 4096
    # without `memory.keep` it is all pages in most processes, in some none, as the heap happens to lie
    assert max(faults() for _ in range(3)) < n_pages / 1000
