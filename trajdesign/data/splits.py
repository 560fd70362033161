"""Which files and slices a split is made of, and whether splits share a patient."""

import glob
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from trajdesign.data.hdf5 import sandbox
from trajdesign.data.identity import people
from trajdesign.errors import ConfigError, InputError

Split = Literal["train", "val", "test"]

#: This part of each training volume is validated on where there are no files for that.
VAL_FRACTION = 0.15


class Splits:
    """The files of each split, of which none is in two, and no test patient in the others.

    Parameters
    ----------
    train, val, test
        Paths or globs (``*``, ``?``, ``[..]``, ``**``), relative to the working directory; ``~`` is the home.
    val_fraction, test_fraction
        The parts of each training volume to validate and test on, where there are no files for that.
    patient_pattern
        Regular expression that finds the patient in a path, see `trajdesign.data.identity.named`.
    dataset, is_hdf5
        The dataset of an HDF5 file that is to be read, empty for any; and whether a file is read as HDF5.
    folders
        Whether a folder counts as a file.

    Raises
    ------
    ConfigError
        If a fraction is not in [0, 1) or counts for nothing, or splits share a file or a patient of the test; by the
        methods, if a split has no images.
    InputError
        If a path does not exist or is no regular file, a glob matches no file, or an HDF5 file is damaged.
    """

    def __init__(
        self,
        train: Sequence[str],
        val: Sequence[str],
        test: Sequence[str],
        val_fraction: float,
        test_fraction: float,
        patient_pattern: str,
        *,
        dataset: str,
        is_hdf5: Callable[[Path], bool],
        folders: bool = False,
    ) -> None:
        given = {"train": train, "val": val, "test": test}
        self.files = {name: expand(patterns, name, folders=folders) for name, patterns in given.items()}
        self.every = [path for paths in self.files.values() for path in paths]
        self.fractions: dict[str, float] = {}
        for name, fraction, usual in (("val", val_fraction, VAL_FRACTION), ("test", test_fraction, 0.0)):
            has_files = bool(self.files[name])
            refuse_idle(**{f"{name}_fraction": (fraction not in (0, usual), f"data.{name} has files" * has_files)})
            if not 0 <= fraction < 1:
                raise ConfigError(f"data.{name}_fraction is {fraction}; it must be at least 0 and below 1.")
            self.fractions[name] = 0.0 if has_files else fraction
        self._people = partial(people, pattern=patient_pattern)
        sandbox.require_sound([path for path in self.every if is_hdf5(path)], dataset)
        refuse_leaks(self.files, dict.fromkeys(self.files, patient_pattern))

    def of(self, split: Split) -> list[Path]:
        """Return the files that a split's images come from: its own, or the training files where it has none."""
        if split not in self.files:
            raise ConfigError(f"split is {split!r}; it is one of {', '.join(self.files)}.")
        if self.files[split]:
            return self.files[split]
        if self.files["train"] and (split == "val" or self.fractions["test"] > 0):
            return self.files["train"]
        remedy = ", or keep a part of the training images by data.test_fraction" if split == "test" else ""
        raise ConfigError(f"no images to {split} on: data.{split} is empty; give it paths or globs{remedy}.")

    def share(self, slices: Sequence[int], split: Split, where: Path) -> Sequence[int]:
        """Return a split's share of the slices of one volume of its files, in order of position.

        Neighbouring slices show nearly the same anatomy, so a random choice of slices would validate on what was
        learned. Validation therefore gets one contiguous block at the end of a training volume, the test one at its
        start, and the slice between a block and the training slices is left out.
        """
        if self.files[split] and split != "train":
            return slices
        n_val, n_test = (max(1, round(part * len(slices))) if part else 0 for part in self.fractions.values())
        first, last = (n_test + 1 if n_test else 0), len(slices) - (n_val + 1 if n_val else 0)
        if last <= first:
            raise ConfigError(
                f"{where} has {len(slices)} slices, too few to set aside {n_val} for validation and {n_test} for "
                "the test, with a gap of one; give data.val and data.test files of their own."
            )
        share = {"train": slices[first:last], "val": slices[len(slices) - n_val :], "test": slices[:n_test]}[split]
        if not share:
            raise ConfigError(f"no images to {split} on: data.{split} is empty and data.{split}_fraction is 0.")
        return share

    def people(self, split: Split) -> dict[Path, int] | None:
        """Return a number for the person of each file of a split, from 0; None where one does not tell its patient."""
        names = {path: set(self._people(path)) for path in self.of(split)}
        found: list[set[str]] = []
        for one in names.values():
            if not one:
                return None
            same = [others for others in found if others & one]
            found = [others for others in found if not others & one] + [one.union(*same)]
        return {path: next(n for n, every in enumerate(found) if one <= every) for path, one in names.items()}

    def origin(self, split: Split, people: Mapping[Path, int] | None) -> str:
        """Return of how many `people` a split's images are, or of how many files where these are not known."""
        if people is None:
            n_files = len(self.of(split))
            return f"{n_files} file{'s' if n_files != 1 else ''}"
        n_people = len(set(people.values()))
        return f"{n_people} people" if n_people != 1 else "1 person"


def refuse_leaks(files: Mapping[str, Sequence[Path]], patterns: Mapping[str, str]) -> None:
    """Refuse splits that share a file or a test patient; `trajdesign.data.copies` knows copies of images.

    Both are by split; in the files of each its pattern finds the patient: see `trajdesign.data.identity.named`. HDF5
    files must have been found sound.

    Raises
    ------
    ConfigError
        If a file is in two splits, or a patient of the test in another one.
    """
    owner: dict[Path, str] = {}
    for split, paths in files.items():
        for path in paths:
            other = owner.setdefault(path.resolve(), split)
            if other != split:
                raise ConfigError(f"{path} is in data.{other} and in data.{split}; it can be in one only.")
    seen = {key: path for path in files["test"] for key in people(path, patterns["test"])}
    for split in ("train", "val") if seen else ():
        for path in files[split]:
            names = people(path, patterns[split])
            for key in sorted(names.keys() & seen.keys()):
                raise ConfigError(
                    f"patient {names[key]!r} is in data.test ({seen[key]}) and in data.{split} ({path}): the test "
                    "would flatter; split by patient, or, if that names no patient, set data.patient_pattern."
                )


def refuse_idle(**options: tuple[bool, str]) -> None:
    """Refuse an option that was set and counts for nothing, by whether it was, and why; no reason if it does count."""
    for name, (is_set, reason) in options.items():
        if is_set and reason:
            raise ConfigError(f"data.{name} counts for nothing, because {reason}; leave one of them out.")


def expand(patterns: Sequence[str], option: str, *, folders: bool) -> list[Path]:
    """Return the files that paths and globs name, sorted within each glob, every file once; see `Splits`."""
    if isinstance(patterns, str):
        raise ConfigError(f"data.{option} is {patterns!r}; it is a list of paths or globs: [{patterns!r}].")
    files: dict[Path, None] = {}
    for pattern in patterns:
        try:
            path = Path(pattern).expanduser()
            path.exists()
        except RuntimeError:
            raise InputError(f"data.{option}: {pattern!r} names the home of nobody who is known here.") from None
        except OSError as error:  # as too long a name
            raise InputError(f"data.{option}: {pattern} cannot be read: {error.strerror or error}.") from None
        if path.exists() and not path.is_file() and not (folders and path.is_dir()):
            raise InputError(f"data.{option}: {path} is not a regular file; name files or a glob.")
        # not Path.glob: it takes no absolute pattern, and finds hidden files
        found = [path] if path.exists() else map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
        matches = [match for match in found if match.is_file() or (folders and match.is_dir())]
        if not matches:
            raise InputError(f"data.{option}: {pattern!r} names no file (looked from {Path.cwd()}).")
        files.update(dict.fromkeys(matches))
    return list(files)
