"""Trajectories in files of any program, read by the format of `trajdesign.trajectories.formats` that knows them."""

from pathlib import Path

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.interfaces import Format, Samples
from trajdesign.trajectory import Trajectory, not_finite

# Files whose names do not tell are read as those of this ending, our own.
_OWN = ".npz"


def read(path: Path | str) -> Samples | Trajectory:
    """Read a trajectory by the ending of its file; a `Trajectory` is what trajdesign wrote itself.

    A file of no known ending is taken for one of our own.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or holds a number that is not finite, or facts of no scan.
    """
    path = Path(path)
    formats: list[type[Format]] = [plugins.find("exporter", name) for name in plugins.names("exporter")]
    known = {ending: format for format in formats for ending in format.reads}
    reader = known.get(untrusted.ending(path), known[_OWN])()
    try:
        found = reader.read(path)
    except InputError as error:
        if untrusted.ending(path) in known:
            raise
        raise InputError(f"{path} is of no known kind of trajectory ({', '.join(sorted(known))}): {error}") from None
    if isinstance(found, Samples):
        _require_sound(found, path)
    return found


def _require_sound(found: Samples, path: Path) -> None:
    """Refuse samples of another shape, that are not finite, or of no acquisition."""
    if found.k.ndim != 3 or found.k.dtype.kind != "f":
        raise InputError(f"{path} holds {found.k.dtype} of shape {found.k.shape}, not a real (shot, sample, dim).")
    if found.k.shape[-1] not in (2, 3):
        raise InputError(f"{path}: the last axis of k has length {found.k.shape[-1]}; it must be 2 or 3 (x, y[, z]).")
    for name, values in (("k", found.k), ("the gradient", found.gradient)):
        if values is not None and (wrong := not_finite(values, "sample")):
            raise InputError(f"{path}: {name} {wrong}.")
    usual = Acquisition()  # its field of view stays: one that is given has the last word over the file's
    n_shots, n_samples, n_dims = found.k.shape
    dwell = usual.dwell if found.dwell is None else found.dwell
    try:
        Acquisition(usual.fov[:1] * n_dims, found.matrix or usual.matrix[:1] * n_dims, n_shots, n_samples, dwell)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
