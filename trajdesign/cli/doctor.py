"""What this machine has for the program, and whether the program computes right here.

The numbers of the tests are known in closed form: a direct sum, a finite difference, a straight line. Nothing heavy is
imported with this module, so that it can say what is missing.
"""

import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trajdesign.errors import ResourceError, installing

#: Extras of the package that only its developers need.
_DEVELOPMENT = {"dev", "docs", "mrzero", "test"}

#: Largest relative error in double precision; torchkbnufft's table of its kernel has one of 4e-5.
_NUFFT_ERRORS = {"finufft": 1e-7, "cufinufft": 1e-7, "torchkbnufft": 2e-4}


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at."""

    kind: Literal["version", "package", "folder", "device", "backend", "test"]
    name: str
    #: What was found.
    value: str
    #: ``missing``: the program cannot do without it; ``absent``: only some of its parts need it; ``failed``: a test
    #: whose number is wrong.
    verdict: Literal["ok", "missing", "absent", "failed"] = "ok"
    #: What to do about it.
    remedy: str = ""


def examine() -> list[Diagnosis]:
    """Look at everything; devices and tests only where no package is missing."""
    findings = [*_versions(), *_packages(), *_folders()]
    if any(finding.verdict == "missing" and finding.kind == "package" for finding in findings):
        return findings
    try:
        return [*findings, *_devices(), *_tests()]
    except (ImportError, OSError) as error:
        name = getattr(error, "name", None) or "a package"
        broken = Diagnosis("package", name, f"cannot be imported: {error}", "missing", "install it anew")
        return [*findings, broken]


def _versions() -> Iterator[Diagnosis]:
    yield Diagnosis("version", "trajdesign", f"{metadata.version('trajdesign')} in {Path(__file__).parents[1]}")
    yield Diagnosis("version", "Python", f"{platform.python_version()} at {sys.executable}")
    yield Diagnosis("version", "system", platform.platform())


def _packages() -> Iterator[Diagnosis]:
    """Yield the packages that the installed program asks for, and those of its extras."""
    try:
        wanted = metadata.requires("trajdesign") or []
    except metadata.PackageNotFoundError:
        yield Diagnosis("package", "trajdesign", "not installed", "missing", "pip install .")
        return
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement)[0]
        extra = next(iter(re.findall(r"extra == ['\"]([\w-]+)['\"]", requirement)), None)
        if extra in _DEVELOPMENT:
            continue
        try:
            yield Diagnosis("package", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            if extra is None:
                yield Diagnosis("package", name, "not installed", "missing", f"pip install {name}")
            else:
                yield Diagnosis("package", name, "not installed", "absent", installing(extra))


def _folders() -> Iterator[Diagnosis]:
    """Yield the folders that commands write beside their outputs."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Diagnosis("folder", "temporary files", str(Path(folder).parent))
    except OSError as error:
        yield Diagnosis(
            "folder", "temporary files", str(error), "missing", "set TMPDIR to a folder that can be written"
        )
    home = os.environ.get("MPLCONFIGDIR") or os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # no home
        home = home or str(Path("~/.cache").expanduser())
    if home is None or not _can_be_written(Path(home)):
        remedy = "set MPLCONFIGDIR to a folder that can be written; without it figures start slower"
        yield Diagnosis("folder", "cache of matplotlib", home or "none", "absent", remedy)
    else:
        yield Diagnosis("folder", "cache of matplotlib", home)


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _devices() -> Iterator[Diagnosis]:
    import torch

    from trajdesign.encoding import nufft
    from trajdesign.runtime import processes

    for device in processes.found():
        if device.type == "cuda":
            facts = torch.cuda.get_device_properties(device)
            yield Diagnosis("device", str(device), f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
        else:
            yield Diagnosis("device", str(device), f"{processes.n_cores()} cores, {torch.get_num_threads()} threads")
        times = nufft.measured(device)
        for name in nufft.KERNELS:
            if name in times:
                fastest = ", which auto takes" if name == nufft.fastest(device) else ""
                yield Diagnosis("backend", f"{name} on {device}", f"{1e3 * times[name]:.2g} ms{fastest}")


def _tests() -> Iterator[Diagnosis]:
    from trajdesign.encoding import nufft
    from trajdesign.runtime import processes

    for device in processes.found():
        for name in nufft.there(device):
            for what, compute in _nufft_errors(device).items():
                with nufft.using(name):
                    tested = _test(f"{what}, {name} on {device}", compute, _NUFFT_ERRORS[name])
                yield tested
    yield _test("k of a straight line, exact sums of its gradients (1/FOV)", _line, 1e-9)
    yield _test("slew rate of a known corner (relative error)", _corner, 1e-9)
    yield _test("k in a Pulseq file that is read back (1/FOV)", _written, 1e-3)


def _test(name: str, compute: Callable[[], float], limit: float) -> Diagnosis:
    """Compute an error and compare it; that it cannot be computed is a failure, too."""
    try:
        error = compute()
    except ResourceError as reason:
        return Diagnosis("test", name, str(reason), "missing", "make room, or set TMPDIR to a folder that has some")
    except Exception as reason:
        return Diagnosis("test", name, f"{type(reason).__name__}: {reason}", "failed", "please report it")
    value = f"{error:.1e}, allowed {limit:g}"
    if error <= limit:
        return Diagnosis("test", name, value)
    return Diagnosis("test", name, value, "failed", "please report it")


def _nufft_errors(device: Any) -> dict[str, Callable[[], float]]:
    """Return what compares NUFFTs of a small image with direct sums, and their gradient with central differences."""
    import torch

    from trajdesign.encoding.nufft import nufft, nufft_adjoint

    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 12, 16, generator=generator, dtype=torch.complex128).to(device)
    omega = ((torch.rand(40, 2, generator=generator, dtype=torch.float64) - 0.5) * 6).to(device)  # rad/pixel
    y, x = (torch.arange(n, device=device, dtype=torch.float64) - n // 2 for n in (12, 16))

    def exponentials(points: Any) -> Any:
        """Return the matrix of the direct sums (point, pixel)."""
        phase = points[:, 0, None, None] * x + points[:, 1, None, None] * y[:, None]
        return torch.exp(-1j * phase).flatten(1)

    direct = exponentials(omega)

    def forward() -> float:
        exact = image.flatten() @ direct.T
        return float((nufft(image, omega)[0] - exact).norm() / exact.norm())

    def adjoint() -> float:
        values = direct.sum(1)
        exact = direct.conj().T @ values
        return float((nufft_adjoint(values[None], omega, (12, 16)).flatten() - exact).norm() / exact.norm())

    def gradient() -> float:
        shifts = 1e-5 * torch.eye(2, device=device, dtype=torch.float64)
        ends = [[(exponentials(omega + d) @ image.flatten()).abs().square() for d in (s, -s)] for s in shifts]
        exact = torch.stack([(after - before) / 2e-5 for after, before in ends], dim=-1)
        points: Any = omega.clone().requires_grad_(True)
        nufft(image, points).abs().square().sum().backward()
        return float((points.grad - exact).norm() / exact.norm())

    return {"NUFFT": forward, "adjoint NUFFT": adjoint, "gradient to k": gradient}


def _small() -> tuple[Any, Any]:
    from trajdesign.config.models import from_tables

    small = from_tables({"acquisition": {"matrix": [32, 32], "n_shots": 2, "n_samples": 128, "dwell": 8e-6}})
    return small.acquisition, small.scanner


def _line() -> float:
    """Compare k at the ADC samples of a constant gradient with its straight line."""
    import torch

    from trajdesign.trajectory import Trajectory, point_times

    acquisition, scanner = _small()
    velocity = torch.tensor([3e4, -2e4], dtype=torch.float64)  # 1/m/s
    times = torch.from_numpy(point_times(acquisition, scanner))
    k = (times[:, None] * velocity).expand(2, -1, -1)
    delay = acquisition.adc_delay(scanner.gradient_raster, scanner.rf_raster)
    adc = delay + acquisition.dwell * torch.arange(acquisition.n_samples, dtype=torch.float64)
    wrong = Trajectory(k, acquisition, scanner).k_adc - adc[:, None] * velocity
    return float(wrong.abs().max()) * acquisition.fov[0]


def _corner() -> float:
    """Compare the largest slew rate of two straight pieces with the change of their gradients in one raster."""
    import torch

    from trajdesign.physics import limits
    from trajdesign.trajectory import Trajectory, n_points

    acquisition, scanner = _small()
    k = torch.zeros(2, n_points(acquisition, scanner), 2, dtype=torch.float64)
    k[1, 50:, 0] = 1e-3 * scanner.gamma * scanner.gradient_raster * torch.arange(len(k[1]) - 50)
    k[1, 50:, 0] += 1e-3 * scanner.gamma * scanner.gradient_raster  # from rest to 1 mT/m at point 50
    [finding] = limits.check(Trajectory(k, acquisition, scanner), ["slew"])
    exact = 1e-3 / scanner.gradient_raster
    return abs(finding.value / exact - 1) if finding.shot == 1 else float("inf")


def _written() -> float:
    from trajdesign.config import plugins
    from trajdesign.exporting.proof import export

    radial = plugins.build("init", {"kind": "radial"}, *_small())
    with tempfile.TemporaryDirectory() as folder:
        return export(radial, Path(folder) / "radial.seq")["max_k_error_fov"]
