"""Where a run computes: its device, or its ranks on several devices."""

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trajdesign.errors import ConfigError, ResourceError

T = TypeVar("T")
Shared = TypeVar("Shared", list[int], range, Tensor)

#: Where everything computes unless another device is asked for.
CPU = torch.device("cpu")
_LOST = 75  # the exit status of a rank that ended because another one did: EX_TEMPFAIL, none of ours
_HEAD_START = 2.0  # rank 0 has so long, s, to say first what all of them would say
_RUN_ID = "trajdesign-{}"  # with the number of the process that launched the ranks; it stands in their environment
_LOOK = 0.2  # s between two looks whether the parent lives
_GRACE = 30.0  # s between SIGTERM and the end, as in torch's launcher


class LostRankError(SystemExit):
    """Ends a rank without a word: another one has ended, and says why."""


def torch_device(name: str) -> torch.device:
    """Return a torch device, ``auto`` prefers CUDA; raises `ResourceError` if it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        is_known = device.type in ("cpu", "cuda")  # others lack double precision, sparse sums or any memory
        torch.zeros(1, device=device if is_known else CPU)
    except (RuntimeError, AssertionError):
        is_known = False
    if not is_known:
        raise ResourceError(f"device {name!r} is not available; found: {', '.join(map(str, found()))}.")
    return device


def found() -> list[torch.device]:
    """Return the devices of this machine that can be used."""
    return [CPU, *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]


@dataclass(frozen=True)
class Ranks:
    """The processes of one run, one a device, that share its images; this one is number `rank` of `size`.

    All start from the same seed and follow the same gradient, the mean over the images of all, so that trajectory and
    network are the same in all. A single process uses nothing of torch.distributed.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.rank == 0

    def shard(self, whole: Shared) -> Shared:
        """Return this rank's part of what all share; rank 0 has the first."""
        start, stop = (len(whole) * n // self.size for n in (self.rank, self.rank + 1))
        return whole[start:stop]

    def require_shares(self, batch_size: int) -> None:
        """Raise `ConfigError` if a batch cannot be shared evenly."""
        if batch_size % self.size:
            raise ConfigError(
                f"a batch of {batch_size} images cannot be shared evenly by {self.size} devices; "
                "make training.batch_size, and the number of training images, a multiple of them."
            )

    def average(self, loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
        """Return the mean of losses over the ranks, and put the mean of every gradient in place, in one all-reduce.

        Gradients travel in the precision of the loss. A parameter has a gradient on all ranks or on none.
        """
        if self.size == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([t.detach().to(self.device, loss.dtype).flatten() for t in (*gradients, loss)])
        with _contact():
            dist.all_reduce(flat)
        flat /= self.size
        *means, mean_loss = flat.split([*(g.numel() for g in gradients), loss.numel()])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return mean_loss.view_as(loss)

    def gather(self, values: list[T]) -> list[T]:
        """Return the lists of all ranks as one, in their order: the inverse of `shard`."""
        if self.size == 1:
            return values
        parts: list[list[T]] = [[] for _ in range(self.size)]
        with _contact():
            dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]


def is_launched() -> bool:
    """Return whether torchrun, or `launch`, started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Return whether this process is rank 0, or alone."""
    return not is_launched() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the other ranks that torchrun started, if any, until the end of the block.

    Several ranks share the CPU's cores evenly, unless ``OMP_NUM_THREADS`` says otherwise; with ``cuda``, or ``auto``
    where there is CUDA, each has the GPU of its local rank.

    Raises
    ------
    ResourceError
        If the device is missing, or the ranks find no connection.
    """
    if not is_launched():
        yield Ranks(device=torch_device(device))
        return
    launcher = os.environ.get("TORCHELASTIC_RUN_ID", "").removeprefix(_RUN_ID.format(""))
    if launcher.isdecimal():
        end_with(int(launcher))
    rank, size, local, local_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    chosen = local_device(device, local, local_size)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, n_cores() // local_size))
    # Its functions have the group of the time of its import as a default, and torch's optimizers import it: imported
    # later it would keep the group, whose threads then live into the end of the process, and may abort it.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise ResourceError(f"rank {rank} of {size} cannot reach the others: {first_line(error)}.") from None
    try:
        yield Ranks(rank, size, chosen)
    except Exception:
        # the group stays open: closing it waits for the others, which may be inside an all-reduce
        if rank:
            time.sleep(_HEAD_START)
        raise
    with _contact():
        dist.barrier()  # none leaves while another still listens to it
    dist.destroy_process_group()


def local_device(name: str, local: int, n_local: int) -> torch.device:
    """Return the device of rank `local` of `n_local` on this machine.

    Raises
    ------
    ResourceError
        If there are fewer GPUs than ranks, or several ranks are to share one GPU.
    """
    device = torch_device(name)
    if device.type != "cuda":
        return device
    if n_local > 1 and device.index is not None:
        raise ResourceError(f"device {name!r} is one GPU, {n_local} ranks need one each; ask for 'cuda'.")
    n_gpus = torch.cuda.device_count()
    if n_local > n_gpus:
        raise ResourceError(f"{n_local} devices asked for, {n_gpus} GPUs are here; lower --devices, or --device cpu.")
    return device if n_local == 1 and device.index is not None else torch.device("cuda", local)


def n_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """End this process by SIGTERM, or by force 30 s later, when its parent of this number ends (not on Windows)."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def launch(arguments: Sequence[str], n_ranks: int) -> int:
    """Run Python with some arguments as several ranks on this machine, through torch's launcher, and wait for them.

    Rank 0 keeps this process's output; that of another rank is shown only if it ends the run. Returns the exit status:
    0, that of the rank that failed, or 128 + n after signal n.

    Raises
    ------
    ResourceError
        If a rank was killed, or they lost each other.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the rank itself says in a sentence why it failed
    try:
        with tempfile.TemporaryDirectory(prefix="trajdesign_") as folder:
            logs = DefaultLogsSpecs(folder, dict.fromkeys(range(1, n_ranks), Std.ALL))
            config = LaunchConfig(
                1, 1, n_ranks, logs_specs=logs, run_id=_RUN_ID.format(os.getpid()), max_restarts=0,
                rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
            )  # fmt: skip
            try:
                elastic_launch(config, sys.executable)(*arguments)
            except ChildFailedError as error:
                return _report(error.failures, Path(folder))
            except SignalException as error:
                return 128 + error.sigval
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _report(failures: dict[int, Any], folder: Path) -> int:
    """Return the exit status of the rank that failed, and show its words, which for rank 0 were shown already."""
    # the other ranks lost the one that failed, or the launcher ended them
    own = {rank: f.exitcode for rank, f in sorted(failures.items()) if f.exitcode not in (_LOST, -signal.SIGTERM)}
    if not own:
        reasons = [f.message for f in failures.values() if f.exitcode == _LOST]
        if not reasons:
            return 128 + signal.SIGTERM
        raise ResourceError(f"the ranks of the run lost each other: {reasons[0]}.")
    rank, code = next(iter(own.items()))
    if code == -signal.SIGINT:
        return 128 + signal.SIGINT
    if code < 0:
        raise ResourceError(f"rank {rank} was ended by {signal.Signals(-code).name}; was there enough memory?")
    if rank:
        for path in folder.glob(f"*/attempt_0/{rank}/stderr.log"):
            sys.stderr.write(path.read_text(encoding="utf-8", errors="replace"))
    return code


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    """End this rank if it cannot reach the others."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(RuntimeError(first_line(error)))
        raise LostRankError(_LOST) from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its kind, without the full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
