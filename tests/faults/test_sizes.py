"""Requests that are far too large: refused by an estimate, before the memory is taken; solvers that would not end."""

import inspect
import math
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from faults.tiny import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torchdiffeq._impl import rk_common

from trajdesign import errors
from trajdesign.acquisition import Acquisition
from trajdesign.cli import app
from trajdesign.encoding.psf import psf
from trajdesign.errors import DivergedError, ResourceError
from trajdesign.learning.parameterizations.neural_ode import NeuralODE
from trajdesign.runtime import memory
from trajdesign.scanner import Scanner
from trajdesign.trajectories.fitting import fit
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectory import Trajectory, n_points

GIB = 2**30


class WouldTrain(Exception):
    """Everything was found possible."""


@pytest.fixture(scope="module", autouse=True)
def no_training():
    """Stop every run where its training would begin, on a machine with 1 GiB of free memory."""
    patch = pytest.MonkeyPatch()

    def stop(*_):
        raise WouldTrain

    patch.setattr(sys.modules["trajdesign.learning.optimize"]._RunInProgress, "train_stages", stop)
    patch.setattr(memory, "available", lambda: GIB)
    yield
    patch.undo()


def outcome(*words):
    """Return the exit status of a command inside this process, and what it says."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["trajdesign", *map(str, words)])
    try:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except WouldTrain:
        code = 0
    finally:
        patch.undo()
    return code, out.getvalue(), err.getvalue()


def optimized(path, *overrides):
    others = {o.partition(".")[0] for o in overrides if ".kind=" in o}
    kept = [o for o in TINY if o.partition(".")[0] not in others]
    given = [word for o in (*kept, *overrides) for word in ("--set", o)]
    return outcome("optimize", "--out", path, "--device", "cpu", "--quiet", *given)


def grown(before):
    """Return by how much the most memory that was ever taken has grown, bytes."""
    return peak() - before


def peak():
    with open("/proc/self/status") as status:  # noqa: PTH123  (a file of the system)
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


HUGE = {
    "acquisition.matrix=[100000,100000]": 2,
    "acquisition.matrix=[4096,4096] data.n_coils=64": 4,  # no pattern comes so far out in time
    "acquisition.n_samples=1000000000": 2,
    "acquisition.n_samples=1000000": 6,
    "acquisition.n_shots=1000000000": 2,
    "acquisition.n_shots=1000000": 6,
    "data.n_coils=1000000": 6,
    "data.n_coils=1000000000000000000000000": 2,
    "data.n_train=1000000000": 6,
    "data.n_train=10000000000000000000000": 2,
    "training.validations=1000000000": 2,
    "training.workers=1000000": 2,
    "limits.iterations=1000000000": 2,
    "reconstructor.channels=1000000000": 2,
    "reconstructor.channels=4000000000000000000000": 2,
    "reconstructor.levels=100000000": 2,
    "reconstructor.kind=unrolled reconstructor.iterations=1000000000": 2,
    "reconstructor.kind=unrolled reconstructor.steps=1000000000": 2,
    "parameterization.kind=neural_ode parameterization.hidden=1000000000": 2,
    "parameterization.kind=neural_ode parameterization.n_code=1000000000": 2,
    "init.kind=cartesian parameterization.kind=lines parameterization.n_images=1000000000": 2,
    "init.kind=cartesian parameterization.kind=lines parameterization.n_columns=1000000000": 2,
    "init.kind=spiral init.turns=1e300": 2,
    "init.kind=epi init.lines=1000000000": 2,
    "init.kind=rosette init.petals=1000000000": 2,
    "init.kind=propeller init.lines=1000000000": 2,
    "seed=10000000000000000000000000000": 2,
    "acquisition.matrix=[4096,4096,4096] acquisition.fov=[0.2,0.2,0.2]": 6,
}


@pytest.mark.parametrize("words", HUGE)
def test_what_is_far_too_large_is_refused_before_it_is_made(tmp_path, words):
    before = peak()
    code, out, err = optimized(tmp_path / "run", *words.split())
    assert (code, out) == (HUGE[words], ""), err
    assert err.startswith("trajdesign: ")
    assert len(err.splitlines()) == 1
    assert grown(before) < 0.3 * GIB
    assert not (tmp_path / "run").exists()


SIZES = [
    "acquisition.n_samples", "acquisition.n_shots", "data.n_coils", "data.n_train", "training.batch_size",
    "training.slices_at_once", "training.spectra_bytes", "reconstructor.channels", "reconstructor.levels",
    "parameterization.n_control", "parameterization.decimation", "training.epochs", "limits.iterations",
]  # fmt: skip
CASES = st.lists(
    st.tuples(st.sampled_from(SIZES), st.floats(0, 20).map(lambda x: round(10**x))), min_size=1, max_size=3
)


@pytest.mark.parametrize("n", [20, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.timeout(3600)
def test_any_sizes_are_possible_or_refused(tmp_path_factory, n):
    path, before = tmp_path_factory.mktemp("sizes"), peak()

    @settings(max_examples=n, deadline=None, derandomize=True, database=None)
    @given(CASES)
    def run(case):
        code, _, err = optimized(path / "run", *(f"{key}={value}" for key, value in case), "--force")
        assert code in (0, 2, 4, 6), err
        assert len(err.splitlines()) == (1 if code else 0)

    run()
    assert grown(before) < 1.5 * GIB, "what is refused takes nothing, and what is possible at most what is free"


def test_a_point_spread_function_that_does_not_fit():
    acquisition, scanner = Acquisition(matrix=(4096, 4096), n_shots=1, n_samples=100), Scanner()
    k = torch.zeros(1, n_points(acquisition, scanner), 2, dtype=torch.float64)
    before = peak()
    with pytest.raises(ResourceError, match=r"matrix \(4096, 4096\) would take 12 GiB"):
        psf(Trajectory(k, acquisition, scanner))
    assert grown(before) < 0.3 * GIB


def test_a_fit_that_does_not_fit():
    acquisition = Acquisition(n_shots=1, n_samples=100_000)
    with pytest.raises(ResourceError, match="100000 samples"):
        fit(torch.zeros(1, 100_000, 2), acquisition, Scanner())


def test_a_scan_with_a_million_coils(tmp_path):
    trajectory = spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner())
    trajectory.save(tmp_path / "k.npz")
    assert outcome("export", tmp_path / "k.npz", "--out", tmp_path / "k.seq")[0] == 0
    before = peak()
    code, _, err = outcome("scan", tmp_path / "k.seq", "--out", tmp_path / "scan", "--n-coils", 1_000_000)
    assert (code, "1000000 coil images" in err) == (6, True)
    assert grown(before) < 0.3 * GIB


def test_matrices_of_files(tmp_path):
    trajectory = spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner())
    trajectory.save(tmp_path / "k.npz")
    with np.load(tmp_path / "k.npz") as file:
        arrays = dict(file)
    for matrix in ([100_000, 100_000], [2**62, 32]):
        np.savez(tmp_path / "big.npz", **{**arrays, "matrix": np.array(matrix)})
        code, _, err = outcome("psf", tmp_path / "big.npz", "--out", tmp_path / "psf.png")
        assert (code, "at most 4096 pixels" in err) == (3, True)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_memory_that_ends_on_the_way_is_a_sentence_with_ways_out(error):
    known = errors.known(error)
    assert known.exit_code == 6
    for words in ("batch", "matrix", "coils"):
        assert words in str(known)


def test_free_memory_is_what_the_system_says(monkeypatch):
    monkeypatch.undo()
    code = "import resource; from trajdesign.runtime import memory; before = memory.available(); most = 2**31;" \
        "resource.setrlimit(resource.RLIMIT_AS, (most, most)); print(before, memory.available())"  # fmt: skip
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, after = map(float, said)
    assert 2**28 < before < math.inf
    assert 0 < after < 2**31


# --- solvers that would not end ---


class Stiff(torch.nn.Module):
    """Turns a thousand times a raster."""

    def forward(self, features):
        return 300 * torch.sin(1e4 * features[..., :2])


class Lost(torch.nn.Module):
    """Is nowhere a number."""

    def forward(self, features):
        return math.nan * features[..., :2]


def stiff(**options):
    model = NeuralODE(
        spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner()), method="dopri5", max_steps=20, **options
    )
    model.field.network = Stiff()
    return model


@pytest.mark.parametrize("adjoint", [False, True])
def test_an_equation_that_is_too_hard_ends_the_run(adjoint):
    with pytest.raises(DivergedError, match="too many steps") as caught:
        stiff(adjoint=adjoint)()
    assert caught.value.exit_code == 7


def test_an_adjoint_equation_that_is_too_hard_ends_the_run():
    model = NeuralODE(
        spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner()),
        method="dopri5",
        max_steps=20,
        adjoint=True,
    )
    k = model().points
    with pytest.raises(DivergedError, match="gradient to the trajectory is not finite"):
        (k * math.nan).sum().backward()
    k = model().points
    model.field.network = Stiff()
    with pytest.raises(DivergedError, match="too many steps"):
        k.square().sum().backward()


@pytest.mark.parametrize("adjoint", [False, True])
def test_without_asserts_it_ends_as_well(monkeypatch, adjoint):
    """As under python -O, which leaves out the asserts by which torchdiffeq bounds its steps."""
    bare = {}
    exec(compile(inspect.getsource(rk_common), rk_common.__file__, "exec", optimize=1), {**vars(rk_common)}, bare)
    solver = "RKAdaptiveStepsizeODESolver"
    for name in ("_advance", "_advance_until_event", "_adaptive_step"):
        monkeypatch.setattr(getattr(rk_common, solver), name, getattr(bare[solver], name))
    with pytest.raises(DivergedError, match="too many steps"):
        stiff(adjoint=adjoint)()
    model = stiff(adjoint=adjoint)
    model.field.network = Lost()
    with pytest.raises(DivergedError):
        model()
