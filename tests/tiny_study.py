"""Studies whose cells are trained in a second."""

SETTINGS = (
    "acquisition.matrix=[32, 32]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=128",
    "acquisition.dwell=8e-6",
    "data.n_train=2",
    "data.n_val=1",
    "data.n_test=3",
    "data.n_coils=1",
    "training.epochs=1",
    "training.batch_size=2",
    "training.validations=1",
    "reconstructor.channels=4",
    "reconstructor.levels=1",
)


def base(*settings, but=()):
    """Return the beginning of a study's TOML: what is common to its cells, but for keys that begin so."""
    found = dict(setting.split("=", 1) for setting in (*SETTINGS, *settings))
    return "".join(f"base.{key} = {value}\n" for key, value in found.items() if not key.startswith(tuple(but)))
