"""Commands whose standard streams are closed, full or not read, for one import: ``python streams.py FILE FOLDER``.

It prints as JSON, for each case, the exit status and what came out on standard error.
"""

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from trajdesign.cli import app


def forked(words, streams, log):
    """Run a command in a child whose streams 0, 1 and 2 are replaced; those that are None are closed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    for number, path in ({1: os.devnull} | streams).items():
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        if path is not None:
            opened = os.open(path, os.O_RDWR if number else os.O_RDONLY) if isinstance(path, str) else os.dup(path)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            if number:
                name = "stdout" if number == 1 else "stderr"
                setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    if 2 not in streams:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["trajdesign", *words]
    try:
        app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}\n".encode())
    # as Python ends: what cannot be flushed now is told with the exit status 120
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.write(2, f"Exception ignored: {error!r}\n".encode())
            code = 120
    os._exit(code)


def unread():
    """Return a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def main(file, folder):
    log, found = Path(folder) / "log", {}
    commands = {
        "help": ["--help"], "check": ["check", file], "json": ["check", file, "--json"],
        "wrong": ["check", f"{file}.none"],
    }  # fmt: skip
    for words in commands.values():  # what they import, the children need not
        sys.argv = ["trajdesign", *words]
        with suppress(SystemExit), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            app.main()
    for name, words in commands.items():
        cases = {
            "unread": {1: unread()}, "full": {1: "/dev/full"}, "no output": {1: None}, "no input": {0: None},
            "errors unread": {2: unread()}, "errors full": {2: "/dev/full"}, "no errors": {2: None},
            "both unread": {1: unread(), 2: unread()}, "nothing": {0: None, 1: None, 2: None},
        }  # fmt: skip
        for case, streams in cases.items():
            log.write_text("")
            code = forked(words, streams, log)
            found[f"{name}, {case}"] = [code, log.read_text()]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
