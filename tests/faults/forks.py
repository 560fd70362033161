"""Kills, signals and races of whole commands, many of them for one import: ``python forks.py FOLDER SCENARIO=N ...``.

This process imports everything once, starts no thread, and forks each command. It prints what came of them as JSON.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # with what follows, what the children need: each would take seconds to import it
from tiny import TINY, sums, tiny

from trajdesign.cli import app
from trajdesign.files import lock
from trajdesign.learning import checkpoint
from trajdesign.learning.optimize import optimize
from trajdesign.reporting import report  # noqa: F401

SETTINGS = [word for setting in TINY for word in ("--set", setting)]
QUIET = ["--device", "cpu", "--no-baseline", "--quiet"]


def fork(work, log):
    """Return the id of a process that does some work, and what it says."""
    child = os.fork()
    if child:
        return child
    code = 1
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 2)
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            stream.write(f"Traceback: {error!r}\n")
        finally:
            sys.stderr.flush()
            stream.flush()
            os._exit(code)


def command(*words):
    def work():
        sys.argv = ["trajdesign", *map(str, words)]
        app.main()

    return work


def ended(child, seconds=120.0):
    """Return the exit status of a process as a shell reports it, or None if it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def steps_of(config, path, log, report_to):
    def work():
        optimize(
            config,
            path,
            device="cpu",
            resume=True,
            baseline=False,
            quiet=True,
            report=lambda p: os.write(report_to, b"."),
        )

    return fork(work, log)


def newest(path):
    """Return the step of the newest checkpoint, which must be whole; 0 without one."""
    found = sorted((path / "checkpoints").glob("*.ckpt"))
    return checkpoint.read(found[-1])["training"]["done"]["step"] if found else 0


def kills(n, folder):
    """Kill a run that keeps every step at random moments, and start it again, until it has been killed n times."""
    draw, results = random.Random(n), []
    config = tiny("training.epochs=20", "training.validations=1")
    ended(fork(lambda: optimize(config, folder / "whole", device="cpu", baseline=False, quiet=True), folder / "log"))
    n_run = 0
    while len(results) < n:
        path, n_run, n_left = folder / f"run{n_run}", n_run + 1, 6
        while n_left and len(results) < n:
            n_left -= 1
            before = newest(path)
            read, write = os.pipe()
            child = steps_of(config, path, folder / "log", write)
            os.close(write)
            n_steps = sum(len(os.read(read, 1)) for _ in range(draw.randint(1, 4)))
            time.sleep(draw.uniform(0, 0.04))
            os.kill(child, signal.SIGKILL)
            ended(child)
            while more := os.read(read, 100):
                n_steps += len(more)
            os.close(read)
            left = len(list(path.glob("**/.tmp-*")))
            with contextlib.suppress(Exception):  # what cannot be read counts as lost
                results.append({"lost": before + n_steps - newest(path), "temporary": left})
                continue
            results.append({"lost": None, "temporary": left})
        code = ended(steps_of(config, path, folder / "log", os.open(os.devnull, os.O_WRONLY)))
        results[-1] |= {"code": code, "same": sums(path) == sums(folder / "whole")}
        results[-1]["left"] = sorted(p.name for p in path.iterdir() if p.name.startswith(".") or p.is_dir())
    return results


def signals(n, folder):
    """Send each signal n times at a random moment of a command, and two interrupts."""
    draw, results = random.Random(n), []
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "twice"):
        for i in range(n):
            path, log = folder / f"{name} {i}", folder / f"{name}{i}.log"
            child = fork(
                command("optimize", "--out", path, *SETTINGS, *QUIET, "--set", "training.epochs=9999",
                        "--set", "training.checkpoint_seconds=1e9"), log
            )  # fmt: skip
            while not (path / "initial.npz").exists():
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.4))
            number = signal.SIGINT if name == "twice" else getattr(signal, name)
            started = time.monotonic()
            os.kill(child, number)
            if name == "twice":
                time.sleep(draw.uniform(0, 0.02))
                os.kill(child, number)
            code = ended(child)
            said, left = log.read_text(), [p.name for p in path.glob("**/.tmp-*")]
            results.append({"name": name, "code": code, "seconds": time.monotonic() - started, "said": said})
            results[-1] |= {"step": newest(path), "temporary": left, "locked": (path / ".lock").exists()}
    return results


def races(n, folder):
    """Start two commands for one folder at most 50 ms apart, then kill the one that has it."""
    draw, results = random.Random(n), []
    for i in range(n):
        path, logs = folder / f"race {i}", [folder / f"{i}{j}.log" for j in range(2)]
        words = ["optimize", "--out", path, *SETTINGS, *QUIET, "--set", "training.epochs=9999", "--resume"]
        pair = []
        for log in logs:
            pair.append(fork(command(*words), log))
            time.sleep(draw.uniform(0, 0.05))
        found, status = os.wait()
        lost = pair.index(found)
        winner, started = pair[1 - lost], time.monotonic()
        third = ended(fork(command(*words), folder / "third.log"))
        seconds = time.monotonic() - started
        os.kill(winner, signal.SIGKILL)
        killed = ended(winner)
        lock.require_free(path)
        with lock.one_writer(path):
            pass
        results.append(
            {"code": os.waitstatus_to_exitcode(status), "said": logs[lost].read_text(), "winner": winner,
             "winner's": killed, "third": third, "third said": (folder / "third.log").read_text(), "seconds": seconds}
        )  # fmt: skip
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for name, _, n in (word.partition("=") for word in sys.argv[2:]):
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        found[name] = {"kills": kills, "signals": signals, "races": races}[name](int(n), folder)
    print(json.dumps(found))  # noqa: T201  what the test reads
