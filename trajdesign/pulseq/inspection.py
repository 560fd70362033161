"""A whole Pulseq file, read once and held against every rule: what `trajdesign check` tells of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajdesign.physics import resonances
from trajdesign.physics.nerves import NORMAL_MODE, nerve_model
from trajdesign.physics.resonances import Band, Exposure
from trajdesign.pulseq import file_rules
from trajdesign.pulseq.preflight import Item, preflight
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.side_effects import expose
from trajdesign.scanner import Finding, Interpreter, Nucleus, Scanner, with_nucleus


@dataclass(frozen=True)
class Inspection:
    """What was found of a file.

    Parameters
    ----------
    scanner
        What it was checked for, of the nucleus that is `told`, as `SeqFile.nucleus` has it.
    exposure, bands
        What it does to nerves and to the coil, and where the coil rings.
    checks, preflight
        Every rule, and what a console minds beside them.
    """

    scanner: Scanner
    told: Nucleus
    exposure: Exposure
    bands: list[Band]
    checks: list[Finding]
    preflight: list[Item]

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not any(check.verdict == "broken" for check in self.checks)


def inspected(
    path: Path,
    settings: Mapping[str, Any],
    interpreter: Interpreter,
    *,
    nerves: str | None = None,
    nerve_limit: float | None = None,
    bands: str | None = None,
    band_limit: float | None = None,
) -> Inspection:
    """Check a whole file.

    Parameters
    ----------
    path
        The file.
    settings, interpreter
        What is given of the `Scanner`, and of the program that plays the file on it.
    nerves, nerve_limit
        Name of the coil's model, see `trajdesign.physics.nerves.nerve_model`, and the part of its limit that is
        allowed; without a name one of another coil warns alone.
    bands, band_limit
        Where the coil rings, see `trajdesign.physics.resonances.parse_bands`, and the amplitude allowed there, T/m.

    Raises
    ------
    InputError
        If a file cannot be read.
    ConfigError
        If an option makes no sense, or the file is for another nucleus than is given.
    """
    ringing = [] if bands is None else resonances.parse_bands(bands)
    model = nerve_model(nerves or "whole")
    file = player.read(path, signed=False)
    told = file.nucleus(path)
    scanner = Scanner(**with_nucleus(settings, told, path))
    exposure = expose(
        file,
        scanner,
        model,
        nerve_limit=NORMAL_MODE if nerve_limit is None else nerve_limit,
        is_own_coil=nerves is not None,
        bands=ringing,
        band_limit=math.inf if band_limit is None else band_limit,
    )
    checks = [*file_rules.inspect(file, scanner), *exposure.checks]
    return Inspection(scanner, told, exposure, ringing, checks, preflight(file, checks, scanner, interpreter))
