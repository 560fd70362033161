"""What the benchmarks share: the problem, the clock, the facts of the machine, and the files of results."""

import argparse
import gc
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trajdesign as td
from trajdesign.config import plugins
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.operator import angular
from trajdesign.reconstruction.coils import root_sum_of_squares

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "finufft",
    "numpy",
    "pypulseq",
    "torchkbnufft",
    "mri-nufft",
    "pytorch-finufft",
    "torchdiffeq",
    "mrarbgrad",
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large a problem is."""

    matrix: int = 256
    shots: int = 16
    samples: int = 1000
    coils: int = 8
    batch: int = 8
    dims: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Array shape of an image, a square or a cube."""
        return (self.matrix,) * self.dims

    @property
    def label(self) -> str:
        """The size in words."""
        image, readout = " x ".join(map(str, self.shape)), f"{self.shots} x {self.samples}"
        return f"{image}, {readout}, coils {self.coils}, batch {self.batch}"


@dataclass(frozen=True)
class Problem:
    """One physics step: coil images sampled, reconstructed and compared with their root sum of squares."""

    size: Size
    trajectory: td.Trajectory
    weights: Tensor
    """Density compensation (shot, sample), a constant."""
    coil_images: Tensor
    """(batch, coil, y, x), complex."""
    reference: Tensor
    """Root sum of squares (batch, 1, y, x)."""

    def first(self, n: int) -> "Problem":
        """Return the same problem with the first `n` images alone."""
        images, reference = self.coil_images[:n], self.reference[:n]
        return replace(self, size=replace(self.size, batch=len(images)), coil_images=images, reference=reference)

    def double(self) -> "Problem":
        """Return the same problem in double precision, on the CPU, where the NUFFTs are exact to 12 digits."""
        images, reference = self.coil_images.cpu().to(torch.complex128), self.reference.cpu().double()
        return replace(self, weights=self.weights.cpu().double(), coil_images=images, reference=reference)

    def moved(self, step: int) -> td.Trajectory:
        """Return the trajectory of a step, a leaf of the graph: it turns a little from one to the next."""
        angle = torch.tensor(1e-3 * step, dtype=torch.float64)
        turn = torch.eye(self.size.dims, dtype=torch.float64)
        turn[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        return self.trajectory.with_points((self.trajectory.points @ turn.T).requires_grad_())


def build(size: Size, device: str = "cpu") -> Problem:
    """Return a problem of a size: radial spokes, simulated brains and coils."""
    fov = (0.22,) * size.dims
    acquisition = td.Acquisition(fov, size.shape, n_shots=size.shots, n_samples=size.samples)
    trajectory = plugins.build("init", {"kind": "radial"}, acquisition, td.Scanner())
    distinct = min(size.batch, 4)
    data = plugins.build("data", {"kind": "phantom", "n_train": distinct, "n_coils": size.coils}, acquisition, "train")
    images = torch.stack([data[i % distinct] for i in range(size.batch)]).to(device)
    omega = angular(trajectory).to(torch.float32)
    weights = density_compensation(omega.flatten(0, 1), acquisition.image_shape).view(omega.shape[:2])
    return Problem(size, trajectory, weights.to(device), images, root_sum_of_squares(images))


def alternate(
    ways: Mapping[str, Callable[[int], Any]],
    repeats: int,
    device: str = "cpu",
    first: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every way in turn, `repeats` times over; each is called with the number of the round. Returns seconds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(first, first + repeats):
        for name, way in ways.items():
            gc.collect()
            synchronize(device)
            started = clock()
            way(repeat)
            synchronize(device)
            times[name].append(clock() - started)
    return times


def synchronize(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def free_memory(device: str) -> float:
    """Return the bytes that are free, infinitely many where the system does not say."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), math.inf)


def timing(seconds: Sequence[float]) -> Row:
    """Return median, least and largest time, s, and the raw ones."""
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds), "all_s": [*seconds]}


def difference(value: Tensor, reference: Tensor) -> float:
    """Return the relative distance of two arrays, in the 2-norm."""
    value, reference = value.detach().cpu(), reference.detach().cpu()
    wide = torch.complex128 if reference.is_complex() else torch.float64
    error = torch.linalg.vector_norm(value.to(wide) - reference.to(wide))
    return float(error / torch.linalg.vector_norm(reference.to(wide)))


def parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has."""
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, value in asdict(Size()).items():
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--repeats", type=int, default=repeats)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--device", default="cpu")
    options.add_argument("--quick", action="store_true", help="tiny sizes: does it run, and agree?")
    options.add_argument("--name", help="of the files of results")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    return options


def parse(options: argparse.ArgumentParser, arguments: Sequence[str] | None, quick: Size) -> argparse.Namespace:
    """Read the options; ``size`` holds those of the problem, and --quick makes it `quick`. Sets torch's threads."""
    settings = options.parse_args(arguments)
    given = {name: getattr(settings, name) for name in asdict(Size())}
    settings.size = quick if settings.quick else Size(**given)
    settings.repeats = 2 if settings.quick else settings.repeats
    torch.set_num_threads(settings.threads)
    return settings


def machine(device: str = "cpu") -> Row:
    """Return what the numbers were measured on."""
    facts: Row = {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    facts |= {"system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
    facts["load_before"] = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return facts | {"packages": {name: found for name in PACKAGES if (found := version(name))}}


def save(
    name: str, rows: Sequence[Row], columns: Mapping[str, str], settings: argparse.Namespace, facts: Row, note: str = ""
) -> None:
    """Write the raw numbers as JSON and `columns` (key to title) of them as a Markdown table, and print the table.

    `facts` is from `machine`, called before the measurement, so that the load of the machine is that of others.
    """
    words = sys.argv[1:] if Path(sys.argv[0]).parent == Path(__file__).parent else []
    written = settings.name or name
    result = {"command": " ".join([f"python -m benchmarks.{name}", *words]), "machine": facts, "note": note}
    result |= {"size": asdict(settings.size), "repeats": settings.repeats, "device": settings.device}
    result |= {"columns": dict(columns), "rows": [*rows]}
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / f"{written}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    text = markdown(result)
    (settings.out / f"{written}.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


def markdown(result: Row) -> str:
    """Return the table of a result, its command and its machine."""
    facts, packages = result["machine"], result["machine"]["packages"]
    where = [facts.get("gpu"), f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores"]
    where += [f"{package} {version}" for package, version in packages.items()]
    where += [f"load of the machine before: {facts['load_before']}"]
    tail = f"`{result['command']}` on {', '.join(filter(None, where))}."
    return "\n".join(
        [table(result["columns"], result["rows"]), "", *([result["note"], ""] if result["note"] else []), tail]
    )


def table(columns: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Return a Markdown table of `columns` (key to title) of the rows."""
    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in rows)])


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
