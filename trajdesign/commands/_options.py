"""Arguments and options that several commands have, and what they say of a file that is not ours."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajdesign import console
from trajdesign.errors import ConfigError

if TYPE_CHECKING:
    from trajdesign.scanner import Scanner
    from trajdesign.trajectory import Trajectory

#: Tables of the config that name a plug-in.
_PLUGIN_TABLES = ("init", "parameterization", "reconstructor", "data", "response")


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return what completes the name of a plug-in in a shell."""

    def complete(incomplete: str) -> list[str]:
        from trajdesign import plugins

        return [name for name in plugins.names(kind) if name.startswith(incomplete)]

    return complete


def _settings(incomplete: str) -> list[str]:
    """Complete a setting that names a plug-in."""
    every = (f"{kind}.kind={name}" for kind in _PLUGIN_TABLES for name in names_of(kind)(""))
    return [setting for setting in every if setting.startswith(incomplete)]


RunPath = Annotated[Path, typer.Argument(help="Run folder or .npz file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=V", help="Change one setting; repeatable.", autocompletion=_settings),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Limit of the image, not of the hardware, that need not hold: receiver, extent."),
]

KUnit = Annotated[str | None, typer.Option(help="Foreign .npz: unit of its k: 1/m, rad/m, 1/fov or normalized.")]
Dwell = Annotated[float | None, typer.Option(help="Foreign .npz: dwell time, s.")]
Fov = Annotated[str | None, typer.Option(help="Foreign .npz: field of view, m; one number or x,y[,z].")]
Matrix = Annotated[str | None, typer.Option(help="Foreign .npz: pixels; one number or x,y[,z].")]
Profile = Annotated[
    str | None,
    typer.Option(help="Scanner of a .seq or foreign .npz file: siemens, ge, philips, multi, or a TOML file."),
]
MaxGradient = Annotated[float | None, typer.Option(help="Of that scanner, T/m.", show_default="50e-3")]
MaxSlew = Annotated[float | None, typer.Option(help="Of that scanner, T/m/s.", show_default="200")]

# Residual of a fit, 1/FOV, that is worth a word; and the part of the matrix that k should reach.
_NOTED, _SHORT = 0.01, 0.5


@dataclass(frozen=True)
class Foreign:
    """What the options say of a file that is not ours, and of its scanner; nothing is known of either by default."""

    k_unit: str | None = None
    dwell: float | None = None
    fov: str | None = None
    matrix: str | None = None
    profile: str | None = None
    max_gradient: float | None = None
    max_slew: float | None = None

    def scanner(self) -> "Scanner":
        """Return the scanner that a file without one is meant for."""
        from trajdesign.config import with_profile
        from trajdesign.scanner import Scanner

        given = {"profile": self.profile, "max_gradient": self.max_gradient, "max_slew": self.max_slew}
        return Scanner(**with_profile({key: value for key, value in given.items() if value is not None}))

    def open(self, path: Path) -> "Trajectory":
        """Open a trajectory of ours, or with a unit of its k a foreign one, whose fit is reported on stderr."""
        from trajdesign import loading, run

        if self.k_unit is None:
            if self.dwell is not None or self.fov is not None:
                raise ConfigError("--dwell and --fov describe a foreign file; give its --k-unit too.")
            return run.load(path)
        if self.dwell is None or self.fov is None:
            raise ConfigError("--k-unit describes a foreign file; give its --dwell (s) and --fov (m) too.")
        foreign, (largest, rms) = loading.load_sampled(
            path,
            k_unit=self.k_unit,
            acquisition_fov=_numbers("--fov", self.fov, float),
            dwell=self.dwell,
            scanner=self.scanner(),
            matrix=None if self.matrix is None else _numbers("--matrix", self.matrix, int),
        )
        acquisition = foreign.acquisition
        rough = " (corners or noise, which no amplifier plays)" if largest > _NOTED else ""
        reach = float((foreign.k_adc.abs() / foreign.k.new_tensor(acquisition.k_max)).max())
        console.note(
            f"Fitted {path} onto the {foreign.scanner.gradient_raster * 1e6:g} us raster: "
            f"largest residual {largest:.3g}/FOV{rough}, rms {rms:.3g}/FOV.\n"
            f"Matrix {_times(acquisition.matrix)}{'' if self.matrix else ', taken from k,'} at a field of view of "
            f"{_times(round(1e3 * extent, 3) for extent in acquisition.fov)} mm: "
            f"voxels of {_times(round(1e3 * size, 3) for size in acquisition.voxel)} mm."
            + (f"\nk reaches {reach:.2g} of what that matrix holds; is the unit right?" if reach < _SHORT else "")
        )
        return foreign

    def words(self) -> list[str]:
        """Return the options as they are given."""
        given = ((f"--{name.replace('_', '-')}", value) for name, value in asdict(self).items() if value is not None)
        return [str(word) for pair in given for word in pair]


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a number or a comma-separated list of numbers.") from None
