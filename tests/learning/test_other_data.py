"""What may be set for an evaluation, and what would be another run."""

import pytest
from faults.tiny import tiny

from trajdesign.config import models
from trajdesign.errors import ConfigError
from trajdesign.learning.other_data import settings

FILES = ["data.kind=images", "data.train=['a.nii']", "data.test_fraction=0.2", "data.n_coils=8", "data.seed=3"]
FILES += ["data.patient_pattern='(P[0-9]+)'", "data.slices_min_signal=0.5"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("acquisition.n_shots=4", "acquisition.n_shots cannot be set"),
        ("scanner.max_slew=100", "scanner.max_slew cannot be set"),
        ("reconstructor.kind=adjoint", "reconstructor.kind cannot be set"),
        ("parameterization.kind=fixed", "another run"),
        ("init.kind=spiral", "another run"),
        ("response.kind=girf", "another run"),
        ("limits.method=none", "another run"),
        ("training.epochs=1", "training.epochs cannot be set"),
        ("training.normal=chain", "training noise, coil_maps, knows_field, field_terms, batch_size"),
        ("seed=1", "seed cannot be set"),
        ("name=other", "name cannot be set"),
        ("data=5", "data cannot be set"),
        ("training=5", "training cannot be set"),
        ("data.train=['b.nii']", "data.train is of the training"),
        ("data.val_fraction=0.1", "data.val_fraction is of the training"),
        ("data.n_train=3", "data.n_train is of the training"),
        ("data.tets=['b.nii']", "did you mean 'test'"),
        ("training.noise=-1", "training.noise"),
        ("data.kind=imags", "did you mean 'images'"),
        ("data.test", "not of the form"),
    ],
)
def test_what_would_be_another_run_is_refused(override, said):
    with pytest.raises(ConfigError, match=said) as error:
        settings(tiny(*FILES), [override])
    assert len(str(error.value).splitlines()) == 1


def test_files_for_a_source_that_reads_none_need_another_source():
    with pytest.raises(ConfigError, match=r"'phantom', on which the run was trained, reads no files; set data\.kind"):
        settings(tiny(), ["data.test=['b.nii']"])


def test_other_files_keep_all_options_but_those_that_divide_the_training_files():
    run = tiny(*FILES)
    found = settings(run, ["data.test=['b.nii']", "training.noise=0.1"])
    assert found.data == {**run.data, "train": (), "test": ["b.nii"], "test_fraction": 0.0}
    assert found.training == run.training.model_copy(update={"noise": 0.1})
    assert models.differences(run, found) != []
    for table in set(type(run).model_fields) - {"data", "training"}:
        assert getattr(found, table) == getattr(run, table)
    assert settings(run, []) == run
    assert settings(run, ["data.n_coils=2"]).data == {**run.data, "n_coils": 2}


@pytest.mark.parametrize("turned", [False, True])
def test_another_source_starts_from_its_defaults_and_keeps_the_pattern_of_patients(turned):
    given = ["data.test=['b.h5']", "data.kind=fastmri", "data.key=k"]
    found = settings(tiny(*FILES), given[::-1] if turned else given).data
    defaults = models.load_config(None, ["data.kind=fastmri"]).data
    assert found == {**defaults, "test": ["b.h5"], "key": "k", "patient_pattern": "(P[0-9]+)"}
    own = settings(tiny(*FILES), [*given, "data.patient_pattern=x"]).data
    assert own["patient_pattern"] == "x"
    assert settings(tiny(*FILES), ["data.kind=phantom"]).data == tiny("data.kind=phantom").data


def test_a_static_field_may_be_asked_for_and_taken_away():
    of_run = models.from_tables({"field": {"kind": "random", "amplitude": 50, "t2_star": 0.03}})
    assert settings(of_run, ["field={}"]).field == {}
    assert settings(of_run, ["field.amplitude=80"]).field == {**of_run.field, "amplitude": 80.0}
    assert settings(of_run, []).field == of_run.field
    assert settings(models.from_tables({}), ["field.kind=random"]).field["kind"] == "random"
    with pytest.raises(ConfigError, match="field"):
        settings(of_run, ["field.kind=nothing"])
