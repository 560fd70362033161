"""The cells of a study, trained one by one or side by side, and what has become of each."""

import contextlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal

import torch

from trajdesign import errors
from trajdesign.config.models import differences
from trajdesign.errors import ConfigError, InputError, LimitError, OutputError, ResourceError, TrajdesignError
from trajdesign.files import lock, untrusted
from trajdesign.files.atomic import atomic_path, require_own
from trajdesign.learning import conditions
from trajdesign.learning.optimize import datasets, optimize
from trajdesign.learning.other_data import settings_of
from trajdesign.learning.results import Results, to_json
from trajdesign.learning.run_folder import RunFolder
from trajdesign.runtime import processes
from trajdesign.runtime.interrupt import Signals
from trajdesign.studies.study import Cell, Study

_FAILURE = "failure.json"
_PATIENCE = 60.0  # s, for as many as a cluster starts at once
_SHARE = ".lock-"  # of the cells i, i + n, ...: .lock-i-n


@dataclass(frozen=True)
class Outcome:
    """What has become of a cell: its results, or the sentence that says why there are none.

    `untested` are the conditions in which a finished one is still to be tested; the sentence then says why, if known.
    """

    status: Literal["finished", "skipped", "failed", "missing"]
    results: Results | None = None
    sentence: str = ""
    exit_code: int = 0
    untested: tuple[str, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether the cell is not to be trained again."""
        return self.status in ("finished", "skipped")

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_trained and not self.untested

    @property
    def has_failed(self) -> bool:
        """Whether it is known why something is left to do."""
        return bool(self.exit_code) and not self.is_final


def train(
    study: Study,
    out: Path | str,
    *,
    share: str = "1/1",
    jobs: int = 1,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[Cell, Outcome], None] = lambda *_: None,
) -> None:
    """Train the cells, each into its folder ``out/cells/NAME``, and test them in all conditions of the study.

    One that fails does not stop the others.

    Parameters
    ----------
    share
        Which cells: see `of_share`.
    jobs
        Processes at a time, which share the CPU's cores evenly, unless ``OMP_NUM_THREADS`` says otherwise, and take
        turns on its GPUs.
    resume
        Keep the finished cells of a study that is there already, and what they were tested in; go on with the others.
    report
        Called for every cell when it is done, or found done.

    Raises
    ------
    OutputError
        If the folder is taken, a finished cell is of another config than the study asks for now, or another process
        trains one of them.
    ConfigError, InputError
        If there is no such share, or the data or a condition of a cell cannot be used: all are looked at before the
        first is trained.
    ResourceError
        If the device is missing.
    """
    if processes.is_launched():
        raise ConfigError("a study shares its cells, not their images: give --jobs or --cell instead of torchrun.")
    devices = _devices(device, jobs)
    cells = of_share(study, share)
    _require_room(cells, Path(out), resume=resume, whole=cells == study.cells)
    _require_data([cell for cell in cells if not outcome(cell, out).is_trained])
    _require_conditions([cell for cell in cells if not outcome(cell, out).is_final])
    with _own_share(share, Path(out)):
        _require_room(cells, Path(out), resume=resume, whole=cells == study.cells)  # another one may have been faster
        done = [cell for cell in cells if outcome(cell, out).is_final]
        waiting = [cell for cell in cells if cell not in done]
        for cell in waiting:
            lock.require_free(require_own(folder(cell, out).path))
        with atomic_path(Path(out) / "study.toml") as temporary:
            temporary.write_text(study.text, encoding="utf-8", newline="\n")
        for cell in done:
            report(cell, outcome(cell, out))
        trained = _one_by_one(waiting, out, device) if jobs == 1 else _side_by_side(waiting, out, devices)
        with contextlib.closing(trained):
            for cell in trained:
                report(cell, outcome(cell, out))


def of_share(study: Study, which: str) -> list[Cell]:
    """Return every n-th cell of a study, from the i-th on, counted from 1, for ``which = "i/n"``."""
    first, step = _numbers(which)
    return study.cells[first - 1 :: step]


def _numbers(share: str) -> tuple[int, int]:
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", share)
    first, step = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= first <= step:
        raise ConfigError(f"{share!r} is no share of the cells; the shares of 4 are 1/4, 2/4, 3/4 and 4/4.")
    return first, step


@contextlib.contextmanager
def _own_share(share: str, out: Path) -> Iterator[None]:
    """Hold a share of the cells of a folder, unless somebody holds one of these cells."""
    first, step = _numbers(share)
    with contextlib.ExitStack() as held:
        with lock.one_writer(out, patience=_PATIENCE):  # so that of two that come at once one sees the other
            for name in ("cells", "figures"):
                require_own(out / name)
            for path in out.glob(f"{_SHARE}*-*"):
                other = re.fullmatch(r"(\d{1,9})-(\d{1,9})", path.name.removeprefix(_SHARE))
                if other and (int(other[1]) - first) % math.gcd(int(other[2]), step) == 0:
                    lock.require_free(out, path.name)
            held.enter_context(lock.one_writer(out, f"{_SHARE}{first}-{step}"))
        yield


def folder(cell: Cell, out: Path | str) -> RunFolder:
    """Return the run folder of a cell."""
    return RunFolder(Path(out) / "cells" / cell.name)


def outcome(cell: Cell, out: Path | str) -> Outcome:
    """Return what has become of a cell, from its folder."""
    path = folder(cell, out).path
    if (path / "metrics.json").exists():
        results, untested = folder(cell, out).results(), tuple(conditions.missing(path, cell.conditions))
        if not untested or not (path / _FAILURE).exists():
            return Outcome("finished", results, untested=untested)
        return replace(_failure(path), status="finished", results=results, untested=untested)
    if not (path / _FAILURE).exists():
        return Outcome("missing", sentence="not trained yet")
    return _failure(path)


def _failure(path: Path) -> Outcome:
    try:
        failure = json.loads(untrusted.read_text(path / _FAILURE))
        return Outcome(failure["status"], None, failure["sentence"], failure["exit_code"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path / _FAILURE} is damaged: it does not say why the cell failed; remove it.") from None


def require(cells: list[Cell], out: Path | str) -> None:
    """Raise the error of the first cell that failed, with its exit code."""
    for cell in cells:
        found = outcome(cell, out)
        if found.has_failed:
            kinds = {kind.exit_code: kind for kind in TrajdesignError.__subclasses__()}
            raise kinds.get(found.exit_code, TrajdesignError)(f"cell {cell.name}: {found.sentence}")


def _require_room(cells: list[Cell], out: Path, *, resume: bool, whole: bool) -> None:
    """Refuse to replace finished cells, or to keep those of another config."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; --out names a folder.")
    taken = [cell for cell in cells if (folder(cell, out).path / "config.toml").exists()]
    if not resume and (taken or (whole and (out / "cells").exists())):
        raise OutputError(f"{out} holds a study already; pass --resume to go on with it, or choose another --out.")
    for cell in taken:
        if outcome(cell, out).is_trained:
            found = differences(cell.config, folder(cell, out).config())
            if found:
                raise OutputError(
                    f"{folder(cell, out).path} was trained for another study: {found[0]}"
                    f"{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}; "
                    "remove it, or choose another --out."
                )


def _require_data(waiting: list[Cell]) -> None:
    """Refuse cells whose data cannot be used; data that several cells share are read once."""
    sharing: dict[str, list[Cell]] = {}
    for cell in waiting:
        acquisition = cell.config.acquisition
        sharing.setdefault(repr((cell.config.data, acquisition.matrix, acquisition.fov)), []).append(cell)
    failed: list[tuple[TrajdesignError, list[Cell]]] = []
    for group in sharing.values():
        try:
            datasets(group[0].config)
        except Exception as error:
            known = errors.known(error)
            if known is not None:  # a bug is told by its cell
                failed.append((known, group))
    if failed:
        n_cells = sum(len(group) for _, group in failed)
        said = " ".join(f"{_named(group)}: {error}" for error, group in failed)
        raise type(failed[0][0])(f"{n_cells} of {len(waiting)} cells have no data to train with: {said}")


def _require_conditions(waiting: list[Cell]) -> None:
    """Refuse a condition in which a cell cannot be tested; what several share is looked at once."""
    seen = set()
    for cell in waiting:
        for name, config in cell.conditions.items():
            what = repr((config.acquisition, config.response, config.training.field_terms, settings_of(config)))
            if what in seen:
                continue
            seen.add(what)
            try:
                conditions.require_possible(config, images=config.data != cell.config.data)
            except Exception as error:
                known = errors.known(error)
                if known is None:
                    raise
                raise type(known)(f"condition.{name}, of cell {cell.name}: {known}") from None


def _named(group: list[Cell]) -> str:
    return group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")


def _train_cell(cell: Cell, out: Path | str, device: str) -> None:
    """Train a cell and test it in its conditions, or go on with that, or write into its folder why it is impossible."""
    path = folder(cell, out).path
    with lock.one_writer(path):
        if not folder(cell, out).holds(cell.config):
            folder(cell, out).create(cell.config, overwrite=True)
        (path / _FAILURE).unlink(missing_ok=True)
    try:
        if not folder(cell, out).is_finished:
            optimize(cell.config, path, device=device, baseline=False, resume=True, quiet=True)
        with lock.one_writer(path):
            conditions.tested(path, cell.conditions, device=device)
    except OutputError:
        raise  # another process has the folder
    except Exception as error:
        known = errors.known(error)
        if known is None:  # a bug in one cell is no reason not to train the others
            sys.stderr.write(traceback.format_exc())
            known = TrajdesignError(f"{type(error).__name__}: {error}".partition("\n")[0])
        _write_failure(cell, out, known)


def _write_failure(cell: Cell, out: Path | str, error: TrajdesignError) -> None:
    status = "skipped" if cell.classic and isinstance(error, LimitError) else "failed"
    failure = {"status": status, "sentence": str(error), "exit_code": error.exit_code}
    with atomic_path(folder(cell, out).path / _FAILURE) as temporary:
        temporary.write_text(to_json(failure) + "\n", encoding="utf-8", newline="\n")


def _one_by_one(cells: list[Cell], out: Path | str, device: str) -> Generator[Cell, None, None]:
    for cell in cells:
        _train_cell(cell, out, device)
        yield cell


def _side_by_side(cells: list[Cell], out: Path | str, devices: list[str]) -> Generator[Cell, None, None]:
    """Yield the cells as they end. Each has a process of its own, so that one that is killed ends alone."""
    context = multiprocessing.get_context("spawn")
    n_threads = max(1, processes.n_cores() // len(devices))
    waiting, free = deque(cells), deque(devices)
    running: dict[SpawnProcess, tuple[Cell, str]] = {}
    with _ending(running):
        while waiting or running:
            while waiting and free:
                cell, own = waiting.popleft(), free.popleft()
                process = context.Process(target=_work, args=(cell, out, own, n_threads, os.getpid()))
                process.start()
                running[process] = (cell, own)
            multiprocessing.connection.wait([process.sentinel for process in running])
            for process in [process for process in running if process.exitcode is not None]:
                cell, own = running.pop(process)
                free.append(own)
                found = outcome(cell, out)
                if process.exitcode and not (found.is_final or found.has_failed):
                    lock.require_free(folder(cell, out).path)
                    how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else process.exitcode
                    error = ResourceError(f"its process was ended by {how}; was there enough memory?")
                    _write_failure(cell, out, error)
                yield cell


@contextlib.contextmanager
def _ending(running: Collection[SpawnProcess]) -> Iterator[None]:
    """End the processes that still run when the block is left, also by a signal; each keeps its step in progress."""
    with Signals().caught():
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.join()


def _devices(device: str, jobs: int) -> list[str]:
    """Return a device for each of the jobs: every GPU in turn, unless one is named."""
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; it starts at 1.")
    chosen = processes.torch_device(device)
    if chosen.type != "cuda" or chosen.index is not None:
        return [device] * jobs
    return [f"cuda:{i % torch.cuda.device_count()}" for i in range(jobs)]


def _work(cell: Cell, out: Path | str, device: str, n_threads: int, parent: int) -> None:
    """Train a cell in a process of its own; its parent ends it when a user presses Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.end_with(parent)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(n_threads)
    try:
        _train_cell(cell, out, device)
    except OutputError as error:
        sys.exit(f"trajdesign: {error}")
