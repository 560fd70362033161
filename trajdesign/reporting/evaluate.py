"""A finished run on other data: its scores there, and a picture."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from trajdesign.errors import ConfigError
from trajdesign.files.atomic import atomic_path
from trajdesign.learning import other_data
from trajdesign.learning.other_data import Evaluation
from trajdesign.learning.results import to_json
from trajdesign.reporting import report

_FILES = ("evaluation.json", "reconstruction.png")


def evaluate(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    stage: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    watch: Callable[[str, int, int], None] = lambda *_: None,
    say: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Test a finished run on other data as at the end of its training, and train nothing.

    Trajectories, networks, matrix, coil maps and noise are those of the run. Images are fitted onto its matrix; they
    may have another number of coils if its network takes any. The run folder is only read.

    As in training, no file, no patient and no image to test on may be one that was trained or validated on. So the
    run's own data are read again, from where it had them; if they are not there, `say` is told that this is not known.
    An image is not known again in k-space, but its patient is.

    Parameters
    ----------
    run
        Run folder.
    overrides
        ``"a.b=value"`` each, as of `trajdesign.load_config`: options of ``data``, as ``data.test``; ``training.noise``,
        ``training.coil_maps``, ``training.batch_size``, ``training.slices_at_once``; of ``field``; and perturbations,
        of which those of the training are none. Without any it is the run's own test. Another ``data.kind`` starts from
        the defaults of that source, and keeps nothing of the run's but ``patient_pattern``. With the same one all
        options stay, but for those that divide the training files.
    out
        Folder to write: ``evaluation.json`` (`Evaluation.tables`) and ``reconstruction.png``, the middle image that
        counts as each stage shows it. Nothing is written without it.
    stage
        Only ``"fixed"`` or ``"learned"``.
    device
        ``auto``, ``cpu``, ``cuda`` or another torch device.
    overwrite
        Whether an earlier evaluation may be replaced.
    watch
        Called after every batch with the stage, and how many of how many images are done.
    say
        Called with a sentence about the images, or about what takes long. By default it is printed.
    quiet
        Print nothing, and call `say` only about the images.

    Returns
    -------
    trajdesign.learning.other_data.Evaluation
        The results, of each image too, and of what.

    Raises
    ------
    ConfigError
        If a setting would make another run, or makes no sense, or the run was trained on a test image.
    InputError
        If the run is not finished or damaged, or an image cannot be read.
    OutputError
        If the folder holds an evaluation already.
    DivergedError
        If a network makes no finite image.
    """
    with ExitStack() as files:
        if out is not None and Path(out).resolve().is_relative_to(Path(run).resolve()):
            raise ConfigError(f"{out} is in the run folder, which is not changed; choose another --out.")
        names = _FILES if out is not None else ()
        to = {name: files.enter_context(atomic_path(Path(out or "") / name, overwrite=overwrite)) for name in names}
        found = other_data.score(run, overrides, stage=stage, device=device, watch=watch, say=say, quiet=quiet)
        if to:
            to["evaluation.json"].write_text(to_json(found.tables()) + "\n", encoding="utf-8", newline="\n")
            report.draw_evaluation(found, to["reconstruction.png"])
    return found
