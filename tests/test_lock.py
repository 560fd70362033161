"""What CI installs, by its hashes, is what the package asks for."""

import re
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("dev", "test", "docs", "dicom", "mrd", "mrinufft")


def test_the_lock_holds_what_the_package_asks_for_in_a_version_that_it_allows():
    lock = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, flags=re.MULTILINE))
    file = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = file["project"]["optional-dependencies"]
    asked = [*file["project"]["dependencies"], *file["build-system"]["requires"], *chain(*map(extras.get, EXTRAS))]
    wanted = [requirement for requirement in map(Requirement, asked) if requirement.name != "trajdesign"]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
    # each with the hash of a file
    assert len(re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock)) == len(locked)
