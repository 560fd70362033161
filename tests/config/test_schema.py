"""The schema for editors agrees with the program about which files are right."""

import tomllib
from pathlib import Path

import jsonschema
import pytest

from trajdesign.config import plugins
from trajdesign.config.models import from_tables, load_config
from trajdesign.config.schema import schema
from trajdesign.config.template import template
from trajdesign.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def valid():
    jsonschema.Draft7Validator.check_schema(schema())
    validator = jsonschema.Draft7Validator(schema())
    return validator.is_valid


def test_the_examples_are_valid(valid):
    runs, studies = 0, 0
    for path in EXAMPLES.glob("*.toml"):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        if "grid" in tables or "base" in tables or "classic" in tables:
            studies += 1
            assert valid(tables.get("base", {})), path
        else:
            runs += 1
            assert valid(tables), path
    assert runs > 0
    assert studies > 0


def test_the_default_and_the_file_to_start_from_are_valid(valid):
    assert valid({})
    assert valid(load_config().to_dict())
    assert valid(tomllib.loads(template()))
    for kind in ("init", "parameterization", "reconstructor", "data"):
        for name in plugins.names(kind):
            if not plugins.required_options(kind, name):
                assert valid(load_config(None, [f"{kind}.kind={name}"]).to_dict()), name


GOOD = [
    {"scanner": {"profile": "ge", "max_slew": 150}},
    {"scanner": {"profile": "site.toml"}},
    {"init": {"angle": "golden"}},
    {"init": {"kind": "file", "path": "a.npz"}},
    {"init": {"kind": "spiral", "turns": 3}},
    {"init": {"kind": "mine.rings:rings", "width": 3}},
    {"start": {"wave": 0.4}, "init": {"kind": "cartesian"}},
    {"start": {"kind": "epi"}},
    {"start": [{"kind": "epi"}, {"kind": "spiral", "density": 2.0}]},
    {"response": {"kind": "eddy_currents", "amplitudes": [0.1], "time_constants": [0.1]}},
    {"limits": {"constraints": ["slew", "stimulation"], "options": {"stimulation": {"model": "xrm", "weight": 3}}}},
    {"perturbation": {}},
    {"perturbation": {"delay": {}, "lost_shot": {"shot": 2}, "mine:bumped": {"by": 3}}},
    {"training": {"normal": "toeplitz"}},
]
BAD = [
    {"trainning": {}},
    {"seed": -1},
    {"seed": "a"},
    {"scanner": {"profile": "gee"}},
    {"scanner": {"nucleus": "4He"}},
    {"scanner": {"max_gradiant": 0.04}},
    {"acquisition": {"matrix": [128.5, 128]}},
    {"init": {"kind": "radail"}},
    {"init": {"kind": "radial", "turns": 3.0}},
    {"init": {"angle": "square"}},
    {"init": {"kind": "file"}},
    {"init": "radial"},
    {"start": [{"kind": "spirl"}]},
    {"response": {"kind": "eddy_currents"}},
    {"reconstructor": {"kind": "unet", "channels": "many"}},
    {"limits": {"constraints": ["slow"]}},
    {"limits": {"constraints": "slew"}},
    {"limits": {"options": {"slew": {"wait": 1}}}},
    {"perturbation": {"delay": {"spred": 1e-6}}},
    {"perturbation": {"girf": {}}},
    {"perturbation": {"gain": 0.02}},
    {"training": {"epochs": 0}},
    {"training": {"workers": 1000}},
    {"training": {"precision": "float16"}},
]


@pytest.mark.parametrize("tables", GOOD)
def test_what_the_program_takes_is_valid(valid, tables):
    if "mine" not in str(tables) and "site" not in str(tables):
        from_tables(tables)
    assert valid(tables)


@pytest.mark.parametrize("tables", BAD)
def test_what_the_program_refuses_is_not(valid, tables):
    with pytest.raises(ConfigError):
        from_tables(tables)
    assert not valid(tables)


def test_every_key_is_explained():
    properties = schema()["properties"]
    assert properties["acquisition"]["properties"]["dwell"]["description"] == "Time between ADC samples, s."
    [spiral] = [table for table in properties["init"]["anyOf"] if table["title"] == "spiral"]
    assert "Archimedean" in spiral["properties"]["density"]["description"]
