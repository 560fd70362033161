#!/usr/bin/env python3
"""Set everything up and learn a first trajectory: ``python3 examples/start.py``.

It makes the virtual environment ``.venv`` (unless it runs inside one), installs the package into it, and then learns,
checks, exports and measures a trajectory on embedded data. Further arguments go to ``trajdesign optimize``:
``python3 examples/start.py --set training.epochs=1``. It needs Python 3.11 with venv, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "constraints.txt")


def main(arguments: list[str] | None = None) -> int:
    """Install, run the main job, say what comes next; returns the exit code of the first command that fails."""
    parser = argparse.ArgumentParser(
        description="Set up trajdesign and learn a first trajectory.",
        epilog="Other options go to `trajdesign optimize`, as in: --set training.epochs=1",
    )
    parser.add_argument("--out", default="runs/first", help="run folder; what it holds is replaced (%(default)s)")
    known, forwarded = parser.parse_known_args(arguments)
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.stderr.write(f"trajdesign needs Python 3.11 or newer; this is {sys.version.split()[0]}.\n")
        return 6
    try:
        started = time.monotonic()
        python = install()
        installed = time.monotonic()
        for command in commands(known.out, forwarded):
            print(f"\n$ trajdesign {shlex.join(command)}", flush=True)
            run([python, "-m", "trajdesign", *command])
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"\nStopped: this command ended with exit code {error.returncode}:\n  {shlex.join(error.cmd)}\n"
        )
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except KeyboardInterrupt:
        return 130
    print(
        f"\nInstalled in {installed - started:.0f} s, ran in {time.monotonic() - installed:.0f} s.\n"
        f"Figures: {Path(known.out, 'figures')}; scanner file: {Path(known.out, 'trajectory.seq')}\n\n"
        f"Next:\n{following(python, known.out)}"
    )
    return 0


def install(extra: str = "") -> str:
    """Install the package into this virtual environment, or into ``.venv``; returns the environment's Python."""
    inside = sys.prefix != sys.base_prefix
    home = Path(sys.prefix) if inside else ROOT / ".venv"
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if not Path(python).exists():
        print(f"Making the virtual environment {home}", flush=True)
        run([sys.executable, "-m", "venv", str(home)])
    # an install that has happened is not repeated, so that later runs need no network
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in SOURCES)).hexdigest()
    stamp = home / "trajdesign-installed.txt"
    done = stamp.read_text().split() if stamp.exists() else []
    if not any(line.startswith(extra) and line.endswith(digest) for line in done):
        print(f"Installing into {home} (the first time PyTorch is downloaded, which takes a while)", flush=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
        run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}{extra}"])
        stamp.write_text("\n".join([*done, extra + digest]))
    return python


def commands(out: str, forwarded: list[str]) -> list[list[str]]:
    """Return the arguments of the main job's commands, in order."""
    return [
        ["optimize", "--out", out, "--force", *forwarded],
        ["check", out],
        ["export", out, "--format", "pulseq", "--out", f"{out}/trajectory.seq", "--force"],
        ["psf", out, "--compare", f"{out}/initial.npz", "--out", f"{out}/psf.png"],
    ]


def following(python: str, out: str) -> str:
    """Return the commands to try next."""
    activate = Path(python).with_name("activate")
    first = [] if sys.prefix != sys.base_prefix else [f"  source {activate}"]
    return "\n".join(
        [
            *first,
            "  trajdesign list",
            f"  trajdesign export {out} --format pulseq --pulseq-version 1.4.1 --out {out}/trajectory_141.seq",
            "  trajdesign optimize --out runs/spiral --set init.kind=spiral",
            "  python3 tests/run.py",
        ]
    )


def run(command: list[str]) -> None:
    """Run a command on this terminal."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
