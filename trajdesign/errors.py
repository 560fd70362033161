"""The errors that end a command with one clear sentence and a fixed exit code."""

import difflib
import signal


class TrajdesignError(Exception):
    """Base of every error with a sentence for the user; `exit_code` is the command's exit status."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the sentence, without the middle of what it quotes at length."""
        sentence = super().__str__()
        return sentence if len(sentence) <= 1000 else f"{sentence[:600]} ... {sentence[-300:]}"


class ConfigError(TrajdesignError):
    """A setting, option or plug-in name that cannot be used."""

    exit_code = 2


class InputError(TrajdesignError):
    """An input file that is missing, damaged or not what it claims to be."""

    exit_code = 3

    def __str__(self) -> str:
        """Return the sentence, without what would move a terminal's cursor: it may quote the file."""
        return "".join(character if character.isprintable() else "?" for character in super().__str__())


class LimitError(TrajdesignError):
    """A waveform that breaks a hardware limit, a raster or finiteness."""

    exit_code = 4


class OutputError(TrajdesignError):
    """An output that exists already or is being written by another process."""

    exit_code = 5


class ResourceError(TrajdesignError):
    """A device, memory, disk space or optional package that is missing."""

    exit_code = 6


class DivergedError(TrajdesignError):
    """A training run or solver that left the finite numbers."""

    exit_code = 7


class Interrupted(SystemExit):
    """A signal ends the command, with exit status 128 + its number, as a shell reports one that it has killed.

    Parameters
    ----------
    number
        Of the signal.
    where
        What was done and is kept.
    """

    def __init__(self, number: int, where: str = "") -> None:
        super().__init__(128 + number)
        self.number = number
        self.sentence = f"ended by {signal.Signals(number).name}{where}."


#: What torch says, in errors of no type of their own, on a processor and on a GPU.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


def known(error: Exception) -> TrajdesignError | None:
    """Return an error that has a sentence for the user, ours or the machine's, as one of ours; None for a bug."""
    if isinstance(error, TrajdesignError):
        return error
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" {error.filename}"
        return ResourceError(f"cannot use{where}: {error.strerror or error}.")
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return ResourceError("out of memory; take a smaller batch, matrix or number of coils.")
    return None


def missing(what: str, package: str, extra: str) -> ResourceError:
    """Return the error that a package of an extra is not installed, with what installs it."""
    return ResourceError(f"{what} needs {package}, which is not installed: {installing(extra)} in the clone.")


def installing(extra: str) -> str:
    """Return the command that installs an extra: from the clone, because the package is on no index."""
    return f'pip install -e ".[{extra}]"'


def nearest(word: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown word: the nearest known one, and all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(known) or 'none'}."
