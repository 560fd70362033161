"""Which files and slices a split is made of, and whether splits share a patient."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from trajdesign.errors import ConfigError, InputError

Split = Literal["train", "val", "test"]

#: Of each training volume, where there are no files to validate on.
VAL_FRACTION = 0.15


def expand(patterns: Sequence[str], option: str, *, folders: bool = False) -> list[Path]:
    """Return the files that paths and globs name, sorted within each glob, every file once.

    Parameters
    ----------
    patterns
        Paths or globs (``*``, ``?``, ``[..]``, ``**``), relative to the working directory; ``~`` is the home.
    option
        Name of the option they come from, for errors.
    folders
        Whether a folder counts as a file.

    Raises
    ------
    ConfigError
        If `patterns` is one string instead of a list.
    InputError
        If a path does not exist or is no regular file, or a glob matches no file.
    """
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


def files_of_split(splits: dict[str, list[Path]], split: Split, test_fraction: float = 0.0) -> list[Path]:
    """Return the files that a split's images come from: its own, or the training files where it has none.

    Raises
    ------
    ConfigError
        If there are none.
    """
    if split not in splits:
        raise ConfigError(f"split is {split!r}; it is one of {', '.join(splits)}.")
    if splits[split]:
        return splits[split]
    if splits["train"] and (split == "val" or test_fraction > 0):
        return splits["train"]
    remedy = ", or keep a part of the training images by data.test_fraction" if split == "test" else ""
    raise ConfigError(f"no images to {split} on: data.{split} is empty; give it paths or globs{remedy}.")


def slices_of_split(
    slices: Sequence[int],
    split: Split,
    *,
    val_fraction: float,
    test_fraction: float,
    where: Path,
) -> Sequence[int]:
    """Return a split's share of the slices of one training volume.

    Neighbouring slices show nearly the same anatomy, so a random choice of slices would validate on what was
    learned. Validation therefore gets one contiguous block at the end of the volume, test images one at its
    start, and the slice between a block and the training slices is left out.

    Parameters
    ----------
    slices
        All slices, in order of position.
    split
        Which share.
    val_fraction, test_fraction
        Shares, rounded to at least one slice each; 0 leaves the block out.
    where
        The file, for errors.

    Raises
    ------
    ConfigError
        If a fraction is not in [0, 1), the split asked for has a fraction of 0, or too few slices are left.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name} is {fraction}; it must be at least 0 and below 1.")
    n_val, n_test = (
        max(1, round(fraction * len(slices))) if fraction else 0 for fraction in (val_fraction, test_fraction)
    )
    first, last = (n_test + 1 if n_test else 0), len(slices) - (n_val + 1 if n_val else 0)
    if last <= first:
        raise ConfigError(
            f"{where} has {len(slices)} slices, too few to set aside {n_val} for validation and {n_test} for "
            "the test, with a gap of one; give data.val and data.test files of their own."
        )
    validation = slices[len(slices) - n_val :]
    share = {"train": slices[first:last], "val": validation, "test": slices[:n_test]}[split]
    if not share:
        raise ConfigError(f"no images to {split} on: data.{split} is empty and data.{split}_fraction is 0.")
    return share


def refuse_idle(
    splits: dict[str, list[Path]], val_fraction: float, test_fraction: float = 0.0, **others: tuple[bool, str]
) -> None:
    """Refuse options that were set and count for nothing.

    Parameters
    ----------
    splits
        Files of ``train``, ``val`` and ``test``.
    val_fraction, test_fraction
        Which count where there are no such files; the default and 0 say nothing.
    others
        Of other options, whether each was set, and why it counts for nothing, empty if it does count.

    Raises
    ------
    ConfigError
        With the option.
    """
    found = {
        "val_fraction": (val_fraction not in (0, VAL_FRACTION), "data.val has files" if splits["val"] else ""),
        "test_fraction": (test_fraction != 0, "data.test has files" if splits["test"] else ""),
        **others,
    }
    for name, (is_set, reason) in found.items():
        if is_set and reason:
            raise ConfigError(f"data.{name} counts for nothing, because {reason}; leave one of them out.")


def refuse_leaks(splits: dict[str, list[Path]], people: Callable[[Path], dict[str, str]]) -> None:
    """Refuse splits that share a file, and test data of a patient who is in the other splits too.

    Copies of images are told by `trajdesign.data.copies`, when all of them are looked at.

    Parameters
    ----------
    splits
        Files of ``train``, ``val`` and ``test``.
    people
        Returns who is in a file, see `trajdesign.data.identity.people`.

    Raises
    ------
    ConfigError
        Naming the file or patient, and both splits.
    """
    owner: dict[Path, str] = {}
    for split, files in splits.items():
        for path in files:
            other = owner.setdefault(path.resolve(), split)
            if other != split:
                raise ConfigError(f"{path} is in data.{other} and in data.{split}; it can be in one only.")
    seen = {key: path for path in splits["test"] for key in people(path)}
    for split in ("train", "val") if seen else ():
        for path in splits[split]:
            names = people(path)
            for key in sorted(names.keys() & seen.keys()):
                raise ConfigError(
                    f"patient {names[key]!r} is in data.test ({seen[key]}) and in data.{split} ({path}): the test "
                    "would flatter; split by patient, or, if that names no patient, set data.patient_pattern."
                )


def origin(files: Sequence[Path], people: Callable[[Path], dict[str, str]]) -> str:
    """Return of how many people the images in files are, or of how many files where one does not tell its patient."""
    found: list[set[str]] = []
    for path in files:
        names = set(people(path))
        if not names:
            return f"{len(files)} file{'s' if len(files) != 1 else ''}"
        same = [others for others in found if others & names]
        found = [others for others in found if not others & names] + [names.union(*same)]
    return f"{len(found)} people" if len(found) != 1 else "1 person"
