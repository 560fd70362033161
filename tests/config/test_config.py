import tomllib

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from trajdesign.config import models, plugins
from trajdesign.config.models import Config, load_config
from trajdesign.config.toml import parse_options
from trajdesign.errors import ConfigError, InputError
from trajdesign.physics import limits
from trajdesign.scanner import Scanner


def written(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_everything_has_a_default():
    settings = load_config()
    assert settings.init["kind"] == "radial"
    assert settings.acquisition.matrix == (128, 128)
    assert settings.scanner.max_gradient == 50e-3
    assert settings.limits.constraints == limits.standard()
    # plug-in tables are resolved: every default is written out
    for kind in ("init", "parameterization", "reconstructor", "data"):
        table = getattr(settings, kind)
        assert table == plugins.resolve(kind, {"kind": table["kind"]})


def test_two_configs_share_nothing():
    first, second = load_config(None, ["init.kind=spiral"]), load_config()
    assert first.init["kind"] == "spiral"
    assert second.init["kind"] == "radial"
    first.init["turns"] = 3.0
    assert "turns" not in Config().init


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sead = 1", ["sead", "did you mean 'seed'"]),
        ("[scaner]\nmax_gradient = 0.04", ["scaner", "did you mean 'scanner'"]),
        ("[scanner]\nmax_gradiant = 0.04", ["scanner.max_gradiant", "did you mean 'max_gradient'"]),
        ("[acquisition]\nn_sample = 100", ["acquisition.n_sample", "did you mean 'n_samples'"]),
        ("[limits]\nmetod = 'penalty'", ["limits.metod", "did you mean 'method'"]),
        ("[training]\nepoch = 3", ["training.epoch", "did you mean 'epochs'"]),
        ("[init]\nkind = 'radail'", ["radail", "did you mean 'radial'"]),
        ("[init]\nkind = 'radial'\nangel = 'golden'", ["init.angel", "did you mean 'angle'"]),
        ("[init]\nangel = 'golden'", ["init.angel", "did you mean 'angle'"]),
        ("[data]\nkind = 'phantom'\nn_coil = 3", ["data.n_coil", "did you mean 'n_coils'"]),
        ("[limits]\nconstraints = ['slow']", ["slow", "did you mean 'slew'"]),
        ("[limits.options.slow]\nweight = 1.0", ["slow", "did you mean 'slew'"]),
        ("[limits.options.slew]\nwait = 1.0", ["limits.options.slew.wait", "'slew'", "did you mean 'weight'"]),
        ("[limits.options.acoustics]\nlimit = 1.0", ["limits.constraints does not name 'acoustics'"]),
        ("[limits]\nconstraints = ['stimulation']", ["limits.options.stimulation.model", "required"]),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seed = -1", "seed"),
        ("seed = 1.5", "seed"),
        ("seed = 'a'", "seed"),
        ("training = 3", "training"),
        ("scanner = 3", "scanner"),
        ("init = 'radial'", "init"),
        ("[init]\nkind = 3", "init"),
        ("[training]\nepochs = 0", "training.epochs"),
        ("[training]\nbatch_size = 0", "training.batch_size"),
        ("[training]\nnetwork_rate = nan", "training.network_rate"),
        ("[training]\nnetwork_rate = inf", "training.network_rate"),
        ("[training]\ntrajectory_rate = -0.1", "training.trajectory_rate"),
        ("[training]\nnoise = nan", "training.noise"),
        ("[training]\nslices_at_once = -1", "training.slices_at_once"),
        ("[training]\nprecision = 'float16'", "training.precision"),
        ("[training]\nnormal = 'fft'", "training.normal"),
        ("[training]\ncompile = 'maybe'", "training.compile"),
        ("[training]\nworkers = -1", "training.workers"),
        ("[limits]\nweight = inf", "limits.weight"),
        ("[limits]\nmethod = 'hope'", "limits.method"),
        ("[limits]\nfrom_epoch = -1", "limits.from_epoch"),
        ("[limits]\nconstraints = 'slew'", "limits.constraints"),
        ("[scanner]\nmax_gradient = 40", "max_gradient"),
        ("[scanner]\nmax_gradient = nan", "max_gradient"),
        ("[scanner]\nmax_slew = inf", "max_slew"),
        ("[scanner]\nrf_raster = 0.0", "rf_raster"),
        ("[scanner]\nrf_raster = nan", "rf_raster"),
        ("[scanner]\nlimit_norm = 'l2'", "limit_norm"),
        ("[scanner]\nnucleus = '4He'", "nucleus"),
        ("[acquisition]\nfov = [220, 220]", "fov"),
        ("[acquisition]\nfov = [nan, 0.2]", "fov"),
        ("[acquisition]\nfov = 0.22", "fov"),
        ("[acquisition]\nmatrix = [128]", "matrix"),
        ("[acquisition]\nmatrix = [128.5, 128]", "matrix"),
        ("[acquisition]\ndwell = 4", "dwell"),
        ("[acquisition]\nn_shots = 0", "n_shots"),
        ("[acquisition]\nn_shots = true", "acquisition.n_shots: true is no number"),
        ("[training]\nnoise = false", "training.noise: false is no number"),
        ("[init]\nkind = 'spiral'\ndensity = true", "init.density"),
        ("[parameterization]\nkind = 'bspline'\nn_control = 1.5", "parameterization.n_control"),
        ("[init]\nkind = 'spiral'\ndensity = nan", "init.density"),
        ("[init]\nkind = 'radial'\nangle = 'square'", "init.angle"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(tmp_path, text, key):
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[init", b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2", b"a = " + b"[" * 100000])
def test_what_is_no_toml_is_an_input_error(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no valid TOML") as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_or_a_folder_is_an_input_error(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match=r"does not exist|not a regular file"):
            load_config(path)


def test_set_reads_toml_values_and_bare_words():
    settings = load_config(
        None,
        [
            "seed=3",
            "name = my run ",
            "acquisition.matrix=[64, 48]",
            "acquisition.fov=[0.2,0.15]",
            "training.network_rate=1e-4",
            "limits.method=penalty",
            'init.angle="golden"',
            "init.centre_out=true",
            "limits.constraints=['slew']",
        ],
    )
    assert settings.seed == 3
    assert settings.name == "my run"
    assert settings.acquisition.matrix == (64, 48)
    assert settings.training.network_rate == 1e-4
    assert settings.limits.method == "penalty"
    assert settings.init == {"kind": "radial", "angle": "golden", "golden_index": 7, "centre_out": True}
    assert settings.limits.constraints == ["slew"]


def test_set_wins_over_the_file_and_the_last_over_the_first(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("seed = 1\n[training]\nepochs = 5\nbatch_size = 2\n")
    settings = load_config(path, ["training.epochs=7", "seed=8", "seed=9"])
    assert (settings.training.epochs, settings.training.batch_size, settings.seed) == (7, 2, 9)


def test_another_kind_drops_the_options_of_the_old_one_but_no_given_one(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[init]\nkind = 'radial'\nangle = 'golden'\n")
    for overrides in (["init.kind=spiral", "init.density=2.0"], ["init.density=2.0", "init.kind=spiral"]):
        assert load_config(path, overrides).init == {
            "kind": "spiral",
            "density": 2.0,
            "turns": None,
            "in_out": False,
        }
    # an order in which they were typed does not lose one either
    for overrides in (["init.kind=radial", "init.angle=golden"], ["init.angle=golden", "init.kind=radial"]):
        assert load_config(None, overrides).init["angle"] == "golden"


@pytest.mark.parametrize(
    "override", ["seed", "=3", "", ".seed=3", "a..b=3", "init.=3", "seed.x=3", "init.kind.x=3", "x.kind=" + "[" * 9999]
)
def test_a_malformed_set_is_refused(override):
    with pytest.raises(ConfigError):
        load_config(None, ["init.kind=radial", "seed=1", override])


def test_to_dict_is_toml_that_loads_as_the_same(tmp_path):
    for overrides in (
        [],
        ["init.kind=spiral", "init.turns=3.0", "seed=5", "scanner.nucleus=23Na", "name=a \"b\" ü"],
        ["parameterization.kind=neural_ode", "parameterization.method=dopri5", "init.kind=cartesian"],
        ["limits.constraints=['slew', 'stimulation']", "limits.options={stimulation={model='xrm'}, slew={}}"],
        ["acquisition.fov=[0.2, 0.1]", "acquisition.matrix=[64, 32]", "limits.constraints=[]"],
    ):  # fmt: skip
        settings = load_config(None, overrides)
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(settings.to_dict()), encoding="utf-8")
        assert load_config(path) == settings
        # nothing is left to a default that may change
        with path.open("rb") as stream:
            tables = tomllib.load(stream)
        assert tables["scanner"]["gamma"] == settings.scanner.gamma
        assert set(tables["training"]) == set(models.Training.model_fields)


def test_the_options_of_constraints_are_resolved():
    overrides = ["limits.constraints=['slew', 'stimulation']", "limits.options.stimulation.model=xrm"]
    settings = load_config(None, [*overrides, "limits.options.stimulation.weight=30.0"])
    assert settings.limits.options == {"stimulation": {"model": "xrm", "limit": 0.8, "weight": 30.0}}
    assert load_config().limits.options == {}
    with pytest.raises(ConfigError, match=r"limits\.options\.stimulation\.weight: .*number"):
        load_config(None, [*overrides, "limits.options.stimulation.weight=much"])


def test_parse_options():
    assert parse_options(["a=1", "b.c=x y", "b.d=[1, 2.5]", "e=true"]) == {
        "a": 1,
        "b": {"c": "x y", "d": [1, 2.5]},
        "e": True,
    }
    with pytest.raises(ConfigError):
        parse_options(["a"])


LEAVES = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 300), max_size=3),
    st.dates(),
)
KEYS = [
    "seed",
    "name",
    "kind",
    "matrix",
    "fov",
    "dwell",
    "n_samples",
    "max_slew",
    "epochs",
    "weight",
    "constraints",
    "x",
]
TABLES = ["scanner", "acquisition", "init", "parameterization", "limits", "reconstructor", "data", "training", "y"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(KEYS + TABLES),
        st.one_of(LEAVES, st.dictionaries(st.sampled_from(KEYS), LEAVES, max_size=3)),
        max_size=3,
    )
)
def test_any_tables_load_or_are_refused_in_one_sentence(tmp_path_factory, tables):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    error = settings = None
    try:
        settings = load_config(path)
    except ConfigError as caught:
        error = str(caught)
    if settings is None:
        assert "\n" not in error
        assert len(error) < 1000
    else:
        assert Config(**settings.to_dict()) == settings


def test_a_start_is_an_init_or_the_init_with_other_options():
    assert load_config().start == {}
    init = {"kind": "cartesian", "power": 0.4}
    varied = models.from_tables({"init": init, "start": {"wave": 0.4}})
    assert varied.start == {**varied.init, "wave": 0.4}
    assert models.from_tables({"init": init, "start": {"kind": "epi"}}).start["kind"] == "epi"
    with pytest.raises(ConfigError, match=r"start.wav is no option of 'cartesian'; did you mean 'wave'"):
        models.from_tables({"init": init, "start": {"wav": 0.4}})


def test_a_scanner_is_known_by_its_profile_whatever_its_limits():
    for name in models.profiles():
        timing = models.with_profile({"profile": name})
        words = models.options_of(Scanner(**timing, max_gradient=30e-3, max_slew=100.0))
        rest = ["--max-gradient", "0.03", "--max-slew", "100.0"]
        of_profile = [] if timing == models.with_profile({"profile": "siemens"}) else ["--profile", name]
        assert words == [*of_profile, *rest], "philips plays with the numbers of siemens"
    almost = Scanner(**{**models.with_profile({"profile": "ge"}), "adc_dead_time": 11e-6}, limit_norm="axis")
    words = models.options_of(almost)
    assert words[:2] == ["--profile", "ge"]
    assert words[-4:] == ["--scanner", "limit_norm=axis", "--scanner", "adc_dead_time=1.1e-05"]
