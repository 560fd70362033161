"""The config file to start from: it loads as the default, names everything, and any part of it can be taken."""

import re
import tomllib

import pytest

from trajdesign.config import plugins
from trajdesign.config.models import Config, from_tables, load_config
from trajdesign.config.template import template

TEXT = template()


def test_it_loads_as_the_default():
    assert from_tables(tomllib.loads(TEXT)) == load_config()


def test_it_names_every_key_and_every_plugin():
    for key, field in Config.model_fields.items():
        assert re.search(rf"^#?(\[{key}[].]|{key} = )", TEXT, flags=re.MULTILINE), key
        for inner in getattr(type(field.default), "model_fields", {}):
            assert re.search(rf"^#?(\[{key}\.{inner}\.|{inner} = )", TEXT, flags=re.MULTILINE), inner
    for kind in ("init", "parameterization", "reconstructor", "data", "response"):
        for name in plugins.names(kind):
            assert f'kind = "{name}"' in TEXT
    for name in plugins.names("constraint"):
        assert f"#[limits.options.{name}]" in TEXT
    for name in plugins.names("perturbation"):
        assert f"#[perturbation.{name}]" in TEXT


def test_lines_are_short_and_plain():
    assert max(map(len, TEXT.splitlines())) < 140
    assert "`" not in TEXT


PLUGINS = [(kind, name) for kind in ("init", "reconstructor", "data") for name in plugins.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_that_is_taken_in_place_of_another_loads(kind, name):
    head = re.compile(rf'^#?\[{kind}\]\n#?kind = "{name}"', flags=re.MULTILINE)
    [block] = [block for block in TEXT.split("\n\n") if head.search(block)]
    taken = re.sub(r"^#(?=[\[a-z])", "", block, flags=re.MULTILINE)
    taken = re.sub(r"^path =", "path = 'some.npz'", taken, flags=re.MULTILINE)
    taken = re.sub(r"^\w+ =( +#.*)?$", "", taken, flags=re.MULTILINE)  # those without a value
    assert getattr(from_tables(tomllib.loads(taken)), kind)["kind"] == name


def test_a_profile_gives_what_is_commented_out():
    for name in ("ge", "multi"):
        settings = from_tables(tomllib.loads(TEXT.replace('#profile = "siemens"', f'profile = "{name}"')))
        assert settings.scanner == from_tables({"scanner": {"profile": name}}).scanner
    settings = from_tables(tomllib.loads(TEXT.replace('nucleus = "1H"', 'nucleus = "23Na"')))
    assert settings.scanner == from_tables({"scanner": {"nucleus": "23Na"}}).scanner
