"""Commands on a system that lacks what only POSIX has, as far as Linux can play it: ``python elsewhere.py FOLDER``.

It prints as JSON the exit status and the sentences of each command.
"""

import builtins
import errno
import fcntl
import io
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch._dynamo  # noqa: F401  with what follows, what takes its own part of the system when it is imported

HIDDEN = ("fcntl", "resource", "pwd", "grp", "termios")
NAMES = ("register_at_fork", "fork", "O_NOFOLLOW", "O_NONBLOCK", "sched_getaffinity", "geteuid", "getuid", "killpg")
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGKILL", "SIGXFSZ", "SIGPIPE")


def hide():
    """Take away modules, from this package alone, names and signals; and synchronise as Windows does."""
    imported, synchronise, opened = builtins.__import__, os.fsync, os.open

    def find(name, globals=None, *rest, **more):
        if name in HIDDEN and (globals or {}).get("__name__", "").startswith("trajdesign"):
            raise ModuleNotFoundError(name)
        return imported(name, globals, *rest, **more)

    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synchronise(descriptor)

    def open_file(path, *rest, **more):
        if Path(os.fsdecode(path)).is_dir() if isinstance(path, (str, bytes, Path)) else False:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *rest, **more)

    builtins.__import__, os.fsync, os.open = find, fsync, open_file
    for name in NAMES:
        delattr(os, name)
    for name in SIGNALS:
        delattr(signal, name)


def called(*words):
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["trajdesign", *words]
    from trajdesign.cli import app

    try:
        with redirect_stdout(out), redirect_stderr(err):
            app.main()
        return 0, err.getvalue()
    except SystemExit as end:
        return end.code or 0, err.getvalue()


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    hide()
    from tiny import TINY

    settings = [word for setting in TINY for word in ("--set", setting)]
    train = ["optimize", "--out", "run", "--device", "cpu", "--no-baseline", "--quiet"]
    commands = [
        [*train, *settings],
        [*train, *settings],
        [*train, "--resume"],
        ["check", "run"],
        ["export", "run", "--out", "run.seq"],
        ["export", "run", "--out", "run.seq"],
        ["export", "run", "--out", "run.h5", "--format", "mrd"],
        ["check", "run.seq"],
        ["scan", "run.seq", "--reconstruct", "run", "--out", "scan"],
        ["psf", "run", "--out", "psf.pdf"],
        ["report", "run"],
        ["config", "init", "--out", "config.toml"],
        ["list"],
    ]
    found = [called(*words) for words in commands]
    sys.stdout.write(json.dumps({"ends": found, "left": [p.name for p in Path().rglob(".*")]}))
