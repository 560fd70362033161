"""The run folder: everything that `optimize` leaves, and how other commands find it again."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
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
from trajdesign.learning.checkpoint import Checkpoints
from trajdesign.trajectories import foreign_files, loading
from trajdesign.trajectory import Trajectory

_MOST_WEIGHTS = 2**33

_RESULTS = (
    "initial.npz",
    "start.npz",
    "trajectory.npz",
    "network.safetensors",
    "network_fixed.safetensors",
    "history.csv",
    "metrics.json",
    "report.html",
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


class RunFolder:
    """Paths and formats of one run.

    ``config.toml`` (resolved), ``initial.npz``, ``start.npz`` (where learning does not start from the initial one),
    ``trajectory.npz``, ``network.safetensors`` and ``network_fixed.safetensors``, ``history.csv``, ``metrics.json``,
    ``figures/``, and while it is not finished ``checkpoints/``.

    Parameters
    ----------
    path
        The folder.
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
            return (self.path / "config.toml").exists() and self.config() == config
        except TrajdesignError:
            return False

    @property
    def is_finished(self) -> bool:
        """Whether it holds all results of its run."""
        return (self.path / "metrics.json").exists()

    @property
    def figures(self) -> Path:
        """Folder of the figures.

        Raises
        ------
        OutputError
            If it leads elsewhere.
        """
        return atomic.require_own(self.path / "figures")

    def config(self) -> Config:
        """Read the resolved config.

        Raises
        ------
        InputError
            If it cannot be read, or was edited after the run was finished.
        """
        self._require_unchanged("config.toml")
        return config_module.load_config(self.path / "config.toml")

    def trajectory(self, name: str = "trajectory") -> Trajectory:
        """Read ``trajectory``, ``initial`` or ``start``.

        Raises
        ------
        InputError
            If it cannot be read, is not the one that the run left, or not of its acquisition and scanner.
        """
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

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write ``history.csv``: one row a validation."""
        with (
            self._replacing("history.csv") as temporary,
            temporary.open("w", newline="\n", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def sums(self) -> dict[str, str]:
        """Return the SHA-256 of its config, of every file that was learned and of the history, by its name."""
        return {name: self._sum_of(name) for name in _KEPT if (self.path / name).exists()}

    def unsealed(self) -> str:
        """Return a sentence if edits of a finished run go unnoticed, because an older version made it; else nothing."""
        return f"{self.path} {_UNSEALED}" if self.is_finished and "config.toml" not in self._told() else ""

    def _told(self) -> dict[str, Any]:
        """Return the SHA-256 of the files of a finished run, as it left them; nothing if it does not say."""
        told = self.metrics().get("files") if self.is_finished else None
        return told if isinstance(told, dict) else {}

    def _sum_of(self, name: str) -> str:
        content = untrusted.read_bytes(self.path / name, _MOST_WEIGHTS)
        if untrusted.ending(name) in (".toml", ".csv"):  # which a copy may have given the lines of another system
            content = content.replace(b"\r\n", b"\n")
        return hashlib.sha256(content).hexdigest()

    def _require_unchanged(self, name: str) -> None:
        """Refuse a file of a finished run that is not the one that it left; older versions did not keep which."""
        told = self._told().get(name)
        if told is not None and told != self._sum_of(name):
            raise InputError(
                f"{self.path / name} is not the one that this run left: its SHA-256 is not the one in metrics.json; "
                "restore it, or repeat the run with the other settings in another folder."
            )

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``, with the SHA-256 of what it holds."""
        sealed = {**metrics, "sha256": _sum_of_table(metrics)}
        with self._replacing("metrics.json") as temporary:
            temporary.write_text(to_json(sealed) + "\n", encoding="utf-8", newline="\n")

    def metrics(self) -> dict[str, Any]:
        """Read ``metrics.json``.

        Raises
        ------
        InputError
            If it cannot be read, or was edited; older versions kept no SHA-256 of it.
        """
        try:
            found = json.loads(untrusted.read_bytes(self.path / "metrics.json", untrusted.MOST_TEXT))
            told, held = (found.pop("sha256", None), _sum_of_table(found)) if isinstance(found, dict) else ("", "")
        except (InputError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path} holds no readable metrics.json: {error}") from None
        if not isinstance(found, dict):
            raise InputError(f"{self.path} holds no readable metrics.json: it is no table.")
        kept = found.get("files")
        if told != held and (told is not None or (isinstance(kept, dict) and "config.toml" in kept)):
            raise InputError(
                f"{self.path / 'metrics.json'} is not the one that this run left: its SHA-256 is not the one that it "
                "holds; restore it, or repeat the run."
            )
        return {key: _numbers(value) if key in ("fixed", "learned") else value for key, value in found.items()}

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of ``history.csv``: ``stage``, and ``step`` and ``val_psnr`` (dB) as numbers.

        Raises
        ------
        InputError
            If it cannot be read, or was edited after the run was finished.
        """
        path = self.path / "history.csv"
        self._require_unchanged(path.name)
        try:
            return [
                {"stage": row["stage"], "step": float(row["step"]), "val_psnr": float(row["val_psnr"] or math.nan)}
                for row in csv.DictReader(io.StringIO(untrusted.read_text(path)))
            ]
        except (KeyError, TypeError, ValueError, csv.Error):
            raise InputError(f"{path} is damaged: it is no table of stage, step and val_psnr.") from None

    def save_network(self, network: torch.nn.Module, name: str = "network") -> None:
        """Write the weights of a network."""
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        with self._replacing(f"{name}.safetensors") as temporary:
            temporary.write_bytes(safetensors.torch.save(state, {"sha256": _sum(state)}))

    def load_network(self, network: torch.nn.Module, name: str = "network") -> None:
        """Read the weights into a network of the same architecture.

        Raises
        ------
        InputError
            If the file is missing, damaged or of another architecture.
        """
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

    def stages(self) -> list[str]:
        """Return which trainings the run holds: ``fixed``, ``learned`` or both.

        Raises
        ------
        InputError
            If it is not finished.
        """
        metrics = self.metrics()
        return [stage for stage in ("fixed", "learned") if stage in metrics]

    def load_stage(self, stage: str, network: torch.nn.Module) -> Trajectory:
        """Return the trajectory of a stage, and read the weights that were trained on it into the network.

        Raises
        ------
        InputError
            If a file is missing, damaged or of another architecture.
        """
        has_both = len(self.stages()) == 2
        self.load_network(network, "network_fixed" if stage == "fixed" and has_both else "network")
        return self.trajectory("initial" if stage == "fixed" else "trajectory")


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


def _sum_of_table(table: dict[str, Any]) -> str:
    """Return the SHA-256 of a table as JSON, however its file has lines and spaces."""
    return hashlib.sha256(to_json(table).encode()).hexdigest()


def _sum(state: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights: their names, kinds, shapes and bytes."""
    found = hashlib.sha256()
    for key in sorted(state):
        found.update(f"{key} {state[key].dtype} {tuple(state[key].shape)}\n".encode())
        found.update(state[key].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def to_json(value: Any) -> str:
    """Return strict JSON; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _numbers(scores: Any) -> Any:
    """Return scores with what is no number in JSON as what it was, not a number."""
    if isinstance(scores, dict):
        return {key: _numbers(value) for key, value in scores.items()}
    if isinstance(scores, list):
        return [_numbers(value) for value in scores]
    return math.nan if scores is None else scores


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
