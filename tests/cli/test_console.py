"""What commands print, on a terminal and elsewhere."""

import json
import re

import pytest

from trajdesign.cli import console
from trajdesign.interfaces import Progress

HEADINGS = ("limit", "worst", "")
ROWS = [("slew", "199.5", "ok"), ("a very long name " + "x" * 150, "7", "BROKEN")]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_without_a_terminal_a_row_is_a_line_and_nothing_is_cut(capsys):
    console.show("title", HEADINGS, ROWS, left=("limit", ""))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "title"
    assert [line.split() for line in lines] == [["limit", "worst"], *(" ".join(row).split() for row in ROWS)]
    assert lines[1].index("199.5") + 5 == lines[2].index("7") + 1 == lines[0].index("worst") + 5, "right justified"
    assert all(line == line.rstrip() for line in lines)


def test_on_a_terminal_a_table_fits_it(capsys, terminal):
    console.show("title", HEADINGS, ROWS, left=("limit", ""))
    printed = capsys.readouterr().out
    assert "\x1b[" in printed
    assert "┃" in printed


def test_no_color(capsys, terminal, monkeypatch):
    colour = re.compile(r"\x1b\[([\d;]+;)?[349]\d[;m]")
    for setting, found in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", setting)
        console.show("title", HEADINGS, ROWS)
        with console.steps(quiet=False) as watch:
            watch(Progress("fixed", 3, 6, 0.1, 20.0))
        assert bool(colour.search("".join(capsys.readouterr()))) is found


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_name_reaches_the_terminal_as_a_command(capsys, request, is_terminal):
    if is_terminal:
        request.getfixturevalue("terminal")
    evil = "a\x1b]0;owned\x07\x9b2J\r\nb\u202e"
    console.show(evil, HEADINGS, [(evil, evil, evil)])
    console.say(evil)
    console.note(evil)
    printed = "".join(capsys.readouterr())
    for character in "\x07\x9b\r\u202e":
        assert character not in printed
    assert "\x1b]" not in printed
    assert "\\x1b]0;owned\\x07" in printed.replace("\n", "").replace("│", "").replace(" ", "")


def test_what_is_printable_stays():
    for text in ("", "brain, radial", "ü 脳 <script> [bold] $x$", "a\\b"):
        assert console.printable(text) == text
    assert console.printable("a\nb\tc\udcff") == "a\\nb\\tc\\udcff"


def test_a_document_names_its_schema(capsys):
    console.show_json("check", {"ok": True, "value": float("nan"), "name": "ü\x1b"})
    document = json.loads(capsys.readouterr().out)
    assert document == {"schema": "trajdesign.check/1", "schema_version": 1, "ok": True, "value": None, "name": "ü\x1b"}


def test_the_next_command_can_be_pasted(capsys):
    console.suggest(("check", "a b"), ("export", "$x'y"))
    assert capsys.readouterr().out == "\nNext:\n  trajdesign check 'a b'\n  trajdesign export '$x'\"'\"'y'\n"


def test_a_test_shows_a_bar_on_a_terminal_alone(capsys, request):
    for is_terminal in (False, True):
        if is_terminal:
            request.getfixturevalue("terminal")
        for quiet in (False, True):
            with console.images(quiet=quiet) as watch:
                watch("fixed", 3, 3)
                watch("learned", 2, 3)
            printed = capsys.readouterr()
            assert printed.out == ""
            assert ("2/3" in printed.err and "learned" in printed.err) is (is_terminal and not quiet)


def test_every_validation_is_a_line_if_it_is_verbose(capsys):
    for verbose, n_lines in ((False, 1), (True, 3)):
        with console.steps(quiet=False, verbose=verbose) as watch:
            for step, psnr in enumerate((float("nan"), 20.0, 20.0, 21.0, 21.0, 21.0), start=1):
                watch(Progress("learned", step, 6, 0.1, psnr, step in (2, 4)))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == n_lines
        assert lines[-1].startswith("learned 6/6 loss 0.1000  val 21.00 dB")


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(capsys, terminal, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    with console.steps(quiet=False) as watch:
        watch(Progress("fixed", 6, 6, 0.1, 20.0))
    assert capsys.readouterr().err == "fixed 6/6 loss 0.1000  val 20.00 dB\n"
