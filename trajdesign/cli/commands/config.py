"""``trajdesign config``: files of settings, to start from, to look at, and for editors."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Force, Json, Quiet, Set, refuse
from trajdesign.files import atomic

config = typer.Typer(name="config", help="Make, show and describe config files.", no_args_is_help=True)


@config.command()
def init(
    out: Annotated[Path | None, typer.Option(help="TOML file to write.", show_default="standard output")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write a config file to start from: every key with its default, and every plug-in."""
    from trajdesign.config.template import template

    if out is None:
        refuse({"--force": force, "--quiet": quiet}, "it is for a file; give its --out too.")
        console.say(template().rstrip("\n"))
        return
    atomic.write_text(out, template(), overwrite=force)
    if not quiet:
        console.say(f"Config: {out}")
        console.suggest(("optimize", out, "--out", Path("runs") / out.stem))


@config.command()
def show(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="TOML file; the embedded default without one.", show_default=False),
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Print what a config comes to: checked, every default written out."""
    from trajdesign.config import models as config_module
    from trajdesign.config import toml

    tables = config_module.load_config(path, set_ or []).to_dict()
    if json:
        console.show_json("config", {"config": tables})
    else:
        console.say(toml.to_toml(tables).rstrip("\n"))


@config.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="standard output")] = None,
    force: Force = False,
) -> None:
    """Print the JSON Schema of config files, with which editors complete and check them."""
    from trajdesign.config.schema import schema as describe
    from trajdesign.learning.run_folder import to_json

    text = to_json(describe())
    if out is None:
        refuse({"--force": force}, "it is for a file; give its --out too.")
        console.say(text)
    else:
        atomic.write_text(out, text + "\n", overwrite=force)
