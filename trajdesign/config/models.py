"""The configuration of a run: TOML tables as checked models, with a default for everything."""

import copy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from trajdesign import errors
from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.toml import Table, change, flattened, kinds_first, read_toml, require_64_bits, without_none
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted
from trajdesign.scanner import Interpreter, Scanner
from trajdesign.units import nucleus_of

_PROFILES = Path(__file__).with_name("vendors")
_PLUGIN_TABLES = ("init", "parameterization", "reconstructor", "data")
#: Plug-ins that a run may do without.
OPTIONAL_TABLES = ("response", "field")


def _options(kind: str, name: str, given: Table, within: str) -> Table:
    """Return the options, checked and whole, of a plug-in that is named by the key of its table `within` another."""
    resolved = plugins.resolve(kind, {**given, "kind": name}, at=f"{within}.{name}")
    return {key: value for key, value in resolved.items() if key != "kind"}


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, validate_default=True)


class _OneTable(_Table):
    scanner: Scanner


class Limits(_Table):
    """Table ``[limits]``: which constraints hold in training, and how they are enforced.

    From epoch ``from_epoch`` on, ``weight`` times the penalties is added to the loss, as in the paper, and
    ``method = "project"`` also moves the trajectory onto the limits in every step, by ``iterations`` of the projection.
    ``"penalty"`` does not, and ``"none"`` leaves out both. ``penalty_norm = "axis"`` penalises the largest axis, as
    PILOT does, whatever norm the scanner's limits are in.

    ``options.NAME`` holds the options of the constraint of that name. ``weight`` among them is the weight of its own
    penalty: a limit that the projection cannot enforce, as that on nerve stimulation, needs more than the others. Such
    a limit need not be kept where learning starts, and ``metrics.json`` says whether it is where it ends.

    ``repair`` moves the trajectory onto the limits after the last step. Without it a run that does not project may end
    beyond them; its ``metrics.json`` says where, and it cannot be exported.
    """

    constraints: list[str] = ["extent", "gradient", "receiver", "slew"]
    options: dict[str, Table] = {}
    method: Literal["project", "penalty", "none"] = "project"
    repair: bool = True
    from_epoch: int = pydantic.Field(0, ge=0)
    weight: float = pydantic.Field(0.1, ge=0)
    penalty_norm: Literal["scanner", "axis"] = "scanner"
    iterations: int = pydantic.Field(40, ge=1, le=10_000)

    @pydantic.field_validator("options")
    @classmethod
    def _resolve(cls, options: dict[str, Table], info: pydantic.ValidationInfo) -> dict[str, Table]:
        names = info.data.get("constraints", [])
        for name in options:
            if name not in names:
                plugins.find("constraint", name)  # a name that is no constraint has its own sentence
                raise ConfigError(f"limits.options.{name} is given, but limits.constraints does not name {name!r}.")
        resolved = {name: _options("constraint", name, options.get(name, {}), "limits.options") for name in names}
        return {name: resolved[name] for name in options}

    @property
    def tables(self) -> dict[str, Table]:
        """Options of every constraint by its name."""
        return {name: self.options.get(name, {}) for name in self.constraints}


class Training(_Table):
    """Table ``[training]``: Adam with one learning rate for the trajectory and one for the network, both annealed.

    The network's rises in the first twentieth of the steps, and falls to zero at the end. In the last part, ``settle``,
    where the trajectory's is zero, only the network learns, on the final trajectory, exactly as it will be played.

    The loss is L1 + ``ssim_weight`` (1 - SSIM), of films + ``motion_weight`` times the L1 of what changes from frame to
    frame; of small errors, as of an unrolled network, take 0.01. ``validations`` are spread evenly. ``batch_size``
    counts the slices of a step on all devices together: a multiple of their number, and a run is the same on any.

    ``coil_maps`` says where reconstructors with coil sensitivity maps have them from: ``"self"`` from the measurement
    itself, ``"prescan"`` from the central 24 x 24 samples of k-space, as a short scan of the same coils with the same
    noise would give them for any trajectory, ``"espirit"`` from those samples by ESPIRiT (slow).

    ``knows_field`` says whether the reconstruction is given the static field of each object (table ``[field]``), as a
    field map that was measured before; ``field_terms`` is the number of terms in time that the encoding takes of it, 0
    as many as leave 0.1 percent of a voxel's signal at most.

    The rest changes speed and memory, not the result beyond rounding (``bfloat16`` rounds to three digits):

    ``slices_at_once``
        The batch passes through physics and network in parts of so many slices a device, which bounds the memory.
        0 takes few on a CPU, where that is no slower, and the whole batch on a GPU.
    ``spectra_bytes``
        Training images never change, so their spectra (four times as large) are kept, up to this size in all on a
        device; that saves half of the FFTs. 0 keeps none.
    ``normal``
        How the encoding applies A^H W A: see `trajdesign.encoding.operator.Encoding`.
    ``precision``
        Number format of the network's layers alone. ``bfloat16`` is meant for GPUs; most CPUs take longer with it.
    ``compile``
        Whether torch compiles the modules that the network is made of: a minute at the start, less in every step.
    ``workers``
        Processes a device that read training images ahead; 0 reads them between the steps.
    ``checkpoint_seconds``
        How often the state of the run is kept, so that ``--resume`` can go on from there; 0 keeps it after every step.
    """

    epochs: int = pydantic.Field(3, ge=1)
    batch_size: int = pydantic.Field(2, ge=1)
    trajectory_rate: float = pydantic.Field(0.003, ge=0)
    network_rate: float = pydantic.Field(0.008, ge=0)
    settle: float = pydantic.Field(0.15, ge=0, lt=1)
    trial: float = pydantic.Field(0.3, gt=0, lt=1)
    ssim_weight: float = pydantic.Field(0.2, ge=0)
    motion_weight: float = pydantic.Field(0.0, ge=0)
    noise: float = pydantic.Field(0.0, ge=0)
    coil_maps: Literal["self", "prescan", "espirit"] = "self"
    knows_field: bool = False
    field_terms: int = pydantic.Field(0, ge=0, le=100)
    validations: int = pydantic.Field(10, ge=1, le=10_000)
    slices_at_once: int = pydantic.Field(0, ge=0)
    spectra_bytes: int = pydantic.Field(2**31, ge=0)
    normal: Literal["auto", "toeplitz", "chain"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    workers: int = pydantic.Field(0, ge=0, le=256)
    checkpoint_seconds: float = pydantic.Field(60.0, ge=0)


class Config(_Table):
    """A whole run. The tables of plug-ins hold ``kind`` and that plug-in's options.

    ``scanner.profile`` names a vendor's rasters and dead times, or a TOML file with those of a site; what is given
    beside it has the last word.

    ``init`` is the pattern to compare with, and where learning starts; ``start`` is where it starts if not there, an
    init too, or a list of several: then the first part of the training (``training.trial``) is done from each, and the
    one with the best validation goes on. A start without ``kind`` is the init with other options. ``response`` is what
    the gradient system makes of what is played, in training and test; without it the system is perfect. ``field`` is
    the static field of the objects, another for each image and step, in training and test; without it there is none.

    ``perturbation.NAME`` holds the options of the perturbation of that name: what goes otherwise in a scan than was
    asked, unknown to the reconstruction, another in each step of the training; validation and test are without.
    """

    name: str = ""
    seed: int = pydantic.Field(0, ge=0)
    scanner: Scanner = Scanner()
    acquisition: Acquisition = Acquisition()
    init: Table = {"kind": "radial"}
    start: Table | list[Table] = {}
    response: Table = {}
    field: Table = {}
    perturbation: dict[str, Table] = {}
    parameterization: Table = {"kind": "neural_ode"}
    limits: Limits = Limits()
    reconstructor: Table = {"kind": "unet"}
    data: Table = {"kind": "phantom"}
    training: Training = Training()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tables: Table) -> Table:
        """Let a table without a kind set options of the default one, and name a run after its pattern."""
        given = dict(tables)
        for kind in _PLUGIN_TABLES:
            if isinstance(given.get(kind), dict):
                given[kind] = {**cls.model_fields[kind].default, **given[kind]}
        if isinstance(given.get("scanner"), dict):
            given["scanner"] = with_profile(given["scanner"])
        init = given.get("init", cls.model_fields["init"].default)
        return {"name": str(init.get("kind")) if isinstance(init, dict) else "", **given}

    @pydantic.field_validator(*_PLUGIN_TABLES, *OPTIONAL_TABLES)
    @classmethod
    def _resolve(cls, table: Table, info: pydantic.ValidationInfo) -> Table:
        kind = str(info.field_name)
        return plugins.resolve(kind, table) if table or kind not in OPTIONAL_TABLES else {}

    @pydantic.field_validator("perturbation")
    @classmethod
    def _resolve_perturbations(cls, tables: dict[str, Table]) -> dict[str, Table]:
        return {name: _options("perturbation", name, table, "perturbation") for name, table in tables.items()}

    @pydantic.field_validator("start")
    @classmethod
    def _resolve_starts(cls, start: Table | list[Table], info: pydantic.ValidationInfo) -> Table | list[Table]:
        def resolve(table: Table) -> Table:
            whole = table if "kind" in table else {**info.data.get("init", {}), **table}
            return plugins.resolve("init", whole, at="start") if table else {}

        return [resolve(table) for table in start] if isinstance(start, list) else resolve(start)

    @pydantic.model_validator(mode="after")
    def _require_possible(self) -> "Config":
        if wrong := self.scanner.unplayable(self.acquisition.dwell):
            raise ConfigError(f"config acquisition.dwell: {wrong}")
        if self.training.motion_weight and self.acquisition.n_frames == 1:
            raise ConfigError("config training.motion_weight counts for films alone; acquisition.n_frames is 1.")
        return self

    @property
    def starts(self) -> list[Table]:
        """The inits that learning may start from, one at least."""
        starts = self.start if isinstance(self.start, list) else [self.start]
        return [start for start in starts if start] or [self.init]

    def to_dict(self) -> Table:
        """Return the resolved config as plain tables that TOML can hold."""
        return without_none(self.model_dump(mode="json"))


def load_config(path: Path | str | None = None, overrides: list[str] | None = None) -> Config:
    """Read a config file, apply overrides and check everything.

    It raises an `InputError` if the file is missing or no TOML, and a `ConfigError` if a key is unknown (the sentence
    names the nearest one) or a value does not fit.

    Parameters
    ----------
    path
        TOML file; without one the embedded default is used.
    overrides
        ``"a.b=value"`` each, the value in TOML; a bare word is text.
    """
    written = {} if path is None else read_toml(path)
    tables = copy.deepcopy(written)
    for override in kinds_first(overrides or []):
        change(tables, override)
    try:
        return from_tables(tables)
    except ConfigError as error:
        is_of_file = path is not None and _wrong(written) == str(error)
        raise ConfigError(f"{path}: {error}" if is_of_file else str(error)) from None


def _wrong(tables: Table) -> str:
    try:
        from_tables(tables)
    except ConfigError as error:
        return str(error)
    return ""


def from_tables(tables: Table) -> Config:
    """Check the tables of a config.

    It raises a `ConfigError` if a key is unknown (the sentence names the nearest one) or a value does not fit.
    """
    try:
        require_64_bits(tables)
        config = Config(**tables)
    except RecursionError:
        raise ConfigError("the config nests its tables too deep.") from None
    except pydantic.ValidationError as error:
        raise ConfigError(_sentence(error)) from None
    found = flattened(config.to_dict())
    for key, value in flattened(tables).items():
        if isinstance(value, bool) and isinstance(found.get(key), int | float) and found[key] is not value:
            raise ConfigError(f"config {key}: {str(value).lower()} is no number.")
    return config


def profiles() -> list[str]:
    """Return the names of the built-in scanner profiles."""
    return sorted(file.stem for file in _PROFILES.glob("*.toml"))


def scanner_settings(table: Table) -> Table:
    """Return the settings of a `Scanner` that a table ``[scanner]`` and its profile give, and no others.

    It raises an `InputError` if the profile's file is missing or no TOML, and a `ConfigError` if there is no such
    profile or setting, or a value does not fit.
    """
    settings = with_profile(table)
    gamma = settings.get("gamma")
    if isinstance(gamma, int | float) and "nucleus" not in settings:
        settings["nucleus"] = nucleus_of(gamma) or Scanner.nucleus
    try:
        scanner = _OneTable(scanner=settings).scanner
    except pydantic.ValidationError as error:
        raise ConfigError(_sentence(error)) from None
    return {key: getattr(scanner, key) for key in settings}


def options_of(scanner: Scanner, profile: str | None = None) -> list[str]:
    """Return the options with which ``check`` takes a file for a scanner, whose profile is found if it is not given.

    The nucleus is not among them: a file says it.
    """
    missing = {name: _beyond(name, scanner) for name in ([profile] if profile else [None, *profiles()])}
    best = min(missing, key=lambda name: len(missing[name]))  # of several the first: the default goes without saying
    limits = ["--max-gradient", str(scanner.max_gradient), "--max-slew", str(scanner.max_slew)]
    more = [word for key, value in missing[best].items() for word in ("--scanner", f"{key}={value}")]
    return [*(["--profile", best] if best else []), *limits, *more]


def _beyond(profile: str | None, scanner: Scanner) -> Table:
    """Return the settings of a scanner that its limits and a profile do not give, and a check needs."""
    of_profile = Scanner(**with_profile({"profile": profile} if profile else {}))
    elsewhere = ("max_gradient", "max_slew", "nucleus", "gamma", "label_segments")
    keys = [field.name for field in fields(Scanner) if field.name not in elsewhere]
    return {key: getattr(scanner, key) for key in keys if getattr(scanner, key) != getattr(of_profile, key)}


def interpreter(profile: str | None = None) -> Interpreter:
    """Return what a profile says, in its table ``[interpreter]``, of the program that plays Pulseq files there.

    Without a profile it is that of the default, ``siemens``. It raises a `ConfigError` if there is no such profile or
    key, or a value does not fit.
    """
    name = "siemens" if profile is None else profile
    with_profile({"profile": name})  # refuses what is no profile
    tables = read_toml(name) if untrusted.ending(name) == ".toml" else _built_in(name)
    base = _built_in(str(tables["profile"])) if "profile" in tables else {}
    own = tables.get("interpreter", {})
    known = [field.name for field in fields(Interpreter)]
    for key in own if isinstance(own, dict) else ["interpreter"]:
        if key not in known:
            raise ConfigError(f"{name}: unknown key {key!r} of the table [interpreter]{errors.nearest(key, known)}")
    return Interpreter(**{**base.get("interpreter", {}), **own})


def _built_in(name: str) -> Table:
    return read_toml(_PROFILES / f"{name}.toml")


def _of_scanner(profile: Table) -> Table:
    """Return the keys of a profile that are settings of a `Scanner`."""
    return {key: value for key, value in profile.items() if key != "interpreter"}


def with_profile(scanner: Table) -> Table:
    """Return a scanner's table with what its ``profile`` says, a built-in name or a TOML file, under its own values.

    It raises an `InputError` if the file is missing or no TOML, and a `ConfigError` if there is no such profile.
    """
    own = dict(scanner)
    name = own.pop("profile", None)
    if name is None:
        return own
    is_file = untrusted.ending(str(name)) == ".toml"
    if not is_file and name not in profiles():
        raise ConfigError(f"unknown scanner profile {name!r}{errors.nearest(str(name), [*profiles(), 'FILE.toml'])}")
    if not is_file:
        return {**_of_scanner(_built_in(name)), **own}
    site = _of_scanner(read_toml(name))
    if untrusted.ending(str(site.get("profile", ""))) == ".toml":
        raise ConfigError(f"{name} builds on {site['profile']}; a profile builds on a built-in one.")
    try:
        return {**scanner_settings(site), **own}
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _sentence(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        homes = [f"{table}.{path[-1]}" for table in _known([]) if path[-1] in _known([table])]
        hint = f"; did you mean {homes[0]!r}?" if homes else errors.nearest(path[-1], _known(path[:-1]))
        return f"unknown config key {'.'.join(path)!r}{hint}"
    return f"config {'.'.join(path)}: {first['msg']} (given: {first['input']!r})."


def _known(path: list[str]) -> list[str]:
    """Names of the keys of the table at a path."""
    table: Any = Config
    for part in path:
        table = table.model_fields[part].annotation
    return [f.name for f in fields(table)] if is_dataclass(table) else list(getattr(table, "model_fields", ()))


def differences(asked: Config, kept: Config) -> list[str]:
    """Return a phrase for each key in which two configs differ."""
    wanted, done = (flattened(config.to_dict()) for config in (asked, kept))
    return [
        f"{key} is {done.get(key)!r}, not {wanted.get(key)!r}"
        for key in sorted({*wanted, *done})
        if done.get(key) != wanted.get(key)
    ]
