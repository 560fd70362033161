"""Peak memory of one physics step, and of one training step, of ours and the peers: each in a process of its own.

What is counted is the largest memory during the step less that before it, when the inputs are loaded and a tiny step
has been taken. On a CPU it is the resident set, which Linux alone can reset; on a GPU, what torch has allocated. A
training keeps what it has freed (`trajdesign.runtime.memory.keep`), so its peak may be higher than what it needs.
"""

import gc
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import peers, step
from benchmarks.common import Row, Size, build, machine, parse, parser, save, say, synchronize
from trajdesign.encoding.spectrum_cache import SpectrumCache

COLUMNS = {
    "size": "size",
    "step": "step",
    "way": "way",
    "peak_mib": "peak above the inputs, MiB",
    "inputs_mib": "coil images, MiB",
    "ratio": "times ours",
}
PHYSICS = [
    "ours",
    "ours, toeplitz",
    "ours, chain",
    "mri-nufft",
    "pytorch-finufft",
    "torchkbnufft",
    "torchkbnufft, coil by coil",
]
TRAINING = ("ours", "as in the paper")
TINY = Size(32, 4, 64, 2, 2)
#: With these glibc gives back at once what is freed: the peak is what is needed at one time, not what its pools keep.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
_MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = step.training_options(parser(__doc__))
    options.set_defaults(coils=16, batch=8)
    options.add_argument("--one", nargs=2, metavar=("STEP", "WAY"), help="measure one way here and print its JSON")
    options.add_argument("--ways", nargs="+", help='names of ways, or "training: NAME"; all by default')
    settings = parse(options, arguments, Size(64, 4, 200, 4, 4))
    if settings.one:
        say(json.dumps(measure(settings.one[0], settings.one[1], settings)))
        return []
    facts = machine(settings.device)
    wanted = [("physics", name) for name in peers.available(PHYSICS, settings.device)]
    wanted += [("training", name) for name in TRAINING if settings.dims == 2]
    if settings.ways:
        wanted = [pair for pair in wanted if pair[1] in settings.ways or ": ".join(pair) in settings.ways]
    rows = [child(kind, name, settings) for kind, name in wanted]
    ours = {row["step"]: row["peak_mib"] for row in rows if row["way"] == "ours"}
    for row in rows:
        row["ratio"] = row["peak_mib"] / ours[row["step"]] if row["step"] in ours else None
    save("memory", rows, COLUMNS, settings, facts)
    return rows


def child(kind: str, name: str, settings: Namespace) -> Row:
    """Measure one way in a fresh process."""
    size = [word for key, value in asdict(settings.size).items() for word in (f"--{key}", str(value))]
    common = ["--threads", str(settings.threads), "--device", settings.device]
    command = [sys.executable, "-m", "benchmarks.memory", "--one", kind, name, *size, *common]
    root, environment = Path(__file__).parents[1], {**os.environ, **GIVEN_BACK}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    row: Row = json.loads(result.stdout.splitlines()[-1])
    say(f"{kind}, {name}: {row['peak_mib']:.0f} MiB")
    return row


def measure(kind: str, name: str, settings: Namespace) -> Row:
    """Return the peak of one step of a way in this process."""
    make = _physics if kind == "physics" else _training
    make(name, Namespace(**{**vars(settings), "size": TINY}))()
    take = make(name, settings)
    size = settings.size
    inputs = size.batch * size.coils * size.matrix**size.dims * 8 / _MIB
    row: Row = {"size": size.label, "step": kind, "way": name, "inputs_mib": inputs}
    return row | {"peak_mib": peak(take, settings.device) / _MIB}


def peak(take: Callable[[], object], device: str) -> int:
    """Return by how many bytes the memory rises while `take` runs."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        take()
        synchronize(device)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the high-water mark
    before = _status("VmRSS")
    take()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _physics(name: str, settings: Namespace) -> Callable[[], object]:
    problem = build(settings.size, settings.device)
    way = peers.make(name, problem)
    if isinstance(way, peers.OursInTraining):
        way.spectra = SpectrumCache(0)  # what it keeps from step to step is chosen by a setting, and no part of one
    return lambda: peers.step(way, problem, 0)


def _training(name: str, settings: Namespace) -> Callable[[], object]:
    train = step.TRAINERS[name](settings)
    images = step.draw(settings)[0]
    return lambda: train(images, range(len(images)))


if __name__ == "__main__":
    main()
