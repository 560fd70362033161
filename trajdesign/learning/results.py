"""What a run reached on its test images: the content of ``metrics.json``."""

import json
import math
import statistics
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from trajdesign.errors import InputError
from trajdesign.learning import bootstrap
from trajdesign.reconstruction import metrics

#: The trainings that a run may have, in their order: of the network on the initial trajectory, and of both together.
FIXED, LEARNED = STAGES = ("fixed", "learned")
#: The metrics of a result.
KEYS = ("psnr", "ssim", "nrmse")
#: Those whose gains are tested.
TESTED = KEYS[:2]

_DIGITS = {"psnr": 2, "ssim": 3, "nrmse": 3}
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """A result less another one on the same images.

    `gain` is the difference of the mean of each metric, `wilcoxon_p` the p of the paired Wilcoxon signed-rank test of
    PSNR and SSIM, over the images. `ci_low` and `ci_high` are the ends of the 95 % confidence interval of their gains,
    by a bootstrap of people and of the slices of each (`trajdesign.learning.bootstrap`); of slices alone with one
    person, or where it is not known whose the images are (`n_people` is None).
    """

    gain: dict[str, float]
    wilcoxon_p: dict[str, float]
    ci_low: dict[str, float] = field(default_factory=dict)
    ci_high: dict[str, float] = field(default_factory=dict)
    n_people: int | None = None

    @property
    def is_significant(self) -> bool:
        """Whether both PSNR and SSIM are better, with p < 0.05 each."""
        return all(self.gain[key] > 0 and p < _SIGNIFICANT for key, p in self.wilcoxon_p.items())

    def text(self, key: str) -> str:
        """Return the gain in a metric and its p."""
        return f"{self.gain[key]:+.{_DIGITS[key]}f} ({self.wilcoxon_p[key]:.0e})"

    def interval(self, key: str) -> str:
        """Return the 95 % confidence interval of the gain in a metric; ``-`` where a single image has none."""
        if math.isnan(self.ci_low[key]):
            return "-"
        low, high = (f"{end[key]:+.{_DIGITS[key]}f}" for end in (self.ci_low, self.ci_high))
        return f"{low} to {high}"

    def texts(self) -> list[str]:
        """Return the gain in PSNR with its p, its interval, and the same of SSIM."""
        return [text for key in TESTED for text in (self.text(key), self.interval(key))]

    @property
    def resampled(self) -> str:
        """What the interval is over."""
        if self.n_people is None:
            return "images, people unknown"
        return f"{self.n_people} people and their images" if self.n_people > 1 else "images of 1 person"


@dataclass(frozen=True)
class StageResult:
    """How good the reconstructed test images are after one training.

    The `n` images that count have signal and are no copies; `left_out` are the numbers of the others, from 0. Beside
    the means (PSNR in dB) stand the values of each image. `fingerprints`
    (`trajdesign.reconstruction.metrics.fingerprints`) are of all images, `seconds` those of training and test, and
    `n_skipped` counts the steps without a finite loss or gradient, which changed nothing. `people` has for each image
    that counts the number of its person, if the data tell. Of films `motion` is the mean NRMSE of what changes from
    frame to frame. Older versions did not write all of that.
    """

    n: int
    left_out: list[int]
    psnr: float
    ssim: float
    nrmse: float
    psnr_list: list[float]
    ssim_list: list[float]
    nrmse_list: list[float]
    fingerprints: list[float] | None = None
    seconds: float = math.nan
    n_skipped: int | None = None
    people: list[int] | None = None
    motion: float | None = None

    @classmethod
    def from_tables(cls, tables: dict[str, Any]) -> "StageResult":
        """Return what `tables` made a table of."""
        known = {f.name: _numbers(tables[f.name]) for f in fields(cls) if f.name in tables}
        return cls(**{"left_out": [], **known})

    def tables(self) -> dict[str, Any]:
        """Return it as ``metrics.json`` has it."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def values(self, key: str) -> list[float]:
        """Return a metric of each image."""
        return getattr(self, f"{key}_list")

    def mean(self, key: str) -> float:
        """Return the mean of a metric."""
        return getattr(self, key)

    def sd(self, key: str) -> float:
        """Return the standard deviation of a metric over the images (n - 1); not a number for a single one."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    def spread(self, key: str) -> str:
        """Return the mean of a metric and its standard deviation, as text."""
        digits, sd = _DIGITS[key], self.sd(key)
        return f"{self.mean(key):.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")

    def with_spread(self) -> dict[str, Any]:
        """Return its table with the standard deviations ``psnr_sd``, ``ssim_sd`` and ``nrmse_sd``."""
        return {**self.tables(), **{f"{key}_sd": self.sd(key) for key in KEYS}}

    def over(self, reference: "StageResult") -> Comparison:
        """Compare with another result on the same images.

        Raises
        ------
        InputError
            If they are not of the same images.
        """
        metrics.require_same(self.fingerprints, reference.fingerprints)
        pairs = {key: (self.values(key), reference.values(key)) for key in TESTED}
        return self.beside(reference, {key: metrics.wilcoxon_p(*pair) for key, pair in pairs.items()})

    def less(self, key: str, reference: "StageResult") -> str:
        """Return the mean of a metric, and in brackets its difference to that of another result."""
        digits, change = _DIGITS[key], self.mean(key) - reference.mean(key)
        return f"{self.mean(key):.{digits}f} ({change:+.{digits}f})"

    def beside(self, reference: "StageResult", wilcoxon_p: dict[str, float]) -> Comparison:
        """Return the comparison with another result on the same images, of which the p are known.

        It raises an `InputError` if the lists are of different numbers of images.
        """
        people = reference.people if self.people is None else self.people
        lists = [people or self.psnr_list, *(one.values(key) for one in (self, reference) for key in TESTED)]
        if len({len(values) for values in lists}) > 1:
            raise InputError("the lists of results are of different numbers of images; they cannot be paired.")
        gains = [np.subtract(self.values(key), reference.values(key)) for key in TESTED]
        low, high = (dict(zip(TESTED, end, strict=True)) for end in bootstrap.interval(gains, people).tolist())
        n_people = None if people is None else len(set(people))
        gain = {key: self.mean(key) - reference.mean(key) for key in KEYS}
        return Comparison(gain, wilcoxon_p, low, high, n_people)


@dataclass
class Results:
    """What a run reached.

    Parameters
    ----------
    stages
        Result of each training, by its name (`STAGES`), in their order.
    starts
        Where several starts were tried: ``val_psnr`` (dB) and ``seconds`` of each.
    wilcoxon_p
        Of PSNR and SSIM, where there are two trainings: see `Comparison`.
    limits
        See `trajdesign.physics.limits.summary`.
    files
        SHA-256 of each file of the run.
    """

    name: str
    stages: dict[str, StageResult] = field(default_factory=dict)
    starts: list[dict[str, float]] = field(default_factory=list)
    wilcoxon_p: dict[str, float] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_tables(cls, tables: dict[str, Any]) -> "Results":
        """Return what `tables` made a table of; any built-in error says that it is of another form."""
        stages = {stage: StageResult.from_tables(tables[stage]) for stage in STAGES if stage in tables}
        p = {key: _numbers(value) for key, value in tables.get("wilcoxon_p", {}).items()}
        limits, files = (dict(tables.get(key, {})) for key in ("limits", "files"))
        return cls(tables.get("name", ""), stages, list(tables.get("starts", [])), p, limits, files)

    def tables(self) -> dict[str, Any]:
        """Return it as ``metrics.json`` has it."""
        others = {key: getattr(self, key) for key in ("starts", "wilcoxon_p", "limits", "files")}
        found = {stage: result.tables() for stage, result in self.stages.items()}
        return {"name": self.name, **found, **{key: value for key, value in others.items() if value}}

    @property
    def last(self) -> StageResult:
        """That of the last training."""
        return list(self.stages.values())[-1]

    @property
    def over_fixed(self) -> Comparison | None:
        """What learning gained over the initial trajectory, if both were trained."""
        if len(self.stages) < len(STAGES):
            return None
        fixed, learned = (self.stages[stage] for stage in STAGES)
        return learned.beside(fixed, self.wilcoxon_p)


def to_json(value: Any) -> str:
    """Return strict JSON; numbers that are not finite become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=2)


def _numbers(value: Any) -> Any:
    """Return a value of JSON with null as what it was: not a number."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return math.nan if value is None else value
