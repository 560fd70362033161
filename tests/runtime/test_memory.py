"""Memory that is freed stays with the process, until something larger asks for it."""

import ctypes
import json
import subprocess
import sys

import pytest

MIB = 2**20
# In a process of its own: takes six pieces of 24 MiB from the C library and frees them; glibc counts what that makes.
SCRIPT = """
import ctypes, json, resource, sys
from pathlib import Path
from trajdesign.errors import ResourceError
from trajdesign.runtime import memory

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Counts = type("Counts", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
library = ctypes.CDLL(None)
library.malloc.restype, library.mallinfo2.restype = ctypes.c_void_p, Counts
library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "kept":
    memory.keep()
before = library.mallinfo2()
pieces = [library.malloc(24 * 2**20) for _ in range(6)]
taken = library.mallinfo2()
for piece in pieces:
    library.free(piece)
freed = library.mallinfo2()
size = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + 100 * 2**20, -1))
fits = True
try:
    memory.require(150 * 2**20, "a volume", "take a smaller one")
except ResourceError:
    fits = False
print(json.dumps([taken.hblks - before.hblks, freed.arena - before.arena, fits]))
"""


def counted(how):
    """Return how many pieces were mappings, how many bytes are held when all are free, and if 150 MiB fit into 100."""
    command = [sys.executable, "-c", SCRIPT, how]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc alone keeps, and counts"
)
def test_what_is_freed_is_kept_until_something_larger_needs_it():
    n_mapped, n_held, fits = counted("kept")
    assert n_mapped == 0
    assert 6 * 23 * MIB < n_held < 6 * 25 * MIB, "the heap had a little room before"
    assert fits, "what is held was given back first"
    n_mapped, n_held, fits = counted("as it is")
    assert n_mapped == 6
    assert n_held < MIB
    assert not fits
