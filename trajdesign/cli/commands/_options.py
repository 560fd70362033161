"""Arguments and options that several commands have, and what they say of a file that is not ours."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajdesign.cli import console
from trajdesign.errors import ConfigError

if TYPE_CHECKING:
    from trajdesign.interfaces import Samples
    from trajdesign.scanner import Interpreter, Nucleus, Scanner
    from trajdesign.trajectory import Trajectory

#: Tables of the config that name a plug-in.
_PLUGIN_TABLES = ("init", "parameterization", "reconstructor", "data", "response", "field")


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return what completes the name of a plug-in in a shell."""

    def complete(incomplete: str) -> list[str]:
        from trajdesign.config import plugins

        return [name for name in plugins.names(kind) if name.startswith(incomplete)]

    return complete


def _settings(incomplete: str) -> list[str]:
    """Complete a setting that names a plug-in."""
    every = (f"{kind}.kind={name}" for kind in _PLUGIN_TABLES for name in names_of(kind)(""))
    return [setting for setting in every if setting.startswith(incomplete)]


RunPath = Annotated[Path, typer.Argument(help="Run folder or .npz file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and what --json asks for.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=V", help="Change one setting; repeatable.", autocompletion=_settings),
]
ResponseKind = Annotated[
    str | None,
    typer.Option(
        help="Of the gradient system: girf, eddy_currents, delay, your own, or none.",
        autocompletion=names_of("response"),
        show_default="the run's own",
    ),
]
ResponseSet = Annotated[
    list[str] | None, typer.Option("--set", metavar="response.OPTION=V", help="Of that response; repeatable.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Limit of the image, not of the hardware, that need not hold: receiver, extent, one of the run."),
]

#: What is said of a file whose nucleus is neither told nor given.
ASSUMED = "The file does not say its nucleus; 1H is assumed. --nucleus gives another, as 23Na."

# Residual of a fit, 1/FOV, that is worth a word; the part of the matrix that k should reach; a large voxel, m.
_NOTED, _SHORT, _COARSE = 0.01, 0.5, 5e-3


class Options:
    """Options that belong together, as a dataclass: `grouped` gives a command an option for each field."""

    def given(self) -> list[tuple[str, object]]:
        """Return the options that are given and their values, in the order of the fields."""
        values = vars(self).items()
        pairs = [(key, one) for key, value in values for one in (value if isinstance(value, list) else [value])]
        return [(f"--{key.replace('_', '-')}", value) for key, value in pairs if value is not None]

    def words(self) -> list[str]:
        """Return the options as they are typed."""
        return [str(word) for pair in self.given() for word in pair]

    def refuse(self, why: str) -> None:
        """Refuse what is given, by name."""
        refuse(dict(self.given()), why)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has, in place of each parameter that is one of `Options`, the options of its fields."""
    groups, parameters = dict[str, type[Options]](), list[inspect.Parameter]()
    for name, parameter in inspect.signature(command).parameters.items():
        kind = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, Options):
            groups[name] = kind
            parameters += inspect.signature(kind).parameters.values()
        else:
            parameters.append(parameter)
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]

    def run(**given: Any) -> None:
        made = {name: kind(**{key: given.pop(key) for key in kind.__annotations__}) for name, kind in groups.items()}
        command(**given, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


@dataclass(frozen=True)
class ScannerOptions(Options):
    """What the options say of the scanner; nothing by default."""

    profile: Annotated[
        str | None,
        typer.Option(
            help="Scanner to check against: siemens, ge, philips, multi, or a TOML file; over that of a run.",
            show_default="siemens, or the run's own",
        ),
    ] = None
    max_gradient: Annotated[
        float | None, typer.Option(help="Of that scanner, T/m.", show_default="50e-3, or the run's own")
    ] = None
    max_slew: Annotated[
        float | None, typer.Option(help="Of that scanner, T/m/s.", show_default="200, or the run's own")
    ] = None
    nucleus: Annotated[
        str | None,
        typer.Option(
            help="1H, 23Na, ...: of a file that does not say it.", show_default="the file's, or for a check 1H"
        ),
    ] = None
    scanner: Annotated[
        list[str] | None,
        typer.Option(
            "--scanner", metavar="KEY=V", help="Any other setting of the scanner, as limit_norm=axis; repeatable."
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of a `Scanner` that are given, those of the profile among them."""
        from trajdesign.config import models, toml

        given = {key: value for key, value in vars(self).items() if key != "scanner" and value is not None}
        more = toml.parse_options(self.scanner or [])
        for key in given.keys() & more.keys():
            raise ConfigError(f"{key} is given twice, by --{key.replace('_', '-')} and by --scanner.")
        return models.scanner_settings({**given, **more})

    def interpreter(self) -> "Interpreter":
        """Return what is known of the program that plays Pulseq files on that scanner."""
        from trajdesign.config import models, toml

        return models.interpreter(self.profile or toml.parse_options(self.scanner or []).get("profile"))

    def nucleus_of(self, scanner: "Scanner", told: "Nucleus | None") -> dict[str, str | float]:
        """Return the nucleus, and where it is from if a file tells `told` of it; None is a file of ours, which does."""
        source = "options" if self.settings().keys() & {"nucleus", "gamma"} else "assumed"
        source = "file" if told is None or told else source
        return {"nucleus": scanner.nucleus, "gamma": scanner.gamma, "nucleus_from": source}

    def over(self, trajectory: "Trajectory", path: Path) -> "Trajectory":
        """Return a trajectory that knows its scanner, for the same one but for what the options say.

        Raises
        ------
        ConfigError
            If it would be another trajectory there: on another raster, sampled at other times, of another nucleus.
        """
        from trajdesign.scanner import Scanner, with_nucleus

        own = trajectory.scanner
        told: Nucleus = {"nucleus": own.nucleus, "gamma": own.gamma}
        other = Scanner(**{**asdict(own), **with_nucleus(self.settings(), told, path)})
        name = self.profile or "the scanner that is given"
        remedy = f"learn it again with scanner.profile={self.profile}" if self.profile else "learn it again for that"
        starts = [trajectory.acquisition.adc_delay(one.gradient_raster, one.rf_raster) for one in (own, other)]
        for what, had, needed, is_same in (
            ("gradient", own.gradient_raster, other.gradient_raster, own.gradient_raster == other.gradient_raster),
            ("RF", own.rf_raster, other.rf_raster, math.isclose(*starts, abs_tol=1e-12)),  # on which ADC events start
        ):
            if not is_same:
                rasters = f"a {had * 1e6:g} us {what} raster; {name} needs {needed * 1e6:g} us"
                raise ConfigError(f"{path} was learned on {rasters}: {remedy}.")
        return replace(trajectory, scanner=other)


@dataclass(frozen=True)
class Foreign(Options):
    """What the options say of a file that is not ours; nothing is known of it by default."""

    k_unit: Annotated[
        str | None, typer.Option(help="Foreign .npz: unit of its k: 1/m, rad/m, 1/fov or normalized.")
    ] = None
    dwell: Annotated[float | None, typer.Option(help="Foreign .npz: dwell time, s.")] = None
    fov: Annotated[str | None, typer.Option(help="Foreign .npz: field of view, m; one number or x,y[,z].")] = None
    matrix: Annotated[str | None, typer.Option(help="Foreign .npz: pixels; one number or x,y[,z].")] = None


def response_table(kind: str | None, settings: list[str] | None) -> dict[str, Any] | None:
    """Return the table of a response that is named, with its options from ``--set response.OPTION=V``.

    None if none is given; empty for ``none``, a perfect gradient system.

    Raises
    ------
    ConfigError
        If a setting is not of the response, or there is no response that has options.
    """
    from trajdesign.config import toml

    given = toml.parse_options(settings or [])
    options = given.pop("response", {})
    if given or not isinstance(options, dict):
        raise ConfigError(f"--set {next(iter(given), 'response')}: it sets options of the response, response.OPTION=V.")
    if kind in (None, "none"):
        refuse({"--set": settings}, "it is of a response; give --response too.")
        return None if kind is None else {}
    return {**options, "kind": kind}


def note_unsealed(*paths: Path) -> None:
    """Say of which finished runs of older versions edits go unnoticed."""
    from trajdesign.learning.run_folder import RunFolder

    for path in paths:
        if path.is_dir() and (sentence := RunFolder(path).unsealed()):
            console.note(sentence)


def refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse those options that have a value, by name.

    Raises
    ------
    ConfigError
        If there is one; the sentence ends with `why`.
    """
    given = [name for name, value in options.items() if value not in (None, [], False)]
    if given:
        raise ConfigError(f"{', '.join(given)}: {why}")


def open_trajectory(path: Path, foreign: Foreign, scanner: ScannerOptions) -> "tuple[Trajectory, Samples | None]":
    """Open a trajectory of ours or of a complete file, or with a unit of its k a foreign one.

    Returns
    -------
    trajectory
        For the scanner that the options make of its own, or of the default.
    found
        What was read of a file that is not ours, whose fit is reported on stderr.
    """
    from trajdesign.learning import run_folder
    from trajdesign.trajectories import loading
    from trajdesign.trajectory import Trajectory

    given = loading.Given(
        foreign.k_unit,
        None if foreign.fov is None else _numbers("--fov", foreign.fov, float),
        foreign.dwell,
        None if foreign.matrix is None else _numbers("--matrix", foreign.matrix, int),
    )
    found = run_folder.load(path) if path.is_dir() else loading.opened(path, scanner.settings(), given)
    if isinstance(found, Trajectory):
        foreign.refuse(f"{path} says it itself; the option describes foreign files.")
        note_unsealed(path)
        return scanner.over(found, path), None
    if not found.samples.is_complete:
        _note_fit(path, found.trajectory, found.residual, foreign)
    return found.trajectory, found.samples


def _note_fit(path: Path, trajectory: "Trajectory", residual: tuple[float, float], foreign: Foreign) -> None:
    acquisition, (largest, rms) = trajectory.acquisition, residual
    rough = " (corners or noise, which no amplifier plays)" if largest > _NOTED else ""
    reach = float((trajectory.k_adc.abs() / trajectory.points.new_tensor(acquisition.k_max)).max())
    doubts = [f"k reaches {reach:.2g} of what that matrix holds"] if reach < _SHORT else []
    doubts += ["the voxels are large"] if not foreign.matrix and max(acquisition.voxel) > _COARSE else []
    console.note(
        f"Fitted {path} onto the {trajectory.scanner.gradient_raster * 1e6:g} us raster: "
        f"largest residual {largest:.3g}/FOV{rough}, rms {rms:.3g}/FOV.\n"
        f"Matrix {_times(acquisition.matrix)}{'' if foreign.matrix else ', taken from k,'} at a field of view of "
        f"{_times(round(1e3 * extent, 3) for extent in acquisition.fov)} mm: "
        f"voxels of {_times(round(1e3 * size, 3) for size in acquisition.voxel)} mm."
        + (f"\n{'; '.join(doubts)}; is the unit right?" if doubts else "")
    )


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a number or a comma-separated list of numbers.") from None
