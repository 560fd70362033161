"""What CI installs, by its hashes, is what the package asks for."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def asked(words):
    """Yield requirements, and in place of the package's own extras what they ask for."""
    for requirement in map(Requirement, words):
        if requirement.name == "trajdesign":
            for extra in requirement.extras:
                yield from asked(PROJECT["project"]["optional-dependencies"][extra])
        else:
            yield requirement


def test_the_lock_holds_what_the_package_asks_for_in_a_version_that_it_allows():
    lock = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, flags=re.MULTILINE))
    wanted = list(asked([*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], "trajdesign[dev]"]))
    assert {"torch", "hatchling", "pytest", "pydicom", "sphinx"} <= {requirement.name for requirement in wanted}
    for requirement in wanted:
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
    # each with the hash of a file
    assert len(re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock)) == len(locked)
