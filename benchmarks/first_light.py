"""All that a device has to show, in one call: that everything runs on it, how exactly, how fast, in what memory.

Each section runs in a process of its own, within what is left of the time, so that whatever ends one is written down
and the next one begins. The numbers go to one JSON file, which is written anew after each section.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import trajdesign as td
from benchmarks import common, memory, physics, step
from benchmarks.common import Row, Size, difference, machine, parse, parser, say, synchronize, timing
from trajdesign.config import plugins
from trajdesign.encoding import nufft
from trajdesign.encoding.operator import angular
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.step import Joint
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.runtime import processes

_ROOT = Path(__file__).parents[1]
_TINY = Size(32, 4, 64, 2, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections; returns 1 if one has failed or found no time, else 0."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options.add_argument("--budget", type=float, default=570.0, help="s, of all sections together")
    options.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    options.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    settings = parse(options, arguments, _TINY)
    if settings.section:
        processes.torch_device(settings.device)
        settings.out.write_text(json.dumps(SECTIONS[settings.section](settings)), encoding="utf-8")
        os._exit(0)  # threads of a library may not end with the interpreter, which has no part in the result
    words = list(sys.argv[1:] if arguments is None else arguments)
    started, facts = time.monotonic(), _facts(settings.device)
    result: Row = {"command": " ".join(["python -m benchmarks.first_light", *words]), "device": settings.device}
    result |= {"machine": facts, "size": settings.size.label, "budget_s": settings.budget, "sections": {}}
    for name in settings.sections:
        found = _guarded(name, settings, settings.budget - (time.monotonic() - started))
        result["sections"][name] = found
        result["ok"] = all(section["ok"] for section in result["sections"].values())
        say(f"{name}: {'ok' if found['ok'] else 'FAILED: ' + found['error']} ({found['seconds']:.0f} s)")
        settings.out.mkdir(parents=True, exist_ok=True)
        path = settings.out / f"{settings.name or 'first_light'}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(f"{'all is well' if result['ok'] else 'something failed'}: {path}")
    return 0 if result["ok"] else 1


def _facts(device: str) -> Row:
    """Return the machine, and of CUDA what is there, of whatever device was asked for."""
    there = torch.cuda.is_available()
    facts = machine(device if there else "cpu") | {"torch_cuda": torch.version.cuda}
    facts["packages"] |= {name: found for name in ("cufinufft", "scipy") if (found := common.version(name))}
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count() if there else 0)]
    return facts | {"gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus]}


def _guarded(name: str, settings: argparse.Namespace, seconds: float) -> Row:
    """Return what a section gave in a process of its own, or why it gave nothing."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="first_light_") as folder:
        out = Path(folder) / "result.json"
        words = [*_words(settings), "--out", str(out), *(["--quick"] if settings.quick else [])]
        command = [sys.executable, "-m", "benchmarks.first_light", "--section", name, *words]
        try:
            if seconds <= 0:
                raise subprocess.TimeoutExpired(command, seconds)
            done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace", timeout=seconds)
            if done.returncode == 0 and out.exists():
                found = {"ok": True, "result": json.loads(out.read_text(encoding="utf-8"))}
            else:
                lines = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
                found = {"ok": False, "error": lines[-1], "exit_code": done.returncode, "said": lines[-40:]}
        except subprocess.TimeoutExpired:
            found = {"ok": False, "error": "no time was left" if seconds <= 0 else f"took more than {seconds:.0f} s"}
    return found | {"seconds": time.monotonic() - started}


def _words(settings: argparse.Namespace) -> list[str]:
    """Return the options of a problem on a device."""
    given = {**vars(settings.size), **{name: getattr(settings, name) for name in ("repeats", "threads", "device")}}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


# --- the sections: each returns numbers, or raises ---


def checked(settings: argparse.Namespace) -> Row:
    """Do what ``trajdesign doctor`` does."""
    command = [sys.executable, "-m", "trajdesign", "doctor", "--json"]
    findings = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)["findings"]
    bad = [finding for finding in findings if finding["verdict"] in ("missing", "failed")]
    if bad:
        raise RuntimeError(f"the doctor finds: {bad}")
    return {"findings": findings}


def tested(settings: argparse.Namespace) -> Row:
    """Run the tests of devices on this one; on a CPU, on the one that they pretend."""
    import pytest

    words = [] if settings.device == "cpu" else ["--device", settings.device]
    words += ["-k", "metrics or density"] if settings.quick else []
    outcomes = _Outcomes()
    code = pytest.main(["-p", "no:cacheprovider", "--tb=short", str(_ROOT / "tests" / "devices"), *words], [outcomes])
    if code:
        raise RuntimeError(f"pytest ended with {int(code)}; failed: {', '.join(outcomes.failed) or 'none'}")
    return outcomes.counts


class _Outcomes:
    """What became of each test."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test by its call, or by what kept it from that."""
        if report.when == "call" or not report.passed:
            self.counts[report.outcome] += 1
            self.failed += [report.nodeid] if report.failed else []


def kernels(settings: argparse.Namespace) -> Row:
    """Compare every NUFFT kernel with finufft in double precision, and time it."""
    device = processes.torch_device(settings.device)
    problem = common.build(settings.size, "cpu")
    images = problem.coil_images.flatten(0, 1)
    omega = angular(problem.trajectory).flatten(0, 1)
    shape, rows = tuple(images.shape[1:]), []
    for name in nufft.there(device):
        for dtype, real in ((torch.complex64, torch.float32), (torch.complex128, torch.float64)):
            given, points = images.to(dtype), omega.to(real).detach()
            leaf = points.double().clone().requires_grad_()
            exact = nufft.nufft(given.to(torch.complex128), leaf)
            back = nufft.nufft_adjoint(exact.detach(), leaf.detach(), shape)
            exact.abs().square().sum().backward()
            there = points.to(device).clone().requires_grad_()
            with nufft.using(name):
                samples = nufft.nufft(given.to(device), there)
            samples.abs().square().sum().backward()
            of_samples = exact.detach().to(device, dtype)
            row: Row = {"kernel": name, "dtype": str(dtype), "forward_error": difference(samples, exact)}
            with nufft.using(name):
                adjoint = nufft.nufft_adjoint(of_samples, there.detach(), shape)
            row["adjoint_error"] = difference(adjoint, back)
            row["gradient_error"] = difference(there.grad, leaf.grad)
            bound = 1e-2 if name == "torchkbnufft" or dtype == torch.complex64 else 1e-8
            if not max(row["forward_error"], row["adjoint_error"], row["gradient_error"]) < bound:
                raise RuntimeError(f"{row} lies beyond {bound}")
            with torch.no_grad(), nufft.using(name):
                on, at = given.to(device), there.detach()
                ways = {
                    "forward": lambda _, on=on, at=at: nufft.nufft(on, at),
                    "adjoint": lambda _, y=of_samples, at=at: nufft.nufft_adjoint(y, at, shape),
                }
                times = common.alternate(ways, settings.repeats, settings.device)
            rows.append(row | {way: timing(seconds) for way, seconds in times.items()})
    return {"rows": rows, "auto": nufft.fastest(device), "reference": "finufft, complex128, on the CPU"}


def compared(settings: argparse.Namespace) -> Row:
    """Time the physics step beside the peers that are installed and run on this device."""
    with tempfile.TemporaryDirectory() as folder:
        rows = physics.main([*_words(settings), "--out", folder])
    return {"rows": rows, "note": physics.NOTE}


def stepped(settings: argparse.Namespace) -> Row:
    """Time one training step by its parts, one after the other, and whole."""
    joint, images = _training(settings)
    clock = _Clock(settings.device)
    for _ in range(settings.repeats + 1):
        _step_by_part(joint, images, clock)
    whole = []
    for _ in range(settings.repeats):
        with _timed(whole, settings.device):
            joint.step(images, constrained=True)
    parts = {name: timing(seconds[1:]) for name, seconds in clock.seconds.items()}  # the first one makes the plans
    return {"parts": parts, "whole_step": timing(whole)}


def measured(settings: argparse.Namespace) -> Row:
    """Measure the peak memory of a training step."""
    joint, images = _training(settings)
    joint.step(images, constrained=True)
    peak = memory.peak(lambda: joint.step(images, constrained=True), settings.device)
    return {"peak_bytes": peak, "coil_images_bytes": images.nbytes}


def learned(settings: argparse.Namespace) -> Row:
    """Learn on the phantoms, end half way by SIGTERM, go on, and hold the result against the run without a break."""
    config = _config(settings, epochs=4, validations=2, checkpoint_seconds=3600, noise=0.0)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        started = time.perf_counter()
        found = td.optimize(config, whole, device=settings.device)
        seconds = time.perf_counter() - started

        def end(at: Any) -> None:
            if (at.stage, at.step) == ("learned", at.n_steps // 2):
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            td.optimize(config, broken, device=settings.device, report=end)
        except SystemExit as left:
            if left.code != 128 + signal.SIGTERM:
                raise RuntimeError(f"the run that was asked to leave left with {left.code}") from None
        said: list[str] = []
        td.optimize(config, broken, device=settings.device, resume=True, say=said.append)
        runs = [RunFolder(path).trajectory() for path in (whole, broken)]
        farthest = float((runs[0].points - runs[1].points).abs().max()) * max(runs[0].acquisition.fov)
        if not any("Going on with" in sentence for sentence in said):
            raise RuntimeError(f"the run did not go on: {said}")
        if not farthest < 0.05:
            raise RuntimeError(f"the run that went on ended {farthest:.3g}/FOV from the one without a break")
        findings = [vars(finding) | {"ok": finding.ok} for finding in td.check(runs[0])]
    if not all(finding["ok"] for finding in findings):
        raise RuntimeError(f"the learned trajectory breaks a limit: {findings}")
    scores = {
        stage: {"psnr": one.psnr, "ssim": one.ssim, "seconds": one.seconds} for stage, one in found.stages.items()
    }
    return {**scores, "seconds": seconds, "resumed_distance_fov": farthest, "limits": findings}


def _config(settings: argparse.Namespace, **training: Any) -> td.Config:
    """Return a run of the problem's size, with the default parameterization and a projection onto the limits."""
    size = settings.size
    tables: Row = {
        "acquisition": {"matrix": (size.matrix,) * 2, "n_shots": size.shots, "n_samples": size.samples},
        "data": {"kind": "phantom", "n_train": 2 * size.batch, "n_val": 2, "n_test": 2, "n_coils": size.coils},
        "training": {"batch_size": size.batch, **training},
    }
    return td.Config(**tables)


def _training(settings: argparse.Namespace) -> tuple[Joint, torch.Tensor]:
    """Return a training at its first step, and a batch of coil images on the device."""
    settings.images, settings.trajectory_rate, settings.network_rate = None, 1e-3, 1e-3
    images = step.draw(settings)[0]
    run = _config(settings)
    initial = plugins.build("init", run.init, run.acquisition, run.scanner)
    return Joint(run, initial, "learned", 1000, processes.Ranks(device=processes.torch_device(settings.device))), images


def _step_by_part(joint: Joint, images: torch.Tensor, clock: "_Clock") -> None:
    """Take the step of `Joint.step` in parts, each waited for."""
    config, device = joint.config, joint.ranks.device
    joint.optimizer.zero_grad()
    with clock("parameterization"):
        wanted = joint.parameterization()
    with clock("projection"):
        trajectory = joint.projection(wanted)
    with clock("density and transfer function"):
        k = trajectory.points.detach().requires_grad_()
        encoding = td.Encoding(trajectory.with_points(k), device=device, normal="toeplitz")
        encoding.weights = joint.weights = encoding.followed_weights(joint.weights)
        cut = encoding.cut(images.shape[0] * images.shape[1])
    with clock("encode"):
        adjoint = cut.normal(images)
    with clock("network and loss"):
        leaf = adjoint.detach().requires_grad_()
        image = joint.network(leaf, cut)
        loss = metrics.image_loss(image, root_sum_of_squares(images), config.training.ssim_weight, 1.0)
    with clock("backward: network"):
        loss.backward()
    with clock("backward: encode and density"):
        adjoint.backward(leaf.grad)
        encoding.carry_on(cut)
    with clock("backward: projection and parameterization"):
        (trajectory.points * k.grad).sum().backward()
    with clock("optimizer"):
        joint.optimizer.step()


class _Clock:
    """Seconds of each part, by its name."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, name: str) -> Any:
        return _timed(self.seconds.setdefault(name, []), self.device)


@contextmanager
def _timed(seconds: list[float], device: str) -> Iterator[None]:
    synchronize(device)
    started = time.perf_counter()
    yield
    synchronize(device)
    seconds.append(time.perf_counter() - started)


#: The sections by name, in order.
SECTIONS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "doctor": checked,
    "kernels": kernels,
    "step": stepped,
    "memory": measured,
    "run": learned,
    "physics": compared,
    "tests": tested,
}


if __name__ == "__main__":
    sys.exit(main())
