"""The patterns of mri-nufft, by name."""

import contextlib
import inspect
from typing import Any

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError, missing, nearest
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, inside, require_time
from trajdesign.trajectories.traversal import Fastest, curve_through
from trajdesign.trajectory import Trajectory, n_points

# Points of a pattern beside the control points, so that its path is known between them.
_FINER = 16


def mrinufft(
    acquisition: Acquisition, scanner: Scanner, *, pattern: str = "cones", options: dict[str, Any] | None = None
) -> Trajectory:
    """Return ``initialize_2D_...`` or ``initialize_3D_...`` of mri-nufft (Comby et al., doi:10.21105/joss.07743).

    It is played as mri-nufft times it where the scanner can; else each shot follows the same path as fast as the limits
    allow, slowed down evenly to fill the readout. Its axes are x, y[, z], as mri-nufft draws them, and its edge, 0.5,
    is k_max; one that goes beyond is shrunk. Needs the extra ``mrinufft``.

    Parameters
    ----------
    pattern
        The rest of the function's name: ``cones``, ``sinusoide``, ``waves``, ``lissajous``, ``floret``, ...
    options
        The function's other arguments, as ``{ nb_zigzags = 3 }``.
    """
    name, steps = f"mrinufft: {pattern}", n_points(acquisition, scanner) - 1
    own = _points(pattern, options or {}, acquisition, steps + 1)
    if own.shape[1] == steps + 1:
        with contextlib.suppress(LimitError):  # then on its own path, but not in its own time
            return feasible(own, acquisition, scanner, name, "a shot")
    fine = _points(pattern, options or {}, acquisition, _FINER * steps + 1)
    bounds, parts = Bounds.of(acquisition, scanner), np.linspace(0, 1, steps + 1)
    shots = [Fastest(curve_through(path), bounds, from_rest=False) for path in fine]
    longest = max(shot.duration for shot in shots)
    require_time(f"{name}: a shot", longest, steps * scanner.gradient_raster, "of what its options count")
    k = inside(np.stack([shot.play(parts) for shot in shots]), acquisition)
    return feasible(k, acquisition, scanner, name, "a shot")


def _points(pattern: str, options: dict[str, Any], acquisition: Acquisition, n_points: int) -> np.ndarray:
    """Return the pattern (shot, point, dim), 1/m; some choose the number of their points themselves."""
    try:
        from mrinufft import trajectories
    except ImportError:
        raise missing("init.kind = mrinufft", "mri-nufft", "mrinufft") from None
    prefix = f"initialize_{acquisition.n_dims}D_"
    known = [name.removeprefix(prefix) for name in dir(trajectories) if name.startswith(prefix)]
    if pattern not in known:
        raise ConfigError(f"mri-nufft has no {acquisition.n_dims}D pattern {pattern!r}{nearest(pattern, known)}")
    function = getattr(trajectories, prefix + pattern)
    parameters = inspect.signature(function).parameters
    given = {next(iter(parameters)): acquisition.n_shots, **({"Ns": n_points} if "Ns" in parameters else {}), **options}
    try:
        inspect.signature(function).bind(**given)
        points = np.asarray(function(**given), dtype=np.float64)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"mrinufft: {pattern} with the options {options}: {error}.") from None
    if points.ndim != 3 or len(points) != acquisition.n_shots:
        raise ConfigError(
            f"mrinufft: {pattern} gives {len(points)} shots, the acquisition has {acquisition.n_shots}; "
            "set its options or n_shots so that they agree."
        )
    return points * (np.array(acquisition.k_max) / max(0.5, np.abs(points).max()))
