"""Configs and overrides that cannot be: each is refused in one sentence that names the key and the nearest one."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.errors import ConfigError, InputError


def flat(tables, prefix=""):
    """Return the dotted keys of tables, with their values."""
    found = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


DEFAULTS = flat(load_config().to_dict())
KEYS = sorted(DEFAULTS)
LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")


@st.composite
def typos(draw):
    """Return a key with one slip in its last part, and the key."""
    key = draw(st.sampled_from([key for key in KEYS if len(key.rpartition(".")[2]) > 3]))
    head, dot, word = key.rpartition(".")
    at = draw(st.integers(0, len(word) - 2))
    slip = draw(st.sampled_from(["drop", "double", "swap", "replace", "add"]))
    wrong = {
        "drop": word[:at] + word[at + 1 :],
        "double": word[: at + 1] + word[at:],
        "swap": word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        "replace": word[:at] + draw(LETTERS) + word[at + 1 :],
        "add": word[:at] + draw(LETTERS) + word[at:],
    }[slip]
    return head + dot + wrong, key


def one_sentence(error):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 1500
    assert text.endswith((".", "'", "]"))
    return text


def check_typo(case):
    wrong, key = case
    siblings = {k.rpartition(".")[2] for k in KEYS if k.rpartition(".")[0] == key.rpartition(".")[0]}
    word = wrong.rpartition(".")[2]
    if word in siblings or wrong in ("limits.options", "init.kind"):
        return
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"{wrong}=1"])
    text = one_sentence(caught.value)
    assert wrong in text
    nearest = re.search(r"did you mean '(\w+)'", text)
    assert nearest is not None, text
    # the nearest one may be another key that is as near, as 'val' to both 'train' and 'test' is not
    assert nearest[1] in siblings | {"options", "start", "response"}


WORDS = """nan inf -inf 1e400 -1e400 [] {} [[]] {a={}} '' " [1, 1e-3 '1e-3' 0x1F 1_000 1979-05-27 1979-05-27T07:32:00Z
 None true [nan,0.2] [0.22,0.22,0.22] [1e300,1e300] [-1,32] os:system math:pi builtins:eval builtins:max :"""
WILD = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=30),
    st.booleans(),
    st.sampled_from([*WORDS.split(), "9" * 5000, "[" * 5000, "1\nseed = 2", "\x00", "\ud800"]),
)
OTHERS = ["start.kind", "response.kind", "limits.options.slew.weight", "scanner.profile"]
VALUES = st.lists(st.tuples(st.sampled_from([*KEYS, *OTHERS]), WILD), min_size=1, max_size=3)


def check_value(case):
    overrides = [f"{key}={value}" for key, value in case]
    try:
        found = load_config(None, overrides)
    except (ConfigError, InputError) as error:
        one_sentence(error)
        return
    again = load_config(None, [])
    assert type(found) is type(again)
    for value in flat(found.to_dict()).values():
        assert not isinstance(value, float) or math.isfinite(value), "a number that is not finite got through"


def volume(strategy, check, n):
    @settings(max_examples=n, deadline=None, derandomize=True, database=None)
    @given(strategy)
    def run(case):
        check(case)

    run()


@pytest.mark.parametrize("n", [250, pytest.param(2500, marks=pytest.mark.nightly)])
def test_a_slip_names_the_key_and_the_nearest(n):
    volume(typos(), check_typo, n)


@pytest.mark.parametrize("n", [250, pytest.param(2500, marks=pytest.mark.nightly)])
def test_any_value_is_taken_or_refused_in_one_sentence(n):
    volume(VALUES, check_value, n)


@pytest.mark.parametrize(
    "kind", [k for k in plugins.KINDS if k not in ("constraint", "exporter", "sequence", "perturbation")]
)
def test_a_slip_in_an_option_of_any_plugin(kind):
    for name in plugins.names(kind):
        model = plugins.options(plugins.find(kind, name))
        for option in model.model_fields:
            wrong = option + option[-1]
            with pytest.raises(ConfigError) as caught:
                load_config(None, [f"{kind}.kind={name}", f"{kind}.{wrong}=1"])
            assert f"{kind}.{wrong}" in one_sentence(caught.value)
            assert option in str(caught.value)


FILES = {
    "latin-1": ('name = "Kopf, früh"'.encode("latin-1"), 3, "no valid TOML"),
    "utf-16": ('name = "a"'.encode("utf-16"), 3, "no valid TOML"),
    "nothing but zeros": (bytes(5000), 3, "no valid TOML"),
    "the same key twice": (b"seed = 1\nseed = 2\n", 3, "no valid TOML"),
    "the same table twice": (b"[init]\n[init]\n", 3, "no valid TOML"),
    "nested a hundred thousand deep": (b"a = " + b"[" * 100_000, 3, "no valid TOML"),
    "tables nested deep": (b"a." * 3000 + b"b = 1", 3, "more than 32 parts"),
    "more digits than Python reads": (b"seed = " + b"9" * 5000, 3, "no valid TOML"),
    "ten megabytes": (b"a = 1\n" * 1_700_000, 3, "at most"),
    "an npz file": (b"PK\x03\x04" + bytes(100), 3, "no valid TOML"),
    "a run's own json": (b'{"name": "radial"}', 3, "no valid TOML"),
    "a number that is none": (b"[training]\nnoise = nan", 2, "training.noise"),
    "a number without end": (b"[training]\nnetwork_rate = 1e400", 2, "training.network_rate"),
    "no such table": (b"[trainig]\nepochs = 3", 2, "did you mean 'training'"),
    "a table for a number": (b"[seed]\na = 1", 2, "config seed"),
    "a number for a table": (b"limits = 1", 2, "config limits"),
    "a list of tables": (b"[[init]]\nkind = 'radial'", 2, "config init"),
    "code as a plug-in": (b"[init]\nkind = 'os:nothing_such'", 2, "cannot be imported"),
    "what is no plug-in": (b"[init]\nkind = 'math:pi'", 2, "math:pi"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be(tmp_path, name):
    content, code, words = FILES[name]
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises((ConfigError, InputError)) as caught:
        load_config(path)
    assert caught.value.exit_code == code
    assert words in one_sentence(caught.value)


def test_files_from_other_systems_load(tmp_path):
    path = tmp_path / "config.toml"
    wanted = load_config(None, ["seed=3", "name=ü"])
    for content in ("\ufeffseed = 3\nname = 'ü'\n", "seed = 3\r\nname = 'ü'\r\n", "seed = 3\nname = 'ü'"):
        path.write_bytes(content.encode())
        assert load_config(path) == wanted


def test_a_config_that_never_ends_is_not_read():
    with pytest.raises(InputError, match="not a regular file"):
        load_config("/dev/zero")


def test_one_override_sets_one_key():
    with pytest.raises(ConfigError, match="seed"):
        load_config(None, ["seed=1\nname = 'b'"])
