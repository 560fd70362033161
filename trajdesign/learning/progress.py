"""What a training says while it goes on: where it is, how many images it has, and how many steps that makes."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.config.models import Config
from trajdesign.interfaces import Progress
from trajdesign.learning.results import LEARNED
from trajdesign.runtime.processes import Ranks

Say = Callable[[str], None]
Watch = Callable[[Progress], None]


def listeners(say: Say | None, report: Watch | None, ranks: Ranks, *, quiet: bool) -> tuple[Say, Watch, Say]:
    """Return who hears what matters, every step, and what takes long; who was not named is told on standard output.

    Only the first rank speaks.
    """
    talks = ranks.is_first and not quiet
    say = say or (_print if talks else _ignore)
    report = report or (validations(_print) if talks else _ignore)
    return (say, report, say if talks else _ignore) if ranks.is_first else (say, _ignore, _ignore)


@contextlib.contextmanager
def taking_long(tell: Say, sentence: str, seconds: float = 1.0) -> Iterator[None]:
    """Say a sentence if the block is not done after some seconds: what is refused at once is one sentence alone."""
    timer = threading.Timer(seconds, tell, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _ignore(_: object) -> None:
    pass


def _print(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def validations(say: Say) -> Watch:
    """Return a watcher that says at every validation where the run is."""

    def watch(at: Progress) -> None:
        if at.is_validation:
            say(str(at))

    return watch


def plan(config: Config, data: Mapping[str, Dataset[Tensor]], stages: Sequence[str]) -> str:
    """Return how many images go where, and how many steps that makes."""
    n_images, epochs = len(data["train"]), config.training.epochs  # type: ignore[arg-type]
    batch_size = min(config.training.batch_size, n_images)
    steps = n_images // batch_size
    verbs = {"train": "Training on", "val": "validating on", "test": "testing on"}
    where = ", ".join(f"{verb} {count(data[split], config)}" for split, verb in verbs.items())
    trials = len(config.starts) if len(config.starts) > 1 and LEARNED in stages else 0
    tried = f" First {trials} starts are tried, each for {config.training.trial:.0%} of that." if trials else ""
    makes = " and ".join(f"{_number(epochs * steps, 'step')} {stage}" for stage in stages)
    each = _number(batch_size, _image(config))
    return f"{where}. {_number(epochs, 'epoch')} of {_number(steps, 'step')} with {each} each: {makes}.{tried}"


def count(images: Dataset[Tensor], config: Config) -> str:
    """Return how many slices, volumes or films there are, and of whom if the dataset knows."""
    origin = getattr(images, "origin", "")
    return _number(len(images), _image(config)) + (f" of {origin}" if origin else "")  # type: ignore[arg-type]


def _image(config: Config) -> str:
    """Return what an image of an acquisition is called."""
    acquisition = config.acquisition
    return "film" if acquisition.n_frames > 1 else "volume" if acquisition.n_dims == 3 else "slice"


def _number(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
