"""``trajdesign check FILE.seq`` ends with what a console minds; that list changes no verdict."""

import json

import pypulseq as pp
import pytest
from typer.testing import CliRunner

from trajdesign.cli import app
from trajdesign.config import models
from trajdesign.scanner import Interpreter

MARKS = {"ok", "look", "unknown"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file whose one trapezoid has 96 % of the slew rate of the default scanner, 200 T/m/s."""
    system = pp.Opts(max_grad=50, grad_unit="mT/m", max_slew=200, slew_unit="T/m/s", adc_dead_time=10e-6)
    sequence = pp.Sequence(system)
    gx = pp.make_trapezoid("x", amplitude=192 * 1e-4 * system.gamma, rise_time=1e-4, flat_time=1e-3, system=system)
    sequence.add_block(gx, pp.make_adc(100, dwell=10e-6, delay=100e-6, system=system))
    sequence.set_definition("FOV", [0.1, 0.1, 5e-3])
    path = tmp_path_factory.mktemp("preflight") / "x.seq"
    sequence.write(str(path), check_timing=False)
    return path


def run(*words):
    result = CliRunner().invoke(app.app, ["check", *map(str, words)])
    return result.exit_code, result.stdout


def items(*words):
    code, out = run(*words, "--json")
    return code, {item["name"]: item for item in json.loads(out)["preflight"]}


def test_a_remark_is_shown_and_breaks_nothing(written):
    code, found = items(written)
    assert code == 0
    assert {item["mark"] for item in found.values()} == MARKS
    assert all(set(item) == {"name", "value", "unit", "limit", "mark", "note"} for item in found.values())
    slew = found["largest slew rate"]
    assert (slew["limit"], slew["mark"], slew["note"]) == (200, "look", "margin 4.0% (x)")
    assert slew["value"] == pytest.approx(192, rel=1e-4)
    assert found["file size"]["value"] == written.stat().st_size
    assert found["TE"]["value"] is None
    code, out = run(written)
    table = out.split("What a console minds")[1]
    assert (code, out.index("No rules broken") < out.index("What a console minds")) == (0, True)
    assert all(name in table for name in found)
    n_look = sum(item["mark"] == "look" for item in found.values())
    assert f"{n_look} to look at before the scan" in table
    assert run(written, "-q") == (0, "")


def test_the_list_is_of_the_scanner_that_is_given(written, tmp_path):
    assert items(written)[1]["file size"]["limit"] == 40e6
    for words in (["--profile", "philips"], ["--scanner", "profile=philips"]):
        _, found = items(written, *words)
        assert (found["file size"]["limit"], found["file size"]["mark"]) == (None, "unknown")
    code, found = items(written, "--profile", "ge")
    assert code == 4, "the gradient raster is not GE's"
    assert found["distinct segments (TRID)"]["mark"] == "look"
    assert found["blocks"]["limit"] == 40_000
    site = tmp_path / "site.toml"
    site.write_text('profile = "siemens"\nmax_slew = 400.0\n[interpreter]\nslow_bytes = 100\n')
    code, found = items(written, "--profile", site)
    assert (code, found["file size"]["limit"], found["file size"]["mark"]) == (0, 100, "look")
    assert found["largest slew rate"]["mark"] == "ok"
    assert found["excitations"]["limit"] == 140_000, "what the site does not say is siemens'"


def test_a_profile_says_what_its_interpreter_takes(tmp_path):
    siemens, ge, multi = (models.interpreter(name) for name in ("siemens", "ge", "multi"))
    assert models.interpreter() == siemens
    assert models.interpreter("philips") == Interpreter(), "nothing is public"
    assert multi == Interpreter(siemens.slow_bytes, siemens.most_excitations, ge.watched_blocks, ge.segment_gap)
    own = tmp_path / "own.toml"
    own.write_text("max_slew = 100.0\n")
    assert models.interpreter(str(own)) == Interpreter(), "a file that builds on no profile"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[interpreter]\nslow_byte = 1",
            "unknown key 'slow_byte' of the table [interpreter]; did you mean 'slow_bytes'",
        ),
        ("[interpreter]\nslow_bytes = -1", "slow_bytes of an interpreter is -1; it is a positive number"),
        ("interpreter = 3", "unknown key 'interpreter' of the table [interpreter]"),
    ],
)
def test_a_wrong_table_is_refused_in_a_sentence(written, tmp_path, text, sentence):
    site = tmp_path / "site.toml"
    site.write_text(text)
    result = CliRunner().invoke(app.app, ["check", str(written), "--profile", str(site)])
    assert result.exit_code != 0
    assert sentence in str(result.exception) + result.output
