"""Options that belong together, as one parameter of a command."""

import inspect
from dataclasses import dataclass

import pytest

from trajdesign.cli.commands._options import Options, grouped
from trajdesign.errors import ConfigError


@dataclass(frozen=True)
class Pair(Options):
    size: int | None = None
    k_unit: list[str] | None = None


def test_a_command_has_the_options_of_its_groups_where_the_group_stood():
    seen = []

    @grouped
    def command(path: str, *, pair: Pair, quiet: bool = False) -> None:
        """Say something."""
        seen.append((path, pair, quiet))

    assert list(inspect.signature(command).parameters) == ["path", "size", "k_unit", "quiet"]
    assert (command.__name__, command.__doc__) == ("command", "Say something.")
    command(path="x", size=2, k_unit=["u", "v"], quiet=True)
    assert seen == [("x", Pair(2, ["u", "v"]), True)]


def test_options_are_said_and_refused_as_they_are_typed():
    assert Pair(2, ["u", "v"]).words() == ["--size", "2", "--k-unit", "u", "--k-unit", "v"]
    assert Pair().words() == []
    Pair().refuse("no.")
    with pytest.raises(ConfigError, match=r"^--size, --k-unit: no\.$"):
        Pair(2, ["u", "v"]).refuse("no.")
