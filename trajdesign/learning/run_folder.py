"""The run folder: everything that `optimize` leaves, and how other commands find it again."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from trajdesign.config import models as config_module
from trajdesign.config import toml
from trajdesign.config.models import Config
from trajdesign.errors import InputError, OutputError, ResourceError, TrajdesignError
from trajdesign.files import atomic, untrusted
from trajdesign.files.atomic import atomic_path
from trajdesign.files.lock import one_writer
from trajdesign.learning.checkpoint import Checkpoints
from trajdesign.learning.results import FIXED, STAGES, Results, to_json
from trajdesign.learning.state import Validation
from trajdesign.trajectories import foreign_files, loading
from trajdesign.trajectory import Trajectory

_MOST_WEIGHTS = 2**33

# Others write exports.json in less, s.
_PATIENCE = 10.0

_RESULTS = (
    "initial.npz",
    "start.npz",
    "trajectory.npz",
    "network.safetensors",
    "network_fixed.safetensors",
    "history.csv",
    "metrics.json",
    "report.html",
    "exports.json",
    "conditions.json",
)

# In what config.toml and the trajectories of a run agree.
_AGREE = {
    "acquisition": ("fov", "matrix", "n_shots", "n_samples", "dwell"),
    "scanner": ("max_gradient", "max_slew", "limit_norm", "gradient_raster", "gamma"),
}

# What a run is and what it learned: `metrics.json` holds the SHA-256 of each, and its own.
_KEPT = ("config.toml", *_RESULTS[:6])

_UNSEALED = "was finished by an older version: an edit of its metrics.json, config.toml or history.csv goes unnoticed."

_FOLDERS = ("checkpoints", "figures", "tensorboard")


@dataclass(frozen=True)
class Export:
    """A scanner file that was made of a run's trajectory.

    Parameters
    ----------
    file
        Its name, without folders.
    signature
        The hash that its section ``[SIGNATURE]`` holds.
    template
        Name of the sequence template, or the path of a site's own.
    options
        Of the template, those that were given.
    """

    file: str
    signature: str
    template: str
    options: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """Paths and formats of one run. What reads a file raises `InputError` if that is missing, damaged or not its own.

    ``config.toml`` (resolved), ``initial.npz``, ``start.npz`` (where learning does not start from the initial one),
    ``trajectory.npz``, ``network.safetensors`` and ``network_fixed.safetensors``, ``history.csv``, ``metrics.json``,
    ``figures/``, ``exports.json`` once it was exported, ``conditions.json`` once it was tested in others, and while it
    is not finished ``checkpoints/``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path)

    def create(self, config: Config, *, overwrite: bool = False) -> None:
        """Make the folder, without the results of an earlier run, and write the resolved config.

        Raises
        ------
        OutputError
            If it holds a run already and `overwrite` is not set, or a folder in it leads elsewhere.
        """
        if (self.path / "config.toml").exists() and not overwrite:
            raise OutputError(
                f"{self.path} holds a run already; choose another --out, go on with it by --resume, or pass --force."
            )
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; --out names a folder.")
        self._require_own()
        for name in _RESULTS:  # else a run that stops early would leave them beside the config of another
            (self.path / name).unlink(missing_ok=True)
        self.checkpoints.clear()
        atomic.sweep(self.path)
        with atomic_path(self.path / "config.toml") as temporary:
            temporary.write_text(toml.to_toml(config.to_dict()), encoding="utf-8", newline="\n")

    def reopen(self, config: Config) -> bool:
        """Return whether it holds a run to go on with, without what a killed one left half written.

        Raises
        ------
        OutputError
            If that run is of another config, or a folder in it leads elsewhere.
        """
        if not (self.path / "config.toml").exists():
            return False
        self.require_same(config, self.config())
        self._require_own()
        atomic.sweep(self.path)
        atomic.sweep(self.checkpoints.path)
        return True

    def _require_own(self) -> None:
        """Refuse links in the place of its folders: what they lead to would be written, and cleared."""
        for name in _FOLDERS:
            atomic.require_own(self.path / name)

    def require_same(self, config: Config, kept: Config) -> None:
        """Raise `OutputError` if the run that is there was begun with another config."""
        found = config_module.differences(config, kept)
        if found:
            raise OutputError(
                f"{self.path} holds a run of another config: {found[0]}; choose another --out, or pass --force "
                "in place of --resume."
            )

    def holds(self, config: Config) -> bool:
        """Return whether it holds a run of this very config, finished or not."""
        try:
            return (self.path / "config.toml").exists() and not config_module.differences(config, self.config())
        except TrajdesignError:
            return False

    @property
    def is_finished(self) -> bool:
        """Whether it holds all results of its run."""
        return (self.path / "metrics.json").exists()

    @property
    def figures(self) -> Path:
        """Folder of the figures; `OutputError` if it leads elsewhere."""
        return atomic.require_own(self.path / "figures")

    def config(self) -> Config:
        """Read the resolved config."""
        self._require_unchanged("config.toml")
        return config_module.load_config(self.path / "config.toml")

    def trajectory(self, name: str = "trajectory") -> Trajectory:
        """Read ``trajectory``, ``initial`` or ``start``, if it is of the run's acquisition and scanner."""
        path = self.path / f"{name}.npz"
        found = loading.load(path)
        self._require_unchanged(path.name)
        if (self.path / "config.toml").exists():
            config = self.config()
            for what in ("acquisition", "scanner"):
                mine, other = getattr(config, what), getattr(found, what)
                for key in _AGREE[what]:
                    if getattr(mine, key) != getattr(other, key):
                        raise InputError(
                            f"{path} has {what}.{key} = {getattr(other, key)}, config.toml {getattr(mine, key)}: they "
                            "are not of one run."
                        )
        return found

    def start(self) -> Trajectory:
        """Read where learning started: at ``start``, or without one at ``initial``."""
        return self.trajectory("start" if (self.path / "start.npz").exists() else "initial")

    def write_history(self, rows: list[Validation]) -> None:
        """Write ``history.csv``: one row a validation."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=[f.name for f in fields(Validation)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(vars, rows))
        with self._replacing("history.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="\n")

    def sums(self) -> dict[str, str]:
        """Return the SHA-256 of its config, of every file that was learned and of the history, by its name."""
        return {name: self._sum_of(name) for name in _KEPT if (self.path / name).exists()}

    def unsealed(self) -> str:
        """Return a sentence if edits of a finished run go unnoticed, because an older version made it; else nothing."""
        return f"{self.path} {_UNSEALED}" if self.is_finished and "config.toml" not in self._told() else ""

    def _told(self) -> dict[str, str]:
        """Return the SHA-256 that a finished run kept of its files; older versions kept fewer."""
        return self.results().files if self.is_finished else {}

    def _sum_of(self, name: str) -> str:
        content = untrusted.read_bytes(self.path / name, _MOST_WEIGHTS)
        if untrusted.ending(name) in (".toml", ".csv"):  # which a copy may have given the lines of another system
            content = content.replace(b"\r\n", b"\n")
        return hashlib.sha256(content).hexdigest()

    def _require_unchanged(self, name: str) -> None:
        """Refuse a file of a finished run that was changed after the run left it."""
        told = self._told().get(name)
        if told is not None and told != self._sum_of(name):
            raise InputError(
                f"{self.path / name} is not the one that this run left: its SHA-256 is not the one in metrics.json; "
                "restore it, or repeat the run with the other settings in another folder."
            )

    def write_results(self, results: Results) -> None:
        """Write ``metrics.json``, with the SHA-256 of what it holds."""
        tables = results.tables()
        with self._replacing("metrics.json") as temporary:
            text = to_json({**tables, "sha256": sum_of_table(tables)})
            temporary.write_text(text + "\n", encoding="utf-8", newline="\n")

    def results(self) -> Results:
        """Read ``metrics.json``; older versions kept no SHA-256 of it."""
        path = self.path / "metrics.json"
        try:
            found = json.loads(untrusted.read_bytes(path, untrusted.MOST_TEXT))
            told, held = found.pop("sha256", None), sum_of_table(found)
            results = Results.from_tables(found)
            is_sealed = told is not None or "config.toml" in results.files
        except (InputError, AttributeError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path} holds no readable metrics.json: {error}") from None
        if told != held and is_sealed:
            raise InputError(
                f"{path} is not the one that this run left: its SHA-256 is not the one that it holds; restore it, or "
                "repeat the run."
            )
        return results

    def history(self) -> list[Validation]:
        """Return the rows of ``history.csv``."""
        path = self.path / "history.csv"
        self._require_unchanged(path.name)
        names = [f.name for f in fields(Validation)][2:]
        try:
            rows, found = csv.DictReader(io.StringIO(untrusted.read_text(path))), []
            for row in rows:
                known = {key: float(row[key] or math.nan) for key in names if key in row or key == "val_psnr"}
                found.append(Validation(row["stage"], float(row["step"]), **known))
            return found
        except (KeyError, TypeError, ValueError, csv.Error):
            raise InputError(f"{path} is damaged: it is no table of stage, step and val_psnr.") from None

    def exports(self) -> list[Export]:
        """Return the Pulseq files that were made of its trajectory, the latest last; none if it tells of none."""
        path = self.path / "exports.json"
        if not path.exists():
            return []
        try:
            rows = json.loads(untrusted.read_bytes(path, untrusted.MOST_TEXT))["exports"]
            found = [Export(**row) for row in rows]
            if not all(isinstance(text, str) for one in found for text in (one.file, one.signature, one.template)):
                raise TypeError("a name or signature is no text")
        except (InputError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}; export again.") from None
        return found

    def note_export(self, export: Export) -> None:
        """Add to ``exports.json``, in place of an earlier file of the same signature.

        Raises
        ------
        OutputError
            If another process writes it.
        ResourceError
            If the folder cannot be written.
        """
        with one_writer(self.path, ".exports.lock", patience=_PATIENCE):
            kept = [one for one in self.exports() if one.signature != export.signature]
            with self._replacing("exports.json") as temporary:
                text = to_json({"exports": [asdict(one) for one in [*kept, export]]})
                temporary.write_text(text + "\n", encoding="utf-8", newline="\n")

    def save_network(self, network: torch.nn.Module, name: str = "network") -> None:
        """Write the weights of a network."""
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        with self._replacing(f"{name}.safetensors") as temporary:
            temporary.write_bytes(safetensors.torch.save(state, {"sha256": _sum(state)}))

    def load_network(self, network: torch.nn.Module, name: str = "network") -> None:
        """Read the weights into a network of the same architecture."""
        path = self.path / f"{name}.safetensors"
        try:
            content = untrusted.read_bytes(path, _MOST_WEIGHTS)
            state = safetensors.torch.load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            if header.get("__metadata__", {}).get("sha256", _sum(state)) != _sum(state):  # older versions kept none
                raise InputError("it is damaged: its SHA-256 is not the one that it holds.")
            self._require_unchanged(path.name)
            network.load_state_dict(state)
        except (InputError, RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise InputError(f"cannot read the network {path}: {str(error).splitlines()[0]}") from None

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        """Write a file of the folder, which is not made anew if somebody has removed it."""
        if not atomic.is_folder(self.path):
            raise ResourceError(f"cannot write {self.path / name}: the folder of the run was removed.")
        with atomic_path(self.path / name) as temporary:
            yield temporary

    def load_stage(self, stage: str, network: torch.nn.Module) -> Trajectory:
        """Return the trajectory of a stage, and read the weights that were trained on it into the network."""
        has_both = len(self.results().stages) == len(STAGES)
        self.load_network(network, "network_fixed" if stage == FIXED and has_both else "network")
        return self.trajectory_of(stage)

    def trajectory_of(self, stage: str) -> Trajectory:
        """Return the trajectory that a stage was trained on: see `trajectory`."""
        return self.trajectory("initial" if stage == FIXED else "trajectory")


def load(path: Path | str) -> Trajectory:
    """Read the trajectory of a run folder or of a file, ``.npz``, Pulseq's ``.seq`` or NeuroSpin's ``.bin``.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "trajectory.npz").exists():
            raise InputError(f"{path} is no finished run: it holds no trajectory.npz.")
        return RunFolder(path).trajectory()
    return loading.load(path)


def is_complete(path: Path) -> bool:
    """Whether `load` reads it: a run folder, or a file that tells all of itself."""
    if path.is_dir():
        return True
    found = foreign_files.read(path)
    return isinstance(found, Trajectory) or found.is_complete


def sum_of_table(table: dict[str, Any]) -> str:
    """Return the SHA-256 of a table as JSON, whatever lines and spaces its file has."""
    return hashlib.sha256(to_json(table).encode()).hexdigest()


def _sum(state: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights: their names, kinds, shapes and bytes."""
    found = hashlib.sha256()
    for key in sorted(state):
        found.update(f"{key} {state[key].dtype} {tuple(state[key].shape)}\n".encode())
        found.update(state[key].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
