"""What fits into the memory of this machine, asked before it is taken; what is freed is kept for the next step."""

import contextlib
import ctypes
import math
import sys
from collections.abc import Callable
from pathlib import Path

from trajdesign.errors import ResourceError

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

#: Numbers of options of glibc's ``mallopt``, and bytes: smaller pieces are no mappings of their own, and up to so much
#: that is free at the end of the heap stays there.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 2**25), (-1, 2**30)


def keep() -> None:
    """Let this process keep memory that it frees for what comes next; only with glibc, elsewhere nothing is done.

    Given back after every step, it costs a page fault for each 4 KiB in the next: up to a quarter of a small step. It
    is 1 GiB at most, until the process ends or `require` gives it back.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(*option)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library that glibc alone has; None with another one, as on macOS or Windows."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def available() -> float:
    """Return how many bytes this process may still take; infinite if the system does not tell."""
    free = math.inf
    with contextlib.suppress(OSError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = sum(1024.0 * int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree"))
    with contextlib.suppress(OSError, ValueError):  # there is no group, or no limit
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{what}").read_text(encoding="ascii")) for what in ("max", "current"))
        free = min(free, most - used)
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            with contextlib.suppress(OSError):
                pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
                free = min(free, most - pages * resource.getpagesize())
    return free


def require(n_bytes: float, what: str, remedy: str) -> None:
    """Raise `ResourceError` if `what`, the subject of its sentence, takes `n_bytes` and less memory is free.

    What this process holds free (see `keep`) is given back first if that decides.
    """
    free = available()
    if n_bytes > free and (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)
        free = available()
    if n_bytes > free:
        raise ResourceError(
            f"{what} would take {n_bytes / 2**30:.3g} GiB of memory at least, and {max(free, 0) / 2**30:.3g} GiB are "
            f"free; {remedy}."
        )
