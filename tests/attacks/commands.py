"""The command line inside this process."""

import contextlib
import io
import sys

from trajdesign.cli import app


def command(*words):
    """Return the exit code and what a command wrote to stdout and stderr."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["trajdesign", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def require_one_line(error, codes=(3,)):
    """The error is one that has a sentence for the user."""
    assert error.exit_code in codes
    assert str(error).isprintable()
    assert len(str(error)) < 1100


def require_sentence(code, out, err, codes=(3,)):
    """A refusal is an exit code and one sentence, and nothing else."""
    assert code in codes, err
    assert out == ""
    assert err.startswith("trajdesign: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err[:-1].isprintable()
