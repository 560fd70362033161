"""What a run goes on from: the content of a checkpoint."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from trajdesign.learning.results import FIXED, LEARNED, Results

_STAGES = ([FIXED, LEARNED], [FIXED], [LEARNED])


@dataclass(frozen=True)
class Validation:
    """A row of ``history.csv``: `loss` is the mean since the last one, `penalty` that of the step, `seconds` so far."""

    stage: str
    step: float
    epoch: float = math.nan
    loss: float = math.nan
    val_psnr: float = math.nan
    val_ssim: float = math.nan
    penalty: float = math.nan
    seconds: float = math.nan


@dataclass
class Done:
    """What a training has behind it after a step; `losses` are those since the last validation."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    psnr: float = math.nan
    history: list[Validation] = field(default_factory=list)


@dataclass
class JointState:
    """All that the next step depends on, beside the config: see `trajdesign.learning.step.Joint`."""

    settled: bool
    k: Tensor
    parameterization: dict[str, Tensor]
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    anneal: dict[str, Any]
    projection: Any
    weights: Tensor | None
    spectra: Any
    lost: list[int]
    noise: Tensor
    random: Tensor
    random_cuda: Tensor | None


@dataclass
class TrainingState:
    """A training after a step."""

    done: Done
    joint: JointState

    @classmethod
    def from_tables(cls, tables: dict[str, Any]) -> "TrainingState":
        """Return what `tables` made a table of."""
        done = Done(**tables["done"])
        done.history = [Validation(**row) for row in tables["done"]["history"]]
        return cls(done, JointState(**tables["joint"]))

    def tables(self) -> dict[str, Any]:
        """Return it as a checkpoint has it."""
        return {"done": asdict(self.done), "joint": vars(self.joint)}


@dataclass(kw_only=True)
class RunState:
    """A run in progress.

    Of its `stages` one is in progress, `stage`; `results` and `history` are of those that are done. `images` holds the
    fingerprints of the images of each split, and `circumstances` what changes the rounding beside the `config`. Of
    several starts those that were `tried` have ``val_psnr`` (dB) and ``seconds``; `best` is where the training from the
    best of them ended. `training` is where the training in progress was when the checkpoint was written.
    """

    stages: list[str]
    stage: str = ""
    results: Results
    history: list[Validation] = field(default_factory=list)
    circumstances: dict[str, str | int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    images: dict[str, list[float]] = field(default_factory=dict)
    tried: list[dict[str, float]] = field(default_factory=list)
    best: TrainingState | None = None
    training: TrainingState | None = None

    @classmethod
    def from_tables(cls, tables: dict[str, Any]) -> "RunState":
        """Return what `tables` made a table of; any built-in error says that it is of another form."""
        if tables["stages"] not in _STAGES:
            raise ValueError("stages")
        known = {f.name: tables[f.name] for f in fields(cls) if f.name in tables}
        for key in ("best", "training"):
            known[key] = TrainingState.from_tables(tables[key]) if tables.get(key) else None
        results, history = Results.from_tables(tables["results"]), [Validation(**row) for row in tables["history"]]
        return cls(**{**known, "results": results, "history": history})

    def tables(self, training: TrainingState) -> dict[str, Any]:
        """Return it as a checkpoint has it, with the training in progress."""
        found = {**vars(self), "results": self.results.tables(), "history": [asdict(row) for row in self.history]}
        found |= {"best": self.best and self.best.tables(), "training": training.tables()}
        return found if self.tried else {key: found[key] for key in found if key not in ("tried", "best")}
